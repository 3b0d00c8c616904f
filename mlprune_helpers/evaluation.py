"""Tasks: prompts in, an :class:`Evaluation` out."""

from __future__ import annotations

import difflib
import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import pandas as pd
from datasets import Dataset

from . import metrics
from .data.examples import checked_examples
from .data.sources import load_task
from .data.tasks import TASKS, declared_task
from .files import SavedAsJson
from .models.language_model import LanguageModel
from .prompts import task_prompts
from .ranking import (
    NothingToRank,
    Pair,
    RankingUnits,
    holds_pairs,
    rank_across_rows,
    rank_within_groups,
    rank_within_rows,
)
from .scoring import Scored, score_choices

CALIBRATIONS = ("raw", "batch", "contextual")
CONTENT_FREE = ("N/A", "[MASK]", "")  # as in Zhao et al. (arXiv 2102.09690)
REDUCTIONS = ("mean", "sum")


@dataclass
class Evaluation(SavedAsJson):
    """Scores of one model on one task in one language.

    Attributes:
        task: A key of ``TASKS``.
        language: Code of the language.
        scores: (n, n_choices), float64, higher is likelier.
        labels: (n,), int64: number of the right choice.
        rows: n identities, the same across languages where the task is parallel.
        groups: n identities that rows share which are not independent, also the same across
            languages.
        settings: All that the scores depend on: how the rows were chosen and asked, a digest of
            what they say, the model and its fingerprint.  JSON data.
        n_tokens: (n, n_choices), int64: tokens scored.
        n_cut: (n, n_choices), int64: tokens that did not fit.
        content_free: (inputs, n, n_choices), summed log-likelihoods of the same questions without
            content; None if they were not asked.

    Raises:
        ValueError: If shapes do not agree, a score is not finite, or a label is not a choice.
    """

    task: str
    language: str
    scores: np.ndarray = field(repr=False)
    labels: np.ndarray = field(repr=False)
    rows: list[str] = field(repr=False)
    groups: list[str] = field(repr=False)
    settings: dict[str, Any]
    n_tokens: np.ndarray = field(repr=False)
    n_cut: np.ndarray = field(repr=False)
    content_free: np.ndarray | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        # One type each, so that what is read back from a file is what was written.
        self.scores = np.asarray(self.scores, dtype=np.float64)
        self.labels = _integers("labels", self.labels)
        self.n_tokens = _integers("n_tokens", self.n_tokens)
        self.n_cut = _integers("n_cut", self.n_cut)
        if self.content_free is not None:
            self.content_free = np.asarray(self.content_free, dtype=np.float64)
        self.rows, self.groups = list(self.rows), list(self.groups)
        self.settings = _plain(self.settings)
        self._check()

    def _check(self) -> None:
        where = f"{self.task} in {self.language!r}"
        if self.scores.ndim != 2 or not self.scores.size:
            raise ValueError(
                f"{where}: scores are {self.scores.shape}; allowed: (n, n_choices), at least one."
            )
        n, n_choices = self.scores.shape
        shapes = {
            "labels": (self.labels.shape, (n,)),
            "rows": ((len(self.rows),), (n,)),
            "groups": ((len(self.groups),), (n,)),
            "n_tokens": (self.n_tokens.shape, (n, n_choices)),
            "n_cut": (self.n_cut.shape, (n, n_choices)),
        }
        if self.content_free is not None:
            shapes["content_free"] = (self.content_free.shape[1:], (n, n_choices))
            _check_finite(where, "content_free", self.content_free)
        for name, (shape, needed) in shapes.items():
            if shape != needed:
                raise ValueError(f"{where}: {name} are {shape}, scores {n, n_choices}.")
        _check_finite(where, "scores", self.scores)
        wrong = (self.labels < 0) | (self.labels >= n_choices)
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise ValueError(
                f"{where}, row {self.rows[row]!r}: label is {self.labels[row]}; allowed: 0 to "
                f"{n_choices - 1}."
            )

    # -- what the model chose --------------------------------------------------------------------

    def predict(self, calibration: str = "raw") -> np.ndarray:
        """The likeliest choice of each row; of equally likely ones, the first.

        Args:
            calibration: ``"raw"``: by the scores.  ``"batch"``: by summed log-likelihoods, less
                what each label has on average, which takes labels for balanced.  ``"contextual"``:
                less what it has where the question has no content.

        Returns:
            Numbers of choices (n,).

        Raises:
            ValueError: If there is nothing to calibrate by: no content-free scores.
        """
        if calibration not in CALIBRATIONS:
            raise ValueError(f"calibration is {calibration!r}; allowed: {', '.join(CALIBRATIONS)}.")
        if calibration == "raw":
            return self.scores.argmax(axis=1)
        if calibration == "batch":
            return metrics.batch_calibrated(self._log_likelihoods()).argmax(axis=1)
        if self.content_free is None:
            raise ValueError(
                "This evaluation has no content-free scores; evaluate with contextual=True."
            )
        calibrated = metrics.contextual_calibrated(self._log_likelihoods(), self.content_free)
        return calibrated.argmax(axis=1)

    def _log_likelihoods(self) -> np.ndarray:
        """Summed over tokens (n, n_choices): only these are log-probabilities."""
        reduction = self.settings.get("reduction")
        if reduction not in REDUCTIONS:
            raise ValueError(
                f"settings['reduction'] is {reduction!r}; allowed: {', '.join(REDUCTIONS)}, so "
                "that scores can be turned into log-probabilities."
            )
        return self.scores * self.n_tokens if reduction == "mean" else self.scores

    @property
    def predictions(self) -> np.ndarray:
        """The likeliest choice (n,), by raw scores."""
        return self.predict()

    @property
    def correct(self) -> np.ndarray:
        """Bool (n,): prediction equals label."""
        return self.predictions == self.labels

    @property
    def calibrated(self) -> np.ndarray:
        """Bool (n,): right after batch calibration; see :meth:`predict`."""
        return self.predict("batch") == self.labels

    @property
    def accuracy(self) -> float:
        """Share of right predictions."""
        return metrics.accuracy(self.predictions, self.labels)

    @property
    def ranking(self) -> float:
        """How often the right pairing is ranked above the wrong one; chance is 0.5.

        For two labels and a row of each, it is right if log p(first label) - log p(second), by
        summed log-likelihoods, is higher in the row of the first; a tie counts 1/2.  So it does not
        depend on which labels the model likes: whatever is added to a label in all rows cancels.

        Compared are rows of the same group where groups hold several labels, as the hypotheses of
        one premise do; else all rows of one label with all rows of the other, which is the area
        under the curve.  With several pairs of labels it is their mean (Hand and Till, 2001);
        ``Task.ranked`` may name one pair.  Where the choices are the row's own answers
        (``Task.answers``), the right one is compared with each wrong one.

        Raises:
            ValueError: If there is nothing to compare: all rows have the same label, say.
        """
        return float(self.ranking_units.values.mean())

    @property
    def ranking_units(self) -> RankingUnits:
        """What :attr:`ranking` is the mean of, for intervals and paired comparisons.

        A unit is a group, or a row where the choices are the row's own answers.

        Raises:
            ValueError: As :attr:`ranking`.
        """
        log_likelihoods = self._log_likelihoods()
        if declared_task(self.task).answers:
            return rank_within_rows(log_likelihoods, self.labels, self.groups)
        pairs = self._ranked_pairs()
        if holds_pairs(self.labels, self.groups, pairs):
            return rank_within_groups(log_likelihoods, self.labels, self.groups, pairs)
        self._check_spread(pairs)
        return rank_across_rows(log_likelihoods, self.labels, self.groups, pairs)

    def _ranked_pairs(self) -> list[Pair]:
        """Numbers of the labels that are compared: the declared pair, or all pairs with rows."""
        names = self.label_names
        declared = declared_task(self.task).ranked
        present = np.unique(self.labels).tolist()
        wanted = present if declared is None else [names.index(name) for name in declared]
        pairs = list(itertools.combinations(wanted, 2))
        if not pairs or not set(wanted) <= set(present):
            raise NothingToRank(
                f"{self.task} in {self.language!r}: a ranking needs rows of "
                f"{'two labels' if declared is None else ' and '.join(declared)}; all rows are of "
                f"{', '.join(names[k] for k in present)}. Evaluate more rows."
            )
        return pairs

    def _check_spread(self, pairs: Sequence[Pair]) -> None:
        """Of one group alone it cannot be seen how much groups differ."""
        for label in sorted({label for pair in pairs for label in pair}):
            n_groups = len({g for g, own in zip(self.groups, self.labels) if own == label})
            if n_groups < 2:
                raise NothingToRank(
                    f"{self.task} in {self.language!r}: a ranking across rows needs two groups of "
                    f"each label; {self.label_names[label]!r} has {n_groups}. Evaluate more rows."
                )

    @property
    def macro_f1(self) -> float:
        """Mean of F1 over all labels."""
        return metrics.macro_f1(self.predictions, self.labels, self.scores.shape[1])

    @property
    def label_names(self) -> list[str]:
        """What the numbers of the labels mean."""
        names = self.settings.get("label_names") or declared_task(self.task).labels
        if len(names) != self.scores.shape[1]:
            raise ValueError(
                f"{self.task} has the labels {', '.join(names)}, but this evaluation scores for "
                f"{self.scores.shape[1]}: it is of another declaration."
            )
        return list(names)

    @property
    def label_distribution(self) -> dict[str, float]:
        """How often each label is predicted."""
        predictions = self.predictions
        return {name: float(np.mean(predictions == k)) for k, name in enumerate(self.label_names)}

    # -- beside other languages, and in files ----------------------------------------------------

    @overload
    def rank_consistency(self, other: Evaluation, *, per_row: Literal[False] = False) -> float: ...

    @overload
    def rank_consistency(self, other: Evaluation, *, per_row: Literal[True]) -> np.ndarray: ...

    def rank_consistency(self, other: Evaluation, *, per_row: bool = False) -> float | np.ndarray:
        """RankC against another language; see :func:`mlprune_helpers.metrics.rank_consistency`.

        Args:
            other: Evaluation of the same rows in another language.
            per_row: Return RankC of each row, for paired comparisons.

        Returns:
            RankC, or (n,) of each row.

        Raises:
            ValueError: If row n is not the same example in both.
        """
        same = (
            self.task == other.task
            and self.rows == other.rows
            and np.array_equal(self.labels, other.labels)
        )
        if not same or not declared_task(self.task).parallel:
            parallel = ", ".join(name for name, task in TASKS.items() if task.parallel)
            raise ValueError(
                f"{self.task} in {self.language!r} and {other.task} in {other.language!r} have no "
                f"parallel rows, which RankC needs. Parallel tasks: {parallel}; use the same limit "
                "and seed."
            )
        return metrics.rank_consistency(self.scores, other.scores, per_row=per_row)

    def table(self) -> pd.DataFrame:
        """One row an example."""
        columns: dict[str, Any] = {
            "task": self.task,
            "language": self.language,
            "row": self.rows,
            "group": self.groups,
            "label": self.labels,
            "prediction": self.predictions,
            "correct": self.correct,
            "calibrated": self.calibrated,
        }
        for k, name in enumerate(self.label_names):
            columns[f"score_{name}"] = self.scores[:, k]
        columns["n_cut"] = self.n_cut.max(axis=1)
        return pd.DataFrame(columns)


