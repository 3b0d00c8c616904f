"""Multiple-choice tasks: declarations, and the live registry of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

_TASKS, _TEMPLATES = (
    yaml.safe_load((Path(__file__).parent / f"{name}.yml").read_text(encoding="utf-8"))
    for name in ("tasks", "templates")
)


@dataclass(frozen=True)
class Task:
    """A multiple-choice task: where it lies, how its rows are read, how it is asked."""

    #: What the integer labels mean.
    labels: tuple[str, ...]
    #: Columns that a row needs besides ``label``.  Fields named ``choice…`` are answers, ``question`` selects a prompt.
    fields: tuple[str, ...]
    #: ``{"paper": {"prompt": …, "choices": […]}, "native": {language: …}}``, as ``templates.yml`` explains.
    templates: dict
    #: Repository, configuration, revision; ``{language}`` is filled in.  None where the task is not on the hub.
    hub: tuple[str, str | None, str | None] | None = None
    #: Splits that exist, the default first.
    splits: tuple[str, ...] = ("test",)
    #: From a raw row to a row with ``fields`` and ``label``, or None to drop it.
    convert: Callable[[dict], dict | None] | None = None
    #: From (row number, row) to the identity that dependent rows share.  Default: a row is its own group.
    group: Callable[[int, dict], object] | None = None
    #: Whether row n is the same example in every language.
    parallel: bool = True


def _marc_row(row: dict) -> dict | None:
    stars = row["stars"] if "stars" in row else row["label"] + 1
    return (
        None
        if stars == 3
        else {"text": row.get("text") or row["review_body"], "label": int(stars > 3)}
    )


def _story_row(row: dict) -> dict:
    if "premise" in row:  # a folder may have the simple form
        return row
    context = " ".join(row[f"input_sentence_{i}"] for i in range(1, 5))
    endings = {f"choice{i}": row[f"sentence_quiz{i}"] for i in (1, 2)}
    return {"premise": context, **endings, "label": row["answer_right_ending"] - 1}


_FUNCTIONS = {
    "nli": {"group": lambda i, row: row["id"].partition("-")[0]},
    "xnli": {
        "group": lambda i, row: i // 3
    },  # three hypotheses of one premise stand in a row, in every language
    "marc": {"convert": _marc_row},
    "xstory_cloze": {"convert": _story_row},
}


def _task(name: str, declared: dict) -> Task:
    plain = {
        key: tuple(value) if isinstance(value, list) else value for key, value in declared.items()
    }
    return Task(**plain | {"templates": _TEMPLATES[plain["templates"]]} | _FUNCTIONS.get(name, {}))


TASKS: dict[str, Task] = {name: _task(name, declared) for name, declared in _TASKS.items()}
