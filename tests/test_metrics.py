"""Numbers against scipy, sacrebleu, enumeration and planted truth.

Wrong input is refused by its place.
"""

import importlib.util
import itertools
import json
import math
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import sacrebleu
import scipy.stats
from sacrebleu.significance import _bootstrap_resample

import mlprune_helpers as mh
from mlprune_helpers.metrics import smallest_p_value

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("module", ["metrics", "plots"])
def test_no_torch_for_numbers_and_figures(module):
    path = importlib.util.find_spec(f"mlprune_helpers.{module}").origin
    code = f"import runpy, sys; runpy.run_path({path!r}); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# -- accuracy, F1, calibration ---------------------------------------------------------------------


def test_labels_may_be_names_and_numbers_of_any_make():
    assert mh.accuracy(["en", "fr"], ["en", "sw"]) == 0.5
    assert mh.accuracy(pd.Series([1, 0], index=[5, 3]), np.array([1.0, 0.0])) == 1
    assert mh.accuracy([True, False, Fraction(2)], (1, 1, 2)) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("predictions", "labels", "named"),
    [
        ([0, 1], [0, 1, 1], "2 predictions and 3 labels"),
        ([], [], "predictions"),
        ([1], [0, 1], "1 predictions and 2 labels"),  # numpy would repeat it
        ([[0], [1]], [0, 1], r"predictions has the shape \(2, 1\)"),
        ([0.5, 1], [0, 1], "predictions: row 0 is 0.5"),
        ([0, 1], [0, -1], "labels: row 1 is -1"),
        ([0, None], [0, 1], "predictions: row 1 is None"),
        ([0, NAN], [0, 1], "predictions: row 1 is nan"),
        (np.ma.array([0, 1], mask=[True, False]), [0, 1], "predictions: row 0 is nan"),
        (pd.Series([0, None], dtype="Int64"), [0, 1], "predictions: row 1"),
        ([0, 1], ["no", "yes"], "predictions: row 0 is 0; a text"),
        (["no", "yes"], [0, 1], "labels: row 0 is 0; a text"),
        (["no", None], ["no", "yes"], "predictions: row 1 is None"),
    ],
)
def test_labels_that_cannot_be_compared_are_refused(predictions, labels, named):
    with pytest.raises(ValueError, match=named):
        mh.accuracy(predictions, labels)
    with pytest.raises(ValueError):
        mh.macro_f1(predictions, labels, 2)


@pytest.mark.parametrize("labels", ["01", b"01", {0, 1}, {0: 1}, 1, np.array(1), (x for x in "01")])
def test_what_is_no_list_is_refused(labels):
    for call in (mh.accuracy, lambda a, b: mh.macro_f1(a, b, 2), mh.paired_bootstrap):
        with pytest.raises(TypeError, match="a list"):
            call([0, 1], labels)
    for call in (mh.holm, mh.bootstrap_interval, mh.batch_calibrated, mh.degenerate_outputs):
        with pytest.raises(TypeError, match="a list"):
            call(labels)


def test_labels_out_of_range_are_refused():
    with pytest.raises(ValueError, match="row 1 is 2; allowed: 0 to 1"):
        mh.macro_f1([0, 1], [0, 2], 2)
    for n_labels in (0, -1, 2.0, None):
        with pytest.raises(ValueError, match="n_labels is"):
            mh.macro_f1([0], [0], n_labels)


def test_macro_f1_by_hand():
    labels, predictions = [0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 0, 0]
    # label 0: TP 2, FP 2, FN 1 → 4/7;  label 1: TP 1, FP 1, FN 1 → 1/2;  label 2: TP 0 → 0
    assert mh.macro_f1(predictions, labels, 3) == pytest.approx((4 / 7 + 1 / 2 + 0) / 3)
    assert mh.macro_f1(predictions, labels, 4) == pytest.approx(
        (4 / 7 + 1 / 2) / 4
    )  # a label that never occurs
    assert mh.accuracy(predictions, labels) == 0.5


