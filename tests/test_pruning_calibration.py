"""What is given as calibration or contrast."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from pruning_oracles import CODE, assert_untouched, weights_of

import mlprune_helpers as mh

WRONG = [
    ("one text", "list of texts is expected, not one string"),
    (b"bytes", "not one string"),
    ([], "No texts"),
    ((), "No texts"),
    ({}, "empty dict"),
    ({"fr-en": []}, r"\['fr-en'\].*No texts"),
    ({"fr-en": "one text"}, r"\['fr-en'\].*not one string"),
    (["a text", None], "text 1 is None"),
    (["a text", 3], "text 1 is 3"),
    ([["a", "text"]], r"text 0 is \['a', 'text'\]"),
    ({"a": ["a text"], "b": [b"bytes"]}, r"\['b'\].*text 0 is b'bytes'"),
    ({"a": {"b": ["a text"]}}, r"\['a'\]"),
    ({1: ["a text"]}, "names that are text, not 1"),
    ({"no order"}, "set"),
    (3, "int"),
    (pd.DataFrame({"en": ["a text"]}), "DataFrame"),
    (np.array([["a", "text"]]), "ndarray"),
]


@pytest.mark.parametrize(("given", "named"), WRONG)
def test_what_is_no_list_of_texts_is_refused(one_lm, prompts, given, named):
    before = weights_of(one_lm)
    with pytest.raises((TypeError, ValueError), match=f"calibration.*{named}"):
        mh.prune(one_lm, given)
    with pytest.raises((TypeError, ValueError), match=f"contrast.*{named}"):
        mh.prune(one_lm, prompts, method="refined", contrast=given)
    with pytest.raises((TypeError, ValueError), match=f"calibration.*{named}"):
        with mh.pruned(one_lm, given):
            pass
    assert_untouched(one_lm, before)


def test_any_sequence_of_texts_does(load, prompts):
    expected = mh.prune(load("llama"), prompts)
    for given in (tuple(prompts), np.array(prompts), pd.Series(prompts), iter(prompts)):
        report = mh.prune(load("llama"), given)
        assert report.fingerprint_after == expected.fingerprint_after
        assert report.settings == expected.settings


def test_methods_without_data_leave_the_calibration_aside(load, prompts):
    with_data = mh.prune(load("llama"), prompts, method="magnitude")
    without = mh.prune(load("llama"), method="magnitude")
    assert with_data.settings == without.settings and with_data.settings["calibration"] is None


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (["x\x00y"], ["x", "y"]),
        (["x y"], ["x", " y"]),
        ({"a": ["x"]}, {"b": ["x"]}),
        ({"a": ["x", "y"]}, {"a": ["x"], "y": ["x"]}),
        (["x"], {"x": ["x"]}),
    ],
)
def test_different_corpora_have_different_digests(load, a, b):
    digests = {mh.prune(load("llama"), x).settings["calibration"] for x in (a, b)}
    assert len(digests) == 2


def changed(stats, name, function):
    """The statistics with another array of squares for one matrix."""
    squares = dict(stats.input_squares)
    squares[name] = function(squares[name].copy())
    return dataclasses.replace(stats, input_squares=squares)


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (lambda x: x[:-1], r"another model.*32 inputs.*\(31,\)"),
        (lambda x: x[None], r"another model.*\(1, 32\)"),
        (lambda x: np.where(np.arange(32) == 3, np.nan, x), "not finite"),
        (lambda x: np.where(np.arange(32) == 3, np.inf, x), "not finite"),
        (lambda x: -x, "below zero"),
    ],
)
def test_statistics_that_cannot_be_of_this_model_are_refused(one_lm, prompts, function, named):
    stats = mh.collect_activations(one_lm, prompts)
    name = "model.layers.2.mlp.up_proj"
    before = weights_of(one_lm)
    for given in (
        changed(stats, name, function),
        {"a": stats, "b": changed(stats, name, function)},
    ):
        with pytest.raises(ValueError, match=f"{name}|{named}"):
            mh.prune(one_lm, given, propagate_error=False)
    contrast = changed(stats, name, function)
    with pytest.raises(ValueError, match=named):
        mh.prune(one_lm, stats, method="refined", contrast=contrast, propagate_error=False)
    assert_untouched(one_lm, before)


def test_digests_of_statistics_tell_what_pruning_takes_from_them(load, prompts):
    stats = mh.collect_activations(load("llama"), prompts)
    other = changed(stats, "model.layers.2.mlp.up_proj", lambda x: x * 2)
    digests = {
        mh.prune(load("llama"), x, propagate_error=False).settings["calibration"]
        for x in (stats, other, mh.collect_activations(load("llama"), prompts))
    }
    assert len(digests) == 2


def test_statistics_and_prompts_do_not_mix(one_lm, prompts):
    stats = mh.collect_activations(one_lm, prompts)
    with pytest.raises(ValueError, match="do not mix.*calibration"):
        mh.prune(one_lm, {"a": stats, "b": prompts}, propagate_error=False)
    with pytest.raises(ValueError, match="do not mix"):
        mh.prune(one_lm, prompts, method="refined", contrast=stats, propagate_error=False)
    assert mh.prune(
        one_lm, stats, method="refined", contrast={"a": stats}, propagate_error=False, sparsity=0
    )


def test_statistics_without_signed_sums_do_for_norms_only(one_lm, prompts, monkeypatch):
    from mlprune_helpers.pruning.methods import METHODS

    monkeypatch.setitem(METHODS, "mine", lambda weight, input_mean: weight.abs() * input_mean)
    stats = mh.collect_activations(one_lm, CODE)
    stats.input_sums = {}  # as an older file has them
    with pytest.raises(ValueError, match="no sums of inputs"):
        mh.prune(one_lm, stats, method="mine", propagate_error=False)
    assert mh.prune(one_lm, stats, propagate_error=False)


def test_means_from_statistics_are_those_from_prompts(load, prompts, monkeypatch):
    from mlprune_helpers.pruning.methods import METHODS

    stats = mh.collect_activations(load("llama"), prompts)
    if not hasattr(stats, "input_sums"):
        pytest.skip("statistics hold no signed sums yet")
    monkeypatch.setitem(METHODS, "mine", lambda weight, input_mean: weight.abs() * input_mean.abs())
    for given in (stats, {"a": stats, "b": mh.collect_activations(load("llama"), CODE)}):
        texts = prompts if given is stats else {"a": prompts, "b": CODE}
        ready = mh.prune(load("llama"), given, method="mine", propagate_error=False).masks
        walked = mh.prune(load("llama"), texts, method="mine", propagate_error=False).masks
        assert sum(int((ready[name] != walked[name]).sum()) for name in ready) <= 4
