"""One pass over prompts → how large every feature gets.

Two kinds of features: dimensions of the residual stream between the blocks, and inputs of the prunable matrices.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from torch import Tensor
from tqdm.auto import tqdm

from .models import LanguageModel
from .prompts import encode, padded, run_in_batches

PADDINGS = ("masked", "counted")
MASSIVE = 100.0, 1000.0  # larger than the one, and than the other times the median of the token (arXiv 2402.17762)


@dataclass
class ActivationStats:
    """Sums over token positions; every norm, mean and share follows from them.

    Layers of the residual stream: before block 0, …, before block L-1, after the last block (before the final norm).

    Attributes
    ----------
    prompt_squares : float32 array (n_prompts, n_layers + 1, hidden_size)
        Sums of squares of the residual stream, per prompt.
    prompt_tokens : int array (n_prompts,)
        Positions counted per prompt.
    input_squares : dict of str to float64 array (in_features,)
        Inputs of each prunable matrix, over all prompts.
    hidden_max, hidden_sum : float arrays (n_layers + 1, hidden_size)
        Largest absolute value; sum of the values, with their signs.
    hidden_above, hidden_massive : int64 arrays (n_layers + 1, hidden_size)
        Positions at which the absolute value exceeds ``threshold``; at which it is a massive activation: above
        100 and above 1,000 times the median of its hidden state (Sun et al., arXiv 2402.17762).
    threshold : float
        6 by default, as in LLM.int8 (arXiv 2208.07339).
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

    @property
    def mean(self) -> np.ndarray:
        """Mean over tokens (n_layers + 1, hidden_size), with its sign: what mean ablation puts in."""
        return self.hidden_sum / self.n_tokens

    @property
    def share_above(self) -> np.ndarray:
        """Share of tokens whose absolute value exceeds ``threshold`` (n_layers + 1, hidden_size)."""
        return self.hidden_above / self.n_tokens

    @property
    def share_massive(self) -> np.ndarray:
        """Share of tokens at which the feature is a massive activation (n_layers + 1, hidden_size)."""
        return self.hidden_massive / self.n_tokens

    @property
    def inputs(self) -> dict[str, np.ndarray]:
        """L2 norm over all tokens of each matrix's inputs, {prunable name: (in_features,)}."""
        return {name: np.sqrt(squares) for name, squares in self.input_squares.items()}

    def merge(self, other: ActivationStats) -> ActivationStats:
        """The statistics of both sets of prompts together, as one pass over both gives them."""
        if self.input_squares.keys() != other.input_squares.keys() or self.hidden_max.shape != other.hidden_max.shape:
            raise ValueError("These statistics are of different models and cannot be merged.")
        if self.threshold != other.threshold:
            raise ValueError(f"Thresholds {self.threshold} and {other.threshold} differ: collect both with the same one.")
        return ActivationStats(
            np.concatenate([self.prompt_squares, other.prompt_squares]),
            np.concatenate([self.prompt_tokens, other.prompt_tokens]),
            {name: squares + other.input_squares[name] for name, squares in self.input_squares.items()},
            np.maximum(self.hidden_max, other.hidden_max),
            self.hidden_sum + other.hidden_sum,
            self.hidden_above + other.hidden_above,
            self.hidden_massive + other.hidden_massive,
            self.threshold,
        )

    def save(self, path: str | Path) -> None:
        """Write one safetensors file."""
        arrays = {f.name: np.asarray(getattr(self, f.name)) for f in fields(self) if f.name != "input_squares"}
        arrays |= {f"inputs/{name}": squares for name, squares in self.input_squares.items()}
        beside = Path(f"{path}.tmp")
        save_file({key: np.ascontiguousarray(array) for key, array in arrays.items()}, str(beside))
        beside.replace(path)

    @classmethod
    def load(cls, path: str | Path) -> ActivationStats:
        with safe_open(str(path), framework="np") as file:
            arrays = {key: file.get_tensor(key) for key in file.keys()}
        inputs = {key.removeprefix("inputs/"): arrays.pop(key) for key in list(arrays) if key.startswith("inputs/")}
        return cls(input_squares=inputs, threshold=arrays.pop("threshold").item(), **arrays)


