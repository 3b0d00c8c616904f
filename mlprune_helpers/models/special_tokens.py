"""Which special tokens a tokenizer puts around a text: learnt from what it does."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from .architecture import ModelError

#: Two texts without a word in common, of several tokens each.
SAMPLES = ("The cat sleeps, 12 times.", "Une maison rouge près d'ici")


@dataclass(frozen=True)
class SpecialTokens:
    """Ids that stand before and after the tokens of every text."""

    prefix: list[int]
    suffix: list[int]


def learn_special_tokens(name: str, tokenizer: PreTrainedTokenizerBase) -> SpecialTokens:
    """Compare what the tokenizer makes of texts with and without its special tokens.

    Raises:
        ModelError: Where the special tokens are not the same around every text.
    """
    found = []
    for text in SAMPLES:
        plain = list(tokenizer(text, add_special_tokens=False)["input_ids"])
        whole = list(tokenizer(text)["input_ids"])
        begin = _position(plain, whole)
        if not plain or begin is None:
            raise ModelError(
                f"{name}: its tokenizer does not simply put special tokens before and after a "
                f"text: {text!r} becomes {whole} with them and {plain} without. Pass a tokenizer "
                "that does."
            )
        found.append(SpecialTokens(whole[:begin], whole[begin + len(plain) :]))
    if found[0] != found[1]:
        raise ModelError(
            f"{name}: its tokenizer puts {found[0]} around one text and {found[1]} around another. "
            "Pass a tokenizer that puts the same around every text."
        )
    return found[0]


def _position(part: list[int], whole: list[int]) -> int | None:
    for begin in range(len(whole) - len(part) + 1):
        if whole[begin : begin + len(part)] == part:
            return begin
    return None
