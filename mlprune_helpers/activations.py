"""One pass over prompts → how large every feature gets.

Two kinds of features: dimensions of the residual stream between the blocks, and inputs of the
prunable matrices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from torch import Tensor

from .batching import encode, padded, run_in_batches
from .files import written_beside
from .hooks import InputSums, residual_stream
from .models.language_model import LanguageModel

PADDINGS = ("masked", "counted")
#: A massive activation exceeds both: this, and so many times the median of its hidden state (arXiv
#: 2402.17762).
MASSIVE = 100
MASSIVE_OVER_MEDIAN = 1000


@dataclass
class ActivationStats:
    """Sums over token positions; every norm, mean and share follows from them.

    Layers of the residual stream: before block 0, …, before block L-1, after it (before the final
    norm).

    Attributes:
        prompt_squares: Of every prompt, sums of squares (n_prompts, n_layers + 1, hidden_size).
        prompt_tokens: Of every prompt, positions counted (n_prompts,).
        input_squares: Of the inputs of each prunable matrix, sums of squares in float64
            (in_features,).
        hidden_max: Largest absolute value over all prompts (n_layers + 1, hidden_size).
        hidden_sum: Sum of the values, with their signs.
        hidden_above: Positions at which the absolute value exceeds ``threshold``.
        hidden_massive: Positions at which it is a massive activation: above 100 and above 1,000
            times the median of its hidden state (Sun et al., arXiv 2402.17762).
        threshold: 6 in LLM.int8 (arXiv 2208.07339).
        input_sums: Of the inputs of each prunable matrix, sums with their signs in float64
            (in_features,).
    """

    prompt_squares: np.ndarray
    prompt_tokens: np.ndarray
    input_squares: dict[str, np.ndarray]
    hidden_max: np.ndarray
    hidden_sum: np.ndarray
    hidden_above: np.ndarray
    hidden_massive: np.ndarray
    threshold: float = 6.0
    input_sums: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def n_tokens(self) -> int:
        """Positions counted, over all prompts."""
        return int(self.prompt_tokens.sum())

    @property
    def hidden(self) -> np.ndarray:
        """L2 norm over all tokens of all prompts (n_layers + 1, hidden_size).

        Pooled, as in pruning.
        """
        return np.sqrt(self.prompt_squares.sum(axis=0, dtype=np.float64))

    @property
    def hidden_per_prompt(self) -> np.ndarray:
        """L2 norm over the tokens of a prompt, averaged over prompts.

        As in the paper's analysis.
        """
        return np.sqrt(self.prompt_squares).mean(axis=0, dtype=np.float64)

    @property
    def rms(self) -> np.ndarray:
        """Root mean square over tokens (n_layers + 1, hidden_size).

        Free of the number of tokens.
        """
        return self.hidden / np.sqrt(self.n_tokens)

    @property
    def mean(self) -> np.ndarray:
        """Mean over tokens, with its sign (n_layers + 1, hidden_size).

        What mean ablation puts in.
        """
        return self._over_all("hidden_sum") / self.n_tokens

    @property
    def share_above(self) -> np.ndarray:
        """Share of tokens at which a feature exceeds ``threshold`` (n_layers + 1, hidden_size)."""
        return self._over_all("hidden_above") / self.n_tokens

    @property
    def share_massive(self) -> np.ndarray:
        """Share of tokens at which it is a massive activation (n_layers + 1, hidden_size)."""
        return self._over_all("hidden_massive") / self.n_tokens

    @property
    def inputs(self) -> dict[str, np.ndarray]:
        """L2 norm over all tokens of each matrix's inputs, {prunable name: (in_features,)}."""
        for squares in self.input_squares.values():
            _check_known("input_squares", squares)
        return {name: np.sqrt(squares) for name, squares in self.input_squares.items()}

    def select(self, chosen: Sequence[int] | np.ndarray | slice) -> ActivationStats:
        """The statistics of some prompts: to choose features on these and measure on others.

        Known of single prompts are ``hidden``, ``hidden_per_prompt``, ``rms`` and ``n_tokens``.
        What was summed up over all prompts (``mean``, shares, largest values, inputs of matrices)
        is not known of some of them: it is NaN here, and the properties refuse it.

        Args:
            chosen: Different prompt numbers, a bool for each prompt, or a slice.  Where partners
                are swapped, select whole units: see :func:`prompt_units`.

        Raises:
            ValueError: If a number is not one of a prompt, stands twice, or none is given.
        """
        numbers = _prompt_numbers(chosen, len(self.prompt_tokens))
        return replace(
            self,
            prompt_squares=self.prompt_squares[numbers],
            prompt_tokens=self.prompt_tokens[numbers],
            input_squares={name: _unknown(x) for name, x in self.input_squares.items()},
            input_sums={name: _unknown(x) for name, x in self.input_sums.items()},
            hidden_max=_unknown(self.hidden_max),
            hidden_sum=_unknown(self.hidden_sum),
            hidden_above=_unknown(self.hidden_above),
            hidden_massive=_unknown(self.hidden_massive),
        )

    def _over_all(self, name: str) -> np.ndarray:
        """A sum over all prompts; refused where only some were selected."""
        array = getattr(self, name)
        _check_known(name, array)
        return array

    def merge(self, other: ActivationStats) -> ActivationStats:
        """The statistics of both sets of prompts together, as one pass over both gives them.

        Raises:
            ValueError: For statistics of different models, or with different thresholds.
        """
        shapes = [{name: x.shape for name, x in s.input_squares.items()} for s in (self, other)]
        if shapes[0] != shapes[1] or self.hidden_max.shape != other.hidden_max.shape:
            raise ValueError("These statistics are of different models and cannot be merged.")
        if self.threshold != other.threshold:
            raise ValueError(
                f"Thresholds {self.threshold} and {other.threshold} differ: collect both with the "
                "same."
            )
        return ActivationStats(
            prompt_squares=np.concatenate([self.prompt_squares, other.prompt_squares]),
            prompt_tokens=np.concatenate([self.prompt_tokens, other.prompt_tokens]),
            input_squares=_added(self.input_squares, other.input_squares),
            input_sums=_added(self.input_sums, other.input_sums),
            hidden_max=np.maximum(self.hidden_max, other.hidden_max),
            hidden_sum=self.hidden_sum + other.hidden_sum,
            hidden_above=self.hidden_above + other.hidden_above,
            hidden_massive=self.hidden_massive + other.hidden_massive,
            threshold=self.threshold,
        )

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, complete or not at all."""
        arrays: dict[str, np.ndarray] = {}
        for name, value in vars(self).items():
            if isinstance(value, dict):
                arrays |= {f"{name}/{matrix}": array for matrix, array in value.items()}
            else:
                arrays[name] = np.asarray(value)
        # The format knows one order in memory only, and does not look which one an array has.
        arrays = {key: np.ascontiguousarray(array) for key, array in arrays.items()}
        with written_beside(path) as beside:
            save_file(arrays, beside)

    @classmethod
    def load(cls, path: str | Path) -> ActivationStats:
        """Read what :meth:`save` has written."""
        single: dict[str, Any] = {}
        by_matrix: dict[str, Any] = {"input_squares": {}, "input_sums": {}}
        with safe_open(str(path), framework="np") as file:
            for key in file.keys():
                name, _, matrix = key.partition("/")
                if matrix:
                    by_matrix[name][matrix] = file.get_tensor(key)
                else:
                    single[name] = file.get_tensor(key)
        threshold = single.pop("threshold").item()
        return cls(**single, **by_matrix, threshold=threshold)


def _unknown(array: np.ndarray) -> np.ndarray:
    return np.full(array.shape, np.nan)


def _check_known(name: str, array: np.ndarray) -> None:
    if array.size and np.isnan(array).all():
        raise ValueError(
            f"{name} is a sum over all prompts and is not known of selected ones: call "
            "collect_activations with those prompts."
        )


def _prompt_numbers(chosen: Sequence[int] | np.ndarray | slice, n_prompts: int) -> np.ndarray:
    """Numbers of prompts, each at most once, whichever way they are given."""
    allowed = (
        f"allowed: different whole numbers from 0 to {n_prompts - 1}, {n_prompts} bools, or a "
        "slice of them; at least one prompt"
    )
    if isinstance(chosen, slice):
        numbers = np.arange(n_prompts)[chosen]
    else:
        numbers = np.asarray(chosen)
    if numbers.dtype == bool and numbers.shape == (n_prompts,):
        numbers = np.flatnonzero(numbers)
    if not np.issubdtype(numbers.dtype, np.integer) or numbers.ndim != 1 or not len(numbers):
        raise ValueError(f"chosen is {chosen!r}; {allowed}.")
    outside = (numbers < 0) | (numbers >= n_prompts)
    if outside.any() or len(np.unique(numbers)) < len(numbers):
        raise ValueError(f"chosen is {chosen!r}; {allowed}.")
    return numbers


def _added(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: a[name] + b[name] for name in a}


def collect_activations(
    lm: LanguageModel,
    prompts: Sequence[str],
    *,
    max_length: int | None = 512,
    padding: str = "masked",
    skip_first: int = 0,
    threshold: float = 6.0,
    token_budget: int = 2048,
) -> ActivationStats:
    """Run the model once over the prompts and sum up its features.

    Sums are taken in float32 or better, whatever the model's own type.

    Args:
        lm: The model.
        prompts: Texts.
        max_length: Tokens at which a prompt is cut; None: nowhere.
        padding: "masked"; or "counted", as in the published code: prompts are padded to
            ``max_length``, and the norms include it.
        skip_first: How many tokens to leave out at the start of every prompt (the attention sink).
        threshold: Above which a value counts as an outlier.
        token_budget: Padded tokens in a batch, halved when memory runs out; results do not depend
            on it.

    Raises:
        ValueError: For a setting that is not allowed, a prompt too long for the model, or an
            activation that is not finite, naming the layer or the matrix.
    """
    ids, lengths = token_ids(lm, prompts, max_length, padding)
    shortest = min(map(len, ids))
    if not 0 <= skip_first < shortest:
        raise ValueError(
            f"skip_first is {skip_first}; allowed: 0 to {shortest - 1}, one token less than the "
            "shortest prompt."
        )
    collection = _Collection(lm, len(ids), threshold)

    def run(indices: list[int]) -> None:
        input_ids, mask = padded([ids[i] for i in indices], lm.device, lengths[indices[0]])
        counted = mask.bool() | (padding == "counted")
        counted[:, :skip_first] = False
        collection.add(indices, input_ids, mask, counted)

    run_in_batches(lengths, token_budget, run, "activations")
    return collection.stats()


def token_ids(
    lm: LanguageModel, prompts: Sequence[str], max_length: int | None, padding: str
) -> tuple[list[list[int]], list[int]]:
    """Ids of every prompt, cut at ``max_length``, and the length it is padded to at least."""
    if padding not in PADDINGS:
        raise ValueError(f"padding is {padding!r}; allowed: {', '.join(PADDINGS)}.")
    if max_length is None and padding == "counted":
        raise ValueError(
            "padding is 'counted', so max_length must say up to where prompts are padded."
        )
    if max_length is not None and max_length <= len(lm.prefix):
        raise ValueError(
            f"max_length is {max_length}; {len(lm.prefix)} special tokens stand before every "
            "prompt: raise it."
        )
    ids = encode(lm, prompts, max_length)
    lm.check_length(max(map(len, ids)))
    if padding == "masked" or max_length is None:
        return ids, [len(row) for row in ids]
    lm.check_length(max_length)
    return ids, [max_length] * len(ids)


class _Collection:
    """What a run over all prompts has added up so far."""

    def __init__(self, lm: LanguageModel, n_prompts: int, threshold: float):
        shape = (len(lm.layers) + 1, lm.hidden_size)
        self.lm = lm
        self.threshold = threshold
        self.squares = np.zeros((n_prompts, *shape), np.float32)
        self.tokens = np.zeros(n_prompts, np.int64)
        self.largest = np.zeros(shape, np.float32)
        self.sums = np.zeros(shape)
        self.above = np.zeros(shape, np.int64)
        self.massive = np.zeros(shape, np.int64)
        self.inputs = InputSums(lm.prunable, kinds=("squares", "sums"))

    def add(self, indices: list[int], input_ids: Tensor, mask: Tensor, counted: Tensor) -> None:
        """One pass over a batch; nothing of it is taken over unless it succeeds."""
        seen: dict[int, dict[str, np.ndarray]] = {}

        def see(layer: int, hidden: Tensor) -> None:
            seen[layer] = self._summed_up(hidden, counted)

        with torch.inference_mode(), residual_stream(self.lm, see), self.inputs.counting(counted):
            self.lm.run(input_ids, mask, check_finite=False)  # checked layer by layer, below
        for layer, found in seen.items():
            self.squares[indices, layer] = found["squares"]
            np.maximum(self.largest[layer], found["largest"], out=self.largest[layer])
            self.sums[layer] += found["sums"]
            self.above[layer] += found["above"]
            self.massive[layer] += found["massive"]
        self.tokens[indices] = counted.sum(dim=1).cpu().numpy()

    def _summed_up(self, hidden: Tensor, counted: Tensor) -> dict[str, np.ndarray]:
        hidden = hidden.float().masked_fill(~counted.to(hidden.device)[..., None], 0)
        size = hidden.abs()
        median = size.median(dim=-1, keepdim=True).values
        massive = size > (MASSIVE_OVER_MEDIAN * median).clamp_min(MASSIVE)
        everywhere = (0, 1)
        found = {
            "squares": size.square().sum(1),
            "largest": size.amax(everywhere),
            "sums": hidden.double().sum(everywhere),
            "above": (size > self.threshold).sum(everywhere),
            "massive": massive.sum(everywhere),
        }
        return {key: value.cpu().numpy() for key, value in found.items()}

    def stats(self) -> ActivationStats:
        """All of it, checked to be finite."""
        if not np.isfinite(self.squares).all():
            layer = int(np.argwhere(~np.isfinite(self.squares))[:, 1].min())
            raise ValueError(
                f"{self.lm.name}: hidden states are not finite from layer {layer} on; load the "
                "model in float32."
            )
        totals = self.inputs.checked()
        return ActivationStats(
            prompt_squares=self.squares,
            prompt_tokens=self.tokens,
            input_squares={name: sums["squares"].cpu().numpy() for name, sums in totals.items()},
            input_sums={name: sums["sums"].cpu().numpy() for name, sums in totals.items()},
            hidden_max=self.largest,
            hidden_sum=self.sums,
            hidden_above=self.above,
            hidden_massive=self.massive,
            threshold=float(self.threshold),
        )
