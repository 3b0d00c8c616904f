"""Results kept on disk, and found again by what they depend on."""

from __future__ import annotations

import functools
import inspect
import json
import pydoc
import time
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import numpy as np
import pandas as pd

from ..data import sources
from ..data.languages import LANGUAGES
from ..files import cache_dir, written_beside
from .identity import (
    CODE,
    PACKAGE,
    described,
    described_function,
    digest,
    digest_of_file,
    digest_of_folder,
)

_P = ParamSpec("_P")
_T = TypeVar("_T")

_NOTHING = object()
#: For each call that is being computed now, the files that were read on its behalf.
_BEING_COMPUTED: ContextVar[tuple[set[Path], ...]] = ContextVar("_BEING_COMPUTED", default=())


def cached(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """``function``, with its results kept on disk.

    A result is found again in ``cache_dir()/results`` if all is the same that it depends on: the
    function, this package's sources, the arguments, however they are passed, the declarations that
    they name (a task, a method), and the files that the data room read for it.  A damaged result is
    computed again.

    A function of your own counts with the functions, numbers and texts beside it that it uses.
    Lists and tables it must be given as arguments.

    Args:
        function: Takes plain data; objects with a ``fingerprint``, which stands for them, so that a
            pruned model never gets a dense one's results; data sets, data frames and arrays, which
            count by content; a folder as ``source``, which counts by the files in it that are read
            (by all, where the data room reads none).  Returns JSON data (tuples and arrays inside
            come back as lists), an array, a data frame, or an object with ``save(path)`` and a
            class method ``load(path)``.

    Returns:
        A function with the same arguments.  It raises TypeError for an argument or a result of
        another kind.

    Example:
        >>> cached(evaluate)(lm, "nli", "fr", limit=60)
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        shelf = _Shelf(function, bound.arguments)
        found = shelf.find()
        if found is _NOTHING:
            found = shelf.fill(functools.partial(function, *args, **kwargs))
        return cast("_T", found)

    return cast("Callable[_P, _T]", call)


class _Shelf:
    """Where the results of one call lie: one for each state of the files that it was computed from.

    A result lies in ``KEY.ENDING``, the ending saying how it is read.  If files were read for it,
    it lies in ``KEY-STATE.ENDING``, and they with their states in ``KEY-STATE.files``.
    """

    def __init__(self, function: Callable, arguments: Mapping[str, Any]):
        name = f"{function.__module__}.{function.__qualname__}"
        self.folder = cache_dir() / "results" / name
        self.source = _folder(arguments.get("source"))
        plain = {
            argument: described(value, argument)
            for argument, value in arguments.items()
            if not (argument == "source" and self.source)  # it counts by its files
        }
        self.key = digest([name, CODE, described_function(function), plain, bool(self.source)])

    def find(self) -> object:
        """The result that is valid now, or ``_NOTHING``."""
        state_now = functools.cache(self._state)
        for record in sorted(self.folder.glob(f"{self.key}-*.files")):
            files = _read_record(record)
            if files and all(state_now(file) == state for file, state in files.items()):
                found = _found(self.folder, record.stem)
                if found is not _NOTHING:
                    _note_as_read(self._path(file) for file in files)
                    return found
        return _found(self.folder, self.key)

    def fill(self, compute: Callable[[], object]) -> object:
        """Compute the result and keep it, with the files it was computed from."""
        started = time.time()
        value, read = _computed(compute)
        _note_as_read(read)
        files = self._states(read, started)
        if not files:
            return _load(_save(value, self.folder, self.key))
        stem = f"{self.key}-{digest(files)[:16]}"
        result = _save(value, self.folder, stem)
        with written_beside(self.folder / f"{stem}.files") as beside:
            beside.write_text(json.dumps(files, indent=1), encoding="utf-8")
        return _load(result)  # as the next call will get it

    def _states(self, read: Iterable[Path], started: float) -> dict[str, str]:
        """The files that a result depends on, each with its state while the result was computed."""
        outside = [path.resolve() for path in read if not path.resolve().is_relative_to(PACKAGE)]
        files = {self._name(path): self._state(self._name(path)) for path in outside}
        for path in outside:
            if path.exists() and max(path.stat().st_mtime, path.stat().st_ctime) > started:
                files[self._name(path)] = "changed while it was read"  # so never found again
        if self.source and not any(path.is_relative_to(self.source) for path in outside):
            files["."] = self._state(".")  # read in some other way, so any of its files may count
        return files

    def _name(self, path: Path) -> str:
        if self.source is not None and path.is_relative_to(self.source):
            return path.relative_to(self.source).as_posix()
        return str(path)

    def _path(self, name: str) -> Path:
        return Path(name) if self.source is None else self.source / name

    def _state(self, name: str) -> str:
        path = self._path(name)
        if path.is_dir():
            return digest_of_folder(path)
        if not path.is_file():
            return "missing"
        return digest([digest_of_file(path), _alternatives(path)])


def _folder(source: object) -> Path | None:
    """The folder that an argument ``source`` names, if it does: it may name a language, too."""
    if not isinstance(source, (str, Path)) or source in ("builtin", "hub", *LANGUAGES):
        return None
    folder = Path(source).expanduser().resolve()
    return folder if folder.is_dir() else None


def _alternatives(path: Path) -> list[str]:
    """Files that may be read in place of ``SPLIT.LANG.jsonl``: the language's other splits."""
    _, *ending = path.name.split(".")
    if len(ending) < 2:
        return []
    tail = "." + ".".join(ending)
    return sorted(other.name for other in path.parent.iterdir() if other.name.endswith(tail))


def _computed(compute: Callable[[], object]) -> tuple[object, set[Path]]:
    """A result, and the files that were read for it, or for a result that was found in between."""
    noted: set[Path] = set()
    token = _BEING_COMPUTED.set((*_BEING_COMPUTED.get(), noted))
    try:
        with sources.files_read() as read:
            value = compute()
        return value, noted | set(read)
    finally:
        _BEING_COMPUTED.reset(token)


def _note_as_read(files: Iterable[Path]) -> None:
    """What a result was computed from, all results count on that are computed with its help."""
    files = set(files)
    for noted in _BEING_COMPUTED.get():
        noted |= files


def _read_record(record: Path) -> dict[str, str]:
    try:
        return json.loads(record.read_bytes())
    except (OSError, ValueError):  # removed meanwhile, or damaged
        record.unlink(missing_ok=True)
        return {}


# -- one result as a file --------------------------------------------------------------------------


def _found(folder: Path, stem: str) -> object:
    """The result ``stem`` in ``folder``, or ``_NOTHING``; a damaged one is removed."""
    for file in folder.glob(f"{stem}.*"):
        if file.suffix == ".files":
            continue
        try:
            return _load(file)
        except Exception:  # in whatever way it is damaged
            file.unlink(missing_ok=True)
    return _NOTHING


def _save(value: Any, folder: Path, stem: str) -> Path:
    """Write a result to ``stem`` and an ending that says how to read it."""
    kind = type(value)
    content = None
    if hasattr(value, "save") and hasattr(kind, "load"):
        ending = f"{kind.__module__}.{kind.__qualname__}"
    elif isinstance(value, pd.DataFrame):
        ending = "parquet"
    elif isinstance(value, np.ndarray):
        ending = "npy"
    else:
        ending, content = "json", _as_json(value)
    file = folder / f"{stem}.{ending}"
    with written_beside(file) as beside:
        if content is not None:
            beside.write_text(content, encoding="utf-8")
        elif ending == "parquet":
            value.to_parquet(beside)
        elif ending == "npy":
            np.save(beside, value, allow_pickle=False)
        else:
            value.save(beside)
    return file


def _as_json(value: object) -> str:
    try:
        return json.dumps(value, default=np.ndarray.tolist)
    except TypeError as error:
        kind = type(value).__name__
        raise TypeError(f"A result of type {kind} cannot be cached: {error}.") from None


def _load(file: Path) -> object:
    ending = file.name.partition(".")[2]
    if ending == "json":
        return json.loads(file.read_bytes())
    if ending == "parquet":
        return pd.read_parquet(file)
    if ending == "npy":
        return np.load(file)
    kind: Any = pydoc.locate(ending)
    return kind.load(file)
