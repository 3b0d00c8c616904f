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

    commands = {
        "run": _run,
        "results": _results,
        "model": _model,
        "convert": _convert,
        "clean-cache": _clean_cache,
    }
    try:
        commands[options.command](options)
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
    _add_results(commands)
    commands.add_parser("model", help="prepare the default model and print where it is")
    _add_convert(commands)
    commands.add_parser("clean-cache", help="remove prepared models and cached results")
    return parser


def _add_run(commands: argparse._SubParsersAction) -> None:
    run = commands.add_parser(
        "run",
        help="execute notebooks into a build folder; what is up to date is skipped",
        description=(
            "Execute notebooks into BUILD/PROFILE/notebooks, and their numbers into "
            "BUILD/PROFILE/results; with -p, into a folder BUILD/PROFILE-DIGITS of their own, so "
            "that the profile's stay. What is up to date is skipped."
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


def _add_results(commands: argparse._SubParsersAction) -> None:
    results = commands.add_parser(
        "results",
        help="print the numbers of many runs side by side",
        description=(
            "Print the numbers of all runs in a folder and below it: for each chapter a column a "
            "run, with the parameters that differ on top."
        ),
        epilog="Example: mlprune results _build",
    )
    results.add_argument("folder", metavar="DIR", help="where runs wrote their results")
    results.add_argument(
        "--csv", action="store_true", help="one table with a row a run, separated by commas"
    )


def _add_convert(commands: argparse._SubParsersAction) -> None:
    convert = commands.add_parser(
        "convert",
        help="make a folder of safetensors of a model that the hub has as a .bin file only",
        description=(
            "Read the .bin file of a hub model once, as weights only, and write an ordinary "
            "checkpoint folder. Give that folder to the chapters as the parameter model."
        ),
        epilog=(
            "Example: mlprune convert facebook/xglm-2.9B xglm-2.9B --revision COMMIT. This lists "
            "the newest commit: git ls-remote https://huggingface.co/facebook/xglm-2.9B HEAD"
        ),
    )
    convert.add_argument("model", metavar="MODEL", help="hub id, such as facebook/xglm-2.9B")
    convert.add_argument("folder", metavar="DIR", help="a folder that does not exist yet")
    convert.add_argument(
        "--revision",
        required=True,
        metavar="COMMIT",
        help="the 40 hex digits of a commit that you trust",
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


def _results(options: argparse.Namespace) -> None:
    from .runs.results import read_results, results_as_text

    table = read_results(options.folder)
    print(table.to_csv(index=False).rstrip() if options.csv else results_as_text(table))


def _model(options: argparse.Namespace) -> None:
    from .models.loading import load_model

    print(load_model().model.name_or_path)


def _convert(options: argparse.Namespace) -> None:
    from .models.loading import load_model, save_checkpoint

    if Path(options.folder).exists():  # before a download of some gigabytes
        raise FileExistsError(f"{options.folder} exists already. Name another folder.")
    lm = load_model(options.model, revision=options.revision, dtype="auto", allow_bin=True)
    print(save_checkpoint(lm, options.folder))


def _clean_cache(options: argparse.Namespace) -> None:
    # Only what this package made: MLPRUNE_CACHE may name a folder that holds other things.
    for name in ("models", "results"):
        folder = cache_dir() / name
        if folder.is_dir():
            shutil.rmtree(folder)
            print(f"removed {folder}")
