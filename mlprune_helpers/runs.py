"""Notebook runs: parameters checked, results cached by content, notebooks executed with profiles."""

from __future__ import annotations

import ast
import datetime
import difflib
import functools
import hashlib
import importlib.metadata
import inspect
import json
import math
import os
import platform
import pydoc
import sys
import time
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import datasets
import numpy as np
import pandas as pd
import psutil
import yaml

from .data import LANGUAGES, TASKS
from .models import DEFAULT_MODEL, cache_dir, default_checkpoint, written_beside
from .pruning import parse_sparsity

# -- parameters -------------------------------------------------------------------------------------------------

ARMS = ("translation", "mismatched", "monolingual", "magnitude", "random")  # what chapters prune with and compare

#: By name: type, test of a value that has it (false or ValueError: refused), and what is allowed in words.
DOMAINS: dict[str, tuple[object, Callable[[typing.Any], bool], str]] = {
    **{
        name: (
            list[str],
            lambda given, known=frozenset(known): set(given) - {"en"} and len(set(given)) == len(given) and set(given) <= known,
            f"a list without repetition of {', '.join(known)}" + (", at least one besides en" if known is LANGUAGES else ""),
        )
        for name, known in {"languages": LANGUAGES, "tasks": TASKS, "arms": ARMS}.items()
    },
    **{x: (int, lambda n: n > 0, "a whole number from 1") for x in ("shots", "max_new_tokens")},
    **{x: (int, lambda n: n > 1, "a whole number from 2") for x in ("n_prompts", "n_sentences")},
    "seed": (int, lambda n: n >= 0, "a whole number from 0"),
    "limit": (int | None, lambda n: n is None or n >= 1, "a whole number from 1, or none for all rows"),
    "model": (str, bool, "'gemma-3-270m', the folder of a checkpoint, or a hub id such as 'bigscience/bloom-560m'"),
    "source": (str, lambda x: x in ("builtin", "hub") or Path(x).expanduser().is_dir(), "'builtin', 'hub', or a folder that exists"),
    "sparsity": (float | str, lambda s: parse_sparsity(s) is not None, "a share from 0 to below 1, or 'n:m' such as '2:4'"),
    "output_dir": (str, bool, "the path of a folder, which is made if need be"),
}


def check_parameters(namespace: dict) -> dict:
    """Check a notebook's parameters in the cell after them: ``globals().update(check_parameters(globals()))``.

    The annotated names in ``namespace`` are its parameters (``limit: int = 60``).  Each is returned as its type in
    :data:`DOMAINS` or else its annotated one; lists (``'["fr", "sw"]'``, ``'fr,sw'``) and numbers given as text are read.

    Raises ValueError, saying what is allowed: a value of another type or outside of :data:`DOMAINS`; other plain
    data in ``namespace``, which papermill put there under a name that is not declared.
    """
    # From Python 3.14 on, annotations are made when asked for, by a function whose argument 1 asks for values.
    make = namespace.get("__annotate__")
    kinds = dict(make(1) if make else namespace.get("__annotations__", {}))
    if "_parameters_checked" not in namespace:  # when cells are run again, the notebook's own variables are there too
        plain = (bool, int, float, str, list, tuple, dict, types.NoneType)
        given = {name for name, value in namespace.items() if isinstance(value, plain) and not name.startswith("_")}
        _refuse_unknown(sorted(given - {"In", "Out"}), kinds)
    checked = {name: _checked(name, namespace[name], kind) for name, kind in kinds.items() if name in namespace}
    namespace["_parameters_checked"] = True
    return checked


def _refuse_unknown(names: Iterable[str], allowed: Collection[str], where: str = "") -> None:
    for name in names:
        if name not in allowed:
            close = difflib.get_close_matches(name, allowed, n=1)
            meant = (f" Did you mean {close[0]!r}?" if close else "") + f" Parameters: {', '.join(allowed) or 'none'}."
            raise ValueError(f"{where}There is no parameter {name!r}.{meant}")


