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
    n_labels = len(mh.TASKS[task].labels)
    labels = np.arange(len(correct)) % n_labels
    scores = np.zeros((len(correct), n_labels))
    scores[np.arange(len(correct)), np.where(correct, labels, (labels + 1) % n_labels)] = 1.0
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
    assert list(table.columns)[:8] == [
        *("n", "n_groups", "ranking", "ranking_low", "ranking_high"),
        *("accuracy", "accuracy_low", "accuracy_high"),
    ]
    for e in evaluations:
        assert table.loc[e.language, "accuracy"] == correct[e.language].mean() == e.accuracy
        limits = mh.bootstrap_interval(e.correct, groups=e.groups)
        assert tuple(table.loc[e.language, ["accuracy_low", "accuracy_high"]]) == limits
        assert table.loc[e.language, "accuracy_batch"] == e.calibrated.mean()
    outside = [correct[language] for language in LANGUAGES if language != "en"]
    assert table.loc["average", "accuracy"] == pytest.approx(np.mean([c.mean() for c in outside]))
    # A premise is drawn in all languages at once: the interval of the premises' means over them.
    joint = mh.bootstrap_interval(np.mean(outside, axis=0), groups=evaluations[0].groups)
    limits = table.loc["average", ["accuracy_low", "accuracy_high"]]
    assert tuple(limits) == pytest.approx(joint)
    assert table.loc["average", "n"] == 120 and table.loc["average", "n_groups"] == 20
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
    assert list(dict.fromkeys(table["measure"])) == ["ranking", "accuracy", "accuracy_batch"]
    raw = table[table["measure"] == "accuracy"].set_index("language")
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
        np.mean([e.correct for e in before[1:]], axis=0),
        np.mean([e.correct for e in after[1:]], axis=0),
        groups=before[0].groups,
        n_resamples=2000,
    )
    assert tuple(raw.loc["average", ["difference", "low", "high", "p_value"]]) == pytest.approx(
        (together.difference, together.low, together.high, together.p_value)
    )
    batch = table[table["measure"] == "accuracy_batch"].set_index("language")
    assert batch.loc["en", "difference"] == pytest.approx(
        after[0].calibrated.mean() - before[0].calibrated.mean()
    )


def test_rows_of_a_task_that_is_not_parallel_are_not_joined(rng):
    before, after = (
        [made(language, rng.random(40) < p, task="marc") for language in ("en", "fr")]
        for p in (0.4, 0.6)
    )
    table = mh.compare(before, after, average_over=["en", "fr"], n_resamples=200)
    # The last group has one row, and so nothing to rank.
    assert table.loc[table["language"] == "average", "n_groups"].tolist() == [26, 28, 28]
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
        == 3
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
    assert mh.compare([one], [two], n_resamples=10)["difference"].tolist() == [0.0] * 3


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
        ({"labels": np.array([0, 1, 2, 0, 1, 0])}, "labels differs .*: 2 and 0 at row 5"),
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
    assert table[["difference", "n_better", "n_worse"]].eq(0).all(axis=None)
    assert table["low"].eq(-np.inf).all() and table["high"].eq(np.inf).all()  # it tells no more
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
    assert list(table["measure"]) == ["ranking", "accuracy", "accuracy_batch"]
    table = mh.compare([calibrated], [calibrated], n_resamples=10)
    assert list(table["measure"]) == [
        "ranking",
        "accuracy",
        "accuracy_batch",
        "accuracy_contextual",
    ]


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


# -- ranking, and what the average is over ---------------------------------------------------------


def noisy(language, rng, task="xnli", groups=None):
    """Noise with a little skill; in each group of three rows every label of NLI stands once."""
    one = made(language, [True] * 60, task, groups)
    return dataclasses.replace(one, scores=one.scores + rng.normal(size=one.scores.shape))


