"""Calibration prompts in, a pruned model and a report out."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from ..batching import out_of_memory
from ..models.architecture import weight_matrix
from ..models.language_model import LanguageModel
from .calibration import Calibration
from .masks import checked_mask, global_masks, nm_mask, unstructured_mask
from .report import PruningReport
from .settings import Settings, checked_settings
from .statistics import statistic_of
from .undo import Changes, Copy
from .walk import block_by_block


def prune(
    lm: LanguageModel,
    calibration: Calibration | None = None,
    *,
    method: str = "wanda",
    sparsity: float | str = 0.3,
    contrast: Calibration | None = None,
    group: str = "row",
    propagate_error: bool = True,
    max_length: int | None = 512,
    padding: str = "masked",
    seed: int = 0,
    token_budget: int = 2048,
) -> PruningReport:
    """Set the lowest-scoring weights of every prunable matrix to zero, in place.

    Args:
        lm: The model; its weights are changed.
        calibration: Texts, in which every token counts the same; ActivationStats, where
            ``propagate_error`` is False; or a dict of either (a language pair each, say), of which
            every part counts the same: mean squares are averaged.  Statistics do not say of which
            weights they are: collect them from the model as it is.  Methods without data
            ("magnitude", "random") leave it aside.
        method: A name in ``METHODS``: "wanda", "ria", "magnitude", "refined", "random",
            "sparsegpt", or your own.
        sparsity: The share to prune where scores are compared, a number in [0, 1), or a pattern
            "n:m".
        contrast: What not to favour (code, in the paper), given as calibration is; for methods that
            need it.
        group: Where scores are compared: in each "row" (Wanda), in the "matrix" (a "layer" in many
            papers), or over the whole "model".
        propagate_error: A block is scored on what the already pruned blocks before it put out; if
            False, on the dense model.
        max_length: Tokens at which a prompt is cut; None: nowhere.
        padding: "masked"; or "counted", as in the published code: see :func:`collect_activations`.
        seed: For methods that draw at random.
        token_budget: Padded tokens in a batch, halved when memory runs out.

    Returns:
        What was done: masks, a table of matrices, settings.

    Raises:
        ValueError: Naming the setting, matrix or value that is wrong.
        TypeError: For what is of another kind than allowed, such as one string as calibration.

    After these or any other error, an interruption too, the weights are as they were before.

    Example:
        >>> report = prune(lm, build_demonstrations(parallel, "fr", "en"), sparsity=0.3)
        >>> report.pruned_fraction
        0.3
    """
    settings = checked_settings(
        lm,
        {"calibration": calibration, "contrast": contrast},
        method=method,
        sparsity=sparsity,
        group=group,
        propagate_error=propagate_error,
        max_length=max_length,
        padding=padding,
        seed=seed,
        token_budget=token_budget,
    )
    while True:
        try:
            return _Pruner(lm, settings).run()
        except RuntimeError as error:
            if not out_of_memory(error) or not settings.prompts or settings.token_budget < 2:
                raise
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # out here, where the error no longer holds the tensors
        settings = dataclasses.replace(settings, token_budget=settings.token_budget // 2)


@contextlib.contextmanager
def pruned(
    lm: LanguageModel, calibration: Calibration | None = None, **settings: Any
) -> Iterator[PruningReport]:
    """Prune for a while: the dense weights are back on leaving, bit for bit, also after an error.

    Args:
        lm: The model.
        calibration: And all others: as for :func:`prune`.

    Yields:
        The report of :func:`prune`.

    Example:
        >>> with pruned(lm, prompts, sparsity=0.5) as report:
        ...     evaluate(lm, "nli", "fr").accuracy
    """
    dense = Copy(lm.prunable)
    history = list(lm.history)
    try:
        yield prune(lm, calibration, **settings)
    finally:
        dense.put_back()
        lm.history[:] = history


def apply_masks(lm: LanguageModel, masks: Mapping[str, Tensor | np.ndarray]) -> None:
    """Set to zero what masks mark, in place.

    Args:
        lm: The model.
        masks: {prunable name: bool (out_features, in_features)}, True = pruned.  Matrices that are
            not named stay.

    Raises:
        ValueError: Where a name, a type or a shape does not fit; no weight is changed then.
        TypeError: For what is no dict of masks.
    """
    if not isinstance(masks, Mapping):
        hint = " Pass report.masks." if isinstance(masks, PruningReport) else ""
        raise TypeError(f"masks is a {type(masks).__name__}; allowed: a dict of masks.{hint}")
    if not masks:
        raise ValueError("masks is empty: nothing to apply.")
    checked = {}
    for name, mask in masks.items():
        if name not in lm.prunable:
            raise ValueError(
                f"No prunable matrix {name!r} in {lm.name}; it has {len(lm.prunable)}, the first "
                f"is {next(iter(lm.prunable))!r}."
            )
        checked[name] = checked_mask(name, mask, weight_matrix(lm.prunable[name]).shape)
    with Changes() as changes:
        for name, mask in checked.items():
            changes.zero(weight_matrix(lm.prunable[name]), mask)
        number = sum(int(mask.sum()) for mask in checked.values())
        lm.history.append({"method": "apply_masks", "pruned_weights": number})


class _Pruner:
    """One run over a model: of every matrix the score, the choice, the change; and the way back."""

    def __init__(self, lm: LanguageModel, settings: Settings) -> None:
        self.lm = lm
        self.settings = settings
        self.method = settings.method
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.changes = Changes()
        self.scores: dict[str, Tensor] = {}
        self.masks: dict[str, Tensor] = {}
        self.rows: list[dict[str, Any]] = []

    def run(self) -> PruningReport:
        """Prune, and tell; or fail, and leave no trace."""
        started = time.perf_counter()
        before = self.lm.fingerprint
        with self.changes:
            for name, sums in self.inputs():
                self.prune_matrix(name, dict(zip(self.settings.corpora, sums, strict=True)))
            self.prune_together()
            report = self.report(before, started)
            self.lm.history.append(report.provenance())
        return report

    def inputs(self) -> Iterator[tuple[str, list[dict[str, Tensor]]]]:
        """Every matrix in order, and the raw sums over its inputs, of each corpus."""
        settings = self.settings
        if settings.prompts:
            yield from block_by_block(
                self.lm,
                [corpus.parts for corpus in settings.prompts.values()],
                kinds=self.method.kinds,
                max_length=settings.max_length,
                padding=settings.padding,
                token_budget=settings.token_budget,
                propagate_error=settings.propagate_error,
            )
            return
        ready = [c.sums(self.lm, self.method.kinds) for c in settings.statistics.values()]
        for name in tqdm(self.lm.prunable, desc="pruning", leave=False):
            yield name, [sums[name] for sums in ready]

    def prune_matrix(self, name: str, sums: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Prune one matrix; where all are compared with each other, keep its score for later."""
        weight = weight_matrix(self.lm.prunable[name])
        if self.method.solve is not None:
            mask, new = self.solved(name, weight, sums)
            self.change(name, mask, new)
            return
        score = self.score(name, weight, sums)
        if self.settings.group == "model":
            self.scores[name] = score
        else:
            self.change(name, self.choose(score))

    def prune_together(self) -> None:
        """Prune all matrices by scores that were kept."""
        if self.scores:
            for name, mask in global_masks(self.scores, self.settings.share).items():
                self.change(name, mask)

    def score(self, name: str, weight: Tensor, sums: Mapping[str, Mapping[str, Tensor]]) -> Tensor:
        """The method's score, in float32 or better: scores of bfloat16 would tie."""
        dtype = torch.promote_types(weight.dtype, torch.float32)
        copy = weight.to(dtype, copy=True)  # a score may compute in place
        score = self.method(copy, self.given(sums, weight.device, dtype))
        self.check_tensor("the score", name, score, weight.shape)
        return score

    def solved(
        self, name: str, weight: Tensor, sums: Mapping[str, Mapping[str, Tensor]]
    ) -> tuple[Tensor, Tensor]:
        """The solver's mask and new weights."""
        given = self.given(sums, weight.device, torch.float64)
        mask, new = self.method(weight.clone(), given)
        mask = checked_mask(name, mask, weight.shape)
        self.check_tensor("the new weight", name, new, weight.shape)
        new = new.masked_fill(mask.to(new.device), 0).to(weight)
        if not torch.isfinite(new).all():
            raise ValueError(
                f"{name}: the new weights of method {self.settings.method_name!r} are not finite "
                f"in {weight.dtype}."
            )
        return mask, new

    def given(
        self, sums: Mapping[str, Mapping[str, Tensor]], device: torch.device, dtype: torch.dtype
    ) -> dict[str, Any]:
        """What the method asks for; statistics as copies: query, key and value share their sums."""
        given: dict[str, Any] = {
            "generator": self.generator,
            "sparsity": self.settings.sparsity,
            "group": self.settings.group,
        }
        for asked, (corpus, statistic) in self.method.statistics.items():
            value = statistic_of(statistic, sums[corpus])
            given[asked] = value.to(device, dtype, copy=True)
        return given

    def choose(self, score: Tensor) -> Tensor:
        """The mask of one matrix."""
        pattern = self.settings.pattern
        if isinstance(pattern, tuple):
            return nm_mask(score, *pattern)
        return unstructured_mask(score, pattern, group=self.settings.group)

    def change(self, name: str, mask: Tensor, new: Tensor | None = None) -> None:
        """Set to zero what the mask marks, or put the new weights in; and note it."""
        weight = weight_matrix(self.lm.prunable[name])
        size = weight.numel()
        rows, columns = weight.shape
        mask = mask.cpu().contiguous()  # those of a Conv1D are transposed views
        self.rows.append(
            {
                "name": name,
                "rows": rows,
                "columns": columns,
                "weights": size,
                "asked": self.settings.share,
                "pruned": int(mask.count_nonzero()) / size,
                "zero_before": 1 - int(weight.count_nonzero()) / size,
            }
        )
        self.masks[name] = mask
        if new is None:
            self.changes.zero(weight, mask)
        else:
            self.changes.replace(weight, new)

    def report(self, before: str, started: float) -> PruningReport:
        """What was done."""
        return PruningReport(
            method=self.settings.method_name,
            sparsity=self.settings.sparsity,
            masks=self.masks,
            table=pd.DataFrame(self.rows),
            settings=self.settings.record(),
            fingerprint_before=before,
            fingerprint_after=self.lm.fingerprint,
            seconds=time.perf_counter() - started,
        )

    def check_tensor(self, what: str, name: str, value: Any, shape: torch.Size) -> None:
        """Refuse what a method of the reader's own may give back by mistake."""
        problem = ""
        if not isinstance(value, Tensor):
            problem = f"is a {type(value).__name__}"
        elif value.shape != shape:
            problem = f"has the shape {tuple(value.shape)}"
        elif value.dtype == torch.bool or value.is_complex():
            problem = f"holds {value.dtype}"
        elif value.isnan().any():
            problem = "holds NaN, which has no order"
        if problem:
            raise ValueError(
                f"{name}: {what} of method {self.settings.method_name!r} {problem}; allowed: a "
                f"tensor of numbers of the shape {tuple(shape)}."
            )
