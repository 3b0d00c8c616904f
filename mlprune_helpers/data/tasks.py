"""Multiple-choice tasks: declarations, and the live registry of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .checks import checked_text, shown, whole_number
from .identity import describe_function
from .languages import LANGUAGES, DataError
from .templates import check_template, selector

Row = Mapping[str, Any]

#: Columns of every row, whatever its task.
RESERVED = ("id", "group", "label")


@dataclass(frozen=True)
class Task:
    """A multiple-choice task: where it lies, how its rows are read, how it is asked.

    Args:
        labels: What the integer labels mean, in their order.
        fields: Columns that a row needs besides ``label``, each with a text.
        templates: How it is asked: one template ``{"prompt": …, "choices": […]}``, which is the
            same as ``{"paper": that}``, or several by name.  ``"paper"`` is needed: it is what is
            asked by default.  ``"native"`` has one for each language, by code.  What a template may
            say is told in ``templates.yml``.
        hub: Repository, configuration, revision; ``{language}`` is filled in, and ``{flores}``, the
            language's code in FLORES-200.  None where the task is not on the hub.
        splits: Splits that exist, the default first.
        convert: From a raw row to a row with ``fields`` and ``label``, or None to drop it.  It is
            applied to all rows from the hub, and to those rows of a folder that have the raw form.
        group: From (row number, row) to the identity that dependent rows share.  Default: a row is
            its own group.
        parallel: Whether row n is the same example in every language.
        answers: Those of ``fields`` that are given answers, and not texts that are asked about.
        raw: Columns by which the raw form is known in a folder.  Default: every row has it.
        languages: Languages that the hub has, where that is known.
        ranked: The two labels that a ranking compares, the one with the higher margin first; see
            ``Evaluation.ranking``.  Default: all pairs of labels.

    Raises:
        TypeError: Something is of another type, such as labels that are one text.
        ValueError: Something is missing, repeated, or asks for a field that there is not.

    Example:
        >>> TASKS["food"] = Task(
        ...     labels=("no", "yes"),
        ...     fields=("text",),
        ...     templates={"prompt": "{text} Is this about food?", "choices": [" No", " Yes"]},
        ... )
    """

    labels: tuple[str, ...]
    fields: tuple[str, ...]
    templates: dict[str, Any]
    hub: tuple[str, str | None, str | None] | None = None
    splits: tuple[str, ...] = ("test",)
    convert: Callable[[dict[str, Any]], Row | None] | None = None
    group: Callable[[int, dict[str, Any]], object] | None = None
    parallel: bool = True
    answers: tuple[str, ...] = ()
    raw: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    ranked: tuple[str, str] | None = None

    def __post_init__(self) -> None:
        for name in ("labels", "fields", "splits", "answers", "raw", "languages"):
            self._set(name, _checked_names(getattr(self, name), name))
        self._check_names()
        self._check_ranked()
        self._check_reading()
        self._set("templates", _by_name(self.templates))
        for name, given in self.templates.items():
            self._check_templates(name, given)

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)  # the only way in a frozen class

    def _check_names(self) -> None:
        if len(self.labels) < 2:
            raise ValueError(f"labels is {self.labels!r}; needed: two or more to choose from.")
        if not self.fields or not self.splits:
            empty = "splits" if self.fields else "fields"
            raise ValueError(f"{empty} is empty; needed: at least one.")
        if taken := [name for name in self.fields if name in RESERVED]:
            raise ValueError(
                f"fields has {taken[0]!r}; every row has {', '.join(RESERVED)} anyway."
            )
        if odd := [name for name in self.fields if set(name) & set("{}[].:!") or name.isdigit()]:
            raise ValueError(f"field {odd[0]!r} cannot stand in a gap: use letters.")
        if strange := [name for name in self.answers if name not in self.fields]:
            raise ValueError(
                f"answers has {strange[0]!r}; the task's fields are {', '.join(self.fields)}."
            )

    def _check_ranked(self) -> None:
        if self.ranked is None:
            return
        ranked = _checked_names(self.ranked, "ranked")
        if len(ranked) != 2 or not set(ranked) <= set(self.labels):
            raise ValueError(
                f"ranked is {ranked!r}; needed: None, or two of the labels "
                f"{', '.join(self.labels)}."
            )
        self._set("ranked", ranked)

    def _check_reading(self) -> None:
        for name in ("convert", "group"):
            function = getattr(self, name)
            if function is not None and not callable(function):
                raise TypeError(f"{name} is {function!r}; needed: a function, or None.")
        if not isinstance(self.parallel, bool):
            raise TypeError(f"parallel is {self.parallel!r}; needed: True or False.")
        if self.hub is None:
            return
        parts = [] if isinstance(self.hub, str) else list(self.hub)
        if len(parts) != 3 or not isinstance(parts[0], str):
            raise TypeError(
                f"hub is {self.hub!r}; needed: (repository, configuration or None, revision or "
                "None)."
            )
        self._set("hub", tuple(parts))

    def _check_templates(self, name: str, given: object) -> None:
        """Check one template, or one for each language."""
        if _is_one(given) or name == "paper":
            check_template(given, self.labels, self.fields, f"Template {name!r}")
            return
        if not isinstance(given, Mapping) or not given:
            raise TypeError(
                f"Template {name!r} is {given!r}; needed: a template, or one a language."
            )
        if unknown := [code for code in given if code not in LANGUAGES]:
            raise ValueError(
                f"Template {name!r} is given for {unknown[0]!r}; needed: a prompt and choices, or "
                f"those by language: {', '.join(LANGUAGES)}."
            )
        for language, template in given.items():
            check_template(template, self.labels, self.fields, f"Template {name!r} in {language!r}")

    @property
    def selectors(self) -> tuple[str, ...]:
        """The fields that choose a prompt, in the templates as they are now."""
        chosen: list[str | None] = []
        for given in self.templates.values():
            templates = [given] if _is_one(given) else given.values()
            chosen += [selector(template) for template in templates]
        return tuple(field for field in self.fields if field in chosen)

    @property
    def texts(self) -> tuple[str, ...]:
        """The fields that are asked about: neither answers nor selectors."""
        return tuple(f for f in self.fields if f not in self.answers and f not in self.selectors)

    def has_native(self, language: str) -> bool:
        """Whether ``template="native"`` can be asked in a language."""
        native = self.templates.get("native", {})
        return _is_one(native) or language in native

    def describe(self) -> dict[str, Any]:
        """A JSON form of all that decides a result, for caches.

        It changes with templates and functions.
        """
        described = {name: _plain(value) for name, value in vars(self).items()}
        for name in ("convert", "group"):
            described[name] = describe_function(getattr(self, name))
        return described


def _checked_names(given: object, name: str) -> tuple[str, ...]:
    """A tuple of names without repetition."""
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise TypeError(f"{name} is {given!r}; needed: a list of texts.")
    for item in given:
        if not isinstance(item, str):
            raise TypeError(f"{name} has {item!r}; needed: texts.")
        if not item.strip():
            raise ValueError(f"{name} has {item!r}; needed: texts that are not blank.")
    if len(set(given)) < len(given):
        raise ValueError(f"{name} is {tuple(given)!r}; needed: each once.")
    return tuple(given)


def _by_name(templates: object) -> dict[str, Any]:
    """A copy of the templates by name, where there may be only one, without a name."""
    if not isinstance(templates, Mapping):
        raise TypeError(
            f"templates is {templates!r}; needed: a prompt and choices, or those by name."
        )
    named = _plain(templates)
    if _is_one(named):
        named = {"paper": named}
    if "paper" not in named:
        raise ValueError(
            f"templates has {', '.join(map(str, named)) or 'nothing'}; needed: 'paper', which is "
            "asked by default, or one prompt with its choices."
        )
    return named


def _plain(value: Any) -> Any:
    """A copy of dicts and lists."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value


