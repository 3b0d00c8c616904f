"""Tasks: prompts in, an :class:`Evaluation` out.  Translation of sentences."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm
from transformers import StoppingCriteria, StoppingCriteriaList

from .data import LANGUAGES, TASKS, load_task
from .metrics import accuracy, batch_calibrated
from .models import LanguageModel
from .prompts import encode, run_in_batches, task_prompts, translation_prompt
from .scoring import score_choices


@dataclass
class Evaluation:
    """Scores of one model on one task in one language.

    ``scores`` (n, n_choices), ``labels`` (n,), ``rows`` and ``groups`` (n,): identities, the same across languages
    where the task is parallel.
    """

    task: str
    language: str
    scores: np.ndarray = field(repr=False)
    labels: np.ndarray = field(repr=False)
    rows: list[str] = field(repr=False)
    groups: list[str] = field(repr=False)
    settings: dict

    @property
    def predictions(self) -> np.ndarray:
        """The choice with the highest score."""
        return self.scores.argmax(axis=1)

    @property
    def correct(self) -> np.ndarray:
        """Bool (n,): prediction equals label."""
        return self.predictions == self.labels

    @property
    def calibrated(self) -> np.ndarray:
        """Bool (n,): correct after batch calibration of the scores, which assumes balanced labels."""
        return batch_calibrated(self.scores).argmax(axis=1) == self.labels

    @property
    def accuracy(self) -> float:
        return accuracy(self.predictions, self.labels)

    @property
    def label_distribution(self) -> dict[str, float]:
        """How often each label is predicted."""
        share = np.bincount(self.predictions, minlength=self.scores.shape[1]) / len(self.labels)
        return dict(zip(TASKS[self.task].labels, share.tolist()))

    def table(self) -> pd.DataFrame:
        """One row an example."""
        columns = {"task": self.task, "language": self.language, "row": self.rows, "group": self.groups}
        columns |= {"label": self.labels, "prediction": self.predictions, "correct": self.correct, "calibrated": self.calibrated}
        return pd.DataFrame(columns)

    def save(self, path: str | Path) -> None:
        """Write one JSON file."""
        content = {**vars(self), "scores": self.scores.tolist(), "labels": self.labels.tolist()}
        Path(path).write_text(json.dumps(content), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Evaluation:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        return cls(**content | {"scores": np.array(content["scores"]), "labels": np.array(content["labels"])})


def evaluate(
    lm: LanguageModel,
    task: str,
    language: str,
    source: str = "builtin",
    *,
    split: str | None = None,
    limit: int | None = None,
    template: str = "paper",
    reduction: str = "mean",
    span: str = "full",
    shots: int = 0,
    seed: int = 0,
) -> Evaluation:
    """Zero- or few-shot multiple choice by log-likelihood.

    ``limit`` and ``seed`` choose the rows (see :func:`load_task`), ``reduction`` and ``span`` the score (see
    :func:`score_choices`); the defaults are the paper's.
    """
    rows = load_task(task, language, source, split=split, limit=limit, seed=seed)
    prompts, choices = task_prompts(task, rows, template=template, shots=shots, seed=seed)
    return Evaluation(
        task=task,
        language=language,
        scores=score_choices(lm, prompts, choices, reduction=reduction, span=span),
        labels=np.array(rows["label"]),
        rows=list(rows["id"]),
        groups=list(rows["group"]),
        settings={"template": template, "reduction": reduction, "span": span, "shots": shots, "limit": limit, "seed": seed},
    )


class _Stop(StoppingCriteria):
    """Stop a row once its text, from ``start`` on, holds the separator after something else."""

    def __init__(self, tokenizer, start: int, separator: str):
        self.tokenizer, self.start, self.separator = tokenizer, start, separator

    def __call__(self, input_ids, scores, **kwargs):
        texts = self.tokenizer.batch_decode(input_ids[:, self.start :], skip_special_tokens=True)
        done = [self.separator in text.lstrip() for text in texts]
        return torch.tensor(done, device=input_ids.device)


def translate(
    lm: LanguageModel,
    sentences: Sequence[str],
    source: str,
    target: str,
    demonstrations: str | Sequence[str] = "",
    *,
    max_new_tokens: int = 64,
    separator: str = "\n",
    token_budget: int = 4096,
) -> list[str]:
    """Greedy few-shot translation; each output ends at the first separator.

    ``demonstrations``: one prefix for all sentences, or one a sentence; empty for zero-shot.
    """
    sentences = list(sentences)
    prefixes = [demonstrations] * len(sentences) if isinstance(demonstrations, str) else list(demonstrations)
    if len(prefixes) != len(sentences):
        raise ValueError(f"{len(prefixes)} demonstrations for {len(sentences)} sentences; give one, or one a sentence.")
    ids = encode(lm, [translation_prompt(s, source, target, d, separator) for s, d in zip(sentences, prefixes)])
    end = lm.tokenizer.eos_token_id
    outputs: dict[int, str] = {}
    bar = tqdm(total=len(ids), desc=f"{LANGUAGES[source]} to {LANGUAGES[target]}", leave=False)

    def run(indices: list[int]) -> None:
        length = max(len(ids[i]) for i in indices)
        fill = lm.tokenizer.pad_token_id if lm.tokenizer.pad_token_id is not None else end
        # Generation goes on at the right, so padding is on the left here.
        rows = torch.tensor([[fill or 0] * (length - len(ids[i])) + ids[i] for i in indices], device=lm.device)
        mask = torch.tensor([[0] * (length - len(ids[i])) + [1] * len(ids[i]) for i in indices], device=lm.device)
        with torch.inference_mode():
            generated = lm.model.generate(
                input_ids=rows,
                attention_mask=mask,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                pad_token_id=fill,
                stopping_criteria=StoppingCriteriaList([_Stop(lm.tokenizer, length, separator)]),
            )
        for i, text in zip(indices, lm.tokenizer.batch_decode(generated[:, length:], skip_special_tokens=True)):
            outputs[i] = text.strip().split(separator)[0].strip()
        bar.update(len(indices))

    with bar:
        run_in_batches([len(x) + max_new_tokens for x in ids], token_budget, run)
    return [outputs[i] for i in range(len(ids))]


def right_language(texts: Sequence[str], language: str) -> np.ndarray:
    """Bool (n,): whether lingua takes a text for ``language`` rather than another language of this package.

    Empty texts are False.
    """
    detector, wanted = _detector(), LANGUAGES[language].upper()
    return np.array([bool(t.strip()) and getattr(detector.detect_language_of(t), "name", None) == wanted for t in texts])


@functools.cache
def _detector():
    from lingua import Language, LanguageDetectorBuilder

    known = [getattr(Language, name.upper()) for name in LANGUAGES.values() if hasattr(Language, name.upper())]
    return LanguageDetectorBuilder.from_languages(*known).build()
