"""The largest features, and whether what is large here is small there."""

from __future__ import annotations

import numpy as np

from .checks import checked_numbers, is_number


def top_features(norms: np.ndarray, fraction: float = 0.3) -> np.ndarray:
    """At each layer, the ``floor(fraction · hidden_size)`` features with the largest norms.

    Args:
        norms: (..., hidden_size), any numbers but NaN.  Of equal ones, the first is taken.
        fraction: Share to take, in (0, 1].

    Returns:
        Bool array of the same shape.

    Raises:
        ValueError: If ``fraction`` is out of range, or a norm is NaN.
    """
    if not is_number(fraction) or not 0 < fraction <= 1:
        raise ValueError(f"fraction is {fraction!r}; allowed: a number in (0, 1].")
    sizes = checked_numbers("norms", norms)
    if sizes.ndim == 0:
        raise ValueError("norms are one number; allowed: an array (..., hidden_size).")
    count = int(fraction * sizes.shape[-1] + 1e-9)
    largest = np.argsort(-sizes, axis=-1, kind="stable")[..., :count]
    chosen = np.zeros(sizes.shape, dtype=bool)
    np.put_along_axis(chosen, largest, True, axis=-1)
    return chosen


def overlap(a: np.ndarray, b: np.ndarray, *, top: float = 0.3, bottom: float = 0.3) -> np.ndarray:
    """Share of the top features of ``a`` that are among the bottom features of ``b``, by layer.

    Unrelated inputs give ``bottom`` (chance), equal ones 0 (Kim et al., arXiv 2409.16911).

    Args:
        a: Norms (..., hidden_size).
        b: Norms of the same shape.
        top: Share of ``a`` that counts as large, in (0, 1].
        bottom: Share of ``b`` that counts as small, in (0, 1].

    Returns:
        Shares (...): the last dimension is gone.

    Raises:
        ValueError: If the shapes differ, a norm is NaN, or ``top`` is less than one feature.
    """
    if np.shape(a) != np.shape(b):
        raise ValueError(
            f"Norms of the same features are needed; these have the shapes {np.shape(a)} and "
            f"{np.shape(b)}."
        )
    large = top_features(a, top)
    small = top_features(-checked_numbers("norms", b), bottom)
    if not large.any():
        raise ValueError(f"top is {top}, less than one of {large.shape[-1]} features: raise it.")
    return (large & small).sum(axis=-1) / large.sum(axis=-1)
