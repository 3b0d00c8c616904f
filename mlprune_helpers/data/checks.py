"""Checks of single values: texts and whole numbers."""

from __future__ import annotations

import numbers
import unicodedata

from .languages import DataError

# Of spaces, controls and format characters (zero-width space, byte-order mark) nothing is seen.
_INVISIBLE = frozenset({"Zs", "Zl", "Zp", "Cc", "Cf"})


def shown(value: object, length: int = 80) -> str:
    """``repr(value)``, shortened for a message."""
    text = repr(value)
    return text if len(text) <= length else f"{text[: length - 1]}…"


def is_blank(text: str) -> bool:
    """Whether nothing can be seen of a text."""
    return all(character.isspace() or _is_invisible(character) for character in text)


def _is_invisible(character: str) -> bool:
    return unicodedata.category(character) in _INVISIBLE


def checked_text(value: object, name: str) -> str:
    """``value``, if it is a text in which something can be seen and which can be written as UTF-8.

    Args:
        value: What was found.
        name: What to call it in the message, such as the name of its column.

    Raises:
        DataError: It is something else: missing, a number, a list, blank.
    """
    if not isinstance(value, str) or is_blank(value):
        raise DataError(f"{name} is {shown(value)}; needed: a text that is not blank.")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise DataError(f"{name} is {shown(value)}; half of a surrogate pair in it is no text.")
    return value


def whole_number(value: object) -> int | None:
    """``value`` as an int if it is a whole number (1 or 1.0, never True), else None."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    if isinstance(value, numbers.Integral):  # which may be too large for a float
        return int(value)
    number = float(value)
    return int(number) if number.is_integer() else None


def checked_count(value: object, name: str, least: int, also: str = "") -> int:
    """``value`` as an int, if it is an integer (never True or 2.0) of at least ``least``.

    Args:
        value: What was given.
        name: The argument's name, for the message.
        least: The smallest number allowed.
        also: What else is allowed, for the message, such as ``", or None for all rows"``.

    Raises:
        DataError: It is something else.
    """
    is_integer = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not is_integer or value < least:  # type: ignore[operator]
        raise DataError(
            f"{name} is {shown(value)}; allowed: a whole number of at least {least}{also}."
        )
    return int(value)  # type: ignore[call-overload]