def test_ranking_in_both_tables_by_hand(rng):
    before, after = ([noisy(language, rng) for language in LANGUAGES] for _ in range(2))
    table = mh.summarise(before).set_index("language")
    changes = mh.compare(before, after, n_resamples=500)
    changes = changes[changes["measure"] == "ranking"].set_index("language")
    for one, other in zip(before, after):
        margins = one.scores[:, 0] - one.scores[:, 2]
        right = (margins[0::3] > margins[2::3]).astype(float)
        limits = mh.bootstrap_interval(right)
        row = table.loc[one.language]
        assert row["ranking"] == right.mean() and 0.5 < right.mean() < 1
        assert (row["ranking_low"], row["ranking_high"]) == limits
        margins = other.scores[:, 0] - other.scores[:, 2]
        right_after = (margins[0::3] > margins[2::3]).astype(float)
        comparison = mh.paired_bootstrap(right, right_after, n_resamples=500)
        for name, value in vars(comparison).items():
            if name != "n":
                assert changes.loc[one.language, name] == value
    p_values = changes.loc[list(LANGUAGES), "p_value"]
    assert changes.loc[list(LANGUAGES), "p_holm"].tolist() == mh.holm(p_values).tolist()
    outside = [e.ranking for e in before if e.language != "en"]
    assert table.loc["average", "ranking"] == pytest.approx(np.mean(outside))
    assert changes.loc["average", "n_groups"] == 20  # premises, joint over the languages


def test_ranking_across_rows_in_several_languages(rng):
    """The same examples in both languages are one unit, and each language weighs the same."""
    groups = [str(row) for row in range(60)]
    before, after = (
        [noisy(language, rng, "reviews", groups) for language in ("fr", "sw")] for _ in range(2)
    )
    table = mh.compare(before, after, n_resamples=500)
    table = table[table["measure"] == "ranking"].set_index("language")
    changes = [b.ranking_units.values - a.ranking_units.values for a, b in zip(before, after)]
    together = mh.paired_bootstrap(np.zeros(60), np.mean(changes, axis=0), n_resamples=500)
    for name in ("difference", "low", "high", "p_value", "n_groups"):
        assert table.loc["average", name] == pytest.approx(getattr(together, name))
    rankings = [after[k].ranking - before[k].ranking for k in range(2)]
    assert table.loc["average", "difference"] == pytest.approx(np.mean(rankings))


def test_the_average_leaves_english_out_unless_asked(rng):
    evaluations = [noisy(language, rng) for language in LANGUAGES]
    accuracies = {e.language: e.accuracy for e in evaluations}
    for languages in (None, ["fr", "sw"], ["sw"], ["en", "sw"], ("sw", "fr", "en")):
        averaged = languages or ["fr", "sw"]
        expected = np.mean([accuracies[language] for language in averaged])
        table = mh.summarise(evaluations, average_over=languages).set_index("language")
        assert table.loc["average", "accuracy"] == pytest.approx(expected)
        changes = mh.compare(evaluations, evaluations, average_over=languages, n_resamples=10)
        of_average = changes[changes["language"] == "average"]
        assert of_average["n"].tolist()[1] == 60 * len(averaged)
    for table in (
        mh.summarise(evaluations[:1]),
        mh.compare(evaluations[:1], evaluations[:1], n_resamples=10),
        mh.summarise(evaluations, average_over=[]),
    ):
        assert "average" not in set(table["language"])
    assert set(mh.summarise(evaluations[1:2])["language"]) == {"fr", "average"}


@pytest.mark.parametrize(
    ("wrong", "error", "named"),
    [
        (["de"], ValueError, "average_over has 'de'; the evaluations are in en, fr, sw"),
        (["fr", "zz"], ValueError, "'zz'"),
        ("fr", TypeError, "average_over is the text 'fr'"),
    ],
)
def test_an_average_over_what_is_not_there_is_refused(rng, wrong, error, named):
    evaluations = [noisy(language, rng) for language in LANGUAGES]
    with pytest.raises(error, match=named):
        mh.summarise(evaluations, average_over=wrong)
    with pytest.raises(error, match=named):
        mh.compare(evaluations, evaluations, average_over=wrong)


def test_majority_is_the_accuracy_of_the_commonest_label():
    one = dataclasses.replace(made("fr", [True] * 6), labels=np.array([1, 1, 0, 1, 2, 0]))
    assert mh.summarise([one])["majority"].tolist() == [0.5, 0.5]