def test_batch_calibration_by_hand():
    scores = np.log([[0.6, 0.4], [0.9, 0.1], [0.7, 0.3]]) + 5  # a constant per row does not matter
    expected = np.log([[0.6, 0.4], [0.9, 0.1], [0.7, 0.3]]) - np.log([2.2 / 3, 0.8 / 3])
    np.testing.assert_allclose(mh.batch_calibrated(scores), expected)
    assert scores.argmax(1).tolist() == [0, 0, 0] and mh.batch_calibrated(scores).argmax(
        1
    ).tolist() == [1, 0, 1]


def test_contextual_calibration_by_hand():
    log_likelihoods = np.log([[0.06, 0.02], [0.3, 0.1]])
    content_free = np.log([[[0.8, 0.2]], [[0.4, 0.6]]])  # two inputs: on average 0.6 and 0.4
    expected = np.log([[0.75 / 0.6, 0.25 / 0.4]] * 2)
    np.testing.assert_allclose(mh.contextual_calibrated(log_likelihoods, content_free), expected)
    per_row = np.log([[[0.8, 0.2], [0.5, 0.5]]])
    np.testing.assert_allclose(
        mh.contextual_calibrated(log_likelihoods, per_row),
        np.log([[0.75 / 0.8, 0.25 / 0.2], [1.5, 0.5]]),
    )


@pytest.mark.parametrize("value", [NAN, INF, -INF, None, "-1.5", pd.NA, 1j])
def test_a_log_likelihood_that_is_no_number_is_named(value):
    table = [[-1.0, -2.0], [-1.0, value]]
    for call in (
        mh.batch_calibrated,
        lambda x: mh.contextual_calibrated(x, [[[0.0, 0.0]]]),
        lambda x: mh.rank_consistency(x, np.zeros((2, 2))),
        lambda x: mh.rank_consistency_least_likely_first(np.zeros((2, 2)), x),
    ):
        with pytest.raises(ValueError, match="row 1, choice 1 is"):
            call(table)
    with pytest.raises(ValueError, match="content_free: input 0, row 1, choice 1 is"):
        mh.contextual_calibrated(np.zeros((2, 2)), [table])


@pytest.mark.parametrize("shape", [(2,), (0, 2), (2, 0), (2, 2, 2)])
def test_log_likelihoods_have_a_row_and_choices(shape):
    with pytest.raises(ValueError, match="shape"):
        mh.batch_calibrated(np.zeros(shape))


@pytest.mark.parametrize("shape", [(3, 2), (1, 2), (5, 2, 2), (5, 3, 1), (0, 3, 2), (5, 4, 2)])
def test_content_free_belongs_to_the_rows(shape):
    """numpy would stretch most of these to the shape of the log-likelihoods."""
    with pytest.raises(ValueError, match="content_free has the shape"):
        mh.contextual_calibrated(np.zeros((3, 2)), np.zeros(shape))


# -- RankC -----------------------------------------------------------------------------------------

W = np.exp([3, 2, 1]) / np.exp([3, 2, 1]).sum()


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ([3, 2, 1], 1.0),
        ([3, 1, 2], W[0] + W[1] / 2 + W[2]),  # a flipped tail: 0.878
        ([2, 3, 1], 0 + W[1] + W[2]),  # a flipped head: 0.335
        ([1, 2, 3], 0 + W[1] / 2 + W[2]),
        ([1, 3, 2], 0 + W[1] / 2 + W[2]),
        ([2, 1, 3], 0 + W[1] / 2 + W[2]),
    ],
)
def test_rank_consistency_by_hand(other, expected):
    assert mh.rank_consistency([[3, 2, 1]], [other]) == pytest.approx(expected)
    assert mh.rank_consistency_least_likely_first([[3, 2, 1]], [other]) == pytest.approx(
        mh.rank_consistency([[1, 2, 3]], [[-x for x in other]])
    )


def test_the_published_order_turns_a_flipped_tail_into_a_flipped_head():
    assert mh.rank_consistency([[3, 2, 1]], [[3, 1, 2]]) == pytest.approx(0.878, abs=1e-3)
    assert mh.rank_consistency_least_likely_first([[3, 2, 1]], [[3, 1, 2]]) == pytest.approx(
        0.335, abs=1e-3
    )


