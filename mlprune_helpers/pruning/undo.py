"""Changes of weights that can be taken back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType

from torch import Tensor, nn

from ..models.architecture import weight_matrix


@dataclass
class _Overwritten:
    """Some weights of a matrix as they were: all, or where the mask says so."""

    weight: Tensor
    mask: Tensor | None
    values: Tensor

    def put_back(self) -> None:
        if self.mask is None:
            self.weight.copy_(self.values)
        else:
            self.weight[self.mask.to(self.weight.device)] = self.values


class Changes:
    """Changes weights; if the ``with`` block fails, whatever the reason, every bit is put back."""

    def __init__(self) -> None:
        self._overwritten: list[_Overwritten] = []

    def zero(self, weight: Tensor, mask: Tensor) -> None:
        """Set to zero what the mask marks."""
        values = weight[mask.to(weight.device)]
        self._overwritten.append(_Overwritten(weight, mask, values))
        weight.masked_fill_(mask.to(weight.device), 0)

    def replace(self, weight: Tensor, new: Tensor) -> None:
        """Overwrite all weights of a matrix."""
        self._overwritten.append(_Overwritten(weight, None, weight.clone()))
        weight.copy_(new)

    def __enter__(self) -> Changes:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None:
            for overwritten in reversed(self._overwritten):  # of twice the same matrix, the first
                overwritten.put_back()
        self._overwritten.clear()


class Copy:
    """A copy of the weights of matrices."""

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self._modules = dict(modules)
        self._weights = {name: weight_matrix(m).clone() for name, m in modules.items()}

    def put_back(self) -> None:
        """Give the matrices the weights that they had, bit for bit."""
        for name, module in self._modules.items():
            weight_matrix(module).copy_(self._weights[name])
