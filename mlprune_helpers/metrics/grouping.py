"""Rows in groups and strata: what each group counts for, and what it adds."""

from __future__ import annotations

from collections.abc import Collection, Hashable

import numpy as np

from .checks import as_codes


def sums_and_sizes(
    values: np.ndarray,
    groups: Collection[Hashable] | None,
    strata: Collection[Hashable] | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Sum and number of values by group and stratum, both (n_groups, n_strata).

    Args:
        values: (n,) numbers.
        groups: (n,) group of each row; default: every row by itself.
        strata: (n,) stratum of each row; default: one for all.

    Raises:
        TypeError: ``groups`` or ``strata`` is no list.
        ValueError: Lengths differ, or a row belongs to no group or stratum.
    """
    n = len(values)
    group_of = np.arange(n) if groups is None else as_codes(groups, "groups")
    stratum_of = np.zeros(n, dtype=int) if strata is None else as_codes(strata, "strata")
    if not n == len(group_of) == len(stratum_of):
        raise ValueError(
            f"{n} values, {len(group_of)} groups and {len(stratum_of)} strata; as many are needed."
        )
    sums = np.zeros((group_of.max() + 1, stratum_of.max() + 1))
    sizes = np.zeros_like(sums)
    np.add.at(sums, (group_of, stratum_of), values)
    np.add.at(sizes, (group_of, stratum_of), 1)
    return sums, sizes


def contributions_and_weights(sums: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What each group adds to the mean of the strata's means, and its weight in it.

    Args:
        sums: (n_groups, n_strata), see :func:`sums_and_sizes`.
        sizes: (n_groups, n_strata), the same.

    Returns:
        Both (n_groups,).  The contributions add up to the mean of the strata's means, the weights
        to 1; a weight is the group's share of a stratum's rows, averaged over strata.
    """
    rows_of_stratum = sizes.sum(axis=0)
    return (sums / rows_of_stratum).mean(axis=1), (sizes / rows_of_stratum).mean(axis=1)
