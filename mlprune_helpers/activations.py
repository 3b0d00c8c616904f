"""One pass over prompts → how large every feature gets.

Two kinds of features: dimensions of the residual stream between the blocks, and inputs of the prunable matrices.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from tqdm.auto import tqdm

from .models import LanguageModel
from .prompts import encode, padded, run_in_batches

PADDINGS = ("masked", "counted")


@dataclass
class ActivationStats:
    """Sums of squares over token positions; every norm follows from them.

    Attributes
    ----------
    prompt_squares : float32 array (n_prompts, n_layers + 1, hidden_size)
        Per prompt: residual stream before block 0, …, before block L-1, after the last block (before the final
        norm).
    prompt_tokens : int array (n_prompts,)
        Positions counted per prompt.
    input_squares : dict of str to float64 array (in_features,)
        Inputs of each prunable matrix, over all prompts.
    hidden_max : float32 array (n_layers + 1, hidden_size)
        Largest absolute value.
    """

    prompt_squares: np.ndarray
    prompt_tokens: np.ndarray
    input_squares: dict[str, np.ndarray]
    hidden_max: np.ndarray

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

    @property
    def inputs(self) -> dict[str, np.ndarray]:
        """L2 norm over all tokens of each matrix's inputs, {prunable name: (in_features,)}."""
        return {name: np.sqrt(squares) for name, squares in self.input_squares.items()}

    def merge(self, other: ActivationStats) -> ActivationStats:
        """The statistics of both sets of prompts together."""
        if self.input_squares.keys() != other.input_squares.keys() or self.hidden_max.shape != other.hidden_max.shape:
            raise ValueError("These statistics are of different models and cannot be merged.")
        return ActivationStats(
            np.concatenate([self.prompt_squares, other.prompt_squares]),
            np.concatenate([self.prompt_tokens, other.prompt_tokens]),
            {name: squares + other.input_squares[name] for name, squares in self.input_squares.items()},
            np.maximum(self.hidden_max, other.hidden_max),
        )

    def save(self, path: str | Path) -> None:
        """Write one safetensors file."""
        arrays = {
            "prompt_squares": self.prompt_squares,
            "prompt_tokens": self.prompt_tokens,
            "hidden_max": self.hidden_max,
            **{f"inputs/{name}": squares for name, squares in self.input_squares.items()},
        }
        save_file({key: np.ascontiguousarray(array) for key, array in arrays.items()}, str(path))

    @classmethod
    def load(cls, path: str | Path) -> ActivationStats:
        with safe_open(str(path), framework="np") as file:
            arrays = {key: file.get_tensor(key) for key in file.keys()}
        inputs = {key.removeprefix("inputs/"): arrays.pop(key) for key in list(arrays) if key.startswith("inputs/")}
        return cls(input_squares=inputs, **arrays)


def collect_activations(
    lm: LanguageModel,
    prompts: Sequence[str],
    *,
    max_length: int = 512,
    padding: str = "masked",
    skip_first: int = 0,
    token_budget: int = 2048,
) -> ActivationStats:
    """Run the model once over the prompts and sum the squares of its features.

    Parameters
    ----------
    max_length : int
        Tokens at which a prompt is cut.
    padding : {"masked", "counted"}
        ``"counted"`` reproduces the published code: every prompt is padded to ``max_length`` and the padding
        enters the norms.
    skip_first : int
        Leave out the first tokens of every prompt (the attention sink).
    token_budget : int
        Padded tokens in a batch; halved when memory runs out.  Results do not depend on it.

    Raises
    ------
    ValueError
        Also when an activation is not finite, naming where.
    """
    if padding not in PADDINGS:
        raise ValueError(f"padding is {padding!r}; allowed: {', '.join(PADDINGS)}.")
    ids = encode(lm, prompts, max_length)
    if skip_first >= min(map(len, ids)) or skip_first < 0:
        raise ValueError(f"skip_first is {skip_first}; the shortest prompt has {min(map(len, ids))} tokens.")
    n_layers = len(lm.layers)
    squares = np.zeros((len(ids), n_layers + 1, lm.hidden_size), dtype=np.float32)
    tokens = np.zeros(len(ids), dtype=np.int64)
    largest = np.zeros((n_layers + 1, lm.hidden_size), dtype=np.float32)
    inputs = InputSquares(lm.prunable)
    lengths = [max_length] * len(ids) if padding == "counted" else [len(x) for x in ids]
    bar = tqdm(total=len(ids), desc="activations", leave=False)

    def run(indices: list[int]) -> None:
        input_ids, mask = padded([ids[i] for i in indices], lm.device, lengths[indices[0]])
        counted = counted_positions(mask, padding, skip_first)
        with torch.inference_mode(), residual_stream(lm, counted) as hidden, inputs.counting(counted):
            lm.decoder(input_ids=input_ids, attention_mask=mask, use_cache=False)
        for layer, (prompt_squares, maximum) in hidden.items():
            squares[indices, layer] = prompt_squares
            largest[layer] = np.maximum(largest[layer], maximum)
        tokens[indices] = counted.sum(dim=1).cpu().numpy()
        bar.update(len(indices))

    with bar:
        run_in_batches(lengths, token_budget, run)
    if not np.isfinite(squares).all():
        layer = int(np.argwhere(~np.isfinite(squares))[:, 1].min())
        raise ValueError(f"{lm.name}: hidden states are not finite from layer {layer} on; load the model in float32.")
    return ActivationStats(squares, tokens, inputs.arrays(), largest)


