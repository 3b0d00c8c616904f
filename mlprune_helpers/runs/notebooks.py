"""Notebooks executed with profiles."""

from __future__ import annotations

import datetime
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import psutil

from ..files import cache_dir, written_beside
from .environment import QUIET, environment, machine, short_waits
from .identity import CODE, PACKAGE, digest, digest_of_file, digest_of_files, package_files
from .parameters import check_model, read_value, refuse_unknown
from .profiles import NotebookUnreadable, cells_of, declared_parameters, profile_of


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
    notebooks: Sequence[str | Path],
    profile: str = "default",
    build_dir: str | Path = "_build",
    *,
    parameters: Mapping[str, Any] | None = None,
    report: Callable[[str], None] | None = None,
    progress: bool = False,
) -> list[Run]:
    """Execute notebooks into ``build_dir/profile/notebooks``, up to date ones excepted.

    Their numbers go to ``build_dir/profile/results``.  With other parameters than the profile's,
    both go to a folder of their own, ``build_dir/profile-DIGITS``, so that what the profile itself
    made stays.

    Args:
        notebooks: Their files, in the order in which they run.
        profile: A file in ``profiles`` beside them, without its ending.
        build_dir: The folder, which is made if need be.
        parameters: They go over the profile, in those notebooks that declare them.  Text is read as
            what the parameter is: ``{"languages": "fr,sw"}``.
        report: Called with a line of text per notebook, and one on the folder where it is of its
            own.
        progress: Whether a bar is shown.

    Raises:
        ValueError: No notebook declares a parameter; or, when the others have run, a notebook
            cannot be read.
        NotebookFailed: A cell failed.  What comes after it does not run.
    """
    paths = [Path(path) for path in notebooks]
    declared, unreadable = _all_declared(paths)
    given = dict(parameters or {})
    if not unreadable:
        refuse_unknown(given, sorted({name for names in declared.values() for name in names}))
    build = build_folder(build_dir, profile, given)
    if given and report is not None:
        listed = ", ".join(f"{name}={value}" for name, value in given.items())
        report(f"Over profile {profile}: {listed}. Everything goes to {build}")
    runs = []
    for path, names in declared.items():
        results = {"output_dir": (build / "results").as_posix()}
        chosen = {name: value for name, value in (results | given).items() if name in names}
        run = run_notebook(
            path,
            build / "notebooks" / path.name,
            profile=profile,
            parameters=chosen,
            progress=progress,
        )
        runs.append(run)
        if report is not None:
            report(_told(run))
    if unreadable:
        raise NotebookUnreadable("\n".join(unreadable))
    return runs


def build_folder(
    build_dir: str | Path, profile: str, parameters: Mapping[str, Any] | None = None
) -> Path:
    """The folder of a profile, or of a profile with other parameters.

    Args:
        build_dir: The folder of all.
        profile: Name of the profile.
        parameters: Those over the profile; as text or as what they are, it is the same folder.
    """
    if not parameters:
        return Path(build_dir) / profile
    read = {name: read_value(name, value) for name, value in parameters.items()}
    return Path(build_dir) / f"{profile}-{digest(read)[:8]}"


def _all_declared(paths: Sequence[Path]) -> tuple[dict[Path, list[str]], list[str]]:
    """What each notebook declares, and what is wrong with those that cannot be read."""
    declared, unreadable = {}, []
    for path in paths:
        try:
            declared[path] = declared_parameters(path)
        except NotebookUnreadable as error:
            unreadable.append(str(error))
    return declared, unreadable


def _told(run: Run) -> str:
    if run.skipped:
        return f"{run.notebook}: up to date"
    return f"{run.notebook}: {run.seconds:.0f} s, {run.peak_mb:,.0f} MB"


