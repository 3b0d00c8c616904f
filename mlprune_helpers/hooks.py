"""What a forward pass lets us see and change."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from .models.language_model import LanguageModel


def hidden_input(args: tuple, kwargs: dict) -> Tensor:
    """The hidden states (batch, length, hidden) that a decoder block is called with."""
    return args[0] if args else kwargs["hidden_states"]


@contextlib.contextmanager
def residual_stream(
    lm: LanguageModel, see: Callable[[int, Tensor], Tensor | None]
) -> Iterator[None]:
    """While active, a forward pass calls ``see(layer, hidden)`` for layers 0 … n_layers.

    ``hidden``: (batch, length, hidden_size).  A tensor that ``see`` returns takes its place.
    """

    def before(module, args, kwargs, layer):
        if (new := see(layer, hidden_input(args, kwargs))) is not None:
            return ((new, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": new})

    def after(module, args, output):
        if (
            new := see(len(lm.layers), output[0] if isinstance(output, tuple) else output)
        ) is not None:
            return (new, *output[1:]) if isinstance(output, tuple) else new

    with contextlib.ExitStack() as hooks:
        for i, block in enumerate(lm.layers):
            hooks.enter_context(
                block.register_forward_pre_hook(partial(before, layer=i), with_kwargs=True)
            )
        hooks.enter_context(lm.layers[-1].register_forward_hook(after))
        yield


class InputSquares:
    """Running sums over the inputs of matrices, in float32 or better whatever the model's own type.

    ``sums``: {name: sum of squares (in,), float64}; with ``products``, {name: sum of x xᵀ (in, in)}, for SparseGPT.
    """

    class LastInput(Exception):
        """All matrices have seen their inputs; what the last one makes of it does not matter."""

    def __init__(self, matrices: dict[str, torch.nn.Module], products: bool = False):
        self.matrices, self.products, self.sums, self.calls = matrices, products, {}, 0

    @contextlib.contextmanager
    def counting(
        self, counted: Tensor, weight: float = 1.0, stop_at: int | None = None
    ) -> Iterator[None]:
        """Add, times ``weight``, what comes in at ``counted`` (batch, length); nothing, if the pass fails.

        ``stop_at``: the pass ends at this call of a matrix, once its input has been seen.
        """
        batch: dict[str, Tensor] = {}
        last: list = [None, None]  # query, key and value read the same tensor: square it once
        everything, calls = bool(counted.all()), 0

        def before(module, args, name):
            nonlocal calls
            inputs, calls = args[0], calls + 1
            if inputs is not last[0]:
                rows = inputs.flatten(
                    0, -2
                )  # OPT has put batch and length into one dimension already
                rows = rows if everything else rows[counted.flatten().to(rows.device)]
                rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
                squares = (
                    rows.T @ rows
                    if self.products
                    else torch.linalg.vector_norm(rows, dim=0).double().square()
                )
                last[:] = inputs, squares * weight
            batch[name] = batch[name] + last[1] if name in batch else last[1]
            if calls == stop_at:
                raise self.LastInput

        with contextlib.ExitStack() as hooks:
            for name, module in self.matrices.items():
                hooks.enter_context(module.register_forward_pre_hook(partial(before, name=name)))
            with contextlib.suppress(self.LastInput):
                yield
        self.calls = calls
        for name, squares in batch.items():
            self.sums[name] = self.sums[name] + squares if name in self.sums else squares

    def checked(self) -> dict[str, Tensor]:
        """{name: sums}, checked to be there and finite."""
        for name in self.matrices:
            if name not in self.sums:
                raise ValueError(
                    f"{name} was never used in the forward pass, so its inputs are unknown."
                )
            if not torch.isfinite(self.sums[name]).all():
                raise ValueError(
                    f"Inputs of {name} are not finite; load the model in float32 or bfloat16."
                )
        return {name: self.sums[name] for name in self.matrices}