def evaluate(
    lm: LanguageModel,
    task: str,
    language: str,
    source: str | Path = "builtin",
    *,
    split: str | None = None,
    limit: int | None = None,
    template: str | Mapping[str, Any] = "paper",
    reduction: str = "mean",
    span: str = "full",
    shots: int = 0,
    seed: int = 0,
    contextual: bool | None = None,
    examples: Dataset | Iterable[Mapping[str, Any]] | None = None,
    max_length: int | None = None,
    truncation: str = "left",
    token_budget: int | None = None,
    logit_budget: int = 1024,
    **unknown: object,
) -> Evaluation:
    """Zero- or few-shot multiple choice by log-likelihood; the defaults are the paper's.

    Args:
        lm: The model.
        task: A key of ``TASKS``.
        language: Code of the language.
        source: ``"builtin"``, ``"hub"`` or a folder; see :func:`load_task`.
        split: By default the task's first one in the source.
        limit: At most so many rows, whole groups drawn with ``seed``; by default all.
        template: ``"paper"``, ``"native"`` or a prompt and choices; see :func:`task_prompts`.
        reduction: ``"mean"`` or ``"sum"`` over the tokens scored.
        span: ``"full"`` or ``"continuation"``: which tokens those are; see :func:`score_choices`.
        shots: Solved rows before each prompt, drawn with ``seed``.
        seed: Of rows and shots.
        contextual: Score the questions without content too, for contextual calibration; by default
            where one such question serves all rows.
        examples: Rows to ask about, instead of those that :func:`load_task` gives; checked as
            those are.
        max_length: Tokens that may go in (default: what the model takes).
        truncation: What happens to longer strings: ``"left"`` or ``"error"``.
        token_budget: Padded tokens in a batch; results do not depend on it.
        logit_budget: Positions whose logits are held at once; results do not depend on it.
        **unknown: Refused by name.

    Returns:
        The scores, and all that they depend on.

    Raises:
        TypeError: If an option is unknown.
        DataError: If rows cannot be found or are not what the task declares.
        ValueError: If a setting is out of range, or a score is not finite.

    Example:
        ``evaluate(lm, "nli", "fr", limit=60).accuracy``
    """
    _refuse(unknown)
    if contextual is not None and not isinstance(contextual, bool):
        raise ValueError(f"contextual is {contextual!r}; allowed: True, False, or None for either.")
    if examples is None:
        rows = list(load_task(task, language, str(source), split=split, limit=limit, seed=seed))
    else:
        rows = _given_rows(task, language, examples, split=split, limit=limit)
    asking = _Asking(
        lm=lm,
        task=task,
        language=language,
        rows=rows,
        template=template,
        shots=shots,
        seed=seed,
        span=span,
        max_length=max_length,
        truncation=truncation,
        token_budget=token_budget,
        logit_budget=logit_budget,
    )
    scored = asking.score(*asking.questions(), reduction=reduction)
    content_free = None
    if contextual is not False:
        content_free = asking.content_free_scores(only_if_few=contextual is None)
    chosen = {"split": split, "limit": limit, "source": str(source) if examples is None else None}
    done = {"reduction": reduction, "contextual": content_free is not None}
    return Evaluation(
        task=task,
        language=language,
        scores=scored.scores,
        labels=np.array([row["label"] for row in rows]),
        rows=[row["id"] for row in rows],
        groups=[row["group"] for row in rows],
        settings={**chosen, **asking.settings(), **done},  # what follows from others comes last
        n_tokens=scored.n_tokens,
        n_cut=scored.n_cut,
        content_free=content_free,
    )


