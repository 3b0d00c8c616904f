"""Scores → masks → pruned weights.

A mask is True where a weight is pruned.  Scores and masks are pure functions of a few lines; :func:`prune` walks
through the model block by block, as Wanda does (Sun et al., arXiv 2306.11695).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from .activations import ActivationStats, InputSquares, collect_activations, counted_positions, hidden_input
from .models import LanguageModel, save_checkpoint, weight_matrix
from .prompts import encode, padded, run_in_batches

METHODS = ("wanda", "refined", "magnitude", "random")
GROUPS = ("row", "matrix")


# -- scores: (out_features, in_features), lowest is pruned first ------------------------------------------------


def wanda_score(weight: torch.Tensor, input_norm: torch.Tensor) -> torch.Tensor:
    """|W_ij| · ‖X_j‖₂ (Sun et al., arXiv 2306.11695, eq. 1).

    ``weight`` (out, in), ``input_norm`` (in,): L2 norm of each input feature over the calibration tokens.
    """
    return weight.abs() * input_norm.to(weight)


def magnitude_score(weight: torch.Tensor) -> torch.Tensor:
    """|W_ij|: no data at all."""
    return weight.abs()


def random_score(weight: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Uniform noise: with a mask of exact counts, an equal number of random weights in every row."""
    return torch.rand(weight.shape, generator=generator).to(weight.device)


def refined_norm(base: torch.Tensor, contrast: torch.Tensor, eps: float = 1e-6) -> torch.Tensor:
    """‖X_base‖² / ‖X_contrast‖ per feature (arXiv 2409.16911, for models trained on code).

    Features that are large in the base (translation) and small in the contrast (code) stand out.  ``eps``, times
    the mean contrast, is added below the line: without it a feature that the contrast never uses is infinite.
    """
    return base.square() / (contrast + eps * contrast.mean().clamp_min(torch.finfo(contrast.dtype).tiny))


# -- masks: True = pruned ---------------------------------------------------------------------------------------


def unstructured_mask(score: torch.Tensor, sparsity: float, *, group: str = "row") -> torch.Tensor:
    """The lowest ``floor(sparsity · n)`` scores of every row (or of the whole matrix) → True.

    The count is exact; among equal scores the first positions go first, as a stable sort would have it.
    """
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity is {sparsity}; allowed: a number in [0, 1), or text 'n:m'.")
    if group not in GROUPS:
        raise ValueError(f"group is {group!r}; allowed: {', '.join(GROUPS)}.")
    rows = score if group == "row" else score.reshape(1, -1)
    # 0.3 * 10 is 3.0000000000000004 or 2.9999999999999996 in other cases: the tiny addend keeps the exact product.
    count = int(sparsity * rows.shape[1] + 1e-9)
    if count == 0:
        return torch.zeros_like(score, dtype=torch.bool)
    threshold = rows.kthvalue(count, dim=1, keepdim=True).values
    mask = rows <= threshold
    over = mask.sum(dim=1) > count
    if over.any():  # ties at the threshold: keep the last of them
        tied = rows[over] == threshold[over]
        room = count - (rows[over] < threshold[over]).sum(dim=1, keepdim=True)
        mask[over] = (rows[over] < threshold[over]) | (tied & (tied.cumsum(dim=1) <= room))
    return mask.reshape(score.shape)


def nm_mask(score: torch.Tensor, n: int, m: int) -> torch.Tensor:
    """N:M sparsity: of every ``m`` neighbours in a row, the ``n`` lowest scores → True."""
    if not 0 < n < m:
        raise ValueError(f"sparsity is '{n}:{m}'; allowed: 'n:m' with 0 < n < m, such as '2:4'.")
    if score.shape[1] % m:
        raise ValueError(f"'{n}:{m}' needs rows that divide by {m}; this matrix has {score.shape[1]} columns.")
    return unstructured_mask(score.reshape(-1, m), n / m).reshape(score.shape)


def parse_sparsity(sparsity: float | str) -> float | tuple[int, int]:
    """0.3 → 0.3, "2:4" → (2, 4); anything else is a ValueError."""
    if isinstance(sparsity, str) and sparsity.count(":") == 1 and sparsity.replace(":", "").isdigit():
        n, m = map(int, sparsity.split(":"))
        nm_mask(torch.zeros(1, max(m, 1)), n, m)
        return n, m
    if isinstance(sparsity, bool) or not isinstance(sparsity, (int, float)) or not 0 <= sparsity < 1:
        raise ValueError(f"sparsity is {sparsity!r}; allowed: a number in [0, 1), or text 'n:m' such as '2:4'.")
    return float(sparsity)


