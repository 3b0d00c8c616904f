"""What is large, where it differs, and whether that is more than chance.

A feature is one dimension of the residual stream at one layer.  Arrays of features have the shape
(n_layers + 1, hidden_size): layer ``l`` is what block ``l`` receives, the last one is what the last
block puts out.
"""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from .activations import ActivationStats
from .batching import encode, padded, run_in_batches
from .hooks import residual_stream
from .models.language_model import LanguageModel

ALTERNATIVES = ("greater", "two-sided")
SELECTIONS = ("relative", "overlap", "test")
SILENT = np.finfo(np.float32).tiny  # a size that counts as none: its logarithm is still a number

# -- the largest features ------------------------------------------------------------------------


def top_features(norms: np.ndarray, fraction: float = 0.3) -> np.ndarray:
    """At each layer, the ``floor(fraction · hidden_size)`` features with the largest norms.

    Args:
        norms: (..., hidden_size), any numbers but NaN.  Of equal ones, the first is taken.
        fraction: Share to take, in (0, 1].

    Returns:
        Bool array of the same shape.

    Raises:
        ValueError: If ``fraction`` is out of range, or a norm is NaN.
    """
    if not _is_number(fraction) or not 0 < fraction <= 1:
        raise ValueError(f"fraction is {fraction!r}; allowed: a number in (0, 1].")
    sizes = _numbers("norms", norms)
    if sizes.ndim == 0:
        raise ValueError("norms are one number; allowed: an array (..., hidden_size).")
    count = int(fraction * sizes.shape[-1] + 1e-9)
    largest = np.argsort(-sizes, axis=-1, kind="stable")[..., :count]
    chosen = np.zeros(sizes.shape, dtype=bool)
    np.put_along_axis(chosen, largest, True, axis=-1)
    return chosen


def overlap(a: np.ndarray, b: np.ndarray, *, top: float = 0.3, bottom: float = 0.3) -> np.ndarray:
    """Share of the top features of ``a`` that are among the bottom features of ``b``, by layer.

    Unrelated inputs give ``bottom`` (chance), equal ones 0 (Kim et al., arXiv 2409.16911).

    Args:
        a: Norms (..., hidden_size).
        b: Norms of the same shape.
        top: Share of ``a`` that counts as large, in (0, 1].
        bottom: Share of ``b`` that counts as small, in (0, 1].

    Returns:
        Shares (...): the last dimension is gone.

    Raises:
        ValueError: If the shapes differ, a norm is NaN, or ``top`` is less than one feature.
    """
    if np.shape(a) != np.shape(b):
        raise ValueError(
            f"Norms of the same features are needed; these have the shapes {np.shape(a)} and "
            f"{np.shape(b)}."
        )
    large = top_features(a, top)
    small = top_features(-_numbers("norms", b), bottom)
    if not large.any():
        raise ValueError(f"top is {top}, less than one of {large.shape[-1]} features: raise it.")
    return (large & small).sum(axis=-1) / large.sum(axis=-1)


# -- translation against its controls ------------------------------------------------------------


def relative_change(
    translation: ActivationStats, control: ActivationStats, *, per_prompt: bool = False
) -> np.ndarray:
    """How much larger features are under translation: log2 of the ratio of root mean squares.

    0: as large (or silent in both); 1: twice as large; -1: half as large.

    Args:
        translation: Statistics of translation prompts.
        control: Statistics of other prompts, of the same model.
        per_prompt: Compare prompt i with prompt i instead of all prompts with all.

    Returns:
        (n_layers + 1, hidden_size), or (n_prompts, n_layers + 1, hidden_size) per prompt.

    Raises:
        ValueError: If the two are of different models or not finite; per prompt, also if they
            have not as many prompts.
    """
    _check_comparable(translation, [control])
    if per_prompt:
        _check_as_many_prompts(translation, control, least=1)
        above = _floored(_rms_per_prompt(translation))
        below = _floored(_rms_per_prompt(control))
    else:
        above, below = _floored(translation.rms), _floored(control.rms)
    return np.log2(above / below)


