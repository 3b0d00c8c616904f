"""Settings that are wrong, and what is left untouched then."""

import json
import re

import numpy as np
import pytest
from pruning_oracles import CODE, assert_untouched, weights_of

import mlprune_helpers as mh


def test_statistics_of_another_model_are_refused(one_lm, load, prompts):
    stats = mh.collect_activations(load("gpt2"), prompts)
    with pytest.raises(ValueError, match="another model"):
        mh.prune(one_lm, stats, propagate_error=False)


def test_a_weight_that_is_no_number_is_refused_by_name(lm, prompts):
    name = list(lm.prunable)[len(lm.prunable) // 2 - 1]
    mh.weight_matrix(lm.prunable[name])[1, 1] = float("nan")
    before = weights_of(lm)
    for method in ("wanda", "magnitude", "random"):
        calibration = prompts if method == "wanda" else None
        for propagate in (True, False):
            with pytest.raises(ValueError, match=re.escape(name)):
                mh.prune(lm, calibration, method=method, propagate_error=propagate)
            assert_untouched(lm, before)
    assert lm.history == []


def test_columns_that_do_not_divide_restore_the_weights(save_model, prompts):
    folder = save_model(
        "LlamaConfig",
        dict(hidden_size=32, intermediate_size=50, num_hidden_layers=2, num_attention_heads=4),
    )
    lm = mh.load_model(str(folder), device="cpu")
    before = weights_of(lm)
    with pytest.raises(ValueError, match="50 columns"):
        mh.prune(lm, prompts, sparsity="2:4")
    assert_untouched(lm, before)


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ({"sparsity": 1.0}, r"1\.0"),
        ({"sparsity": -0.1}, r"-0\.1"),
        ({"sparsity": True}, "True"),
        ({"sparsity": float("nan")}, "nan"),
        ({"sparsity": None}, "None"),
        ({"sparsity": "3:2"}, "3:2"),
        ({"sparsity": "0:4"}, "0:4"),
        ({"sparsity": "2:0"}, "2:0"),
        ({"sparsity": "2:x"}, "2:x"),
        ({"sparsity": "0.3"}, r"0\.3"),
        ({"method": "wander"}, "wander.*wanda"),
        ({"group": "rows"}, "rows.*row"),
        ({"padding": "none"}, "none.*masked"),
        ({"padding": "none", "propagate_error": False}, "none.*masked"),
        ({"contrast": CODE}, "contrast.*refined"),
        ({"method": "refined"}, "contrast.*refined"),
        ({"calibration": None}, "wanda.*calibration"),
        ({"calibration": []}, "texts"),
        ({"calibration": {"a": []}}, "texts"),
        ({"group": "model"}, "model.*propagate_error=False"),
        ({"group": "model", "propagate_error": False, "sparsity": "2:4"}, "model.*share"),
        ({"group": "model", "propagate_error": False, "method": "sparsegpt"}, "model.*sparsegpt"),
    ],
)
def test_wrong_settings_are_named(one_lm, prompts, setting, named):
    before = weights_of(one_lm)
    arguments = {"calibration": prompts} | setting
    with pytest.raises(ValueError, match=named):
        mh.prune(one_lm, **arguments)
    assert_untouched(one_lm, before)


def test_statistics_cannot_propagate(one_lm, prompts):
    stats = mh.collect_activations(one_lm, prompts)
    with pytest.raises(ValueError, match="propagate_error=False"):
        mh.prune(one_lm, stats)
    with pytest.raises(ValueError, match="propagate_error=False"):
        mh.prune(one_lm, prompts, method="refined", contrast=stats)
    with pytest.raises(ValueError, match="sparsegpt"):
        mh.prune(one_lm, stats, method="sparsegpt", propagate_error=False)


@pytest.mark.parametrize("setting", ["seed", "max_length", "token_budget"])
@pytest.mark.parametrize("value", [True, 2.0, -1, "3", float("nan"), 2**70, [1]])
def test_whole_numbers_are_whole_numbers(one_lm, prompts, setting, value):
    before = weights_of(one_lm)
    with pytest.raises(ValueError, match=f"{setting} is .*whole number"):
        mh.prune(one_lm, prompts, **{setting: value})
    assert_untouched(one_lm, before)


def test_numbers_of_numpy_do_as_well(load):
    plain = mh.prune(load("llama"), method="random", sparsity=0.29, seed=3)
    numpy = mh.prune(load("llama"), method="random", sparsity=np.float32(0.29), seed=np.int64(3))
    assert numpy.fingerprint_after == plain.fingerprint_after
    assert json.loads(json.dumps(numpy.provenance()))["sparsity"] == 0.29


@pytest.mark.parametrize("value", ["False", "false", 0, None])
def test_propagate_error_is_true_or_false(one_lm, prompts, value):
    with pytest.raises(ValueError, match="propagate_error is .*True, False"):
        mh.prune(one_lm, prompts, propagate_error=value)


def test_a_function_as_method_is_told_to_register(one_lm, prompts):
    with pytest.raises(TypeError, match="METHODS"):
        mh.prune(one_lm, prompts, method=mh.wanda_score)


def test_settings_that_have_no_say_are_not_recorded(load, prompts):
    random = mh.prune(load("llama"), prompts, method="random", seed=3).settings
    assert random["seed"] == 3 and random["calibration"] is None and random["max_length"] is None
    wanda = mh.prune(load("llama"), prompts, max_length=9, token_budget=77).settings
    assert wanda["seed"] is None and (wanda["max_length"], wanda["token_budget"]) == (9, 77)
    stats = mh.collect_activations(load("llama"), prompts)
    ready = mh.prune(load("llama"), stats, propagate_error=False).settings
    assert ready["max_length"] is None and ready["calibration"] is not None
    assert ready["calibration"] != wanda["calibration"]
