"""Few-shot translation, the language of its outputs, and rows in the model's own English."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from .batching import encode, padded, run_in_batches
from .data.languages import LANGUAGES, DataError
from .data.tasks import declared_task
from .models.language_model import LanguageModel
from .prompts import translation_prompt


def translate(
    lm: LanguageModel,
    sentences: Sequence[str],
    source: str,
    target: str,
    demonstrations: str | Sequence[str] = "",
    *,
    max_new_tokens: int = 64,
    separator: str = "\n",
    token_budget: int = 4096,
) -> list[str]:
    """Greedy few-shot translation, whatever the checkpoint's own settings for generation say.

    Demonstrations that all sentences share are run once.  A sentence that is finished leaves its
    batch.

    Args:
        lm: The model.
        sentences: Texts in the language ``source``.
        source, target: Codes of languages, such as "fr" and "en".
        demonstrations: One prefix for all sentences, or one a sentence (``build_demonstrations``
            with as many ``n_prompts``); empty for zero-shot.
        max_new_tokens: Where an output that does not end is cut.
        separator: Ends a sentence in the demonstrations, and an output.
        token_budget: Padded tokens in a batch, outputs included; results do not depend on it.

    Returns:
        An output a sentence.  It ends at the first separator or where the model starts another pair
        (``French:``), so a pair that it made up is never part of it.

    Raises:
        ValueError: For settings that are not allowed, more tokens than the model has positions for,
            or hidden states that are not finite.
    """
    sentences = _texts("sentences", sentences)
    _check_languages(source, target)
    if (
        isinstance(max_new_tokens, bool)
        or not isinstance(max_new_tokens, int)
        or max_new_tokens < 1
    ):
        raise ValueError(f"max_new_tokens is {max_new_tokens!r}; allowed: a whole number from 1.")
    if isinstance(demonstrations, str):
        prefixes = [demonstrations] * len(sentences)
    else:
        prefixes = _texts("demonstrations", demonstrations)
    if len(prefixes) != len(sentences):
        raise ValueError(
            f"{len(prefixes)} demonstrations for {len(sentences)} sentences; give one, or one a "
            "sentence."
        )
    prompts = [
        translation_prompt(sentence, source, target, prefix, separator)
        for sentence, prefix in zip(sentences, prefixes)
    ]
    ids = encode(lm, prompts)
    lm.check_length(max(map(len, ids)) + max_new_tokens - 1)  # the last token is not fed
    ends = [mark for mark in (separator, f"{LANGUAGES[source]}:", f"{LANGUAGES[target]}:") if mark]
    continuation = _Continuation(lm, ids, ends, max_new_tokens)
    continuation.run(token_budget, f"{LANGUAGES[source]} to {LANGUAGES[target]}")
    return [continuation.outputs[number] for number in range(len(ids))]


def _texts(name: str, texts: Iterable[str]) -> list[str]:
    if isinstance(texts, str):
        raise TypeError(f"{name} is one string; a list of texts is expected: put it into a list.")
    texts = list(texts)
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"{name}: item {number} is {text!r}; texts are expected.")
    return texts


def _check_languages(*codes: str) -> None:
    for code in codes:
        if code not in LANGUAGES:
            raise DataError(f"language {code!r}; allowed: {', '.join(LANGUAGES)}.")


class _Continuation:
    """Prompts continued greedily, in batches, each until one of the ends appears in its text."""

    def __init__(
        self, lm: LanguageModel, ids: list[list[int]], ends: list[str], max_new_tokens: int
    ):
        self.lm = lm
        self.ids = ids
        self.ends = re.compile("|".join(map(re.escape, ends)))
        self.max_new_tokens = max_new_tokens
        self.outputs: dict[int, str] = {}
        #: Leading tokens that all prompts share, demonstrations among them, and their keys and
        #: values.
        self.shared = _shared_length(ids)
        self.shared_cache: DynamicCache | None = None

    def run(self, token_budget: int, desc: str) -> None:
        with torch.inference_mode():
            self.shared_cache = self._run_shared()
            if self.shared_cache is None:
                self.shared = 0
            lengths = [len(row) - self.shared + self.max_new_tokens for row in self.ids]
            equal = not self.lm.pads_left
            run_in_batches(lengths, token_budget, self._continue, desc, equal_lengths=equal)

    def _run_shared(self) -> DynamicCache | None:
        """Keys and values of what all prompts share.

        None where nothing is, or the model keeps them otherwise.
        """
        if len(self.ids) == 1 or not self.shared:
            return None
        ids = torch.tensor([self.ids[0][: self.shared]])
        # One without windows: a cache that forgets could not be cut to what a shorter prompt needs.
        cache = DynamicCache()
        self.lm.run(ids, torch.ones_like(ids), use_cache=True, past_key_values=cache)
        kept_whole = all(
            type(layer) is DynamicLayer and layer.get_seq_length() == self.shared
            for layer in cache.layers
        )
        return cache if cache.layers and kept_whole else None

    def _continue(self, numbers: list[int]) -> None:
        """Continue some prompts in one batch until all of them have ended."""
        rows = [self.ids[number] for number in numbers]
        input_ids, mask, cache = self._entry(rows)
        active = list(range(len(rows)))
        generated: list[list[int]] = [[] for _ in rows]
        for step in range(self.max_new_tokens):
            output = self.lm.run(input_ids, mask, use_cache=True, past_key_values=cache)
            tokens = self.lm.logits(output[0][:, -1]).argmax(dim=-1).tolist()
            for row, token in zip(active, tokens):
                generated[row].append(token)
            texts = self._decoded([generated[row] for row in active])
            going_on = [
                place
                for place, (token, text) in enumerate(zip(tokens, texts))
                if token not in self.lm.end_tokens and not self.ends.search(text)
            ]
            if not going_on or step + 1 == self.max_new_tokens:
                break
            if len(going_on) < len(active):
                cache.batch_select_indices(torch.tensor(going_on, device=self.lm.device))
                active = [active[place] for place in going_on]
                mask = mask[going_on]
            input_ids = torch.tensor([[tokens[place]] for place in going_on])
            mask = torch.cat([mask, torch.ones(len(active), 1, dtype=mask.dtype)], dim=1)
        for number, text in zip(numbers, self._decoded(generated)):
            self.outputs[number] = self.ends.split(text)[0].strip()

    def _decoded(self, generated: list[list[int]]) -> list[str]:
        return self.lm.tokenizer.batch_decode(generated, skip_special_tokens=True)

    def _entry(self, rows: list[list[int]]) -> tuple[Tensor, Tensor, DynamicCache]:
        """What is fed first (batch, width), the mask (batch, cached + width), and the cache.

        All prompts end together.  What is fed of each are its last ``width`` tokens; those before
        come from the shared cache, padded on the left.  So nothing stands between the tokens of a
        prompt, and windows of attention reach as far back as they would in the prompt alone.
        """
        width = max(len(row) for row in rows) - self.shared
        n_cached = [max(0, len(row) - width) for row in rows]
        fed = [row[cached:] for row, cached in zip(rows, n_cached)]
        input_ids, mask = padded(fed, "cpu", length=width, side="left")
        if self.shared_cache is None:
            return input_ids, mask, DynamicCache()
        columns = max(n_cached)
        cached_mask = torch.tensor([[0] * (columns - n) + [1] * n for n in n_cached])
        cache = _padded_cache(self.shared_cache, n_cached)
        return input_ids, torch.cat([cached_mask, mask], dim=1), cache


def _shared_length(ids: list[list[int]]) -> int:
    """Leading tokens that all have in common; the last token of each is always fed."""
    shortest = min(len(row) for row in ids) - 1
    for position in range(shortest):
        if len({row[position] for row in ids}) > 1:
            return position
    return shortest


def _padded_cache(shared: DynamicCache, lengths: list[int]) -> DynamicCache:
    """Rows that hold the first so many tokens of a cache of one row, padded on the left."""
    columns = max(lengths)
    cache = DynamicCache()
    for number, layer in enumerate(shared.layers):
        kept = []
        for whole in cast(tuple[Tensor, Tensor], (layer.keys, layer.values)):  # type: ignore[union-attr]
            _, heads, _, size = whole.shape
            part = whole.new_zeros(len(lengths), heads, columns, size)
            for row, length in enumerate(lengths):
                part[row, :, columns - length :] = whole[0, :, :length]
            kept.append(part)
        cache.update(kept[0], kept[1], number)
    return cache


# -- what came out ---------------------------------------------------------------------------------


def right_language(texts: Sequence[str], language: str) -> np.ndarray:
    """Whether lingua takes each text for ``language`` rather than another of ``LANGUAGES``.

    Args:
        texts: Texts (n,).
        language: Code of a language, such as "fr".

    Returns:
        Bool (n,); False for an empty text.

    Raises:
        DataError: For a code that is not known, or a language that lingua does not know (Burmese).
    """
    texts = _texts("texts", texts)
    _check_languages(language)
    known, detector = _detector()
    wanted = known.get(LANGUAGES[language])
    if wanted is None:
        raise DataError(f"lingua does not know {LANGUAGES[language]}; it knows {', '.join(known)}.")
    told = [bool(text.strip()) and detector.detect_language_of(text) == wanted for text in texts]
    return np.array(told, dtype=bool)


@functools.cache
def _detector() -> tuple[dict[str, Any], Any]:
    """Languages that lingua knows, by their English names, and a detector that tells them apart."""
    from lingua import Language, LanguageDetectorBuilder

    ours = set(LANGUAGES.values())
    known = {item.name.title(): item for item in Language.all() if item.name.title() in ours}
    return known, LanguageDetectorBuilder.from_languages(*known.values()).build()


def self_translate(
    lm: LanguageModel,
    task: str,
    examples: Dataset | Sequence[Mapping[str, Any]],
    language: str,
    demonstrations: str = "",
    **options: Any,
) -> Dataset:
    """Rows of a task in the model's own English (Etxaniz et al., arXiv 2308.01223).

    Args:
        lm: The model.
        task: A key of ``TASKS``.
        examples: Its rows in ``language``, as ``load_task`` gives them.
        language: Code of their language.
        demonstrations: Translations into English, for :func:`translate`.
        **options: For :func:`translate`.

    Returns:
        The same rows, for ``evaluate(…, examples=…)``; where the model says nothing, the text stays
        as it was.
    """
    declared = declared_task(task)
    fields = [name for name in declared.fields if name not in declared.selectors]
    rows = [dict(row) | {name: " ".join(row[name].split()) for name in fields} for row in examples]
    texts = list(dict.fromkeys(row[name] for row in rows for name in fields))
    outputs = translate(lm, texts, language, "en", demonstrations, **options)
    english = {text: output or text for text, output in zip(texts, outputs)}
    return Dataset.from_list([row | {name: english[row[name]] for name in fields} for row in rows])
