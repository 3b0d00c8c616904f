import copy
import dataclasses
import shutil

import numpy as np
import pandas as pd
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


# -- only like is compared -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "other"),
    [
        ("max_length", None, 20),
        ("truncation", "left", "error"),
        ("span", "full", "continuation"),
        ("reduction", "mean", "sum"),
        ("template", "paper", "native"),
        ("template_content", {"prompt": "{text}"}, {"prompt": "{text} ?"}),
        ("shots", 0, 1),
        ("seed", 0, 1),
        ("split", None, "test"),
        ("source", "builtin", "hub"),
        ("limit", 6, None),
        ("contextual", True, False),
        ("examples", "a1", "b2"),
        ("a setting of tomorrow", 1, 2),
    ],
)
def test_a_setting_that_differs_is_named_with_both_values(name, value, other):
    one, two = made("en", [True] * 6, **{name: value}), made("en", [True] * 6, **{name: other})
    with pytest.raises(ValueError) as error:
        mh.compare([one], [two])
    assert f"{name} differs before and after: {value!r} and {other!r}" in str(error.value)
    with pytest.raises(ValueError, match=f"{name} differs .*not recorded"):
        missing = dict(one.settings)
        del missing[name]
        mh.compare([dataclasses.replace(one, settings=missing)], [two])


@pytest.mark.parametrize("name", ["token_budget", "logit_budget", "model", "fingerprint"])
def test_what_may_differ(name):
    one, two = made("en", [True] * 6, **{name: 1}), made("en", [True] * 6, **{name: 2})
    assert mh.compare([one], [two], n_resamples=10)["difference"].tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    "options",
    [
        {"max_length": 20},
        {"span": "continuation"},
        {"shots": 1},
        {"template": {"prompt": "{premise} , or?", "choices": [" A", " B", " C"]}},
        {"contextual": False},
        {"split": "validation"},
    ],
)
def test_runs_that_were_asked_otherwise_are_not_compared(one_lm, folder, options):
    # Whether there are content-free scores depends on other settings, unless it is said.
    said = {"contextual": True}
    plain = mh.evaluate(one_lm, "xnli", "en", folder, **said)
    other = mh.evaluate(one_lm, "xnli", "en", folder, **said | options)
    (name,) = options
    with pytest.raises(ValueError, match=f"{name} differs before and after"):
        mh.compare([plain], [other])


def test_a_template_that_was_edited_is_another(one_lm, folder, monkeypatch):
    before = mh.evaluate(one_lm, "xnli", "en", folder)
    edited = copy.deepcopy(mh.TASKS["xnli"].templates)
    edited["paper"]["prompt"] = "{premise} , yes?"
    monkeypatch.setitem(mh.TASKS, "xnli", dataclasses.replace(mh.TASKS["xnli"], templates=edited))
    after = mh.evaluate(one_lm, "xnli", "en", folder)
    with pytest.raises(ValueError, match="template_content differs.*right.*yes"):
        mh.compare([before], [after])


def test_texts_count_and_not_the_folder_they_lie_in(one_lm, folder, tmp_path):
    plain = mh.evaluate(one_lm, "xnli", "en", folder)
    shutil.copytree(folder, tmp_path / "moved")
    moved = mh.evaluate(one_lm, "xnli", "en", tmp_path / "moved")
    assert mh.compare([plain], [moved], n_resamples=10)["difference"].eq(0).all()
    file = tmp_path / "moved" / "xnli" / "validation.en.jsonl"
    file.write_text(file.read_text(encoding="utf-8").replace("river", "lake"), encoding="utf-8")
    other = mh.evaluate(one_lm, "xnli", "en", tmp_path / "moved")
    assert other.rows == plain.rows
    with pytest.raises(ValueError, match="examples differs"):
        mh.compare([plain], [other])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"rows": list("abcdeX")}, "rows differs before and after: '5' and 'X' at row 5"),
        ({"labels": np.array([0, 1, 0, 1, 0, 0])}, "labels differs .*: 1 and 0 at row 5"),
        ({"groups": list("001112")}, "groups differs .*: '0' and '1' at row 2"),
    ],
)
def test_rows_that_differ_are_named(change, named):
    one = made("en", [True] * 6)
    if "rows" in change:
        change = {"rows": [*one.rows[:5], "X"]}
    if "groups" in change:
        change = {"groups": ["0", "0", "1", "1", "1", "1"]}
    with pytest.raises(ValueError, match=named):
        mh.compare([one], [dataclasses.replace(one, **change)])


