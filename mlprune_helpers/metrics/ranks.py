"""Whether two languages rank the choices alike."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import softmax

from .checks import as_numbers, check_whole_number


def rank_consistency(
    scores_a: ArrayLike, scores_b: ArrayLike, *, per_row: bool = False
) -> float | np.ndarray:
    """RankC (Qi et al., arXiv 2310.10378): do two languages rank the choices alike?

    Ranks that stand further up weigh more (softmax of N - j).

    Args:
        scores_a: (n, n_choices) of n examples in one language, higher = likelier.
        scores_b: (n, n_choices) of the same examples in another.
        per_row: Return every example's own value, for paired comparisons.

    Returns:
        The mean over examples, 1 where all rankings agree; or (n,) with ``per_row``.

    Raises:
        ValueError: The shapes differ, or a value is missing or not finite.
    """
    a, b = as_numbers(scores_a, "scores_a"), as_numbers(scores_b, "scores_b")
    if a.shape != b.shape or a.ndim != 2 or not a.size:
        raise ValueError(
            "Scores of the same examples are needed, (n, n_choices); these have the shapes "
            f"{a.shape} and {b.shape}."
        )
    order_a = np.argsort(-a, axis=1, kind="stable")
    order_b = np.argsort(-b, axis=1, kind="stable")
    consistency = np.zeros(len(a))
    for j, weight in enumerate(_rank_weights(a.shape[1]), start=1):
        in_both = (order_a[:, :j, None] == order_b[:, None, :j]).any(axis=2).sum(axis=1)
        consistency += weight / j * in_both
    return consistency if per_row else float(consistency.mean())


def rank_consistency_least_likely_first(
    scores_a: ArrayLike, scores_b: ArrayLike
) -> float | np.ndarray:
    """RankC as the code of arXiv 2409.16911 has it: sorted ascending.

    So the least likely choice weighs most.  Arguments and errors as in :func:`rank_consistency`.
    """
    return rank_consistency(-as_numbers(scores_a, "scores_a"), -as_numbers(scores_b, "scores_b"))


def rank_consistency_chance(n_choices: int) -> float:
    """Expected :func:`rank_consistency` of two independent random rankings of ``n_choices``."""
    check_whole_number(n_choices, "n_choices", at_least=1)
    return float(_rank_weights(n_choices) @ np.arange(1, n_choices + 1) / n_choices)


def _rank_weights(n_choices: int) -> np.ndarray:
    """RankC's weight of each number of first places (n_choices,); they sum to 1."""
    return softmax(np.arange(n_choices, 0, -1.0))
