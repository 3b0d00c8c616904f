"""Does a model rank the right pairing above the wrong one, whatever labels it likes?

A model that comes to like a label better gives it to more rows, and its accuracy moves although it
understands nothing more.  So a row is not asked here which label it likes best.  It is asked for a
margin, log p(one label) - log p(another), and margins of rows that bear the one label are compared
with margins of rows that bear the other.  Whatever is added to a label in all rows cancels.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

#: What a model reaches that tells nothing apart.
RANKING_CHANCE = 0.5

#: Margins no further apart than this, in nats, are equal: it is what rounding leaves of a tie.
EQUAL_WITHIN = 1e-9

#: Numbers of two labels: whose rows should have the higher margin, and whose the lower.
Pair = tuple[int, int]


class NothingToRank(ValueError):
    """There are no two rows, or no two answers, of which one should be above the other."""


class RankingUnits(NamedTuple):
    """What a ranking rests on, one value for each independent unit.

    The mean of the values is the ranking; their spread gives its standard error.  So they go into
    :func:`~mlprune_helpers.metrics.paired_bootstrap` as the rows of an accuracy do.
    """

    values: np.ndarray  # (n_units,)
    groups: list  # (n_units,), the group of each


def holds_pairs(labels: np.ndarray, groups: Sequence[Hashable], pairs: Sequence[Pair]) -> bool:
    """Whether a group has rows of both labels of a pair, as all hypotheses of one premise have."""
    of_groups = [set(labels[rows].tolist()) for rows in _rows_of(groups).values()]
    return any(set(pair) <= present for pair in pairs for present in of_groups)


def rank_within_groups(
    log_likelihoods: np.ndarray,
    labels: np.ndarray,
    groups: Sequence[Hashable],
    pairs: Sequence[Pair],
) -> RankingUnits:
    """Rows against rows of the same group, such as the hypotheses of one premise.

    Args:
        log_likelihoods: (n, n_labels) sums over tokens, in nats.
        labels: (n,) numbers of the right labels.
        groups: (n,) rows of the same group share a value.
        pairs: Labels to compare.

    Returns:
        A unit for each group that has a pair: 1 if it is ranked right, 0 if not, 1/2 for a tie, and
        the mean where the group has several.
    """
    units: dict[Hashable, float] = {}
    for group, rows in _rows_of(groups).items():
        of_pairs = []
        for first, second in pairs:
            higher, lower = _margins(log_likelihoods[rows], labels[rows], (first, second))
            if len(higher) and len(lower):
                of_pairs.append(_shares_below(higher, lower).mean())
        if of_pairs:
            units[group] = float(np.mean(of_pairs))
    return RankingUnits(np.array(list(units.values())), list(units))


def rank_across_rows(
    log_likelihoods: np.ndarray,
    labels: np.ndarray,
    groups: Sequence[Hashable],
    pairs: Sequence[Pair],
) -> RankingUnits:
    """Rows of one label against all rows of another: the area under the curve.

    Its mean over pairs of labels is that of Hand and Till (2001, "A simple generalisation of the
    area under the ROC curve for multiple class classification problems"), with the margin in
    place of one label's probability.

    Every row takes part in many comparisons, so these are not independent.  A unit is therefore the
    ranking plus what its group adds to it, after DeLong, DeLong and Clarke-Pearson (1988): the
    variance of the mean of the units is theirs.  A single value may lie outside of 0 to 1.

    Args:
        log_likelihoods: (n, n_labels) sums over tokens, in nats.
        labels: (n,) numbers of the right labels.
        groups: (n,) rows of the same group share a value.
        pairs: Labels to compare.  Each needs rows in two groups at least, and no group may have
            rows of both labels of a pair.

    Returns:
        A unit for each group with a label of a pair.
    """
    ranking, of_rows = _ranking_and_influences(log_likelihoods, labels, pairs)
    ranked = {label for pair in pairs for label in pair}
    kept, label_of, of_groups = [], [], []
    for group, rows in _rows_of(groups).items():
        present = ranked & set(labels[rows].tolist())
        if present:
            kept.append(group)
            label_of.append(present.pop())
            of_groups.append(of_rows[rows].sum())
    # Deviations are from a mean of the same rows, which makes them a little too small.
    n_groups = np.bincount(label_of)[label_of]
    unbiased = np.array(of_groups) * np.sqrt(n_groups / (n_groups - 1))
    return RankingUnits(ranking + len(kept) * unbiased, kept)


def _ranking_and_influences(
    log_likelihoods: np.ndarray, labels: np.ndarray, pairs: Sequence[Pair]
) -> tuple[float, np.ndarray]:
    """The mean over pairs of the area under the curve, and what each row adds to it (n,).

    Over the rows of a label the additions sum to 0.
    """
    ranking = 0.0
    influences = np.zeros(len(labels))
    for first, second in pairs:
        higher, lower = _margins(log_likelihoods, labels, (first, second))
        of_first = _shares_below(higher, lower)
        of_second = 1 - _shares_below(lower, higher)
        ranking += of_first.mean() / len(pairs)
        for label, shares in ((first, of_first), (second, of_second)):
            influences[labels == label] += (shares - shares.mean()) / (len(shares) * len(pairs))
    return ranking, influences


def rank_within_rows(
    log_likelihoods: np.ndarray, labels: np.ndarray, groups: Sequence[Hashable]
) -> RankingUnits:
    """The right choice against each wrong one of the same row.

    For tasks whose choices are the row's own answers: there is no label that a model could like.

    Args:
        log_likelihoods: (n, n_choices) sums over tokens, in nats.
        labels: (n,) numbers of the right choices.
        groups: (n,) rows of the same group share a value.

    Returns:
        A unit for each row: the share of the wrong choices that are less likely, ties 1/2.

    Raises:
        NothingToRank: If there is one choice only.
    """
    n_wrong = log_likelihoods.shape[1] - 1
    if not n_wrong:
        raise NothingToRank("Each row has one choice; a ranking needs two or more.")
    rows = np.arange(len(labels))
    above = log_likelihoods[rows, labels][:, None] - log_likelihoods
    won = np.where(np.abs(above) <= EQUAL_WITHIN, 0.5, above > 0)
    won[rows, labels] = 0.0  # a choice is not compared with itself
    return RankingUnits(won.sum(axis=1) / n_wrong, list(groups))


def _margins(
    log_likelihoods: np.ndarray, labels: np.ndarray, pair: Pair
) -> tuple[np.ndarray, np.ndarray]:
    """Log p(first label) - log p(second): in rows of the first, and in rows of the second."""
    first, second = pair
    margins = log_likelihoods[:, first] - log_likelihoods[:, second]
    return margins[labels == first], margins[labels == second]


def _shares_below(margins: np.ndarray, others: np.ndarray) -> np.ndarray:
    """What share of the others lies below each margin, ties 1/2: (n_margins,)."""
    ordered = np.sort(others)
    n_below = np.searchsorted(ordered, margins - EQUAL_WITHIN, side="left")
    n_not_above = np.searchsorted(ordered, margins + EQUAL_WITHIN, side="right")
    return (n_below + n_not_above) / (2 * len(others))


def _rows_of(groups: Sequence[Hashable]) -> dict[Hashable, list[int]]:
    """The rows of each group; groups in the order in which they first appear."""
    rows: dict[Hashable, list[int]] = {}
    for row, group in enumerate(groups):
        rows.setdefault(group, []).append(row)
    return rows