def _checked(name: str, value: object, kind: object) -> object:
    kind, fits, allowed = DOMAINS.get(name, (kind, lambda value: True, getattr(kind, "__name__", str(kind))))
    with suppress(ValueError):
        result = _coerced(value, kind)
        if fits(result):
            return result
    raise ValueError(f"{name} is {value!r}. Allowed: {allowed}.")


def _coerced(value: object, kind: object) -> object:
    """``value`` as the type ``kind``, or ValueError."""
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        for option in sorted(typing.get_args(kind), key=lambda option: option is str):  # text if nothing else fits
            with suppress(ValueError):
                return _coerced(value, option)
    elif typing.get_origin(kind) is list:
        if isinstance(value, str):
            value = [part.strip(" '\"") for part in value.strip(" []").split(",") if part.strip()]
        if isinstance(value, (list, tuple)):
            return [_coerced(item, *typing.get_args(kind)) for item in value]
    elif type(value) is kind:
        return value
    elif kind in (int, float) and type(value) in (int, str):
        return kind(value)
    elif isinstance(value, str):
        meant = {"true": True, "false": False, "none": None, "null": None}.get(value.strip().lower(), value)
        if type(meant) is kind:
            return meant
    raise ValueError


# -- results cached by content ----------------------------------------------------------------------------------


def _digest(description: object) -> str:
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()[:32]


def _digest_of_files(files: Iterable[Path]) -> str:
    return _digest([[file.name, hashlib.sha256(file.read_bytes()).hexdigest()] for file in sorted(files)])


def _package_files(*without: str) -> list[Path]:
    package = Path(__file__).parent
    sources = [file for file in package.glob("*.py") if file.stem not in without]
    return [*sources, *package.glob("*.yml"), *filter(Path.is_file, (package / "corpus").rglob("*"))]