def run_notebook(
    path: str | Path,
    output: str | Path,
    *,
    profile: str = "default",
    parameters: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> Run:
    """Execute a notebook into ``output``, unless that is up to date.

    The kernel is that of this Python and works in the current folder.  A JSON file beside
    ``output`` tells by what it is up to date: the notebook, its parameters and the folders that
    they name, this package, its libraries, and the ``requirements.lock`` above the notebook.  It
    also tells what the run took, and on which machine.

    Args:
        path: The notebook.
        output: Appears when all cells have run.
        profile: A file in ``profiles`` beside the notebook, without its ending.  Its parameters
            that only other notebooks declare are left out.
        parameters: They go over the profile.
        progress: Whether a bar is shown.

    Raises:
        ValueError: A parameter, or a name in the profile, is not declared; the notebook cannot be
            read; the model must be converted first.
        NotebookFailed: A cell failed.  What ran is kept beside ``output`` as ``*.failed.ipynb``.
    """
    path, output = Path(path), Path(output)
    given = dict(parameters or {})
    refuse_unknown(given, declared_parameters(path), where=f"{path.name}: ")
    effective = profile_of(path, profile) | given
    inputs = _inputs(path, effective)
    stamp = output.with_suffix(".json")
    done = _up_to_date(output, stamp, inputs)
    if done is not None:
        return done

    failed = output.with_suffix(".failed.ipynb")
    for old in (stamp, failed):
        old.unlink(missing_ok=True)
    check_model(effective.get("model"))  # at once, and not in a kernel a minute later
    circumstances = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "cached_results": _cached_results(),
        "preparation_seconds": round(_prepare_model(effective), 1),
    }
    started = time.perf_counter()
    with written_beside(output) as running:
        peak_mb = _execute_or_keep(path, running, failed, effective, progress)
        executed = digest_of_file(running)
    run = Run(path.stem, round(time.perf_counter() - started, 1), round(peak_mb))
    made = {"inputs": inputs, "parameters": effective, "output": executed, "run": asdict(run)}
    with written_beside(stamp) as beside:
        beside.write_text(json.dumps(made | circumstances, indent=1), encoding="utf-8")
    return run


def time_table(runs: Sequence[Run]) -> str:
    """Time and peak memory of each run and of all, as lines of text."""
    if not runs:
        return "Nothing ran."
    total = Run("all", sum(run.seconds for run in runs), max(run.peak_mb for run in runs))
    table = pd.DataFrame([*runs, total]).replace({"skipped": {True: "yes", False: ""}})
    table.columns = pd.Index(["", "time (s)", "peak memory (MB)", "up to date"])
    return table.to_string(index=False, float_format="{:,.0f}".format)


# -- what a run depends on -------------------------------------------------------------------------


def _inputs(path: Path, parameters: Mapping[str, Any]) -> str:
    cells = [[cell.cell_type, cell.source, cell.metadata] for cell in cells_of(path)]
    locks = [folder / "requirements.lock" for folder in path.absolute().parents]
    locked = [digest_of_file(lock) for lock in locks if lock.is_file()]
    package = digest_of_files(package_files(), PACKAGE)
    folders = [_listing(parameters.get(name)) for name in ("model", "source")]
    return digest([cells, parameters, folders, CODE, package, locked])


def _listing(value: object) -> list:
    """Names, sizes and times of the files in a folder that a parameter names."""
    folder = Path(value).expanduser() if isinstance(value, str) and value else None
    if folder is None or not folder.is_dir():
        return []
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [
        [file.relative_to(folder).as_posix(), file.stat().st_size, file.stat().st_mtime_ns]
        for file in files
    ]


def _up_to_date(output: Path, stamp: Path, inputs: str) -> Run | None:
    """The run that made ``output``, if ``stamp`` tells of that one, and of the same inputs."""
    if not (output.is_file() and stamp.is_file()):
        return None
    try:
        made = json.loads(stamp.read_text(encoding="utf-8"))
        # Two runs with other parameters that end at once may leave the output of one, the stamp of
        # the other.
        if (made["inputs"], made["output"]) != (inputs, digest_of_file(output)):
            return None
        run: dict[str, Any] = made["run"]
        return Run(run["notebook"], run["seconds"], run["peak_mb"], skipped=True)
    except (ValueError, KeyError, TypeError):  # damaged, or of another edition
        return None


