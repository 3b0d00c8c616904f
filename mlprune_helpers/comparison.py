"""Several evaluations in one table, and several against several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from . import metrics
from .data.tasks import declared_task
from .evaluation import CALIBRATIONS, Evaluation

#: Settings in which runs that are compared may differ: the model, and what no result depends on.
FREE = ("model", "fingerprint", "token_budget", "logit_budget")
NOT_RECORDED = "not recorded"


def summarise(evaluations: Sequence[Evaluation]) -> pd.DataFrame:
    """One row a language, and their average.

    Args:
        evaluations: Of one task, in different languages.

    Returns:
        ``language``, ``n`` rows, ``n_groups``; ``accuracy`` with its 95 % interval (``low``,
        ``high``), which resamples groups in all languages at once; ``accuracy_batch`` and, where
        all evaluations have it, ``accuracy_contextual``; ``macro_f1``; ``share_…``, how often each
        label is predicted; ``n_cut``, rows that did not fit.

    Raises:
        ValueError: If there is no evaluation, a language twice, or more than one task.
    """
    evaluations = _listed("evaluations", evaluations)
    _check_one_task("evaluations", evaluations)
    with_context = all(e.content_free is not None for e in evaluations)
    table = []
    for language, part in _parts(evaluations):
        correct, groups, strata = _stacked(part, "raw")
        low, high = metrics.bootstrap_interval(correct, groups=groups, strata=strata)
        row = {"language": language, "n": len(correct), "n_groups": len(set(groups))}
        row |= {"accuracy": _mean_accuracy(part, "raw"), "low": low, "high": high}
        row["accuracy_batch"] = _mean_accuracy(part, "batch")
        if with_context:
            row["accuracy_contextual"] = _mean_accuracy(part, "contextual")
        row["macro_f1"] = np.mean([e.macro_f1 for e in part])
        for name in part[0].label_names:
            row[f"share_{name}"] = np.mean([e.label_distribution[name] for e in part])
        row["n_cut"] = sum(int((e.n_cut.max(axis=1) > 0).sum()) for e in part)
        table.append(row)
    return pd.DataFrame(table)


def compare(
    before: Sequence[Evaluation],
    after: Sequence[Evaluation],
    *,
    n_resamples: int = 10_000,
    seed: int = 0,
) -> pd.DataFrame:
    """Accuracy after minus before, on the same rows asked in the same way.

    Whole groups are resampled, in all languages at once; calibration is taken as given.

    Args:
        before: Evaluations of one model on one task, in different languages.
        after: The same of another model; in any order.
        n_resamples: See :func:`mlprune_helpers.metrics.paired_bootstrap`.
        seed: Of the resampling.

    Returns:
        A row for every language and their average, for each calibration that all evaluations allow:
        ``language``, ``calibration``, what ``paired_bootstrap`` returns, and ``p_holm``, corrected
        over the languages (the average has none).

    Raises:
        ValueError: If languages, rows, labels or any setting differ, naming it and both values.
    """
    before, after = _listed("before", before), _listed("after", after)
    if len(before) != len(after) or not before:
        raise ValueError(
            f"{len(before)} evaluations before and {len(after)} after; as many are needed, at "
            "least one."
        )
    _check_one_task("before", before)
    _check_one_task("after", after)
    after = _in_the_order_of(before, after)
    for pair in zip(before, after):
        _check_alike(*pair)
    tables = [
        _compared(before, after, calibration, n_resamples=n_resamples, seed=seed)
        for calibration in _calibrations([*before, *after])
    ]
    return pd.DataFrame([row for table in tables for row in table])


def _compared(
    before: Sequence[Evaluation],
    after: Sequence[Evaluation],
    calibration: str,
    *,
    n_resamples: int,
    seed: int,
) -> list[dict[str, Any]]:
    """A row for every language, and their average if there are several."""
    table: list[dict[str, Any]] = []
    for (language, one), (_, other) in zip(_parts(before), _parts(after)):
        right_before, groups, strata = _stacked(one, calibration)
        right_after, _, _ = _stacked(other, calibration)
        comparison = metrics.paired_bootstrap(
            right_before,
            right_after,
            groups=groups,
            strata=strata,
            n_resamples=n_resamples,
            seed=seed,
        )
        table.append({"language": language, "calibration": calibration, **vars(comparison)})
    of_languages = table[: len(before)]
    for row, p in zip(of_languages, metrics.holm([row["p_value"] for row in of_languages])):
        row["p_holm"] = p
    return table


# -- rows in the right order ---------------------------------------------------------------------


def _parts(evaluations: Sequence[Evaluation]) -> list[tuple[str, Sequence[Evaluation]]]:
    """Every language by itself, then all of them if there are several."""
    parts: list[tuple[str, Sequence[Evaluation]]] = [(e.language, [e]) for e in evaluations]
    if len(evaluations) > 1:
        parts.append(("average", evaluations))
    return parts


def _stacked(
    evaluations: Sequence[Evaluation], calibration: str
) -> tuple[np.ndarray, list[str], list[str]]:
    """Of each row: whether it is right, its group (joint where rows are parallel), its language."""
    correct = np.concatenate([e.predict(calibration) == e.labels for e in evaluations])
    groups, languages = [], []
    for e in evaluations:
        parallel = declared_task(e.task).parallel
        groups += [group if parallel else f"{e.language} {group}" for group in e.groups]
        languages += [e.language] * len(e.groups)
    return correct, groups, languages


def _mean_accuracy(evaluations: Sequence[Evaluation], calibration: str) -> float:
    accuracies = [metrics.accuracy(e.predict(calibration), e.labels) for e in evaluations]
    return float(np.mean(accuracies))


def _calibrations(evaluations: Sequence[Evaluation]) -> list[str]:
    """Those that all evaluations allow."""
    with_context = all(e.content_free is not None for e in evaluations)
    return [name for name in CALIBRATIONS if name != "contextual" or with_context]


# -- checks --------------------------------------------------------------------------------------


def _listed(name: str, evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    if isinstance(evaluations, Evaluation):
        raise TypeError(f"{name} is one Evaluation; a list of them is needed: put it into a list.")
    listed = list(evaluations)
    for e in listed:
        if not isinstance(e, Evaluation):
            raise TypeError(f"{name} has a {type(e).__name__}; allowed: Evaluations.")
    return listed


def _check_one_task(name: str, evaluations: Sequence[Evaluation]) -> None:
    """Whether these are of one task, each in another language."""
    if not evaluations:
        raise ValueError(f"{name} is empty; needed: at least one evaluation.")
    tasks = list(dict.fromkeys(e.task for e in evaluations))
    if len(tasks) > 1:
        raise ValueError(
            f"{name} are of the tasks {', '.join(tasks)}, whose labels and rows are not the same: "
            "one task at a time."
        )
    languages = [e.language for e in evaluations]
    twice = [language for language in dict.fromkeys(languages) if languages.count(language) > 1]
    if twice:
        raise ValueError(f"{name} has {twice[0]!r} more than once: an evaluation a language.")


def _in_the_order_of(before: list[Evaluation], after: list[Evaluation]) -> list[Evaluation]:
    places = {e.language: e for e in after}
    languages = [e.language for e in before]
    if set(languages) != set(places):
        raise ValueError(
            f"language differs before and after: {', '.join(languages)} and {', '.join(places)}. "
            "Evaluate the same languages."
        )
    return [places[language] for language in languages]


def _check_alike(before: Evaluation, after: Evaluation) -> None:
    """Whether two runs differ in nothing but the model."""
    one, other = _compared_by(before), _compared_by(after)
    for name in [*one, *(name for name in other if name not in one)]:
        x, y = one.get(name, NOT_RECORDED), other.get(name, NOT_RECORDED)
        if x != y:
            raise ValueError(
                f"{before.task} in {before.language!r}: {name} differs before and after: "
                f"{_first_difference(x, y)}. Evaluate the same rows in the same way."
            )


def _compared_by(e: Evaluation) -> dict[str, Any]:
    compared: dict[str, Any] = {
        "task": e.task,
        "rows": e.rows,
        "labels": e.labels.tolist(),
        "groups": e.groups,
    }
    for name, value in e.settings.items():
        if name not in FREE:
            compared[name] = value
    if "examples" in e.settings:  # a digest: what rows say counts, not in which folder they lie
        compared.pop("source", None)
    return compared


def _first_difference(x: object, y: object) -> str:
    """Both values; of long lists, the first place where they differ."""
    if isinstance(x, list) and isinstance(y, list) and len(x) == len(y):
        place = next(i for i, (a, b) in enumerate(zip(x, y)) if a != b)
        return f"{x[place]!r} and {y[place]!r} at row {place}"
    if isinstance(x, list) and isinstance(y, list):
        return f"{len(x)} and {len(y)} of them"
    return f"{x!r} and {y!r}"
