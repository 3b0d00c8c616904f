"""The one place that knows one architecture from another: where blocks, matrices and heads are."""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D


class ModelError(RuntimeError):
    """A model cannot be loaded or does not have the shape this package works on."""


def weight_matrix(module: nn.Module) -> torch.Tensor:
    """The weight as an (out_features, in_features) view; writing to it changes the module.

    ``Linear`` stores it this way round, GPT-2's ``Conv1D`` the other.
    """
    if isinstance(module, Conv1D):
        return module.weight.detach().T
    if isinstance(module, nn.Linear):
        return module.weight.detach()
    raise TypeError(
        f"weight_matrix takes a torch Linear or a transformers Conv1D, not {type(module).__name__}."
    )


def _decoder_blocks(model: PreTrainedModel) -> tuple[str, list[nn.Module]]:
    """Qualified name and contents of the one ModuleList that holds ``num_hidden_layers`` blocks."""
    config = model.config.get_text_config()
    n_layers = config.num_hidden_layers
    found = [
        (name, list(module))
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList)
        and len(module) == n_layers
        and len({type(b) for b in module}) == 1
    ]
    # A list inside a block (experts, say) may happen to have the same length: the blocks are outermost.
    found = [(n, b) for n, b in found if not any(n.startswith(other + ".") for other, _ in found)]
    if len(found) != 1:
        raise ModelError(
            f"{type(model).__name__}: expected one list of {n_layers} decoder blocks of one type, found "
            f"{[name for name, _ in found] or 'none'}. This package works on plain decoder-only transformers."
        )
    return found[0]
