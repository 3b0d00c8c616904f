"""Calibration prompts in, a pruned model and a report out."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterator, Mapping

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from ..activations import ActivationStats
from ..models.architecture import weight_matrix
from ..models.language_model import LanguageModel
from .masks import GROUPS, global_masks, nm_mask, unstructured_mask
from .report import PruningReport
from .scores import DATA_FREE, METHODS, SCORES, random_score
from .sparsegpt import sparsegpt
from .sparsity import parse_sparsity
from .walk import block_by_block


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
    corpora = [
        c if isinstance(c, Mapping) else {"": c} for c in (calibration, contrast) if c is not None
    ]
    corpora = [] if method in DATA_FREE else corpora
    pattern = _check(lm, method, sparsity, corpora, contrast, group, propagate_error)
    settings = {
        "group": group,
        "propagate_error": propagate_error,
        "max_length": max_length,
        "padding": padding,
        "seed": seed,
    }
    started, before, n_of_m = time.perf_counter(), lm.fingerprint, isinstance(pattern, tuple)
    masks, scores, undo, rows, generator = {}, {}, {}, [], torch.Generator().manual_seed(seed)

    def change(name: str, mask: Tensor, new: Tensor | None = None) -> None:
        weight = weight_matrix(lm.prunable[name])
        size, mask = weight.numel(), mask.to(weight.device)
        got, zero = int(mask.count_nonzero()) / size, 1 - int(weight.count_nonzero()) / size
        rows.append(
            (name, *weight.shape, size, pattern[0] / pattern[1] if n_of_m else pattern, got, zero)
        )
        masks[name], undo[name] = mask.cpu(), weight[mask] if new is None else weight.clone()
        weight.masked_fill_(mask, 0) if new is None else weight.copy_(new)

    def prune_matrix(name: str, sums: list[Tensor]) -> None:
        weight = weight_matrix(lm.prunable[name])
        if method == "sparsegpt":
            return change(name, *sparsegpt(weight, sums[0], sparsity, group=group))
        weight = weight.to(
            torch.promote_types(weight.dtype, torch.float32)
        )  # scores of bfloat16 would tie
        norms = [x.sqrt().to(weight) for x in sums]
        score = (
            random_score(weight, generator)
            if method == "random"
            else SCORES[method](weight, *norms)
        )
        if group == "model":
            scores[name] = score
        else:
            change(
                name,
                nm_mask(score, *pattern)
                if n_of_m
                else unstructured_mask(score, pattern, group=group),
            )

    try:
        if _ready(corpora) or not corpora:
            merged = [_merged(lm, corpus) for corpus in corpora]
            every = (
                (name, [sums[name] for sums in merged])
                for name in tqdm(lm.prunable, desc="pruning", leave=False)
            )
        else:
            kind = "products" if method == "sparsegpt" else "squares"
            every = (
                (name, [sums[kind] for sums in of_corpora])
                for name, of_corpora in block_by_block(
                    lm,
                    corpora,
                    kinds=(kind,),
                    max_length=max_length,
                    padding=padding,
                    token_budget=token_budget,
                    propagate_error=propagate_error,
                )
            )
        for name, sums in every:
            prune_matrix(name, sums)
        for name, mask in global_masks(scores, pattern).items() if scores else ():
            change(name, mask)
    except BaseException as error:
        for name, values in undo.items():
            weight = weight_matrix(lm.prunable[name])
            weight[...] = (
                values
                if values.shape == weight.shape
                else weight.masked_scatter(masks[name].to(weight.device), values)
            )
        undo.clear()
        if (
            not isinstance(error, RuntimeError) or "memory" not in str(error) or token_budget < 2
        ):  # as in run_in_batches
            raise
    if not undo:
        again = {
            "method": method,
            "sparsity": sparsity,
            "contrast": contrast,
            "token_budget": token_budget // 2,
        }
        return prune(lm, calibration, **again, **settings)
    settings |= {"calibration": None, "contrast": None} | dict(
        zip(("calibration", "contrast"), map(_digest, corpora))
    )
    table = pd.DataFrame(
        rows, columns=["name", "rows", "columns", "weights", "asked", "pruned", "zero_before"]
    )
    report = PruningReport(
        method,
        sparsity,
        masks,
        table,
        settings,
        before,
        lm.fingerprint,
        time.perf_counter() - started,
    )
    lm.history.append(report.provenance())
    return report


@contextlib.contextmanager
def pruned(lm: LanguageModel, calibration=None, **settings) -> Iterator[PruningReport]:
    """:func:`prune` for a while: the dense weights are back on leaving, also after an error."""
    dense, history = (
        {name: weight_matrix(module).clone() for name, module in lm.prunable.items()},
        list(lm.history),
    )
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
            raise ValueError(
                f"No prunable matrix {name!r} in {lm.name}; it has {len(lm.prunable)}, the first is {next(iter(lm.prunable))!r}."
            )
        if mask.shape != weight_matrix(lm.prunable[name]).shape:
            raise ValueError(
                f"The mask of {name} is {tuple(mask.shape)}, its weight {tuple(weight_matrix(lm.prunable[name]).shape)}."
            )
    for name, mask in masks.items():
        weight_matrix(lm.prunable[name]).masked_fill_(mask.to(lm.prunable[name].weight.device), 0)
    lm.history.append(
        {"method": "apply_masks", "pruned_weights": sum(int(mask.sum()) for mask in masks.values())}
    )


def _ready(corpora: list[Mapping]) -> bool:
    """Whether there are statistics among the corpora, instead of prompts."""
    return any(isinstance(part, ActivationStats) for corpus in corpora for part in corpus.values())


def _check(
    lm, method, sparsity, corpora, contrast, group, propagate_error
) -> float | tuple[int, int]:
    pattern, ready = parse_sparsity(sparsity), _ready(corpora)
    for setting, value, allowed in (("method", method, METHODS), ("group", group, GROUPS)):
        if value not in allowed:
            raise ValueError(f"{setting} is {value!r}; allowed: {', '.join(allowed)}.")
    if (method == "refined") != (contrast is not None):
        raise ValueError(
            "contrast goes with method 'refined', and that method needs it: a list of prompts, such as code."
        )
    if method not in DATA_FREE and len(corpora) < 1 + (method == "refined"):
        raise ValueError(
            f"method {method!r} needs calibration: a list of prompts, such as build_demonstrations gives."
        )
    if ready and propagate_error:
        raise ValueError(
            "Ready statistics are of the dense model: pass propagate_error=False, or prompts instead."
        )
    if ready and (
        method == "sparsegpt"
        or not all(_ready([{"": part}]) for c in corpora for part in c.values())
    ):
        raise ValueError(
            f"Statistics and prompts do not mix, and 'sparsegpt' needs prompts; method is {method!r}."
        )
    if group == "model" and (
        (corpora and propagate_error) or isinstance(pattern, tuple) or method == "sparsegpt"
    ):
        raise ValueError(
            "group 'model' needs propagate_error=False, a share as sparsity, and not the method 'sparsegpt'."
        )
    for name, weight in ((name, weight_matrix(module)) for name, module in lm.prunable.items()):
        if not torch.isfinite(weight).all():
            raise ValueError(
                f"{name} holds weights that are not finite. Load an intact checkpoint."
            )
        if isinstance(pattern, tuple) and weight.shape[1] % pattern[1]:
            raise ValueError(
                f"{sparsity!r} needs rows that divide by {pattern[1]}; {name} has {weight.shape[1]} columns."
            )
    return pattern


def _merged(lm: LanguageModel, corpus: Mapping[str, ActivationStats]) -> dict[str, Tensor]:
    """{name: sum of squares (in_features,)}; of several parts, the sum of their mean squares."""
    if any(stats.input_squares.keys() != lm.prunable.keys() for stats in corpus.values()):
        raise ValueError(
            f"These statistics are of another model than {lm.name}: the matrices have other names."
        )
    parts = [
        (1 / stats.n_tokens if len(corpus) > 1 else 1.0, stats.input_squares)
        for stats in corpus.values()
    ]
    return {
        name: torch.from_numpy(sum(scale * squares[name] for scale, squares in parts))
        for name in lm.prunable
    }


def _digest(corpus: Mapping) -> str:
    """Identity of a calibration corpus, for provenance."""
    parts = [
        part.prompt_squares.tobytes() if _ready([{"": part}]) else "\x00".join(part).encode()
        for part in corpus.values()
    ]
    return hashlib.sha256(b"\x00".join([*map(str.encode, corpus), *parts])).hexdigest()[:16]
