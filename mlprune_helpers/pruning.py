"""Scores → masks → pruned weights.

A mask is True where a weight is pruned.  Scores and masks are pure functions of a few lines; :func:`prune` walks
through the model block by block, as Wanda does (Sun et al., arXiv 2306.11695).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from torch import Tensor
from tqdm import tqdm

from .activations import ActivationStats, InputSquares, hidden_input, token_ids
from .models import DEFAULT_MODEL, GEMMA_TERMS, LanguageModel, save_checkpoint, weight_matrix, written_beside
from .prompts import padded, run_in_batches

CARD = (Path(__file__).parent / "card.md").read_text(encoding="utf-8")


# -- scores: (out_features, in_features), lowest is pruned first ------------------------------------------------


def wanda_score(weight: Tensor, input_norm: Tensor) -> Tensor:
    """|W_ij| · ‖X_j‖₂ (Sun et al., arXiv 2306.11695, eq. 1); ``input_norm`` (in,): over the calibration tokens."""
    return weight.abs() * input_norm.to(weight)


def ria_score(weight: Tensor, input_norm: Tensor, power: float = 0.5) -> Tensor:
    """(|W_ij| / Σ_k |W_kj| + |W_ij| / Σ_k |W_ik|) · ‖X_j‖₂^power: RIA (Zhang et al., ICLR 2024, "Plug-and-Play")."""
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
    contrast that uses none sets none apart.
    """
    return base.square() / (contrast + eps * contrast.mean()) if contrast.any() else base.square()


SCORES = {"wanda": wanda_score, "ria": ria_score, "magnitude": magnitude_score}
SCORES["refined"] = lambda weight, base, contrast: wanda_score(weight, refined_norm(base, contrast))
METHODS, DATA_FREE = (*SCORES, "random", "sparsegpt"), ("magnitude", "random")
GROUPS = ("row", "matrix", "model")


# -- masks: True = pruned ---------------------------------------------------------------------------------------


def unstructured_mask(score: Tensor, sparsity: float, *, group: str = "row") -> Tensor:
    """The lowest ``floor(sparsity · n)`` scores of each "row", or of the "matrix" → True; of equal ones, the first."""
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity is {sparsity}; allowed: a number in [0, 1), or text 'n:m'.")
    if group not in ("row", "matrix"):
        raise ValueError(f"group is {group!r}; allowed for one matrix: row, matrix. For several: global_masks.")
    if score.isnan().any():
        raise ValueError("Some scores are not a number, so they have no order; look for NaN in weights and norms.")
    rows = score if group == "row" else score.reshape(1, -1)
    # 0.3 * 10 is 3.0000000000000004 or 2.9999999999999996 in other cases: the tiny addend keeps the exact product.
    return _lowest(rows, int(sparsity * rows.shape[1] + 1e-9)).reshape(score.shape)


