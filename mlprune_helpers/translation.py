"""Few-shot translation, the language of its outputs, and rows in the model's own English."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

import numpy as np
import torch
from datasets import Dataset
from transformers import StoppingCriteriaList

from .batching import encode, padded, run_in_batches
from .data.languages import LANGUAGES, DataError
from .data.tasks import TASKS
from .models.language_model import LanguageModel
from .prompts import translation_prompt


def translate(
    lm: LanguageModel, sentences: Sequence[str], source: str, target: str, demonstrations: str | Sequence[str] = "", *,
    max_new_tokens: int = 64, separator: str = "\n", token_budget: int = 4096,
) -> list[str]:  # fmt: skip
    """Greedy few-shot translation.

    ``demonstrations``: one prefix for all sentences, or one a sentence (``build_demonstrations`` with as many
    ``n_prompts``); empty for zero-shot.  An output ends at the first separator or where the model starts another pair
    (``French:``), so a pair that it made up is never part of it.
    """
    sentences = list(sentences)
    prefixes = (
        [demonstrations] * len(sentences)
        if isinstance(demonstrations, str)
        else list(demonstrations)
    )
    if len(prefixes) != len(sentences):
        raise ValueError(
            f"{len(prefixes)} demonstrations for {len(sentences)} sentences; give one, or one a sentence."
        )
    ids = encode(
        lm,
        [translation_prompt(s, source, target, d, separator) for s, d in zip(sentences, prefixes)],
    )
    marks = "|".join(map(re.escape, (separator, f"{LANGUAGES[source]}:", f"{LANGUAGES[target]}:")))
    fill = (
        lm.tokenizer.eos_token_id or 0
    )  # not the tokenizer's pad token, which may lie outside the model's vocabulary
    outputs: dict[int, str] = {}

    def texts(rows: torch.Tensor, start: int) -> list[list[str]]:  # in pieces between the marks
        return [
            re.split(marks, text)
            for text in lm.tokenizer.batch_decode(rows[:, start:], skip_special_tokens=True)
        ]

    shared = 0  # leading tokens of all prompts, the demonstrations among them, run once
    if (
        not lm.window or max(map(len, ids)) + max_new_tokens <= lm.window
    ):  # padding after them would use up a window
        shared = min(len(x) for x in ids) - 1
        shared = next((t for t in range(shared) if len({x[t] for x in ids}) > 1), shared)

    def run(indices: list[int]) -> None:
        # Generation goes on at the right, so padding is further left: after the shared tokens.
        rest, mask = padded([ids[i][shared:] for i in indices], lm.device, side="left")
        before = torch.tensor(ids[indices[0]][:shared], dtype=torch.long, device=lm.device).expand(
            len(indices), shared
        )
        rows, mask = (
            torch.cat([before, rest], dim=1),
            torch.cat([torch.ones_like(before), mask], dim=1),
        )
        length = rows.shape[1]

        def stop(ids, scores, **kwargs):
            return torch.tensor(
                [len(pieces) > 1 for pieces in texts(ids, length)], device=ids.device
            )

        with torch.inference_mode():
            options = {}
            if shared:
                cache = lm.run(rows[:1, :shared], mask[:1, :shared], use_cache=True).past_key_values
                cache.batch_repeat_interleave(len(indices))
                options["past_key_values"] = cache
            generated = lm.model.generate(
                input_ids=rows, attention_mask=mask, max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=fill,
                stopping_criteria=StoppingCriteriaList([stop]), **options,
            )  # fmt: skip
        outputs.update({i: text[0].strip() for i, text in zip(indices, texts(generated, length))})

    lengths, desc = (
        [len(x) - shared + max_new_tokens for x in ids],
        f"{LANGUAGES[source]} to {LANGUAGES[target]}",
    )
    run_in_batches(lengths, token_budget, run, desc)
    return [outputs[i] for i in range(len(ids))]


def right_language(texts: Sequence[str], language: str) -> np.ndarray:
    """Bool (n,): whether lingua takes a text for ``language`` rather than another of ``LANGUAGES``; False if empty.

    Raises DataError for a language that lingua does not know (Burmese).
    """
    known, detector = _detector()
    wanted = known.get(LANGUAGES[language])
    if wanted is None:
        raise DataError(f"lingua does not know {LANGUAGES[language]}; it knows {', '.join(known)}.")
    return np.array(
        [bool(text.strip()) and detector.detect_language_of(text) == wanted for text in texts],
        dtype=bool,
    )


@functools.cache
def _detector():
    from lingua import Language, LanguageDetectorBuilder

    known = {x.name.title(): x for x in Language.all() if x.name.title() in LANGUAGES.values()}
    return known, LanguageDetectorBuilder.from_languages(*known.values()).build()


def self_translate(
    lm: LanguageModel, task: str, examples: Dataset, language: str, demonstrations="", **options
) -> Dataset:
    """Rows in the model's own English (Etxaniz et al., arXiv 2308.01223), for ``evaluate(…, examples=…)``; see :func:`translate`."""
    fields = [f for f in TASKS[task].fields if f != "question"]
    rows = [row | {f: " ".join(row[f].split()) for f in fields} for row in examples]
    texts = list(dict.fromkeys(row[f] for row in rows for f in fields))
    english = dict(zip(texts, translate(lm, texts, language, "en", demonstrations, **options)))
    return Dataset.from_list(
        [row | {f: english[row[f]] or row[f] for f in fields} for row in rows]
    )  # never an empty text
