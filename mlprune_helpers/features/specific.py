"""Features that are large under translation only, and whether other prompts choose the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..activations import ActivationStats
from ..prompts import prompt_units
from .changes import relative_change, sign_flip_test
from .checks import check_as_many_prompts, check_comparable, check_count, is_number, listed
from .large import top_features

SELECTIONS = ("relative", "overlap", "test")


def translation_specific_features(
    translation: ActivationStats,
    control: ActivationStats | Sequence[ActivationStats],
    *,
    method: str = "relative",
    count: int | None = None,
    top: float = 0.3,
    bottom: float = 0.3,
    alpha: float = 0.05,
    unit: int = 2,
    seed: int = 0,
) -> np.ndarray:
    """Features that are large under translation and not under *any* of the controls.

    Args:
        translation: Statistics of translation prompts.
        control: Statistics of other prompts of the same model, or several such.
        method: ``"relative"``: at each layer the ``count`` features whose root mean square grows
            most against the control under which it grows least, if it grows at all.
            ``"overlap"``: those among the ``top`` share under translation and the ``bottom`` share
            under the control (the definition of arXiv 2409.16911).  ``"test"``: those whose
            p-value in :func:`sign_flip_test` is at most ``alpha``.
        count: Features a layer, of ``"relative"``; by default 5 % of them, at least one.
        top: Share that counts as large, of ``"overlap"``.
        bottom: Share that counts as small, of ``"overlap"``.
        alpha: Largest p-value, of ``"test"``: the chance that any feature is found that does not
            grow against every control.
        unit: Prompts that are flipped together, of ``"test"``; see :func:`sign_flip_test`.
        seed: Of the random flips, of ``"test"``.

    Returns:
        Bool (n_layers + 1, hidden_size).

    Raises:
        ValueError: If a setting is out of range, or the statistics are of different models.
    """
    controls = listed(control)
    check_comparable(translation, controls)
    if method == "relative":
        return _growing_most(translation, controls, count)
    if method == "overlap":
        return _large_here_small_there(translation, controls, top, bottom)
    if method == "test":
        if not is_number(alpha) or not 0 <= alpha <= 1:
            raise ValueError(f"alpha is {alpha!r}; allowed: a number in [0, 1].")
        return sign_flip_test(translation, controls, unit=unit, seed=seed)[1] <= alpha
    raise ValueError(f"method is {method!r}; allowed: {', '.join(map(repr, SELECTIONS))}.")


def _growing_most(
    translation: ActivationStats, controls: Sequence[ActivationStats], count: int | None
) -> np.ndarray:
    least = np.min([relative_change(translation, one) for one in controls], axis=0)
    hidden_size = least.shape[-1]
    if count is None:
        count = max(1, round(0.05 * hidden_size))
    check_count("count", count, most=hidden_size)
    return top_features(least, count / hidden_size) & (least > 0)


def _large_here_small_there(
    translation: ActivationStats, controls: Sequence[ActivationStats], top: float, bottom: float
) -> np.ndarray:
    found = top_features(translation.hidden_per_prompt, top)
    for one in controls:
        found = found & top_features(-one.hidden_per_prompt, bottom)
    return found


def feature_stability(
    translation: ActivationStats,
    control: ActivationStats | Sequence[ActivationStats],
    *,
    n_splits: int = 20,
    unit: int = 2,
    seed: int = 0,
    **settings: Any,
) -> pd.DataFrame:
    """Do other prompts choose the same :func:`translation_specific_features`?

    Args:
        translation: Statistics of translation prompts.
        control: Statistics of as many other prompts of the same model, or several such.
        n_splits: How often the prompts are split at random into two halves.
        unit: Prompts that stay together, because their partners are swapped: see
            :func:`sign_flip_test`.  Else a sentence would stand in both halves, with opposite
            signs.
        seed: Of the splits.
        **settings: Of :func:`translation_specific_features`.

    Returns:
        A row a layer: the mean ``jaccard`` index of the features that the two halves choose, its
        lowest (``low``) and highest (``high``), and ``chance``: that of random sets of the same
        sizes.  NaN where neither half finds any.

    Raises:
        ValueError: If there are fewer than two units, or not as many prompts of each kind.
    """
    controls = listed(control)
    check_comparable(translation, controls)
    check_count("n_splits", n_splits)
    check_count("unit", unit)
    for one in controls:
        check_as_many_prompts(translation, one, least=2 * unit)
    units = prompt_units(len(translation.prompt_tokens), unit)
    rng = np.random.default_rng(seed)
    splits = []
    for _ in range(n_splits):
        first, second = (
            translation_specific_features(
                translation.select(half),
                [one.select(half) for one in controls],
                unit=unit,
                **settings,
            )
            for half in _halves(units, rng)
        )
        splits.append(_agreement(first, second))
    layers = pd.concat(splits).groupby("layer")
    table = layers.mean()
    table["low"] = layers["jaccard"].min()
    table["high"] = layers["jaccard"].max()
    return table.reset_index()


def _halves(units: list[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """Prompt numbers of two random halves of the units.

    In order, so that a last unit of three stays the last and units are counted off alike.
    """
    halves = np.array_split(rng.permutation(len(units)), 2)
    return [np.concatenate([units[i] for i in np.sort(half)]) for half in halves]


def _agreement(a: np.ndarray, b: np.ndarray) -> pd.DataFrame:
    """Jaccard index of two choices by layer, and what two random choices of these sizes give."""
    size_a, size_b = a.sum(axis=1), b.sum(axis=1)
    expected = size_a * size_b / a.shape[1]  # shared, if both were drawn at random
    with np.errstate(invalid="ignore"):
        jaccard = (a & b).sum(axis=1) / (a | b).sum(axis=1)
        chance = expected / (size_a + size_b - expected)
    return pd.DataFrame({"layer": range(len(a)), "jaccard": jaccard, "chance": chance})
