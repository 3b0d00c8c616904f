import math

import numpy as np
import pytest
import sacrebleu
import scipy.stats

import mlprune_helpers as mh

# -- accuracy, F1, calibration ----------------------------------------------------------------------------------


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


# -- RankC ------------------------------------------------------------------------------------------------------

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


@pytest.mark.parametrize("shapes", [((3, 2), (4, 2)), ((3, 2), (3, 3)), ((3,), (3,))])
def test_rank_consistency_needs_the_same_examples(shapes):
    with pytest.raises(ValueError, match="same examples"):
        mh.rank_consistency(*(np.zeros(s) for s in shapes))


# -- intervals and p-values -------------------------------------------------------------------------------------


def grouped_rows(rng, n_groups, effect=0.0, size=3, languages=1, spread=1.0):
    """Differences whose groups share a part in all languages, so that rows are far from independent."""
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
    """600 data sets without an effect, whose rows depend on one another within groups and across languages."""
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
    """Language B has fewer rows: the mean is of the languages' means, and a group is in or out in both."""
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
    ],
)
def test_wrong_input_is_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        mh.paired_bootstrap(**arguments)


def test_holm_by_hand():
    assert mh.holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert mh.holm([0.6, 0.5]).tolist() == [1, 1]


# -- translation ------------------------------------------------------------------------------------------------

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


def test_equal_translations_do_not_differ():
    texts = ["The cat sleeps on the old chair.", "It rained all night."]
    assert (mh.compare_translations(texts, texts, texts[::-1], "en")["p_value"] == 1).all()
