"""Several evaluations in one table, and several against several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from . import metrics
from .data.tasks import declared_task
from .evaluation import Evaluation
from .metrics import Comparison
from .ranking import NothingToRank, RankingUnits
from .translation_evaluation import TranslationEvaluation

#: Settings in which runs that are compared may differ: the model, and what no result depends on.
FREE = ("model", "fingerprint", "token_budget", "logit_budget")
NOT_RECORDED = "not recorded"

#: How predictions are calibrated in each measure of accuracy; see :meth:`Evaluation.predict`.
CALIBRATION_OF = {
    "accuracy": "raw",
    "accuracy_batch": "batch",
    "accuracy_contextual": "contextual",
}
#: What is compared of translations besides chrF++, in nats a token.
IN_NATS = ("from_the_source", "reference", "fluency")

Either = Evaluation | TranslationEvaluation


def summarise(
    evaluations: Sequence[Either], *, average_over: Sequence[str] | None = None
) -> pd.DataFrame:
    """One row a language and their average; or, of translations, one row a direction.

    Intervals are of 95 %, and resample whole groups in all languages at once.

    Args:
        evaluations: Of one task in different languages; or of translations in different directions.
        average_over: Languages of the average (default: all but English); not for translations.

    Returns:
        Of a task: ``language``, ``n`` rows, ``n_groups``; ``ranking``, whose chance is 0.5, with
        ``ranking_low`` and ``ranking_high``, where all evaluations have one; ``accuracy``, with
        ``accuracy_low`` and ``accuracy_high``; ``majority``, the accuracy of always giving the
        commonest label; ``accuracy_batch`` and, where all evaluations have it,
        ``accuracy_contextual``; ``macro_f1``; ``share_…``, how often each label is predicted;
        ``n_cut``, rows that did not fit.

        Of translations: ``direction``, ``n`` sentences, ``n_groups``; ``from_the_source`` with
        ``from_the_source_low`` and ``from_the_source_high``, and ``translates``; ``reference`` and
        ``fluency``, the mean log-probability of a token of the references below the right and below
        a wrong source; all of these in nats; ``chrf``, ``chrf_floor`` and ``bleu``, NaN where
        nothing was generated.

    Raises:
        ValueError: If there is no evaluation, a language or direction twice, more than one task, or
            ``average_over`` names a language that is not there.
    """
    evaluations = _listed("evaluations", evaluations)
    _check_each_once("evaluations", evaluations)
    translations = _translations(evaluations)
    if translations:
        _check_no_average(average_over)
        return pd.DataFrame([_translation_row(e) for e in translations])
    of_task = _of_task(evaluations)
    measures = _measures(of_task)
    table = [
        {"language": language, **_row(part, measures)}
        for language, part in _parts(of_task, average_over)
    ]
    return pd.DataFrame(table)


def compare(
    before: Sequence[Either],
    after: Sequence[Either],
    *,
    average_over: Sequence[str] | None = None,
    n_resamples: int = 10_000,
    seed: int = 0,
) -> pd.DataFrame:
    """Each measure after minus before, on the same rows or sentences asked in the same way.

    Whole groups are the units, in all languages at once; calibration is taken as given.

    Args:
        before: Evaluations of one model on one task, in different languages; or of its
            translations, in different directions.
        after: The same of another model; in any order.
        average_over: Languages of the average (default: all but English); not for translations.
        n_resamples: See :func:`mlprune_helpers.metrics.paired_bootstrap`.
        seed: Of the resampling.

    Returns:
        For each measure that all evaluations have, a row for every language and their average:
        ``language``, ``measure``, what ``paired_bootstrap`` returns, and ``p_holm``, corrected
        within the measure over the languages (the average has none).  Measures of a task:
        ``ranking``, ``accuracy``, ``accuracy_batch``, ``accuracy_contextual``, as shares.

        Of translations a row for every ``direction``.  Measures: ``from_the_source`` and what it
        is the difference of, ``reference`` and ``fluency``, in nats a token, and ``chrf``, from 0
        to 100, by :func:`mlprune_helpers.metrics.compare_translations`: a p-value without an
        interval.

    Raises:
        ValueError: If languages, rows, labels or any setting differ, naming it and both values; or
            as :func:`summarise`.
    """
    before, after = _listed("before", before), _listed("after", after)
    if len(before) != len(after) or not before:
        raise ValueError(
            f"{len(before)} evaluations before and {len(after)} after; as many are needed, at "
            "least one."
        )
    _check_each_once("before", before)
    _check_each_once("after", after)
    after = _in_the_order_of(before, after)
    for pair in zip(before, after):
        _check_alike(*pair)
    options = {"n_resamples": n_resamples, "seed": seed}
    if _translations(before):
        _check_no_average(average_over)
        rows = _compared_translations(_translations(before), _translations(after), options)
    else:
        pairs = _of_task(before), _of_task(after)
        rows = _compared(*pairs, average_over=average_over, options=options)
    return pd.DataFrame(rows)


class StackedUnits(NamedTuple):
    """What a measure of several evaluations is the mean of; for :func:`paired_bootstrap`."""

    values: np.ndarray  # (n,)
    groups: list[str]  # (n,): joint over languages where the rows of a task are parallel
    strata: list[str]  # (n,): the evaluation, so that each of them weighs the same


def stacked_units(evaluations: Sequence[Evaluation], measure: str) -> StackedUnits:
    """The units of several evaluations, of any tasks and languages, one after the other.

    Args:
        evaluations: Of one model, none of them twice.
        measure: One of those of :func:`compare`, such as ``"ranking"``, that all of them have.

    Returns:
        Values, groups and strata.  Those of another model on the same rows have the same groups and
        strata, so that both go into :func:`paired_bootstrap`.

    Raises:
        ValueError: If there is none, or the measure is another.
    """
    if not evaluations:
        raise ValueError("evaluations is empty; needed: at least one.")
    if measure != "ranking" and measure not in CALIBRATION_OF:
        known = ", ".join(["ranking", *CALIBRATION_OF])
        raise ValueError(f"measure is {measure!r}; allowed: {known}.")
    values, groups, strata = [], [], []
    for e in evaluations:
        units = _units(e, measure)
        rows = e.task if declared_task(e.task).parallel else f"{e.task} {e.language}"
        values.append(units.values)
        groups += [f"{rows} {group}" for group in units.groups]
        strata += [f"{e.task} {e.language}"] * len(units.groups)
    return StackedUnits(np.concatenate(values).astype(float), groups, strata)


def comparison_from(table: pd.DataFrame, measure: str, where: str = "average") -> Comparison:
    """One row of what :func:`compare` returns, as the :class:`Comparison` that it came from.

    Args:
        table: From :func:`compare`.
        measure: Such as ``"ranking"`` or ``"from_the_source"``.
        where: The language, ``"average"``, or of translations the direction, such as ``"fr→en"``.

    Returns:
        It can be told in words: see :meth:`Comparison.text` and :func:`judged`.

    Raises:
        ValueError: The table has no such row.
    """
    place = "direction" if "direction" in table.columns else "language"
    rows = table[(table["measure"] == measure) & (table[place] == where)]
    if len(rows) != 1:
        raise ValueError(
            f"There is no row of measure {measure!r} in {where!r}; measures: "
            f"{', '.join(pd.unique(table['measure']))}; rows: {', '.join(pd.unique(table[place]))}."
        )
    row = rows.iloc[0]
    return Comparison(**{field.name: row[field.name] for field in fields(Comparison)})


# -- tasks -----------------------------------------------------------------------------------------


def _row(evaluations: Sequence[Evaluation], measures: Sequence[str]) -> dict[str, Any]:
    """The figures of one language, or of several together."""
    _, groups, _ = stacked_units(evaluations, "accuracy")
    row: dict[str, Any] = {"n": len(groups), "n_groups": len(set(groups))}
    for measure in measures:
        row[measure] = _mean(evaluations, measure)
        if measure in ("ranking", "accuracy"):
            row[f"{measure}_low"], row[f"{measure}_high"] = _interval(evaluations, measure)
        if measure == "accuracy":
            row["majority"] = np.mean([_majority(e) for e in evaluations])
    row["macro_f1"] = np.mean([e.macro_f1 for e in evaluations])
    for name in evaluations[0].label_names:
        row[f"share_{name}"] = np.mean([e.label_distribution[name] for e in evaluations])
    row["n_cut"] = sum(int((e.n_cut.max(axis=1) > 0).sum()) for e in evaluations)
    return row


def _compared(
    before: Sequence[Evaluation],
    after: Sequence[Evaluation],
    *,
    average_over: Sequence[str] | None,
    options: dict[str, Any],
) -> list[dict[str, Any]]:
    """For each measure a row for every language, and for their average."""
    table = []
    parts = list(zip(_parts(before, average_over), _parts(after, average_over)))
    for measure in _measures([*before, *after]):
        rows: list[dict[str, Any]] = []
        for (language, one), (_, other) in parts:
            values_before, groups, strata = stacked_units(one, measure)
            values_after, _, _ = stacked_units(other, measure)
            comparison = metrics.paired_bootstrap(
                values_before, values_after, groups=groups, strata=strata, **options
            )
            rows.append({"language": language, "measure": measure, **vars(comparison)})
        _correct(rows[: len(before)])
        table += rows
    return table


def _parts(
    evaluations: Sequence[Evaluation], average_over: Sequence[str] | None
) -> list[tuple[str, Sequence[Evaluation]]]:
    """Every language by itself, then those of the average together if there are any."""
    if isinstance(average_over, str):
        raise TypeError(f"average_over is the text {average_over!r}; a list of codes is needed.")
    languages = [e.language for e in evaluations]
    if average_over is None:
        average_over = [language for language in languages if language != "en"]
    for language in average_over:
        if language not in languages:
            raise ValueError(
                f"average_over has {language!r}; the evaluations are in {', '.join(languages)}."
            )
    parts: list[tuple[str, Sequence[Evaluation]]] = [(e.language, [e]) for e in evaluations]
    averaged = [e for e in evaluations if e.language in average_over]
    return [*parts, ("average", averaged)] if averaged else parts


def _units(e: Evaluation, measure: str) -> RankingUnits:
    """What a measure is the mean of: whether each row is right, or what a ranking rests on."""
    if measure == "ranking":
        return e.ranking_units
    return RankingUnits(e.predict(CALIBRATION_OF[measure]) == e.labels, e.groups)


def _mean(evaluations: Sequence[Evaluation], measure: str) -> float:
    return float(np.mean([_units(e, measure).values.mean() for e in evaluations]))


def _interval(evaluations: Sequence[Evaluation], measure: str) -> tuple[float, float]:
    """Of a share: no less than 0 and no more than 1, also where few groups tell nothing."""
    values, groups, strata = stacked_units(evaluations, measure)
    low, high = metrics.bootstrap_interval(values, groups=groups, strata=strata)
    return max(low, 0.0), min(high, 1.0)


def _majority(e: Evaluation) -> float:
    """Accuracy of giving every row the commonest label."""
    return float(np.bincount(e.labels).max() / len(e.labels))


def _measures(evaluations: Sequence[Evaluation]) -> list[str]:
    """Those that all evaluations have."""
    measures = ["ranking"] if all(map(_has_ranking, evaluations)) else []
    measures += ["accuracy", "accuracy_batch"]
    if all(e.content_free is not None for e in evaluations):
        measures.append("accuracy_contextual")
    return measures


def _has_ranking(e: Evaluation) -> bool:
    try:
        return len(e.ranking_units.values) > 0
    except NothingToRank:
        return False


def _correct(rows: list[dict[str, Any]]) -> None:
    """Add Holm's corrected p-values to rows of one measure."""
    for row, p in zip(rows, metrics.holm([row["p_value"] for row in rows])):
        row["p_holm"] = p