def sign_flip_test(
    translation: ActivationStats,
    control: ActivationStats | Sequence[ActivationStats],
    *,
    alternative: str = "greater",
    n_flips: int = 10_000,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Which features change from control to translation: paired sign-flip test, maximum statistic.

    Prompt i of both must be a pair (the same sentences), and pairs must share no sentence with one
    another.  Then, if translation changes nothing, all log2 ratios of a pair may change sign
    together.  Every feature's Student statistic is compared with the maximum over layers ×
    features under such flips, so that ``p <= alpha`` has a chance of at most ``alpha`` of *any*
    false find (Westfall and Young, 1993).  It takes five pairs, or six, to get below 0.05.

    Args:
        translation: Statistics of translation prompts.
        control: Statistics of as many other prompts of the same model; or several such, of which
            the smallest change and the largest p-value count.
        alternative: ``"greater"``, or ``"two-sided"``.
        n_flips: Random flips, the observed signs among them; all 2^n_prompts, if those are no more.
        seed: Of the random flips.

    Returns:
        Mean log2 ratios and corrected p-values, both (n_layers + 1, hidden_size).

    Raises:
        ValueError: If prompts are not pairs, fewer than two, of different models or not finite.
    """
    if alternative not in ALTERNATIVES:
        raise ValueError(f"alternative is {alternative!r}; allowed: 'greater', 'two-sided'.")
    _check_count("n_flips", n_flips)
    controls = _listed(control)
    _check_comparable(translation, controls)
    for one in controls:
        _check_as_many_prompts(translation, one, least=2)
    two_sided = alternative == "two-sided"
    signs = _sign_flips(len(translation.prompt_tokens), n_flips, seed)
    changes, p_values = [], []
    for one in controls:
        change = relative_change(translation, one, per_prompt=True)
        changes.append(change.mean(axis=0))
        p_values.append(_corrected_p_values(change, signs, two_sided))
    return _least_change(np.stack(changes), two_sided), np.max(p_values, axis=0)


def _sign_flips(n: int, n_flips: int, seed: int) -> np.ndarray:
    """Signs of ``n`` pairs, float32 (flips, n): all there are, or the observed ones and random."""
    if n <= np.log2(n_flips):
        signs = np.array(list(product([1, -1], repeat=n)))
    else:
        drawn = np.random.default_rng(seed).choice([-1, 1], (n_flips - 1, n))
        signs = np.vstack([np.ones((1, n)), drawn])
    return signs.astype(np.float32)


def _corrected_p_values(change: np.ndarray, signs: np.ndarray, two_sided: bool) -> np.ndarray:
    """Share of flips whose largest statistic reaches a feature's own, by layer and feature."""
    flat = change.reshape(len(change), -1).astype(np.float64)
    # Over its root sum of squares, which no flip alters, a sum grows with Student's t: no need to
    # go on to t.
    length = np.sqrt(np.square(flat).sum(axis=0))
    units = (flat / np.maximum(length, np.finfo(np.float64).tiny)).astype(np.float32)
    observed = units.sum(axis=0)
    maxima = np.array([_largest(flip @ units, two_sided) for flip in signs])
    if two_sided:
        observed = np.abs(observed)
    smaller = np.searchsorted(np.sort(maxima), observed - 1e-5)  # equal but for rounding is equal
    return ((len(maxima) - smaller) / len(maxima)).reshape(change.shape[1:])


def _largest(statistics: np.ndarray, two_sided: bool) -> np.floating:
    return np.abs(statistics).max() if two_sided else statistics.max()


def _least_change(changes: np.ndarray, two_sided: bool) -> np.ndarray:
    """Of several controls (n_controls, ...), the change that is smallest: (...)."""
    size = np.abs(changes) if two_sided else changes
    least = size.argmin(axis=0)[np.newaxis]
    return np.take_along_axis(changes, least, axis=0)[0]


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
        alpha: Largest p-value, of ``"test"``.
        seed: Of the random flips, of ``"test"``.

    Returns:
        Bool (n_layers + 1, hidden_size).

    Raises:
        ValueError: If a setting is out of range, or the statistics are of different models.
    """
    controls = _listed(control)
    _check_comparable(translation, controls)
    if method == "relative":
        return _growing_most(translation, controls, count)
    if method == "overlap":
        return _large_here_small_there(translation, controls, top, bottom)
    if method == "test":
        if not _is_number(alpha) or not 0 <= alpha <= 1:
            raise ValueError(f"alpha is {alpha!r}; allowed: a number in [0, 1].")
        return sign_flip_test(translation, controls, seed=seed)[1] <= alpha
    raise ValueError(f"method is {method!r}; allowed: {', '.join(map(repr, SELECTIONS))}.")


def _growing_most(
    translation: ActivationStats, controls: Sequence[ActivationStats], count: int | None
) -> np.ndarray:
    least = np.min([relative_change(translation, one) for one in controls], axis=0)
    hidden_size = least.shape[-1]
    if count is None:
        count = max(1, round(0.05 * hidden_size))
    _check_count("count", count, most=hidden_size)
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
    seed: int = 0,
    **settings: Any,
) -> pd.DataFrame:
    """Do other prompts choose the same :func:`translation_specific_features`?

    Args:
        translation: Statistics of translation prompts.
        control: Statistics of as many other prompts of the same model, or several such.
        n_splits: How often the prompts are split at random into two halves.
        seed: Of the splits.
        **settings: Of :func:`translation_specific_features`.

    Returns:
        A row a layer: the mean ``jaccard`` index of the features that the two halves choose, its
        lowest (``low``) and highest (``high``), and ``chance``: that of random sets of the same
        sizes.  NaN where neither half finds any.

    Raises:
        ValueError: If there are fewer than two prompts, or not as many of each kind.
    """
    controls = _listed(control)
    _check_comparable(translation, controls)
    _check_count("n_splits", n_splits)
    n = len(translation.prompt_tokens)
    if n < 2:
        raise ValueError(f"{n} prompts; needed: at least two, to split them into halves.")
    for one in controls:
        _check_as_many_prompts(translation, one, least=2)
    rng = np.random.default_rng(seed)
    splits = []
    for _ in range(n_splits):
        halves = np.array_split(rng.permutation(n), 2)
        first, second = (
            translation_specific_features(
                _of_prompts(translation, half),
                [_of_prompts(one, half) for one in controls],
                **settings,
            )
            for half in halves
        )
        splits.append(_agreement(first, second))
    layers = pd.concat(splits).groupby("layer")
    table = layers.mean()
    table["low"] = layers["jaccard"].min()
    table["high"] = layers["jaccard"].max()
    return table.reset_index()


def _of_prompts(stats: ActivationStats, chosen: np.ndarray) -> ActivationStats:
    """Statistics of the ``chosen`` prompts only; sums over all prompts stay as they are."""
    return replace(
        stats,
        prompt_squares=stats.prompt_squares[chosen],
        prompt_tokens=stats.prompt_tokens[chosen],
    )


def _agreement(a: np.ndarray, b: np.ndarray) -> pd.DataFrame:
    """Jaccard index of two choices by layer, and what two random choices of these sizes give."""
    size_a, size_b = a.sum(axis=1), b.sum(axis=1)
    expected = size_a * size_b / a.shape[1]  # shared, if both were drawn at random
    with np.errstate(invalid="ignore"):
        jaccard = (a & b).sum(axis=1) / (a | b).sum(axis=1)
        chance = expected / (size_a + size_b - expected)
    return pd.DataFrame({"layer": range(len(a)), "jaccard": jaccard, "chance": chance})


# -- the control for an ablation -----------------------------------------------------------------


def matched_random_features(
    features: np.ndarray,
    norms: np.ndarray,
    *,
    exclude: np.ndarray | None = None,
    seed: int = 0,
    nearest: int = 10,
    tracks: bool = False,
) -> np.ndarray:
    """Random other features, as many at each layer and of similar size: an ablation's control.

    Each is one of the ``nearest`` free ones, by the ratio of norms, so that what is lost without
    them is lost without features *of that size*.

    Args:
        features: Bool (n_layers + 1, hidden_size), the features to be matched.
        norms: Sizes of all features, of the same shape.
        exclude: Bool, of the same shape: never drawn, such as massive activations.
        seed: Of the draw.
        nearest: Among how many of similar size a feature is drawn.
        tracks: Match whole dimensions.  A track is a dimension together with the layers at which it
            is chosen; it is replaced by a dimension that is chosen nowhere, at exactly these
            layers, of similar size there (mean ratio over the layers).  So as many dimensions are
            hit, for as many layers.  False: every layer is drawn by itself, which hits more.

    Returns:
        Bool array of the same shape; as many features at each layer, none of them in ``features``.

    Raises:
        ValueError: If a shape or type differs, a norm is NaN or negative, or too few are free.
    """
    chosen = _mask("features", features)
    if chosen.ndim != 2:
        raise ValueError(
            f"features are {chosen.shape}; allowed: a bool array (n_layers + 1, hidden_size)."
        )
    sizes = _numbers("norms", norms)
    banned = np.zeros_like(chosen) if exclude is None else _mask("exclude", exclude)
    for name, array in {"norms": sizes, "exclude": banned}.items():
        if array.shape != chosen.shape:
            raise ValueError(
                f"{name} are {array.shape} and features {chosen.shape}; the same shape is needed."
            )
    if (sizes < 0).any():
        raise ValueError("norms are negative somewhere; allowed: sizes, such as stats.rms.")
    _check_count("nearest", nearest)
    draw = _matched_tracks if tracks else _matched_by_layer
    return draw(chosen, _log_size(sizes), banned, np.random.default_rng(seed), nearest)


def _matched_by_layer(
    chosen: np.ndarray,
    log_size: np.ndarray,
    banned: np.ndarray,
    rng: np.random.Generator,
    nearest: int,
) -> np.ndarray:
    drawn = np.zeros_like(chosen)
    taken = chosen | banned
    for layer, row in enumerate(chosen):
        if row.sum() > (~taken[layer]).sum():
            raise ValueError(
                f"{row.sum()} of {row.size} features at layer {layer}: too few others to match. "
                "Choose fewer."
            )
        for feature in rng.permutation(np.flatnonzero(row)):
            others = np.flatnonzero(~taken[layer] & ~drawn[layer])
            distance = np.abs(log_size[layer, others] - log_size[layer, feature])
            drawn[layer, _one_of_the_nearest(others, distance, rng, nearest)] = True
    return drawn


def _matched_tracks(
    chosen: np.ndarray,
    log_size: np.ndarray,
    banned: np.ndarray,
    rng: np.random.Generator,
    nearest: int,
) -> np.ndarray:
    drawn = np.zeros_like(chosen)
    free = ~chosen.any(axis=0)
    for dimension in rng.permutation(np.flatnonzero(~free)):
        layers = np.flatnonzero(chosen[:, dimension])
        others = np.flatnonzero(free & ~drawn.any(axis=0) & ~banned[layers].any(axis=0))
        if not len(others):
            raise ValueError(
                f"{(~free).sum()} of {free.size} dimensions: too few others to match dimension "
                f"{dimension} at layers {layers.tolist()}. Choose fewer, or pass tracks=False."
            )
        there, own = log_size[np.ix_(layers, others)], log_size[layers, dimension]
        distance = np.abs(there - own[:, np.newaxis]).mean(axis=0)
        drawn[layers, _one_of_the_nearest(others, distance, rng, nearest)] = True
    return drawn


def _one_of_the_nearest(
    candidates: np.ndarray, distance: np.ndarray, rng: np.random.Generator, nearest: int
) -> int:
    order = np.argsort(distance, kind="stable")
    return int(candidates[rng.choice(order[:nearest])])


# -- the logit lens ------------------------------------------------------------------------------


def logit_lens(
    lm: LanguageModel,
    prompts: Sequence[str],
    token_sets: Mapping[str, Iterable[int]],
    *,
    token_budget: int = 2048,
) -> dict[str, np.ndarray]:
    """What every layer, read as if it were the last one, predicts after each prompt.

    The hidden state goes through whatever the model does after its blocks, then its output head
    (nostalgebraist, "interpreting GPT: the logit lens", 2020).

    Args:
        lm: The model.
        prompts: Texts; the prediction after their last token is read.
        token_sets: {name: ids of tokens}, each id counted once.
        token_budget: Padded tokens in a batch, halved when memory runs out; results do not depend
            on it.

    Returns:
        {name: (n_prompts, n_layers + 1)}: total probability of the tokens of each set.

    Raises:
        TypeError: If prompts, or the ids of a set, are one string.
        ValueError: If a set is empty, an id is not in the model's vocabulary, or a prediction is
            not finite.
    """
    chosen = _checked_token_sets(lm, token_sets)
    ids = encode(lm, prompts)
    mass = {name: np.zeros((len(ids), len(lm.layers) + 1)) for name in chosen}

    def read(indices: list[int]) -> None:
        states = _last_states(lm, [ids[i] for i in indices])
        for layer, hidden in states.items():
            probability = _next_token_probability(lm, hidden)
            failed = (~torch.isfinite(probability).all(dim=-1)).nonzero().flatten().tolist()
            if failed:
                raise ValueError(
                    f"The prediction of layer {layer} after prompt {indices[failed[0]]} is not "
                    "finite; load the model in float32."
                )
            for name, tokens in chosen.items():
                mass[name][indices, layer] = probability[:, tokens].sum(dim=-1)

    run_in_batches([len(x) for x in ids], token_budget, read, "logit lens")
    return mass


def _last_states(lm: LanguageModel, ids: Sequence[Sequence[int]]) -> dict[int, Tensor]:
    """{layer: hidden state at the last token of each text (n, hidden_size)}, in order."""
    input_ids, mask = padded(ids, lm.device)
    rows, last = torch.arange(len(ids)), mask.sum(dim=1).cpu() - 1
    states: dict[int, Tensor] = {}

    def see(layer: int, hidden: Tensor) -> None:
        states[layer] = hidden[rows, last]

    with torch.inference_mode(), residual_stream(lm, see):
        lm.run(input_ids, mask)
    return states


def _next_token_probability(lm: LanguageModel, hidden: Tensor) -> Tensor:
    """Probability (n, vocabulary), float32 on the CPU, from states (n, hidden_size) of a block."""
    with torch.inference_mode():
        return lm.logits_after_blocks(hidden).float().softmax(dim=-1).cpu()


def _checked_token_sets(
    lm: LanguageModel, token_sets: Mapping[str, Iterable[int]]
) -> dict[str, list[int]]:
    if not isinstance(token_sets, Mapping) or not token_sets:
        raise ValueError(f"token_sets are {token_sets!r}; allowed: {{name: ids of tokens}}.")
    vocabulary = len(lm.model.get_output_embeddings().weight)
    return {name: _checked_tokens(name, x, vocabulary) for name, x in token_sets.items()}


def _checked_tokens(name: str, given: Iterable[int], vocabulary: int) -> list[int]:
    """Ids of one set, each once, in the order given."""
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise TypeError(f"Token set {name!r} is {given!r}; allowed: a list of token ids.")
    tokens = given.tolist() if isinstance(given, (np.ndarray, Tensor)) else list(given)
    if not tokens:
        raise ValueError(f"Token set {name!r} is empty: leave it out, or give it token ids.")
    for token in tokens:
        if not _is_whole(token) or not 0 <= token < vocabulary:
            raise ValueError(
                f"Token set {name!r} has {token!r}; allowed: token ids from 0 to {vocabulary - 1}."
            )
    return [int(token) for token in dict.fromkeys(tokens)]


# -- checks --------------------------------------------------------------------------------------


def _listed(control: ActivationStats | Sequence[ActivationStats]) -> list[ActivationStats]:
    """One control or several, as a list."""
    controls = [control] if isinstance(control, ActivationStats) else list(control)
    if not controls:
        raise ValueError("No control given; needed: the statistics of other prompts.")
    return controls


def _check_comparable(translation: ActivationStats, controls: Sequence[ActivationStats]) -> None:
    for stats in (translation, *controls):
        if not isinstance(stats, ActivationStats):
            raise TypeError(
                f"{type(stats).__name__} where ActivationStats are needed: see collect_activations."
            )
        if not np.isfinite(stats.prompt_squares).all():
            raise ValueError(
                "These statistics are not finite: collect them with a model in float32."
            )
        if not len(stats.prompt_tokens) or np.min(stats.prompt_tokens) < 1:
            raise ValueError("These statistics have no prompt, or one of which no token counts.")
    shape = translation.prompt_squares.shape[1:]
    for stats in controls:
        other = stats.prompt_squares.shape[1:]
        if other != shape or stats.input_squares.keys() != translation.input_squares.keys():
            raise ValueError(
                "Translation and control are of different models: their layers and features are "
                f"{shape} and {other}, or their matrices differ. Collect both with one model."
            )


def _check_as_many_prompts(
    translation: ActivationStats, control: ActivationStats, *, least: int
) -> None:
    n, others = len(translation.prompt_tokens), len(control.prompt_tokens)
    if n != others or n < least:
        raise ValueError(
            f"{n} translation and {others} control prompts; needed: pairs of them, and at least "
            f"{least}."
        )


def _check_count(name: str, value: int, *, most: int | None = None) -> None:
    if not _is_whole(value) or value < 1 or (most is not None and value > most):
        limit = "of at least 1" if most is None else f"from 1 to {most}"
        raise ValueError(f"{name} is {value!r}; allowed: a whole number {limit}.")


def _is_number(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, (bool, np.bool_))


def _is_whole(value: object) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, (bool, np.bool_))


def _numbers(name: str, values: np.ndarray) -> np.ndarray:
    """As floats; NaN, which every comparison would pass over, is refused."""
    array = np.asarray(values)
    if array.dtype == bool or not np.issubdtype(array.dtype, np.floating):
        array = array.astype(np.float64)
    if np.isnan(array).any():
        where = tuple(int(i) for i in np.argwhere(np.isnan(array))[0])
        raise ValueError(f"{name} are NaN at {where}; allowed: numbers.")
    return array


def _mask(name: str, values: np.ndarray) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype != bool:
        raise ValueError(
            f"{name} are of type {array.dtype}; allowed: a bool array. For a mask of 0 and 1, pass "
            "mask.astype(bool)."
        )
    return array


def _floored(sizes: np.ndarray) -> np.ndarray:
    return np.maximum(sizes, SILENT)


def _log_size(sizes: np.ndarray) -> np.ndarray:
    return np.log(_floored(sizes))


def _rms_per_prompt(stats: ActivationStats) -> np.ndarray:
    """Root mean square over the tokens of each prompt (n_prompts, n_layers + 1, hidden_size)."""
    return np.sqrt(stats.prompt_squares / stats.prompt_tokens[:, np.newaxis, np.newaxis])
