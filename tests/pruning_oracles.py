"""Wanda written out plainly, and other oracles of the tests of pruning."""

import copy
import re

import numpy as np
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

CODE = ["def f(x):\n    return x + 1\n", "for i in range(10): print(i)", "import os"]


def matrices(lm):
    """{(block number, name): module}, found without the package."""
    found = {}
    for name, module in lm.model.named_modules():
        place = re.search(r"\.(?:layers|h)\.(\d+)\.", name)
        if place and isinstance(module, (nn.Linear, Conv1D)):
            found[int(place[1]), name] = module
    return found


def upright(module):
    """(out, in), a view."""
    return module.weight.data.T if isinstance(module, Conv1D) else module.weight.data


def input_norms(lm, modules, prompts, max_length=512, counted=False):
    """L2 norm of what each module receives; the whole model runs on one prompt at a time."""
    squares = {name: 0 for name in modules}
    handles = []
    for name, module in modules.items():

        def hook(module, args, output, name=name):
            squares[name] = squares[name] + args[0].detach().reshape(
                -1, args[0].shape[-1]
            ).double().square().sum(0)

        handles.append(module.register_forward_hook(hook))
    for prompt in prompts:
        ids = lm.tokenizer(prompt)["input_ids"][:max_length]
        fill = max_length - len(ids) if counted else 0
        with torch.no_grad():
            lm.model(
                torch.tensor([ids + [0] * fill]),
                attention_mask=torch.tensor([[1] * len(ids) + [0] * fill]),
            )
    for handle in handles:
        handle.remove()
    return {name: value.sqrt() for name, value in squares.items()}


def brute_force(
    lm, prompts, sparsity, *, contrast=None, propagate=True, max_length=512, counted=False
):
    """(masks, scores) of Wanda; prunes ``lm``.  The model runs anew for every block."""
    masks, scores = {}, {}
    found = matrices(lm)
    every = {name: module for (_, name), module in found.items()}
    dense = copy.deepcopy(lm)
    dense_modules = {name: module for (_, name), module in matrices(dense).items()}
    for block in range(len({number for number, _ in found})):
        of_block = [name for number, name in found if number == block]
        seen, modules = (lm, every) if propagate else (dense, dense_modules)
        modules = {name: modules[name] for name in of_block}
        norms = input_norms(seen, modules, prompts, max_length, counted)
        if contrast is not None:
            other = input_norms(seen, modules, contrast, max_length, counted)
            norms = {
                name: norms[name] ** 2 / (other[name] + 1e-6 * other[name].mean()) for name in norms
            }
        for name in of_block:
            weight = upright(every[name])
            scores[name] = weight.abs().double() * norms[name]
            order = scores[name].argsort(dim=1, stable=True)
            masks[name] = torch.zeros_like(weight, dtype=torch.bool)
            for row in range(len(weight)):
                masks[name][row, order[row, : int(sparsity * weight.shape[1])]] = True
        for name in of_block:
            upright(every[name])[masks[name]] = 0
    return masks, scores


def assert_same(got, expected, scores, allowed_ties=2):
    """Masks are equal.

    A row may differ only where rounding decides: its scores at the border differ by 1e-5.
    """
    assert list(got) == list(expected)
    differing = 0
    for name in expected:
        assert got[name].shape == expected[name].shape and got[name].dtype == torch.bool
        assert torch.equal(got[name].sum(1), expected[name].sum(1)), name
        for row in torch.where((got[name] != expected[name]).any(1))[0]:
            changed = scores[name][row][got[name][row] != expected[name][row]]
            assert changed.max() - changed.min() <= 1e-5 * changed.max(), (name, int(row), changed)
            differing += 1
    assert differing <= allowed_ties


def logits_of(lm, text):
    with torch.no_grad():
        return lm.model(torch.tensor([lm.tokenizer(text)["input_ids"]])).logits


def weights_of(lm):
    return {name: tensor.clone() for name, tensor in lm.model.state_dict().items()}


def assert_untouched(lm, before):
    for name, tensor in lm.model.state_dict().items():
        assert torch.equal(tensor.view(torch.int32), before[name].view(torch.int32)), name


def stable_oracle(scores, count):
    mask = np.zeros(scores.shape, dtype=bool)
    for row, values in enumerate(scores):
        ranked = sorted(range(len(values)), key=lambda i: (values[i], i))
        mask[row, ranked[:count]] = True
    return mask
