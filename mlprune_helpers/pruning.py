"""Scores → masks → pruned weights.

A mask is True where a weight is pruned.  Scores and masks are pure functions of a few lines; :func:`prune` walks
through the model block by block, as Wanda does (Sun et al., arXiv 2306.11695).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm.auto import tqdm

from .activations import ActivationStats, InputSquares, counted_positions, hidden_input, token_ids
from .models import DEFAULT_MODEL, GEMMA_TERMS, LanguageModel, save_checkpoint, weight_matrix
from .prompts import padded, run_in_batches

METHODS = ("wanda", "refined", "ria", "sparsegpt", "magnitude", "random")
GROUPS = ("row", "matrix", "model")


# -- scores: (out_features, in_features), lowest is pruned first ------------------------------------------------


def wanda_score(weight: Tensor, input_norm: Tensor) -> Tensor:
    """|W_ij| · ‖X_j‖₂ (Sun et al., arXiv 2306.11695, eq. 1).

    ``weight`` (out, in), ``input_norm`` (in,): L2 norm of each input feature over the calibration tokens.
    """
    return weight.abs() * input_norm.to(weight)


def ria_score(weight: Tensor, input_norm: Tensor, power: float = 0.5) -> Tensor:
    """(|W_ij| / Σ_k |W_kj| + |W_ij| / Σ_k |W_ik|) · ‖X_j‖₂^power: RIA (Zhang et al., ICLR 2024, "Plug-and-Play").

    The share of a weight in its column and in its row, so that no channel is emptied.
    """
    size, tiny = weight.abs(), torch.finfo(weight.dtype).tiny
    share = size / size.sum(dim=0).clamp_min(tiny) + size / size.sum(dim=1, keepdim=True).clamp_min(tiny)
    return share * input_norm.to(weight) ** power


def magnitude_score(weight: Tensor) -> Tensor:
    """|W_ij|: no data at all."""
    return weight.abs()


def random_score(weight: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform noise: with a mask of exact counts, an equal number of random weights in every row."""
    return torch.rand(weight.shape, generator=generator).to(weight.device)


def refined_norm(base: Tensor, contrast: Tensor, eps: float = 1e-6) -> Tensor:
    """‖X_base‖² / ‖X_contrast‖ per feature (arXiv 2409.16911, for models trained on code).

    Features that are large in the base (translation) and small in the contrast (code) stand out.  ``eps``, times
    the mean contrast, is added below the line: without it a feature that the contrast never uses is infinite.  A
    contrast that uses none at all sets no feature apart: ‖X_base‖².
    """
    return base.square() / (contrast + eps * contrast.mean()) if contrast.any() else base.square()


# -- masks: True = pruned ---------------------------------------------------------------------------------------


def unstructured_mask(score: Tensor, sparsity: float, *, group: str = "row") -> Tensor:
    """The lowest ``floor(sparsity · n)`` scores of every row (or of the whole matrix) → True.

    The count is exact; among equal scores the first positions go first, as a stable sort would have it.
    """
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity is {sparsity}; allowed: a number in [0, 1), or text 'n:m'.")
    if group not in ("row", "matrix"):
        raise ValueError(f"group is {group!r}; allowed for one matrix: row, matrix. For several: global_masks.")
    if score.isnan().any():
        raise ValueError("Some scores are not a number, so they have no order; look for NaN in weights and norms.")
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


def global_masks(scores: Mapping[str, Tensor], sparsity: float) -> dict[str, Tensor]:
    """The lowest ``floor(sparsity · n)`` of the scores of all matrices together → {name: mask}."""
    flat = torch.cat([score.flatten().cpu() for score in scores.values()])
    parts = unstructured_mask(flat, sparsity, group="matrix").split([score.numel() for score in scores.values()])
    return {name: part.reshape(score.shape) for (name, score), part in zip(scores.items(), parts)}


def nm_mask(score: Tensor, n: int, m: int) -> Tensor:
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


