"""The sign-flips, or swaps, of paired units: one supply for all tests."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

#: Flips are made so many numbers at a time, so that memory does not grow with their count.
_NUMBERS_AT_ONCE = 2_000_000


def kept_units(n_units: int, n_resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Which units stay as they are and which are flipped, in every flip.

    All 2 ** n_units patterns, if they are no more than ``n_resamples``; else the data as they are
    and ``n_resamples`` random patterns.  In both cases the data themselves are among them, so that
    the share of patterns at least as extreme is a p-value whose error rate holds exactly (Phipson
    and Smyth 2010, arXiv 1603.05766).

    Args:
        n_units: Groups, sentences or whatever is flipped as a whole.
        n_resamples: How many random patterns.
        seed: Of their draw.

    Yields:
        (some flips, n_units), 1.0 where a unit stays and 0.0 where it is flipped.
    """
    n_at_once = max(1, _NUMBERS_AT_ONCE // n_units)
    if n_units < 64 and 2**n_units <= n_resamples:
        for start in range(0, 2**n_units, n_at_once):
            patterns = np.arange(start, min(start + n_at_once, 2**n_units))
            yield (patterns[:, None] >> np.arange(n_units) & 1).astype(float)
        return
    yield np.ones((1, n_units))
    rng = np.random.default_rng(seed)
    for start in range(0, n_resamples, n_at_once):
        size = (min(n_at_once, n_resamples - start), n_units)
        yield rng.integers(2, size=size, dtype=np.uint8).astype(float)