# -- rows and questions --------------------------------------------------------------------------


def _given_rows(
    task: str,
    language: str,
    examples: Dataset | Iterable[Mapping[str, Any]],
    *,
    split: str | None,
    limit: int | None,
) -> list[dict[str, Any]]:
    """Rows that the caller gives, held to what rows from a file are held to."""
    if split is not None:
        raise ValueError(f"split is {split!r}, but examples are given: leave one of them out.")
    rows = checked_examples(task, examples, f"examples of {task} in {language!r}")
    if limit is not None and len(rows) > limit and len({row["group"] for row in rows}) > 1:
        raise ValueError(
            f"limit is {limit}, but {len(rows)} examples are given: give as many as you want "
            "evaluated, or leave limit out."
        )
    return rows


@dataclass(frozen=True)
class _Asking:
    """One model, the rows it is asked about, and how."""

    lm: LanguageModel
    task: str
    language: str
    rows: list[dict[str, Any]]
    template: str | Mapping[str, Any]
    shots: int
    seed: int
    span: str
    max_length: int | None
    truncation: str
    token_budget: int | None
    logit_budget: int

    def questions(self, content_free: str | None = None) -> tuple[list[str], list[list[str]]]:
        """A prompt for every row, and its choices."""
        return task_prompts(
            self.task,
            self.rows,
            template=self.template,
            language=self.language,
            shots=self.shots,
            seed=self.seed,
            content_free=content_free,
        )

    def score(
        self, prompts: Sequence[str], choices: Sequence[Sequence[str]], *, reduction: str
    ) -> Scored:
        """Scores, tokens scored, and tokens cut: each (n_prompts, n_choices)."""
        details = score_choices(
            self.lm,
            prompts,
            choices,
            reduction=reduction,
            span=self.span,
            max_length=self.max_length,
            truncation=self.truncation,
            token_budget=self.token_budget,
            logit_budget=self.logit_budget,
            details=True,
        )
        return Scored(*details)

    def content_free_scores(self, *, only_if_few: bool) -> np.ndarray | None:
        """Summed log-likelihoods (inputs, n, n_choices) of the rows' questions without content.

        ``only_if_few``: None instead, unless one question for each input serves all rows.
        """
        asked: list[tuple[str, tuple[str, ...]]] = []
        for text in CONTENT_FREE:
            prompts, choices = self.questions(content_free=text)
            asked += [(prompt, tuple(answers)) for prompt, answers in zip(prompts, choices)]
        different = list(dict.fromkeys(asked))
        if only_if_few:
            few = len(different) <= len(CONTENT_FREE)
            if not few or not all(prompt for prompt, _ in different):
                return None  # an empty prompt is no question
        sums = self.score(
            [prompt for prompt, _ in different],
            [answers for _, answers in different],
            reduction="sum",
        ).scores
        place = {question: n for n, question in enumerate(different)}
        of_rows = sums[[place[question] for question in asked]]
        return of_rows.reshape(len(CONTENT_FREE), len(self.rows), -1)

    def settings(self) -> dict[str, Any]:
        """All that scores depend on but the reduction; not the budgets, on which they do not."""
        return {
            "template": self.template,
            "template_content": _template_content(self.task, self.template, self.language),
            "label_names": declared_task(self.task).labels,
            "examples": _digest(self.rows, declared_task(self.task).fields),
            "shots": self.shots,
            "seed": self.seed,
            "span": self.span,
            "max_length": self.max_length,
            "truncation": self.truncation,
            "model": self.lm.name,
            "fingerprint": self.lm.fingerprint,
        }