def collect_activations(
    lm: LanguageModel,
    prompts: Sequence[str],
    *,
    max_length: int = 512,
    padding: str = "masked",
    skip_first: int = 0,
    threshold: float = 6.0,
    token_budget: int = 2048,
) -> ActivationStats:
    """Run the model once over the prompts and sum up its features, in float32 whatever the model's own type.

    Parameters
    ----------
    max_length : int
        Tokens at which a prompt is cut.
    padding : {"masked", "counted"}
        ``"counted"`` reproduces the published code: every prompt is padded to ``max_length`` and the padding
        enters the norms.
    skip_first : int
        Leave out the first tokens of every prompt (the attention sink).
    threshold : float
        Absolute value above which tokens are counted in ``hidden_above``.
    token_budget : int
        Padded tokens in a batch; halved when memory runs out.  Results do not depend on it.

    Raises
    ------
    ValueError
        Also when an activation is not finite, naming where.
    """
    ids, lengths = token_ids(lm, prompts, max_length, padding)
    if not 0 <= skip_first < min(map(len, ids)):
        raise ValueError(
            f"skip_first is {skip_first}; allowed: 0 to {min(map(len, ids)) - 1}, as the shortest prompt has "
            f"{min(map(len, ids))} tokens."
        )
    shape = len(lm.layers) + 1, lm.hidden_size
    squares, tokens = np.zeros((len(ids), *shape), np.float32), np.zeros(len(ids), np.int64)
    largest, total = np.zeros(shape, np.float32), np.zeros(shape)
    above, massive = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    inputs = InputSquares(lm.prunable)
    bar = tqdm(total=len(ids), desc="activations", leave=False)

    def run(indices: list[int]) -> None:
        input_ids, mask = padded([ids[i] for i in indices], lm.device, lengths[indices[0]])
        counted = counted_positions(mask, padding, skip_first)
        seen: dict[int, tuple[np.ndarray, ...]] = {}  # taken over once the whole pass has succeeded

        def see(layer: int, hidden: Tensor) -> None:
            hidden = hidden.float().masked_fill(~counted.to(hidden.device)[..., None], 0)
            size = hidden.abs()
            large = size > torch.clamp(MASSIVE[1] * size.median(dim=-1, keepdim=True).values, min=MASSIVE[0])
            sums = (
                size.square().sum(dim=1),
                size.amax(dim=(0, 1)),
                hidden.sum(dim=(0, 1), dtype=torch.float64),
                (size > threshold).sum(dim=(0, 1)),
                large.sum(dim=(0, 1)),
            )
            seen[layer] = tuple(x.cpu().numpy() for x in sums)

        with torch.inference_mode(), residual_stream(lm, see), inputs.counting(counted):
            lm.decoder(input_ids=input_ids, attention_mask=mask, use_cache=False)
        for layer, (of_prompts, maximum, *sums) in seen.items():
            squares[indices, layer] = of_prompts
            np.maximum(largest[layer], maximum, out=largest[layer])
            for array, more in zip((total, above, massive), sums):
                array[layer] += more
        tokens[indices] = counted.sum(dim=1).cpu().numpy()
        bar.update(len(indices))

    with bar:
        run_in_batches(lengths, token_budget, run)
    if not np.isfinite(squares).all():
        layer = int(np.argwhere(~np.isfinite(squares))[:, 1].min())
        raise ValueError(f"{lm.name}: hidden states are not finite from layer {layer} on; load the model in float32.")
    return ActivationStats(squares, tokens, inputs.arrays(), largest, total, above, massive, float(threshold))


# -- what pruning and features share ----------------------------------------------------------------------------


