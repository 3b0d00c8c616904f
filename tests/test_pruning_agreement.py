"""How far masks agree, against a count by hand."""

import pytest
import torch

import mlprune_helpers as mh


def masks(seed: int, share: float = 0.3) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"first": (40, 60), "second": (70, 30)}
    return {name: torch.rand(shape, generator=generator) < share for name, shape in shapes.items()}


def flat(some) -> list[bool]:
    return [bool(bit) for mask in some.values() for bit in mask.flatten()]


def test_agreement_is_a_count():
    a, b, zero = masks(0), masks(1), masks(2, 0.1)
    both = [x and y for x, y, z in zip(flat(a), flat(b), flat(zero)) if not z]
    mine = [x for x, z in zip(flat(a), flat(zero)) if not z]
    assert mh.mask_agreement(a, b, leave_out=zero) == pytest.approx(sum(both) / sum(mine))


def test_equal_masks_agree_and_unrelated_ones_reach_the_sparsity():
    a, b = masks(0), masks(1)
    assert mh.mask_agreement(a, a) == 1
    assert mh.mask_agreement(a, b) == pytest.approx(0.3, abs=0.03)


def test_zero_weights_are_left_out(one_lm, prompts):
    matrix = mh.weight_matrix(next(iter(one_lm.prunable.values())))
    matrix.data[:, 0] = 0
    zero = mh.zero_weights(one_lm)
    assert sum(int(mask.sum()) for mask in zero.values()) == len(matrix)
    with mh.pruned(one_lm, prompts, sparsity=0.5) as wanda:
        pass
    with mh.pruned(one_lm, method="magnitude", sparsity=0.5) as magnitude:
        pass
    plain = mh.mask_agreement(wanda.masks, magnitude.masks)
    assert mh.mask_agreement(wanda.masks, magnitude.masks, leave_out=zero) < plain


def test_what_cannot_be_compared_is_refused():
    a = masks(0)
    with pytest.raises(ValueError, match="'second' is in one only"):
        mh.mask_agreement(a, {"first": a["first"]})
    with pytest.raises(ValueError, match="shapes"):
        mh.mask_agreement(a, a | {"first": a["first"].T})
    with pytest.raises(TypeError, match="bool tensor"):
        mh.mask_agreement(a, a | {"first": a["first"].int()})
    with pytest.raises(ValueError, match="prunes no weight"):
        mh.mask_agreement(a, a, leave_out=a)