def _prepare_model(parameters: Mapping[str, Any]) -> float:
    """Make the default model here, where its bars are seen: a kernel puts them on the page.

    Returns:
        The seconds it took: next to none where it was there.
    """
    started = time.perf_counter()
    if "model" in parameters:
        from ..models import loading  # here: it needs torch

        if parameters["model"] == loading.DEFAULT_MODEL:
            loading.default_checkpoint()
    return time.perf_counter() - started


def _cached_results() -> int:
    """How many results are in the cache, because a run that finds some is faster."""
    folder = cache_dir() / "results"
    return sum(path.is_file() and path.suffix != ".files" for path in folder.rglob("*"))


# -- execution -------------------------------------------------------------------------------------


def _execute_or_keep(
    path: Path, running: Path, failed: Path, parameters: Mapping[str, Any], progress: bool
) -> float:
    """Execute; if that fails, keep what ran as ``failed`` and tell which cell it was."""
    from nbclient.exceptions import DeadKernelError
    from papermill import PapermillExecutionError

    try:
        return _execute(path, running, parameters, progress)
    except (PapermillExecutionError, DeadKernelError) as error:
        running.replace(failed)
        where = f"{path.name}, {_failure(failed, error)}"
        raise NotebookFailed(f"{where}\nWhat ran is in {failed}") from None


def _execute(path: Path, running: Path, parameters: Mapping[str, Any], progress: bool) -> float:
    """Run all cells; return the largest memory of the kernel and its children, in MB."""
    import papermill

    # First in the search path, so that a kernel which the reader registered under that name is not
    # taken.
    search = [f"{sys.prefix}/share/jupyter", os.environ.get("JUPYTER_PATH", "")]
    variables = QUIET | short_waits() | {"JUPYTER_PATH": os.pathsep.join(filter(None, search))}
    kernel = _Descendants()
    # In a thread, because in the main one nbclient takes Ctrl-C to itself: here it ends the build.
    with environment(variables), ThreadPoolExecutor(1) as thread:
        job = thread.submit(
            papermill.execute_notebook,
            str(path),
            str(running),
            dict(parameters),
            kernel_name="python3",
            progress_bar=progress,
            extra_arguments=["--log-level=CRITICAL"],
        )
        try:
            peak = kernel.peak_memory_until(job)
        except BaseException:
            kernel.kill()
            raise
        job.result()
    return peak / 2**20


class _Descendants:
    """Processes that this one has started since: the kernel, and what it starts."""

    def __init__(self) -> None:
        self.before = self._all()

    def _all(self) -> set[psutil.Process]:
        return set(psutil.Process().children(recursive=True))

    def peak_memory_until(self, job: Future) -> int:
        """The largest memory of all together until the job is done, in bytes."""
        peak = 0
        while not job.done():
            with suppress(psutil.NoSuchProcess):  # one ended since it was listed
                new = self._all() - self.before
                peak = max(peak, sum(process.memory_info().rss for process in new))
            time.sleep(0.2)
        return peak

    def kill(self) -> None:
        for process in self._all() - self.before:
            with suppress(psutil.NoSuchProcess):
                process.kill()


def _failure(failed: Path, error: Exception) -> str:
    """Which cell of the source failed, and how."""
    added = {"papermill-error-cell-tag", "injected-parameters"}
    cells = [cell for cell in cells_of(failed) if not added & set(cell.metadata.get("tags", []))]
    started = [i for i, c in enumerate(cells) if c.metadata.get("papermill", {}).get("start_time")]
    at = max(started, default=0)
    first_line = (cells[at].source.strip().splitlines() or [""])[0]
    what = "the kernel died, most often for lack of memory"
    if hasattr(error, "ename") and hasattr(error, "evalue"):
        what = f"{error.ename}: {error.evalue}"
    return f"cell {at + 1} ({first_line}): {what}"