# -- translations ----------------------------------------------------------------------------------


def _translation_row(e: TranslationEvaluation) -> dict[str, Any]:
    """The figures of one direction."""
    nats = e.nats
    quality = {} if e.hypotheses is None else e.quality
    return {
        "direction": e.direction,
        "n": nats.n,
        "n_groups": nats.n_groups,
        "from_the_source": nats.difference,
        "from_the_source_low": nats.low,
        "from_the_source_high": nats.high,
        "translates": e.translates,
        "reference": e.reference.mean(),
        "fluency": e.fluency.mean(),
        **{name: quality.get(name, np.nan) for name in ("chrf", "chrf_floor", "bleu")},
    }


def _compared_translations(
    before: Sequence[TranslationEvaluation],
    after: Sequence[TranslationEvaluation],
    options: dict[str, Any],
) -> list[dict[str, Any]]:
    """For each measure a row for every direction."""
    table = []
    for measure in IN_NATS:
        rows = []
        for one, other in zip(before, after):
            comparison = metrics.paired_bootstrap(
                getattr(one, measure), getattr(other, measure), groups=one.groups, **options
            )
            rows.append({"direction": one.direction, "measure": measure, **vars(comparison)})
        _correct(rows)
        table += rows
    if all(e.hypotheses is not None for e in [*before, *after]):
        rows = [_compared_by_chrf(*pair, options) for pair in zip(before, after)]
        _correct(rows)
        table += rows
    return table