def _is_one(template: object) -> bool:
    """Whether this is meant as a template, not as several by name or language."""
    return isinstance(template, Mapping) and ("prompt" in template or "choices" in template)


def declared_task(name: str) -> Task:
    """The task of a name.

    Raises:
        DataError: There is none of that name.
        TypeError: What was put into the registry is no :class:`Task`.
    """
    if not isinstance(name, str) or name not in TASKS:
        raise DataError(
            f"task is {name!r}; allowed: {', '.join(TASKS)}. Declare one of your own first: "
            f"TASKS[{name!r}] = Task(…)."
        )
    if not isinstance(TASKS[name], Task):
        raise TypeError(f"TASKS[{name!r}] is {shown(TASKS[name])}; needed: a Task.")
    return TASKS[name]


def _marc_row(row: dict[str, Any]) -> Row | None:
    """Stars to two labels; three stars are dropped, as in the published code.

    ``stars`` from 1 to 5, or as SetFit's copies on the hub have them: ``label`` from 0 to 4.
    """
    column, lowest = ("stars", 1) if "stars" in row else ("label", 0)
    rating = whole_number(row.get(column))
    if rating is None or not lowest <= rating <= lowest + 4:
        raise DataError(
            f"{column} is {shown(row.get(column))}; allowed: {lowest} to {lowest + 4}, a whole "
            "number."
        )
    stars = rating - lowest + 1
    text = row.get("text") or row.get("review_body")
    return None if stars == 3 else {"text": text, "label": int(stars > 3)}


