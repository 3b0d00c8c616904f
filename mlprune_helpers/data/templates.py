"""Templates: how a row becomes a prompt and choices; what one may say is told in templates.yml.

A template is ``{"prompt": …, "choices": […]}``.  Its prompt is a text with gaps, or depends on a
column of the row: ``{column: {value of the row: text}}``.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from typing import Any

from .writing import first_words, lower_first, without_full_stop, words_between_spaces

CONVERSIONS = ("t", "l", "c", "w")

Template = Mapping[str, Any]


class Filler(string.Formatter):
    """``str.format`` with the conversions of templates.yml, for texts of one language."""

    def __init__(self, language: str = "en") -> None:
        self.language = language

    def convert_field(self, value: Any, conversion: str | None) -> Any:
        if conversion == "t":
            return without_full_stop(value)
        if conversion == "l":
            return lower_first(value, self.language)
        if conversion == "c":
            return first_words(value)
        if conversion == "w":
            return words_between_spaces(value)
        return value


def selector(template: Template) -> str | None:
    """The column that chooses the prompt, or None where there is one prompt for all rows."""
    prompt = template["prompt"]
    return None if isinstance(prompt, str) else next(iter(prompt))


def check_template(
    template: object, labels: Sequence[str], fields: Sequence[str], name: str
) -> None:
    """See that a template has a prompt, and a choice a label, and asks for nothing that rows lack.

    Args:
        template: What was declared, or given in the place of a declared one.
        labels: Of the task.
        fields: Of the task: the names that may stand in gaps.
        name: What to call the template in messages.

    Raises:
        TypeError: Something is of another type, such as choices that are one text.
        ValueError: Something is missing, superfluous, or asks for what is not there.
    """
    needed = f"a prompt and {len(labels)} choices (one each: {', '.join(labels)})"
    if not isinstance(template, Mapping):
        raise TypeError(f"{name} needs {needed}, not {template!r}.")
    if set(template) != {"prompt", "choices"}:
        raise ValueError(f"{name} needs {needed}, not {template!r}.")
    choices = template["choices"]
    if isinstance(choices, str) or not isinstance(choices, Sequence):
        raise TypeError(f"{name} needs {needed}; its choices are {choices!r}, not a list.")
    if len(choices) != len(labels):
        raise ValueError(f"{name} needs {needed}, not {template!r}.")
    for text in _prompts(template["prompt"], fields, name):
        _check_gaps(text, fields, f"{name}: the prompt")
    for choice in choices:
        _check_gaps(choice, fields, f"{name}: a choice")
        if not choice.strip():
            raise ValueError(f"{name}: choice {choice!r} adds nothing to a prompt.")
    if len(set(choices)) < len(choices):
        raise ValueError(f"{name}: two of the choices {list(choices)!r} are the same.")


def _prompts(prompt: object, fields: Sequence[str], name: str) -> list[object]:
    """The prompts that a template may give: one, or one a value of the column that chooses."""
    if not isinstance(prompt, Mapping):
        return [prompt]
    if len(prompt) != 1:
        raise ValueError(f"{name}: the prompt depends on {list(prompt)!r}; allowed: one column.")
    ((column, texts),) = prompt.items()
    if column not in fields:
        raise ValueError(
            f"{name}: the prompt depends on {column!r}; the task's fields are {', '.join(fields)}."
        )
    if not isinstance(texts, Mapping) or not texts:
        raise TypeError(f"{name}: the prompts by {column} are {texts!r}, not texts by value.")
    if not_text := [value for value in texts if not isinstance(value, str)]:
        raise TypeError(
            f"{name}: {column} is {not_text[0]!r} in the prompt; rows have texts: quote it."
        )
    return list(texts.values())


def _check_gaps(text: object, fields: Sequence[str], name: str) -> None:
    if not isinstance(text, str):
        raise TypeError(f"{name} is {text!r}; needed: a text.")
    try:
        gaps = list(string.Formatter().parse(text))
    except ValueError as error:
        raise ValueError(f"{name} {text!r}: {error}; write {{{{ and }}}} for braces.") from None
    for _, field, _, conversion in gaps:
        if field is not None and field not in fields:
            raise ValueError(
                f"{name} {text!r} asks for {field!r}; the task's fields are {', '.join(fields)}."
            )
        if conversion is not None and conversion not in CONVERSIONS:
            raise ValueError(
                f"{name} {text!r} has the conversion !{conversion}; allowed: !t, !l, !c, !w."
            )
    try:
        Filler().format(text, **dict.fromkeys(fields, "text"))
    except (ValueError, KeyError) as error:  # a format after a colon that no text has
        raise ValueError(f"{name} {text!r}: {error}.") from None