@pytest.mark.parametrize(("n", "stated"), [(2, 0.634), (3, 0.475), (4, None)])
def test_rank_consistency_by_chance(n, stated, rng):
    simulated = mh.rank_consistency(rng.random((40_000, n)), rng.random((40_000, n)))
    assert mh.rank_consistency_chance(n) == pytest.approx(simulated, abs=0.006)
    assert stated is None or mh.rank_consistency_chance(n) == pytest.approx(stated, abs=1e-3)


def test_rank_consistency_per_row(rng):
    a, b = rng.random((9, 3)), rng.random((9, 3))
    rows = mh.rank_consistency(a, b, per_row=True)
    assert rows.tolist() == [mh.rank_consistency(a[i : i + 1], b[i : i + 1]) for i in range(9)]
    assert rows.mean() == pytest.approx(mh.rank_consistency(a, b))


def test_unsigned_scores_rank_as_others_do():
    scores = np.array([[0, 1, 2]], dtype=np.uint8)  # minus 0 is 0, minus 1 is 255
    assert mh.rank_consistency(scores, scores.astype(float)) == pytest.approx(1)


@pytest.mark.parametrize("n", [0, -1, 2.5, True, None])
def test_chance_needs_a_number_of_choices(n):
    with pytest.raises(ValueError, match="n_choices is"):
        mh.rank_consistency_chance(n)


@pytest.mark.parametrize(
    "shapes", [((3, 2), (4, 2)), ((3, 2), (3, 3)), ((3,), (3,)), ((0, 2),) * 2]
)
def test_rank_consistency_needs_the_same_examples(shapes):
    with pytest.raises(ValueError, match="same examples"):
        mh.rank_consistency(*(np.zeros(s) for s in shapes))


# -- intervals and p-values ------------------------------------------------------------------------


def grouped_rows(rng, n_groups, effect=0.0, size=3, languages=1, spread=1.0):
    """Differences whose groups share a part in all languages, so that rows are far from independent."""  # noqa: E501
    shared = rng.normal(0, spread, n_groups)[:, None, None] + rng.normal(
        0, 0.5, (n_groups, size, languages)
    )
    groups, _, strata = np.indices(shared.shape)
    return (effect + shared).reshape(-1), groups.reshape(-1), strata.reshape(-1)


def test_intervals_against_scipy(rng):
    values, groups, _ = grouped_rows(rng, 60)
    keep = rng.random(len(values)) < 0.7  # groups of different sizes
    values, groups = values[keep], groups[keep]
    parts = [values[groups == g] for g in np.unique(groups)]
    sums, sizes = np.array([p.sum() for p in parts]), np.array([len(p) for p in parts])
    assert len(set(sizes)) > 1
    theirs = scipy.stats.bootstrap(
        (sums, sizes),
        lambda s, n, axis: s.sum(axis) / n.sum(axis),
        paired=True,
        n_resamples=40_000,
        method="percentile",
        rng=rng,
    ).confidence_interval
    low, high = mh.bootstrap_interval(values, groups=groups, n_resamples=40_000)
    width = theirs.high - theirs.low
    assert low == pytest.approx(theirs.low, abs=0.02 * width) and high == pytest.approx(
        theirs.high, abs=0.02 * width
    )
    comparison = mh.paired_bootstrap(
        np.zeros(len(values)), values, groups=groups, n_resamples=40_000
    )
    assert (comparison.low, comparison.high) == (low, high)
    assert comparison.difference == pytest.approx(values.mean())
    assert (comparison.n, comparison.n_groups) == (len(values), len(sizes))
    plain = mh.bootstrap_interval(values, n_resamples=4000)
    assert plain[1] - plain[0] < 0.8 * width  # rows taken for independent


def test_p_value_against_scipy(rng):
    values, groups, _ = grouped_rows(rng, 10, effect=0.5)
    sums = np.bincount(groups, values)
    exact = scipy.stats.permutation_test(
        (sums,), lambda x, axis: x.mean(axis), permutation_type="samples", n_resamples=np.inf
    )
    p = mh.paired_bootstrap(
        np.zeros(len(values)), values, groups=groups, n_resamples=40_000
    ).p_value
    assert 0.02 < exact.pvalue < 0.6
    assert p == pytest.approx(exact.pvalue, abs=0.01)


