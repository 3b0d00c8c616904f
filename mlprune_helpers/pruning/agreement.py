"""How far two ways of pruning agree on what goes: the check that a manipulation did something."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..models.architecture import weight_matrix
from ..models.language_model import LanguageModel


def zero_weights(lm: LanguageModel) -> dict[str, Tensor]:
    """Where weights are zero already.

    Every score but a random one prunes these first, so two masks agree on them whatever the
    calibration data; a comparison of masks leaves them out.

    Returns:
        {prunable name: bool (out_features, in_features)}, on the CPU.
    """
    return {name: (weight_matrix(module) == 0).cpu() for name, module in lm.prunable.items()}


def mask_agreement(
    a: Mapping[str, Tensor],
    b: Mapping[str, Tensor],
    *,
    leave_out: Mapping[str, Tensor] | None = None,
) -> float:
    """Share of the weights that ``a`` prunes which ``b`` prunes too.

    Two masks that know nothing of each other reach the sparsity of ``b``; equal ones reach 1.

    Args:
        a: {prunable name: bool (out_features, in_features)}, True = pruned: ``report.masks``.
        b: Masks of the same matrices.
        leave_out: Weights that do not count, such as :func:`zero_weights` of the dense model.

    Returns:
        A share from 0 to 1.

    Raises:
        ValueError: The masks are of other matrices or shapes, or ``a`` prunes nothing that counts.
        TypeError: A mask is no bool tensor.
    """
    for name, others in (("b", b), ("leave_out", a if leave_out is None else leave_out)):
        if a.keys() != others.keys():
            odd = sorted(a.keys() ^ others.keys())[0]
            raise ValueError(
                f"a and {name} are masks of different matrices: {odd!r} is in one only."
            )
    n_pruned = n_common = 0
    for name, mine in a.items():
        counted = mine if leave_out is None else mine & ~_checked(name, leave_out[name], mine)
        n_pruned += int(counted.sum())
        n_common += int((counted & _checked(name, b[name], mine)).sum())
    if not n_pruned:
        raise ValueError("a prunes no weight that counts; raise the sparsity.")
    return n_common / n_pruned


def _checked(name: str, mask: Tensor, like: Tensor) -> Tensor:
    """A mask, if it is one and of the right shape."""
    for one in (mask, like):
        if not isinstance(one, Tensor) or one.dtype != torch.bool:
            raise TypeError(f"The mask of {name!r} is {type(one).__name__}; needed: a bool tensor.")
    if mask.shape != like.shape:
        raise ValueError(
            f"The masks of {name!r} have the shapes {tuple(like.shape)} and {tuple(mask.shape)}."
        )
    return mask