def _lowest(rows: Tensor, count: int) -> Tensor:
    if count == 0:
        return torch.zeros_like(rows, dtype=torch.bool)
    threshold = rows.kthvalue(count, dim=1, keepdim=True).values
    mask = rows <= threshold
    over = mask.sum(dim=1) > count
    if over.any():  # ties at the threshold: keep the last of them
        tied = rows[over] == threshold[over]
        room = count - (rows[over] < threshold[over]).sum(dim=1, keepdim=True)
        mask[over] = (rows[over] < threshold[over]) | (tied & (tied.cumsum(dim=1) <= room))
    return mask


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
    """SparseGPT (Frantar and Alistarh, arXiv 2301.00774): (mask, the weights with those that are left adapted).

    Column by column, what a pruned weight contributed is made up for by the columns to its right, as least squares
    over the calibration tokens has it.  ``products`` (in, in): sum of x xᵀ over them; ``damping``, a share of its
    mean, is added to its diagonal.  Masks are chosen ``block`` columns at a time (n:m: ``m``) by W² / diag(U)², in
    each "row" or over the "matrix" (as published), U being the upper Cholesky factor of the inverse of ``products``.
    """
    pattern, columns = parse_sparsity(sparsity), weight.shape[1]
    step = block if isinstance(pattern, float) else pattern[1]
    block = max(step, block - block % step)
    h = products.to(weight.device, torch.float64, copy=True)
    h.diagonal().add_((damping * h.diagonal().mean()).clamp_min(torch.finfo(torch.float32).tiny))
    u = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(h)), upper=True)
    w, mask = weight.to(torch.float64, copy=True), torch.zeros_like(weight, dtype=torch.bool)
    for start in range(0, columns, block):
        end = min(start + block, columns)
        errors = torch.zeros_like(w[:, start:end])
        for i in range(start, end):
            if (i - start) % step == 0:
                now = slice(i, min(i + step, end))
                score = (w[:, now] / u.diagonal()[now]).square()
                if isinstance(pattern, float):  # counts that add up to floor(sparsity · columns)
                    count = int(pattern * end + 1e-9) - int(pattern * start + 1e-9)
                    lines = score if group == "row" else score.reshape(1, -1)
                    mask[:, now] = _lowest(lines, count * len(score) // len(lines)).reshape(score.shape)
                else:
                    mask[:, now] = nm_mask(score, *pattern)
            errors[:, i - start] = w[:, i] * mask[:, i] / u[i, i]
            w[:, i:end] -= errors[:, i - start, None] * u[i, i:end]
        w[:, end:] -= errors @ u[start:end, end:]
    return mask, w.masked_fill(mask, 0).to(weight.dtype)


@dataclass
class PruningReport:
    """What :func:`prune` did.

    ``masks``: {prunable name: bool (out, in)}, True = pruned.  ``table``: a row a matrix with its shape, the sparsity
    asked and got, and the share of weights that were zero before.
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
        """Everything but masks and table, ready for JSON."""
        keys = "method", "sparsity", "pruned_fraction", "fingerprint_before", "fingerprint_after"
        return {key: getattr(self, key) for key in keys} | self.settings | {"seconds": round(self.seconds, 2)}

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, complete or not at all: the masks, eight weights in a byte, and the rest."""
        bits = {name: np.packbits(mask.numpy(), axis=1) for name, mask in self.masks.items()}
        rest = json.dumps({**vars(self), "masks": None, "table": self.table.to_dict("list")})
        with written_beside(path) as beside:
            save_file(bits, beside, {"report": rest})

    @classmethod
    def load(cls, path: str | Path) -> PruningReport:
        with safe_open(str(path), framework="np") as file:
            rest = json.loads(file.metadata()["report"])
            bits = {name: file.get_tensor(name) for name in rest["table"]["name"]}
        table = pd.DataFrame(rest["table"])
        widths = zip(bits.items(), table["columns"])
        masks = {name: torch.from_numpy(np.unpackbits(x, axis=1, count=n).astype(bool)) for (name, x), n in widths}
        return cls(**rest | {"masks": masks, "table": table})


def prune(
    lm: LanguageModel, calibration=None, *, method: str = "wanda", sparsity: float | str = 0.3, contrast=None,
    group: str = "row", propagate_error: bool = True, max_length: int = 512, padding: str = "masked", seed: int = 0,
    token_budget: int = 2048,
) -> PruningReport:  # fmt: skip
    """Set the lowest-scoring weights of every prunable matrix to zero, in place.

    ``method``: "wanda", "refined", "ria", "sparsegpt", "magnitude" or "random".  ``calibration``, for all but the last
    two: a list of texts, in which every token counts the same; ActivationStats (where ``propagate_error`` is False); or
    a dict of either (a language pair each, say), of which every part counts the same: mean squares are averaged.
    ``contrast``, for "refined", is given as calibration is: what not to favour (code, in the paper).
    ``sparsity``, a float in [0, 1) or "n:m", is the share to prune where scores are compared, the ``group``: each "row"
    (Wanda), the "matrix" (a "layer" in many papers), or the whole "model".  ``propagate_error``: a block is scored on
    what the already pruned blocks before it put out, or, if False, on the dense model.

    ``seed`` is for "random"; the rest is as in :func:`collect_activations`.  Raises ValueError naming the setting,
    matrix or value that is wrong; the weights are then as they were before.
    """
    corpora = [c if isinstance(c, Mapping) else {"": c} for c in (calibration, contrast) if c is not None]
    corpora = [] if method in DATA_FREE else corpora
    pattern = _check(lm, method, sparsity, corpora, contrast, group, propagate_error)
    settings = {"group": group, "propagate_error": propagate_error, "max_length": max_length, "padding": padding, "seed": seed}
    started, before, n_of_m = time.perf_counter(), lm.fingerprint, isinstance(pattern, tuple)
    masks, scores, undo, rows, generator = {}, {}, {}, [], torch.Generator().manual_seed(seed)

    def change(name: str, mask: Tensor, new: Tensor | None = None) -> None:
        weight = weight_matrix(lm.prunable[name])
        size, mask = weight.numel(), mask.to(weight.device)
        got, zero = int(mask.count_nonzero()) / size, 1 - int(weight.count_nonzero()) / size
        rows.append((name, *weight.shape, size, pattern[0] / pattern[1] if n_of_m else pattern, got, zero))
        masks[name], undo[name] = mask.cpu(), weight[mask] if new is None else weight.clone()
        weight.masked_fill_(mask, 0) if new is None else weight.copy_(new)

    def prune_matrix(name: str, sums: list[Tensor]) -> None:
        weight = weight_matrix(lm.prunable[name])
        if method == "sparsegpt":
            return change(name, *sparsegpt(weight, sums[0], sparsity, group=group))
        weight = weight.to(torch.promote_types(weight.dtype, torch.float32))  # scores of bfloat16 would tie
        norms = [x.sqrt().to(weight) for x in sums]
        score = random_score(weight, generator) if method == "random" else SCORES[method](weight, *norms)
        if group == "model":
            scores[name] = score
        else:
            change(name, nm_mask(score, *pattern) if n_of_m else unstructured_mask(score, pattern, group=group))

    try:
        if _ready(corpora) or not corpora:
            merged = [_merged(lm, corpus) for corpus in corpora]
            every = ((name, [sums[name] for sums in merged]) for name in tqdm(lm.prunable, desc="pruning", leave=False))
        else:
            every = _block_by_block(lm, corpora, max_length, padding, token_budget, method == "sparsegpt", propagate_error)
        for name, sums in every:
            prune_matrix(name, sums)
        for name, mask in global_masks(scores, pattern).items() if scores else ():
            change(name, mask)
    except BaseException as error:
        for name, values in undo.items():
            weight = weight_matrix(lm.prunable[name])
            weight[...] = values if values.shape == weight.shape else weight.masked_scatter(masks[name].to(weight.device), values)
        undo.clear()
        if not isinstance(error, RuntimeError) or "memory" not in str(error) or token_budget < 2:  # as in run_in_batches
            raise
    if not undo:
        again = {"method": method, "sparsity": sparsity, "contrast": contrast, "token_budget": token_budget // 2}
        return prune(lm, calibration, **again, **settings)
    settings |= {"calibration": None, "contrast": None} | dict(zip(("calibration", "contrast"), map(_digest, corpora)))
    table = pd.DataFrame(rows, columns=["name", "rows", "columns", "weights", "asked", "pruned", "zero_before"])
    report = PruningReport(method, sparsity, masks, table, settings, before, lm.fingerprint, time.perf_counter() - started)
    lm.history.append(report.provenance())
    return report


@contextlib.contextmanager
def pruned(lm: LanguageModel, calibration=None, **settings) -> Iterator[PruningReport]:
    """:func:`prune` for a while: the dense weights are back on leaving, also after an error."""
    dense, history = {name: weight_matrix(module).clone() for name, module in lm.prunable.items()}, list(lm.history)
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
        weight_matrix(lm.prunable[name]).masked_fill_(mask.to(lm.prunable[name].weight.device), 0)
    lm.history.append({"method": "apply_masks", "pruned_weights": sum(int(mask.sum()) for mask in masks.values())})


def save_pruned(lm: LanguageModel, directory: str | Path) -> Path:
    """An ordinary checkpoint, and beside it a model card (README.md) and ``pruning.json``: how it was made.

    ``AutoModelForCausalLM.from_pretrained(directory)`` loads it.  Raises FileExistsError if the folder exists.
    """
    base = "google/gemma-3-270m" if lm.name == DEFAULT_MODEL else Path(lm.name).name if Path(lm.name).exists() else lm.name
    tags = "".join(f"- {tag}\n" for tag in dict.fromkeys(["pruned", *(step["method"] for step in lm.history)]))
    steps = "\n".join("- " + ", ".join(f"{k}: {v}" for k, v in step.items() if v is not None) for step in lm.history)
    provenance = {"model": lm.name, "fingerprint": lm.fingerprint, "steps": lm.history}
    extra = {"pruning.json": json.dumps(provenance, indent=2) + "\n"}
    extra["README.md"] = CARD.format(base=base, quoted=json.dumps(base), tags=tags, steps=steps or "- not recorded")
    if lm.model.config.model_type.startswith("gemma"):
        extra["NOTICE"] = GEMMA_TERMS + "\n"
    return save_checkpoint(lm, directory, extra)


def _ready(corpora: list[Mapping]) -> bool:
    """Whether there are statistics among the corpora, instead of prompts."""
    return any(isinstance(part, ActivationStats) for corpus in corpora for part in corpus.values())


def _check(lm, method, sparsity, corpora, contrast, group, propagate_error) -> float | tuple[int, int]:
    pattern, ready = parse_sparsity(sparsity), _ready(corpora)
    for setting, value, allowed in (("method", method, METHODS), ("group", group, GROUPS)):
        if value not in allowed:
            raise ValueError(f"{setting} is {value!r}; allowed: {', '.join(allowed)}.")
    if (method == "refined") != (contrast is not None):
        raise ValueError("contrast goes with method 'refined', and that method needs it: a list of prompts, such as code.")
    if method not in DATA_FREE and len(corpora) < 1 + (method == "refined"):
        raise ValueError(f"method {method!r} needs calibration: a list of prompts, such as build_demonstrations gives.")
    if ready and propagate_error:
        raise ValueError("Ready statistics are of the dense model: pass propagate_error=False, or prompts instead.")
    if ready and (method == "sparsegpt" or not all(_ready([{"": part}]) for c in corpora for part in c.values())):
        raise ValueError(f"Statistics and prompts do not mix, and 'sparsegpt' needs prompts; method is {method!r}.")
    if group == "model" and ((corpora and propagate_error) or isinstance(pattern, tuple) or method == "sparsegpt"):
        raise ValueError("group 'model' needs propagate_error=False, a share as sparsity, and not the method 'sparsegpt'.")
    for name, weight in ((name, weight_matrix(module)) for name, module in lm.prunable.items()):
        if not torch.isfinite(weight).all():
            raise ValueError(f"{name} holds weights that are not finite. Load an intact checkpoint.")
        if isinstance(pattern, tuple) and weight.shape[1] % pattern[1]:
            raise ValueError(f"{sparsity!r} needs rows that divide by {pattern[1]}; {name} has {weight.shape[1]} columns.")
    return pattern


def _merged(lm: LanguageModel, corpus: Mapping[str, ActivationStats]) -> dict[str, Tensor]:
    """{name: sum of squares (in_features,)}; of several parts, the sum of their mean squares."""
    if any(stats.input_squares.keys() != lm.prunable.keys() for stats in corpus.values()):
        raise ValueError(f"These statistics are of another model than {lm.name}: the matrices have other names.")
    parts = [(1 / stats.n_tokens if len(corpus) > 1 else 1.0, stats.input_squares) for stats in corpus.values()]
    return {name: torch.from_numpy(sum(scale * squares[name] for scale, squares in parts)) for name in lm.prunable}


@dataclass
class _Batch:
    """Some calibration prompts on their way through the blocks."""

    hidden: Tensor
    counted: Tensor
    scale: float
    calls: list[tuple[tuple, dict]]  # of every block: arguments after the hidden states, keyword arguments

    def run(self, block: torch.nn.Module, layer: int) -> Tensor:
        args, kwargs = self.calls[layer]
        with torch.inference_mode():
            output = block(self.hidden, *args, **kwargs)
        return output[0] if isinstance(output, tuple) else output


def _into_blocks(lm: LanguageModel, corpus: Mapping, max_length: int, padding: str, token_budget: int) -> list[_Batch]:
    """What block 0 receives, and the other arguments of every block, without running any block."""
    kinds, found = [], []  # BLOOM's blocks return a tuple, as a pass of one token tells
    with lm.layers[0].register_forward_hook(lambda module, args, output: kinds.append(type(output))), torch.inference_mode():
        lm.decoder(input_ids=torch.zeros(1, 1, dtype=torch.long, device=lm.device), use_cache=False)
    for prompts in corpus.values():
        ids, lengths = token_ids(lm, prompts, max_length, padding)

        def run(indices: list[int], ids=ids, lengths=lengths) -> None:
            input_ids, mask = padded([ids[i] for i in indices], lm.device, lengths[indices[0]])
            batch = _Batch(None, mask.bool() | (padding == "counted"), 1 / sum(lengths) if len(corpus) > 1 else 1.0, [])

            def passed_through(*args, **kwargs):
                batch.hidden = hidden_input(args, kwargs)
                batch.calls.append((args[1:], {k: v for k, v in kwargs.items() if k != "hidden_states"}))
                return (batch.hidden,) if kinds[0] is tuple else batch.hidden

            with contextlib.ExitStack() as patches, torch.inference_mode():
                for block in lm.layers:  # patch also puts back what accelerate has put there
                    patches.enter_context(patch.object(block, "forward", passed_through))
                lm.decoder(input_ids=input_ids, attention_mask=mask, use_cache=False)
            found.append(batch)

        run_in_batches(lengths, token_budget, run)
    return found


def _block_by_block(lm, corpora, max_length, padding, token_budget, products: bool, propagate_error: bool):
    """Yield (name, sums a corpus) of every matrix; the caller prunes a block's before the next block runs.

    Every block runs twice over the prompts: once dense, only until its last matrix has seen its input, and once
    pruned, to feed the next.  The last block runs once, and so do all if dense outputs feed the next.
    """
    streams = [_into_blocks(lm, corpus, max_length, padding, token_budget) for corpus in corpora]
    names_of, calls = {id(module): name for name, module in lm.prunable.items()}, {}
    for layer, block in enumerate(tqdm(lm.layers, desc="pruning", leave=False)):
        matrices = {names_of[id(m)]: m for m in block.modules() if id(m) in names_of}
        sums, stop_at = [InputSquares(matrices, products) for _ in streams], calls.get(len(matrices))
        for batches, inputs in zip(streams, sums):
            for batch in batches:
                with inputs.counting(batch.counted, batch.scale, stop_at if propagate_error else None):
                    output = batch.run(block, layer)
                if not propagate_error:
                    batch.hidden = output
        calls[len(matrices)] = inputs.calls  # the first block of its kind has run to its end
        checked = [inputs.checked() for inputs in sums]
        yield from ((name, [squares[name] for squares in checked]) for name in matrices)
        if propagate_error and layer + 1 < len(lm.layers):
            for batch in (batch for batches in streams for batch in batches):
                batch.hidden = batch.run(block, layer)


def _digest(corpus: Mapping) -> str:
    """Identity of a calibration corpus, for provenance."""
    parts = [part.prompt_squares.tobytes() if _ready([{"": part}]) else "\x00".join(part).encode() for part in corpus.values()]
    return hashlib.sha256(b"\x00".join([*map(str.encode, corpus), *parts])).hexdigest()[:16]