def test_sides_and_order():
    better = mh.paired_bootstrap([0, 0, 0, 0, 0, 1], [1, 1, 1, 1, 1, 1])
    assert better.difference == pytest.approx(5 / 6) and better.low > 0
    worse = mh.paired_bootstrap([1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 1])
    assert worse.difference == -better.difference and worse.p_value == pytest.approx(
        better.p_value, abs=0.01
    )
    same = mh.paired_bootstrap([1, 0, 1], [1, 0, 1])
    assert (same.difference, same.low, same.high, same.p_value) == (0, 0, 0, 1)
    assert "+83.3 points" in str(better) and "6 rows in 6 groups" in str(better)


@pytest.mark.parametrize("languages", [1, 3])
def test_type_one_error_is_nominal_with_grouped_rows(rng, languages):
    """600 data sets without an effect, whose rows depend on one another within groups and across languages."""  # noqa: E501
    by_group, by_row, covered, n = 0, 0, 0, 600
    for k in range(n):
        values, groups, strata = grouped_rows(rng, 40, languages=languages)
        zeros = np.zeros(len(values))
        c = mh.paired_bootstrap(
            zeros, values, groups=groups, strata=strata, n_resamples=400, seed=k
        )
        by_group += c.p_value <= 0.05
        covered += c.low <= 0 <= c.high
        if k < 100:
            by_row += mh.paired_bootstrap(zeros, values, n_resamples=400, seed=k).p_value <= 0.05
    within = 3 * math.sqrt(0.05 * 0.95 / n)
    assert abs(by_group / n - 0.05) < within
    assert (
        abs(covered / n - 0.95) < within + 0.015
    )  # a percentile interval of 40 groups is a little narrow
    assert by_row / 100 > 0.15  # rows taken for independent: the mistake this guards against


def test_languages_weigh_alike_and_groups_are_drawn_in_all(rng):
    """Language B has fewer rows.

    The mean is of the languages' means, and a group is in or out in both.
    """
    values = np.array([1.0, 1, 0, 0, 1, 0])
    groups, strata = [0, 1, 2, 3, 0, 2], ["a"] * 4 + ["b"] * 2
    c = mh.paired_bootstrap(np.zeros(6), values, groups=groups, strata=strata, n_resamples=30_000)
    assert c.difference == pytest.approx(0.5)
    assert mh.paired_bootstrap(np.zeros(6), values, groups=groups).difference == pytest.approx(0.5)
    values[4] = 0
    c = mh.paired_bootstrap(np.zeros(6), values, groups=groups, strata=strata, n_resamples=30_000)
    assert c.difference == pytest.approx((2 / 4 + 0 / 2) / 2)
    # The same rows in two languages add nothing: the interval is that of one language.
    values, groups, _ = grouped_rows(rng, 30)
    once = mh.bootstrap_interval(values, groups=groups, n_resamples=4000)
    twice = mh.bootstrap_interval(
        np.tile(values, 2),
        groups=np.tile(groups, 2),
        strata=np.repeat(["a", "b"], len(values)),
        n_resamples=4000,
    )
    assert twice == pytest.approx(once)


def test_seeds_and_chunks(rng):
    values, groups, _ = grouped_rows(rng, 30)
    first, again, other = (
        mh.bootstrap_interval(values, groups=groups, n_resamples=2500, seed=s) for s in (1, 1, 2)
    )
    assert first == again != other


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (dict(correct_a=[1, 0], correct_b=[1]), r"\(2,\) and \(1,\)"),
        (dict(correct_a=[], correct_b=[]), r"\(0,\)"),
        (dict(correct_a=[1, 0], correct_b=[1, 1], groups=[1]), "2 values, 1 groups"),
        (dict(correct_a=[1, 0], correct_b=[1, 1], strata=["en"]), "1 strata"),
        (dict(correct_a=[1, NAN], correct_b=[1, 1]), "correct_a: row 1 is nan"),
        (dict(correct_a=[1, 0], correct_b=[None, 1]), "correct_b: row 0 is None"),
        (dict(correct_a=[1, 0], correct_b=[1, INF]), "correct_b: row 1 is inf"),
        (dict(correct_a=[1, 0], correct_b=["1", "0"]), "correct_b: row 0 is '1'"),
        (dict(correct_a=[1, 0], correct_b=[1, 1], n_resamples=0), "n_resamples is 0"),
        (dict(correct_a=[1, 0], correct_b=[1, 1], n_resamples=99.5), "n_resamples is 99.5"),
        (dict(correct_a=[1, 0], correct_b=[1, 1], seed=-1), "seed is -1"),
    ],
)
def test_wrong_input_is_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        mh.paired_bootstrap(**arguments)


