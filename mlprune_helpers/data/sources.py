"""Parallel sentences and tasks: from the built-in corpus, a folder, or the Hugging Face hub."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .checks import checked_count, checked_text, shown
from .examples import PlacedRow, checked_rows, converted_rows
from .folders import CORPUS, check_folder, parallel_files, source_folder, task_file
from .languages import FLORES200_CODES, FLORES_CODES, NTREX_CODES, DataError, checked_languages
from .reading import files_read as files_read, read_objects, read_sentences
from .tasks import Task, declared_task

if TYPE_CHECKING:
    from datasets import Dataset

Source = str | os.PathLike[str]

#: Lines from the start of a one-file parallel set that count as "dev"; the rest is "test".
DEV_LINES = {"sentences": 140, "ntrex": 600}

#: Draws are balanced by label up to so many labels; of more, a small draw has few rows each.
MAX_BALANCED_LABELS = 10

HUB_SETS = ("ntrex", "flores_plus")

#: What the splits are called in FLORES+.  They are of different documents.
FLORES_PARTS = {"dev": ["dev"], "test": ["devtest"], None: ["dev", "devtest"]}


def load_parallel(
    languages: Sequence[str],
    source: Source = "builtin",
    *,
    name: str | None = None,
    split: str | None = None,
) -> Dataset:
    """Sentences that say the same in every language.

    Args:
        languages: Codes such as ``["en", "sw"]``.
        source: ``"builtin"``; ``"hub"`` (NTREX-128, or with ``name="flores_plus"`` that one, which
            is gated); a folder with ``NAME/LANG.txt``, UTF-8, one sentence a line.
        name: Which set, where the source has several.
        split: ``"dev"`` or ``"test"``; by default all sentences.  The two never share a sentence:
            what the first has in one of ``languages`` is left out of the second.

    Returns:
        Column ``id``, and one column a language.  Indonesian, whose code is ``id``, takes the place
        of the first.

    Raises:
        DataError: Something is missing, and what there is; a line is blank; a set is not parallel.
    """
    languages = checked_languages(languages)
    if split not in (None, "dev", "test"):
        raise DataError(f"split is {split!r}; allowed: 'dev', 'test', or None for both.")
    if not _is_hub(source):
        return _folder_sentences(languages, source, name).in_split(split)
    _check_hub_set(name)
    if name == "flores_plus":
        return _flores_plus(languages, FLORES_PARTS[split])
    return _line_by_line("ntrex", _ntrex(languages)).in_split(split)


def load_task(
    task: str,
    language: str,
    source: Source = "builtin",
    *,
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> Dataset:
    """Rows of a task in one language.

    Args:
        task: A key of ``TASKS``.
        language: A code such as ``"sw"``.
        source: ``"builtin"``, ``"hub"``, or a folder with ``TASK/SPLIT.LANG.jsonl``.
        split: By default the task's first that is there.
        limit: At most so many rows, but at least one group: whole groups, the same ones in every
            language of a parallel task.  What a smaller limit draws, a larger one draws too.  Where
            the task has ten labels or fewer and each group has only one, groups are drawn label by
            label in turn, so that numbers of groups by label differ by at most one while the
            supply lasts; when a label runs out, the others go on.  Groups that hold several labels,
            such as the hypotheses of one premise, are drawn whole, whatever they hold.
        seed: The groups are drawn with it.

    Returns:
        Columns ``id``, ``group`` (rows that are not independent share one), ``label`` and the
        task's fields.

    Raises:
        DataError: Something is missing, and what there is; a row is not as the task says, with its
            file, line and field.
    """
    from datasets import Dataset

    declared = declared_task(task)
    if not isinstance(language, str):
        raise DataError(f"language is {shown(language)}; needed: one code, such as 'en'.")
    checked_languages(language)
    if limit is not None:
        limit = checked_count(limit, "limit", 1, ", or None for all rows")
    seed = checked_count(seed, "seed", 0)
    from_hub = _is_hub(source)
    placed = (
        _hub_rows(task, language, split)
        if from_hub
        else _folder_rows(task, language, source, split)
    )
    rows = converted_rows(declared, placed, all_raw=from_hub)
    examples = checked_rows(task, rows, f"{task} in {language!r}")
    if limit is not None:
        examples = _whole_groups(examples, limit, _drawn_groups(examples, declared, seed))
    return Dataset.from_list(examples)


def load_code() -> list[str]:
    """Functions of this book's own package, as they were when the sample was drawn.

    Prompts of program code.
    """
    return [row["text"] for _, row in read_objects(CORPUS / "code" / "python.jsonl")]


def check_source(
    source: Source,
    languages: Sequence[str],
    tasks: Sequence[str] = (),
    parallel: str | None = None,
    split: str | None = None,
) -> None:
    """See that a source has a parallel set and tasks, all in these languages, without reading them.

    Of the hub it is known only what the tasks' declarations say.

    Args:
        source: As for :func:`load_parallel`.
        languages: All that are needed, English included.
        tasks: Keys of ``TASKS``.
        parallel: The parallel set's name; None where there is one.
        split: Of the tasks; by default the first that is there.

    Raises:
        DataError: Something is missing; the message says what there is, and which parameter of a
            notebook to change.
    """
    languages = checked_languages(languages)
    tasks = [tasks] if isinstance(tasks, str) else list(tasks)
    for task in tasks:
        declared_task(task)
    if not _is_hub(source):
        check_folder(source_folder(source), languages, tasks, parallel, split)
        return
    _check_hub_set(parallel)
    for task in tasks:
        _check_hub_task(task, languages)


def load_dataset(*arguments: Any, **options: Any) -> Dataset:
    """``datasets.load_dataset``, whose library is slow to load and not always needed."""
    import datasets

    return datasets.load_dataset(*arguments, **options)


def _is_hub(source: Source) -> bool:
    return isinstance(source, str) and source == "hub"


# -- parallel sentences ----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Sentences:
    """A parallel set: the first ``n_dev`` sentences are "dev", the others "test"."""

    name: str
    ids: list[str]
    columns: dict[str, list[str]]
    n_dev: int

    def in_split(self, split: str | None) -> Dataset:
        from datasets import Dataset

        rows = self._rows(split)
        if not rows:
            raise DataError(
                f"{self.name} has no sentences in split {split!r}: of {len(self.ids)} sentences "
                f"the first {self.n_dev} are 'dev', and the others, as far as they are no "
                "repetitions, 'test'. Pass split=None for all."
            )
        columns = {"id": self.ids, **self.columns}
        return Dataset.from_dict(
            {name: [values[row] for row in rows] for name, values in columns.items()}
        )

    def _rows(self, split: str | None) -> Sequence[int]:
        if split is None:
            return range(len(self.ids))
        if split == "dev":
            return range(self.n_dev)
        repeating = self._repeating()
        return [row for row in range(self.n_dev, len(self.ids)) if row not in repeating]

    def _repeating(self) -> set[int]:
        """Rows of which "dev" has the sentence in one of the languages."""
        repeating: set[int] = set()
        for sentences in self.columns.values():
            said = [_compared(sentence) for sentence in sentences]
            in_dev = set(said[: self.n_dev])
            repeating |= {row for row, sentence in enumerate(said) if sentence in in_dev}
        return repeating


def _compared(sentence: str) -> str:
    """What two writings of one sentence share: not spaces, nor how an accent is coded."""
    return unicodedata.normalize("NFC", " ".join(sentence.split()))


def _folder_sentences(languages: list[str], source: Source, name: str | None) -> _Sentences:
    name, files = parallel_files(source_folder(source), languages, name)
    return _line_by_line(
        name, {language: read_sentences(files[language]) for language in languages}
    )


def _line_by_line(name: str, columns: dict[str, list[str]]) -> _Sentences:
    """A set of which line n says the same in every language."""
    lengths = {language: len(lines) for language, lines in columns.items()}
    n = min(lengths.values())
    if n < max(lengths.values()):
        raise DataError(
            f"{name} is not parallel: lines by language {lengths}. Line n of every file must say "
            "the same."
        )
    n_dev = min(n, DEV_LINES.get(name, int(0.6 * n)))
    return _Sentences(name, [f"{name}-{line}" for line in range(1, n + 1)], columns, n_dev)


def _ntrex(languages: list[str]) -> dict[str, list[str]]:
    raw = _from_hub("mteb/NTREX", None, "test", None)
    if missing := [code for code in languages if NTREX_CODES[code] not in raw.column_names]:
        raise DataError(
            f"mteb/NTREX has no {', '.join(missing)}; it has columns {', '.join(raw.column_names)}."
        )
    return {code: _checked_sentences(raw[NTREX_CODES[code]], "NTREX", code) for code in languages}


def _flores_plus(languages: list[str], parts: list[str]) -> Dataset:
    """FLORES+, whose sentences are known by their ``id``."""
    from datasets import Dataset

    ids: list[str] = []
    columns: dict[str, list[str]] = {}
    for language in languages:
        found: dict[str, str] = {}
        for part in parts:
            raw = _from_hub("openlanguagedata/flores_plus", FLORES_CODES[language], part, None)
            rows = raw.to_pandas().sort_values("id")
            found |= {f"flores-{part}-{i}": text for i, text in zip(rows["id"], rows["text"])}
        ids = ids or list(found)
        if ids != list(found):
            raise DataError(
                f"flores_plus has other sentences in {language!r} than in {languages[0]!r}: leave "
                "one out."
            )
        columns[language] = _checked_sentences(found.values(), "flores_plus", language)
    return Dataset.from_dict({"id": ids, **columns})


def _checked_sentences(sentences: Iterable[object], name: str, language: str) -> list[str]:
    return [
        checked_text(sentence, f"{name} in {language!r}, row {row}: text").rstrip("\r\n")
        for row, sentence in enumerate(sentences)
    ]


# -- rows of tasks ---------------------------------------------------------------------------------


def _folder_rows(
    task: str, language: str, source: Source, split: str | None
) -> Iterator[PlacedRow]:
    path = task_file(source_folder(source), task, language, split)
    for number, (line, row) in enumerate(read_objects(path)):
        yield PlacedRow(number, f"{path}, line {line}: {task} in {language!r}, row {number}", row)


def _hub_rows(task: str, language: str, split: str | None) -> Iterator[PlacedRow]:
    repository, configuration, revision = (
        part and part.format(language=language, flores=FLORES200_CODES[language])
        for part in _declared_hub(task)
    )
    default = declared_task(task).splits[0]
    rows = _from_hub(repository or "", configuration, split or default, revision)
    for number, row in enumerate(rows):
        yield PlacedRow(number, f"{repository}: {task} in {language!r}, row {number}", row)


def _drawn_groups(examples: list[dict[str, Any]], task: Task, seed: int) -> list[str]:
    """The groups in a seeded order, labels in turn where each group has one of few labels."""
    labels: dict[str, set[int]] = {}
    for example in examples:
        labels.setdefault(example["group"], set()).add(example["label"])
    groups = sorted(labels)
    drawn = [groups[i] for i in np.random.default_rng(seed).permutation(len(groups))]
    if len(task.labels) > MAX_BALANCED_LABELS or any(len(own) > 1 for own in labels.values()):
        return drawn
    n_drawn: Counter[int] = Counter()
    turns: dict[str, int] = {}
    for group in drawn:
        (label,) = labels[group]
        turns[group] = n_drawn[label]
        n_drawn[label] += 1
    return sorted(drawn, key=turns.__getitem__)  # stable: within a turn the order is still drawn


def _whole_groups(
    examples: list[dict[str, Any]], limit: int, drawn: list[str]
) -> list[dict[str, Any]]:
    """The rows of the first groups drawn, while they fit into ``limit``; at least one group."""
    sizes = Counter(example["group"] for example in examples)
    totals = np.cumsum([sizes[group] for group in drawn])
    kept = set(drawn[: max(1, int(np.searchsorted(totals, limit, side="right")))])
    return [example for example in examples if example["group"] in kept]


# -- the hub ---------------------------------------------------------------------------------------


def _from_hub(
    repository: str, configuration: str | None, split: str, revision: str | None
) -> Dataset:
    try:
        return load_dataset(repository, configuration, split=split, revision=revision)
    except Exception as error:  # datasets raises many kinds; each means the same next steps
        told = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise DataError(
            f"Cannot load {repository} ({configuration or 'default'}, {split}) from the hub: "
            f"{told} Check the network; a gated set needs its terms accepted on its page and: hf "
            "auth login. Or pass source='builtin' or a folder."
        ) from error


def _declared_hub(task: str) -> tuple[str, str | None, str | None]:
    hub = declared_task(task).hub
    if hub is None:
        raise DataError(
            f"{task} is part of the built-in corpus, not of the hub: pass source='builtin', or "
            "change tasks."
        )
    return hub


def _check_hub_set(name: str | None) -> None:
    if name is not None and name not in HUB_SETS:
        allowed = ", ".join(repr(each) for each in HUB_SETS)
        raise DataError(
            f"name is {name!r}; allowed on the hub: {allowed} (the notebooks' parameter parallel)."
        )


def _check_hub_task(task: str, languages: Sequence[str]) -> None:
    _declared_hub(task)
    there = declared_task(task).languages
    if there and (missing := [language for language in languages if language not in there]):
        raise DataError(
            f"{task} on the hub has no {', '.join(missing)}; it has: {', '.join(there)}. Change "
            "tasks, languages or source."
        )
