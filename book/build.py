"""Run the notebooks, build the site from the executed copies, check it.

    python book/build.py --profile smoke

What lands in ``_build/PROFILE``: ``notebooks`` (executed), ``results`` (their numbers), ``site-src`` (what Jupyter
Book was given) and ``html`` (the site, there only if every check passed).
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import yaml
from check_site import check_notebook, check_site

from mlprune_helpers import ModelError
from mlprune_helpers.runs import NotebookFailed, run_book, time_table

ROOT = Path(__file__).resolve().parent.parent
# The part of MathJax that renders TeX to HTML, and its fonts: 1.5 of the package's 20 MB.
MATHJAX = ("tex-mml-chtml.js", "output/chtml/fonts")


class BuildFailed(RuntimeError):
    """The site cannot be built or must not be published."""


def chapters(root: Path = ROOT) -> list[Path]:
    """The notebooks named in ``_toc.yml``, in order."""

    def files(entry: dict) -> list[str]:
        below = [*entry.get("parts", []), *entry.get("chapters", []), *entry.get("sections", [])]
        return [*filter(None, [entry.get("file")]), *(name for item in below for name in files(item))]

    names = files(yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8")))
    return [root / f"{name}.ipynb" for name in names if (root / f"{name}.ipynb").is_file()]


def build_site(build: Path, root: Path = ROOT) -> Path:
    """Build ``build/html`` from ``build/notebooks`` and the pages; return the first page.

    Raises BuildFailed with all that is wrong.  A site that was there before then stays.
    """
    site, source, made_from = build / "html", build / "site-src", build / "html.made-from"
    first_page = site / "index.html"
    _stage(build, source, root)
    inputs = _digest(source, root / "requirements.lock", root / "book")
    if first_page.exists() and made_from.exists() and made_from.read_text() == inputs:
        return first_page
    problems = [p for path in sorted((source / "notebooks").glob("*.ipynb")) for p in check_notebook(path)]
    if problems:
        raise BuildFailed("\n".join(problems))
    new = build / "html.new"
    _jupyter_book(source, new)
    problems = check_site(new / "_build/html", root)
    if problems:
        raise BuildFailed("\n".join(problems))
    made_from.unlink(missing_ok=True)
    shutil.rmtree(site, ignore_errors=True)
    (new / "_build/html").rename(site)
    made_from.write_text(inputs)
    shutil.rmtree(new)
    return first_page


def _stage(build: Path, source: Path, root: Path) -> None:
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(root / "book", source / "book", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(root / name, source)
    (source / "notebooks").mkdir()
    for path in chapters(root):
        shutil.copy(build / "notebooks" / path.name, source / "notebooks")
    package = importlib.util.find_spec("sphinx-mathjax-offline")
    mathjax = Path(package.submodule_search_locations[0]) / "static/mathjax"
    for name in MATHJAX:
        target = source / "book/_static/mathjax" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (mathjax / name).is_dir() else shutil.copy)(mathjax / name, target)


def _jupyter_book(source: Path, output: Path) -> None:
    # From nothing: on a second try, Sphinx would not repeat the warnings of pages that it has read.
    shutil.rmtree(output, ignore_errors=True)
    command = ["build", str(source), "--path-output", str(output), "-W", "--keep-going", "--quiet"]
    jupyter_book = Path(sys.executable).with_name("jupyter-book")
    done = subprocess.run([jupyter_book, *command], text=True, capture_output=True)
    if done.returncode != 0:
        raise BuildFailed(f"{done.stdout}{done.stderr}\nJupyter Book failed; see above.")


def _digest(*paths: Path) -> str:
    digest = hashlib.sha256()
    for path in paths:
        for file in sorted(f for f in (path, *path.rglob("*")) if f.is_file() and "__pycache__" not in f.parts):
            digest.update(f"{file.relative_to(path.parent)}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the notebooks, build the site, check it.")
    parser.add_argument("--profile", default="default", help="a file in notebooks/profiles, without its ending")
    build = Path("_build") / parser.parse_args().profile
    try:
        runs = run_book(chapters(), build.name, build.parent, report=print, progress=sys.stderr.isatty())
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
