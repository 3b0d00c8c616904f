"""Strings to token ids to batches under a budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from tqdm import tqdm  # not tqdm.auto: its bars in notebooks ignore TQDM_DISABLE

from .models.language_model import LanguageModel


def encode(
    lm: LanguageModel, texts: Sequence[str], max_length: int | None = None
) -> list[list[int]]:
    """Token ids of texts that are to be continued.

    Special tokens that stand before a text are there, those that stand after it are not.

    A text that begins with the special tokens, written out, gets them once.

    Args:
        lm: The model whose tokenizer is asked.
        texts: Texts, each a list of ids in the result.
        max_length: Where longer ones are cut, on the right.

    Raises:
        TypeError: For one text in place of a list, or an item that is not text.
        ValueError: For no texts, a text without tokens, or a token that the model has no embedding
            for.
    """
    if isinstance(texts, str):
        raise TypeError("A list of texts is expected, not one string: put it into a list.")
    texts = list(texts)
    if not texts:
        raise ValueError("No texts given.")
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"Text {i} is {text!r}, a {type(text).__name__}; texts are expected.")
    tokenized = lm.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    all_ids = [_with_prefix(lm, list(ids))[:max_length] for ids in tokenized]
    for i, ids in enumerate(all_ids):
        _check_ids(lm, ids, i, texts[i])
    return all_ids


def _with_prefix(lm: LanguageModel, ids: list[int]) -> list[int]:
    length = len(lm.prefix)
    while length and ids[:length] == lm.prefix:
        ids = ids[length:]
    return lm.prefix + ids


def _check_ids(lm: LanguageModel, ids: list[int], number: int, text: str) -> None:
    if not ids:
        raise ValueError(f"Text {number} has no tokens: {text!r}.")
    if max(ids) >= lm.n_embeddings:
        token = lm.tokenizer.convert_ids_to_tokens(max(ids))
        raise ValueError(
            f"Text {number} holds the token {token!r} (id {max(ids)}), but {lm.name} has "
            f"embeddings for {lm.n_embeddings} tokens only: {text[:80]!r}. Remove it from the "
            "text, or load the tokenizer that belongs to this model."
        )


def run_in_batches(
    lengths: Sequence[int],
    token_budget: int,
    run: Callable[[list[int]], None],
    desc: str | None = None,
    *,
    equal_lengths: bool = False,
) -> None:
    """Call ``run(indices)`` on batches of similar length, longest first.

    A batch for which memory runs out is halved and tried again, so ``run`` must keep nothing of a
    failed batch.

    Args:
        lengths: Tokens of every item.
        token_budget: Padded tokens in a batch, at most; an item alone may have more.
        run: Called with the numbers of the items of a batch.
        desc: What a progress bar says, if there shall be one.
        equal_lengths: Whether all items of a batch have the same length.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    # TQDM_DISABLE counts only where ``disable`` is not given.
    silent = tqdm(disable=True)
    with tqdm(total=len(order), desc=desc, leave=False) if desc else silent as bar:
        while order:
            longest = lengths[order[0]]
            size = min(len(order), max(1, token_budget // max(1, longest)))
            if equal_lengths:
                size = sum(lengths[i] == longest for i in order[:size])
            try:
                run(order[:size])
                order = order[size:]
                bar.update(size)
                continue
            except RuntimeError as error:
                if size == 1 or not out_of_memory(error):
                    raise
            if torch.cuda.is_available():
                torch.cuda.empty_cache()  # here, where the error no longer holds tensors
            token_budget = size * longest // 2


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: the CPU's allocator raises a plain RuntimeError."""
    return isinstance(error, RuntimeError) and "memory" in str(error)


def padded(
    ids: Sequence[Sequence[int]],
    device: torch.device | str,
    length: int | None = None,
    side: str = "right",
) -> tuple[Tensor, Tensor]:
    """Padded ids and attention mask, both (batch, length).

    Which id pads does not matter to the real tokens: causal attention never looks right, the mask
    hides what is left.
    """
    width = length or max(map(len, ids))
    tokens = torch.zeros(len(ids), width, dtype=torch.long)
    mask = torch.zeros_like(tokens)
    for i, row in enumerate(ids):
        place = slice(len(row)) if side == "right" else slice(width - len(row), None)
        tokens[i, place] = torch.tensor(row)
        mask[i, place] = 1
    return tokens.to(device), mask.to(device)
