"""Scores: (out_features, in_features), the lowest is pruned first."""

from __future__ import annotations

import torch
from torch import Tensor


def wanda_score(weight: Tensor, input_norm: Tensor) -> Tensor:
    """|W_ij| · ‖X_j‖₂ (Sun et al., arXiv 2306.11695, eq. 1); ``input_norm`` (in,): over the calibration tokens."""
    return weight.abs() * input_norm.to(weight)


def ria_score(weight: Tensor, input_norm: Tensor, power: float = 0.5) -> Tensor:
    """(|W_ij| / Σ_k |W_kj| + |W_ij| / Σ_k |W_ik|) · ‖X_j‖₂^power: RIA (Zhang et al., ICLR 2024, "Plug-and-Play")."""
    size, tiny = weight.abs(), torch.finfo(weight.dtype).tiny
    share = size / size.sum(dim=0).clamp_min(tiny) + size / size.sum(dim=1, keepdim=True).clamp_min(
        tiny
    )
    return share * input_norm.to(weight) ** power


def magnitude_score(weight: Tensor) -> Tensor:
    """|W_ij|: no data at all."""
    return weight.abs()


def random_score(weight: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform noise: with a mask of exact counts, an equal number of random weights in every row."""
    return torch.rand(weight.shape, generator=generator).to(weight.device)


def refined_norm(base: Tensor, contrast: Tensor, eps: float = 1e-6) -> Tensor:
    """‖X_base‖² / ‖X_contrast‖ per feature (arXiv 2409.16911, for models trained on code).

    Features that are large in the base (translation) and small in the contrast (code) stand out.  ``eps``, times
    the mean contrast, is added below the line: without it a feature that the contrast never uses is infinite.  A
    contrast that uses none sets none apart.
    """
    return base.square() / (contrast + eps * contrast.mean()) if contrast.any() else base.square()


SCORES = {"wanda": wanda_score, "ria": ria_score, "magnitude": magnitude_score}
SCORES["refined"] = lambda weight, base, contrast: wanda_score(weight, refined_norm(base, contrast))


METHODS, DATA_FREE = (*SCORES, "random", "sparsegpt"), ("magnitude", "random")
