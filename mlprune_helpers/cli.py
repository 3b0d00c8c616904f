"""The command ``mlprune``."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

from .files import cache_dir
from .runs.environment import short_waits

# Rooms that import torch are imported where they are used: help comes at once, and torch reads the
# environment when it is imported.


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: Those of the command line, by default.

    Returns:
        The exit status: 0, 1 after an error, 130 after Ctrl-C.  (Arguments that cannot be read end
        it with 2.)
    """
    options = _parser().parse_args(arguments)
    os.environ.update(short_waits())
    from .models.architecture import ModelError
    from .runs.notebooks import NotebookFailed

    try:
        if options.command == "run":
            _run(options)
        elif options.command == "model":
            _model()
        else:
            _clean_cache()
    except (OSError, ValueError, ModelError, NotebookFailed) as error:
        print(f"mlprune: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("mlprune: interrupted", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mlprune", description="Run the book's notebooks and manage their cache."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_run(commands)
    commands.add_parser("model", help="prepare the default model and print where it is")
    commands.add_parser("clean-cache", help="remove prepared models and cached results")
    return parser


def _add_run(commands: argparse._SubParsersAction) -> None:
    run = commands.add_parser(
        "run",
        help="execute notebooks into a build folder; what is up to date is skipped",
        description=(
            "Execute notebooks into BUILD/PROFILE/notebooks, and their numbers into "
            "BUILD/PROFILE/results. What is up to date is skipped."
        ),
        epilog="Example: mlprune run notebooks/03_pruning.ipynb -p sparsity=2:4 -p languages=en,de",
    )
    run.add_argument(
        "notebooks",
        nargs="*",
        metavar="NOTEBOOK",
        help="default: all in the folder notebooks",
    )
    run.add_argument(
        "--profile",
        default="default",
        metavar="PROFILE",
        help="a file in notebooks/profiles, without its ending (default: %(default)s)",
    )
    run.add_argument(
        "-p",
        "--parameter",
        action="append",
        default=[],
        type=_parameter,
        dest="parameters",
        metavar="NAME=VALUE",
        help=(
            "a parameter, over that of the profile, in the notebooks that have it; give it again "
            "for others; a list is written with commas"
        ),
    )
    run.add_argument(
        "--build-dir",
        default="_build",
        metavar="BUILD",
        help="where it goes (default: %(default)s)",
    )


def _parameter(text: str) -> tuple[str, str]:
    """``NAME=VALUE`` as a pair.  The value stays text: the notebook knows what type it is of."""
    name, separator, value = text.partition("=")
    if not separator or not name.strip().isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=VALUE, as in limit=60")
    return name.strip(), value.strip()


def _run(options: argparse.Namespace) -> None:
    from .runs.notebooks import run_book, time_table

    notebooks = options.notebooks or sorted(Path("notebooks").glob("*.ipynb"))
    if not notebooks:
        raise ValueError(
            "There is no notebook in the folder notebooks. Name some, or change to the book's "
            "folder."
        )
    runs = run_book(
        notebooks,
        options.profile,
        options.build_dir,
        parameters=dict(options.parameters),
        report=print,
        progress=sys.stderr.isatty(),
    )
    print(f"\n{time_table(runs)}")


def _model() -> None:
    from .models.loading import load_model

    print(load_model().model.name_or_path)


def _clean_cache() -> None:
    # Only what this package made: MLPRUNE_CACHE may name a folder that holds other things.
    for name in ("models", "results"):
        folder = cache_dir() / name
        if folder.is_dir():
            shutil.rmtree(folder)
            print(f"removed {folder}")
