"""Two means on the same rows: the sign-flip test of whole groups, and its inversion."""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable

import numpy as np
from numpy.typing import ArrayLike

from .checks import as_numbers, check_whole_number
from .difference import SMALLEST_N_GROUPS, Comparison
from .flips import kept_units
from .grouping import contributions_and_weights, sums_and_sizes
from .p_values import smallest_p_value

#: A 95 % interval keeps what more than one in so many sign-flips support.
_ONE_IN = 20


def paired_bootstrap(
    correct_a: ArrayLike,
    correct_b: ArrayLike,
    *,
    groups: Collection[Hashable] | None = None,
    strata: Collection[Hashable] | None = None,
    n_resamples: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Difference of two means on the same rows, with a sign-flip test of whole groups.

    If nothing but chance told a from b, each group's difference could as well have had the other
    sign.  The p-value is the share of sign-flips that give a difference at least as large as the
    one found.  The 95 % interval holds the shifts that the same flips do not reject at 5 %, once
    the shift is taken from every row: so 0 lies in it exactly where the p-value is above 0.05.

    A flip parts the groups in two, those that keep their sign and those that change it, and the
    shifts that it supports lie between the means of both (Hartigan 1969, "Using subsample values as
    typical values", JASA 64).  So the ends of the interval are order statistics of such means.

    Args:
        correct_a: (n,) 1 or 0 a row, or any finite figure.  Zeros test whether the mean of
            ``correct_b`` is zero.
        correct_b: (n,) the same rows in the same order (not by the index of a pandas Series).
        groups: (n,) Rows that are not independent share a value: hypotheses of one premise, the
            same example in several languages.  Default: every row by itself.
        strata: (n,) The language of each row; then a mean is the mean of the languages' means, and
            a group is flipped in all languages at once.  Default: one stratum.
        n_resamples: How many random sign-flips; where the groups have no more patterns of signs
            than that, all patterns are taken instead.
        seed: Of the random draws.

    Returns:
        The mean of ``correct_b`` minus that of ``correct_a``, as a :class:`Comparison`.  Its
        p-value is at least :func:`smallest_p_value` of the groups; fewer than six groups cannot
        come below 0.05, so their interval is unbounded.  So it is where no group rose or fell: in
        the data at hand all shifts are 0, but how far others would be from it they cannot tell.

    Raises:
        TypeError: A text, a set or a dict stands for a list.
        ValueError: Lengths differ or are 0, or a row has a missing or infinite value, or no group.

    Example:
        >>> str(paired_bootstrap([0, 0, 0, 0, 0, 0, 1], [1, 1, 1, 1, 1, 1, 1]))
        '+85.7 points (95 % interval +50.0 to +100.0, p = 0.031, 7 rows in 7 groups)'
    """
    a, b = as_numbers(correct_a, "correct_a"), as_numbers(correct_b, "correct_b")
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise ValueError(
            f"Two equally long rows of numbers are needed; these have the shapes {a.shape} and "
            f"{b.shape}."
        )
    check_whole_number(n_resamples, "n_resamples", at_least=1)
    check_whole_number(seed, "seed", at_least=0)
    contributions, weights = contributions_and_weights(*sums_and_sizes(b - a, groups, strata))
    difference = float(_without_rounding(contributions.sum(), contributions))
    lows, highs = _supported_shifts(contributions, weights, n_resamples, seed)
    signs = np.sign(_without_rounding(contributions, contributions))
    low, high = _inverted(lows, highs, len(contributions)) if signs.any() else (-math.inf, math.inf)
    return Comparison(
        difference=difference,
        low=low,
        high=high,
        p_value=_p_value(lows, highs, len(contributions), n_resamples),
        n=len(a),
        n_groups=len(contributions),
        n_better=int((signs > 0).sum()),
        n_worse=int((signs < 0).sum()),
        standard_error=_standard_error(difference, contributions, weights),
    )


def _supported_shifts(
    contributions: np.ndarray, weights: np.ndarray, n_resamples: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper end of the shifts that each sign-flip supports, both (n_flips,).

    With the difference D, the sums A of signed contributions and B of signed weights, a flip is at
    least as extreme as the data less a shift d where |A - d B| >= |D - d|: between the means of
    both parts, (D + A) / (1 + B) and (D - A) / (1 - B).  Where all groups are in one part, the flip
    is as extreme for every shift.
    """
    difference = _without_rounding(contributions.sum(), contributions)
    lows, highs = [], []
    for kept in kept_units(len(contributions), n_resamples, seed):
        of_kept = _means(kept, contributions, weights)
        of_flipped = _means(1 - kept, contributions, weights)
        # The difference lies between both means, but for rounding.
        low = np.minimum(np.minimum(of_kept, of_flipped), difference)
        high = np.maximum(np.maximum(of_kept, of_flipped), difference)
        lows.append(np.where(np.isnan(low), -math.inf, low))
        highs.append(np.where(np.isnan(high), math.inf, high))
    return np.concatenate(lows), np.concatenate(highs)


def _means(chosen: np.ndarray, contributions: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean of the chosen groups (n_flips,); NaN where none is."""
    with np.errstate(invalid="ignore"):
        return _without_rounding(chosen @ contributions, contributions) / (chosen @ weights)


def _without_rounding(sums: np.ndarray, contributions: np.ndarray) -> np.ndarray:
    """Sums of contributions, 0 where only rounding keeps them from it: ties are to count."""
    return np.where(np.abs(sums) <= 1e-12 * np.abs(contributions).sum(), 0.0, sums)


def _p_value(lows: np.ndarray, highs: np.ndarray, n_groups: int, n_resamples: int) -> float:
    """Share of the flips that support no difference, but no less than the groups allow."""
    share = np.mean((lows <= 0) & (highs >= 0))
    return max(float(share), smallest_p_value(n_groups, n_resamples))


def _inverted(lows: np.ndarray, highs: np.ndarray, n_groups: int) -> tuple[float, float]:
    """The shifts that more than 5 % of the flips support: they lie around the difference."""
    if n_groups < SMALLEST_N_GROUPS:
        return -math.inf, math.inf
    n_too_few = len(lows) // _ONE_IN  # whole numbers, since 0.05 is none in binary
    return float(np.sort(lows)[n_too_few]), float(np.sort(highs)[-1 - n_too_few])


def _standard_error(difference: float, contributions: np.ndarray, weights: np.ndarray) -> float:
    """By the jackknife: how far the difference moves when a group is left out.

    Of one stratum, it is (D - c) / (1 - w) without the group.  With single rows for groups, this is
    the standard error of their mean; where groups differ in size, it is less biased than the plain
    spread of groups.
    """
    n = len(contributions)
    if n == 1:
        return math.inf
    moves = _without_rounding(contributions - difference * weights, contributions) / (1 - weights)
    return float(np.sqrt((n - 1) / n * (moves**2).sum()))
