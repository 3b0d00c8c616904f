"""A chapter's numbers in one file, apart from where they come from; many files in one table."""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import json
import math
import platform
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..files import written_beside
from .identity import CODE, described, digest

if TYPE_CHECKING:  # it needs torch
    from ..models.language_model import LanguageModel

_FILE_NAME = re.compile(r".+-[0-9a-f]{8}\.json")


def save_results(
    name: str,
    results: Mapping[str, Any],
    *,
    output_dir: str | Path,
    parameters: Mapping[str, Any],
    lm: LanguageModel | None = None,
    data: Any = None,
    started: float | None = None,
) -> Path:
    """Write a chapter's numbers to one JSON file.

    Its part ``results`` is what two runs are compared by; its part ``provenance`` tells where they
    come from.  Its name ends with 8 digits that stand for the parameters, so runs with other
    parameters do not overwrite one another.

    Args:
        name: Of the chapter: the file is ``NAME-DIGITS.json``.
        results: JSON data, numpy numbers and arrays.  They are rounded to 10 significant digits.
        output_dir: The folder, which is made if need be.
        parameters: Those that were in effect, as :func:`check_parameters` returned them.
        lm: The model, told by the fingerprint of its weights now.
        data: All that the numbers rest on, sentences and task rows: a data set, or a dict of data
            sets, of such dicts, and so on.  It is told by a digest of the content.
        started: ``time.perf_counter()`` at the start, for the wall time.

    Returns:
        The file.

    Raises:
        ValueError: A number is not finite.
        TypeError: A result is of another type.
    """
    content = {
        "results": _rounded(results, "results"),
        "provenance": {
            "chapter": name,
            "package": importlib.metadata.version("mlprune_helpers"),
            "parameters": dict(parameters),
            "seed": parameters.get("seed"),
            "model": None if lm is None else {"name": lm.name, "fingerprint": lm.fingerprint},
            "data": None if data is None else digest(described(data, "data")),
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "device": None if lm is None else str(lm.device),
            "wall_seconds": None if started is None else round(time.perf_counter() - started, 1),
            "peak_memory_mb": _peak_memory_mb(),
            "python": platform.python_version(),
            "torch": CODE["torch"],
            "transformers": CODE["transformers"],
        },
    }
    path = Path(output_dir).expanduser() / f"{name}-{digest_of_parameters(parameters)}.json"
    text = json.dumps(content, indent=1, ensure_ascii=False)
    with written_beside(path) as beside:
        beside.write_text(text + "\n", encoding="utf-8")
    return path


def digest_of_parameters(parameters: Mapping[str, Any]) -> str:
    """8 hexadecimal digits for the parameters that numbers depend on, so not for output_dir."""
    return digest({k: value for k, value in parameters.items() if k != "output_dir"})[:8]


def _rounded(value: Any, where: str) -> object:
    if isinstance(value, (np.ndarray, np.generic)):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _rounded(item, f"{where}[{key!r}]") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(
                f"{where} is {value}. Results are finite. Leave it out, or say None, "
                "as for an interval that is unbounded."
            )
        return float(f"{value:.10g}")
    if value is None or isinstance(value, (bool, int, str)):
        return value
    raise TypeError(
        f"{where} is a {type(value).__name__}. Results are dicts, lists, arrays, text and numbers."
    )


def _peak_memory_mb() -> float | None:
    """Of this process since its start; None where the system does not say (Windows)."""
    with contextlib.suppress(ImportError):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)
    return None


# -- many files in one table -----------------------------------------------------------------------


def read_results(output_dir: str | Path) -> pd.DataFrame:
    """One table of all results in a folder, and in the folders below it.

    Args:
        output_dir: Where :func:`save_results` wrote, or a folder above, such as ``_build``.  Files
            that are not named as it names them, ``NAME-DIGITS.json``, are passed over.

    Returns:
        A row a file, ordered by chapter and date.  Columns: ``chapter``, ``date``; those parameters
        that are not the same in all files of some chapter; each result that is a number, a text, a
        truth value or none, as ``accuracy.dense.fr`` where it lies in dicts and ``table[0].points``
        where dicts lie in a list.  Where a file has no such parameter or result, the cell is NaN.

    Raises:
        ValueError: There is no such folder, or no result in it; a file of such a name is damaged,
            or not of :func:`save_results`.

    Example:
        >>> read_results("results").to_csv("all.csv")
    """
    folder = Path(output_dir).expanduser()
    if not folder.is_dir():
        raise ValueError(f"There is no folder {folder}. Name one that results were written to.")
    files = [path for path in sorted(folder.rglob("*.json")) if _FILE_NAME.fullmatch(path.name)]
    if not files:
        raise ValueError(
            f"There are no results (NAME-DIGITS.json) in {folder}. Run a chapter first."
        )
    contents = [_read(path) for path in files]
    contents.sort(key=lambda content: (content["chapter"], content["date"]))
    varied = _varied_parameters(contents)
    first = ["chapter", "date", *varied]
    rows = []
    for content in contents:
        row: dict[str, object] = {"chapter": content["chapter"], "date": content["date"]}
        for name in varied:
            if name in content["parameters"]:
                row[name] = _as_text(content["parameters"][name])
        for where, value in _scalars(content["results"]):
            row[f"results.{where}" if where in first else where] = value
        rows.append(row)
    table = pd.DataFrame(rows)
    return table[[*first, *table.columns.drop(first)]]


def results_as_text(table: pd.DataFrame) -> str:
    """The table of :func:`read_results` for a terminal: for each chapter, a column a run."""
    parts = []
    for chapter, rows in table.groupby("chapter"):
        shown = rows.drop(columns="chapter").dropna(axis="columns", how="all")
        shown.index = pd.Index([f"run {number}" for number in range(1, len(rows) + 1)])
        lines = shown.T.map(_as_shown).to_string()
        parts.append(f"{chapter}\n{lines}")
    return "\n\n".join(parts)


def _read(path: Path) -> dict[str, Any]:
    """Chapter, date, parameters and results of one file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        provenance = content["provenance"]
        results, parameters = dict(content["results"]), dict(provenance["parameters"])
        chapter, date = str(provenance["chapter"]), str(provenance["date"])
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(
            f"{path} is damaged, or no file of save_results. Remove it, and run its chapter again."
        ) from None
    return {"chapter": chapter, "date": date, "parameters": parameters, "results": results}


def _varied_parameters(contents: Sequence[Mapping[str, Any]]) -> list[str]:
    """Parameters, without output_dir, that two files of one chapter have otherwise."""
    given = pd.DataFrame(
        [
            {name: _as_text(value) for name, value in content["parameters"].items()}
            for content in contents
        ]
    )
    chapters = [content["chapter"] for content in contents]
    n_values = given.fillna("(not there)").groupby(chapters).nunique()
    return sorted(
        name for name in n_values.columns if n_values[name].max() > 1 and name != "output_dir"
    )


def _scalars(value: object, where: str = "") -> Iterator[tuple[str, object]]:
    """Single values in JSON data, each with its path.  Of lists only the dicts in them count."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _scalars(item, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            if isinstance(item, Mapping):
                yield from _scalars(item, f"{where}[{i}]")
    else:
        yield where, value


def _as_text(value: object) -> str:
    """A parameter as one writes it on the command line."""
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value))
    return str(value)


def _as_shown(value: Any) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.4g}"
    return "" if value is None else str(value)
