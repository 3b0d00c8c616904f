"""Accuracy, calibration and ranks, by hand and by simulation; wrong input is named by place."""

import ast
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import mlprune_helpers as mh
from mlprune_helpers import metrics

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("module", ["metrics", "plots"])
def test_no_torch_for_numbers_and_figures(module):
    code = f"import sys, mlprune_helpers.{module}; assert 'torch' not in sys.modules"
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


def test_the_room_gives_all_its_names_and_no_other():
    face = ast.parse(Path(mh.__file__).with_name("__init__.pyi").read_text()).body
    (room,) = [n for n in face if isinstance(n, ast.ImportFrom) and n.module == "metrics"]
    public = {alias.name for alias in room.names}
    assert public | {"TOKENIZERS"} == set(metrics.__all__)
    assert all(hasattr(metrics, name) for name in metrics.__all__)


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