def _sib200_row(row: dict[str, Any]) -> Row:
    """A category by name to a label; ``index_id`` is the sentence's number in every language."""
    return {"id": row.get("index_id"), "text": row.get("text"), "label": row.get("category")}


def _story_row(row: dict[str, Any]) -> Row:
    """Four sentences to a premise, two endings to choices.

    The right one is 1 or 2 in the raw form.
    """
    sentences = [f"input_sentence_{n}" for n in range(1, 5)]
    answer = whole_number(row.get("answer_right_ending"))
    if answer not in (1, 2):
        raise DataError(
            f"answer_right_ending is {shown(row.get('answer_right_ending'))}; allowed: 1 or 2."
        )
    return {
        "premise": " ".join(checked_text(row.get(name), name) for name in sentences),
        "choice1": row.get("sentence_quiz1"),
        "choice2": row.get("sentence_quiz2"),
        "label": answer - 1,
    }


def _premise_in_id(number: int, row: dict[str, Any]) -> str:
    """The rows of a premise have ids such as 12-1, 12-2."""
    return row["id"].partition("-")[0]


def _premise_by_place(number: int, row: dict[str, Any]) -> int:
    """Three hypotheses of one premise stand in a row, in every language."""
    return number // 3


_FUNCTIONS: dict[str, dict[str, Any]] = {
    "nli": {"group": _premise_in_id},
    "xnli": {"group": _premise_by_place},
    "sib200": {"convert": _sib200_row},
    "marc": {"convert": _marc_row},
    "xstory_cloze": {"convert": _story_row},
}


def _declarations() -> dict[str, Task]:
    """The tasks of tasks.yml, with the templates of templates.yml."""
    tasks, templates = (
        yaml.safe_load((Path(__file__).parent / name).read_text(encoding="utf-8"))
        for name in ("tasks.yml", "templates.yml")
    )
    return {
        name: Task(
            **declared | {"templates": templates[declared["templates"]]}, **_FUNCTIONS.get(name, {})
        )
        for name, declared in tasks.items()
    }


#: The tasks by name.  Live: what is put here is a task like the others, everywhere.
TASKS: dict[str, Task] = _declarations()
