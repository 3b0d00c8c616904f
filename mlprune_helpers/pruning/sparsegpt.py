"""SparseGPT: the weights that are left make up for those that go."""

from __future__ import annotations

import torch
from torch import Tensor

from .masks import _lowest, nm_mask
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
    """SparseGPT (Frantar and Alistarh, arXiv 2301.00774): (mask, the weights with those that are left adapted).

    Column by column, what a pruned weight contributed is made up for by the columns to its right, as least squares
    over the calibration tokens has it.  ``products`` (in, in): sum of x xᵀ over them; ``damping``, a share of its
    mean, is added to its diagonal.  Masks are chosen ``block`` columns at a time (n:m: ``m``) by W² / diag(U)², in
    each "row" or over the "matrix" (as published), U being the upper Cholesky factor of the inverse of ``products``.
    """
    pattern, columns = parse_sparsity(sparsity), weight.shape[1]
    step = block if isinstance(pattern, float) else pattern[1]
    block = max(step, block - block % step)
    h = products.to(weight.device, torch.float64, copy=True)
    h.diagonal().add_((damping * h.diagonal().mean()).clamp_min(torch.finfo(torch.float32).tiny))
    u = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(h)), upper=True)
    w, mask = weight.to(torch.float64, copy=True), torch.zeros_like(weight, dtype=torch.bool)
    for start in range(0, columns, block):
        end = min(start + block, columns)
        errors = torch.zeros_like(w[:, start:end])
        for i in range(start, end):
            if (i - start) % step == 0:
                now = slice(i, min(i + step, end))
                score = (w[:, now] / u.diagonal()[now]).square()
                if isinstance(pattern, float):  # counts that add up to floor(sparsity · columns)
                    count = int(pattern * end + 1e-9) - int(pattern * start + 1e-9)
                    lines = score if group == "row" else score.reshape(1, -1)
                    mask[:, now] = _lowest(lines, count * len(score) // len(lines)).reshape(
                        score.shape
                    )
                else:
                    mask[:, now] = nm_mask(score, *pattern)
            errors[:, i - start] = w[:, i] * mask[:, i] / u[i, i]
            w[:, i:end] -= errors[:, i - start, None] * u[i, i:end]
        w[:, end:] -= errors @ u[start:end, end:]
    return mask, w.masked_fill(mask, 0).to(weight.dtype)
