"""A chapter's numbers in one file, apart from where they come from."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import math
import platform
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..files import written_beside
from .identity import CODE, described, digest

if TYPE_CHECKING:  # it needs torch
    from ..models.language_model import LanguageModel


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
    come from.

    Args:
        name: Of the file, without its ending.
        results: JSON data, numpy numbers and arrays.  They are rounded to 10 significant digits.
        output_dir: The folder, which is made if need be.
        parameters: The notebook's.
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
    path = Path(output_dir).expanduser() / f"{name}.json"
    text = json.dumps(content, indent=1, ensure_ascii=False)
    with written_beside(path) as beside:
        beside.write_text(text + "\n", encoding="utf-8")
    return path


def _rounded(value: Any, where: str) -> object:
    if isinstance(value, (np.ndarray, np.generic)):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _rounded(item, f"{where}[{key!r}]") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{where} is {value}. Results are finite: leave it out, or say None.")
        return float(f"{value:.10g}")
    if value is None or isinstance(value, (bool, int, str)):
        return value
    raise TypeError(
        f"{where} is a {type(value).__name__}. Results are dicts, lists, arrays, text and numbers."
    )


def _peak_memory_mb() -> float | None:
    """Of this process since its start; None where the system does not say (Windows)."""
    with suppress(ImportError):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)
    return None
