"""What decides a result, in a form that is the same exactly if the content is.  Knows no torch."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd

from ..data.languages import LANGUAGES
from ..data.tasks import TASKS, Task

PACKAGE = Path(__file__).resolve().parent.parent
#: Rooms that run, show and keep, but measure nothing.
_WITHOUT_EFFECT = {
    *("runs", "cli.py", "__init__.py", "plots.py", "tables.py"),
    *("arms.py", "chapters.py", "verdicts.py"),
}
_LIBRARIES = ("torch", "transformers", "tokenizers", "datasets", "numpy", "sacrebleu")


def digest(description: object) -> str:
    """32 hexadecimal digits for JSON data, whatever the order of its keys."""
    text = json.dumps(description, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def digest_of_file(path: Path) -> str:
    """SHA-256 of a file of any size."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of_files(files: Iterable[Path], root: Path) -> str:
    """One digest for files: their content and their place below ``root``."""
    return digest([[f.relative_to(root).as_posix(), digest_of_file(f)] for f in sorted(files)])


def digest_of_folder(folder: Path) -> str:
    """One digest for all files below a folder."""
    return digest_of_files(filter(Path.is_file, folder.rglob("*")), folder)


def package_files() -> list[Path]:
    """The package's sources and data."""
    endings = {".py", ".yml", ".md"}
    sources = [path for path in PACKAGE.rglob("*") if path.suffix in endings]
    corpus = [path for path in (PACKAGE / "corpus").rglob("*") if path.is_file()]
    return sorted({*sources, *corpus})


def measuring_files() -> list[Path]:
    """Those of the package's files that a measured number can depend on."""
    files = [path for path in package_files() if path.suffix != ".md"]
    return [path for path in files if path.relative_to(PACKAGE).parts[0] not in _WITHOUT_EFFECT]


#: Read on import, with the code that will run: a later edit must not claim this code's results.
CODE = {
    "package": digest_of_files(measuring_files(), PACKAGE),
    **{name: importlib.metadata.version(name) for name in _LIBRARIES},
}


def described(value: Any, argument: str = "") -> object:
    """A JSON form of an argument.

    Args:
        value: Plain data; an object with a ``fingerprint``, which stands for it; a data set, data
            frame or array; a Path, which counts by the content of the file or folder.
        argument: Its name.  Where it names an entry of a live registry (a task, a method, a
            language), the entry counts too, with its functions.

    Raises:
        TypeError: It cannot be compared by content.
    """
    if isinstance(value, datasets.Dataset):
        columns = {name: described(value[name][:]) for name in value.column_names}
        return {"dataset": columns, "features": str(value.features)}
    if isinstance(value, (pd.DataFrame, pd.Series)):
        return {"pandas": _described_frame(pd.DataFrame(value))}
    if hasattr(value, "fingerprint"):
        return {"fingerprint": value.fingerprint}
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype != object:
        return {"array": _described_array(np.asarray(value))}
    if isinstance(value, Path):
        path = value.expanduser()
        return {"files": digest_of_folder(path) if path.is_dir() else digest_of_file(path)}
    if isinstance(value, Mapping):
        items = [[described(key), described(item)] for key, item in value.items()]
        return {"mapping": sorted(items, key=json.dumps)}
    if isinstance(value, (list, tuple, datasets.Column)):
        return [described(item, argument) for item in value]
    if isinstance(value, Task):
        return described_declaration(value)
    if isinstance(value, str) and value in (registry := _registry_of(argument)):
        return {"name": value, "declared": described_declaration(registry[value])}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(
        f"{argument or 'an item'} is a {type(value).__name__}, which cannot be compared by "
        "content: not cached."
    )


def _described_frame(frame: pd.DataFrame) -> object:
    columns = [[str(name), str(kind)] for name, kind in frame.dtypes.items()]
    return [columns, described(pd.util.hash_pandas_object(frame).to_numpy())]


def _described_array(array: np.ndarray) -> object:
    content = np.ascontiguousarray(array).tobytes()
    return [str(array.dtype), array.shape, hashlib.sha256(content).hexdigest()]


def _registry_of(argument: str) -> Mapping[str, Any]:
    """The live registry whose entries an argument names."""
    if argument in ("task", "tasks"):
        return TASKS
    if argument in ("language", "languages", "source", "target"):
        return LANGUAGES
    if argument in ("method", "methods"):
        from ..pruning.methods import METHODS  # here: it needs torch, as does who prunes

        return METHODS
    return {}


# -- declarations and functions --------------------------------------------------------------------