def _compared_by_chrf(
    before: TranslationEvaluation, after: TranslationEvaluation, options: dict[str, Any]
) -> dict[str, Any]:
    """The difference in chrF++ and its p-value; sentences are the units."""
    assert before.hypotheses is not None and after.hypotheses is not None
    table = metrics.compare_translations(
        before.hypotheses, after.hypotheses, before.references, before.target, **options
    )
    chrf = table.set_index("metric").loc["chrf"]
    return {
        "direction": before.direction,
        "measure": "chrf",
        "difference": chrf["after"] - chrf["before"],
        "low": np.nan,
        "high": np.nan,
        "p_value": chrf["p_value"],
        "n": len(before.references),
        "n_groups": len(before.references),
    }


# -- checks ----------------------------------------------------------------------------------------


def _listed(name: str, evaluations: Sequence[Either]) -> list[Either]:
    """A list of evaluations of one kind."""
    kinds = (Evaluation, TranslationEvaluation)
    if isinstance(evaluations, kinds):
        kind = type(evaluations).__name__
        raise TypeError(f"{name} is one {kind}; a list of them is needed: put it into a list.")
    listed = list(evaluations)
    for e in listed:
        if not isinstance(e, kinds):
            raise TypeError(
                f"{name} has a {type(e).__name__}; allowed: Evaluations, or TranslationEvaluations."
            )
        if type(e) is not type(listed[0]):
            raise TypeError(
                f"{name} has evaluations of a task and of translations; needed: one kind at a time."
            )
    return listed