@pytest.mark.parametrize("name", ["groups", "strata"])
@pytest.mark.parametrize(
    "missing", [NAN, None, pd.NA, pd.NaT, np.datetime64("NaT"), np.float32("nan"), ["q"]]
)
def test_a_row_that_belongs_nowhere_is_refused(name, missing):
    """pandas gives it the code -1, which numpy takes for the last group."""
    with pytest.raises(ValueError, match=f"{name}: row 1 is"):
        mh.paired_bootstrap([0, 1, 1], [1, 1, 1], **{name: ["p", missing, "q"]})


@pytest.mark.parametrize("names", ["pqr", {"p", "q", "r"}, {"p": 1, "q": 2, "r": 3}])
def test_names_of_groups_are_a_list(names):
    for name in ("groups", "strata"):
        with pytest.raises(TypeError, match=f"{name} is .* a list"):
            mh.paired_bootstrap([0, 1, 1], [1, 1, 1], **{name: names})


def test_groups_are_told_apart_by_value_not_by_spelling_or_identity():
    def n_groups(groups):
        return mh.paired_bootstrap([0, 1, 1], [1, 1, 1], groups=groups, n_resamples=9).n_groups

    assert n_groups([1, "1", "1"]) == 2  # numpy would make texts of all
    assert n_groups([np.array(7), np.array(7), 7.0]) == 1
    assert n_groups([("fr", 1), ("fr", 1), ("sw", 1)]) == 2
    assert n_groups(pd.Series(["p", "p", "q"], index=[9, 8, 7])) == 2


def test_p_value_against_all_sign_patterns(rng):
    for n in (1, 2, 3, 5, 7):
        values = rng.normal(0.5, 1, n)
        signs = np.array(list(itertools.product([1, -1], repeat=n)))
        exact = (np.abs(signs @ values) >= abs(values.sum()) - 1e-12).mean()
        p = mh.paired_bootstrap(np.zeros(n), values).p_value
        assert p == pytest.approx(exact, abs=0.02)
        assert p >= smallest_p_value(n, 10_000)


@pytest.mark.parametrize("n", range(1, 8))
def test_no_p_value_below_what_the_groups_allow(n):
    """All rows change alike, so the exact p-value is 2 of 2 ** n; chance must not go below."""
    for seed in range(20):
        p = mh.paired_bootstrap([0] * n, [1] * n, n_resamples=50, seed=seed).p_value
        assert p >= 2 / 2**n
    assert smallest_p_value(n, 10**6) == 2 / 2**n
    assert smallest_p_value(100, 99) == 0.01


@pytest.mark.parametrize("scale", [1e-13, 1e13])
def test_p_value_does_not_depend_on_the_unit(scale):
    values = np.array([0.3, 0.1, 0.2, -0.1, 0.4, 0.7, -0.2, 0.1])
    unit = mh.paired_bootstrap(np.zeros(8), values, n_resamples=2000).p_value
    assert mh.paired_bootstrap(np.zeros(8), scale * values, n_resamples=2000).p_value == unit


def test_degenerate_comparisons():
    same = mh.paired_bootstrap([1, 0, 1], [1, 0, 1], groups=["p"] * 3, strata=["a", "b", "a"])
    assert (same.difference, same.low, same.high, same.p_value, same.n_groups) == (0, 0, 0, 1, 1)
    one = mh.paired_bootstrap([0], [1])
    assert (one.difference, one.low, one.high, one.p_value) == (1, 1, 1, 1)


