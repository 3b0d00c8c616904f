"""What all chapters begin and end with: sentences, a model, and a file with their numbers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset

from .data.languages import LANGUAGES, DataError
from .data.sources import load_parallel, load_task
from .models.language_model import LanguageModel
from .models.loading import load_model
from .prompts import build_demonstrations
from .runs.results import save_results
from .verdicts import listed


@dataclass
class Chapter:
    """A chapter's sentences and model, from its parameters.

    Attributes:
        name: Of the notebook, which is that of its results.
        parameters: As they were checked.
        lm: The model.
        languages: English first.
        others: The languages but English: what averages are over.
        negative_controls: Languages that are shown beside the others and never averaged in, since
            the default model does not translate them.
        shown: The few sentences that every chapter's tests show as demonstrations.
        dev: All other sentences for prompts: to calibrate and to look at features.
        test: Sentences to measure on.
        separator: What stands after each sentence in a prompt.
        data: What the results rest on, by name; ``save`` records its identity.
        started: When it began, in seconds of ``time.perf_counter``.
    """

    name: str
    parameters: dict[str, Any]
    lm: LanguageModel
    languages: list[str]
    others: list[str]
    negative_controls: list[str]
    shown: Dataset
    dev: Dataset
    test: Dataset
    separator: str
    started: float
    data: dict[str, Any] = field(default_factory=dict)

    @property
    def first(self) -> str:
        """The first of ``others``, for what is shown on one language."""
        return self.others[0]

    @property
    def all_languages(self) -> list[str]:
        """Languages and negative controls."""
        return [*self.languages, *self.negative_controls]

    def _repr_markdown_(self) -> str:
        """What this run works with, in a line: shown where a cell ends with the chapter."""
        told = f"Model: {self.lm.name}. {listed(LANGUAGES[x] for x in self.languages)}"
        if self.negative_controls:
            told += f", with {listed(LANGUAGES[x] for x in self.negative_controls)} as control"
        sizes = f"{len(self.dev)} sentences for prompts, {len(self.test)} others to measure on"
        return f"{told}. {sizes}."

    def prefix(self, source: str, target: str | None = "en", shots: int | None = None) -> str:
        """The demonstrations that all tests of a direction share.

        They come from sentences that are set aside for this in every chapter: a model must not meet
        in a test what it was pruned on.

        Args:
            source: Code of the language to translate from.
            target: Code of the language to translate into; None: sentences of one language.
            shots: How many; 0 gives an empty text.  By default those of the parameters.
        """
        shots = self.parameters["shots"] if shots is None else shots
        if shots == 0:
            return ""
        settings = {"shots": shots, "n_prompts": 1, "seed": self.parameters["seed"]}
        prompts = build_demonstrations(
            self.shown, source, target, separator=self.separator, **settings
        )
        return prompts[0]

    def rows(self, task: str, language: str, **options: Any) -> Dataset:
        """Rows of a task, as many as ``limit`` says, and recorded as what the results rest on."""
        settings: dict[str, Any] = {
            name: self.parameters.get(name) for name in ("limit", "split", "seed")
        }
        rows = load_task(task, language, self.parameters["source"], **settings | options)
        self.data[f"rows of {task} in {language}"] = rows
        return rows

    def save(self, results: Mapping[str, Any]) -> Path:
        """Write the chapter's numbers to its file of results; see :func:`save_results`.

        Shares, accuracies and rankings are in percent, differences of them in points,
        log-probabilities in nats a token.
        """
        return save_results(
            self.name,
            results,
            output_dir=self.parameters["output_dir"],
            parameters=self.parameters,
            lm=self.lm,
            data={"shown": self.shown, "dev": self.dev, "test": self.test, **self.data},
            started=self.started,
        )


def open_chapter(name: str, parameters: Mapping[str, Any]) -> Chapter:
    """Read the sentences, then load the model.

    Args:
        name: Of the notebook, without its ending.
        parameters: From :func:`check_parameters`.

    Returns:
        The chapter.  Where a cell ends with it, a line says what the run works with.

    Raises:
        DataError: There are no sentences left once those for the tests are set aside.
    """
    started = time.perf_counter()
    others = [language for language in parameters["languages"] if language != "en"]
    languages = ["en", *others]
    negative_controls = list(parameters.get("negative_controls", []))
    shown, dev, test = _sentences(parameters, [*languages, *negative_controls])
    lm = load_model(parameters["model"])
    return Chapter(
        name=name,
        parameters=dict(parameters),
        lm=lm,
        languages=languages,
        others=others,
        negative_controls=negative_controls,
        shown=shown,
        dev=dev,
        test=test,
        separator=_separator(lm, parameters.get("separator", "newline")),
        started=started,
    )


def _sentences(
    parameters: Mapping[str, Any], languages: list[str]
) -> tuple[Dataset, Dataset, Dataset]:
    """Sentences for the demonstrations of tests, for all other prompts, and to measure on."""
    source, name = parameters["source"], parameters.get("parallel")
    dev = load_parallel(languages, source, name=name, split="dev")
    test = load_parallel(languages, source, name=name, split="test")
    shots = parameters["shots"]
    if len(dev) < 2 * shots:
        raise DataError(
            f"shots is {shots}, and there are {len(dev)} sentences for prompts, of which {shots} "
            "are set aside for the demonstrations of tests. Allowed: shots up to "
            f"{len(dev) // 2}."
        )
    n_sentences = parameters.get("n_sentences", len(test))
    return (
        dev.select(range(shots)),
        dev.select(range(shots, len(dev))),
        test.select(range(min(n_sentences, len(test)))),
    )


def _separator(lm: LanguageModel, name: str) -> str:
    """What stands after each sentence: a new line, or the token that ends a text."""
    if name == "newline":
        return "\n"
    end = lm.tokenizer.eos_token
    if end is None:
        raise ValueError(
            f"separator is 'eos', but the tokenizer of {lm.name} has no end-of-sequence token. "
            "Allowed: 'newline'."
        )
    found = lm.tokenizer(end, add_special_tokens=False)["input_ids"]
    if found != [lm.tokenizer.eos_token_id]:
        raise ValueError(
            f"separator is 'eos', but the tokenizer of {lm.name} reads {end!r} in a text as the "
            f"tokens {found}, and not as its end-of-sequence token. Allowed: 'newline'."
        )
    return end