def _of_task(evaluations: Sequence[Either]) -> list[Evaluation]:
    return [e for e in evaluations if isinstance(e, Evaluation)]


def _translations(evaluations: Sequence[Either]) -> list[TranslationEvaluation]:
    return [e for e in evaluations if isinstance(e, TranslationEvaluation)]


def _check_each_once(name: str, evaluations: Sequence[Either]) -> None:
    """Whether these are of one task, each in another language; or each of another direction."""
    if not evaluations:
        raise ValueError(f"{name} is empty; needed: at least one evaluation.")
    tasks = list(dict.fromkeys(e.task for e in _of_task(evaluations)))
    if len(tasks) > 1:
        raise ValueError(
            f"{name} are of the tasks {', '.join(tasks)}, whose labels and rows are not the same: "
            "one task at a time."
        )
    keys = [_key(e) for e in evaluations]
    twice = [key for key in dict.fromkeys(keys) if keys.count(key) > 1]
    if twice:
        kind = _kind(evaluations[0])
        raise ValueError(f"{name} has {twice[0]!r} more than once: an evaluation a {kind}.")


def _check_no_average(average_over: object) -> None:
    if average_over is not None:
        raise ValueError(
            f"average_over is {average_over!r}, but translations have no average: leave it out."
        )


def _key(e: Either) -> str:
    return e.language if isinstance(e, Evaluation) else e.direction


def _kind(e: Either) -> str:
    return "language" if isinstance(e, Evaluation) else "direction"


def _in_the_order_of(before: Sequence[Either], after: Sequence[Either]) -> list[Either]:
    places = {_key(e): e for e in after}
    keys = [_key(e) for e in before]
    if set(keys) != set(places):
        kind = _kind(before[0])
        raise ValueError(
            f"{kind} differs before and after: {', '.join(keys)} and {', '.join(places)}. "
            f"Evaluate the same {kind}s."
        )
    return [places[key] for key in keys]


def _check_alike(before: Either, after: Either) -> None:
    """Whether two runs differ in nothing but the model."""
    free = list(FREE)
    if any(isinstance(e, TranslationEvaluation) and e.hypotheses is None for e in (before, after)):
        free.append("max_new_tokens")  # outputs are not compared where one has none
    one, other = _compared_by(before, free), _compared_by(after, free)
    what = (
        f"{before.task} in {before.language!r}" if isinstance(before, Evaluation) else _key(before)
    )
    for name in [*one, *(name for name in other if name not in one)]:
        x, y = one.get(name, NOT_RECORDED), other.get(name, NOT_RECORDED)
        if x != y:
            raise ValueError(
                f"{what}: {name} differs before and after: {_first_difference(x, y)}. Evaluate the "
                "same rows in the same way."
            )


def _compared_by(e: Either, free: Sequence[str]) -> dict[str, Any]:
    """All that must be the same of two runs that are compared."""
    compared: dict[str, Any]
    if isinstance(e, Evaluation):
        compared = {
            "task": e.task,
            "rows": e.rows,
            "labels": e.labels.tolist(),
            "groups": e.groups,
        }
    else:
        compared = {"references": e.references, "groups": e.groups}
    for name, value in e.settings.items():
        if name not in free:
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
