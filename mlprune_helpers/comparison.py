"""Several evaluations in one table, and several against several."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from . import metrics
from .data.tasks import TASKS
from .evaluation import CALIBRATIONS, Evaluation


def summarise(evaluations: Sequence[Evaluation]) -> pd.DataFrame:
    """One row a language, and their average, whose interval resamples groups in all languages at once."""
    table = []
    for language, part in _parts(evaluations):
        correct, groups, strata = _stacked(part, "raw")
        low, high = metrics.bootstrap_interval(correct, groups=groups, strata=strata)
        row = {"language": language, "n": len(correct), "n_groups": len(set(groups))}
        row |= {"accuracy": np.mean([e.accuracy for e in part]), "low": low, "high": high}
        for kind in CALIBRATIONS[1 : 2 + all(e.content_free is not None for e in evaluations)]:
            row[f"accuracy_{kind}"] = np.mean(
                [metrics.accuracy(e.predict(kind), e.labels) for e in part]
            )
        row["macro_f1"] = np.mean([e.macro_f1 for e in part])
        row |= {
            f"share_{x}": np.mean([e.label_distribution[x] for e in part])
            for x in part[0].label_distribution
        }
        table.append(row | {"n_cut": sum(int((e.n_cut.max(axis=1) > 0).sum()) for e in part)})
    return pd.DataFrame(table)


def compare(
    before: Sequence[Evaluation],
    after: Sequence[Evaluation],
    *,
    n_resamples: int = 10_000,
    seed: int = 0,
) -> pd.DataFrame:
    """Accuracy after minus before, the same rows: a row for every language and their average, raw and calibrated.

    Whole groups are resampled, in all languages at once; calibration is taken as given; ``p_holm`` corrects over the
    languages.  Raises ValueError where rows or settings differ.
    """
    if len(before) != len(after) or not before:
        raise ValueError(
            f"{len(before)} evaluations before and {len(after)} after; as many are needed, at least one."
        )
    for pair in zip(before, after):
        x, y = (
            {"task": e.task, "language": e.language, "rows": e.rows, **e.settings} for e in pair
        )
        for name in x.keys() - {"model", "fingerprint"}:
            if x[name] != y.get(name):
                raise ValueError(
                    f"{x['task']} in {x['language']!r}: {name} differs before and after. Evaluate the same rows in the same way."
                )
    table = []
    for kind in CALIBRATIONS[: 2 + all(e.content_free is not None for e in (*before, *after))]:
        results = []
        for (language, a), (_, b) in zip(_parts(before), _parts(after)):
            (x, groups, strata), (y, _, _) = _stacked(a, kind), _stacked(b, kind)
            comparison = metrics.paired_bootstrap(
                x, y, groups=groups, strata=strata, n_resamples=n_resamples, seed=seed
            )
            results.append({"language": language, "calibration": kind, **vars(comparison)})
        for row, p in zip(
            results, metrics.holm([row["p_value"] for row in results[: len(before)]])
        ):
            row["p_holm"] = p
        table += results
    return pd.DataFrame(table)


def _parts(evaluations: Sequence[Evaluation]) -> list[tuple[str, Sequence[Evaluation]]]:
    """Every language by itself, then all of them."""
    return [(e.language, [e]) for e in evaluations] + [("average", evaluations)] * (
        len(evaluations) > 1
    )


def _stacked(
    evaluations: Sequence[Evaluation], calibration: str
) -> tuple[np.ndarray, list[str], list[str]]:
    """Whether each row is right, its group (the same across languages where rows are parallel), its language."""
    correct = np.concatenate([e.predict(calibration) == e.labels for e in evaluations])
    groups = [
        g if TASKS[e.task].parallel else f"{e.language} {g}" for e in evaluations for g in e.groups
    ]
    return correct, groups, [e.language for e in evaluations for _ in e.groups]
