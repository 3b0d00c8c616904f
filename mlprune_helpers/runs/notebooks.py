"""Execute notebooks with profiles."""

from __future__ import annotations

import ast
import functools
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import pandas as pd
import psutil
import yaml

from ..files import written_beside
from ..models.loading import DEFAULT_MODEL, default_checkpoint
from .cache import _digest, _digest_of_files, _package_files
from .parameters import _refuse_unknown

#: Environment of the kernel.  Bars and advice would land on the published page as error output.
QUIET = dict.fromkeys(
    ("HF_DATASETS_DISABLE_PROGRESS_BARS", "HF_HUB_DISABLE_PROGRESS_BARS", "TQDM_DISABLE"), "1"
)


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
        chosen = (
            {"output_dir": (build / "results").as_posix()}
            if "output_dir" in _declared(path)
            else {}
        )
        run = run_notebook(
            path,
            build / "notebooks" / path.name,
            profile=profile,
            parameters=chosen,
            progress=progress,
        )
        report(
            f"{run.notebook}: "
            + ("up to date" if run.skipped else f"{run.seconds:.0f} s, {run.peak_mb:,.0f} MB")
        )
        runs.append(run)
    return runs


def run_notebook(
    path: str | Path,
    output: str | Path,
    *,
    profile: str = "default",
    parameters: dict | None = None,
    progress: bool = False,
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
    inputs = _digest(
        [cells, effective, _digest_of_files([*_package_files(), *filter(Path.is_file, locks)])]
    )
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
            raise NotebookFailed(
                f"{path.name}, {_failure(failed, error)}\nWhat ran is in {failed}"
            ) from None
    run = {
        "notebook": path.stem,
        "seconds": round(time.perf_counter() - started, 1),
        "peak_mb": round(peak_mb),
    }
    with written_beside(stamp) as beside:
        beside.write_text(
            json.dumps({"inputs": inputs, "parameters": effective, "run": run}, indent=1)
        )
    return Run(**run)


def _execute(path: Path, running: Path, parameters: dict, progress: bool) -> float:
    """Run all cells; return the largest memory of the kernel and its children, in MB."""
    import papermill

    children = functools.partial(psutil.Process().children, recursive=True)
    others, peak = set(children()), 0
    options = {
        "kernel_name": "python3",
        "progress_bar": progress,
        "extra_arguments": ["--log-level=CRITICAL"],
    }
    # First in the search path, so that a kernel which the reader registered under that name is not taken.
    search = os.pathsep.join(
        filter(None, [f"{sys.prefix}/share/jupyter", os.environ.get("JUPYTER_PATH")])
    )
    # In a thread, because in the main one nbclient takes Ctrl-C to itself: here it ends the build.
    with patch.dict(os.environ, QUIET | {"JUPYTER_PATH": search}), ThreadPoolExecutor(1) as thread:
        job = thread.submit(
            papermill.execute_notebook, str(path), str(running), parameters, **options
        )
        try:
            while not job.done():
                with suppress(psutil.NoSuchProcess):  # one ended since it was listed
                    peak = max(
                        peak, sum(process.memory_info().rss for process in set(children()) - others)
                    )
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
    at = max(
        (i for i, c in enumerate(cells) if c.metadata.get("papermill", {}).get("start_time")),
        default=0,
    )
    line = (cells[at].source.strip().splitlines() or [""])[0]
    what = (
        f"{error.ename}: {error.evalue}"
        if hasattr(error, "ename")
        else "the kernel died, most often for lack of memory"
    )
    return f"cell {at + 1} ({line}): {what}"


def _cells(path: Path) -> list:
    import nbformat  # here, like papermill above: notebooks import this module, and need neither

    return nbformat.read(path, as_version=4).cells


def _declared(path: Path) -> list[str]:
    """Names annotated in the cell tagged ``parameters``."""
    source = "\n".join(
        cell.source for cell in _cells(path) if "parameters" in cell.metadata.get("tags", [])
    )
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
    _refuse_unknown(
        common, sorted({name for names in known.values() for name in names}), where=f"{file}: "
    )
    for notebook, values in own.items():
        _refuse_unknown(values, known.get(notebook, ()), where=f"{file}, {notebook}: ")
    return common | own.get(path.stem, {})


def time_table(runs: Sequence[Run]) -> str:
    """Time and peak memory of each run and of all, as lines of text."""
    total = Run("all", sum(run.seconds for run in runs), max(run.peak_mb for run in runs))
    table = pd.DataFrame([*runs, total]).replace({"skipped": {True: "yes", False: ""}})
    table.columns = ["", "time (s)", "peak memory (MB)", "up to date"]
    return table.to_string(index=False, float_format="{:,.0f}".format)
