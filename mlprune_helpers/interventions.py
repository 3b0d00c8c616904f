"""Change the forward pass for a while: features set to zero, language vectors added."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch

from .activations import collect_activations
from .batching import encode
from .hooks import residual_stream
from .models.language_model import LanguageModel


@contextlib.contextmanager
def zero_features(
    lm: LanguageModel,
    features: Mapping[int, Sequence[int] | np.ndarray] | np.ndarray,
    *,
    values: np.ndarray | None = None,
) -> Iterator[None]:
    """While active, the given features of the residual stream are zero at the given layers, at every position.

    ``features``: {layer: dimensions (integers, or a bool mask)}, or a bool array (n_layers + 1, hidden_size).
    ``values`` (n_layers + 1, hidden_size) are put there instead of zero: ``stats.mean`` for mean ablation.
    The fingerprint of ``lm`` is another one meanwhile, so no cached result of the intact model is used.
    """
    shape = len(lm.layers) + 1, lm.hidden_size
    put = (
        torch.zeros(shape)
        if values is None
        else torch.as_tensor(np.asarray(values, dtype=np.float32))
    )
    if put.shape != shape or not put.isfinite().all():
        raise ValueError(
            f"values are {tuple(put.shape)}; allowed: finite numbers of shape {shape}, such as stats.mean."
        )
    chosen: dict[int, torch.Tensor] = {}
    for layer, dimensions in (
        enumerate(features) if isinstance(features, np.ndarray) else features.items()
    ):
        dimensions = np.asarray(dimensions)
        dimensions = np.flatnonzero(dimensions) if dimensions.dtype == bool else dimensions
        wrong = dimensions[(dimensions < 0) | (dimensions >= shape[1])].tolist()
        if not 0 <= layer < shape[0] or wrong:
            raise ValueError(
                f"layer {layer}, dimensions {wrong}; allowed: layers 0 to {shape[0] - 1}, dimensions 0 to {shape[1] - 1}."
            )
        if len(dimensions):
            chosen[layer] = torch.as_tensor(dimensions, dtype=torch.long)

    def see(layer, hidden):
        if layer in chosen:
            hidden = hidden.clone()
            hidden[..., chosen[layer]] = put[layer, chosen[layer]].to(hidden)
            return hidden

    what = {layer: sorted(chosen[layer].tolist()) for layer in sorted(chosen)}
    with (
        lm.intervening("zero", what, values if values is None else put.numpy()),
        residual_stream(lm, see),
    ):
        yield


def language_vector(lm: LanguageModel, sentences: Sequence[str]) -> torch.Tensor:
    """Mean hidden state (n_layers, hidden_size) over the tokens of sentences, at the input of each block.

    Without the beginning-of-sequence token: its massive activations would make the mean one of sentence length.
    """
    begins = encode(lm, sentences[:1])[0][0] == lm.tokenizer.bos_token_id
    return torch.from_numpy(
        collect_activations(lm, sentences, max_length=None, skip_first=int(begins)).mean[:-1]
    ).float()


@contextlib.contextmanager
def lrp2(
    lm: LanguageModel, language: torch.Tensor, english: torch.Tensor, layers: tuple[int, int]
) -> Iterator[None]:
    """LRP2 (Xu, Li, Xiong, arXiv 2311.03788): while active, hidden states move to English at one layer, back at a later.

    ``language``, ``english``: from :func:`language_vector`.  The two layers are tuned on labelled examples of the
    language, a supervision that pruning does not have: say so where the two are compared.
    """
    first, second = layers
    if not 1 <= first < second < len(lm.layers):
        raise ValueError(
            f"layers are {layers}; allowed: two of 1 to {len(lm.layers) - 1}, the first one smaller."
        )

    shift = english - language
    moves = {first: shift[first], second: -shift[second]}

    def see(layer: int, hidden: torch.Tensor) -> torch.Tensor | None:
        return hidden + moves[layer].to(hidden) if layer in moves else None

    with (
        lm.intervening("lrp2", *moves, *(move.cpu().numpy() for move in moves.values())),
        residual_stream(lm, see),
    ):
        yield
