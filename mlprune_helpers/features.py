"""What is large, where it differs, whether that is more than chance, and what happens without it.

A feature is one dimension of the residual stream at one layer.  Arrays of features have the shape
(n_layers + 1, hidden_size): layer ``l`` is what block ``l`` receives, the last one is what the last block puts out.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from .activations import ActivationStats, residual_stream
from .models import LanguageModel
from .prompts import encode, padded, run_in_batches


def top_features(norms: np.ndarray, fraction: float = 0.3) -> np.ndarray:
    """The ``fraction`` of features with the largest norm, a layer at a time → bool array of the same shape.

    The count is ``floor(fraction · hidden_size)``, exact also under ties (lower dimensions first).
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction is {fraction}; allowed: a number in (0, 1].")
    norms = np.asarray(norms)
    order = np.argsort(-norms, axis=-1, kind="stable")[..., : int(fraction * norms.shape[-1] + 1e-9)]
    chosen = np.zeros(norms.shape, dtype=bool)
    np.put_along_axis(chosen, order, True, axis=-1)
    return chosen


def overlap(a: np.ndarray, b: np.ndarray, *, top: float = 0.3, bottom: float = 0.3) -> np.ndarray:
    """Share of the top features of ``a`` that are among the bottom features of ``b``, a layer at a time.

    Norms (..., hidden_size) → (...).  Unrelated inputs give ``bottom`` (the chance level), an input compared
    with itself gives 0 (arXiv 2409.16911).
    """
    large, small = top_features(a, top), top_features(-np.asarray(b), bottom)
    return (large & small).sum(axis=-1) / large.sum(axis=-1)


def outlier_features(stats: ActivationStats, *, layers: float = 0.25, tokens: float = 0.06) -> np.ndarray:
    """Dimensions (hidden_size,) above ``stats.threshold`` in that share of layers and of tokens → bool.

    The definition of LLM.int8 (Dettmers et al., arXiv 2208.07339); massive activations are
    ``stats.share_massive > 0``.  Neither is specific to any input: look at them before calling a feature so.
    """
    return (stats.share_above.mean(axis=0) >= tokens) & ((stats.hidden_above > 0).mean(axis=0) >= layers)


# -- specific to translation ------------------------------------------------------------------------------------


def relative_change(translation: ActivationStats, control: ActivationStats, *, per_prompt: bool = False) -> np.ndarray:
    """log2 of the ratio of root mean squares, (n_layers + 1, hidden_size).  0: as large; 1: twice as large.

    ``per_prompt``: prompt i against prompt i, (n_prompts, n_layers + 1, hidden_size).  A feature that is silent
    under both counts as unchanged.
    """
    floor = np.finfo(np.float32).tiny

    def rms(stats):
        if per_prompt:
            return np.sqrt(stats.prompt_squares / stats.prompt_tokens[:, None, None])
        return stats.rms

    return np.log2(np.maximum(rms(translation), floor) / np.maximum(rms(control), floor))


class SignFlip(NamedTuple):
    """``change``: mean log2 ratio over prompts; ``p_values``: corrected over all features.  Both (n_layers + 1, hidden)."""

    change: np.ndarray
    p_values: np.ndarray