def test_text_of_a_comparison_has_no_negative_zero():
    text = str(mh.Comparison(-0.0001, -0.0004, 0.0002, 0.00009, 90, 30))
    assert text == "+0.0 points (95 % interval +0.0 to +0.0, p < 0.001, 90 rows in 30 groups)"
    assert "-12.5 to +0.0, p = 0.216" in str(mh.Comparison(-0.05, -0.125, -0.0, 0.2161, 9, 3))


@pytest.mark.parametrize("values", [[], [1, NAN], [None], ["1"], [[1], [2]], [[1], [2, 3]]])
def test_an_interval_needs_finite_numbers(values):
    with pytest.raises(ValueError, match="values"):
        mh.bootstrap_interval(values)


@pytest.mark.parametrize("p", [NAN, None, INF, -0.01, 1.01, "0.1", 5])
def test_holm_takes_p_values_only(p):
    with pytest.raises(ValueError, match="p_values: row 1 is"):
        mh.holm([0.01, p, 0.2])


def test_holm_of_no_tests_is_none():
    assert mh.holm([]).shape == (0,)


def test_holm_against_its_definition(rng):
    """Rejected at alpha are the smallest p-values up to the first above alpha / (tests left)."""
    p = rng.random(8) ** 3
    for alpha in np.linspace(0.005, 0.995, 67):
        above = np.sort(p) > alpha / np.arange(8, 0, -1)
        n_rejected = above.argmax() if above.any() else 8
        assert (mh.holm(p) <= alpha).sum() == n_rejected


def test_holm_by_hand():
    assert mh.holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert mh.holm([0.6, 0.5]).tolist() == [1, 1]


# -- translation -----------------------------------------------------------------------------------

ENGLISH = [
    "The cat sleeps on the old chair.",
    "It rained all night, so the river is high.",
    "Nobody knows who wrote this letter.",
] * 4
CLOSE = [s.replace("old", "ancient").replace("high", "deep") for s in ENGLISH]
FAR = ["The dog.", "A river it is in the night of all.", "Who wrote?"] * 4


def test_quality_equals_sacrebleu():
    quality = mh.translation_quality(CLOSE, ENGLISH, "en")
    assert quality["bleu"] == sacrebleu.corpus_bleu(CLOSE, [ENGLISH]).score
    assert quality["chrf"] == sacrebleu.corpus_chrf(CLOSE, [ENGLISH], word_order=2).score
    assert "tok:13a" in quality["bleu_signature"] and "nw:2" in quality["chrf_signature"]
    assert (
        quality["bleu_low"] <= quality["bleu_high"] and quality["chrf_low"] <= quality["chrf_high"]
    )
    wrong = ENGLISH[1:] + ENGLISH[:1]
    assert (
        quality["chrf_floor"]
        == sacrebleu.corpus_chrf(CLOSE, [wrong], word_order=2).score
        < quality["chrf"]
    )
    assert [
        mh.translation_quality(texts, ENGLISH, "en")["translates"]
        for texts in (CLOSE, wrong, [""] * 12)
    ] == [True, False, False]


@pytest.mark.parametrize(
    ("target", "tokenizer", "reference", "hypothesis"),
    [
        ("zh", "zh", "今天早上我买了两瓶牛奶。", "今天早上我买了三瓶牛奶。"),
        ("th", "char", "เมื่อคืนฝนตกทั้งคืน", "เมื่อคืนฝนตกทั้งวัน"),
        ("hi", "intl", "रात भर बारिश हुई और नदी ऊँची है।", "रात भर बारिश हुई और नदी ऊँची है"),
    ],
)
def test_bleu_finds_the_words_of_each_language(target, tokenizer, reference, hypothesis):
    quality = mh.translation_quality([hypothesis], [reference], target)
    assert f"tok:{tokenizer}" in quality["bleu_signature"]
    assert (
        quality["bleu"]
        > sacrebleu.BLEU(tokenize="13a").corpus_score([hypothesis], [[reference]]).score + 4
    )


