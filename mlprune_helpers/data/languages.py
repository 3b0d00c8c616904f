"""Languages: their codes, English names, and codes in FLORES+ and NTREX-128."""

from __future__ import annotations

from pathlib import Path

import yaml

_NAMES = yaml.safe_load((Path(__file__).parent / "languages.yml").read_text(encoding="utf-8"))


LANGUAGES = {code: names[0] for code, names in _NAMES.items()}


BOOK_LANGUAGES = ("en", "fr", "es", "de", "zh", "hi", "sw")


FLORES_CODES = {code: names[1] for code, names in _NAMES.items()}


NTREX_CODES = {code: names[-1] for code, names in _NAMES.items()}


class DataError(ValueError):
    """Data cannot be found or is not what it should be."""
