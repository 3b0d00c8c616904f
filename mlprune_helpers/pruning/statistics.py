"""Statistics of a matrix's inputs: what a score may ask for, and the sums that each is made from.

This is the one place to extend: ``STATISTICS["rms"] = lambda count, squares: (squares /
count).sqrt()`` lets every score ask for ``input_rms`` and ``contrast_rms``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping

from torch import Tensor

#: Whose inputs: those of the calibration data, and of what is not to be favoured.
CORPORA = ("input", "contrast")


def _norm(squares: Tensor) -> Tensor:
    """L2 norm over the tokens."""
    return squares.sqrt()


def _squares(squares: Tensor) -> Tensor:
    """Sum of squares over the tokens."""
    return squares


def _mean(count: Tensor, sums: Tensor) -> Tensor:
    """Mean over the tokens, with its sign."""
    return sums / count


def _std(count: Tensor, sums: Tensor, squares: Tensor) -> Tensor:
    """Standard deviation over the tokens (of the population: divided by their number)."""
    variance = squares / count - _mean(count, sums).square()
    return variance.clamp_min(0).sqrt()  # rounding can bring it below zero


def _products(products: Tensor) -> Tensor:
    """Sum of x xᵀ over the tokens."""
    return products


#: Name: a function of raw sums.  Its parameters name them: "count" (), "sums", "squares"
#: (in_features,) or "products" (in_features, in_features), all in float64.
STATISTICS: dict[str, Callable[..., Tensor]] = {
    "norm": _norm,
    "squares": _squares,
    "mean": _mean,
    "std": _std,
    "products": _products,
}


def known_statistics() -> dict[str, tuple[str, str]]:
    """Every name that a score may ask for → whose inputs, and which statistic of them."""
    names = {
        f"{corpus}_{statistic}": (corpus, statistic)
        for corpus in CORPORA
        for statistic in STATISTICS
    }
    return {**names, "products": ("input", "products")}


def kinds_of(statistic: str) -> tuple[str, ...]:
    """The raw sums that a statistic is made from."""
    return tuple(inspect.signature(STATISTICS[statistic]).parameters)


def statistic_of(statistic: str, sums: Mapping[str, Tensor]) -> Tensor:
    """A statistic from {kind: raw sums}."""
    return STATISTICS[statistic](**{kind: sums[kind].double() for kind in kinds_of(statistic)})