def test_paired_significance():
    table = mh.compare_translations(FAR, CLOSE, ENGLISH, "en").set_index("metric")
    assert list(table.index) == ["bleu", "chrf"]
    assert (table["p_value"] < 0.01).all() and (table["after"] > table["before"]).all()
    assert table["after"]["bleu"] == pytest.approx(sacrebleu.corpus_bleu(CLOSE, [ENGLISH]).score)
    assert table["before"]["chrf"] == pytest.approx(
        sacrebleu.corpus_chrf(FAR, [ENGLISH], word_order=2).score
    )
    mixed = [c if i % 2 else e for i, (c, e) in enumerate(zip(CLOSE, ENGLISH))]
    other = [e if i % 2 else c for i, (c, e) in enumerate(zip(CLOSE, ENGLISH))]
    assert mh.compare_translations(mixed, other, ENGLISH, "en")["p_value"].min() > 0.05


def half(texts):
    return [text if i % 2 else "zzz" for i, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("hypotheses", "references"),
    [
        (["a b c d e", "x y"], ["a b c d e", "u v"]),
        (half(CLOSE), ENGLISH),
        ([CLOSE[0]] + [""] * 11, ENGLISH),
    ],
)
def test_quality_where_resamples_have_no_match(hypotheses, references):
    """The interval is that of sacrebleu's resamples.

    Their mean, and half of what holds 95 % of them.
    """
    quality = mh.translation_quality(hypotheses, references, "en")
    for name, metric in {"bleu": sacrebleu.BLEU(), "chrf": sacrebleu.CHRF(word_order=2)}.items():
        assert quality[name] == metric.corpus_score(hypotheses, [references]).score
        stats = metric._extract_corpus_statistics(hypotheses, [references])
        scores = [float(x.score) for x in _bootstrap_resample(stats, metric, 1000)[1]]
        ends = np.sort(scores)[[25, 974]]
        low, high = np.mean(scores) + np.array([-0.5, 0.5]) * (ends[1] - ends[0])
        expected = (max(low, 0), min(high, 100))
        assert (quality[f"{name}_low"], quality[f"{name}_high"]) == pytest.approx(
            expected, rel=1e-5
        )
    json.dumps(quality)  # plain numbers all


@pytest.mark.parametrize("outputs", [[""] * 12, ["zzz"] * 12, half(CLOSE)])
def test_outputs_that_failed_are_compared(outputs):
    table = mh.compare_translations(outputs, CLOSE, ENGLISH, "en").set_index("metric")
    assert (table["after"] > table["before"]).all() and (table["p_value"] < 0.05).all()
    failed = mh.compare_translations(outputs, outputs[::-1], ENGLISH, "en")
    assert (failed["p_value"] > 0.05).all()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["", ""], ["zz", "q"]),  # no match in either
        (["a b", "c d"], ["a  b", "c d "]),  # spaces, which no metric counts
        (["a", "c"], ["b", "d"]),  # equally good, by other words
    ],
)
def test_equal_scores_do_not_differ(before, after):
    table = mh.compare_translations(before, after, ["a b", "c d"], "en")
    assert table["before"].tolist() == table["after"].tolist()
    assert (table["p_value"] == 1).all()


@pytest.mark.parametrize("n", [1, 2, 4])
def test_few_sentences_prove_nothing(n):
    table = mh.compare_translations(FAR[:n], ENGLISH[:n], ENGLISH[:n], "en")
    assert (table["p_value"] >= 2 / 2**n).all()


def test_the_floor_is_that_of_wrong_references():
    texts = [ENGLISH[0]] * 5 + [ENGLISH[1]]  # the next reference is the same one, four times
    wrong = [ENGLISH[1]] * 5 + [ENGLISH[0]]
    quality = mh.translation_quality(texts, texts, "en")
    assert quality["chrf_floor"] == sacrebleu.corpus_chrf(texts, [wrong], word_order=2).score
    assert quality["translates"]
    alike = mh.translation_quality([ENGLISH[0]] * 3, [ENGLISH[0]] * 3, "en")
    assert math.isnan(alike["chrf_floor"]) and not alike["translates"] and alike["chrf"] == 100