def sign_flip_test(
    translation: ActivationStats,
    control: ActivationStats | Sequence[ActivationStats],
    *,
    alternative: str = "greater",
    n_flips: int = 10_000,
    seed: int = 0,
) -> SignFlip:
    """Which features change from control to translation, by a paired sign-flip test with the maximum statistic.

    Prompt i of both must be a pair (the same sentences), and pairs must share no sentence with one another: then,
    if translation changes nothing, each pair's log2 ratios may change sign together.  The Student statistic of every
    feature is compared with the maximum over layers × features under flips, which keeps the chance of *any* false
    find below the p-value (Westfall and Young, 1993).  Several controls: the largest p-value and the smallest change
    count, so that only what exceeds each of them is found.

    Parameters
    ----------
    alternative : {"greater", "two-sided"}
    n_flips : int
        Random flips; all 2^n_prompts of them where that is no more.  No p-value is below 1 / n_flips, or
        1 / 2^n_prompts (twice that for "two-sided"): six pairs are the fewest that can fall below 0.05 in both.
    """
    if alternative not in ("greater", "two-sided"):
        raise ValueError(f"alternative is {alternative!r}; allowed: 'greater', 'two-sided'.")
    if not isinstance(control, ActivationStats):
        tests = [
            sign_flip_test(translation, c, alternative=alternative, n_flips=n_flips, seed=seed) for c in control
        ]
        change, p_values = (np.stack(arrays) for arrays in zip(*tests))
        least = np.abs(change).argmin(axis=0) if alternative == "two-sided" else change.argmin(axis=0)
        return SignFlip(np.take_along_axis(change, least[None], axis=0)[0], p_values.max(axis=0))
    n, others = len(translation.prompt_tokens), len(control.prompt_tokens)
    if n != others or n < 2:
        raise ValueError(f"{n} translation and {others} control prompts; the test needs pairs, at least two.")
    differences = relative_change(translation, control, per_prompt=True)
    flat = differences.reshape(n, -1)
    spread = np.sqrt(np.square(flat, dtype=np.float64).sum(axis=0))
    # |sum| / spread grows with Student's t, and spread is the same under every flip: no need to go on to t.
    flat = (flat / np.where(spread > 0, spread, 1)).astype(np.float32)
    sided = np.abs if alternative == "two-sided" else np.asarray
    observed = sided(flat.sum(axis=0))
    rng = np.random.default_rng(seed)
    if n <= np.log2(n_flips):
        signs = np.array(list(product([1, -1], repeat=n)))
    else:
        signs = np.concatenate([np.ones((1, n)), rng.choice([-1, 1], (n_flips - 1, n))])
    maxima = np.concatenate([sided(s @ flat).max(axis=1) for s in np.array_split(signs.astype(np.float32), len(signs) // 256 + 1)])
    reached = len(maxima) - np.searchsorted(np.sort(maxima), observed - 1e-5)  # equal but for rounding is reached
    return SignFlip(differences.mean(axis=0), (reached / len(maxima)).reshape(differences.shape[1:]))


def translation_specific_features(
    translation: ActivationStats,
    control: ActivationStats | Sequence[ActivationStats],
    *,
    method: str = "relative",
    count: int | None = None,
    top: float = 0.3,
    bottom: float = 0.3,
    alpha: float = 0.05,
    seed: int = 0,
) -> np.ndarray:
    """Features that are large under translation and not under *any* of the controls → bool (n_layers + 1, hidden).

    Parameters
    ----------
    method : {"relative", "overlap", "test"}
        ``"relative"``: at each layer, the ``count`` features whose root mean square grows most against the control
        under which it grows least, if it grows at all.  ``"overlap"``: among the ``top`` share under translation
        and the ``bottom`` share under the control (the paper's definition).  ``"test"``: those whose p-value in
        :func:`sign_flip_test`, which ``seed`` is for, is at most ``alpha``.
    count : int, optional
        For ``"relative"``; default 5 % of the hidden size.
    """
    controls = [control] if isinstance(control, ActivationStats) else list(control)
    if method == "overlap":
        large = top_features(translation.hidden_per_prompt, top)
        return np.logical_and.reduce([large & top_features(-c.hidden_per_prompt, bottom) for c in controls])
    if method == "test":
        return sign_flip_test(translation, controls, seed=seed).p_values <= alpha
    if method != "relative":
        raise ValueError(f"method is {method!r}; allowed: 'relative', 'overlap', 'test'.")
    least = np.min([relative_change(translation, c) for c in controls], axis=0)
    count = count or round(0.05 * least.shape[-1])
    return top_features(least, count / least.shape[-1]) & (least > 0)


def feature_stability(
    translation: ActivationStats,
    control: ActivationStats | Sequence[ActivationStats],
    *,
    n_splits: int = 20,
    seed: int = 0,
    **settings,
) -> pd.DataFrame:
    """Do other prompts choose the same features?  Prompts are split at random into halves, ``n_splits`` times.

    Returns
    -------
    DataFrame
        A row a layer: ``jaccard`` of the two halves' :func:`translation_specific_features` (with ``settings``),
        mean over splits, its lowest and highest, and ``chance``: of random sets of the same sizes.  NaN where
        neither half finds any.
    """
    every = [translation, *([control] if isinstance(control, ActivationStats) else control)]
    n = min(len(stats.prompt_tokens) for stats in every)
    if n < 2 or n_splits < 1:
        raise ValueError(f"{n} prompts and n_splits {n_splits}; needed: at least two prompts and one split.")

    def chosen(prompts):
        parts = [
            replace(s, prompt_squares=s.prompt_squares[prompts], prompt_tokens=s.prompt_tokens[prompts]) for s in every
        ]
        return translation_specific_features(parts[0], parts[1:], **settings)

    rng = np.random.default_rng(seed)
    halves = [np.array_split(rng.permutation(n), 2) for _ in range(n_splits)]
    a, b = (np.stack([chosen(half[side]) for half in halves]) for side in (0, 1))
    shared = a.sum(axis=-1) * b.sum(axis=-1) / a.shape[-1]  # expected of random sets
    with np.errstate(invalid="ignore"):
        jaccard = (a & b).sum(axis=-1) / (a | b).sum(axis=-1)
        chance = shared / (a.sum(axis=-1) + b.sum(axis=-1) - shared)
    table = pd.DataFrame({"layer": range(a.shape[1]), "jaccard": pd.DataFrame(jaccard).mean()})
    return table.assign(low=pd.DataFrame(jaccard).min(), high=pd.DataFrame(jaccard).max(), chance=pd.DataFrame(chance).mean())


# -- without them -----------------------------------------------------------------------------------------------


def matched_random_features(features: np.ndarray, norms: np.ndarray, *, seed: int = 0, bins: int = 10) -> np.ndarray:
    """Random other features, as many at each layer and of similar size, as a control for an ablation.

    Each is drawn from the ``hidden_size / bins`` unchosen ones whose norms rank closest.  What is lost without them
    is lost without features *of that size*, whichever they are.
    """
    rng = np.random.default_rng(seed)
    ranks = np.argsort(np.argsort(norms, axis=-1, kind="stable"), axis=-1)
    drawn = np.zeros_like(features)
    for layer, row in enumerate(features):
        if 2 * row.sum() > row.size:
            raise ValueError(f"{row.sum()} of {row.size} features chosen at layer {layer}: too few others to match them.")
        for feature in rng.permutation(np.flatnonzero(row)):
            others = np.flatnonzero(~row & ~drawn[layer])
            distance = np.abs(ranks[layer, others] - ranks[layer, feature])
            near = others[np.argsort(distance, kind="stable")[: max(1, row.size // bins)]]
            drawn[layer, rng.choice(near)] = True
    return drawn


@contextlib.contextmanager
def zero_features(
    lm: LanguageModel,
    features: Mapping[int, Sequence[int] | np.ndarray] | np.ndarray,
    *,
    values: np.ndarray | None = None,
) -> Iterator[None]:
    """While active, the given features of the residual stream are zero at the given layers, at every position.

    Parameters
    ----------
    features : {layer: dimensions} or bool array (n_layers + 1, hidden_size)
        Layer ``l`` in 0 … n_layers - 1: what block ``l`` receives; n_layers: what the last block puts out.
        Dimensions: integers, or a bool mask (hidden_size,).
    values : array (n_layers + 1, hidden_size), optional
        Put there instead of zero: ``stats.mean`` for mean ablation.

    The fingerprint of ``lm`` is another one meanwhile, so no cached result of the intact model is used.
    """
    shape = len(lm.layers) + 1, lm.hidden_size
    values = torch.zeros(shape) if values is None else torch.as_tensor(np.asarray(values, dtype=np.float32))
    if values.shape != shape or not values.isfinite().all():
        raise ValueError(f"values are {tuple(values.shape)}; allowed: finite numbers of the shape {shape}, such as stats.mean.")
    if isinstance(features, np.ndarray):
        features = {layer: np.flatnonzero(row) for layer, row in enumerate(features) if row.any()}
    chosen: dict[int, torch.Tensor] = {}
    for layer, dimensions in features.items():
        dimensions = np.asarray(dimensions)
        dimensions = np.flatnonzero(dimensions) if dimensions.dtype == bool else dimensions
        if not 0 <= layer < shape[0]:
            raise ValueError(f"layer {layer}; allowed: 0 to {shape[0] - 1}.")
        if len(dimensions) and not (0 <= dimensions.min() and dimensions.max() < shape[1]):
            wrong = dimensions.min() if dimensions.min() < 0 else dimensions.max()
            raise ValueError(f"dimension {wrong} at layer {layer}; allowed: 0 to {shape[1] - 1}.")
        chosen[layer] = torch.as_tensor(dimensions, dtype=torch.long)

    def see(layer, hidden):
        if layer in chosen:
            hidden = hidden.clone()
            hidden[..., chosen[layer]] = values[layer, chosen[layer]].to(hidden)
            return hidden

    text = ";".join(f"{layer}:{sorted(chosen[layer].tolist())}" for layer in sorted(chosen))
    digest = hashlib.sha256(text.encode() + (values.numpy().tobytes() if values.any() else b""))
    intervention = "zero " + digest.hexdigest()[:16]
    lm.interventions.append(intervention)
    try:
        with residual_stream(lm, see):
            yield
    finally:
        lm.interventions.remove(intervention)


def logit_lens(
    lm: LanguageModel, prompts: Sequence[str], token_sets: Mapping[str, Sequence[int]], *, token_budget: int = 2048
) -> dict[str, np.ndarray]:
    """Probability that each layer, read through the final norm and the output head, gives to sets of tokens next.

    Returns
    -------
    dict of str to array (n_prompts, n_layers + 1)
        For each set, its total probability at the last position of each prompt.
    """
    ids = encode(lm, prompts)
    mass = {name: np.zeros((len(ids), len(lm.layers) + 1)) for name in token_sets}

    def run(indices: list[int]) -> None:
        input_ids, mask = padded([ids[i] for i in indices], lm.device)
        last = (torch.arange(len(indices)), mask.sum(dim=1).cpu() - 1)
        at_last: dict[int, torch.Tensor] = {}
        with torch.inference_mode():
            with residual_stream(lm, lambda layer, hidden: at_last.update({layer: hidden[last]})):
                lm.decoder(input_ids=input_ids, attention_mask=mask, use_cache=False)
            for layer, hidden in at_last.items():
                # Over several devices, accelerate moves what the norm and the head receive.
                probability = lm.logits(lm.final_norm(hidden)).float().softmax(dim=-1).cpu()
                for name, tokens in token_sets.items():
                    mass[name][indices, layer] = probability[:, list(tokens)].sum(dim=-1)

    run_in_batches([len(x) for x in ids], token_budget, run)
    return mass
