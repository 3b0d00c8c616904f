"""What p-values can be, what they become when there are many, and coins that explain them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binomtest

from .checks import as_numbers, as_row_of_numbers, check_whole_number

_ALTERNATIVES = ("less", "greater", "two-sided")


def smallest_p_value(n_units: int, n_resamples: int) -> float:
    """The smallest p-value that a two-sided paired test can honestly give: one rule for all tests.

    ``n_units`` independent pairs have 2 ** n_units patterns of signs, of which two have all signs
    alike; and n random resamples, with the data themselves, tell no probability below 1 / (n + 1).

    Args:
        n_units: Groups, sentences or whatever is exchanged as a whole.
        n_resamples: Random resamples, or sign-flips.

    Returns:
        The larger of both bounds; 1 for a single unit.
    """
    check_whole_number(n_units, "n_units", at_least=1)
    check_whole_number(n_resamples, "n_resamples", at_least=1)
    return max(2.0 ** (1 - n_units), 1 / (1 + n_resamples))


def place_among(value: float, draws: ArrayLike, *, alternative: str = "less") -> float:
    """Where a value stands among draws of a control, as a p-value.

    It is (1 + draws at least as extreme) / (1 + draws): the value counts as one of them, so ten
    draws give 0.09 at best (Phipson and Smyth 2010, arXiv 1603.05766).

    Args:
        value: The figure in question, such as what translation keeps without specific features.
        draws: (n,) the same figure of n random controls.
        alternative: ``"less"`` (is the value lower than draws are?), ``"greater"``, or
            ``"two-sided"``: twice the smaller of both, at most 1.

    Returns:
        A share from 1 / (1 + n) to 1.

    Raises:
        TypeError: ``draws`` is no list.
        ValueError: ``value`` or a draw is missing or not finite, or there is no draw.
    """
    if alternative not in _ALTERNATIVES:
        allowed = ", ".join(map(repr, _ALTERNATIVES))
        raise ValueError(f"alternative is {alternative!r}; allowed: {allowed}.")
    (own,) = as_row_of_numbers([value], "value")
    others = as_row_of_numbers(draws, "draws")
    below = (1 + int((others <= own).sum())) / (1 + len(others))
    above = (1 + int((others >= own).sum())) / (1 + len(others))
    by_alternative = {"less": below, "greater": above, "two-sided": min(1.0, 2 * min(below, above))}
    return by_alternative[alternative]


def holm(p_values: ArrayLike) -> np.ndarray:
    """Holm's step-down adjusted p-values.

    Args:
        p_values: (n,) of the tests of one family.  None give none: nothing was tested.

    Returns:
        (n,) adjusted, in the order given.

    Raises:
        TypeError: ``p_values`` is no list.
        ValueError: A p-value is missing or outside of 0 to 1.
    """
    p = as_numbers(p_values, "p_values")
    if p.ndim != 1:
        raise ValueError(f"p_values has the shape {p.shape}; one row of p-values is needed.")
    for row in np.flatnonzero((p < 0) | (p > 1)):
        raise ValueError(f"p_values: row {row} is {p[row]}; a p-value lies between 0 and 1.")
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    return np.minimum(stepped, 1)[np.argsort(order)]


def p_told(p_value: float) -> str:
    """A p-value in a sentence: ``"p = 0.012"``, or ``"p < 0.001"``.

    With three decimals, or four where three would hide on which side of 0.05 it lies.

    Args:
        p_value: From 0 to 1.
    """
    if p_value < 0.001:
        return "p < 0.001"
    decimals = 4 if p_value != 0.05 and round(p_value, 3) == 0.05 else 3
    return f"p = {p_value:.{decimals}f}"


def coin_chance(n_better: int, n_worse: int) -> float:
    """Chance that fair coins fall at least so unevenly, on either side: the exact sign test.

    Where every changed row weighs alike, it is the p-value of :func:`paired_bootstrap` on 1 and 0,
    since rows that did not change say nothing.

    Args:
        n_better: Rows, or groups, that changed for the better: heads.
        n_worse: Those that changed for the worse: tails.

    Returns:
        A probability; 1 where nothing changed.

    Raises:
        ValueError: A count is no whole number from 0.

    Example:
        >>> coin_chance(0, 4)
        0.125
    """
    check_whole_number(n_better, "n_better", at_least=0)
    check_whole_number(n_worse, "n_worse", at_least=0)
    n_changed = n_better + n_worse
    return float(binomtest(n_better, n_changed).pvalue) if n_changed else 1.0