# -- the whole model --------------------------------------------------------------------------------------------


@dataclass
class PruningReport:
    """What :func:`prune` did.

    ``masks``: {prunable name: bool (out_features, in_features)}, True = pruned.  ``table``: a row a matrix with
    its shape, the sparsity asked and got, and the share of weights that were zero before.
    """

    method: str
    sparsity: float | str
    masks: dict[str, torch.Tensor] = field(repr=False)
    table: pd.DataFrame = field(repr=False)
    settings: dict
    fingerprint_before: str
    fingerprint_after: str
    seconds: float

    @property
    def pruned_fraction(self) -> float:
        """Share of all prunable weights that the masks prune."""
        return float((self.table["pruned"] * self.table["weights"]).sum() / self.table["weights"].sum())

    def provenance(self) -> dict:
        """Everything but the masks, ready for JSON."""
        return {
            "method": self.method,
            "sparsity": self.sparsity,
            "pruned_fraction": self.pruned_fraction,
            **self.settings,
            "fingerprint_before": self.fingerprint_before,
            "fingerprint_after": self.fingerprint_after,
            "seconds": round(self.seconds, 2),
        }


def prune(
    lm: LanguageModel,
    calibration: Sequence[str] | ActivationStats | None = None,
    *,
    method: str = "wanda",
    sparsity: float | str = 0.3,
    contrast: Sequence[str] | ActivationStats | None = None,
    group: str = "row",
    propagate_error: bool = True,
    max_length: int = 512,
    padding: str = "masked",
    seed: int = 0,
    token_budget: int = 2048,
) -> PruningReport:
    """Set the lowest-scoring weights of every prunable matrix to zero, in place.

    Parameters
    ----------
    calibration : list of str, or ActivationStats
        For ``"wanda"`` and ``"refined"``.  Statistics are accepted where ``propagate_error`` is False.
    method : {"wanda", "refined", "magnitude", "random"}
        ``"refined"`` also needs ``contrast``: prompts whose features are not to be favoured (code, in the paper).
    sparsity : float or str
        Share of each row, in [0, 1), or ``"n:m"``.
    group : {"row", "matrix"}
        Where scores are compared: in each output row (Wanda), or over the matrix.
    propagate_error : bool
        True: a block is scored on what the already pruned blocks before it put out.  False: on the dense model.
    padding : {"masked", "counted"}
        As in :func:`collect_activations`.
    seed : int
        For ``"random"``.

    Raises
    ------
    ValueError
        Naming the setting, matrix or value that is wrong.  The weights are then untouched, unless the error is
        about values met halfway (not finite), in which case the weights pruned so far are restored.
    """
    pattern = parse_sparsity(sparsity)
    n_of_m = isinstance(pattern, tuple)
    _check(method, calibration, contrast, group, propagate_error)
    started, before = time.perf_counter(), lm.fingerprint
    generator = torch.Generator().manual_seed(seed)
    masks: dict[str, torch.Tensor] = {}
    undo: dict[str, torch.Tensor] = {}
    rows = []

    def prune_matrix(name: str, norms: list[torch.Tensor]) -> None:
        weight = weight_matrix(lm.prunable[name])
        if not torch.isfinite(weight).all():
            raise ValueError(f"{name} holds weights that are not finite.")
        score = _score(method, weight.float(), norms, generator)
        mask = nm_mask(score, *pattern) if n_of_m else unstructured_mask(score, pattern, group=group)
        rows.append(
            {
                "name": name,
                "rows": weight.shape[0],
                "columns": weight.shape[1],
                "weights": weight.numel(),
                "asked": pattern[0] / pattern[1] if n_of_m else pattern,
                "pruned": mask.float().mean().item(),
                "zero_before": (weight == 0).float().mean().item(),
            }
        )
        masks[name], undo[name] = mask, weight[mask]
        weight.masked_fill_(mask, 0)

    corpora = [c for c in (calibration, contrast) if c is not None] if method in ("wanda", "refined") else []
    try:
        if corpora and not isinstance(corpora[0], ActivationStats) and propagate_error:
            for names, norms in _block_by_block(lm, corpora, max_length, padding, token_budget):
                for name in names:
                    prune_matrix(name, [n[name] for n in norms])
        else:
            norms = [_dense_norms(lm, c, max_length, padding, token_budget) for c in corpora]
            for name in tqdm(lm.prunable, desc="pruning", leave=False):
                prune_matrix(name, [n[name] for n in norms])
    except BaseException:
        _restore(lm, masks, undo)
        raise
    settings = {
        "group": group,
        "propagate_error": propagate_error,
        "max_length": max_length,
        "padding": padding,
        "seed": seed,
        "calibration": _digest(calibration) if corpora else None,
        "contrast": _digest(contrast) if len(corpora) > 1 else None,
    }
    report = PruningReport(
        method, sparsity, masks, pd.DataFrame(rows), settings, before, lm.fingerprint, time.perf_counter() - started
    )
    lm.history.append(report.provenance())
    return report


