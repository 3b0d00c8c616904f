"""Change the forward pass for a while: features set to zero or scaled, language vectors added."""

from __future__ import annotations

import contextlib
import numbers
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from .activations import collect_activations
from .hooks import residual_stream
from .models.language_model import LanguageModel

Dimensions: TypeAlias = Sequence[int] | Sequence[bool] | np.ndarray | Tensor | pd.Series


@contextlib.contextmanager
def zero_features(
    lm: LanguageModel,
    features: Mapping[int, Dimensions] | np.ndarray | Tensor | pd.DataFrame,
    *,
    values: np.ndarray | Tensor | pd.DataFrame | None = None,
) -> Iterator[None]:
    """While active, the given features of the residual stream are zero, at every position.

    The fingerprint of ``lm`` is another one meanwhile, so no cached result of the intact model is
    used.  Interventions may be nested; an inner one sees what the outer one made.

    Args:
        lm: The model.
        features: Bool (n_layers + 1, hidden_size), True where a feature is to be zero; or
            {layer: dimensions}, the dimensions being different integers, or hidden_size bools.
            Layer ``l`` is what block ``l`` receives, layer ``n_layers`` what the last one puts out.
        values: (n_layers + 1, hidden_size), put there instead of zero: ``stats.mean`` for mean
            ablation.

    Raises:
        ValueError: If a layer or a dimension is not one of the model's, stands twice, or is of a
            type that leaves open what is meant (a mask of 0 and 1, say); if ``values`` have
            another shape, or are not finite.

    Example:
        ``with zero_features(lm, {5: [12, 400]}): translate(lm, ...)``
    """
    places = _places(lm, features)
    shape = len(lm.layers) + 1, lm.hidden_size
    put = torch.zeros(shape) if values is None else _checked_values(lm, values, shape)

    def replaced(layer: int, hidden: Tensor) -> Tensor | None:
        if layer not in places:
            return None
        hidden = hidden.clone()
        hidden[..., places[layer]] = put[layer, places[layer]].to(hidden)
        return hidden

    content = None if values is None else put.numpy()
    with lm.intervening("zero", _named(places), content), residual_stream(lm, replaced):
        yield


@contextlib.contextmanager
def scale_features(
    lm: LanguageModel,
    features: Mapping[int, Dimensions] | np.ndarray | Tensor | pd.DataFrame,
    factor: float,
) -> Iterator[None]:
    """While active, the given features of the residual stream are multiplied, at every position.

    Random features scaled a little are a placebo: accuracies move, though nothing was understood.
    The residual stream carries a feature on to the next layer, so one that is chosen at several
    layers in a row is multiplied again at each of them: 1.1 at ten layers is up to 2.6 at the last.

    As with :func:`zero_features`, the fingerprint of ``lm`` is another one meanwhile, and
    interventions may be nested.

    Args:
        lm: The model.
        features: As in :func:`zero_features`.
        factor: Any finite number; 1 changes nothing, 0 sets to zero.

    Raises:
        ValueError: As :func:`zero_features`, and if the factor is no finite number.

    Example:
        ``with scale_features(lm, matched_random_features(specific, stats.rms), 1.1): ...``
    """
    places = _places(lm, features)
    if not isinstance(factor, numbers.Real) or isinstance(factor, bool) or not np.isfinite(factor):
        raise ValueError(f"factor is {factor!r}; allowed: a finite number, such as 1.1.")
    times = float(factor)

    def scaled(layer: int, hidden: Tensor) -> Tensor | None:
        if layer not in places:
            return None
        hidden = hidden.clone()
        hidden[..., places[layer]] *= times
        return hidden

    with lm.intervening("scale", _named(places), times), residual_stream(lm, scaled):
        yield


def language_vector(lm: LanguageModel, sentences: Sequence[str]) -> Tensor:
    """Mean hidden state over the tokens of sentences, at the input of each block.

    Special tokens that the tokenizer puts before every text are left out: their massive
    activations would make the mean one of sentence length.

    Args:
        lm: The model.
        sentences: Texts of one language, none of them blank.

    Returns:
        (n_layers, hidden_size), float32.

    Raises:
        ValueError: If there is no sentence, or a blank one.
    """
    if not isinstance(sentences, str):  # of which encode says what is wrong
        sentences = list(sentences)
        for i, sentence in enumerate(sentences):
            if not sentence.strip():
                raise ValueError(f"Sentence {i} is blank: {sentence!r}. Leave it out.")
    n_special = len(lm.prefix)
    stats = collect_activations(lm, sentences, max_length=None, skip_first=n_special)
    return torch.from_numpy(stats.mean[:-1]).float()


@contextlib.contextmanager
def lrp2(
    lm: LanguageModel,
    language: Tensor | np.ndarray,
    english: Tensor | np.ndarray,
    layers: tuple[int, int],
) -> Iterator[None]:
    """LRP2 (Xu, Li, Xiong, arXiv 2311.03788): hidden states move to English, and back later.

    The two layers are tuned on labelled examples of the language, a supervision that pruning does
    not have: say so where the two are compared.

    Args:
        lm: The model.
        language: (n_layers, hidden_size), from :func:`language_vector`.
        english: The same of English sentences.
        layers: Where the states move to English, and where they move back: two of 1 to
            n_layers - 1, the first one smaller.

    Raises:
        ValueError: If the layers are others, or a vector has another shape or is not finite.
    """
    first, second = _checked_layers(layers, len(lm.layers))
    shape = len(lm.layers), lm.hidden_size
    shift = _checked_vector("english", english, shape) - _checked_vector(
        "language", language, shape
    )
    moves = {first: shift[first], second: -shift[second]}

    def moved(layer: int, hidden: Tensor) -> Tensor | None:
        return hidden + moves[layer].to(hidden) if layer in moves else None

    content = [move.numpy() for move in moves.values()]
    with lm.intervening("lrp2", *moves, *content), residual_stream(lm, moved):
        yield


