"""A chapter's numbers in one file, apart from where they come from."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import math
import platform
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np

from ..files import written_beside
from .cache import _CODE, _described, _digest


def save_results(
    name: str,
    results: dict,
    *,
    output_dir: str | Path,
    parameters: dict,
    lm=None,
    data=None,
    started: float | None = None,
) -> Path:
    """Write a chapter's numbers to ``output_dir/name.json``; return that path.

    The file has ``results``, which two runs are compared by, and ``provenance``.  ``results`` holds JSON data, numpy
    numbers and arrays, rounded to 10 significant digits; a number that is not finite is a ValueError, another type a
    TypeError.  ``lm`` is told by the fingerprint of its weights now, ``data`` (a data set or a dict of them) by a
    digest of the content, the wall time from ``started``, which is ``time.perf_counter()`` at the start.
    """
    provenance = {
        "package": importlib.metadata.version("mlprune_helpers"),
        "parameters": parameters,
        "seed": parameters.get("seed"),
        "model": lm and {"name": lm.name, "fingerprint": lm.fingerprint},
        "data": None if data is None else _digest(_described(data, "data")),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": lm and str(lm.device),
        "wall_seconds": None if started is None else round(time.perf_counter() - started, 1),
        "peak_memory_mb": _peak_memory_mb(),
        "python": platform.python_version(),
        **{library: _CODE[library] for library in ("torch", "transformers")},
    }
    content = {"results": _rounded(results, "results"), "provenance": provenance}
    path = Path(output_dir) / f"{name}.json"
    with written_beside(path) as beside:
        beside.write_text(
            json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
    return path


def _rounded(value: object, where: str) -> object:
    if isinstance(value, (np.ndarray, np.generic)):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(key): _rounded(item, f"{where}[{key!r}]") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where} is {value}. Results are finite: leave it out, or say None.")
    if value is None or isinstance(value, (bool, int, float, str)):
        return float(f"{value:.10g}") if isinstance(value, float) else value
    raise TypeError(
        f"{where} is a {type(value).__name__}. Results are dicts, lists, arrays, text and numbers."
    )


def _peak_memory_mb() -> float | None:
    """Of this process since its start; None where the system does not say (Windows)."""
    with suppress(ImportError):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)
