"""Where things lie in a folder.

``NAME/LANG.txt`` (parallel sentences), ``TASK/SPLIT.LANG.jsonl`` (tasks).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from .languages import LANGUAGES, DataError
from .tasks import declared_task

CORPUS = Path(__file__).parent.parent / "corpus"


def source_folder(source: str | os.PathLike[str]) -> Path:
    """The folder that ``source`` means.

    Raises:
        DataError: There is none.
    """
    if isinstance(source, str) and source == "builtin":
        return CORPUS
    # An empty path would be the folder that Python runs in.
    if isinstance(source, os.PathLike) or (isinstance(source, str) and source.strip()):
        folder = Path(os.path.expanduser(source))
        if folder.is_dir():
            return folder
    shown = repr(source) if source is None else repr(str(source))
    raise DataError(f"source is {shown}; allowed: 'builtin', 'hub', or an existing folder.")


def parallel_files(
    folder: Path, languages: Sequence[str], name: str | None
) -> tuple[str, dict[str, Path]]:
    """The name of a parallel set, and its file in each language.

    Args:
        folder: With a folder for each set.  What is no ``NAME/LANG.txt`` of a known language is
            passed over.
        languages: Codes.
        name: Which set; None: the only one.

    Raises:
        DataError: The set or a language is missing, or there are several sets and none is named.
    """
    sets = _parallel_sets(folder)
    if name is None and len(sets) == 1:
        (name,) = sets
    if not isinstance(name, str) or name not in sets:
        there = ", ".join(sets) or "none (NAME/LANG.txt)"
        step = "Pass the name of one (the notebooks' parameter parallel)"
        if not sets:
            step = "Change source"
            if any((folder / f"{language}.txt").is_file() for language in LANGUAGES):
                step += f": this folder is itself a set, pass {folder.absolute().parent}"
        raise DataError(f"{folder}: parallel set {name!r}; there are: {there}. {step}.")
    files = sets[name]
    if missing := [language for language in languages if language not in files]:
        others = [other for other in sets if other != name]
        step = f", or the set (parameter parallel: {', '.join(others)})" if others else ""
        always = " English is always needed." if "en" in missing else ""
        raise DataError(
            f"{folder / name} has no {', '.join(missing)}; it has: {', '.join(files)}.{always} "
            f"Change languages, or source{step}."
        )
    return name, {language: files[language] for language in languages}


def _parallel_sets(folder: Path) -> dict[str, dict[str, Path]]:
    """By name of set and language: the files there are, in the order of their names."""
    sets: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.glob("*/*.txt")):
        is_hidden = path.parent.name.startswith(".")
        if path.stem in LANGUAGES and path.is_file() and not is_hidden:
            sets.setdefault(path.parent.name, {})[path.stem] = path
    return sets


def task_file(folder: Path, task: str, language: str, split: str | None) -> Path:
    """The file of a task in a language.

    Args:
        folder: With a folder for each task.
        task: A key of ``TASKS``.
        language: A code.
        split: None: the first of the task's splits that is there.

    Raises:
        DataError: There is no such file.
    """
    splits = declared_task(task).splits if split is None else [split]
    wanted = [f"{each}.{language}.jsonl" for each in splits]
    there = sorted(path.name for path in (folder / task).glob("*.jsonl"))
    for name in wanted:
        if name in there:
            return folder / task / name
    raise DataError(
        f"{folder / task} has no {' or '.join(wanted)}; it has: {', '.join(there) or 'nothing'}. "
        "Change tasks, languages or source."
    )


def check_folder(
    folder: Path,
    languages: Sequence[str],
    tasks: Sequence[str],
    parallel: str | None,
    split: str | None,
) -> None:
    """See that a folder has a parallel set and tasks, all in these languages.

    Raises:
        DataError: It has not, or what it has of a task is another split in one language than in
            another.
    """
    parallel_files(folder, languages, parallel)
    for task in tasks:
        files = [task_file(folder, task, language, split).name for language in languages]
        if len({name.partition(".")[0] for name in files}) > 1:
            raise DataError(
                f"{folder / task}: {', '.join(files)} are of different splits; needed: one split "
                "in all languages. Change languages, tasks or source."
            )
