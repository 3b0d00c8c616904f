"""Languages: their codes, English names, and codes in FLORES+ and NTREX-128."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import yaml

_NAMES: dict[str, list[str]] = yaml.safe_load(
    (Path(__file__).parent / "languages.yml").read_text(encoding="utf-8")
)

#: English names by code.
LANGUAGES: dict[str, str] = {code: names[0] for code, names in _NAMES.items()}

#: The languages of the built-in corpus.
BOOK_LANGUAGES = ("en", "fr", "es", "de", "zh", "hi", "sw")

FLORES_CODES: dict[str, str] = {code: names[1] for code, names in _NAMES.items()}

#: FLORES-200, and what is built on it, calls two languages by wider codes than FLORES+ does.
FLORES200_CODES: dict[str, str] = {**FLORES_CODES, "zh": "zho_Hans", "et": "est_Latn"}

NTREX_CODES: dict[str, str] = {code: names[-1] for code, names in _NAMES.items()}


class DataError(ValueError):
    """Data cannot be found or is not what it should be."""


def language_name(code: str) -> str:
    """The English name of a language.

    Raises:
        DataError: The code is unknown; the message lists those that are known.
    """
    if not isinstance(code, str) or code not in LANGUAGES:
        raise DataError(f"language {code!r}; allowed: {', '.join(LANGUAGES)}.")
    return LANGUAGES[code]


def checked_languages(languages: Iterable[str] | str) -> list[str]:
    """The codes as a list without repetition; a lone code counts as a list of one.

    Raises:
        DataError: No language is given, or one is unknown; the message lists those that are known.
    """
    if isinstance(languages, str):
        languages = [languages]
    if not isinstance(languages, Iterable):
        raise DataError(f"languages is {languages!r}; allowed: a list of {', '.join(LANGUAGES)}.")
    codes = list(languages)
    unknown = [code for code in codes if not isinstance(code, str) or code not in LANGUAGES]
    if unknown or not codes:
        raise DataError(f"language {unknown or codes}; allowed: {', '.join(LANGUAGES)}.")
    return list(dict.fromkeys(codes))
