"""Strings to token ids to batches under a budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from tqdm import tqdm  # not tqdm.auto: its bars in notebooks ignore TQDM_DISABLE

from .models.language_model import LanguageModel


def encode(
    lm: LanguageModel, texts: Sequence[str], max_length: int | None = None
) -> list[list[int]]:
    """Token ids of each text, special tokens as the tokenizer adds them, cut on the right at ``max_length``."""
    if isinstance(texts, str):
        raise TypeError("A list of texts is expected, not one string: put it into a list.")
    if not texts:
        raise ValueError("No texts given.")
    ids = [list(x)[:max_length] for x in lm.tokenizer(list(texts), verbose=False)["input_ids"]]
    if empty := [i for i, x in enumerate(ids) if not x]:
        raise ValueError(f"Text {empty[0]} has no tokens: {texts[empty[0]]!r}.")
    return ids


def run_in_batches(
    lengths: Sequence[int],
    token_budget: int,
    run: Callable[[list[int]], None],
    desc: str | None = None,
) -> None:
    """Call ``run(indices)`` on batches of similar length, longest first, at most ``token_budget`` padded tokens each.

    ``desc``: what a progress bar says, if there shall be one.
    A batch for which memory runs out is halved and tried again, so ``run`` must keep nothing of a failed batch.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    with tqdm(
        total=len(order), desc=desc, leave=False, **({} if desc else {"disable": True})
    ) as bar:
        while order:
            size = min(len(order), max(1, token_budget // max(1, lengths[order[0]])))
            try:
                run(order[:size])
                order = order[size:]
                bar.update(size)
                continue
            except (
                RuntimeError
            ) as error:  # torch.OutOfMemoryError is one; the CPU allocator raises a plain one
                if size == 1 or "memory" not in str(error):
                    raise
            if torch.cuda.is_available():
                torch.cuda.empty_cache()  # out here, where the error no longer holds the batch's tensors
            token_budget = size * lengths[order[0]] // 2


def padded(
    ids: Sequence[Sequence[int]], device, length: int | None = None, side: str = "right"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Padded ids and attention mask, both (batch, length).

    Which id pads does not matter to the real tokens: causal attention never looks right, the mask hides what is left.
    """
    tokens = torch.zeros(len(ids), length or max(map(len, ids)), dtype=torch.long)
    mask = torch.zeros_like(tokens)
    for i, row in enumerate(ids):
        place = slice(len(row)) if side == "right" else slice(tokens.shape[1] - len(row), None)
        tokens[i, place], mask[i, place] = torch.tensor(row), 1
    return tokens.to(device), mask.to(device)