# -- which features ------------------------------------------------------------------------------


def _places(lm: LanguageModel, features: object) -> dict[int, Tensor]:
    """{layer: dimensions}, layers in order, whichever way the features are given."""
    shape = len(lm.layers) + 1, lm.hidden_size
    if isinstance(features, Mapping):
        chosen = _of_mapping(features, shape)
    else:
        chosen = _of_mask(features, shape)
    return {layer: torch.as_tensor(chosen[layer]) for layer in sorted(chosen)}


def _named(places: Mapping[int, Tensor]) -> dict[int, list[int]]:
    """The same however it was given, for the fingerprint."""
    return {layer: sorted(dimensions.tolist()) for layer, dimensions in places.items()}


def _of_mask(features: object, shape: tuple[int, int]) -> dict[int, np.ndarray]:
    """{layer: dimensions} where a mask is True."""
    if isinstance(features, pd.Series):  # one that maps layers to dimensions has no layer order
        raise ValueError("features are a Series; allowed: a mask, or a dict {layer: dimensions}.")
    mask = _array(features)
    if mask.dtype != bool or mask.shape != shape:
        raise ValueError(
            f"features are an array {mask.shape} of type {mask.dtype}; allowed: bool {shape}, that "
            "is (n_layers + 1, hidden_size), or {layer: dimensions}. For a mask of 0 and 1, pass "
            "mask.astype(bool)."
        )
    return {layer: np.flatnonzero(row) for layer, row in enumerate(mask) if row.any()}


def _of_mapping(
    features: Mapping[int, Dimensions], shape: tuple[int, int]
) -> dict[int, np.ndarray]:
    chosen = {}
    for layer, given in features.items():
        if not _is_whole(layer) or not 0 <= layer < shape[0]:
            raise ValueError(
                f"layer {layer!r} of features; allowed: whole numbers, layers 0 to {shape[0] - 1}."
            )
        dimensions = _checked_dimensions(layer, given, shape[1])
        if len(dimensions):
            chosen[int(layer)] = dimensions
    return chosen


def _checked_dimensions(layer: int, given: Dimensions, hidden_size: int) -> np.ndarray:
    """Dimensions of one layer as integers, whichever way they are given."""
    where = f"layer {layer}, dimensions"
    allowed = (
        f"allowed: different whole numbers, dimensions 0 to {hidden_size - 1}, or a mask of "
        f"{hidden_size} bools"
    )
    array = _array(given)
    if array.size == 0 and array.ndim == 1 and array.dtype != bool:
        return np.array([], dtype=np.int64)
    if array.ndim != 1 or _mixes_bools_and_numbers(given):
        raise ValueError(f"{where} {given!r}; {allowed}.")
    if array.dtype == bool:
        if len(array) != hidden_size:
            raise ValueError(f"{where}: a mask of {len(array)} bools; {allowed}.")
        return np.flatnonzero(array)
    if not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{where} of type {array.dtype}; {allowed}.")
    array = array.astype(np.int64)
    outside = array[(array < 0) | (array >= hidden_size)]
    if len(outside):
        raise ValueError(f"{where} {outside.tolist()}; {allowed}.")
    found, times = np.unique(array, return_counts=True)
    if times.max() > 1:
        raise ValueError(
            f"{where}: {found[times.argmax()]} stands {times.max()} times; {allowed}. For a mask "
            "of 0 and 1, pass mask.astype(bool)."
        )
    return array


def _mixes_bools_and_numbers(given: object) -> bool:
    """Numpy would take the True of [True, 3] for a 1."""
    if not isinstance(given, (list, tuple)):
        return False
    n_bools = sum(isinstance(x, (bool, np.bool_)) for x in given)
    return 0 < n_bools < len(given)


# -- checks --------------------------------------------------------------------------------------


def _checked_values(lm: LanguageModel, values: object, shape: tuple[int, int]) -> Tensor:
    """What is put in, float32 (n_layers + 1, hidden_size), as large as the model can hold."""
    put = torch.as_tensor(_array(values).astype(np.float32))
    if put.shape != shape or not put.to(lm.model.dtype).isfinite().all():
        raise ValueError(
            f"values are {tuple(put.shape)}; allowed: finite numbers of shape {shape}, such as "
            f"stats.mean, that a model in {lm.model.dtype} can hold."
        )
    return put


def _checked_layers(layers: object, n_layers: int) -> tuple[int, int]:
    pair = list(layers) if isinstance(layers, Sequence) else []
    if len(pair) == 2 and all(_is_whole(layer) for layer in pair):
        if 1 <= pair[0] < pair[1] < n_layers:
            return int(pair[0]), int(pair[1])
    raise ValueError(
        f"layers are {layers!r}; allowed: two of 1 to {n_layers - 1}, the first one smaller."
    )


def _checked_vector(name: str, vector: object, shape: tuple[int, int]) -> Tensor:
    tensor = torch.as_tensor(_array(vector).astype(np.float32))
    if tensor.shape != shape or not tensor.isfinite().all():
        raise ValueError(
            f"The vector of {name} is {tuple(tensor.shape)}; allowed: finite numbers of shape "
            f"{shape}, from language_vector."
        )
    return tensor


def _array(values: object) -> np.ndarray:
    """As an array: lists, tensors on any device and of any type, data frames."""
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        return values.float().numpy() if values.is_floating_point() else values.numpy()
    try:
        return np.asarray(values)
    except ValueError:  # rows of different lengths
        return np.asarray(None)


def _is_whole(value: object) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, (bool, np.bool_))
