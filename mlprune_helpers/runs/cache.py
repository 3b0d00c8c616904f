"""Results cached by content."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import inspect
import json
import pydoc
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import datasets
import numpy as np
import pandas as pd

from ..files import cache_dir, written_beside


def _digest(description: object) -> str:
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()[:32]


def _digest_of_files(files: Iterable[Path]) -> str:
    return _digest(
        [[file.name, hashlib.sha256(file.read_bytes()).hexdigest()] for file in sorted(files)]
    )


def _package_files(*without: str) -> list[Path]:
    package = Path(__file__).parent.parent
    sources = [file for file in package.rglob("*.py") if file.stem not in without]
    return [
        *sources,
        *package.rglob("*.yml"),
        *filter(Path.is_file, (package / "corpus").rglob("*")),
    ]


# Read on import, with the code that will run: an edit made later must not claim this code's results.
_CODE = {
    "package": _digest_of_files(
        _package_files("__init__", "cli", "plots", "cache", "notebooks", "parameters", "results")
    ),
    **{name: importlib.metadata.version(name) for name in ("torch", "transformers", "datasets")},
}


def cached(function: Callable) -> Callable:
    """``function``, with its results kept on disk: ``cached(evaluate)(lm, "nli", "fr", limit=60)``.

    A result is found again in ``cache_dir()/results`` if the function, this package's sources and all arguments
    are the same, however they are passed.  A damaged one is computed again.

    Arguments may be plain data; objects with a ``fingerprint``, which stands for them (so a pruned model never gets
    a dense one's results); data sets, data frames, arrays, and a folder as ``source``, which count by content.
    Results: JSON data (tuples and arrays inside come back as lists), an array, a data frame, or an object with
    ``save(path)`` and a class method ``load(path)``.  Anything else raises TypeError.
    """
    signature = inspect.signature(function)
    name = f"{function.__module__}.{function.__qualname__}"
    # A function of a notebook is not among the sources of the package.
    code = (
        _CODE
        if name.startswith("mlprune_helpers.")
        else _CODE | {"source": inspect.getsource(function)}
    )

    @functools.wraps(function)
    def call(*args, **kwargs):
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        arguments = {key: _described(value, key) for key, value in bound.arguments.items()}
        stem = cache_dir() / "results" / name / _digest([name, code, arguments])
        for file in stem.parent.glob(f"{stem.name}.*"):
            try:
                return _load(file)
            except Exception:  # damaged, in whatever way
                file.unlink(missing_ok=True)
        value = function(*args, **kwargs)
        return _load(_save(value, stem))  # as the next call will get it

    return call


def _described(value: object, name: str = "") -> object:
    """A JSON form of an argument that is the same exactly if the content is."""
    if hasattr(value, "fingerprint"):
        return {"fingerprint": value.fingerprint}
    if isinstance(value, datasets.Dataset):
        return {"dataset": {column: _described(value[column][:]) for column in value.column_names}}
    if isinstance(value, (pd.DataFrame, pd.Series)):
        columns = [[str(name), str(kind)] for name, kind in pd.DataFrame(value).dtypes.items()]
        return {"pandas": [columns, _described(pd.util.hash_pandas_object(value).to_numpy())]}
    if isinstance(value, np.ndarray) and value.dtype != object:
        return {
            "array": [
                str(value.dtype),
                value.shape,
                hashlib.sha256(np.ascontiguousarray(value)).hexdigest(),
            ]
        }
    if isinstance(value, Path) or (name == "source" and Path(str(value)).expanduser().is_dir()):
        path = Path(value).expanduser()
        return {
            "files": _digest_of_files(
                [path] if path.is_file() else filter(Path.is_file, path.rglob("*"))
            )
        }
    if isinstance(value, Mapping):
        return {
            "mapping": sorted(
                ([_described(k), _described(v)] for k, v in value.items()), key=json.dumps
            )
        }
    if isinstance(value, (list, tuple, datasets.Column)):
        return [_described(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(
        f"{name or 'an item'} is a {type(value).__name__}, which cannot be compared by content: not cached."
    )


def _save(value: object, stem: Path) -> Path:
    """Write ``value`` to ``stem`` and an ending that says how to read it."""
    kind = type(value)
    if hasattr(value, "save") and hasattr(kind, "load"):
        ending, write = f"{kind.__module__}.{kind.__qualname__}", value.save
    elif isinstance(value, pd.DataFrame):
        ending, write = "parquet", value.to_parquet
    elif isinstance(value, np.ndarray):
        ending, write = "npy", functools.partial(np.save, arr=value, allow_pickle=False)
    else:
        try:
            ending, write = (
                "json",
                functools.partial(
                    Path.write_text,
                    data=json.dumps(value, default=np.ndarray.tolist),
                    encoding="utf-8",
                ),
            )
        except TypeError as error:
            raise TypeError(
                f"A result of type {kind.__name__} cannot be cached: {error}."
            ) from None
    file = stem.with_name(f"{stem.name}.{ending}")
    with written_beside(file) as beside:
        write(beside)
    return file


def _load(file: Path) -> object:
    ending = file.name.partition(".")[2]
    readers = {
        "json": lambda file: json.loads(file.read_bytes()),
        "npy": np.load,
        "parquet": pd.read_parquet,
    }
    read = readers.get(ending) or pydoc.locate(ending).load
    return read(file)
