"""One pass over prompts → how large every feature gets.

Two kinds of features: dimensions of the residual stream between the blocks, and inputs of the prunable matrices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from torch import Tensor

from .batching import encode, padded, run_in_batches
from .files import written_beside
from .hooks import InputSquares, residual_stream
from .models.language_model import LanguageModel

PADDINGS = ("masked", "counted")


def _per_token(name: str, doc: str) -> property:
    return property(
        lambda stats: getattr(stats, name) / stats.n_tokens,
        doc=f"{doc}  (n_layers + 1, hidden_size).",
    )


@dataclass
class ActivationStats:
    """Sums over token positions; every norm, mean and share follows from them.

    Layers of the residual stream: before block 0, …, before block L-1, after it (before the final norm).  Of every
    prompt: sums of squares ``prompt_squares`` (n_prompts, n_layers + 1, hidden_size), and positions counted
    ``prompt_tokens`` (n_prompts,).  ``input_squares``: of the inputs of each prunable matrix, float64 (in_features,).

    ``hidden_…`` (n_layers + 1, hidden_size), over all prompts: largest absolute value; sum of the values, with their
    signs; positions where the absolute value exceeds ``threshold`` (6 in LLM.int8, arXiv 2208.07339), and where it is a
    massive activation: above 100 and above 1,000 times the median of its hidden state (Sun et al., arXiv 2402.17762).
    """

    prompt_squares: np.ndarray
    prompt_tokens: np.ndarray
    input_squares: dict[str, np.ndarray]
    hidden_max: np.ndarray
    hidden_sum: np.ndarray
    hidden_above: np.ndarray
    hidden_massive: np.ndarray
    threshold: float = 6.0

    @property
    def n_tokens(self) -> int:
        return int(self.prompt_tokens.sum())

    @property
    def hidden(self) -> np.ndarray:
        """L2 norm over all tokens of all prompts (n_layers + 1, hidden_size): pooled, as in pruning."""
        return np.sqrt(self.prompt_squares.sum(axis=0, dtype=np.float64))

    @property
    def hidden_per_prompt(self) -> np.ndarray:
        """L2 norm over the tokens of a prompt, averaged over prompts: as in the paper's analysis."""
        return np.sqrt(self.prompt_squares).mean(axis=0, dtype=np.float64)

    @property
    def rms(self) -> np.ndarray:
        """Root mean square over tokens (n_layers + 1, hidden_size): free of the number of tokens."""
        return self.hidden / np.sqrt(self.n_tokens)

    mean = _per_token("hidden_sum", "Mean over tokens, with its sign: what mean ablation puts in.")
    share_above = _per_token(
        "hidden_above", "Share of tokens at which a feature exceeds ``threshold``."
    )
    share_massive = _per_token(
        "hidden_massive", "Share of tokens at which a feature is a massive activation."
    )

    @property
    def inputs(self) -> dict[str, np.ndarray]:
        """L2 norm over all tokens of each matrix's inputs, {prunable name: (in_features,)}."""
        return {name: np.sqrt(squares) for name, squares in self.input_squares.items()}

    def merge(self, other: ActivationStats) -> ActivationStats:
        """The statistics of both sets of prompts together, as one pass over both gives them."""
        if (
            self.input_squares.keys() != other.input_squares.keys()
            or self.hidden_max.shape != other.hidden_max.shape
        ):
            raise ValueError("These statistics are of different models and cannot be merged.")
        if self.threshold != other.threshold:
            raise ValueError(
                f"Thresholds {self.threshold} and {other.threshold} differ: collect both with the same."
            )
        return ActivationStats(
            np.concatenate([self.prompt_squares, other.prompt_squares]),
            np.concatenate([self.prompt_tokens, other.prompt_tokens]),
            {
                name: squares + other.input_squares[name]
                for name, squares in self.input_squares.items()
            },
            np.maximum(self.hidden_max, other.hidden_max),
            *(
                getattr(self, x) + getattr(other, x)
                for x in ("hidden_sum", "hidden_above", "hidden_massive")
            ),
            self.threshold,
        )

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, complete or not at all."""
        arrays = {
            f.name: np.asarray(getattr(self, f.name))
            for f in fields(self)
            if f.name != "input_squares"
        }
        arrays |= {f"inputs/{name}": squares for name, squares in self.input_squares.items()}
        with written_beside(path) as beside:
            save_file({key: np.ascontiguousarray(array) for key, array in arrays.items()}, beside)

    @classmethod
    def load(cls, path: str | Path) -> ActivationStats:
        with safe_open(str(path), framework="np") as file:
            arrays = {key: file.get_tensor(key) for key in file.keys()}
        inputs = {
            key.removeprefix("inputs/"): arrays.pop(key)
            for key in list(arrays)
            if key.startswith("inputs/")
        }
        return cls(input_squares=inputs, threshold=arrays.pop("threshold").item(), **arrays)


def collect_activations(
    lm: LanguageModel, prompts: Sequence[str], *, max_length: int = 512, padding: str = "masked", skip_first: int = 0,
    threshold: float = 6.0, token_budget: int = 2048,
) -> ActivationStats:  # fmt: skip
    """Run the model once over the prompts and sum up its features, in float32 whatever the model's own type.

    ``max_length``, ``skip_first``: tokens at which a prompt is cut, and how many to leave out at its start (the
    attention sink).  ``padding``: "masked"; or "counted", as in the published code: prompts are padded to
    ``max_length``, and the norms include it.  ``token_budget``: padded tokens in a batch, halved when memory runs out;
    results do not depend on it.

    Raises ValueError also where an activation is not finite, naming the layer or the matrix.
    """
    ids, lengths = token_ids(lm, prompts, max_length, padding)
    shortest = min(map(len, ids))
    if not 0 <= skip_first < shortest:
        raise ValueError(
            f"skip_first is {skip_first}; allowed: 0 to {shortest - 1}, one token less than the shortest prompt."
        )
    shape = len(lm.layers) + 1, lm.hidden_size
    squares, tokens = np.zeros((len(ids), *shape), np.float32), np.zeros(len(ids), np.int64)
    largest, sums = (
        np.zeros(shape, np.float32),
        [np.zeros(shape), np.zeros(shape, np.int64), np.zeros(shape, np.int64)],
    )
    inputs = InputSquares(lm.prunable)

    def run(indices: list[int]) -> None:
        input_ids, mask = padded([ids[i] for i in indices], lm.device, lengths[indices[0]])
        counted = mask.bool() | (padding == "counted")
        counted[:, :skip_first] = False
        seen: dict[int, list[np.ndarray]] = {}  # taken over once the whole pass has succeeded

        def see(layer: int, hidden: Tensor) -> None:
            hidden = hidden.float().masked_fill(~counted.to(hidden.device)[..., None], 0)
            size, over = hidden.abs(), (0, 1)
            massive = size > (1000 * size.median(dim=-1, keepdim=True).values).clamp_min(100)
            found = (
                size.square().sum(1),
                size.amax(over),
                hidden.double().sum(over),
                (size > threshold).sum(over),
                massive.sum(over),
            )
            seen[layer] = [x.cpu().numpy() for x in found]

        with torch.inference_mode(), residual_stream(lm, see), inputs.counting(counted):
            lm.decoder(input_ids=input_ids, attention_mask=mask, use_cache=False)
        for layer, (of_prompts, maximum, *more) in seen.items():
            squares[indices, layer] = of_prompts
            np.maximum(largest[layer], maximum, out=largest[layer])
            for total, part in zip(sums, more):
                total[layer] += part
        tokens[indices] = counted.sum(dim=1).cpu().numpy()

    run_in_batches(lengths, token_budget, run, "activations")
    if not np.isfinite(squares).all():
        layer = int(np.argwhere(~np.isfinite(squares))[:, 1].min())
        raise ValueError(
            f"{lm.name}: hidden states are not finite from layer {layer} on; load the model in float32."
        )
    input_squares = {name: x.cpu().numpy() for name, x in inputs.checked().items()}
    return ActivationStats(squares, tokens, input_squares, largest, *sums, float(threshold))


def token_ids(
    lm: LanguageModel, prompts: Sequence[str], max_length: int, padding: str
) -> tuple[list[list[int]], list[int]]:
    """Ids of every prompt, cut at ``max_length``, and the length it is padded to at least."""
    if padding not in PADDINGS:
        raise ValueError(f"padding is {padding!r}; allowed: {', '.join(PADDINGS)}.")
    ids = encode(lm, prompts, max_length)
    return ids, [max_length if padding == "counted" else len(x) for x in ids]
