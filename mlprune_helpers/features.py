"""What is large, where it differs, and what happens without it.

A feature is one dimension of the residual stream at one layer.  Arrays of features have the shape
(n_layers + 1, hidden_size): layer ``l`` is what block ``l`` receives, the last one is what the last block puts out.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch

from .activations import ActivationStats, hidden_input
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


def relative_change(translation: ActivationStats, control: ActivationStats) -> np.ndarray:
    """log2 of the ratio of root mean squares, (n_layers + 1, hidden_size).  0: as large; 1: twice as large.

    A feature that is silent under both counts as unchanged.
    """
    floor = np.finfo(np.float32).tiny
    return np.log2(np.maximum(translation.rms, floor) / np.maximum(control.rms, floor))


def translation_specific_features(
    translation: ActivationStats,
    control: ActivationStats | Sequence[ActivationStats],
    *,
    method: str = "relative",
    count: int | None = None,
    top: float = 0.3,
    bottom: float = 0.3,
) -> np.ndarray:
    """Features that are large under translation and not under *any* of the controls → bool (n_layers + 1, hidden).

    Parameters
    ----------
    method : {"relative", "overlap"}
        ``"relative"``: at each layer, the ``count`` features whose root mean square grows most against the control
        under which it grows least, if it grows at all.  ``"overlap"``: among the ``top`` share under translation
        and the ``bottom`` share under the control (the paper's definition).
    count : int, optional
        For ``"relative"``; default 5 % of the hidden size.
    """
    controls = [control] if isinstance(control, ActivationStats) else list(control)
    if method == "overlap":
        large = top_features(translation.hidden_per_prompt, top)
        return np.logical_and.reduce([large & top_features(-c.hidden_per_prompt, bottom) for c in controls])
    if method != "relative":
        raise ValueError(f"method is {method!r}; allowed: 'relative', 'overlap'.")
    least = np.min([relative_change(translation, c) for c in controls], axis=0)
    count = count or round(0.05 * least.shape[-1])
    return top_features(least, count / least.shape[-1]) & (least > 0)


def matched_random_features(features: np.ndarray, norms: np.ndarray, *, seed: int = 0, bins: int = 10) -> np.ndarray:
    """Random other features, as many at each layer and of similar size: drawn within the same norm quantile.

    The control for an ablation: what is lost by zeroing features *of that size*, whichever they are.
    """
    rng = np.random.default_rng(seed)
    ranks = np.argsort(np.argsort(norms, axis=-1, kind="stable"), axis=-1)
    quantile = ranks * bins // norms.shape[-1]
    drawn = np.zeros_like(features)
    for layer in range(len(features)):
        for q in np.unique(quantile[layer][features[layer]]):
            inside = quantile[layer] == q
            wanted = int((features[layer] & inside).sum())
            others = np.flatnonzero(inside & ~features[layer])
            drawn[layer, rng.choice(others, min(wanted, len(others)), replace=False)] = True
    return drawn


@contextlib.contextmanager
def zero_features(lm: LanguageModel, features: Mapping[int, Sequence[int] | np.ndarray] | np.ndarray) -> Iterator[None]:
    """While active, the given features of the residual stream are zero at the given layers, at every position.

    Parameters
    ----------
    features : {layer: dimensions} or bool array (n_layers + 1, hidden_size)
        Layer ``l`` in 0 … n_layers - 1: what block ``l`` receives; n_layers: what the last block puts out.
        Dimensions: integers, or a bool mask (hidden_size,).

    The fingerprint of ``lm`` is another one meanwhile, so no cached result of the intact model is used.
    """
    n_layers = len(lm.layers)
    if isinstance(features, np.ndarray):
        features = {layer: np.flatnonzero(row) for layer, row in enumerate(features) if row.any()}
    chosen: dict[int, torch.Tensor] = {}
    for layer, dimensions in features.items():
        dimensions = np.asarray(dimensions)
        dimensions = np.flatnonzero(dimensions) if dimensions.dtype == bool else dimensions
        if not 0 <= layer <= n_layers:
            raise ValueError(f"layer {layer}; allowed: 0 to {n_layers}.")
        if len(dimensions) and not (0 <= dimensions.min() and dimensions.max() < lm.hidden_size):
            raise ValueError(f"dimension {dimensions.max()} at layer {layer}; allowed: 0 to {lm.hidden_size - 1}.")
        chosen[layer] = torch.as_tensor(dimensions, dtype=torch.long)

    def zeroed(hidden: torch.Tensor, layer: int) -> torch.Tensor:
        return hidden.index_fill(-1, chosen[layer].to(hidden.device), 0)

    def before(layer):
        def hook(module, args, kwargs):
            hidden = zeroed(hidden_input(args, kwargs), layer)
            return ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})

        return hook

    def after(module, args, output):
        if isinstance(output, tuple):
            return (zeroed(output[0], n_layers), *output[1:])
        return zeroed(output, n_layers)

    handles = [
        lm.layers[layer].register_forward_pre_hook(before(layer), with_kwargs=True) for layer in chosen if layer < n_layers
    ]
    if n_layers in chosen:
        handles.append(lm.layers[-1].register_forward_hook(after))
    text = ";".join(f"{layer}:{sorted(chosen[layer].tolist())}" for layer in sorted(chosen))
    intervention = "zero " + hashlib.sha256(text.encode()).hexdigest()[:16]
    lm.interventions.append(intervention)
    try:
        yield
    finally:
        lm.interventions.remove(intervention)
        for handle in handles:
            handle.remove()


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
    n_layers = len(lm.layers)
    mass = {name: np.zeros((len(ids), n_layers + 1)) for name in token_sets}
    sets = {name: torch.as_tensor(list(tokens), dtype=torch.long, device=lm.device) for name, tokens in token_sets.items()}

    def run(indices: list[int]) -> None:
        input_ids, mask = padded([ids[i] for i in indices], lm.device)
        last = mask.sum(dim=1) - 1
        at_last: dict[int, torch.Tensor] = {}

        def keep(layer, hidden):
            at_last[layer] = hidden[torch.arange(len(indices), device=hidden.device), last.to(hidden.device)]

        handles = [
            block.register_forward_pre_hook(
                lambda m, args, kwargs, layer=layer: keep(layer, hidden_input(args, kwargs)), with_kwargs=True
            )
            for layer, block in enumerate(lm.layers)
        ]
        handles.append(
            lm.layers[-1].register_forward_hook(lambda m, a, out: keep(n_layers, out[0] if isinstance(out, tuple) else out))
        )
        try:
            with torch.inference_mode():
                lm.decoder(input_ids=input_ids, attention_mask=mask, use_cache=False)
        finally:
            for handle in handles:
                handle.remove()
        with torch.inference_mode():
            for layer, hidden in at_last.items():
                probability = lm.logits(lm.final_norm(hidden)).float().softmax(dim=-1)
                for name, tokens in sets.items():
                    mass[name][indices, layer] = probability[:, tokens].sum(dim=-1).cpu().numpy()

    run_in_batches([len(x) for x in ids], token_budget, run)
    return mass
