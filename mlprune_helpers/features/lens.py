"""The logit lens: what each layer predicts, read as if it were the last one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ..batching import encode, padded, run_in_batches
from ..hooks import residual_stream
from ..models.language_model import LanguageModel
from .checks import is_whole


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
        token_sets: {name: ids of tokens}, each id counted once.  A set may be empty, such as the
            tokens that only one language has: its probability is 0.
        token_budget: Padded tokens in a batch, halved when memory runs out; results do not depend
            on it.

    Returns:
        {name: (n_prompts, n_layers + 1)}: total probability of the tokens of each set.

    Raises:
        TypeError: If prompts, or the ids of a set, are one string.
        ValueError: If there is no set, an id is not in the model's vocabulary, or a prediction is
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
    for token in tokens:
        if not is_whole(token) or not 0 <= token < vocabulary:
            raise ValueError(
                f"Token set {name!r} has {token!r}; allowed: token ids from 0 to {vocabulary - 1}."
            )
    return [int(token) for token in dict.fromkeys(tokens)]
