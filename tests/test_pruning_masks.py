"""Masks against plain sorting."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from pruning_oracles import stable_oracle

import mlprune_helpers as mh


@settings(max_examples=200, deadline=None)
@given(
    rows=st.integers(1, 5),
    columns=st.integers(1, 40),
    percent=st.integers(0, 99),
    kinds=st.integers(1, 4),
    seed=st.integers(0, 2**16),
)
def test_unstructured_mask_is_a_stable_sort(rows, columns, percent, kinds, seed):
    scores = np.random.default_rng(seed).integers(0, kinds, (rows, columns)).astype(np.float32)
    got = mh.unstructured_mask(torch.from_numpy(scores), percent / 100)
    assert np.array_equal(got.numpy(), stable_oracle(scores, percent * columns // 100))
    whole = mh.unstructured_mask(torch.from_numpy(scores), percent / 100, group="matrix")
    expected = stable_oracle(scores.reshape(1, -1), percent * scores.size // 100).reshape(
        scores.shape
    )
    assert np.array_equal(whole.numpy(), expected)


@pytest.mark.parametrize(
    ("score", "sparsity", "per_row"),
    [
        (torch.zeros(3, 10), 0.5, 5),
        (torch.ones(4, 7), 0.3, 2),
        (torch.ones(5, 1), 0.9, 0),
        (torch.tensor([[0.0] * 9 + [1.0]]), 0.95, 9),
        (
            torch.rand(6, 100, generator=torch.Generator().manual_seed(0)),
            0.29,
            29,
        ),  # 0.29 * 100 = 28.999999999999996
        (torch.rand(2, 10, generator=torch.Generator().manual_seed(0)).T, 0.5, 1),  # not contiguous
    ],
)
def test_counts_are_exact(score, sparsity, per_row):
    assert mh.unstructured_mask(score, sparsity).sum(1).tolist() == [per_row] * len(score)


@settings(max_examples=100, deadline=None)
@given(
    pattern=st.sampled_from([(2, 4), (1, 4), (4, 8), (1, 2), (3, 4)]),
    kinds=st.integers(1, 5),
    seed=st.integers(0, 2**16),
)
def test_nm_mask_takes_n_of_every_m(pattern, kinds, seed):
    n, m = pattern
    scores = np.random.default_rng(seed).integers(0, kinds, (3, 4 * m)).astype(np.float32)
    expected = np.zeros(scores.shape, dtype=bool)
    for row in range(3):
        for start in range(0, 4 * m, m):
            ranked = sorted(range(start, start + m), key=lambda i: (scores[row, i], i))
            expected[row, ranked[:n]] = True
    assert np.array_equal(mh.nm_mask(torch.from_numpy(scores), n, m).numpy(), expected)


def test_nm_mask_refuses_what_does_not_divide():
    with pytest.raises(ValueError, match="divide by 4.*10 columns"):
        mh.nm_mask(torch.zeros(2, 10), 2, 4)


@settings(max_examples=100, deadline=None)
@given(percent=st.integers(0, 99), kinds=st.integers(1, 30), seed=st.integers(0, 2**16))
def test_global_masks_are_one_stable_sort(percent, kinds, seed):
    rng = np.random.default_rng(seed)
    scores = {
        name: rng.integers(0, kinds, shape).astype(np.float32)
        for name, shape in (("a", (3, 5)), ("b", (1, 7)), ("c", (4, 1)))
    }
    flat = np.concatenate([x.ravel() for x in scores.values()])
    expected = stable_oracle(flat[None], percent * flat.size // 100)[0]
    got = mh.global_masks({name: torch.from_numpy(x) for name, x in scores.items()}, percent / 100)
    assert [got[name].shape for name in got] == [x.shape for x in scores.values()]
    assert np.array_equal(np.concatenate([mask.numpy().ravel() for mask in got.values()]), expected)


@settings(max_examples=100, deadline=None)
@given(
    low=st.integers(0, 99),
    high=st.integers(0, 99),
    power=st.integers(-9, 9),
    seed=st.integers(0, 999),
)
def test_masks_are_nested_and_blind_to_scale(low, high, power, seed):
    score = torch.from_numpy(np.random.default_rng(seed).integers(0, 9, (3, 23)).astype(np.float32))
    small, large = (mh.unstructured_mask(score, p / 100) for p in sorted((low, high)))
    assert not (small & ~large).any()
    rows = torch.tensor([[1.0], [2.0**power], [8.0]])
    assert torch.equal(
        mh.unstructured_mask(score * rows, high / 100), mh.unstructured_mask(score, high / 100)
    )


def test_scores_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match="not a number"):
        mh.unstructured_mask(torch.tensor([[1.0, float("nan")]]), 0.5)
    with pytest.raises(ValueError, match="model.*global_masks"):
        mh.unstructured_mask(torch.ones(2, 2), 0.5, group="model")


def test_what_is_no_sparsity_for_one_matrix_is_refused():
    for sparsity in (124, "0.3", True, 1.0):
        with pytest.raises(ValueError, match="sparsity is"):
            mh.unstructured_mask(torch.ones(2, 4), sparsity)
    with pytest.raises(ValueError, match="call nm_mask"):
        mh.unstructured_mask(torch.ones(2, 4), "2:4")