def described_declaration(value: Any) -> object:
    """A JSON form of what a reader declares: a task, a method, a function, in any data."""
    if isinstance(value, (types.FunctionType, types.MethodType, functools.partial)):
        return described_function(value, tables=True)
    if isinstance(value, (types.BuiltinFunctionType, type)):
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, Mapping):
        items = [[str(key), described_declaration(item)] for key, item in value.items()]
        return {"mapping": sorted(items, key=json.dumps)}
    if isinstance(value, (list, tuple)):
        return [described_declaration(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return {"set": sorted((described_declaration(item) for item in value), key=json.dumps)}
    if dataclasses.is_dataclass(value):
        if hasattr(value, "describe"):  # as a task can
            return value.describe()
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return _described_instance(value, fields)
    if callable(value) and hasattr(value, "__dict__"):
        return _described_instance(value, vars(value))
    return described(value)


def _described_instance(value: object, content: Mapping[str, object]) -> object:
    kind = type(value)
    methods = [item for item in vars(kind).values() if isinstance(item, types.FunctionType)]
    return {
        "class": f"{kind.__module__}.{kind.__qualname__}",
        "methods": described_declaration(methods),
        "content": described_declaration(content),
    }


def described_function(
    function: Callable, *, tables: bool = False, seen: frozenset = frozenset()
) -> object:
    """A JSON form of what a function does.

    That is its bytecode, which comments and line numbers leave alone, its defaults, and what it
    takes from around it: functions beside it, numbers, texts, objects with a ``fingerprint``.  A
    function of this package counts by its name, because :data:`CODE` has its source.

    Args:
        function: A function, a method, a ``functools.partial``, or another object with a name.
        tables: Whether lists, sets and dicts around it count too: they may be what it writes to.
        seen: Code of the functions around it that are being described.
    """
    if isinstance(function, functools.partial):
        called = described_function(function.func, tables=tables, seen=seen)
        return [called, described_declaration([function.args, function.keywords])]
    if isinstance(function, types.MethodType):
        called = described_function(function.__func__, tables=tables, seen=seen)
        return [called, described_declaration(function.__self__)]
    name = f"{function.__module__}.{function.__qualname__}"
    if not isinstance(function, types.FunctionType) or function.__code__ in seen:
        return name
    if name.startswith(f"{PACKAGE.name}."):
        return name
    seen |= {function.__code__}
    around: dict[str, object] = {}
    for place, value in _surroundings(function):
        if isinstance(value, types.FunctionType) and value.__module__ == function.__module__:
            around[place] = described_function(value, tables=tables, seen=seen)
        else:
            around[place] = _described_value(value, tables)
    return {"code": _described_code(function.__code__), "around": around}


def _described_code(code: types.CodeType) -> object:
    constants = [_described_constant(constant) for constant in code.co_consts]
    return [code.co_code.hex(), code.co_exceptiontable.hex(), list(code.co_names), constants]


def _described_constant(constant: object) -> object:
    if isinstance(constant, types.CodeType):
        return _described_code(constant)
    if isinstance(constant, frozenset):  # its order changes from process to process
        return sorted(map(repr, constant))
    return repr(constant)


def _described_value(value: object, tables: bool) -> object:
    """A value that a function finds around it; None if it is of a kind that does not count."""
    if _is_constant(value):
        return repr(value)
    if tables and isinstance(value, (list, tuple, set, frozenset, dict)):
        with contextlib.suppress(TypeError):
            return described(sorted(value) if isinstance(value, (set, frozenset)) else value)
    if isinstance(value, types.FunctionType):
        return value.__qualname__
    fingerprint = None if isinstance(value, type) else getattr(value, "fingerprint", None)
    return fingerprint if isinstance(fingerprint, str) else None


def _is_constant(value: object) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_constant, value))
    return isinstance(value, (bool, int, float, str, bytes, types.NoneType))


def _surroundings(function: types.FunctionType) -> Iterator[tuple[str, object]]:
    """What a function finds around it by name: its defaults, globals, and what it closes over."""
    for place, value in enumerate(function.__defaults__ or ()):
        yield f"default {place}", value
    for name, value in (function.__kwdefaults__ or {}).items():
        yield f"default {name}", value
    for name in sorted(_names_in(function.__code__) & function.__globals__.keys()):
        yield name, function.__globals__[name]
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):
        with contextlib.suppress(ValueError):  # not yet set
            yield name, cell.cell_contents


def _names_in(code: types.CodeType) -> set[str]:
    """Names of globals and attributes in a function and the functions inside of it."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _names_in(constant)
    return names