def sparsegpt(
    weight: Tensor, products: Tensor, sparsity: float | str, *, group: str = "row", damping: float = 0.01, block: int = 128
) -> tuple[Tensor, Tensor]:
    """SparseGPT (Frantar and Alistarh, arXiv 2301.00774): (mask, the weights with what is left adapted).

    Column by column from the left, a pruned weight's contribution is made up for by the columns to its right,
    exactly in the sense of least squares over the calibration tokens.  Masks are chosen ``block`` columns at a
    time by W² / diag(U)² (for n:m, ``m`` at a time), U the upper Cholesky factor of the inverse of ``products``.

    Parameters
    ----------
    products : Tensor (in_features, in_features)
        Sum of x xᵀ over the calibration tokens.
    group : {"row", "matrix"}
        Of a block of columns; the published code has the latter.
    damping : float
        Added to the diagonal, as a share of its mean.
    """
    pattern, columns = parse_sparsity(sparsity), weight.shape[1]
    h = products.to(weight.device, torch.float64, copy=True)
    h.diagonal().add_((damping * h.diagonal().mean()).clamp_min(torch.finfo(torch.float32).tiny))
    u = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(h)), upper=True).float()
    w, mask = weight.float().clone(), torch.zeros_like(weight, dtype=torch.bool)
    n_of_m = isinstance(pattern, tuple)
    block = block - block % pattern[1] if n_of_m else block
    for start in range(0, columns, block):
        here = slice(start, min(start + block, columns))
        errors = torch.zeros_like(w[:, here])
        for i in range(here.start, here.stop):
            if n_of_m and i % pattern[1] == 0:
                group_ = slice(i, i + pattern[1])
                mask[:, group_] = nm_mask((w[:, group_] / u.diagonal()[group_]).square(), *pattern)
            elif not n_of_m and i == start:
                # Counts that add up to floor(sparsity · columns) over the blocks.
                count = int(pattern * here.stop + 1e-9) - int(pattern * start + 1e-9)
                score = (w[:, here] / u.diagonal()[here]).square()
                mask[:, here] = unstructured_mask(score, count / (here.stop - start), group=group)
            errors[:, i - start] = torch.where(mask[:, i], w[:, i], 0) / u[i, i]
            w[:, i : here.stop] -= errors[:, i - start, None] * u[i, i : here.stop]
        w[:, here.stop :] -= errors @ u[here, here.stop :]
    return mask, w.masked_fill(mask, 0).to(weight.dtype)


# -- the whole model --------------------------------------------------------------------------------------------


