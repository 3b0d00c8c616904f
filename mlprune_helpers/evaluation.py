"""Tasks: prompts in, an :class:`Evaluation` out.  Translation of sentences.  Baselines of the paper."""

from __future__ import annotations

import contextlib
import functools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from transformers import StoppingCriteriaList

from . import metrics
from .activations import collect_activations, residual_stream
from .data import LANGUAGES, TASKS, DataError, load_task
from .models import LanguageModel, written_beside
from .prompts import encode, padded, run_in_batches, task_prompts, translation_prompt
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
        sums = self.scores * (self.n_tokens if self.settings["reduction"] == "mean" else 1)  # only these are log-probabilities
        if calibration == "batch":
            return metrics.batch_calibrated(sums).argmax(axis=1)
        if self.content_free is None:
            raise ValueError("This evaluation has no content-free scores; evaluate with contextual=True.")
        return metrics.contextual_calibrated(sums, self.content_free).argmax(axis=1)

    predictions = property(predict)
    correct = property(lambda self: self.predictions == self.labels, doc="Bool (n,): prediction equals label.")
    calibrated = property(lambda self: self.predict("batch") == self.labels, doc="Bool (n,): right after batch calibration.")
    accuracy = property(lambda self: metrics.accuracy(self.predictions, self.labels))
    macro_f1 = property(lambda self: metrics.macro_f1(self.predictions, self.labels, self.scores.shape[1]))

    @property
    def label_distribution(self) -> dict[str, float]:
        """How often each label is predicted."""
        return {name: float(np.mean(self.predictions == k)) for k, name in enumerate(TASKS[self.task].labels)}

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
        columns = {"task": self.task, "language": self.language, "row": self.rows, "group": self.groups, "label": self.labels}
        columns |= {"prediction": self.predictions, "correct": self.correct, "calibrated": self.calibrated}
        columns |= {f"score_{name}": self.scores[:, k] for k, name in enumerate(TASKS[self.task].labels)}
        return pd.DataFrame(columns | {"n_cut": self.n_cut.max(axis=1)})

    def save(self, path: str | Path) -> None:
        """Write one JSON file, complete or not at all."""
        with written_beside(path) as beside:
            beside.write_text(json.dumps(vars(self), default=np.ndarray.tolist), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Evaluation:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        arrays = ("scores", "labels", "n_tokens", "n_cut", "content_free")
        return cls(**content | {name: np.array(content[name]) for name in arrays if content[name] is not None})


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
    rows = list(load_task(task, language, source, split=split, limit=limit, seed=seed) if examples is None else examples)
    ask = functools.partial(task_prompts, task, rows, template=template, language=language, shots=shots, seed=seed)
    scores, n_tokens, n_cut = score_choices(lm, *ask(), reduction=reduction, span=span, details=True, **options)
    content_free = None
    if contextual is not False:
        asked = [(p, tuple(c)) for text in CONTENT_FREE for p, c in zip(*ask(content_free=text))]
        places = {question: n for n, question in enumerate(dict.fromkeys(asked))}
        if contextual or len(places) <= len(CONTENT_FREE):
            sums = score_choices(lm, *zip(*places), reduction="sum", span=span, details=True, **options).scores
            content_free = sums[[places[q] for q in asked]].reshape(len(CONTENT_FREE), len(rows), -1)
    settings = {"template": template, "reduction": reduction, "span": span, "shots": shots, "limit": limit, "seed": seed}
    settings |= {"model": lm.name, "fingerprint": lm.fingerprint}
    labels, ids, groups = ([row[column] for row in rows] for column in ("label", "id", "group"))
    return Evaluation(task, language, scores, np.array(labels), ids, groups, settings, n_tokens, n_cut, content_free)


def summarise(evaluations: Sequence[Evaluation]) -> pd.DataFrame:
    """One row a language, and their average, whose interval resamples groups in all languages at once."""
    table = []
    for language, part in _parts(evaluations):
        correct, groups, strata = _stacked(part, "raw")
        low, high = metrics.bootstrap_interval(correct, groups=groups, strata=strata)
        row = {"language": language, "n": len(correct), "n_groups": len(set(groups))}
        row |= {"accuracy": np.mean([e.accuracy for e in part]), "low": low, "high": high}
        for kind in CALIBRATIONS[1 : 2 + all(e.content_free is not None for e in evaluations)]:
            row[f"accuracy_{kind}"] = np.mean([metrics.accuracy(e.predict(kind), e.labels) for e in part])
        row["macro_f1"] = np.mean([e.macro_f1 for e in part])
        row |= {f"share_{x}": np.mean([e.label_distribution[x] for e in part]) for x in part[0].label_distribution}
        table.append(row | {"n_cut": sum(int((e.n_cut.max(axis=1) > 0).sum()) for e in part)})
    return pd.DataFrame(table)


def compare(before: Sequence[Evaluation], after: Sequence[Evaluation], *, n_resamples: int = 10_000, seed: int = 0) -> pd.DataFrame:
    """Accuracy after minus before, the same rows: a row for every language and their average, raw and calibrated.

    Whole groups are resampled, in all languages at once; calibration is taken as given; ``p_holm`` corrects over the
    languages.  Raises ValueError where rows or settings differ.
    """
    if len(before) != len(after) or not before:
        raise ValueError(f"{len(before)} evaluations before and {len(after)} after; as many are needed, at least one.")
    for pair in zip(before, after):
        x, y = ({"task": e.task, "language": e.language, "rows": e.rows, **e.settings} for e in pair)
        for name in x.keys() - {"model", "fingerprint"}:
            if x[name] != y.get(name):
                raise ValueError(f"{x['task']} in {x['language']!r}: {name} differs before and after. Evaluate the same rows in the same way.")
    table = []
    for kind in CALIBRATIONS[: 2 + all(e.content_free is not None for e in (*before, *after))]:
        results = []
        for (language, a), (_, b) in zip(_parts(before), _parts(after)):
            (x, groups, strata), (y, _, _) = _stacked(a, kind), _stacked(b, kind)
            comparison = metrics.paired_bootstrap(x, y, groups=groups, strata=strata, n_resamples=n_resamples, seed=seed)
            results.append({"language": language, "calibration": kind, **vars(comparison)})
        for row, p in zip(results, metrics.holm([row["p_value"] for row in results[: len(before)]])):
            row["p_holm"] = p
        table += results
    return pd.DataFrame(table)


def _parts(evaluations: Sequence[Evaluation]) -> list[tuple[str, Sequence[Evaluation]]]:
    """Every language by itself, then all of them."""
    return [(e.language, [e]) for e in evaluations] + [("average", evaluations)] * (len(evaluations) > 1)


def _stacked(evaluations: Sequence[Evaluation], calibration: str) -> tuple[np.ndarray, list[str], list[str]]:
    """Whether each row is right, its group (the same across languages where rows are parallel), its language."""
    correct = np.concatenate([e.predict(calibration) == e.labels for e in evaluations])
    groups = [g if TASKS[e.task].parallel else f"{e.language} {g}" for e in evaluations for g in e.groups]
    return correct, groups, [e.language for e in evaluations for _ in e.groups]


def translate(
    lm: LanguageModel, sentences: Sequence[str], source: str, target: str, demonstrations: str | Sequence[str] = "", *,
    max_new_tokens: int = 64, separator: str = "\n", token_budget: int = 4096,
) -> list[str]:  # fmt: skip
    """Greedy few-shot translation.

    ``demonstrations``: one prefix for all sentences, or one a sentence (``build_demonstrations`` with as many
    ``n_prompts``); empty for zero-shot.  An output ends at the first separator or where the model starts another pair
    (``French:``), so a pair that it made up is never part of it.
    """
    sentences = list(sentences)
    prefixes = [demonstrations] * len(sentences) if isinstance(demonstrations, str) else list(demonstrations)
    if len(prefixes) != len(sentences):
        raise ValueError(f"{len(prefixes)} demonstrations for {len(sentences)} sentences; give one, or one a sentence.")
    ids = encode(lm, [translation_prompt(s, source, target, d, separator) for s, d in zip(sentences, prefixes)])
    marks = "|".join(map(re.escape, (separator, f"{LANGUAGES[source]}:", f"{LANGUAGES[target]}:")))
    fill = lm.tokenizer.eos_token_id or 0  # not the tokenizer's pad token, which may lie outside the model's vocabulary
    outputs: dict[int, str] = {}

    def texts(rows: torch.Tensor, start: int) -> list[list[str]]:  # in pieces between the marks
        return [re.split(marks, text) for text in lm.tokenizer.batch_decode(rows[:, start:], skip_special_tokens=True)]

    shared = 0  # leading tokens of all prompts, the demonstrations among them, run once
    if not lm.window or max(map(len, ids)) + max_new_tokens <= lm.window:  # padding after them would use up a window
        shared = min(len(x) for x in ids) - 1
        shared = next((t for t in range(shared) if len({x[t] for x in ids}) > 1), shared)

    def run(indices: list[int]) -> None:
        # Generation goes on at the right, so padding is further left: after the shared tokens.
        rest, mask = padded([ids[i][shared:] for i in indices], lm.device, side="left")
        before = torch.tensor(ids[indices[0]][:shared], dtype=torch.long, device=lm.device).expand(len(indices), shared)
        rows, mask = torch.cat([before, rest], dim=1), torch.cat([torch.ones_like(before), mask], dim=1)
        length = rows.shape[1]

        def stop(ids, scores, **kwargs):
            return torch.tensor([len(pieces) > 1 for pieces in texts(ids, length)], device=ids.device)

        with torch.inference_mode():
            options = {}
            if shared:
                cache = lm.run(rows[:1, :shared], mask[:1, :shared], use_cache=True).past_key_values
                cache.batch_repeat_interleave(len(indices))
                options["past_key_values"] = cache
            generated = lm.model.generate(
                input_ids=rows, attention_mask=mask, max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=fill,
                stopping_criteria=StoppingCriteriaList([stop]), **options,
            )  # fmt: skip
        outputs.update({i: text[0].strip() for i, text in zip(indices, texts(generated, length))})

    lengths, desc = [len(x) - shared + max_new_tokens for x in ids], f"{LANGUAGES[source]} to {LANGUAGES[target]}"
    run_in_batches(lengths, token_budget, run, desc)
    return [outputs[i] for i in range(len(ids))]


def right_language(texts: Sequence[str], language: str) -> np.ndarray:
    """Bool (n,): whether lingua takes a text for ``language`` rather than another of ``LANGUAGES``; False if empty.

    Raises DataError for a language that lingua does not know (Burmese).
    """
    known, detector = _detector()
    wanted = known.get(LANGUAGES[language])
    if wanted is None:
        raise DataError(f"lingua does not know {LANGUAGES[language]}; it knows {', '.join(known)}.")
    return np.array([bool(text.strip()) and detector.detect_language_of(text) == wanted for text in texts], dtype=bool)


@functools.cache
def _detector():
    from lingua import Language, LanguageDetectorBuilder

    known = {x.name.title(): x for x in Language.all() if x.name.title() in LANGUAGES.values()}
    return known, LanguageDetectorBuilder.from_languages(*known.values()).build()


def self_translate(lm: LanguageModel, task: str, examples: Dataset, language: str, demonstrations="", **options) -> Dataset:
    """Rows in the model's own English (Etxaniz et al., arXiv 2308.01223), for ``evaluate(…, examples=…)``; see :func:`translate`."""
    fields = [f for f in TASKS[task].fields if f != "question"]
    rows = [row | {f: " ".join(row[f].split()) for f in fields} for row in examples]
    texts = list(dict.fromkeys(row[f] for row in rows for f in fields))
    english = dict(zip(texts, translate(lm, texts, language, "en", demonstrations, **options)))
    return Dataset.from_list([row | {f: english[row[f]] or row[f] for f in fields} for row in rows])  # never an empty text


def language_vector(lm: LanguageModel, sentences: Sequence[str]) -> torch.Tensor:
    """Mean hidden state (n_layers, hidden_size) over the tokens of sentences, at the input of each block.

    Without the beginning-of-sequence token: its massive activations would make the mean one of sentence length.
    """
    begins = encode(lm, sentences[:1])[0][0] == lm.tokenizer.bos_token_id
    return torch.from_numpy(collect_activations(lm, sentences, max_length=None, skip_first=int(begins)).mean[:-1]).float()


@contextlib.contextmanager
def lrp2(lm: LanguageModel, language: torch.Tensor, english: torch.Tensor, layers: tuple[int, int]) -> Iterator[None]:
    """LRP2 (Xu, Li, Xiong, arXiv 2311.03788): while active, hidden states move to English at one layer, back at a later.

    ``language``, ``english``: from :func:`language_vector`.  The two layers are tuned on labelled examples of the
    language, a supervision that pruning does not have: say so where the two are compared.
    """
    first, second = layers
    if not 1 <= first < second < len(lm.layers):
        raise ValueError(f"layers are {layers}; allowed: two of 1 to {len(lm.layers) - 1}, the first one smaller.")

    shift = english - language
    moves = {first: shift[first], second: -shift[second]}

    def see(layer: int, hidden: torch.Tensor) -> torch.Tensor | None:
        return hidden + moves[layer].to(hidden) if layer in moves else None

    with lm.intervening("lrp2", *moves, *(move.cpu().numpy() for move in moves.values())), residual_stream(lm, see):
        yield
