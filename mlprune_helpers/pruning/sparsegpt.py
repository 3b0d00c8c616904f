"""SparseGPT: the weights that are left make up for those that go."""

from __future__ import annotations

import torch
from torch import Tensor

from .masks import lowest, nm_mask, whole_number
from .sparsity import parse_sparsity


def sparsegpt(
    weight: Tensor,
    products: Tensor,
    sparsity: float | str,
    *,
    group: str = "row",
    damping: float = 0.01,
    block: int = 128,
) -> tuple[Tensor, Tensor]:
    """SparseGPT (Frantar and Alistarh, arXiv 2301.00774).

    Column by column, what a pruned weight contributed is made up for by the columns to its right,
    as least squares over the calibration tokens has it.  Masks are chosen ``block`` columns at a
    time (n:m: ``m``) by W² / diag(U)², U being the upper Cholesky factor of the inverse of
    ``products``.

    Args:
        weight: (out_features, in_features).
        products: (in_features, in_features), sum of x xᵀ over the calibration tokens.
        sparsity: The share to prune, or "n:m".
        group: Where scores are compared: in each "row", or over the "matrix" (as published).
        damping: A share of the mean of the diagonal of ``products``, added to it.
        block: Columns whose masks are chosen at a time.

    Returns:
        The mask, True = pruned, and the new weights: those that are left adapted, the others zero.
    """
    pattern = parse_sparsity(sparsity)
    if group not in ("row", "matrix"):
        raise ValueError(f"group is {group!r}; allowed for SparseGPT: row, matrix.")
    step = block if isinstance(pattern, float) else pattern[1]
    block = max(step, block - block % step)  # the masks of a pattern end where a block ends
    factor = _factor(products.to(weight.device), damping)
    adapted = weight.to(torch.float64, copy=True)
    mask = torch.zeros_like(weight, dtype=torch.bool)
    for start in range(0, weight.shape[1], block):
        end = min(start + block, weight.shape[1])
        errors = torch.zeros_like(adapted[:, start:end])
        for column in range(start, end):
            if (column - start) % step == 0:
                now = slice(column, min(column + step, end))
                mask[:, now] = _chosen(adapted[:, now], factor.diagonal()[now], now, pattern, group)
            error = adapted[:, column] * mask[:, column] / factor[column, column]
            adapted[:, column:end] -= error[:, None] * factor[column, column:end]
            errors[:, column - start] = error
        adapted[:, end:] -= errors @ factor[start:end, end:]  # later blocks, all columns at once
    return mask, adapted.masked_fill(mask, 0).to(weight.dtype)


def _factor(products: Tensor, damping: float) -> Tensor:
    """Upper Cholesky factor of the inverse of the damped products, in float64."""
    damped = products.to(torch.float64, copy=True)
    addend = (damping * damped.diagonal().mean()).clamp_min(torch.finfo(torch.float32).tiny)
    damped.diagonal().add_(addend)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    return torch.linalg.cholesky(inverse, upper=True)


def _chosen(
    weight: Tensor,
    diagonal: Tensor,
    columns: slice,
    pattern: float | tuple[int, int],
    group: str,
) -> Tensor:
    """The mask of some neighbouring columns, by what pruning each weight costs."""
    score = (weight / diagonal).square()
    if not isinstance(pattern, float):
        return nm_mask(score, *pattern)
    # Counts of the blocks that add up to floor(sparsity · columns).
    count = whole_number(pattern * columns.stop) - whole_number(pattern * columns.start)
    if group == "row":
        return lowest(score, count)
    return lowest(score.reshape(1, -1), count * len(score)).reshape(score.shape)
