"""What is large, where it differs, and whether that is more than chance.

A feature is one dimension of the residual stream at one layer.  Arrays of features have the shape
(n_layers + 1, hidden_size): layer ``l`` is what block ``l`` receives, the last one is what the last block puts out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import torch

from .activations import ActivationStats
from .batching import encode, padded, run_in_batches
from .hooks import residual_stream
from .models.language_model import LanguageModel


def top_features(norms: np.ndarray, fraction: float = 0.3) -> np.ndarray:
    """At each layer, the ``floor(fraction · hidden_size)`` features with the largest norms → bool; of equal ones, the first."""
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction is {fraction}; allowed: a number in (0, 1].")
    norms = np.asarray(norms)
    order = np.argsort(-norms, axis=-1, kind="stable")[
        ..., : int(fraction * norms.shape[-1] + 1e-9)
    ]
    chosen = np.zeros(norms.shape, dtype=bool)
    np.put_along_axis(chosen, order, True, axis=-1)
    return chosen


def overlap(a: np.ndarray, b: np.ndarray, *, top: float = 0.3, bottom: float = 0.3) -> np.ndarray:
    """Share of the top features of ``a`` that are among the bottom features of ``b``, a layer at a time.

    Norms (..., hidden_size) → (...).  Unrelated inputs give ``bottom`` (chance), equal ones 0 (arXiv 2409.16911).
    """
    large, small = top_features(a, top), top_features(-np.asarray(b), bottom)
    return (large & small).sum(axis=-1) / large.sum(axis=-1)


def relative_change(
    translation: ActivationStats, control: ActivationStats, *, per_prompt: bool = False
) -> np.ndarray:
    """log2 of the ratio of root mean squares, (n_layers + 1, hidden_size).  0: as large (or silent); 1: twice as large.

    ``per_prompt``: prompt i against prompt i, (n_prompts, n_layers + 1, hidden_size).
    """
    rms = [
        np.sqrt(s.prompt_squares / s.prompt_tokens[:, None, None]) if per_prompt else s.rms
        for s in (translation, control)
    ]
    above, below = (np.maximum(x, np.finfo(np.float32).tiny) for x in rms)
    return np.log2(above / below)


def sign_flip_test(
    translation: ActivationStats, control: ActivationStats | Sequence[ActivationStats], *, alternative: str = "greater",
    n_flips: int = 10_000, seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Which features change from control to translation: paired sign-flip test with the maximum statistic.

    Prompt i of both must be a pair (the same sentences), and pairs must share no sentence with one another.  Then,
    if translation changes nothing, all log2 ratios of a pair may change sign together.  Every feature's Student
    statistic is compared with the maximum over layers × features under ``n_flips`` such flips (all 2^n_prompts, if
    those are no more), so that ``p <= alpha`` has a chance of at most ``alpha`` of *any* false find (Westfall and
    Young, 1993).  ``alternative``: "greater", or "two-sided".  It takes five pairs, or six, to get below 0.05.

    Returns mean log2 ratios and corrected p-values, both (n_layers + 1, hidden_size).  Of several controls, the
    smallest change and the largest p-value count.
    """
    if alternative not in ("greater", "two-sided"):
        raise ValueError(f"alternative is {alternative!r}; allowed: 'greater', 'two-sided'.")
    if not isinstance(control, ActivationStats):
        settings = {"alternative": alternative, "n_flips": n_flips, "seed": seed}
        change, p_values = (
            np.stack(x) for x in zip(*(sign_flip_test(translation, c, **settings) for c in control))
        )
        least = (np.abs(change) if alternative == "two-sided" else change).argmin(axis=0)[None]
        return np.take_along_axis(change, least, axis=0)[0], p_values.max(axis=0)
    n, others = len(translation.prompt_tokens), len(control.prompt_tokens)
    if n != others or n < 2:
        raise ValueError(
            f"{n} translation and {others} control prompts; the test needs pairs, and at least two."
        )
    change = relative_change(translation, control, per_prompt=True)
    flat = change.reshape(n, -1).astype(np.float64)
    # Over its root sum of squares, which no flip alters, a sum grows with Student's t: no need to go on to t.
    flat /= np.maximum(np.sqrt(np.square(flat).sum(axis=0)), np.finfo(np.float64).tiny)
    flat, sided = flat.astype(np.float32), np.abs if alternative == "two-sided" else np.asarray
    if n <= np.log2(n_flips):
        signs = np.array(list(product([1, -1], repeat=n)))
    else:
        signs = np.vstack(
            [np.ones((1, n)), np.random.default_rng(seed).choice([-1, 1], (n_flips - 1, n))]
        )
    maxima = np.sort([sided(flip @ flat).max() for flip in signs.astype(np.float32)])
    reached = len(maxima) - np.searchsorted(
        maxima, sided(flat.sum(axis=0)) - 1e-5
    )  # but for rounding
    return change.mean(axis=0), (reached / len(maxima)).reshape(change.shape[1:])


