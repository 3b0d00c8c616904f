"""Translations in a direction: how much of them comes from the source, and how good they are.

chrF++ mixes two abilities, because a text can score by being fluent in the right language.  Nats
from the source keep them apart: the log-probability of a reference below its own source sentence,
minus that of the same reference below a wrong one.  What a model knows of the language is in both
and cancels; what is left can only come from the source.  Nothing needs to be generated.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import metrics
from .data.checks import checked_text, shown
from .data.languages import language_name
from .files import SavedAsJson
from .models.language_model import LanguageModel
from .prompts import translation_prompt
from .scoring import score_choices
from .translation import translate

#: Nats a token from which on a model translates: its own source makes a token of the reference e
#: times as likely as a wrong one does.
TRANSLATES_AT = 1.0


@dataclass
class TranslationEvaluation(SavedAsJson):
    """Translations of one model in one direction.

    Attributes:
        source: Code of the language that is translated.
        target: Code of the language that it is translated into.
        references: (n,) what the translations should be.
        hypotheses: (n,) what the model wrote; None if it was not asked to.
        below_own: (n,) mean log-probability of a token of each reference below its own source, in
            nats.
        below_wrong: (n,) the same below a wrong source.
        groups: (n,) sentences whose sources were swapped share a value: they are not independent.
        settings: All that the figures depend on: digests of sentences and demonstrations, the
            separator, the model and its fingerprint.  JSON data.

    Raises:
        ValueError: If shapes do not agree, there are fewer than two sentences, or a figure is not
            finite.
        DataError: If a language is unknown, or a reference is blank.
    """

    source: str
    target: str
    references: list[str] = field(repr=False)
    hypotheses: list[str] | None = field(repr=False)
    below_own: np.ndarray = field(repr=False)
    below_wrong: np.ndarray = field(repr=False)
    groups: list = field(repr=False)
    settings: dict[str, Any]

    def __post_init__(self) -> None:
        # One type each, so that what is read back from a file is what was written.
        self.references = list(self.references)
        self.hypotheses = None if self.hypotheses is None else list(self.hypotheses)
        self.below_own = np.asarray(self.below_own, dtype=np.float64)
        self.below_wrong = np.asarray(self.below_wrong, dtype=np.float64)
        self.groups = np.asarray(self.groups).tolist()
        self.settings = json.loads(json.dumps(self.settings, allow_nan=False))
        self._check()

    def _check(self) -> None:
        for code in (self.source, self.target):
            language_name(code)  # refuses an unknown code
        n = len(self.references)
        if n < 2:
            raise ValueError(f"{self.direction}: {n} references; needed: two or more.")
        shapes = {
            "below_own": self.below_own.shape,
            "below_wrong": self.below_wrong.shape,
            "groups": np.shape(self.groups),
            "hypotheses": (n if self.hypotheses is None else len(self.hypotheses),),
        }
        for name, shape in shapes.items():
            if shape != (n,):
                raise ValueError(f"{self.direction}: {name} are {shape}; references are {(n,)}.")
        for name in ("below_own", "below_wrong"):
            for place in np.flatnonzero(~np.isfinite(getattr(self, name))):
                raise ValueError(
                    f"{self.direction}: {name} are not finite at {place}; load the model in "
                    "float32."
                )
        for number, reference in enumerate(self.references):
            checked_text(reference, f"{self.direction}: reference {number}")
        for number, text in enumerate(self.hypotheses or []):
            if not isinstance(text, str):
                raise TypeError(f"{self.direction}: hypothesis {number} is {text!r}; not a text.")

    @property
    def direction(self) -> str:
        """Such as ``"fr→en"``."""
        return f"{self.source}→{self.target}"

    @property
    def from_the_source(self) -> np.ndarray:
        """(n,) nats a token that each reference gains by its own source; 0: it is ignored."""
        return self.below_own - self.below_wrong

    @property
    def reference(self) -> np.ndarray:
        """(n,) mean log-probability of a token below the right source: all that is known of it."""
        return self.below_own

    @property
    def fluency(self) -> np.ndarray:
        """(n,) the same below a wrong source: what is known of the language alone.

        As far as the model lets the wrong source be.  Where an intervention breaks the link to the
        source, this rises although no English is gained; then ask without any source too.
        """
        return self.below_wrong

    @property
    def nats(self) -> metrics.Comparison:
        """Mean of :attr:`from_the_source`, with its interval; pairs of sentences are the units."""
        return metrics.paired_bootstrap(self.below_wrong, self.below_own, groups=self.groups)

    @property
    def translates(self) -> bool:
        """Whether the low end of that interval is at least :data:`TRANSLATES_AT`.

        Few sentences cannot show it: below six pairs the interval has no ends.
        """
        return bool(self.nats.low >= TRANSLATES_AT)

    @property
    def quality(self) -> dict[str, Any]:
        """BLEU and chrF++ of the hypotheses; see ``translation_quality``.

        Raises:
            ValueError: If nothing was generated.
        """
        if self.hypotheses is None:
            raise ValueError(
                f"{self.direction}: nothing was generated; evaluate with generate=True."
            )
        return metrics.translation_quality(self.hypotheses, self.references, self.target)


def evaluate_translation(
    lm: LanguageModel,
    sentences: Sequence[str],
    references: Sequence[str],
    source: str,
    target: str,
    demonstrations: str | Sequence[str] = "",
    *,
    generate: bool = True,
    max_new_tokens: int = 64,
    separator: str = "\n",
) -> TranslationEvaluation:
    """Translate, and measure what of the translation comes from the source.

    Args:
        lm: The model.
        sentences: (n,) texts in the language ``source``.
        references: (n,) what they should become, in the same order.
        source, target: Codes of languages, such as "fr" and "en".
        demonstrations: One prefix for all sentences, or one a sentence; empty for zero-shot.
        generate: Let the model write translations too, which takes most of the time.
        max_new_tokens: Where an output that does not end is cut.
        separator: Ends a sentence in the demonstrations, and an output.

    Returns:
        Its figures, sentence by sentence.

    Raises:
        TypeError: A text stands for a list of texts.
        ValueError: Numbers of texts differ, a prompt does not fit into the model, or for a sentence
            no other is left whose source and reference both differ.
        DataError: A language is unknown, or a text is blank.

    Example:
        ``evaluate_translation(lm, test["fr"], test["en"], "fr", "en", shots).nats``
    """
    asked = _Asked(lm, sentences, references, source, target, demonstrations, separator)
    below_own, below_wrong = asked.log_probabilities()
    hypotheses = None
    if generate:
        hypotheses = translate(
            lm,
            asked.sentences,
            source,
            target,
            asked.prefixes,
            max_new_tokens=max_new_tokens,
            separator=separator,
        )
    return TranslationEvaluation(
        source=source,
        target=target,
        references=asked.references,
        hypotheses=hypotheses,
        below_own=below_own,
        below_wrong=below_wrong,
        groups=asked.groups,
        settings={**asked.settings(), "max_new_tokens": max_new_tokens if generate else None},
    )


def from_the_source(
    lm: LanguageModel,
    sentences: Sequence[str],
    references: Sequence[str],
    source: str,
    target: str,
    demonstrations: str | Sequence[str] = "",
    *,
    separator: str = "\n",
) -> np.ndarray:
    """Nats a token that each reference gains by its own source sentence, against a wrong one.

    The reference stands after the prompt that :func:`translate` continues; a figure is the mean
    over its tokens.  The wrong source is that of the sentence with which this one was swapped: 2k
    and 2k + 1, and the last three of an odd number in a cycle.  Where source or reference of the
    two are the same text, it is the next sentence of which both differ.

    Args:
        lm: The model.
        sentences: (n,) texts in the language ``source``.
        references: (n,) what they should become, in the same order.
        source, target: Codes of languages, such as "fr" and "en".
        demonstrations: One prefix for all sentences, or one a sentence; empty for zero-shot.
        separator: Ends a sentence in the demonstrations.

    Returns:
        (n,) nats a token; 0 on average where the model ignores the source.  Both sentences of a
        swap are not independent, so compare with :func:`evaluate_translation`, which knows the
        pairs.

    Raises:
        TypeError, ValueError, DataError: As :func:`evaluate_translation`.
    """
    evaluation = evaluate_translation(
        lm,
        sentences,
        references,
        source,
        target,
        demonstrations,
        generate=False,
        separator=separator,
    )
    return evaluation.from_the_source


class _Asked:
    """One model, the sentences that it is asked to translate, and how."""

    def __init__(
        self,
        lm: LanguageModel,
        sentences: Sequence[str],
        references: Sequence[str],
        source: str,
        target: str,
        demonstrations: str | Sequence[str],
        separator: str,
    ):
        for code in (source, target):
            language_name(code)  # refuses an unknown code
        self.lm, self.source, self.target, self.separator = lm, source, target, separator
        self.sentences = _checked_texts(sentences, "sentences")
        self.references = _checked_texts(references, "references")
        n = len(self.sentences)
        if len(self.references) != n or n < 2:
            raise ValueError(
                f"{n} sentences and {len(self.references)} references; needed: as many, and two or "
                "more, because a wrong source is that of another sentence."
            )
        if isinstance(demonstrations, str):
            self.prefixes = [demonstrations] * n
        else:
            self.prefixes = list(demonstrations)
        if len(self.prefixes) != n:
            raise ValueError(
                f"{len(self.prefixes)} demonstrations for {n} sentences; give one, or one a "
                "sentence."
            )
        self.wrong, self.groups = swapped(self.sentences, self.references)

    def log_probabilities(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean log-probability of a token of each reference: below its own source, and a wrong one.

        Both (n,).
        """
        wrong_sources = [self.sentences[number] for number in self.wrong]
        prompts = [
            translation_prompt(text, self.source, self.target, prefix, self.separator)
            for texts in (self.sentences, wrong_sources)
            for text, prefix in zip(texts, self.prefixes)
        ]
        scores = score_choices(
            self.lm,
            prompts,
            [[f" {reference.strip()}"] for reference in self.references * 2],
            reduction="mean",
            span="continuation",
            truncation="error",  # a prompt that has lost its beginning asks something else
        )
        below_own, below_wrong = scores.reshape(2, len(self.sentences))
        return below_own, below_wrong

    def settings(self) -> dict[str, Any]:
        return {
            "sentences": _digest(self.sentences),
            "demonstrations": _digest(self.prefixes),
            "separator": self.separator,
            "model": self.lm.name,
            "fingerprint": self.lm.fingerprint,
        }