def token_ids(
    lm: LanguageModel, prompts: Sequence[str], max_length: int, padding: str
) -> tuple[list[list[int]], list[int]]:
    """Ids of every prompt, cut at ``max_length``, and the length each is padded to at least."""
    if padding not in PADDINGS:
        raise ValueError(f"padding is {padding!r}; allowed: {', '.join(PADDINGS)}.")
    ids = encode(lm, prompts, max_length)
    return ids, [max_length if padding == "counted" else len(x) for x in ids]


def counted_positions(mask: Tensor, padding: str, skip_first: int = 0) -> Tensor:
    """Bool (batch, length): which positions enter the statistics."""
    counted = torch.ones_like(mask, dtype=torch.bool) if padding == "counted" else mask.bool()
    counted[:, :skip_first] = False
    return counted


def hidden_input(args: tuple, kwargs: dict) -> Tensor:
    """The hidden states (batch, length, hidden) that a decoder block is called with."""
    return args[0] if args else kwargs["hidden_states"]


@contextlib.contextmanager
def residual_stream(lm: LanguageModel, see: Callable[[int, Tensor], Tensor | None]) -> Iterator[None]:
    """While active, every forward pass calls ``see(layer, hidden)`` for layers 0 … n_layers.

    ``hidden`` (batch, length, hidden_size): what block ``layer`` receives; at n_layers, what the last block puts
    out.  A tensor that ``see`` returns takes its place.
    """

    def before(module, args, kwargs, layer):
        if (new := see(layer, hidden_input(args, kwargs))) is not None:
            return ((new, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": new})

    def after(module, args, output):
        if (new := see(len(lm.layers), output[0] if isinstance(output, tuple) else output)) is not None:
            return (new, *output[1:]) if isinstance(output, tuple) else new

    handles = [
        block.register_forward_pre_hook(partial(before, layer=i), with_kwargs=True) for i, block in enumerate(lm.layers)
    ]
    handles.append(lm.layers[-1].register_forward_hook(after))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class InputSquares:
    """Running sums over the inputs of matrices, in float32 or better whatever the model's own type.

    ``sums``: {name: sum of squares (in_features,), float64}; with ``products``, {name: sum of x xᵀ
    (in_features, in_features), float32}, which SparseGPT needs.
    """

    def __init__(self, matrices: dict[str, torch.nn.Module], products: bool = False):
        self.matrices, self.products = matrices, products
        self.sums: dict[str, Tensor] = {}

    @contextlib.contextmanager
    def counting(self, counted: Tensor, weight: float = 1.0) -> Iterator[None]:
        """Add, times ``weight``, what is received at the counted positions (batch, length); nothing, if the pass fails."""
        batch: dict[str, Tensor] = {}
        last: list = [None, None]  # query, key and value read the same tensor: square it once
        everything = bool(counted.all())

        def before(module, args, name):
            inputs = args[0]
            if inputs is not last[0]:
                rows = inputs.flatten(0, -2)  # OPT has put batch and length into one dimension already
                if not everything:
                    rows = rows[counted.flatten().to(rows.device)]
                if self.products:
                    squares = rows.float().T @ rows.float()
                else:
                    squares = torch.linalg.vector_norm(rows, dim=0, dtype=torch.float32).double().square()
                last[:] = inputs, squares * weight
            batch[name] = batch[name] + last[1] if name in batch else last[1]

        handles = [m.register_forward_pre_hook(partial(before, name=name)) for name, m in self.matrices.items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
        for name, squares in batch.items():
            self.sums[name] = self.sums[name] + squares if name in self.sums else squares

    def checked(self) -> dict[str, Tensor]:
        """{name: sums}, checked to be there and finite."""
        for name in self.matrices:
            if name not in self.sums:
                raise ValueError(f"{name} was never used in the forward pass, so its inputs are unknown.")
            if not torch.isfinite(self.sums[name]).all():
                raise ValueError(f"Inputs of {name} are not finite; load the model in float32 or bfloat16.")
        return {name: self.sums[name] for name in self.matrices}

    def arrays(self) -> dict[str, np.ndarray]:
        """{name: sums as an array}."""
        return {name: sums.cpu().numpy() for name, sums in self.checked().items()}