def test_languages_may_stand_in_another_order(rng):
    before = [made(language, rng.random(30) < 0.4) for language in LANGUAGES]
    after = [made(language, rng.random(30) < 0.6) for language in LANGUAGES]
    table = mh.compare(before, after, n_resamples=50)
    assert table.equals(mh.compare(before, after[::-1], n_resamples=50))
    with pytest.raises(ValueError, match="language differs before and after: en, fr and en, sw"):
        mh.compare(before[:2], [after[0], after[2]])


@pytest.mark.parametrize(
    ("wrong", "error", "named"),
    [
        ([], ValueError, "empty|at least one"),
        ([made("en", [True] * 3), made("en", [True] * 3)], ValueError, "'en' more than once"),
        (
            [made("en", [True] * 3), made("fr", [True] * 3, task="marc")],
            ValueError,
            "tasks xnli, marc",
        ),
        (made("en", [True] * 3), TypeError, "list"),
        ([pd.DataFrame()], TypeError, "DataFrame"),
        ("en", TypeError, "str"),
    ],
)
def test_what_is_no_list_of_evaluations_of_one_task_is_refused(wrong, error, named):
    with pytest.raises(error, match=named):
        mh.summarise(wrong)
    with pytest.raises(error, match=named):
        mh.compare(wrong, wrong)


def test_where_no_prediction_changed_nothing_did(rng):
    same = [made(language, rng.random(30) < 0.5) for language in LANGUAGES]
    table = mh.compare(same, same, n_resamples=100)
    assert table[["difference", "low", "high"]].eq(0).all(axis=None)
    assert table["p_value"].eq(1).all() and table["p_holm"].dropna().eq(1).all()


def test_contextual_calibration_where_all_have_it():
    one = made("en", [True, False] * 3)
    prior = np.zeros((3, 6, 3))
    prior[..., 0] = 5.0
    calibrated = dataclasses.replace(one, content_free=prior)
    expected = mh.contextual_calibrated(one.scores, prior).argmax(axis=1) == one.labels
    assert list(mh.summarise([calibrated])["accuracy_contextual"]) == [expected.mean()]
    assert "accuracy_contextual" not in mh.summarise([calibrated, made("fr", [True] * 6)])
    table = mh.compare([one], [calibrated], n_resamples=10)
    assert list(table["calibration"]) == ["raw", "batch"]
    table = mh.compare([calibrated], [calibrated], n_resamples=10)
    assert list(table["calibration"]) == ["raw", "batch", "contextual"]


@pytest.mark.parametrize(("n_before", "n_after"), [(1, 0), (0, 1), (0, 0), (1, 2)])
def test_as_many_are_compared_and_at_least_one(n_before, n_after):
    some = [made("en", [True] * 3), made("fr", [True] * 3)]
    with pytest.raises(ValueError, match=f"{n_before} evaluations before and {n_after} after"):
        mh.compare(some[:n_before], some[:n_after])


def test_the_cause_is_named_and_not_what_follows_from_it(one_lm, folder):
    """Shots make each row's question without content its own, so that none is asked by default."""
    plain, other = (mh.evaluate(one_lm, "xnli", "en", folder, shots=n) for n in (0, 1))
    assert plain.settings["contextual"] and not other.settings["contextual"]
    with pytest.raises(ValueError, match="shots differs before and after: 0 and 1"):
        mh.compare([plain], [other])