def translation_specific_features(
    translation: ActivationStats, control: ActivationStats | Sequence[ActivationStats], *, method: str = "relative",
    count: int | None = None, top: float = 0.3, bottom: float = 0.3, alpha: float = 0.05, seed: int = 0,
) -> np.ndarray:  # fmt: skip
    """Features that are large under translation and not under *any* of the controls → bool (n_layers + 1, hidden).

    ``method``: ``"relative"``, at each layer the ``count`` features (default 5 %) whose root mean square grows most
    against the control under which it grows least, if it grows at all; ``"overlap"``, those among the ``top`` share
    under translation and the ``bottom`` share under the control (the paper's definition); ``"test"``, those whose
    p-value in :func:`sign_flip_test`, which ``seed`` is for, is at most ``alpha``.
    """
    controls = [control] if isinstance(control, ActivationStats) else list(control)
    if method == "overlap":
        large = top_features(translation.hidden_per_prompt, top)
        return np.logical_and.reduce(
            [large & top_features(-c.hidden_per_prompt, bottom) for c in controls]
        )
    if method == "test":
        return sign_flip_test(translation, controls, seed=seed)[1] <= alpha
    if method != "relative":
        raise ValueError(f"method is {method!r}; allowed: 'relative', 'overlap', 'test'.")
    least = np.min([relative_change(translation, c) for c in controls], axis=0)
    count = count or round(0.05 * least.shape[-1])
    return top_features(least, count / least.shape[-1]) & (least > 0)


def feature_stability(
    translation: ActivationStats, control: ActivationStats | Sequence[ActivationStats], *, n_splits: int = 20,
    seed: int = 0, **settings,
) -> pd.DataFrame:  # fmt: skip
    """Do other prompts choose the same :func:`translation_specific_features`?

    ``n_splits`` times, features are chosen with ``settings`` on two random halves of the prompts.  Returns a row a
    layer: the mean ``jaccard`` index of the halves, its lowest (``low``) and highest (``high``), and ``chance``: that
    of random sets of the same sizes.  NaN where neither half finds any.
    """
    every = [translation, *([control] if isinstance(control, ActivationStats) else control)]
    n = min(len(stats.prompt_tokens) for stats in every)
    if n < 2 or n_splits < 1:
        raise ValueError(
            f"{n} prompts and n_splits {n_splits}; needed: at least two prompts and one split."
        )

    def chosen(half):
        first, *rest = (
            replace(s, prompt_squares=s.prompt_squares[half], prompt_tokens=s.prompt_tokens[half])
            for s in every
        )
        return translation_specific_features(first, rest, **settings)

    rng, rows = np.random.default_rng(seed), []
    for _ in range(n_splits):
        a, b = (chosen(half) for half in np.array_split(rng.permutation(n), 2))
        size_a, size_b = a.sum(axis=1), b.sum(axis=1)
        expected = size_a * size_b / a.shape[1]  # shared, if both were drawn at random
        with np.errstate(invalid="ignore"):
            jaccard, chance = (
                (a & b).sum(axis=1) / (a | b).sum(axis=1),
                expected / (size_a + size_b - expected),
            )
        rows.append(pd.DataFrame({"layer": range(len(a)), "jaccard": jaccard, "chance": chance}))
    groups = pd.concat(rows).groupby("layer")
    return (
        groups.mean()
        .assign(low=groups["jaccard"].min(), high=groups["jaccard"].max())
        .reset_index()
    )


def matched_random_features(
    features: np.ndarray,
    norms: np.ndarray,
    *,
    exclude: np.ndarray | None = None,
    seed: int = 0,
    nearest: int = 10,
) -> np.ndarray:
    """Random other features, as many at each layer and of similar size: the control for an ablation.

    Each is one of the ``nearest`` free ones, by the ratio of norms, so that what is lost without them is lost without
    features *of that size*.  ``exclude``, of the same shape: never drawn, such as massive activations.
    """
    rng, size = np.random.default_rng(seed), np.log(np.maximum(norms, np.finfo(np.float32).tiny))
    drawn = np.zeros_like(features)
    taken = features if exclude is None else features | exclude
    for layer, row in enumerate(features):
        if row.sum() > (~taken[layer]).sum():
            raise ValueError(
                f"{row.sum()} of {row.size} features at layer {layer}: too few others to match. Choose fewer."
            )
        for feature in rng.permutation(np.flatnonzero(row)):
            others = np.flatnonzero(~taken[layer] & ~drawn[layer])
            order = np.argsort(np.abs(size[layer, others] - size[layer, feature]), kind="stable")
            drawn[layer, others[rng.choice(order[:nearest])]] = True
    return drawn


def logit_lens(
    lm: LanguageModel,
    prompts: Sequence[str],
    token_sets: Mapping[str, Sequence[int]],
    *,
    token_budget: int = 2048,
) -> dict[str, np.ndarray]:
    """What every layer, read through the final norm and the output head, predicts after each prompt.

    Returns {set: (n_prompts, n_layers + 1)}: total probability of the tokens of each set.
    """
    ids = encode(lm, prompts)
    mass = {name: np.zeros((len(ids), len(lm.layers) + 1)) for name in token_sets}

    def run(indices: list[int]) -> None:
        input_ids, mask = padded([ids[i] for i in indices], lm.device)
        last = torch.arange(len(indices)), mask.sum(dim=1).cpu() - 1
        at_last: dict[int, torch.Tensor] = {}
        with torch.inference_mode():
            with residual_stream(lm, lambda layer, hidden: at_last.update({layer: hidden[last]})):
                lm.decoder(input_ids=input_ids, attention_mask=mask, use_cache=False)
            for layer, hidden in at_last.items():
                normed = lm.final_norm(hidden.to(lm.final_norm.weight.device))
                probability = lm.logits(normed).float().softmax(dim=-1).cpu()
                for name, tokens in token_sets.items():
                    mass[name][indices, layer] = probability[:, list(tokens)].sum(dim=-1)

    run_in_batches([len(x) for x in ids], token_budget, run, "logit lens")
    return mass
