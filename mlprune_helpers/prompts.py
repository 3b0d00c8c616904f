"""Sentences to demonstrations, task rows to prompts and choices: strings only."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .data.checks import checked_count, checked_text, shown, whole_number
from .data.examples import check_fields, checked_examples
from .data.languages import DataError, language_name
from .data.tasks import Row, Task, declared_task
from .data.templates import Filler, Template, check_template, selector
from .data.writing import OWN_CASING, plain_code

if TYPE_CHECKING:
    from datasets import Dataset

PAIRINGS = ("aligned", "mismatched", "blocks")


# -- demonstrations --------------------------------------------------------------------------------


def build_demonstrations(
    parallel: Dataset,
    source: str,
    target: str | None = None,
    *,
    shots: int = 4,
    n_prompts: int = 32,
    pairing: str = "aligned",
    seed: int = 0,
    separator: str = "\n",
) -> list[str]:
    """Few-shot prompts of ``shots`` sentences each, in one language or as translation pairs.

    Translation: ``French: …<sep>English: …<sep>`` ``shots`` times; monolingual: ``French: …<sep>``
    (arXiv 2409.16911).  The same ``seed``, ``shots`` and ``n_prompts`` choose the same sentences in
    every form, so forms differ in nothing but their form.  Prompts share no sentence while the
    supply lasts; past that a warning says so.

    Mismatched prompts swap their partners within the units of :func:`prompt_units`: prompt 0 with
    prompt 1, 2 with 3, and so on; of an odd number, the last three swap in a cycle.  So a unit has
    the same sentences in every form and shares none with another unit, which makes units, and not
    single prompts, independent of one another.

    Args:
        parallel: From :func:`load_parallel`.
        source: Code of a language, a column of ``parallel``.
        target: Code of another, or None: monolingual.
        shots: Sentences, or pairs, a prompt.
        n_prompts: How many prompts.
        pairing: ``"aligned"``; ``"mismatched"``, both languages, but every sentence stands with a
            partner from another prompt, so no prompt holds a translation (a lone prompt has its own
            partners in another order); ``"blocks"``, those same sentences, first all of the
            source, then all of the target.
        seed: Chooses the sentences.
        separator: After each sentence; the published code has the end-of-sequence token.

    Raises:
        DataError: A language is missing, or there are fewer sentences than shots; for several
            mismatched prompts or blocks, fewer than twice the shots.
        TypeError: ``parallel`` is no data set, or ``separator`` no text.
        ValueError: Something else is not allowed.
    """
    _check_form(source, target, pairing, separator)
    _check_counts(shots, n_prompts)
    seed = checked_count(seed, "seed", 0)
    first = _sentences(parallel, source)
    second = None if target is None else _sentences(parallel, target)
    rows = _choose(len(first), shots, n_prompts, seed)
    chosen = rows[:n_prompts]
    partners = chosen if pairing == "aligned" else _partners(rows, n_prompts, len(first))
    prompts = []
    for own, other in zip(chosen, partners):
        lines = [f"{language_name(source)}: {first[i]}{separator}" for i in own]
        if target is not None and second is not None:
            replies = [f"{language_name(target)}: {second[i]}{separator}" for i in other]
            lines = lines + replies if pairing == "blocks" else _in_turn(lines, replies)
        prompts.append("".join(lines))
    return prompts


def prompt_units(n_prompts: int, unit: int = 2) -> list[np.ndarray]:
    """Which prompts belong together in a test: ``unit`` consecutive ones, the rest to the last.

    Mismatched prompts of :func:`build_demonstrations` swap their partners within these units of
    two, so a test compares units.  To choose on some prompts and measure on others, split by units:
    ``first, second = units[::2], units[1::2]``, each joined by ``np.concatenate``.

    Args:
        n_prompts: How many prompts there are.
        unit: Prompts in a unit.  With an odd number of prompts, the last unit of two has three.

    Returns:
        Prompt numbers, an array for each unit, in order.

    Raises:
        ValueError: If a count is not a whole number of at least 1, or there are fewer prompts than
            a unit has.

    Example:
        >>> [x.tolist() for x in prompt_units(5)]
        [[0, 1], [2, 3, 4]]
    """
    n_prompts = checked_count(n_prompts, "n_prompts", 1)
    unit = checked_count(unit, "unit", 1)
    if unit > n_prompts:
        raise ValueError(f"unit is {unit} and n_prompts {n_prompts}; needed: a unit or more.")
    n_units = n_prompts // unit
    return np.split(np.arange(n_prompts), unit * np.arange(1, n_units))


def translation_prompt(
    sentence: str, source: str, target: str, demonstrations: str = "", separator: str = "\n"
) -> str:
    """``demonstrations`` followed by the sentence, ending right after ``English:``.

    Args:
        sentence: In the language ``source``.
        source: Code of a language.
        target: Code of the language to translate into.
        demonstrations: From :func:`build_demonstrations`.
        separator: After the sentence.

    Raises:
        DataError: A language is unknown.
        TypeError: The sentence is no text.
    """
    if not isinstance(sentence, str):
        raise TypeError(f"sentence is {shown(sentence)}; needed: a text.")
    asked = f"{language_name(source)}: {sentence}{separator}{language_name(target)}:"
    return demonstrations + asked


def _check_form(source: str, target: str | None, pairing: str, separator: str) -> None:
    if pairing not in PAIRINGS or (pairing != "aligned" and target is None):
        raise ValueError(
            f"pairing is {pairing!r}; allowed: {', '.join(PAIRINGS)}, and without a target only "
            "'aligned'."
        )
    if source == target:
        raise ValueError(
            f"source and target are both {source!r}; needed: two languages, or no target for one."
        )
    if not isinstance(separator, str):
        raise TypeError(f"separator is {shown(separator)}; needed: a text.")


def _check_counts(shots: object, n_prompts: object) -> None:
    for count in (shots, n_prompts):
        number = None if isinstance(count, float) else whole_number(count)
        if number is None or number < 1:
            raise ValueError(
                f"shots is {shots!r} and n_prompts {n_prompts!r}; both must be at least 1, and "
                "whole numbers."
            )


def _sentences(parallel: Dataset, language: str) -> list[str]:
    """A column of a parallel set."""
    columns = getattr(parallel, "column_names", None)
    if not isinstance(columns, list):
        raise TypeError(
            f"parallel is {type(parallel).__name__}; needed: a data set, from load_parallel or "
            "datasets.Dataset.from_dict."
        )
    name = language_name(language)
    if language not in columns:
        raise DataError(f"No column {language!r} in these sentences; they have {columns}.")
    sentences = [
        checked_text(sentence, f"Sentence {row} in {language!r}")
        for row, sentence in enumerate(parallel[language])
    ]
    if language == "id" and all(map(_is_row_id, sentences)):
        raise DataError(
            f"The column 'id' has the rows' ids, not {name}; load the sentences with languages "
            "that include 'id'."
        )
    return sentences


def _is_row_id(text: str) -> bool:
    """Whether this is an id that :func:`load_parallel` gives, and no Indonesian sentence."""
    name, _, number = text.rpartition("-")
    return bool(name) and number.isdecimal() and " " not in text


def _choose(supply: int, shots: int, n_prompts: int, seed: int) -> np.ndarray:
    """Row numbers (at least n_prompts, shots), in rounds that end after the last prompt or later.

    Within a round no row stands twice.  One round is enough while the supply lasts; of several,
    each has an even number of prompts if it can, so that prompts 2k and 2k + 1 never share a row.
    """
    if shots > supply:
        raise DataError(
            f"{shots} shots asked, but there are only {supply} sentences in the part that is given "
            "(what was set aside before is not counted). Lower shots, or load more."
        )
    rng = np.random.default_rng(seed)
    per_round = supply // shots
    if n_prompts > per_round:
        warnings.warn(
            f"{n_prompts} prompts of {shots} shots need {n_prompts * shots} sentences; there are "
            f"{supply}. Prompts share sentences, so they are not independent.",
            stacklevel=3,
        )
        if per_round > 1:
            per_round -= per_round % 2
    rounds = [
        rng.permutation(supply)[: per_round * shots].reshape(per_round, shots)
        for _ in range(-(-n_prompts // per_round))
    ]
    return np.concatenate(rounds)


def _partners(rows: np.ndarray, n_prompts: int, supply: int) -> np.ndarray:
    """Whose partners each prompt has: row numbers (n_prompts, shots), from what _choose gives."""
    shots = rows.shape[1]
    if n_prompts == 1:
        if shots == 1:
            raise ValueError(
                "Mismatched partners need two sentences or more: raise shots or n_prompts."
            )
        return np.roll(rows[:1], -1, axis=1)
    if supply < 2 * shots:
        raise DataError(
            f"{supply} sentences for mismatched prompts of {shots} shots; needed: {2 * shots}, so "
            f"that no prompt holds a translation. Lower shots, or load more."
        )
    partner = np.arange(n_prompts) ^ 1  # 0 with 1, 2 with 3, …
    if n_prompts % 2:
        last = rows[n_prompts - 3 : n_prompts]
        if len(np.unique(last)) == last.size:
            partner[-3:] = np.roll(np.arange(n_prompts)[-3:], -1)
        # Else the last prompt opens a round and may share sentences with the two before it: its
        # partners are then those of the next prompt of its round, which is not given out.
    return rows[partner]


def _in_turn(lines: list[str], replies: list[str]) -> list[str]:
    """Each line followed by its reply."""
    taken = []
    for line, reply in zip(lines, replies):
        taken += [line, reply]
    return taken


# -- tasks -----------------------------------------------------------------------------------------


def task_prompts(
    task: str,
    rows: Iterable[Row],
    *,
    template: str | Template = "paper",
    language: str = "en",
    shots: int = 0,
    seed: int = 0,
    content_free: str | None = None,
) -> tuple[list[str], list[list[str]]]:
    """How rows are asked; a scored string is prompt + choice.

    Args:
        task: A key of ``TASKS``.
        rows: From :func:`load_task`, or dicts with the task's fields; with shots also ``label``.
        template: ``"paper"``, the paper's English ones; ``"native"``, those of ``language``; or
            one's own, ``{"prompt": "{premise} …", "choices": […]}`` with a choice a label.
        language: Of the texts: the code that decides how a first letter is put in lower case.
        shots: So many solved rows of other groups stand before each prompt; the same for all rows
            of a group, and in every language of a parallel task.
        seed: Draws the shots.
        content_free: What stands in the place of the texts asked about (``Task.texts``), but not of
            shots, of given answers, or of what chooses a prompt.

    Returns:
        A prompt for each row, and a list of choices for each.

    Raises:
        DataError: A row lacks a field, or there are too few rows of other groups.
        TypeError: The template or ``content_free`` is of another type.
        ValueError: There is no such template, or it does not fit the task.
    """
    declared = declared_task(task)
    if not (isinstance(language, str) and plain_code(language) in OWN_CASING):
        language_name(language)  # a misspelt code is refused, one that only casing knows is not
    if content_free is not None and not isinstance(content_free, str):
        raise TypeError(f"content_free is {shown(content_free)}; needed: a text, or None.")
    asked = _Asked(task, _template(task, declared, template, language), Filler(language))
    if checked_count(shots, "shots", 0):
        checked = checked_examples(task, rows, task)
        before = asked.demonstrations(checked, shots, checked_count(seed, "seed", 0))
    else:
        checked = list(rows)  # type: ignore[arg-type]
        for number, row in enumerate(checked):
            check_fields(declared, row, f"{task}, row {number}")
        before = [""] * len(checked)
    if content_free is not None:
        kept = selector(asked.template)  # of a template of one's own, which may ask by any field
        blank = {name: content_free for name in declared.texts if name != kept}
        checked = [{**row, **blank} for row in checked]
    prompts = [shots_before + asked.prompt(row) for shots_before, row in zip(before, checked)]
    return prompts, [asked.choices(row) for row in checked]


@dataclass(frozen=True)
class _Asked:
    """A template of a task, for texts of one language."""

    task: str
    template: Template
    filler: Filler

    def prompt(self, row: Row) -> str:
        text = self.template["prompt"]
        column = selector(self.template)
        if column is not None:
            by_value = text[column]
            if row[column] not in by_value:
                raise DataError(
                    f"{self.task}: {column} is {row[column]!r}; the template knows "
                    f"{', '.join(by_value)}."
                )
            text = by_value[row[column]]
        return self.filler.vformat(text, (), row)

    def choices(self, row: Row) -> list[str]:
        return [self.filler.vformat(choice, (), row) for choice in self.template["choices"]]

    def solved(self, row: Row) -> str:
        return self.prompt(row) + self.choices(row)[row["label"]] + "\n\n"

    def demonstrations(self, rows: Sequence[Row], shots: int, seed: int) -> list[str]:
        """For each row, ``shots`` solved rows of other groups: the same within a group."""
        groups = [row["group"] for row in rows]
        rng = np.random.default_rng(seed)
        before: dict[str, str] = {}
        for group in dict.fromkeys(groups):
            others = [i for i in rng.permutation(len(rows)) if groups[i] != group][:shots]
            if len(others) < shots:
                raise DataError(
                    f"{shots} shots asked, but only {len(others)} rows of other groups to draw "
                    "from."
                )
            before[group] = "".join(self.solved(rows[i]) for i in others)
        return [before[group] for group in groups]


def _template(task: str, declared: Task, template: str | Template, language: str) -> Template:
    """The prompt and choices of a task, by name or as given."""
    found: Any = template
    if isinstance(template, str):
        own = "or give a prompt and choices."
        if template not in declared.templates:
            raise ValueError(
                f"template is {template!r}; {task} has {', '.join(declared.templates)}, {own}"
            )
        found = declared.templates[template]
        if isinstance(found, Mapping) and not {"prompt", "choices"} & set(found):
            if language not in found:
                raise ValueError(
                    f"{task} has no {template} template in {language!r}, but in "
                    f"{', '.join(found)}; {own}"
                )
            found = found[language]
    check_template(found, declared.labels, declared.fields, f"A template of {task}")
    return found
