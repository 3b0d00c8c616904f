"""Walk through a model block by block, each fed with what the pruned ones before it put out."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from unittest.mock import patch

import torch
from torch import Tensor
from tqdm import tqdm

from ..activations import token_ids
from ..batching import padded, run_in_batches
from ..hooks import InputSquares, hidden_input
from ..models.language_model import LanguageModel


@dataclass
class _Batch:
    """Some calibration prompts on their way through the blocks."""

    hidden: Tensor
    counted: Tensor
    scale: float
    calls: list[
        tuple[tuple, dict]
    ]  # of every block: arguments after the hidden states, keyword arguments

    def run(self, block: torch.nn.Module, layer: int) -> Tensor:
        args, kwargs = self.calls[layer]
        with torch.inference_mode():
            output = block(self.hidden, *args, **kwargs)
        return output[0] if isinstance(output, tuple) else output


def _into_blocks(
    lm: LanguageModel, corpus: Mapping, max_length: int, padding: str, token_budget: int
) -> list[_Batch]:
    """What block 0 receives, and the other arguments of every block, without running any block."""
    kinds, found = [], []  # BLOOM's blocks return a tuple, as a pass of one token tells
    with (
        lm.layers[0].register_forward_hook(lambda module, args, output: kinds.append(type(output))),
        torch.inference_mode(),
    ):
        lm.decoder(input_ids=torch.zeros(1, 1, dtype=torch.long, device=lm.device), use_cache=False)
    for prompts in corpus.values():
        ids, lengths = token_ids(lm, prompts, max_length, padding)

        def run(indices: list[int], ids=ids, lengths=lengths) -> None:
            input_ids, mask = padded([ids[i] for i in indices], lm.device, lengths[indices[0]])
            batch = _Batch(
                None,
                mask.bool() | (padding == "counted"),
                1 / sum(lengths) if len(corpus) > 1 else 1.0,
                [],
            )

            def passed_through(*args, **kwargs):
                batch.hidden = hidden_input(args, kwargs)
                batch.calls.append(
                    (args[1:], {k: v for k, v in kwargs.items() if k != "hidden_states"})
                )
                return (batch.hidden,) if kinds[0] is tuple else batch.hidden

            with contextlib.ExitStack() as patches, torch.inference_mode():
                for block in lm.layers:  # patch also puts back what accelerate has put there
                    patches.enter_context(patch.object(block, "forward", passed_through))
                lm.decoder(input_ids=input_ids, attention_mask=mask, use_cache=False)
            found.append(batch)

        run_in_batches(lengths, token_budget, run)
    return found


def _block_by_block(
    lm, corpora, max_length, padding, token_budget, products: bool, propagate_error: bool
):
    """Yield (name, sums a corpus) of every matrix; the caller prunes a block's before the next block runs.

    Every block runs twice over the prompts: once dense, only until its last matrix has seen its input, and once
    pruned, to feed the next.  The last block runs once, and so do all if dense outputs feed the next.
    """
    streams = [_into_blocks(lm, corpus, max_length, padding, token_budget) for corpus in corpora]
    names_of, calls = {id(module): name for name, module in lm.prunable.items()}, {}
    for layer, block in enumerate(tqdm(lm.layers, desc="pruning", leave=False)):
        matrices = {names_of[id(m)]: m for m in block.modules() if id(m) in names_of}
        sums, stop_at = (
            [InputSquares(matrices, products) for _ in streams],
            calls.get(len(matrices)),
        )
        for batches, inputs in zip(streams, sums):
            for batch in batches:
                with inputs.counting(
                    batch.counted, batch.scale, stop_at if propagate_error else None
                ):
                    output = batch.run(block, layer)
                if not propagate_error:
                    batch.hidden = output
        calls[len(matrices)] = inputs.calls  # the first block of its kind has run to its end
        checked = [inputs.checked() for inputs in sums]
        yield from ((name, [squares[name] for squares in checked]) for name in matrices)
        if propagate_error and layer + 1 < len(lm.layers):
            for batch in (batch for batches in streams for batch in batches):
                batch.hidden = batch.run(block, layer)
