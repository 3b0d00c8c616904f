"""Scores: (out_features, in_features), the lowest is pruned first."""

from __future__ import annotations

import torch
from torch import Tensor


def wanda_score(weight: Tensor, input_norm: Tensor) -> Tensor:
    """Wanda, ``|W_ij| · ‖X_j‖₂`` (Sun et al., arXiv 2306.11695, eq. 1).

    Args:
        weight: (out_features, in_features).
        input_norm: (in_features,), L2 norm of every input feature over the calibration tokens.

    Returns:
        (out_features, in_features).

    Example:
        >>> wanda_score(torch.tensor([[1.0, -2.0]]), torch.tensor([3.0, 0.25]))
        tensor([[3.0000, 0.5000]])
    """
    return weight.abs() * input_norm.to(weight)


def ria_score(weight: Tensor, input_norm: Tensor, power: float = 0.5) -> Tensor:
    """RIA, ``(|W_ij| / Σ_k |W_kj| + |W_ij| / Σ_k |W_ik|) · ‖X_j‖₂^power``.

    Source: Zhang et al., "Plug-and-Play", ICLR 2024.

    Args:
        weight: (out_features, in_features).
        input_norm: (in_features,), L2 norm of every input feature over the calibration tokens.
        power: How much the inputs count; 0 leaves them out.

    Returns:
        (out_features, in_features).
    """
    size = weight.abs()
    tiny = torch.finfo(weight.dtype).tiny  # a row or column of zeros has no shares
    of_column = size / size.sum(dim=0).clamp_min(tiny)
    of_row = size / size.sum(dim=1, keepdim=True).clamp_min(tiny)
    return (of_column + of_row) * input_norm.to(weight) ** power


def magnitude_score(weight: Tensor) -> Tensor:
    """Magnitude, ``|W_ij|``: no data at all."""
    return weight.abs()


def random_score(weight: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform noise: with exact counts, an equal number of random weights in every row."""
    return torch.rand(weight.shape, generator=generator).to(weight.device)


def refined_norm(base: Tensor, contrast: Tensor, eps: float = 1e-6) -> Tensor:
    """‖X_base‖² / ‖X_contrast‖ per feature (arXiv 2409.16911, for models trained on code).

    Features that are large in the base (translation) and small in the contrast (code) stand out.

    Args:
        base: (in_features,), L2 norms over the tokens of what to favour.
        contrast: (in_features,), L2 norms over the tokens of what not to favour.
        eps: Times the mean contrast, it is added below the line: without it a feature that the
            contrast never uses is infinite.

    Returns:
        (in_features,).  A contrast that uses no feature sets none apart.
    """
    if not contrast.any():
        return base.square()
    return base.square() / (contrast + eps * contrast.mean())


def refined_score(
    weight: Tensor, input_norm: Tensor, contrast_norm: Tensor, eps: float = 1e-6
) -> Tensor:
    """|W_ij| · ‖X_j‖² / ‖C_j‖: Wanda's score with the norm of :func:`refined_norm`."""
    return wanda_score(weight, refined_norm(input_norm, contrast_norm, eps))
