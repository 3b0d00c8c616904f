"""Run the notebooks, build the site from the executed copies, check it.

    python book/build.py --profile smoke

What lands in ``_build/PROFILE``: ``notebooks`` (executed), ``results`` (their numbers),
``site-src`` (what Jupyter Book was given: notebooks as they are published) and ``html`` (the site,
if every check passed).
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import yaml
from budget import TABLE, Budget, measured
from check_site import check_notebook, check_published, check_site
from filelock import FileLock

from mlprune_helpers import ModelError
from mlprune_helpers.files import written_beside
from mlprune_helpers.runs import NotebookFailed, publish, run_book, time_table

ROOT = Path(__file__).resolve().parent.parent
# The part of MathJax that renders TeX to HTML, and its fonts: 1.5 of the package's 20 MB.
MATHJAX = ("tex-mml-chtml.js", "output/chtml/fonts")


class BuildFailed(RuntimeError):
    """The site cannot be built or must not be published."""


def chapters(root: Path = ROOT) -> list[Path]:
    """The notebooks named in ``_toc.yml``, in order."""
    contents = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    pages = [root / f"{name}.ipynb" for name in _pages(contents)]
    return [page for page in pages if page.is_file()]


def _pages(entry: dict) -> Iterator[str]:
    """Names of the pages in an entry of ``_toc.yml``, and below it."""
    if "file" in entry:
        yield entry["file"]
    for kind in ("parts", "chapters", "sections"):
        for below in entry.get(kind, []):
            yield from _pages(below)


def build_site(build: Path, root: Path = ROOT) -> Path:
    """Build ``build/html`` from ``build/notebooks`` and the pages.

    A second build into the same folder waits for the first.

    Args:
        build: The folder of one profile.
        root: The repository.

    Returns:
        The first page.

    Raises:
        BuildFailed: With all that is wrong.  A site that was there before then stays.
    """
    build.mkdir(parents=True, exist_ok=True)
    with FileLock(build / ".lock"):
        source = build / "site-src"
        _stage(build, source, root)
        made_from = build / "html.made-from"
        inputs = _digest(
            source, root / "requirements.lock", root / "book", root / "mlprune_helpers"
        )
        first_page = build / "html" / "index.html"
        if first_page.exists() and made_from.exists() and made_from.read_text() == inputs:
            return first_page
        new = _checked_site(build, source, root)
        made_from.unlink(missing_ok=True)
        shutil.rmtree(build / "html", ignore_errors=True)
        new.rename(build / "html")
        shutil.rmtree(build / "html.new")
        with written_beside(made_from) as beside:
            beside.write_text(inputs)
        return first_page


def _checked_site(build: Path, source: Path, root: Path) -> Path:
    """Build the site in ``build/html.new`` and check it; return the folder of its pages."""
    problems = []
    for path in sorted((source / "notebooks").glob("*.ipynb")):
        executed = build / "notebooks" / path.name  # it still tells of errors that papermill met
        problems += check_notebook(executed) + check_published(path)
    if problems:
        raise BuildFailed("\n".join(problems))
    new = build / "html.new"
    started = time.perf_counter()
    _jupyter_book(source, new)
    pages = new / "_build" / "html"
    _write_site_time(pages, _budget(build, root), time.perf_counter() - started)
    problems = check_site(pages, root)
    if problems:
        raise BuildFailed("\n".join(problems))
    return pages


def _stage(build: Path, source: Path, root: Path) -> None:
    """Put together what Jupyter Book is given."""
    shutil.rmtree(source, ignore_errors=True)
    no_code = shutil.ignore_patterns("*.py", "__pycache__")
    shutil.copytree(root / "book", source / "book", ignore=no_code)
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(root / name, source)
    (source / "notebooks").mkdir()
    for path in chapters(root):
        publish(build / "notebooks" / path.name, source / "notebooks" / path.name)
    page = source / "book" / "budget.md"
    if page.is_file():
        text = page.read_text(encoding="utf-8")
        text = text.replace(TABLE, _budget(build, root).table())
        page.write_text(text, encoding="utf-8")
    _copy_mathjax(source / "book" / "_static" / "mathjax")


def _budget(build: Path, root: Path) -> Budget:
    """What the chapters took in the runs that the site shows, and what their set-up took."""
    stamps = [build / "notebooks" / f"{path.stem}.json" for path in chapters(root)]
    install_seconds = None
    with suppress(OSError, ValueError):  # not installed by make
        install_seconds = float((root / ".venv" / "ready").read_text(encoding="utf-8"))
    return Budget(build.name, [measured(stamp) for stamp in stamps], install_seconds)


def _write_site_time(pages: Path, budget: Budget, seconds: float) -> None:
    """Tell on the page on time, and in its source beside it, how long the site took."""
    for name in ("book/budget.html", "_sources/book/budget.md"):
        page = pages / name
        if page.is_file():
            text = budget.with_site_time(page.read_text(encoding="utf-8"), seconds)
            page.write_text(text, encoding="utf-8")


def _copy_mathjax(target: Path) -> None:
    package = importlib.util.find_spec("sphinx-mathjax-offline")
    if package is None or not package.submodule_search_locations:
        raise BuildFailed("sphinx-mathjax-offline is not installed: pip install -e '.[book]'")
    mathjax = Path(package.submodule_search_locations[0]) / "static" / "mathjax"
    for name in MATHJAX:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        if (mathjax / name).is_dir():
            shutil.copytree(mathjax / name, target / name)
        else:
            shutil.copy(mathjax / name, target / name)


def _jupyter_book(source: Path, output: Path) -> None:
    # From nothing: on a second try, Sphinx would not repeat the warnings of pages that it has read.
    shutil.rmtree(output, ignore_errors=True)
    jupyter_book = Path(sys.executable).with_name("jupyter-book")
    command = [jupyter_book, "build", source, "--path-output", output]
    strict = ["-W", "--keep-going", "--quiet"]
    done = subprocess.run([*command, *strict], text=True, capture_output=True)
    if done.returncode != 0:
        raise BuildFailed(f"{done.stdout}{done.stderr}\nJupyter Book failed; see above.")


def _digest(*paths: Path) -> str:
    """One digest for files and folders: names and content."""
    digest = hashlib.sha256()
    for path in paths:
        for file in sorted([path, *path.rglob("*")]):
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(f"{file.relative_to(path.parent)}\0".encode())
                digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def main() -> int:
    """Build the book; return the exit status."""
    parser = argparse.ArgumentParser(description="Run the notebooks, build the site, check it.")
    parser.add_argument(
        "--profile", default="default", help="a file in notebooks/profiles, without its ending"
    )
    build = Path("_build") / parser.parse_args().profile
    progress = sys.stderr.isatty()
    try:
        runs = run_book(chapters(), build.name, build.parent, report=print, progress=progress)
        first_page = build_site(build)
    except (NotebookFailed, BuildFailed, ModelError, ValueError) as error:
        print(f"The book was not built.\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted. What had been finished is kept.", file=sys.stderr)
        return 130
    print(f"\n{time_table(runs)}\n\nThe book: {first_page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
