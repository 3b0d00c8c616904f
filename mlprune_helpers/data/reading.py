"""Files from outside, read as text: UTF-8, with any line ends, and nothing else is let through."""

from __future__ import annotations

import codecs
import contextlib
import json
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NoReturn

from .checks import is_blank
from .languages import DataError

BYTE_ORDER_MARK = "\ufeff"

#: UTF-32 first: in little-endian order its mark begins as that of UTF-16 does.
_OTHER_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}

_LISTENING: ContextVar[tuple[set[Path], ...]] = ContextVar("files_read", default=())


@contextlib.contextmanager
def files_read() -> Iterator[set[Path]]:
    """The files that are read inside: parallel text, task files, the sample of code.

    Contexts may stand inside one another; each has all that is read in it.

    Example:
        >>> with files_read() as files:
        ...     rows = load_task("nli", "fr")
        >>> [file.name for file in files]
        ['test.fr.jsonl']
    """
    files: set[Path] = set()
    token = _LISTENING.set((*_LISTENING.get(), files))
    try:
        yield files
    finally:
        _LISTENING.reset(token)


def read_sentences(path: Path) -> list[str]:
    """The lines of a file, of which none is blank; one line end may close the file.

    Raises:
        DataError: A line is blank, or the file is no UTF-8 text.
    """
    lines = _lines(path)
    if lines[-1] == "":
        lines.pop()
    if not lines:
        raise DataError(f"{path} is empty; needed: one sentence a line.")
    for number, line in enumerate(lines, start=1):
        if is_blank(line):
            raise DataError(
                f"{path}, line {number}: blank. Line n of every language must say the same: "
                "translate it, or take the line out of every file of this set."
            )
    return lines


def read_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a file of JSON lines.

    Each with the number of its line; blank lines are passed over.

    Raises:
        DataError: A line is not one JSON object, or the file is no UTF-8 text.
    """
    for number, line in enumerate(_lines(path), start=1):
        if is_blank(line):
            continue
        try:
            found = json.loads(line, parse_constant=_refuse_constant, object_pairs_hook=_object)
        except (ValueError, RecursionError) as caught:
            error: Exception = caught
            if number == 1 and line.lstrip().startswith("["):
                error = ValueError("the file is one array; write one object a line")
            raise DataError(f"{path}, line {number}: not one JSON object ({error}).") from None
        if not isinstance(found, dict):
            kind = "an array" if isinstance(found, list) else line.strip()[:40]
            raise DataError(
                f"{path}, line {number}: not one JSON object (it is {kind}; write one object a "
                "line)."
            )
        yield number, found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"a name stands twice among {', '.join(name for name, _ in pairs)}")
    return found


def _lines(path: Path) -> list[str]:
    r"""What stands between line ends, ``\n`` or ``\r\n``.

    Not ``splitlines``, nor Python's reading of text files: they also split at a lone ``\r`` or at
    one of Unicode's rarer separators, which a text may have inside.
    """
    lines = _decoded(path).split("\n")
    return [line.rstrip("\r").lstrip(BYTE_ORDER_MARK) for line in lines]


def _decoded(path: Path) -> str:
    content = path.read_bytes()
    for files in _LISTENING.get():
        files.add(path.resolve())
    for mark, encoding in _OTHER_MARKS.items():
        if content.startswith(mark):
            raise DataError(f"{path}, line 1: the file is {encoding}; save it as UTF-8.")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}, line {line}: not UTF-8 (byte {content[error.start]:#04x}); save the file as "
            "UTF-8."
        ) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataError(f"{path}, line {line}: a zero byte; save the file as UTF-8 text.")
    return text
