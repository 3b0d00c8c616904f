"""Weights that come back: after errors, after a with block, and masks put on by hand."""

import re

import numpy as np
import pytest
import torch
from pruning_oracles import assert_untouched, weights_of

import mlprune_helpers as mh
from mlprune_helpers.pruning.methods import METHODS
from mlprune_helpers.pruning.undo import Changes


def test_sparsegpt_is_undone_on_an_error(one_lm, prompts):
    one_lm.prunable["model.layers.1.mlp.up_proj"].weight.data.fill_(3e38)
    before = weights_of(one_lm)
    with pytest.raises(ValueError, match="not finite"):
        mh.prune(one_lm, prompts, method="sparsegpt")
    assert_untouched(one_lm, before)


def test_pruned_restores_every_bit(lm, prompts):
    before, fingerprint = weights_of(lm), lm.fingerprint
    with mh.pruned(lm, prompts, sparsity=0.5) as report:
        assert lm.fingerprint == report.fingerprint_after != fingerprint
        name, mask = next(iter(report.masks.items()))
        assert (mh.weight_matrix(lm.prunable[name])[mask] == 0).all()
    assert_untouched(lm, before)
    with pytest.raises(KeyError, match="inside"):
        with mh.pruned(lm, method="random"):
            raise KeyError("inside")
    assert_untouched(lm, before)
    assert lm.history == [] and lm.fingerprint == fingerprint


def test_pruned_within_pruned(one_lm, prompts):
    before = weights_of(one_lm)
    with mh.pruned(one_lm, method="magnitude", sparsity=0.2):
        once = weights_of(one_lm)
        with mh.pruned(one_lm, prompts, sparsity=0.6):
            pass
        assert_untouched(one_lm, once)
        assert len(one_lm.history) == 1
    assert_untouched(one_lm, before)


def test_an_infinite_activation_is_refused_by_name(one_lm, prompts):
    up, down = (f"model.layers.1.mlp.{kind}_proj" for kind in ("up", "down"))
    one_lm.prunable[up].weight.data.fill_(3e38)  # finite itself
    before = weights_of(one_lm)
    with pytest.raises(ValueError, match=re.escape(down) + ".*not finite"):
        mh.prune(one_lm, prompts)
    assert_untouched(one_lm, before)  # block 0 had been pruned by then


def test_apply_masks(load, prompts):
    lm, other = load("gpt2"), load("gpt2")
    report = mh.prune(lm, prompts)
    mh.apply_masks(other, report.masks)
    assert other.fingerprint == lm.fingerprint
    assert other.history == [
        {
            "method": "apply_masks",
            "pruned_weights": sum(int(m.sum()) for m in report.masks.values()),
        }
    ]


@pytest.mark.parametrize(
    ("name", "shape", "error"),
    [
        ("transformer.h.0.attn.c_atn", (96, 32), "c_atn.*12.*transformer.h.0.attn.c_attn"),
        ("transformer.h.0.attn.c_attn", (32, 96), r"\(32, 96\).*\(96, 32\)"),
    ],
)
def test_apply_masks_refuses_all_if_one_does_not_fit(load, name, shape, error):
    lm = load("gpt2")
    before = weights_of(lm)
    masks = {
        "transformer.h.0.mlp.c_fc": torch.ones(128, 32, dtype=torch.bool),
        name: torch.ones(shape, dtype=torch.bool),
    }
    with pytest.raises(ValueError, match=error):
        mh.apply_masks(lm, masks)
    assert_untouched(lm, before)


class Interrupted:
    """A score that fails at its n-th matrix."""

    def __init__(self, n, error):
        self.left = n
        self.error = error

    def __call__(self, weight):
        self.left -= 1
        if self.left == 0:
            raise self.error
        return weight.abs()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("no"), MemoryError()])
def test_any_interruption_gives_all_bits_back(lm, monkeypatch, error):
    monkeypatch.setitem(METHODS, "fails", Interrupted(5, error))
    before = weights_of(lm)
    with pytest.raises(type(error)):
        mh.prune(lm, method="fails", sparsity=0.9)
    assert_untouched(lm, before)
    assert lm.history == []


def test_an_error_after_the_last_matrix_gives_all_bits_back(one_lm, prompts, monkeypatch):
    def full(*args, **kwargs):
        raise MemoryError

    monkeypatch.setattr("mlprune_helpers.pruning.prune.PruningReport", full)
    before = weights_of(one_lm)
    for method in ("wanda", "sparsegpt"):
        with pytest.raises(MemoryError):
            mh.prune(one_lm, prompts, method=method)
        assert_untouched(one_lm, before)


def test_pruned_gives_all_bits_back_when_prune_fails_inside_another(one_lm, monkeypatch):
    monkeypatch.setitem(METHODS, "fails", Interrupted(5, KeyboardInterrupt()))
    before = weights_of(one_lm)
    with mh.pruned(one_lm, method="magnitude", sparsity=0.2):
        once = weights_of(one_lm)
        with pytest.raises(KeyboardInterrupt):
            with mh.pruned(one_lm, method="fails", sparsity=0.9):
                raise AssertionError("not reached")
        assert_untouched(one_lm, once)
    assert_untouched(one_lm, before)


def test_changes_of_one_matrix_twice_come_back_in_order():
    weight = torch.arange(12.0).reshape(3, 4).T  # a view, as of a Conv1D
    before = weight.clone()
    with pytest.raises(RuntimeError):
        with Changes() as changes:
            changes.zero(weight, before % 2 == 0)
            changes.replace(weight, torch.ones(4, 3))
            changes.zero(weight, before > 5)
            raise RuntimeError
    assert torch.equal(weight, before)


def test_masks_of_numpy_in_any_memory_order(load):
    masks = mh.prune(load("gpt2"), method="magnitude", sparsity=0.3).masks
    plain, fortran = load("gpt2"), load("gpt2")
    mh.apply_masks(plain, masks)
    mh.apply_masks(fortran, {name: np.asfortranarray(m.numpy()) for name, m in masks.items()})
    assert plain.fingerprint == fortran.fingerprint


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda mask: mask.int(), "int32.*bool"),
        (lambda mask: mask.float(), "float32.*bool"),
        (lambda mask: mask.numpy().astype(np.uint8), "uint8.*bool"),
        (lambda mask: mask[:-1], r"\(95, 32\).*\(96, 32\)"),
        (lambda mask: mask[0], r"\(32,\).*\(96, 32\)"),
        (lambda mask: mask.tolist(), "list.*bool"),
    ],
)
def test_masks_that_are_none_are_refused_before_any_is_applied(load, change, named):
    lm = load("gpt2")
    masks = mh.prune(load("gpt2"), method="magnitude").masks
    last = "transformer.h.2.attn.c_attn"
    before = weights_of(lm)
    with pytest.raises((TypeError, ValueError), match=f"{last}.*{named}"):
        mh.apply_masks(lm, masks | {last: change(masks[last])})
    assert_untouched(lm, before)


def test_what_is_no_dict_of_masks_is_refused(load):
    report = mh.prune(load("llama"), method="magnitude")
    with pytest.raises(TypeError, match=r"report\.masks"):
        mh.apply_masks(load("llama"), report)
    with pytest.raises(ValueError, match="empty"):
        mh.apply_masks(load("llama"), {})
