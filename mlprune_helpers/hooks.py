"""What a forward pass lets us see and change."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .models.architecture import (
    hidden_output,
    hidden_parameter,
    split_call,
    with_hidden_input,
    with_hidden_output,
)
from .models.language_model import LanguageModel

#: Sums over the inputs of a matrix that :class:`InputSums` can keep.
KINDS = ("count", "sums", "squares", "products")


@contextlib.contextmanager
def residual_stream(
    lm: LanguageModel, see: Callable[[int, Tensor], Tensor | None]
) -> Iterator[None]:
    """While active, a forward pass calls ``see(layer, hidden)`` for layers 0 … n_layers.

    Args:
        lm: The model.
        see: Called with the layer and its hidden states (batch, length, hidden_size).  Layer l is
            what block l receives, the last one what the last block puts out.  A tensor that it
            returns takes their place.
    """
    parameter = hidden_parameter(lm.layers[0])

    def before_block(layer: int) -> Callable:
        def hook(module: nn.Module, args: tuple, kwargs: dict) -> Any:
            hidden, _ = split_call(parameter, args, kwargs)
            new = see(layer, hidden)
            return None if new is None else with_hidden_input(parameter, args, kwargs, new)

        return hook

    def after_last(module: nn.Module, args: tuple, output: Any) -> Any:
        new = see(len(lm.layers), hidden_output(output))
        return None if new is None else with_hidden_output(output, new)

    with contextlib.ExitStack() as hooks:
        for layer, block in enumerate(lm.layers):
            hooks.enter_context(
                block.register_forward_pre_hook(before_block(layer), with_kwargs=True)
            )
        hooks.enter_context(lm.layers[-1].register_forward_hook(after_last))
        yield


class _LastInputSeen(Exception):
    """All matrices have seen their inputs; what the last one makes of it does not matter."""


class InputSums:
    """Running sums over the inputs of matrices, in float32 or better whatever the model's own type.

    Args:
        matrices: {name: linear map} to watch.
        kinds: Which sums: "count" (how much was added, ()), "sums" and "squares" (in_features,), in
            float64; "products", sums of x xᵀ (in_features, in_features).
    """

    def __init__(self, matrices: Mapping[str, nn.Module], kinds: Collection[str] = ("squares",)):
        unknown = [kind for kind in kinds if kind not in KINDS]
        if unknown:
            raise ValueError(f"kind is {unknown[0]!r}; allowed: {', '.join(KINDS)}.")
        self.matrices = matrices
        self.kinds = tuple(kinds)
        self.totals: dict[str, dict[str, Tensor]] = {}
        #: Calls of matrices in the last pass: where the next one may stop.
        self.calls = 0

    @contextlib.contextmanager
    def counting(
        self, counted: Tensor, weight: float = 1.0, stop_at: int | None = None
    ) -> Iterator[None]:
        """Add what comes in at ``counted`` positions during a pass; nothing, if the pass fails.

        Args:
            counted: Bool (batch, length).
            weight: What every position counts.
            stop_at: The pass ends at this call of a matrix, once its input has been seen.
        """
        batch = _BatchSums(self.kinds, counted, weight, stop_at)
        with contextlib.ExitStack() as hooks:
            for name, module in self.matrices.items():
                hooks.enter_context(module.register_forward_pre_hook(batch.hook_of(name)))
            with contextlib.suppress(_LastInputSeen):
                yield
        self.calls = batch.calls
        for name, sums in batch.found.items():
            self.totals[name] = _added(self.totals.get(name), sums)

    def checked(self) -> dict[str, dict[str, Tensor]]:
        """{name: {kind: sums}}.

        Raises:
            ValueError: For a matrix that saw no input, or one that is not finite.
        """
        for name in self.matrices:
            if name not in self.totals:
                raise ValueError(
                    f"{name} was never used in the forward pass, so its inputs are unknown."
                )
            if not all(torch.isfinite(total).all() for total in self.totals[name].values()):
                raise ValueError(
                    f"Inputs of {name} are not finite; load the model in float32 or bfloat16."
                )
        return {name: self.totals[name] for name in self.matrices}


class _BatchSums:
    """Sums over one pass, kept apart until the pass has succeeded."""

    def __init__(self, kinds: tuple[str, ...], counted: Tensor, weight: float, stop_at: int | None):
        self.kinds = kinds
        self.counted = counted
        self.everything = bool(counted.all())
        self.weight = weight
        self.stop_at = stop_at
        self.calls = 0
        self.found: dict[str, dict[str, Tensor]] = {}
        # Query, key and value read the same tensor: it is summed once.
        self.last_input: Tensor | None = None
        self.last_sums: dict[str, Tensor] = {}

    def hook_of(self, name: str) -> Callable:
        def hook(module: nn.Module, args: tuple) -> None:
            self.calls += 1
            if args[0] is not self.last_input:
                self.last_input = args[0]
                self.last_sums = self._sums_of(args[0])
            self.found[name] = _added(self.found.get(name), self.last_sums)
            if self.calls == self.stop_at:
                raise _LastInputSeen

        return hook

    def _sums_of(self, inputs: Tensor) -> dict[str, Tensor]:
        rows = inputs.flatten(0, -2)  # OPT has put batch and length into one dimension already
        if not self.everything:
            rows = rows[self.counted.flatten().to(rows.device)]
        rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
        return {kind: self._sum_of(kind, rows) * self.weight for kind in self.kinds}

    def _sum_of(self, kind: str, rows: Tensor) -> Tensor:
        if kind == "count":
            return torch.tensor(len(rows), dtype=torch.float64, device=rows.device)
        if kind == "sums":
            return rows.sum(dim=0, dtype=torch.float64)
        if kind == "products":
            return rows.T @ rows
        return torch.linalg.vector_norm(rows, dim=0).double().square()


def _added(total: dict[str, Tensor] | None, more: dict[str, Tensor]) -> dict[str, Tensor]:
    return dict(more) if total is None else {kind: total[kind] + more[kind] for kind in more}
