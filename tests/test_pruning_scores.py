"""Scores: by hand, and where nothing is there to be scored."""

import pytest
import torch

import mlprune_helpers as mh


def test_scores_by_hand():
    weight = torch.tensor([[1.0, -2.0], [0.5, 0.0]])
    assert mh.wanda_score(weight, torch.tensor([3.0, 0.25])).tolist() == [[3.0, 0.5], [1.5, 0.0]]
    assert mh.magnitude_score(weight).tolist() == [[1.0, 2.0], [0.5, 0.0]]
    refined = mh.refined_norm(torch.tensor([2.0, 3.0]), torch.tensor([4.0, 1.0]), eps=0.0)
    assert refined.tolist() == [1.0, 9.0]


@pytest.mark.parametrize("contrast", [[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_refined_norm_is_finite_where_the_contrast_is_silent(contrast, dtype):
    norm = mh.refined_norm(
        torch.tensor([3.0, 2.0, 0.0], dtype=dtype), torch.tensor(contrast, dtype=dtype)
    )
    assert torch.isfinite(norm).all()
    assert norm[0] > norm[1] > norm[2] == 0  # large here, silent there: the most particular one


def test_ria_by_hand():
    weight = torch.tensor([[1.0, -3.0], [0.0, 1.0]])
    # |w| / column sum + |w| / row sum, times the square root of the norm
    expected = [[(1 / 1 + 1 / 4) * 2, (3 / 4 + 3 / 4) * 3], [0.0, (1 / 4 + 1 / 1) * 3]]
    assert mh.ria_score(weight, torch.tensor([4.0, 9.0])).tolist() == expected
    assert mh.ria_score(weight, torch.tensor([4.0, 9.0]), power=0)[0].tolist() == [1.25, 1.5]


def test_scores_of_silent_rows_and_single_columns_are_finite():
    for weight in (
        torch.zeros(3, 4),
        torch.zeros(3, 1),
        torch.tensor([[0.0, 0.0], [1.0, 0.0]]),
        torch.ones(1, 1),
    ):
        norm = torch.zeros(weight.shape[1])
        for score in (
            mh.wanda_score(weight, norm),
            mh.ria_score(weight, norm),
            mh.ria_score(weight, norm + 1),
        ):
            assert torch.isfinite(score).all()
        mask, new = mh.sparsegpt(weight, torch.zeros(weight.shape[1], weight.shape[1]), 0.5)
        assert torch.isfinite(new).all() and mask.sum(1).eq(weight.shape[1] // 2).all()
