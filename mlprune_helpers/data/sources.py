"""Parallel sentences and tasks: from the built-in corpus, a folder, or the Hugging Face hub."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from datasets import Dataset, load_dataset

from .languages import FLORES_CODES, LANGUAGES, NTREX_CODES, DataError
from .tasks import TASKS

CORPUS = Path(__file__).parent.parent / "corpus"


#: Lines from the start of a one-file parallel set that count as "dev"; the rest is "test".
DEV_LINES = {"sentences": 140, "ntrex": 600}


def load_parallel(
    languages: Sequence[str],
    source: str = "builtin",
    *,
    name: str | None = None,
    split: str | None = None,
) -> Dataset:
    """Sentences that say the same in every language: column ``id``, and one column a language.

    ``languages``: codes such as ``["en", "sw"]``.  ``source``: ``"builtin"``; ``"hub"`` (NTREX-128, or with
    ``name="flores_plus"`` that one, which is gated); a folder with ``NAME/LANG.txt``.  ``name``: which set, where the
    source has several.  ``split``: ``"dev"`` or ``"test"``, which never share a sentence; by default both.

    Raises DataError, naming the language, set or split that is missing, and what there is.
    """
    languages = _checked_languages(languages)
    if split not in (None, "dev", "test"):
        raise DataError(f"split is {split!r}; allowed: 'dev', 'test', or None for both.")
    if source != "hub":
        name, columns = _folder_parallel(languages, _folder(source), name)
    elif name == "flores_plus":
        return _flores_plus(languages, split)
    elif name in (None, "ntrex"):
        name, columns = "ntrex", _ntrex(languages)
    else:
        raise DataError(f"name is {name!r}; allowed on the hub: 'ntrex', 'flores_plus'.")
    lengths = {language: len(lines) for language, lines in columns.items()}
    n = min(lengths.values())
    if n < max(lengths.values()):
        raise DataError(
            f"{name} is not parallel: lines by language {lengths}. Line n of every file must say the same."
        )
    cut = DEV_LINES.get(name, int(0.6 * n))
    part = {None: slice(None), "dev": slice(cut), "test": slice(cut, None)}[split]
    columns = {"id": [f"{name}-{i + 1}" for i in range(n)], **columns}
    return Dataset.from_dict({key: values[part] for key, values in columns.items()})


def load_task(
    task: str,
    language: str,
    source: str = "builtin",
    *,
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> Dataset:
    """Rows of a task (a key of ``TASKS``) in one language: ``id``, ``group``, ``label`` and the task's fields.

    Rows that are not independent share a ``group``.  ``source``: ``"builtin"``, ``"hub"`` or a folder with
    ``TASK/SPLIT.LANG.jsonl``; ``split``: by default the task's first there.  ``limit``: at most so many rows, but at
    least one group: whole groups, drawn with ``seed``, the same ones in every language of a parallel task.

    Raises DataError, naming the task, language, split, column or label that is wrong, and what is allowed.
    """
    if task not in TASKS:
        raise DataError(f"task is {task!r}; allowed: {', '.join(TASKS)}.")
    (language,) = _checked_languages([language])
    if limit is not None and limit < 1:
        raise DataError(
            f"limit is {limit}; allowed: a whole number of at least 1, or None for all rows."
        )
    declared = TASKS[task]
    rows = (
        _hub_rows(task, language, split)
        if source == "hub"
        else _folder_rows(_folder(source), task, language, split)
    )
    examples = []
    for i, row in enumerate(rows):
        converted = declared.convert(row) if declared.convert else row
        if converted is None:
            continue
        row = {**converted, "id": str(row.get("id", i))}
        where, needed = f"{task} in {language!r}, row {i}", (*declared.fields, "label")
        if missing := [name for name in needed if name not in row]:
            raise DataError(f"{where}: no {', '.join(missing)}; a row needs {', '.join(needed)}.")
        if row["label"] not in range(len(declared.labels)):
            raise DataError(
                f"{where}: label is {row['label']!r}; allowed: 0 to {len(declared.labels) - 1}."
            )
        group = str(declared.group(i, row)) if declared.group else row["id"]
        examples.append(
            {
                "id": row["id"],
                "group": group,
                "label": row["label"],
                **{f: row[f] for f in declared.fields},
            }
        )
    if limit is not None:
        examples = _whole_groups(examples, limit, seed)
    return Dataset.from_list(examples)


def load_code() -> list[str]:
    """Functions of this book's own package, as they were when the sample was drawn: prompts of program code."""
    with (CORPUS / "code" / "python.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in lines]


def _checked_languages(languages: Sequence[str]) -> list[str]:
    languages = [languages] if isinstance(languages, str) else list(languages)
    unknown = [code for code in languages if code not in LANGUAGES]
    if unknown or not languages:
        raise DataError(f"language {unknown or languages}; allowed: {', '.join(LANGUAGES)}.")
    return languages


def _folder(source: str | Path) -> Path:
    if source == "builtin":
        return CORPUS
    folder = Path(source).expanduser()
    if not folder.is_dir():
        raise DataError(
            f"source is {str(source)!r}; allowed: 'builtin', 'hub', or an existing folder."
        )
    return folder


def _folder_parallel(
    languages: list[str], folder: Path, name: str | None
) -> tuple[str, dict[str, list[str]]]:
    sets = sorted({path.parent.name for path in folder.glob("*/*.txt")})
    if name is None and len(sets) == 1:
        (name,) = sets
    if name not in sets:
        raise DataError(
            f"{folder}: parallel set {name!r}; there are: {', '.join(sets) or 'none (NAME/LANG.txt)'}."
        )
    there = {path.stem: path for path in sorted((folder / name).glob("*.txt"))}
    if missing := [language for language in languages if language not in there]:
        raise DataError(f"{folder / name} has no {', '.join(missing)}; it has: {', '.join(there)}.")
    # Not splitlines: it also splits where a text has one of Unicode's rarer line separators.
    texts = {language: there[language].read_text(encoding="utf-8") for language in languages}
    return name, {language: text.removesuffix("\n").split("\n") for language, text in texts.items()}


def _folder_rows(folder: Path, task: str, language: str, split: str | None) -> list[dict]:
    there = sorted(path.name for path in (folder / task).glob("*.jsonl"))
    wanted = [f"{s}.{language}.jsonl" for s in (TASKS[task].splits if split is None else [split])]
    found = [name for name in wanted if name in there]
    if not found:
        raise DataError(
            f"{folder / task} has no {' or '.join(wanted)}; it has: {', '.join(there) or 'nothing'}."
        )
    rows = []
    for i, line in enumerate(
        (folder / task / found[0]).read_text(encoding="utf-8").split("\n"), start=1
    ):
        try:
            rows += [json.loads(line)] if line.strip() else []
        except json.JSONDecodeError as error:
            raise DataError(
                f"{folder / task / found[0]}, line {i}: not one JSON object ({error})."
            ) from None
    return rows


def _ntrex(languages: list[str]) -> dict[str, list[str]]:
    raw = _from_hub("mteb/NTREX", None, "test", None)
    if missing := [
        language for language in languages if NTREX_CODES[language] not in raw.column_names
    ]:
        raise DataError(
            f"mteb/NTREX has no {', '.join(missing)}; it has columns {', '.join(raw.column_names)}."
        )
    return {language: raw[NTREX_CODES[language]][:] for language in languages}


def _flores_plus(languages: list[str], split: str | None) -> Dataset:
    parts = {"dev": ["dev"], "test": ["devtest"], None: ["dev", "devtest"]}[split]
    columns = {}
    for language in languages:
        raw = {
            p: _from_hub("openlanguagedata/flores_plus", FLORES_CODES[language], p, None)
            for p in parts
        }
        raw = {part: rows.to_pandas().sort_values("id") for part, rows in raw.items()}
        ids = [f"flores-{part}-{i}" for part, rows in raw.items() for i in rows["id"]]
        if columns.setdefault("id", ids) != ids:
            raise DataError(
                f"flores_plus has other sentences in {language!r} than in {languages[0]!r}: leave one out."
            )
        columns[language] = [text for rows in raw.values() for text in rows["text"]]
    return Dataset.from_dict(columns)


def _hub_rows(task: str, language: str, split: str | None) -> Dataset:
    declared = TASKS[task]
    if declared.hub is None:
        raise DataError(
            f"{task} is part of the built-in corpus, not of the hub: pass source='builtin'."
        )
    repository, configuration, revision = (
        part and part.format(language=language) for part in declared.hub
    )
    return _from_hub(repository, configuration, split or declared.splits[0], revision)


def _from_hub(
    repository: str, configuration: str | None, split: str, revision: str | None
) -> Dataset:
    try:
        return load_dataset(repository, configuration, split=split, revision=revision)
    except Exception as error:  # datasets raises many kinds; each means the same next steps
        told = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise DataError(
            f"Cannot load {repository} ({configuration or 'default'}, {split}) from the hub: {told} Check the network; "
            "a gated set needs its terms accepted on its page and: hf auth login. Or pass source='builtin' or a folder."
        ) from error


def _whole_groups(examples: list[dict], limit: int, seed: int) -> list[dict]:
    """Whole groups in a seeded order while they fit into ``limit`` rows (at least one group), in file order."""
    sizes = Counter(example["group"] for example in examples)
    groups = sorted(sizes)
    drawn = [groups[i] for i in np.random.default_rng(seed).permutation(len(groups))]
    totals = np.cumsum([sizes[group] for group in drawn])
    kept = set(drawn[: max(1, np.searchsorted(totals, limit, side="right"))])
    return [example for example in examples if example["group"] in kept]