def counted_positions(mask: torch.Tensor, padding: str, skip_first: int = 0) -> torch.Tensor:
    """Bool (batch, length): which positions enter the statistics."""
    counted = torch.ones_like(mask, dtype=torch.bool) if padding == "counted" else mask.bool()
    counted[:, :skip_first] = False
    return counted


@contextlib.contextmanager
def residual_stream(lm: LanguageModel, counted: torch.Tensor) -> Iterator[dict[int, tuple]]:
    """While active, a forward pass fills {layer: (squares per prompt (batch, hidden), maxima (hidden,))}."""
    seen: dict[int, tuple] = {}

    def keep(layer: int, hidden: torch.Tensor) -> None:
        magnitude = hidden.float().abs().masked_fill_(~counted.to(hidden.device)[..., None], 0)
        seen[layer] = (magnitude.square().sum(dim=1).cpu().numpy(), magnitude.amax(dim=(0, 1)).cpu().numpy())

    def before(module, args, kwargs, layer):
        keep(layer, hidden_input(args, kwargs))

    def after(module, args, output):
        keep(len(lm.layers), output[0] if isinstance(output, tuple) else output)

    handles = [
        block.register_forward_pre_hook(partial(before, layer=i), with_kwargs=True) for i, block in enumerate(lm.layers)
    ]
    handles.append(lm.layers[-1].register_forward_hook(after))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def hidden_input(args: tuple, kwargs: dict) -> torch.Tensor:
    """The hidden states (batch, length, hidden) that a decoder block is called with."""
    return args[0] if args else kwargs["hidden_states"]


class InputSquares:
    """Running sums of squares of the inputs of matrices, {name: (in_features,) in float64}."""

    def __init__(self, matrices: dict[str, torch.nn.Module]):
        self.matrices = matrices
        self.sums: dict[str, torch.Tensor] = {}

    @contextlib.contextmanager
    def counting(self, counted: torch.Tensor) -> Iterator[None]:
        """Add what the matrices receive at the counted positions (batch, length); nothing, if the pass fails."""
        batch: dict[str, torch.Tensor] = {}
        last: list = [None, None]  # query, key and value read the same tensor: square it once
        everything = bool(counted.all())

        def before(module, args, name):
            inputs = args[0]
            if inputs is not last[0]:
                rows = inputs.flatten(0, -2)  # OPT has put batch and length into one dimension already
                if not everything:
                    rows = rows[counted.flatten().to(rows.device)]
                last[:] = inputs, torch.linalg.vector_norm(rows, dim=0, dtype=torch.float32).double().square()
            batch[name] = last[1]

        handles = [m.register_forward_pre_hook(partial(before, name=name)) for name, m in self.matrices.items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
        for name, squares in batch.items():
            self.sums[name] = self.sums[name] + squares if name in self.sums else squares

    def norms(self) -> dict[str, torch.Tensor]:
        """{name: L2 norm over tokens (in_features,)}, checked to be there and finite."""
        for name in self.matrices:
            if name not in self.sums:
                raise ValueError(f"{name} was never used in the forward pass, so its inputs are unknown.")
            if not torch.isfinite(self.sums[name]).all():
                raise ValueError(f"Inputs of {name} are not finite; load the model in float32 or bfloat16.")
        return {name: self.sums[name].sqrt() for name in self.matrices}

    def arrays(self) -> dict[str, np.ndarray]:
        """{name: squares as a float64 array}."""
        return {name: (norm**2).cpu().numpy() for name, norm in self.norms().items()}
