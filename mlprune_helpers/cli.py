"""The command ``mlprune``."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from .files import cache_dir
from .models.architecture import ModelError
from .models.loading import load_model
from .runs import notebooks as runs


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="mlprune", description="Run the book's notebooks and manage their cache."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser(
        "run", help="execute notebooks into a build folder; what is up to date is skipped"
    )
    run.add_argument(
        "notebooks", nargs="*", metavar="NOTEBOOK", help="default: all in the folder notebooks"
    )
    run.add_argument(
        "--profile", default="default", help="a file in notebooks/profiles, without its ending"
    )
    run.add_argument("--build-dir", default="_build", metavar="FOLDER")
    commands.add_parser("model", help="prepare the default model and print where it is")
    commands.add_parser("clean-cache", help="remove prepared models and cached results")
    options = parser.parse_args(arguments)
    try:
        if options.command == "run":
            notebooks = options.notebooks or sorted(Path("notebooks").glob("*.ipynb"))
            if not notebooks:
                raise ValueError(
                    "There is no notebook in the folder notebooks. Name some, or change to the book's folder."
                )
            done = runs.run_book(
                notebooks,
                options.profile,
                options.build_dir,
                report=print,
                progress=sys.stderr.isatty(),
            )
            print(f"\n{runs.time_table(done)}")
        elif options.command == "model":
            print(load_model().model.name_or_path)
        else:  # only what this package made: MLPRUNE_CACHE may name a folder that holds other things
            for folder in filter(Path.is_dir, (cache_dir() / "models", cache_dir() / "results")):
                shutil.rmtree(folder)
                print(f"removed {folder}")
    except (OSError, ValueError, ModelError, runs.NotebookFailed) as error:
        print(f"mlprune: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("mlprune: interrupted", file=sys.stderr)
        return 130
    return 0
