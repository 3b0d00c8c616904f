"""The interval of a single mean, such as an accuracy."""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import beta, norm, t as student

from .checks import as_row_of_numbers, check_whole_number
from .grouping import contributions_and_weights, sums_and_sizes

#: Resamples are drawn so many at a time, so that memory does not grow with their number.
_RESAMPLES_AT_ONCE = 1000

#: Probability that is left out below a 95 % interval, and above it.
_TAIL = 0.025

#: Groups that differ from the others, before resampling them shows how far the mean may be off.
_ENOUGH = 5


def bootstrap_interval(
    values: ArrayLike,
    *,
    groups: Collection[Hashable] | None = None,
    strata: Collection[Hashable] | None = None,
    n_resamples: int = 10_000,
    seed: int = 0,
) -> tuple[float, float]:
    """95 % interval of a mean: whole groups are drawn with replacement.

    It is the expanded percentile interval (Hesterberg 2014, arXiv 1411.5279): the
    plain one is too narrow for few groups, by Student's t instead of z and by n - 1 instead of n.

    Near 0 and 1 resamples say too little, and nothing where all answers are right, since then all
    of them are the same.  So a share (of which all values lie from 0 to 1) has the interval of
    Clopper and Pearson (1934) where fewer than five groups' worth of answers are right, or wrong.
    It takes each group for one answer, and groups of different sizes for as many equal ones as
    weigh alike (Kish 1965).  Other figures that do not differ between groups have an unbounded
    interval.

    Args:
        values: (n,) 1 or 0 a row, or any finite figure.
        groups: (n,) see :func:`paired_bootstrap`.
        strata: (n,) see :func:`paired_bootstrap`.
        n_resamples: How many resamples.
        seed: Of the random draws.

    Returns:
        Its lower and its upper end.

    Raises:
        TypeError: A text, a set or a dict stands for a list.
        ValueError: ``values`` is empty, a row has a missing or infinite value, or no group.
    """
    rows = as_row_of_numbers(values, "values")
    check_whole_number(n_resamples, "n_resamples", at_least=1)
    check_whole_number(seed, "seed", at_least=0)
    sums, sizes = sums_and_sizes(rows, groups, strata)
    is_share = bool(rows.min() >= 0 and rows.max() <= 1)
    if is_share and (near_edge := _near_edge(*contributions_and_weights(sums, sizes))):
        return near_edge
    low, high = _expanded_percentiles(sums, sizes, n_resamples, seed)
    if high - low > 1e-12 * np.abs(rows).max():
        return low, high
    return -math.inf, math.inf


def _near_edge(contributions: np.ndarray, weights: np.ndarray) -> tuple[float, float] | None:
    """The interval of a share to which few groups are an exception; None where many are."""
    share = float(np.clip(contributions.sum(), 0, 1))
    n_equal_groups = float(1 / (weights**2).sum())
    if n_equal_groups * min(share, 1 - share) >= _ENOUGH:
        return None
    return _clopper_pearson(share, n_equal_groups)


def _clopper_pearson(share: float, n: float) -> tuple[float, float]:
    """Exact interval of a share of n independent answers."""
    n_right = share * n
    low = beta.ppf(_TAIL, n_right, n - n_right + 1) if share > 0 else 0.0
    high = beta.ppf(1 - _TAIL, n_right + 1, n - n_right) if share < 1 else 1.0
    return float(low), float(high)


def _expanded_percentiles(
    sums: np.ndarray, sizes: np.ndarray, n_resamples: int, seed: int
) -> tuple[float, float]:
    """Percentiles of the resampled means, as far apart as a t-interval of as many groups."""
    n_groups = len(sums)
    if n_groups == 1:
        return -math.inf, math.inf
    n_errors = math.sqrt(n_groups / (n_groups - 1)) * student.ppf(1 - _TAIL, n_groups - 1)
    tail = norm.cdf(-n_errors)
    means = _resampled_means(sums, sizes, n_resamples, seed)
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def _resampled_means(
    sums: np.ndarray, sizes: np.ndarray, n_resamples: int, seed: int
) -> np.ndarray:
    """Mean over strata of the means of groups drawn with replacement: (n_resamples,)."""
    rng = np.random.default_rng(seed)
    n_groups = len(sums)
    equally = np.full(n_groups, 1 / n_groups)
    means = []
    for start in range(0, n_resamples, _RESAMPLES_AT_ONCE):
        n_now = min(_RESAMPLES_AT_ONCE, n_resamples - start)
        picks = rng.multinomial(n_groups, equally, size=n_now)
        # A stratum of which nothing was drawn has no mean, and is left out of the mean over strata.
        with np.errstate(invalid="ignore"):
            means.append(np.nanmean((picks @ sums) / (picks @ sizes), axis=1))
    return np.concatenate(means)