# Read on import, with the code that will run: an edit made later must not claim this code's results.
_CODE = {
    "package": _digest_of_files(_package_files("__init__", "cli", "plots", "runs")),
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
    code = _CODE if name.startswith(__package__) else _CODE | {"source": inspect.getsource(function)}

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
        return {"array": [str(value.dtype), value.shape, hashlib.sha256(np.ascontiguousarray(value)).hexdigest()]}
    if isinstance(value, Path) or (name == "source" and Path(str(value)).expanduser().is_dir()):
        path = Path(value).expanduser()
        return {"files": _digest_of_files([path] if path.is_file() else filter(Path.is_file, path.rglob("*")))}
    if isinstance(value, Mapping):
        return {"mapping": sorted(([_described(k), _described(v)] for k, v in value.items()), key=json.dumps)}
    if isinstance(value, (list, tuple, datasets.Column)):
        return [_described(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{name or 'an item'} is a {type(value).__name__}, which cannot be compared by content: not cached.")


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
            ending, write = "json", functools.partial(Path.write_text, data=json.dumps(value, default=np.ndarray.tolist), encoding="utf-8")
        except TypeError as error:
            raise TypeError(f"A result of type {kind.__name__} cannot be cached: {error}.") from None
    file = stem.with_name(f"{stem.name}.{ending}")
    with written_beside(file) as beside:
        write(beside)
    return file


def _load(file: Path) -> object:
    ending = file.name.partition(".")[2]
    readers = {"json": lambda file: json.loads(file.read_bytes()), "npy": np.load, "parquet": pd.read_parquet}
    read = readers.get(ending) or pydoc.locate(ending).load
    return read(file)


# -- results to keep --------------------------------------------------------------------------------------------


def save_results(
    name: str, results: dict, *, output_dir: str | Path, parameters: dict, lm=None, data=None, started: float | None = None
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
        beside.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
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
    raise TypeError(f"{where} is a {type(value).__name__}. Results are dicts, lists, arrays, text and numbers.")


def _peak_memory_mb() -> float | None:
    """Of this process since its start; None where the system does not say (Windows)."""
    with suppress(ImportError):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)


# -- executing notebooks ----------------------------------------------------------------------------------------

#: Environment of the kernel.  Bars and advice would land on the published page as error output.
QUIET = dict.fromkeys(("HF_DATASETS_DISABLE_PROGRESS_BARS", "HF_HUB_DISABLE_PROGRESS_BARS", "TQDM_DISABLE"), "1")
QUIET |= {"TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_VERBOSITY": "error"}


class NotebookFailed(RuntimeError):
    """A cell raised an error, or the kernel died.  The message names notebook, cell and error."""


@dataclass
class Run:
    """One notebook, executed now, or before (``skipped``) from the same inputs."""

    notebook: str
    seconds: float
    peak_mb: float
    skipped: bool = False


def run_book(
    notebooks: Sequence[str | Path], profile: str = "default", build_dir: str | Path = "_build",
    *, report: Callable[[str], None] = lambda line: None, progress: bool = False,
) -> list[Run]:  # fmt: skip
    """Execute notebooks into ``build_dir/profile/notebooks``, their results into ``build_dir/profile/results``.

    ``report`` is called with a line of text per notebook.  Raises at the first failure, as :func:`run_notebook`.
    """
    build, runs = Path(build_dir) / profile, []
    for path in map(Path, notebooks):
        chosen = {"output_dir": (build / "results").as_posix()} if "output_dir" in _declared(path) else {}
        run = run_notebook(path, build / "notebooks" / path.name, profile=profile, parameters=chosen, progress=progress)
        report(f"{run.notebook}: " + ("up to date" if run.skipped else f"{run.seconds:.0f} s, {run.peak_mb:,.0f} MB"))
        runs.append(run)
    return runs


def run_notebook(
    path: str | Path, output: str | Path, *, profile: str = "default", parameters: dict | None = None, progress: bool = False
) -> Run:
    """Execute a notebook into ``output``, unless that is up to date.

    The kernel is that of this Python and works in the current folder.  ``output`` appears when all cells have run.  A
    JSON file beside it tells its inputs, by which it is up to date: the notebook, its parameters, this package, and the
    ``requirements.lock`` above the notebook.  ``profile``: a file in ``profiles`` beside it, from which parameters that
    only other notebooks declare are left out; ``parameters`` go over it.

    Raises ValueError for a parameter, or a name in the profile, that is not declared; NotebookFailed if a cell fails,
    and then what ran is kept beside ``output`` as ``*.failed.ipynb``.
    """
    from nbclient.exceptions import DeadKernelError
    from papermill import PapermillExecutionError

    path, output, declared = Path(path), Path(output), _declared(Path(path))
    _refuse_unknown(parameters or {}, declared, where=f"{path.name}: ")
    profiled = {name: value for name, value in _profile(path, profile).items() if name in declared}
    effective = profiled | (parameters or {})
    cells = [[cell.cell_type, cell.source, cell.metadata] for cell in _cells(path)]
    locks = [folder / "requirements.lock" for folder in path.absolute().parents]
    inputs = _digest([cells, effective, _digest_of_files([*_package_files(), *filter(Path.is_file, locks)])])
    stamp = output.with_suffix(".json")
    if output.exists() and stamp.exists():
        made = json.loads(stamp.read_text(encoding="utf-8"))
        if made["inputs"] == inputs:
            return Run(**made["run"], skipped=True)

    failed = output.with_suffix(".failed.ipynb")
    for old in (stamp, failed):
        old.unlink(missing_ok=True)
    if effective.get("model") == DEFAULT_MODEL:
        default_checkpoint()  # made out here, where its bars are seen: a kernel would put them on the page
    started = time.perf_counter()
    with written_beside(output) as running:
        try:
            peak_mb = _execute(path, running, effective, progress)
        except (PapermillExecutionError, DeadKernelError) as error:
            running.replace(failed)
            raise NotebookFailed(f"{path.name}, {_failure(failed, error)}\nWhat ran is in {failed}") from None
    run = {"notebook": path.stem, "seconds": round(time.perf_counter() - started, 1), "peak_mb": round(peak_mb)}
    with written_beside(stamp) as beside:
        beside.write_text(json.dumps({"inputs": inputs, "parameters": effective, "run": run}, indent=1))
    return Run(**run)


def _execute(path: Path, running: Path, parameters: dict, progress: bool) -> float:
    """Run all cells; return the largest memory of the kernel and its children, in MB."""
    import papermill

    children = functools.partial(psutil.Process().children, recursive=True)
    others, peak = set(children()), 0
    options = {"kernel_name": "python3", "progress_bar": progress, "extra_arguments": ["--log-level=CRITICAL"]}
    # First in the search path, so that a kernel which the reader registered under that name is not taken.
    search = os.pathsep.join(filter(None, [f"{sys.prefix}/share/jupyter", os.environ.get("JUPYTER_PATH")]))
    # In a thread, because in the main one nbclient takes Ctrl-C to itself: here it ends the build.
    with patch.dict(os.environ, QUIET | {"JUPYTER_PATH": search}), ThreadPoolExecutor(1) as thread:
        job = thread.submit(papermill.execute_notebook, str(path), str(running), parameters, **options)
        try:
            while not job.done():
                with suppress(psutil.NoSuchProcess):  # one ended since it was listed
                    peak = max(peak, sum(process.memory_info().rss for process in set(children()) - others))
                time.sleep(0.2)
        except BaseException:
            for process in set(children()) - others:
                process.kill()
            raise
        job.result()
    return peak / 2**20


def _failure(failed: Path, error: Exception) -> str:
    """Which cell of the source failed, and how."""
    added = {"papermill-error-cell-tag", "injected-parameters"}
    cells = [cell for cell in _cells(failed) if not added & set(cell.metadata.get("tags", []))]
    at = max((i for i, c in enumerate(cells) if c.metadata.get("papermill", {}).get("start_time")), default=0)
    line = (cells[at].source.strip().splitlines() or [""])[0]
    what = f"{error.ename}: {error.evalue}" if hasattr(error, "ename") else "the kernel died, most often for lack of memory"
    return f"cell {at + 1} ({line}): {what}"


def _cells(path: Path) -> list:
    import nbformat  # here, like papermill above: notebooks import this module, and need neither

    return nbformat.read(path, as_version=4).cells


def _declared(path: Path) -> list[str]:
    """Names annotated in the cell tagged ``parameters``."""
    source = "\n".join(cell.source for cell in _cells(path) if "parameters" in cell.metadata.get("tags", []))
    return [s.target.id for s in ast.parse(source).body if isinstance(s, ast.AnnAssign)]


def _profile(path: Path, profile: str) -> dict:
    """Parameters of a profile for one notebook: the common ones, and its own under ``notebooks: {name: ...}``."""
    file = path.parent / "profiles" / f"{profile}.yml"
    if not file.is_file():
        names = ", ".join(sorted(other.stem for other in file.parent.glob("*.yml"))) or "none"
        raise ValueError(f"There is no profile {profile!r} in {file.parent}. Profiles: {names}.")
    common = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    own = common.pop("notebooks", {})
    known = {other.stem: _declared(other) for other in sorted(path.parent.glob("*.ipynb"))}
    _refuse_unknown(common, sorted({name for names in known.values() for name in names}), where=f"{file}: ")
    for notebook, values in own.items():
        _refuse_unknown(values, known.get(notebook, ()), where=f"{file}, {notebook}: ")
    return common | own.get(path.stem, {})


def time_table(runs: Sequence[Run]) -> str:
    """Time and peak memory of each run and of all, as lines of text."""
    total = Run("all", sum(run.seconds for run in runs), max(run.peak_mb for run in runs))
    table = pd.DataFrame([*runs, total]).replace({"skipped": {True: "yes", False: ""}})
    table.columns = ["", "time (s)", "peak memory (MB)", "up to date"]
    return table.to_string(index=False, float_format="{:,.0f}".format)
