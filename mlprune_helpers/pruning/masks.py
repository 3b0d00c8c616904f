"""Masks: True = pruned."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

GROUPS = ("row", "matrix", "model")


def unstructured_mask(score: Tensor, sparsity: float, *, group: str = "row") -> Tensor:
    """The lowest ``floor(sparsity · n)`` scores of each "row", or of the "matrix" → True; of equal ones, the first."""
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity is {sparsity}; allowed: a number in [0, 1), or text 'n:m'.")
    if group not in ("row", "matrix"):
        raise ValueError(
            f"group is {group!r}; allowed for one matrix: row, matrix. For several: global_masks."
        )
    if score.isnan().any():
        raise ValueError(
            "Some scores are not a number, so they have no order; look for NaN in weights and norms."
        )
    rows = score if group == "row" else score.reshape(1, -1)
    # 0.3 * 10 is 3.0000000000000004 or 2.9999999999999996 in other cases: the tiny addend keeps the exact product.
    return _lowest(rows, int(sparsity * rows.shape[1] + 1e-9)).reshape(score.shape)


def _lowest(rows: Tensor, count: int) -> Tensor:
    if count == 0:
        return torch.zeros_like(rows, dtype=torch.bool)
    threshold = rows.kthvalue(count, dim=1, keepdim=True).values
    mask = rows <= threshold
    over = mask.sum(dim=1) > count
    if over.any():  # ties at the threshold: keep the last of them
        tied = rows[over] == threshold[over]
        room = count - (rows[over] < threshold[over]).sum(dim=1, keepdim=True)
        mask[over] = (rows[over] < threshold[over]) | (tied & (tied.cumsum(dim=1) <= room))
    return mask


def global_masks(scores: Mapping[str, Tensor], sparsity: float) -> dict[str, Tensor]:
    """The lowest ``floor(sparsity · n)`` of the scores of all matrices together → {name: mask}."""
    flat = torch.cat([score.flatten().cpu() for score in scores.values()])
    parts = unstructured_mask(flat, sparsity, group="matrix").split(
        [score.numel() for score in scores.values()]
    )
    return {name: part.reshape(score.shape) for (name, score), part in zip(scores.items(), parts)}


def nm_mask(score: Tensor, n: int, m: int) -> Tensor:
    """N:M sparsity: of every ``m`` neighbours in a row, the ``n`` lowest scores → True."""
    if not 0 < n < m:
        raise ValueError(f"sparsity is '{n}:{m}'; allowed: 'n:m' with 0 < n < m, such as '2:4'.")
    if score.shape[1] % m:
        raise ValueError(
            f"'{n}:{m}' needs rows that divide by {m}; this matrix has {score.shape[1]} columns."
        )
    return unstructured_mask(score.reshape(-1, m), n / m).reshape(score.shape)
