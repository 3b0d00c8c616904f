"""SparseGPT against least squares."""

import pytest
import torch
from hypothesis import given, settings, strategies as st
from pruning_oracles import stable_oracle

import mlprune_helpers as mh


def least_squares(weight, x, count, pattern=None):
    """SparseGPT from its definition, in float64: no Cholesky factor; lstsq finds the adaptation.

    Column by column.  The score of a column that comes in k-th place is w² / (H_k..k..)⁻¹ at its
    own place, from what is left of H; the masks are chosen at the start, or every m columns from
    the weights as they are then.
    """
    h, w = x.T @ x, weight.clone()
    columns = weight.shape[1]
    own = torch.stack([torch.linalg.inv(h[i:, i:])[0, 0] for i in range(columns)])
    mask = torch.zeros(weight.shape, dtype=torch.bool)
    for i in range(columns):
        if pattern is None and i == 0:
            mask = torch.from_numpy(stable_oracle((w**2 / own).numpy(), count))
        elif pattern and i % pattern[1] == 0:
            now = slice(i, i + pattern[1])
            mask[:, now] = torch.from_numpy(
                stable_oracle((w[:, now] ** 2 / own[now]).numpy(), pattern[0])
            )
        lost = torch.where(mask[:, i], w[:, i], 0)
        if i + 1 < columns:  # columns to the right make up for w_i x_i as well as they can
            w[:, i + 1 :] += (
                lost[:, None] * torch.linalg.lstsq(x[:, i + 1 :], x[:, i, None]).solution[:, 0]
            )
        w[mask[:, i], i] = 0
    return mask, w


@pytest.mark.parametrize("pattern", [None, (2, 4)])
@pytest.mark.parametrize("seed", [0, 1])
def test_sparsegpt_is_least_squares_column_by_column(pattern, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(200, 12, generator=generator, dtype=torch.float64) @ torch.randn(
        12, 12, generator=generator, dtype=torch.float64
    )
    weight = torch.randn(5, 12, generator=generator, dtype=torch.float64)
    kept = weight.clone()
    sparsity = 0.5 if pattern is None else "2:4"
    mask, new = mh.sparsegpt(weight, x.T @ x, sparsity, damping=0)
    expected_mask, expected = least_squares(weight, x, 6, pattern)
    assert torch.equal(mask, expected_mask)
    assert torch.allclose(new, expected, rtol=1e-6, atol=1e-8)
    assert torch.equal(weight, kept) and (new[mask] == 0).all()


def test_sparsegpt_reaches_the_optimum_where_order_costs_nothing():
    """All pruned columns come first: then no column is settled before the last weight is pruned."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(100, 10, generator=generator, dtype=torch.float64) + torch.randn(
        100, 1, generator=generator, dtype=torch.float64
    )
    weight = torch.randn(4, 10, generator=generator, dtype=torch.float64).sign()
    weight[:, :4] *= 1e-2
    mask, new = mh.sparsegpt(weight, x.T @ x, 0.4, damping=0)
    assert mask[:, :4].all() and not mask[:, 4:].any()
    best = torch.linalg.lstsq(x[:, 4:], x @ weight.T).solution.T
    assert torch.allclose(new[:, 4:], best, atol=1e-9)


def test_sparsegpt_lies_between_the_optimum_and_no_adaptation():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(300, 64, generator=generator, dtype=torch.float64) @ torch.randn(
        64, 64, generator=generator, dtype=torch.float64
    )
    weight = torch.randn(8, 64, generator=generator, dtype=torch.float64)
    for block in (16, 20, 128):
        mask, new = mh.sparsegpt(weight, x.T @ x, 0.5, damping=1e-6, block=block)
        assert mask.sum(1).tolist() == [32] * 8

        def error(w):
            return ((w - weight) @ x.T).square().sum(1)

        best = weight.clone()
        for row in range(8):
            kept = ~mask[row]
            best[row] = 0
            best[row, kept] = torch.linalg.lstsq(x[:, kept], x @ weight[row]).solution
        assert (error(best) <= error(new)).all() and error(new).sum() < 0.9 * error(
            weight.masked_fill(mask, 0)
        ).sum()
    assert int(mh.sparsegpt(weight, x.T @ x, 0.3, group="matrix")[0].sum()) == int(0.3 * 64) * 8


@settings(max_examples=60, deadline=None)
@given(
    columns=st.integers(1, 40),
    percent=st.integers(0, 99),
    block=st.integers(1, 50),
    seed=st.integers(0, 999),
)
def test_sparsegpt_counts_are_exact(columns, percent, block, seed):
    generator = torch.Generator().manual_seed(seed)
    x, weight = (
        torch.randn(30, columns, generator=generator),
        torch.randn(3, columns, generator=generator),
    )
    mask, new = mh.sparsegpt(weight, x.T @ x, percent / 100, block=block)
    assert mask.sum(1).tolist() == [percent * columns // 100] * 3
    assert (new[mask] == 0).all() and torch.isfinite(new).all()


def test_sparsegpt_takes_patterns_longer_than_its_block():
    x, weight = torch.randn(300, 512), torch.randn(4, 512)
    mask, _ = mh.sparsegpt(weight, x.T @ x, "100:256")
    assert (mask.reshape(4, 2, 256).sum(dim=2) == 100).all()
