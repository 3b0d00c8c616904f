"""Do two languages choose the same features, more than chance would?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .checks import check_count, checked_mask


class SharedFeatures(NamedTuple):
    """How many features two choices have in common, and how many by chance."""

    #: Features, over all layers, that are in both.
    n_shared: int
    #: How many would be, on average, if the dimensions of one choice were others at random.
    expected: float
    #: Chance of so many or more, then.
    p_value: float


def shared_features(
    a: np.ndarray, b: np.ndarray, *, n_permutations: int = 10_000, seed: int = 0
) -> SharedFeatures:
    """Features that two choices share, against chance.

    Chance gives every dimension of ``b`` another name at random, the same at all layers.  At each
    layer the number shared is then hypergeometric, with the mean n_a · n_b / hidden_size, and
    ``expected`` is exactly the sum of these means.  Layers are *not* independent, because a
    dimension that is chosen at one layer tends to be chosen at the next; so the p-value comes from
    permutations of whole dimensions.  A sum of independent layers would call chance significant.

    The test does not know that some dimensions are chosen more readily than others, such as large
    ones; nor that the prompts of both languages may share sentences: give each its own.

    Args:
        a: Bool (n_layers + 1, hidden_size), such as :func:`translation_specific_features`.
        b: Bool of the same shape, of another language.
        n_permutations: How many; the p-value is at least 1 / (n_permutations + 1).
        seed: Of the permutations.

    Returns:
        ``(n_shared, expected, p_value)``, also by these names.

    Raises:
        ValueError: If the two are not bool arrays of one shape (n_layers + 1, hidden_size), or a
            setting is out of range.
    """
    first, second = checked_mask("a", a), checked_mask("b", b)
    if first.shape != second.shape or first.ndim != 2 or not first.size:
        raise ValueError(
            f"a is {first.shape} and b {second.shape}; needed: bool arrays of one shape, "
            "(n_layers + 1, hidden_size)."
        )
    check_count("n_permutations", n_permutations)
    hidden_size = first.shape[1]
    # At how many layers dimension i of a and dimension j of b are both chosen.
    together = first.T.astype(np.int64) @ second.astype(np.int64)
    n_shared = int(together.trace())
    expected = float(together.sum() / hidden_size)
    rng = np.random.default_rng(seed)
    rows = np.arange(hidden_size)
    drawn = [together[rows, rng.permutation(hidden_size)].sum() for _ in range(n_permutations)]
    as_many = int((np.array(drawn) >= n_shared).sum())
    return SharedFeatures(n_shared, expected, (1 + as_many) / (1 + n_permutations))