def _template_content(
    task: str, template: str | Mapping[str, Any], language: str
) -> Mapping[str, Any]:
    """The prompt and choices that a template's name stands for."""
    if not isinstance(template, str):
        return template
    found = declared_task(task).templates[template]
    return found if "prompt" in found else found[language]


# -- settings and arrays -------------------------------------------------------------------------


def _refuse(unknown: Mapping[str, object]) -> None:
    """Say which option is unknown, and which is meant perhaps."""
    if not unknown:
        return
    name = next(iter(unknown))
    known = [*(evaluate.__kwdefaults__ or {}), "source"]
    near = difflib.get_close_matches(name, known, n=1)
    advice = f"Did you mean {near[0]!r}?" if near else f"Allowed: {', '.join(known)}."
    raise TypeError(f"evaluate has no option {name!r}. {advice}")


def _digest(rows: Sequence[Mapping[str, Any]], fields: Sequence[str]) -> str:
    """The same exactly if the rows are the same and say the same."""
    said = [[row[name] for name in ("id", "group", "label", *fields)] for row in rows]
    return hashlib.sha256(json.dumps(said, default=_as_json).encode()).hexdigest()[:16]


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON data, so that settings read from a file equal those written."""
    return json.loads(json.dumps(dict(settings), default=_as_json, allow_nan=False))


def _as_json(value: object) -> object:
    """What JSON has no form for: numbers of numpy, mappings other than dict, paths."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"settings have a {type(value).__name__} ({value!r}); allowed: plain data.")


def _integers(name: str, values: np.ndarray) -> np.ndarray:
    array = np.asarray(values)
    if not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{name} are of type {array.dtype}; allowed: whole numbers.")
    return array.astype(np.int64)


def _check_finite(where: str, name: str, array: np.ndarray) -> None:
    if not np.isfinite(array).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(f"{where}: {name} are not finite at {place}; load the model in float32.")
