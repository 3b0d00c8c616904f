"""Masks: True = pruned."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from .sparsity import check_pattern, parse_sparsity

#: Where scores are compared: within each row of a matrix, within a matrix, over all matrices of a
#: model.
GROUPS = ("row", "matrix", "model")


def unstructured_mask(score: Tensor, sparsity: float, *, group: str = "row") -> Tensor:
    """Mark the lowest scores of a matrix; of equal ones, the first.

    Args:
        score: (out_features, in_features).
        sparsity: The share to mark, in [0, 1).
        group: "row": the lowest ``floor(sparsity · in_features)`` of each row; "matrix": the lowest
            ``floor(sparsity · n)`` of all n.

    Returns:
        A bool tensor of the same shape, True = pruned.

    Raises:
        ValueError: For a sparsity or group that is not allowed, or scores that are not a number.
    """
    share = parse_sparsity(sparsity)
    if not isinstance(share, float):
        raise ValueError(f"sparsity is {sparsity!r}; for a pattern n:m, call nm_mask.")
    if group not in ("row", "matrix"):
        raise ValueError(
            f"group is {group!r}; allowed for one matrix: row, matrix. For several: global_masks."
        )
    if score.isnan().any():
        raise ValueError(
            "Some scores are not a number, so they have no order; look for NaN in weights and "
            "norms."
        )
    lines = score if group == "row" else score.reshape(1, -1)
    return lowest(lines, whole_number(share * lines.shape[1])).reshape(score.shape)


def global_masks(scores: Mapping[str, Tensor], sparsity: float) -> dict[str, Tensor]:
    """Mark the lowest ``floor(sparsity · n)`` of the n scores of all matrices together.

    Args:
        scores: {name: (out_features, in_features)}.
        sparsity: The share to mark, in [0, 1).

    Returns:
        {name: mask}, on the CPU.
    """
    flat = torch.cat([score.flatten().cpu() for score in scores.values()])
    mask = unstructured_mask(flat, sparsity, group="matrix")
    parts = mask.split([score.numel() for score in scores.values()])
    return {
        name: part.reshape(score.shape)
        for (name, score), part in zip(scores.items(), parts, strict=True)
    }


def nm_mask(score: Tensor, n: int, m: int) -> Tensor:
    """N:M sparsity: of every ``m`` neighbours in a row, mark the ``n`` lowest scores.

    Args:
        score: (out_features, in_features).
        n: How many of them to mark.
        m: How many neighbours; must divide in_features.

    Returns:
        A bool tensor of the same shape, True = pruned.

    Raises:
        ValueError: Unless 0 < n < m, and m divides in_features.
    """
    check_pattern(n, m)
    if score.shape[1] % m:
        raise ValueError(
            f"'{n}:{m}' needs rows that divide by {m}; this matrix has {score.shape[1]} columns."
        )
    return unstructured_mask(score.reshape(-1, m), n / m).reshape(score.shape)


def whole_number(share_of_many: float) -> int:
    """The floor of a product such as 0.29 · 100, which floats put at 28.999999999999996."""
    return int(share_of_many + 1e-9)


def lowest(rows: Tensor, count: int) -> Tensor:
    """Mark exactly ``count`` lowest values of each row; of equal ones, the first."""
    if count == 0:
        return torch.zeros_like(rows, dtype=torch.bool)
    threshold = rows.kthvalue(count, dim=1, keepdim=True).values
    mask = rows <= threshold
    over = mask.sum(dim=1) > count
    if over.any():  # ties at the threshold: keep the last of them
        below = rows[over] < threshold[over]
        tied = rows[over] == threshold[over]
        room = count - below.sum(dim=1, keepdim=True)
        mask[over] = below | (tied & (tied.cumsum(dim=1) <= room))
    return mask


def checked_mask(name: str, mask: Tensor | np.ndarray, shape: torch.Size) -> Tensor:
    """A mask of the matrix ``name``, checked to be bool and of the matrix's shape.

    Numbers are refused, not converted: 0 and 1 may be meant as masks, as places, or as what is
    kept.
    """
    if isinstance(mask, np.ndarray):
        mask = torch.from_numpy(np.ascontiguousarray(mask))
    if not isinstance(mask, Tensor):
        raise TypeError(f"The mask of {name} is a {type(mask).__name__}; allowed: a bool tensor.")
    if mask.dtype != torch.bool:
        raise ValueError(
            f"The mask of {name} holds {mask.dtype}; allowed: bool, True = pruned. Where 1 means "
            "pruned, pass mask.bool()."
        )
    if mask.shape != shape:
        raise ValueError(f"The mask of {name} is {tuple(mask.shape)}, its weight {tuple(shape)}.")
    return mask