def test_intervals_of_shares_stay_within_0_and_1(rng):
    few = dataclasses.replace(noisy("fr", rng), groups=[str(row // 30) for row in range(60)])
    table = mh.summarise([few])
    for measure in ("ranking", "accuracy"):
        assert table[f"{measure}_low"].ge(0).all() and table[f"{measure}_high"].le(1).all()


# -- translations ----------------------------------------------------------------------------------

REFERENCES = [f"The {noun} number {k} is old." for k, noun in enumerate(["cat", "river"] * 10)]


def translated(source, rng, gain=2.0, references=REFERENCES, hypotheses=None, **settings):
    """A made-up translator into English that gains so many nats by the source."""
    n = len(references)
    fluency = rng.normal(-3, 1, size=n)
    return mh.TranslationEvaluation(
        source=source,
        target="en",
        references=references,
        hypotheses=hypotheses,
        below_own=fluency + rng.normal(gain, 0.5, size=n),
        below_wrong=fluency,
        groups=[k // 2 for k in range(n)],
        settings={"sentences": "s", "model": "m", "fingerprint": "f", **settings},
    )


def test_a_summary_of_translations_has_a_row_a_direction(rng):
    good = translated("fr", rng, hypotheses=REFERENCES, max_new_tokens=9)
    bad = translated("sw", rng, gain=0.3)
    table = mh.summarise([good, bad]).set_index("direction")
    assert list(table.index) == ["fr→en", "sw→en"]
    for e in (good, bad):
        row = table.loc[e.direction]
        gained = e.below_own - e.below_wrong
        comparison = mh.paired_bootstrap(np.zeros(20), gained, groups=e.groups)
        assert row["from_the_source"] == pytest.approx(gained.mean())
        assert row["from_the_source_low"] == pytest.approx(comparison.low)
        assert row["from_the_source_high"] == pytest.approx(comparison.high)
        assert row["reference"] == e.below_own.mean() and row["fluency"] == e.below_wrong.mean()
        assert (row["n"], row["n_groups"]) == (20, 10)
    assert table["translates"].tolist() == [True, False]
    assert table["chrf"].tolist()[0] == pytest.approx(100) and np.isnan(table["chrf"].tolist()[1])
    quality = mh.translation_quality(REFERENCES, REFERENCES, "en")
    for name in ("chrf", "chrf_floor", "bleu"):
        assert table.loc["fr→en", name] == quality[name]


def test_translations_are_compared_direction_by_direction(rng):
    wrong = REFERENCES[:10] + ["Nobody knows."] * 10
    before = [translated(s, rng, hypotheses=REFERENCES, model="a") for s in ("fr", "es")]
    after = [translated(s, rng, 1.0, hypotheses=wrong, model="b") for s in ("es", "fr")]
    table = mh.compare(before, after, n_resamples=500, seed=3)
    assert table["direction"].tolist() == ["fr→en", "es→en"] * 4
    assert table["measure"].tolist() == [
        name for name in ("from_the_source", "reference", "fluency", "chrf") for _ in range(2)
    ]
    places = table.set_index(["measure", "direction"])
    for one, other in zip(before, after[::-1]):
        for measure in ("from_the_source", "reference", "fluency"):
            row = places.loc[(measure, one.direction)]
            comparison = mh.paired_bootstrap(
                getattr(one, measure),
                getattr(other, measure),
                groups=one.groups,
                n_resamples=500,
                seed=3,
            )
            assert {name: row[name] for name in vars(comparison)} == vars(comparison)
        row = places.loc[("chrf", one.direction)]
        qualities = [mh.translation_quality(h, REFERENCES, "en") for h in (REFERENCES, wrong)]
        assert row["difference"] == pytest.approx(qualities[1]["chrf"] - qualities[0]["chrf"])
        compared = mh.compare_translations(
            REFERENCES, wrong, REFERENCES, "en", n_resamples=500, seed=3
        )
        assert row["p_value"] == compared.set_index("metric").loc["chrf", "p_value"]
        assert np.isnan(row["low"]) and np.isnan(row["high"])
    for measure in ("from_the_source", "reference", "fluency", "chrf"):
        of_measure = table[table["measure"] == measure]
        assert of_measure["p_holm"].tolist() == mh.holm(of_measure["p_value"]).tolist()


def test_chrf_is_compared_where_all_have_translations(rng):
    with_outputs = translated("fr", rng, hypotheses=REFERENCES, max_new_tokens=9)
    without = translated("fr", rng, max_new_tokens=None)
    for pair in ((with_outputs, without), (without, with_outputs), (without, without)):
        table = mh.compare(pair[:1], pair[1:], n_resamples=10)
        assert table["measure"].tolist() == ["from_the_source", "reference", "fluency"]
    longer = translated("fr", rng, hypotheses=REFERENCES, max_new_tokens=10)
    with pytest.raises(ValueError, match="max_new_tokens differs before and after: 9 and 10"):
        mh.compare([with_outputs], [longer])


def test_only_like_translations_are_compared(rng):
    one = translated("fr", rng)
    with pytest.raises(ValueError, match="fr→en: sentences differs before and after: 's' and 't'"):
        mh.compare([one], [translated("fr", rng, sentences="t")])
    with pytest.raises(ValueError, match="references differs.*at row 1"):
        others = [REFERENCES[0], "Another.", *REFERENCES[2:]]
        mh.compare([one], [translated("fr", rng, references=others)])
    with pytest.raises(ValueError, match="direction differs before and after: fr→en and es→en"):
        mh.compare([one], [translated("es", rng)])
    with pytest.raises(ValueError, match="'fr→en' more than once: an evaluation a direction"):
        mh.summarise([one, one])
    with pytest.raises(ValueError, match="translations have no average"):
        mh.summarise([one], average_over=["fr"])
    with pytest.raises(ValueError, match="translations have no average"):
        mh.compare([one], [one], average_over=["fr"])
    for mixed in ([one, made("fr", [True] * 6)], [made("fr", [True] * 6), one]):
        with pytest.raises(TypeError, match="of a task and of translations"):
            mh.summarise(mixed)
    with pytest.raises(TypeError, match="one TranslationEvaluation; a list"):
        mh.summarise(one)


def test_a_row_of_the_table_is_a_comparison_again(rng):
    before = [made(language, rng.random(60) < 0.4) for language in ("en", "fr")]
    after = [made(language, rng.random(60) < 0.6) for language in ("en", "fr")]
    table = mh.compare(before, after)
    right = [(e.predictions == e.labels).astype(float) for e in (before[1], after[1])]
    by_hand = mh.paired_bootstrap(*right, groups=before[1].groups)
    assert mh.comparison_from(table, "accuracy", "fr") == by_hand
    assert mh.comparison_from(table, "accuracy").difference == by_hand.difference
    with pytest.raises(ValueError, match="rows: en, fr, average"):
        mh.comparison_from(table, "accuracy", "sw")


def test_units_of_several_tasks_are_those_of_each(rng):
    of_task = [made(language, rng.random(30) < 0.5) for language in ("fr", "es")]
    other = made("fr", rng.random(24) < 0.5, task="marc")  # its rows are not parallel
    values, groups, strata = mh.stacked_units([*of_task, other], "accuracy")
    assert values.tolist() == np.concatenate([e.correct for e in (*of_task, other)]).tolist()
    assert groups[:30] == groups[30:60] and len(set(groups)) == 10 + 8
    assert len(set(strata)) == 3 and strata.count("marc fr") == 24
    mean_of_means = np.mean([e.accuracy for e in (*of_task, other)])
    found = mh.paired_bootstrap(np.zeros(84), values, groups=groups, strata=strata)
    assert found.difference == pytest.approx(mean_of_means)
    with pytest.raises(ValueError, match="measure is 'f1'; allowed: ranking, accuracy"):
        mh.stacked_units(of_task, "f1")
    with pytest.raises(ValueError, match="empty"):
        mh.stacked_units([], "accuracy")