@contextlib.contextmanager
def pruned(lm: LanguageModel, calibration=None, **settings) -> Iterator[PruningReport]:
    """:func:`prune` for a while: the dense weights are back on leaving, also after an error."""
    dense = {name: weight_matrix(module).clone() for name, module in lm.prunable.items()}
    history = list(lm.history)
    try:
        yield prune(lm, calibration, **settings)
    finally:
        for name, module in lm.prunable.items():
            weight_matrix(module).copy_(dense[name])
        lm.history[:] = history


def apply_masks(lm: LanguageModel, masks: dict[str, torch.Tensor]) -> None:
    """Set to zero what ``masks`` marks, in place.  Raises ValueError where a name or a shape does not fit."""
    for name, mask in masks.items():
        if name not in lm.prunable:
            raise ValueError(f"No prunable matrix {name!r} in {lm.name}; it has {len(lm.prunable)}, the first is {next(iter(lm.prunable))!r}.")
        if mask.shape != weight_matrix(lm.prunable[name]).shape:
            raise ValueError(f"The mask of {name} is {tuple(mask.shape)}, its weight {tuple(weight_matrix(lm.prunable[name]).shape)}.")
    for name, mask in masks.items():
        weight = weight_matrix(lm.prunable[name])
        weight.masked_fill_(mask.to(weight.device), 0)


def save_pruned(lm: LanguageModel, directory: str | Path) -> Path:
    """An ordinary checkpoint, with ``pruning.json`` beside it that says how it was made.

    ``AutoModelForCausalLM.from_pretrained(directory)`` loads it.  Raises FileExistsError if the folder exists.
    """
    provenance = {"model": lm.name, "fingerprint": lm.fingerprint, "steps": lm.history}
    return save_checkpoint(lm, directory, {"pruning.json": json.dumps(provenance, indent=2) + "\n"})


# -- machinery --------------------------------------------------------------------------------------------------


def _check(method, calibration, contrast, group, propagate_error) -> None:
    if method not in METHODS:
        raise ValueError(f"method is {method!r}; allowed: {', '.join(METHODS)}.")
    if group not in GROUPS:
        raise ValueError(f"group is {group!r}; allowed: {', '.join(GROUPS)}.")
    if method in ("wanda", "refined") and calibration is None:
        raise ValueError(f"method {method!r} needs calibration: a list of prompts, such as build_demonstrations gives.")
    if (method == "refined") != (contrast is not None):
        raise ValueError("contrast goes with method 'refined', and that method needs it: a list of prompts, such as code.")
    if propagate_error and (isinstance(calibration, ActivationStats) or isinstance(contrast, ActivationStats)):
        raise ValueError("Ready statistics are of the dense model: pass propagate_error=False, or prompts instead.")


def _score(method: str, weight: torch.Tensor, norms: list[torch.Tensor], generator) -> torch.Tensor:
    if method == "magnitude":
        return magnitude_score(weight)
    if method == "random":
        return random_score(weight, generator)
    norm = norms[0] if method == "wanda" else refined_norm(norms[0], norms[1])
    return wanda_score(weight, norm)


def _dense_norms(lm: LanguageModel, corpus, max_length: int, padding: str, token_budget: int) -> dict[str, torch.Tensor]:
    """Input norms of every matrix of the dense model; one pass."""
    if isinstance(corpus, ActivationStats):
        if corpus.input_squares.keys() != lm.prunable.keys():
            raise ValueError(f"These statistics are of another model than {lm.name}: the matrices have other names.")
        return {name: torch.from_numpy(norm).to(lm.device) for name, norm in corpus.inputs.items()}
    stats = collect_activations(lm, corpus, max_length=max_length, padding=padding, token_budget=token_budget)
    return _dense_norms(lm, stats, max_length, padding, token_budget)