def swapped(sentences: Sequence[str], references: Sequence[str]) -> tuple[list[int], list[int]]:
    """For each sentence another whose source is wrong for it, swapped within pairs.

    Pairs are 2k and 2k + 1; an odd last three swap in a cycle.  A sentence whose neighbour has the
    same source or reference goes with the next one that has not.

    Args:
        sentences: (n,) sources, two or more.
        references: (n,) their translations.

    Returns:
        Numbers of the wrong sources (n,), and of the swaps (n,): what shares no number is
        independent.

    Raises:
        ValueError: If for a sentence no other is left.
    """
    texts = [(a.strip(), b.strip()) for a, b in zip(sentences, references)]

    def differ(one: int, other: int) -> bool:
        return texts[one][0] != texts[other][0] and texts[one][1] != texts[other][1]

    waiting = list(range(len(texts)))
    swaps: list[list[int]] = []
    while waiting:
        size = 3 if len(waiting) == 3 else 2
        first, *following = waiting
        others = [number for number in following if differ(first, number)]
        swap = [first, *others[: size - 1]]
        if len(swap) < size or not differ(swap[-2], swap[-1]):
            raise ValueError(
                f"No wrong source is left for {shown(texts[first][0])}: the sentences after it "
                "have the same source or reference. Leave repeated sentences out, or put them "
                "further apart."
            )
        swaps.append(swap)
        waiting = [number for number in waiting if number not in swap]
    wrong, groups = [0] * len(texts), [0] * len(texts)
    for group, swap in enumerate(swaps):
        for number, other in zip(swap, swap[1:] + swap[:1]):
            wrong[number], groups[number] = other, group
    return wrong, groups


# -- checks ----------------------------------------------------------------------------------------


def _checked_texts(texts: Sequence[str], name: str) -> list[str]:
    if isinstance(texts, str):
        raise TypeError(f"{name} is one string; a list of texts is expected: put it into a list.")
    return [checked_text(text, f"{name}: item {number}") for number, text in enumerate(texts)]


def _digest(texts: Sequence[str]) -> str:
    """The same exactly if the texts are."""
    return hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()[:16]
