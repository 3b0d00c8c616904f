import numpy as np
import pytest
from conftest import LANGUAGES

import mlprune_helpers as mh


def made(language, correct, task="xnli", groups=None, **settings):
    """An evaluation whose raw predictions are right where ``correct`` says so."""
    labels = np.arange(len(correct)) % 2
    scores = np.zeros((len(correct), 2 if task == "marc" else 3))
    scores[np.arange(len(correct)), np.where(correct, labels, 1 - labels)] = 1.0
    rows = [str(i) for i in range(len(correct))]
    groups = groups or [str(i // 3) for i in range(len(correct))]
    settings = {"reduction": "mean", "seed": 0, "model": "m", "fingerprint": "f", **settings}
    ones = np.ones_like(scores, dtype=int)
    return mh.Evaluation(
        task, language, scores, labels, rows, groups, settings, n_tokens=ones, n_cut=0 * ones
    )


def test_summary_by_hand(rng):
    correct = {
        language: rng.random(60) < share for language, share in zip(LANGUAGES, (0.9, 0.5, 0.4))
    }
    evaluations = [made(language, c) for language, c in correct.items()]
    table = mh.summarise(evaluations).set_index("language")
    assert list(table.index) == [*LANGUAGES, "average"]
    for e in evaluations:
        assert table.loc[e.language, "accuracy"] == correct[e.language].mean() == e.accuracy
        assert tuple(table.loc[e.language, ["low", "high"]]) == mh.bootstrap_interval(
            e.correct, groups=e.groups
        )
        assert table.loc[e.language, "accuracy_batch"] == e.calibrated.mean()
    assert table.loc["average", "accuracy"] == pytest.approx(
        np.mean([c.mean() for c in correct.values()])
    )
    # A premise is drawn in all languages at once: the interval of the premises' means over them.
    joint = mh.bootstrap_interval(
        np.mean(list(correct.values()), axis=0), groups=evaluations[0].groups
    )
    assert tuple(table.loc["average", ["low", "high"]]) == pytest.approx(joint)
    assert table.loc["average", "n"] == 180 and table.loc["average", "n_groups"] == 20
    assert table.loc["en", "share_neutral"] == pytest.approx(
        (evaluations[0].predictions == 1).mean()
    )


def test_comparison_by_hand(rng):
    before = [made(language, rng.random(90) < 0.4) for language in LANGUAGES]
    after = [
        made(language, e.correct | (rng.random(90) < gain))
        for language, e, gain in zip(LANGUAGES, before, (0.4, 0.05, 0))
    ]
    table = mh.compare(before, after, n_resamples=2000)
    assert set(table["calibration"]) == {"raw", "batch"}
    raw = table[table["calibration"] == "raw"].set_index("language")
    for a, b in zip(before, after):
        alone = mh.paired_bootstrap(a.correct, b.correct, groups=a.groups, n_resamples=2000)
        assert raw.loc[a.language, "difference"] == pytest.approx(b.accuracy - a.accuracy)
        assert tuple(raw.loc[a.language, ["low", "high", "p_value"]]) == (
            alone.low,
            alone.high,
            alone.p_value,
        )
    assert (
        raw.loc[list(LANGUAGES), "p_holm"].tolist()
        == mh.holm(raw.loc[list(LANGUAGES), "p_value"]).tolist()
    )
    assert np.isnan(raw.loc["average", "p_holm"])
    together = mh.paired_bootstrap(
        np.mean([e.correct for e in before], axis=0),
        np.mean([e.correct for e in after], axis=0),
        groups=before[0].groups,
        n_resamples=2000,
    )
    assert tuple(raw.loc["average", ["difference", "low", "high", "p_value"]]) == pytest.approx(
        (together.difference, together.low, together.high, together.p_value)
    )
    batch = table[table["calibration"] == "batch"].set_index("language")
    assert batch.loc["en", "difference"] == pytest.approx(
        after[0].calibrated.mean() - before[0].calibrated.mean()
    )


def test_rows_of_a_task_that_is_not_parallel_are_not_joined(rng):
    before, after = (
        [made(language, rng.random(40) < p, task="marc") for language in ("en", "fr")]
        for p in (0.4, 0.6)
    )
    table = mh.compare(before, after, n_resamples=200)
    assert table.loc[table["language"] == "average", "n_groups"].tolist() == [28, 28]
    with pytest.raises(ValueError, match=r"marc.*no parallel rows.*Parallel tasks: nli"):
        before[0].rank_consistency(before[1])


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (dict(language="fr"), "language differs"),
        (dict(seed=1), "seed differs"),
        (dict(reduction="sum"), "reduction differs"),
        (dict(correct=[True] * 5), "rows differs"),
    ],
)
def test_only_like_is_compared(other, named):
    first = {"language": "en", "correct": [True] * 6}
    with pytest.raises(ValueError, match=named):
        mh.compare([made(**first)], [made(**first | other)])
    assert (
        len(
            mh.compare([made(**first)], [made(**first, model="n", fingerprint="g")], n_resamples=10)
        )
        == 2
    )
    with pytest.raises(ValueError, match="1 evaluations before and 0 after"):
        mh.compare([made(**first)], [])