@dataclass
class _Batch:
    """One batch of calibration prompts on its way through the blocks."""

    hidden: torch.Tensor
    counted: torch.Tensor
    calls: list[tuple[tuple, dict]]  # of every block: arguments after the hidden states, keyword arguments

    def run(self, block: torch.nn.Module, layer: int) -> torch.Tensor:
        args, kwargs = self.calls[layer]
        output = block(self.hidden, *args, **kwargs)
        return output[0] if isinstance(output, tuple) else output


def _block_by_block(lm: LanguageModel, corpora, max_length: int, padding: str, token_budget: int):
    """Yield (names of a block's matrices, input norms a corpus); the caller prunes them before the next block runs.

    Every block runs twice over the prompts: once dense, to see its inputs, once pruned, to feed the next.  The
    last one runs once.
    """
    streams = [_into_blocks(lm, prompts, max_length, padding, token_budget) for prompts in corpora]
    names_of = {id(module): name for name, module in lm.prunable.items()}
    for layer, block in enumerate(tqdm(lm.layers, desc="pruning", leave=False)):
        matrices = {names_of[id(m)]: m for m in block.modules() if id(m) in names_of}
        norms = []
        for batches in streams:
            inputs = InputSquares(matrices)
            for batch in batches:
                with torch.inference_mode(), inputs.counting(batch.counted):
                    batch.run(block, layer)
            norms.append(inputs.norms())
        yield list(matrices), norms
        if layer + 1 < len(lm.layers):
            for batches in streams:
                for batch in batches:
                    with torch.inference_mode():
                        batch.hidden = batch.run(block, layer)


def _into_blocks(lm: LanguageModel, prompts, max_length: int, padding: str, token_budget: int) -> list[_Batch]:
    """What block 0 receives, and the other arguments of every block, without running any block."""
    ids = encode(lm, prompts, max_length)
    lengths = [max_length] * len(ids) if padding == "counted" else [len(x) for x in ids]
    tuples = _returns_tuple(lm)
    found: list[_Batch] = []

    def run(indices: list[int]) -> None:
        input_ids, mask = padded([ids[i] for i in indices], lm.device, lengths[indices[0]])
        calls: list[tuple[tuple, dict]] = []
        first: list[torch.Tensor] = []

        def passed_through(*args, **kwargs):
            hidden = hidden_input(args, kwargs)
            first.append(hidden)
            calls.append((args[1:], {k: v for k, v in kwargs.items() if k != "hidden_states"}))
            return (hidden,) if tuples else hidden

        originals = [block.__dict__.get("forward") for block in lm.layers]
        try:
            for block in lm.layers:
                block.forward = passed_through
            with torch.inference_mode():
                lm.decoder(input_ids=input_ids, attention_mask=mask, use_cache=False)
        finally:
            for block, original in zip(lm.layers, originals):
                if original is None:
                    del block.forward
                else:
                    block.forward = original
        found.append(_Batch(first[0], counted_positions(mask, padding), calls))

    run_in_batches(lengths, token_budget, run)
    return found


def _returns_tuple(lm: LanguageModel) -> bool:
    """Whether a block returns a tuple (BLOOM) or the hidden states; a one-token pass tells."""
    kinds = []
    handle = lm.layers[0].register_forward_hook(lambda module, args, output: kinds.append(isinstance(output, tuple)))
    try:
        with torch.inference_mode():
            lm.decoder(input_ids=torch.zeros(1, 1, dtype=torch.long, device=lm.device), use_cache=False)
    finally:
        handle.remove()
    return kinds[0]


def _restore(lm: LanguageModel, masks: dict[str, torch.Tensor], values: dict[str, torch.Tensor]) -> None:
    for name, mask in masks.items():
        weight_matrix(lm.prunable[name])[mask] = values[name]


def _digest(corpus) -> str:
    """Identity of a calibration corpus, for provenance."""
    if isinstance(corpus, ActivationStats):
        return hashlib.sha256(np.ascontiguousarray(corpus.prompt_squares)).hexdigest()[:16]
    return hashlib.sha256("\x00".join(corpus).encode()).hexdigest()[:16]