@dataclass
class PruningReport:
    """What :func:`prune` did.

    ``masks``: {prunable name: bool (out_features, in_features)}, True = pruned.  ``table``: a row a matrix with
    its shape, the sparsity asked and got, and the share of weights that were zero before.
    """

    method: str
    sparsity: float | str
    masks: dict[str, Tensor] = field(repr=False)
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

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, a bit a weight."""
        packed = {n: torch.from_numpy(np.packbits(m.cpu().numpy(), axis=1)) for n, m in self.masks.items()}
        rest = {k: v for k, v in vars(self).items() if k != "masks"} | {"table": self.table.to_dict("list")}
        beside = Path(f"{path}.tmp")
        save_file(packed, beside, {"report": json.dumps(rest)})
        beside.replace(path)

    @classmethod
    def load(cls, path: str | Path) -> PruningReport:
        with safe_open(str(path), framework="np") as file:
            rest = json.loads(file.metadata()["report"])
            table = rest["table"] = pd.DataFrame(rest["table"])
            masks = {
                name: torch.from_numpy(np.unpackbits(file.get_tensor(name), axis=1, count=columns).astype(bool))
                for name, columns in zip(table["name"], table["columns"])
            }
        return cls(masks=masks, **rest)


def prune(
    lm: LanguageModel,
    calibration: Sequence[str] | ActivationStats | Mapping | None = None,
    *,
    method: str = "wanda",
    sparsity: float | str = 0.3,
    contrast: Sequence[str] | ActivationStats | Mapping | None = None,
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
    calibration : list of str, or ActivationStats, or a dict of either
        For all methods but ``"magnitude"`` and ``"random"``.  Statistics where ``propagate_error`` is False.  A
        dict, of a language pair each, say: mean squares are averaged, so that each part counts the same however
        many tokens it has.  (Prompts of several pairs in one list count by their tokens.)
    method : {"wanda", "refined", "ria", "sparsegpt", "magnitude", "random"}
        ``"refined"`` also needs ``contrast``: prompts whose features are not to be favoured (code, in the paper).
    sparsity : float or str
        Share of each row, in [0, 1), or ``"n:m"``.
    group : {"row", "matrix", "model"}
        Where scores are compared: in each output row (Wanda), over the matrix (a "layer" in most papers), or over
        all matrices together, where nothing is propagated.
    propagate_error : bool
        True: a block is scored on what the already pruned blocks before it put out.  False: on the dense model.
    padding : {"masked", "counted"}
        As in :func:`collect_activations`.
    seed : int
        For ``"random"``.
    token_budget : int
        Padded tokens in a batch; a batch is halved when memory runs out.

    Raises
    ------
    ValueError
        Naming the setting, matrix or value that is wrong.  The weights are as they were before.
    """
    pattern = parse_sparsity(sparsity)
    asked = pattern[0] / pattern[1] if isinstance(pattern, tuple) else pattern
    corpora = [_parts(c) for c in (calibration, contrast) if c is not None and method not in ("magnitude", "random")]
    ready = bool(corpora) and all(isinstance(part, ActivationStats) for c in corpora for part in c.values())
    _check(lm, method, corpora, contrast, group, propagate_error, pattern, ready)
    started, before = time.perf_counter(), lm.fingerprint
    generator = torch.Generator().manual_seed(seed)
    masks, undo, scores, rows = {}, {}, {}, []

    def change(name: str, mask: Tensor, new: Tensor | None = None) -> None:
        weight = weight_matrix(lm.prunable[name])
        shape = {"rows": weight.shape[0], "columns": weight.shape[1], "weights": weight.numel()}
        zero_before = (weight == 0).float().mean().item()
        rows.append({"name": name, **shape, "asked": asked, "pruned": mask.double().mean().item(), "zero_before": zero_before})
        masks[name], undo[name] = mask.cpu(), weight[mask.to(weight.device)] if new is None else weight.clone()
        weight.masked_fill_(mask.to(weight.device), 0) if new is None else weight.copy_(new)

    def prune_matrix(name: str, sums: list[Tensor]) -> None:
        weight = weight_matrix(lm.prunable[name])
        if method == "sparsegpt":
            return change(name, *sparsegpt(weight, sums[0], sparsity, group=group))
        score = _score(method, weight.float(), [x.sqrt() for x in sums], generator)
        if group == "model":
            scores[name] = score
        else:
            change(name, nm_mask(score, *pattern) if isinstance(pattern, tuple) else unstructured_mask(score, pattern, group=group))

    try:
        if ready or not corpora:
            merged = [_merged(lm, corpus) for corpus in corpora]
            for name in tqdm(lm.prunable, desc="pruning", leave=False):
                prune_matrix(name, [sums[name] for sums in merged])
        else:
            streams = [_into_blocks(lm, c, max_length, padding, token_budget) for c in corpora]
            for names, sums in _block_by_block(lm, streams, method == "sparsegpt", propagate_error):
                for name in names:
                    prune_matrix(name, [s[name] for s in sums])
        for name, mask in (global_masks(scores, pattern) if scores else {}).items():
            change(name, mask)
    except BaseException:
        for name, values in undo.items():
            weight = weight_matrix(lm.prunable[name])
            weight[...] = values if values.shape == weight.shape else weight.masked_scatter(masks[name].to(weight.device), values)
        raise
    settings = {
        "group": group,
        "propagate_error": propagate_error,
        "max_length": max_length,
        "padding": padding,
        "seed": seed,
        "calibration": _digest(corpora[0]) if corpora else None,
        "contrast": _digest(corpora[1]) if len(corpora) > 1 else None,
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


def apply_masks(lm: LanguageModel, masks: Mapping[str, Tensor]) -> None:
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
    """An ordinary checkpoint, with a model card (README.md) and ``pruning.json``, which say how it was made.

    ``AutoModelForCausalLM.from_pretrained(directory)`` loads it.  Raises FileExistsError if the folder exists.
    """
    provenance = {"model": lm.name, "fingerprint": lm.fingerprint, "steps": lm.history}
    extra = {"pruning.json": json.dumps(provenance, indent=2) + "\n", "README.md": model_card(lm)}
    if lm.model.config.model_type.startswith("gemma"):
        extra["NOTICE"] = GEMMA_TERMS + "\n"
    return save_checkpoint(lm, directory, extra)


def model_card(lm: LanguageModel) -> str:
    """Markdown with a metadata header, as the Hugging Face hub has it."""
    base = "google/gemma-3-270m" if lm.name == DEFAULT_MODEL else Path(lm.name).name if Path(lm.name).exists() else lm.name
    steps = pd.DataFrame(lm.history)
    lines = ["---", "library_name: transformers", "pipeline_tag: text-generation", f"base_model: {json.dumps(base)}", "tags:", "- pruned"]
    lines += [f"- {method}" for method in dict.fromkeys(steps.get("method", []))]
    lines += ["---", f"# {base}, pruned", "", f"The weights of {base} were modified: some of those inside the decoder blocks are zero."]
    lines += ["They take as much memory and time as before. Its licence and its limits are those of the model it was made from.", ""]
    for step in lm.history:
        lines += [f"- {', '.join(f'{key}: {value}' for key, value in step.items() if value is not None)}"]
    lines += ["", "Calibration and contrast are named by a hash of their texts. Made with mlprune_helpers."]
    return "\n".join(lines) + "\n"


# -- machinery --------------------------------------------------------------------------------------------------


def _parts(corpus) -> dict:
    return dict(corpus) if isinstance(corpus, Mapping) else {"": corpus}


def _check(lm, method, corpora, contrast, group, propagate_error, pattern, ready) -> None:
    if method not in METHODS:
        raise ValueError(f"method is {method!r}; allowed: {', '.join(METHODS)}.")
    if group not in GROUPS:
        raise ValueError(f"group is {group!r}; allowed: {', '.join(GROUPS)}.")
    if method not in ("magnitude", "random") and len(corpora) <= (contrast is not None):
        raise ValueError(f"method {method!r} needs calibration: a list of prompts, such as build_demonstrations gives.")
    if (method == "refined") != (contrast is not None):
        raise ValueError("contrast goes with method 'refined', and that method needs it: a list of prompts, such as code.")
    some = any(isinstance(part, ActivationStats) for corpus in corpora for part in corpus.values())
    if some and propagate_error:
        raise ValueError("Ready statistics are of the dense model: pass propagate_error=False, or prompts instead.")
    if some and (not ready or method == "sparsegpt"):
        raise ValueError(f"method {method!r}: pass statistics for all corpora or for none, and only prompts for 'sparsegpt'.")
    if group == "model" and (propagate_error and corpora or isinstance(pattern, tuple) or method == "sparsegpt"):
        raise ValueError("group 'model' compares all dense scores: it needs propagate_error=False, a share, and not 'sparsegpt'.")
    for name, module in lm.prunable.items():
        if not torch.isfinite(weight_matrix(module)).all():
            raise ValueError(f"{name} holds weights that are not finite; load an intact checkpoint.")
        if isinstance(pattern, tuple) and weight_matrix(module).shape[1] % pattern[1]:
            raise ValueError(f"{name} has {weight_matrix(module).shape[1]} columns, which do not divide by {pattern[1]}.")


def _score(method: str, weight: Tensor, norms: list[Tensor], generator) -> Tensor:
    if method == "magnitude":
        return magnitude_score(weight)
    if method == "random":
        return random_score(weight, generator)
    if method == "ria":
        return ria_score(weight, norms[0])
    return wanda_score(weight, norms[0] if method == "wanda" else refined_norm(norms[0], norms[1]))


def _merged(lm: LanguageModel, corpus: dict[str, ActivationStats]) -> dict[str, Tensor]:
    """Sums of squares of every matrix's inputs."""
    if any(stats.input_squares.keys() != lm.prunable.keys() for stats in corpus.values()):
        raise ValueError(f"These statistics are of another model than {lm.name}: the matrices have other names.")
    weights = [1.0 if len(corpus) == 1 else 1 / stats.n_tokens for stats in corpus.values()]
    return {
        name: torch.from_numpy(sum(w * stats.input_squares[name] for w, stats in zip(weights, corpus.values())))
        for name in lm.prunable
    }


class _Batch:
    """Some calibration prompts on their way through the blocks.

    Made with what block 0 receives, and with the other arguments of every block, without running any block.
    """

    def __init__(self, lm: LanguageModel, ids: list, length: int, padding: str, tuples: bool, weight: float = 1.0):
        self.settings, self.ids, self.weight = (lm, length, padding, tuples), ids, weight
        self.calls: list[tuple[tuple, dict]] = []  # of every block: arguments after the hidden states, keyword arguments
        input_ids, mask = padded(ids, lm.device, length)
        self.counted = counted_positions(mask, padding)

        def passed_through(*args, **kwargs):
            self.hidden = hidden_input(args, kwargs)
            self.calls.append((args[1:], {k: v for k, v in kwargs.items() if k != "hidden_states"}))
            return (self.hidden,) if tuples else self.hidden

        originals = [block.__dict__.get("forward") for block in lm.layers]  # accelerate puts its own there
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

    def run(self, block: torch.nn.Module, layer: int) -> Tensor:
        args, kwargs = self.calls[layer]
        with torch.inference_mode():
            output = block(self.hidden, *args, **kwargs)
        return output[0] if isinstance(output, tuple) else output

    def halves(self) -> list[_Batch]:
        middle = len(self.ids) // 2
        lm, length, padding, tuples = self.settings
        made = []
        for part in (slice(middle), slice(middle, None)):
            made.append(_Batch(lm, self.ids[part], length, padding, tuples, self.weight))
            made[-1].hidden = self.hidden[part]
        return made


def _into_blocks(lm: LanguageModel, corpus: dict, max_length: int, padding: str, token_budget: int) -> list[_Batch]:
    tuples, found = _returns_tuple(lm), []
    for prompts in corpus.values():
        ids, lengths = token_ids(lm, prompts, max_length, padding)
        weight = 1.0 if len(corpus) == 1 else 1 / sum(lengths)
        run_in_batches(
            lengths,
            token_budget,
            lambda indices: found.append(
                _Batch(lm, [ids[i] for i in indices], lengths[indices[0]], padding, tuples, weight)
            ),
        )
    return found


def _each(batches: list[_Batch], step: Callable[[_Batch], None]) -> None:
    """``step`` on every batch; one for which memory runs out is halved, in place, and tried again."""
    i = 0
    while i < len(batches):
        try:
            step(batches[i])
            i += 1
        except RuntimeError as error:  # as in run_in_batches
            if "memory" not in str(error) or len(batches[i].ids) == 1:
                raise
            batches[i : i + 1] = batches[i].halves()


def _block_by_block(lm: LanguageModel, streams: list[list[_Batch]], products: bool, propagate_error: bool):
    """Yield (names of a block's matrices, sums a corpus); the caller prunes them before the next block runs.

    Every block runs twice over the prompts: once dense, to see its inputs, once pruned, to feed the next.  The
    last one runs once, and so does every one if the dense output feeds the next.
    """
    names_of = {id(module): name for name, module in lm.prunable.items()}
    for layer, block in enumerate(tqdm(lm.layers, desc="pruning", leave=False)):
        matrices = {names_of[id(m)]: m for m in block.modules() if id(m) in names_of}
        sums = [InputSquares(matrices, products) for _ in streams]

        def look(batch, inputs):
            with inputs.counting(batch.counted, batch.weight):
                output = batch.run(block, layer)
            if not propagate_error:
                batch.hidden = output

        def advance(batch):
            batch.hidden = batch.run(block, layer)

        for batches, inputs in zip(streams, sums):
            _each(batches, lambda batch: look(batch, inputs))
        yield list(matrices), [inputs.checked() for inputs in sums]
        if propagate_error and layer + 1 < len(lm.layers):
            for batches in streams:
                _each(batches, advance)


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


def _digest(corpus: dict) -> str:
    """Identity of a calibration corpus, for provenance."""
    digest = hashlib.sha256()
    for name, part in corpus.items():
        stats = isinstance(part, ActivationStats)
        digest.update(np.ascontiguousarray(part.prompt_squares) if stats else "\x00".join([name, *part]).encode())
    return digest.hexdigest()[:16]