@pytest.mark.parametrize("wrong", ["The small dog", b"dog", {"a", "b"}, {"a": "b"}, 5, None])
def test_a_text_is_no_list_of_texts(wrong):
    two = ["a", "b"]
    for call in (
        lambda: mh.translation_quality(wrong, two, "en"),
        lambda: mh.translation_quality(two, wrong, "en"),
        lambda: mh.compare_translations(wrong, two, two, "en"),
        lambda: mh.compare_translations(two, wrong, two, "en"),
        lambda: mh.compare_translations(two, two, wrong, "en"),
        lambda: mh.degenerate_outputs(wrong),
    ):
        with pytest.raises(TypeError, match="a list"):
            call()
    with pytest.raises(TypeError, match="sources is the text"):
        mh.degenerate_outputs(["a"], "a")


@pytest.mark.parametrize("wrong", [None, NAN, 3, ["b"], b"b", pd.NA])
def test_an_element_that_is_no_text_is_named(wrong):
    texts, two = ["a", wrong], ["a", "b"]
    for call in (
        lambda: mh.translation_quality(texts, two, "en"),
        lambda: mh.translation_quality(two, texts, "en"),
        lambda: mh.compare_translations(texts, two, two, "en"),
        lambda: mh.compare_translations(two, texts, two, "en"),
        lambda: mh.compare_translations(two, two, texts, "en"),
        lambda: mh.degenerate_outputs(texts),
        lambda: mh.degenerate_outputs(two, texts),
    ):
        with pytest.raises(ValueError, match="row 1 is"):
            call()


def test_a_blank_reference_is_refused():
    for blank in ("", " \n"):
        with pytest.raises(ValueError, match="references: row 1 is blank"):
            mh.translation_quality(["a", "b"], ["a", blank], "en")


def test_lists_of_texts_of_any_make():
    expected = mh.translation_quality(CLOSE, ENGLISH, "en")
    for make in (tuple, np.array, pd.Series):
        assert mh.translation_quality(make(CLOSE), make(ENGLISH), "en") == expected


@pytest.mark.parametrize(
    "target", ["French", "FR", "zho_Hans", "zh-CN", "e", "", " fr", None, False]
)
def test_a_target_that_is_no_language_code_is_refused(target):
    with pytest.raises(ValueError, match="target is .* language code"):
        mh.translation_quality(["a"], ["a"], target)
    with pytest.raises(ValueError, match="target is .* language code"):
        mh.compare_translations(["a"], ["a"], ["a"], target)


@pytest.mark.parametrize(
    "codes", [("zh", "zho", "cmn"), ("ja", "jpn"), ("hi", "hin"), ("xx", "en")]
)
def test_codes_of_one_language_share_a_tokenizer(codes):
    def signature(code):
        return mh.translation_quality(["猫 a।"], ["猫 b।"], code)["bleu_signature"]

    assert len({signature(code) for code in codes}) == 1


def test_n_resamples_of_translations():
    for n_resamples in (0, -5, 1.5):  # sacrebleu takes 1000 instead of 0
        with pytest.raises(ValueError, match="n_resamples is"):
            mh.compare_translations(FAR, CLOSE, ENGLISH, "en", n_resamples=n_resamples)


def test_as_many_references():
    with pytest.raises(ValueError, match="1 hypotheses and 2 references"):
        mh.translation_quality(["a"], ["a", "b"], "en")
    with pytest.raises(ValueError, match="1 hypotheses and 2 references"):
        mh.compare_translations(["a", "b"], ["a"], ["a", "b"], "en")


def test_degenerate_outputs():
    texts = [
        "",
        " \n",
        "Le chat dort.",
        "the same the same the same the same",
        "ha ha. That is that.",
        "是的是的是的是的是的是的是的是的",
    ]
    sources = ["a", "b", "Le chat dort. ", "d", "e", "f"]
    assert mh.degenerate_outputs(texts, sources) == {"empty": 2, "copied": 1, "repeated": 2}
    assert mh.degenerate_outputs(texts)["copied"] == 0
    with pytest.raises(ValueError, match="6 texts and 5 sources"):
        mh.degenerate_outputs(texts, sources[:5])
    with pytest.raises(ValueError, match="at least one text"):
        mh.degenerate_outputs([])


def test_equal_translations_do_not_differ():
    texts = ["The cat sleeps on the old chair.", "It rained all night."]
    assert (mh.compare_translations(texts, texts, texts[::-1], "en")["p_value"] == 1).all()
