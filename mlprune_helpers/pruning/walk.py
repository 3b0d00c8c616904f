"""Through a model block by block, each fed by the pruned ones before it (arXiv 2306.11695)."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..activations import token_ids
from ..batching import padded, run_in_batches
from ..hooks import InputSums
from ..models.architecture import BlockCall
from ..models.language_model import LanguageModel

#: Sums over the inputs of one matrix, by kind.
Sums = dict[str, Tensor]


@dataclass
class Batch:
    """Some calibration prompts on their way through the blocks.

    Attributes:
        hidden: What the next block receives (batch, length, hidden_size).
        counted: Positions that are summed up, bool (batch, length).
        weight: What every position counts.
        calls: How each block is called, apart from the hidden states.
    """

    hidden: Tensor
    counted: Tensor
    weight: float
    calls: list[BlockCall]

    def through(self, block: nn.Module, layer: int) -> Tensor:
        """What the block makes of the hidden states."""
        with torch.inference_mode():
            return self.calls[layer].repeat(block, self.hidden)


def block_by_block(
    lm: LanguageModel,
    corpora: Sequence[Mapping[str, Sequence[str]]],
    *,
    kinds: Collection[str],
    max_length: int | None,
    padding: str,
    token_budget: int,
    propagate_error: bool,
) -> Iterator[tuple[str, list[Sums]]]:
    """Sums over the inputs of every matrix, in order.

    The caller prunes a block's before the next block runs.

    Every block runs twice over the prompts: once dense, only until its last matrix has seen its
    input, and once pruned, to feed the next.  The last block runs once, and so do all if dense
    outputs feed the next.

    Args:
        lm: The model.
        corpora: Each {part: prompts}; every part of a corpus counts the same, every token of a part
            counts the same.
        kinds: Which sums, as :class:`~mlprune_helpers.hooks.InputSums` has them.
        max_length, padding, token_budget: As in :func:`~mlprune_helpers.collect_activations`.
        propagate_error: Whether pruned blocks feed the next one, or dense ones.

    Yields:
        The name of a matrix, and its sums in each corpus.
    """
    streams = [into_blocks(lm, corpus, max_length, padding, token_budget) for corpus in corpora]
    calls_of: dict[int, int] = {}
    for layer, block in enumerate(tqdm(lm.layers, desc="pruning", leave=False)):
        matrices = _matrices_of(lm, block)
        stop_at = calls_of.get(len(matrices)) if propagate_error else None
        found = []
        for batches in streams:
            sums = InputSums(matrices, kinds)
            _measure(sums, batches, block, layer, stop_at, keep_output=not propagate_error)
            calls_of[len(matrices)] = sums.calls  # the first block of its kind has run to its end
            found.append(sums.checked())
        for name in matrices:
            yield name, [of_corpus[name] for of_corpus in found]
        if propagate_error and layer + 1 < len(lm.layers):
            for batches in streams:
                _advance(batches, block, layer)


def _matrices_of(lm: LanguageModel, block: nn.Module) -> dict[str, nn.Module]:
    """The prunable matrices inside one block, by their names."""
    inside = {id(module) for module in block.modules()}
    return {name: module for name, module in lm.prunable.items() if id(module) in inside}


def _measure(
    sums: InputSums,
    batches: list[Batch],
    block: nn.Module,
    layer: int,
    stop_at: int | None,
    keep_output: bool,
) -> None:
    for batch in batches:
        output = None
        with sums.counting(batch.counted, batch.weight, stop_at):
            output = batch.through(block, layer)
        if keep_output and output is not None:
            batch.hidden = output


def _advance(batches: list[Batch], block: nn.Module, layer: int) -> None:
    for batch in batches:
        batch.hidden = batch.through(block, layer)


def into_blocks(
    lm: LanguageModel,
    corpus: Mapping[str, Sequence[str]],
    max_length: int | None,
    padding: str,
    token_budget: int,
) -> list[Batch]:
    """What block 0 receives of every batch of prompts, without running any block."""
    found: list[Batch] = []
    for prompts in corpus.values():
        ids, lengths = token_ids(lm, prompts, max_length, padding)
        weight = 1 / sum(lengths) if len(corpus) > 1 else 1.0
        entry = _Entry(lm, ids, lengths, counts_padding=padding == "counted", weight=weight)
        run_in_batches(lengths, token_budget, entry.add)
        found += entry.batches
    return found


class _Entry:
    """Batches of one part of a corpus, as they enter the first block."""

    def __init__(
        self,
        lm: LanguageModel,
        ids: list[list[int]],
        lengths: list[int],
        *,
        counts_padding: bool,
        weight: float,
    ):
        self.lm = lm
        self.ids = ids
        self.lengths = lengths
        self.counts_padding = counts_padding
        self.weight = weight
        self.batches: list[Batch] = []

    def add(self, indices: list[int]) -> None:
        rows = [self.ids[i] for i in indices]
        input_ids, mask = padded(rows, self.lm.device, self.lengths[indices[0]])
        with torch.inference_mode():
            hidden, calls = self.lm.into_blocks(input_ids, mask)
        counted = mask.bool() | self.counts_padding
        self.batches.append(Batch(hidden, counted, self.weight, calls))
