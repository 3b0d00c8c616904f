"""Sentences to demonstrations, task rows to prompts and choices: strings only."""

from __future__ import annotations

import string
import warnings

import numpy as np

from .data.languages import LANGUAGES, DataError
from .data.tasks import TASKS

PAIRINGS = ("aligned", "mismatched", "blocks")


def build_demonstrations(
    parallel, source: str, target: str | None = None, *, shots: int = 4, n_prompts: int = 32,
    pairing: str = "aligned", seed: int = 0, separator: str = "\n",
) -> list[str]:  # fmt: skip
    """Few-shot prompts of ``shots`` sentences each, in one language or as translation pairs.

    Translation: ``French: …<sep>English: …<sep>`` ``shots`` times; monolingual: ``French: …<sep>`` (arXiv
    2409.16911).  The same ``seed``, ``shots`` and ``n_prompts`` choose the same sentences in every form, so forms
    differ in nothing but their form.  Prompts share no sentence while the supply lasts; past that a warning says so.

    ``parallel``: from :func:`load_parallel`.  ``target`` None: monolingual.  ``pairing``: ``"aligned"``;
    ``"mismatched"``, both languages, but every sentence stands with the partner of one from another prompt, so no
    prompt holds a translation (a lone prompt has its own partners in another order); ``"blocks"``, those same sentences,
    first all of the source, then all of the target.  ``separator``: the published code has the end-of-sequence token.
    """
    if pairing not in PAIRINGS or (pairing != "aligned" and target is None):
        raise ValueError(
            f"pairing is {pairing!r}; allowed: {', '.join(PAIRINGS)}, and without a target only 'aligned'."
        )
    if shots < 1 or n_prompts < 1:
        raise ValueError(f"shots is {shots} and n_prompts {n_prompts}; both must be at least 1.")
    for language in (source, target):
        if language is not None and language not in parallel.column_names:
            raise DataError(
                f"No column {language!r} in these sentences; they have {parallel.column_names}."
            )
    chosen = _choose(len(parallel), shots, n_prompts, seed)
    partners = chosen if pairing == "aligned" else _partners(chosen)
    first = list(parallel[source])
    second = list(parallel[target]) if target else None
    prompts = []
    for own, other in zip(chosen, partners):
        lines = [f"{LANGUAGES[source]}: {first[i]}{separator}" for i in own]
        if target:
            replies = [f"{LANGUAGES[target]}: {second[i]}{separator}" for i in other]
            lines = (
                lines + replies
                if pairing == "blocks"
                else [x for pair in zip(lines, replies) for x in pair]
            )
        prompts.append("".join(lines))
    return prompts


def translation_prompt(
    sentence: str, source: str, target: str, demonstrations: str = "", separator: str = "\n"
) -> str:
    """``demonstrations`` followed by the sentence, ending right after ``English:``."""
    return f"{demonstrations}{LANGUAGES[source]}: {sentence}{separator}{LANGUAGES[target]}:"


class _Filler(string.Formatter):
    """``str.format`` with the conversions of ``templates.yml``."""

    def convert_field(self, value, conversion):
        if conversion == "t":
            return value.rstrip().rstrip(".。।")
        if conversion == "l":
            return value[:1].lower() + value[1:]
        if conversion == "c":
            return " ".join(value.split()[:128])[:768]
        return super().convert_field(value, conversion)


def task_prompts(
    task: str,
    rows,
    *,
    template="paper",
    language: str = "en",
    shots: int = 0,
    seed: int = 0,
    content_free: str | None = None,
) -> tuple[list[str], list[list[str]]]:
    """Prompts, and a list of choices for each; a scored string is prompt + choice.

    ``template``: ``"paper"``, the paper's English ones; ``"native"``, those of ``language``; or one's own, ``{"prompt":
    "{premise} …", "choices": […]}`` with a choice a label.  ``shots``: so many solved rows of other groups stand before
    each prompt, drawn with ``seed``; the same for all rows of a group, and in every language of a parallel task.
    ``content_free``: what stands in the place of the texts asked about, but not of shots or of given answers.
    """
    asked, rows = _template(task, template, language), list(rows)
    fill = _Filler().format

    def prompt(row):
        text = asked["prompt"]
        if not isinstance(text, str):
            ((column, texts),) = text.items()
            if row[column] not in texts:
                raise DataError(
                    f"{task}: {column} is {row[column]!r}; the template knows {', '.join(texts)}."
                )
            text = texts[row[column]]
        return fill(text, **row)

    def choices(row):
        return [fill(choice, **row) for choice in asked["choices"]]

    shown = [""] * len(rows)
    if shots:
        solved = [prompt(row) + choices(row)[row["label"]] + "\n\n" for row in rows]
        groups = [row["group"] for row in rows]
        rng, before = np.random.default_rng(seed), {}
        for group in dict.fromkeys(groups):
            others = [i for i in rng.permutation(len(rows)) if groups[i] != group][:shots]
            if len(others) < shots:
                raise DataError(
                    f"{shots} shots asked, but only {len(others)} rows of other groups to draw from."
                )
            before[group] = "".join(solved[i] for i in others)
        shown = [before[group] for group in groups]
    if content_free is not None:
        texts = [f for f in TASKS[task].fields if f != "question" and not f.startswith("choice")]
        rows = [row | dict.fromkeys(texts, content_free) for row in rows]
    return [before + prompt(row) for before, row in zip(shown, rows)], [
        choices(row) for row in rows
    ]


def _template(task: str, template, language: str) -> dict:
    """The prompt and choices of a task, by name or as given."""
    declared = TASKS[task]
    if isinstance(template, str):
        if template not in declared.templates:
            raise ValueError(
                f"template is {template!r}; {task} has {', '.join(declared.templates)}, or give a prompt and choices."
            )
        found = declared.templates[template]
        if "prompt" not in found and language not in found:
            raise ValueError(
                f"{task} has no {template} template in {language!r}, but in {', '.join(found)}; or give a prompt and choices."
            )
        template = found if "prompt" in found else found[language]
    if set(template) != {"prompt", "choices"} or len(template["choices"]) != len(declared.labels):
        raise ValueError(
            f"A template of {task} needs a prompt and {len(declared.labels)} choices (one each: {', '.join(declared.labels)}), not {template!r}."
        )
    return template


def _choose(supply: int, shots: int, n_prompts: int, seed: int) -> np.ndarray:
    """Row numbers (n_prompts, shots): without repetition while the supply lasts, never twice in a prompt."""
    if shots > supply:
        raise DataError(f"{shots} shots asked, but there are only {supply} sentences.")
    rng = np.random.default_rng(seed)
    per_round = supply // shots
    if n_prompts > per_round:
        warnings.warn(
            f"{n_prompts} prompts of {shots} shots need {n_prompts * shots} sentences; there are {supply}. "
            "Prompts share sentences, so they are not independent.",
            stacklevel=3,
        )
    rounds = [
        rng.permutation(supply)[: per_round * shots].reshape(per_round, shots)
        for _ in range(-(-n_prompts // per_round))
    ]
    return np.concatenate(rounds)[:n_prompts]


def _partners(chosen: np.ndarray) -> list[np.ndarray]:
    """For each prompt the rows of the next that shares none with it, or else its own in another order."""
    partners = []
    for i, own in enumerate(chosen):
        others = [*chosen[i + 1 :], *chosen[:i], np.roll(own, -1)]
        partners.append(next((other for other in others if not set(own) & set(other)), others[-1]))
    if any((own == other).any() for own, other in zip(chosen, partners)):
        raise ValueError(
            "Mismatched partners need two sentences or more: raise shots or n_prompts."
        )
    return partners
