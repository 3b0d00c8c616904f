"""Tasks: prompts in, an :class:`Evaluation` out."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from datasets import Dataset

from . import metrics
from .data.sources import load_task
from .data.tasks import TASKS
from .files import written_beside
from .models.language_model import LanguageModel
from .prompts import task_prompts
from .scoring import score_choices

CALIBRATIONS = ("raw", "batch", "contextual")


CONTENT_FREE = ("N/A", "[MASK]", "")  # as in Zhao et al. (arXiv 2102.09690)


@dataclass
class Evaluation:
    """Scores of one model on one task in one language.

    ``scores``, ``n_tokens`` (scored) and ``n_cut`` (that did not fit): (n, n_choices).  ``rows``, ``groups`` (n,): identities,
    the same across languages where the task is parallel.  ``content_free`` (inputs, n, n_choices): summed log-likelihoods.
    """

    task: str
    language: str
    scores: np.ndarray = field(repr=False)
    labels: np.ndarray = field(repr=False)
    rows: list[str] = field(repr=False)
    groups: list[str] = field(repr=False)
    settings: dict
    n_tokens: np.ndarray = field(repr=False)
    n_cut: np.ndarray = field(repr=False)
    content_free: np.ndarray | None = field(default=None, repr=False)

    def predict(self, calibration: str = "raw") -> np.ndarray:
        """The likeliest choice (n,): raw, or after "batch" (balanced labels) or "contextual" calibration of summed log-likelihoods."""
        if calibration not in CALIBRATIONS:
            raise ValueError(f"calibration is {calibration!r}; allowed: {', '.join(CALIBRATIONS)}.")
        if calibration == "raw":
            return self.scores.argmax(axis=1)
        sums = self.scores * (
            self.n_tokens if self.settings["reduction"] == "mean" else 1
        )  # only these are log-probabilities
        if calibration == "batch":
            return metrics.batch_calibrated(sums).argmax(axis=1)
        if self.content_free is None:
            raise ValueError(
                "This evaluation has no content-free scores; evaluate with contextual=True."
            )
        return metrics.contextual_calibrated(sums, self.content_free).argmax(axis=1)

    predictions = property(predict)
    correct = property(
        lambda self: self.predictions == self.labels, doc="Bool (n,): prediction equals label."
    )
    calibrated = property(
        lambda self: self.predict("batch") == self.labels,
        doc="Bool (n,): right after batch calibration.",
    )
    accuracy = property(lambda self: metrics.accuracy(self.predictions, self.labels))
    macro_f1 = property(
        lambda self: metrics.macro_f1(self.predictions, self.labels, self.scores.shape[1])
    )

    @property
    def label_distribution(self) -> dict[str, float]:
        """How often each label is predicted."""
        return {
            name: float(np.mean(self.predictions == k))
            for k, name in enumerate(TASKS[self.task].labels)
        }

    def rank_consistency(self, other: Evaluation, *, per_row: bool = False) -> float | np.ndarray:
        """RankC against another language.  Raises ValueError where row n is not the same example in both."""
        mine, theirs = ([e.task, e.rows, e.labels.tolist()] for e in (self, other))
        if not TASKS[self.task].parallel or mine != theirs:
            raise ValueError(
                f"{self.task} in {self.language!r} and {other.task} in {other.language!r} have no parallel rows, which "
                f"RankC needs. Parallel tasks: {', '.join(t for t in TASKS if TASKS[t].parallel)}; use the same limit and seed."
            )
        return metrics.rank_consistency(self.scores, other.scores, per_row=per_row)

    def table(self) -> pd.DataFrame:
        """One row an example."""
        columns = {
            "task": self.task,
            "language": self.language,
            "row": self.rows,
            "group": self.groups,
            "label": self.labels,
        }
        columns |= {
            "prediction": self.predictions,
            "correct": self.correct,
            "calibrated": self.calibrated,
        }
        columns |= {
            f"score_{name}": self.scores[:, k] for k, name in enumerate(TASKS[self.task].labels)
        }
        return pd.DataFrame(columns | {"n_cut": self.n_cut.max(axis=1)})

    def save(self, path: str | Path) -> None:
        """Write one JSON file, complete or not at all."""
        with written_beside(path) as beside:
            beside.write_text(json.dumps(vars(self), default=np.ndarray.tolist), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Evaluation:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        arrays = ("scores", "labels", "n_tokens", "n_cut", "content_free")
        return cls(
            **content
            | {name: np.array(content[name]) for name in arrays if content[name] is not None}
        )


def evaluate(
    lm: LanguageModel, task: str, language: str, source: str = "builtin", *, split: str | None = None,
    limit: int | None = None, template: str | Mapping = "paper", reduction: str = "mean", span: str = "full",
    shots: int = 0, seed: int = 0, contextual: bool | None = None, examples: Dataset | None = None, **options,
) -> Evaluation:  # fmt: skip
    """Zero- or few-shot multiple choice by log-likelihood; the defaults are the paper's.

    ``limit`` and ``seed`` choose the rows (see :func:`load_task`; or give them: ``examples``), ``template`` and ``shots``
    how they are asked (see :func:`task_prompts`), the others the score (see :func:`score_choices`).  ``contextual``: score
    the questions without content too, for contextual calibration; by default where one such question serves all rows.
    """
    rows = list(
        load_task(task, language, source, split=split, limit=limit, seed=seed)
        if examples is None
        else examples
    )
    ask = functools.partial(
        task_prompts, task, rows, template=template, language=language, shots=shots, seed=seed
    )
    scores, n_tokens, n_cut = score_choices(
        lm, *ask(), reduction=reduction, span=span, details=True, **options
    )
    content_free = None
    if contextual is not False:
        asked = [(p, tuple(c)) for text in CONTENT_FREE for p, c in zip(*ask(content_free=text))]
        places = {question: n for n, question in enumerate(dict.fromkeys(asked))}
        if contextual or len(places) <= len(CONTENT_FREE):
            sums = score_choices(
                lm, *zip(*places), reduction="sum", span=span, details=True, **options
            ).scores
            content_free = sums[[places[q] for q in asked]].reshape(
                len(CONTENT_FREE), len(rows), -1
            )
    settings = {
        "template": template,
        "reduction": reduction,
        "span": span,
        "shots": shots,
        "limit": limit,
        "seed": seed,
    }
    settings |= {"model": lm.name, "fingerprint": lm.fingerprint}
    labels, ids, groups = ([row[column] for row in rows] for column in ("label", "id", "group"))
    return Evaluation(
        task,
        language,
        scores,
        np.array(labels),
        ids,
        groups,
        settings,
        n_tokens,
        n_cut,
        content_free,
    )
