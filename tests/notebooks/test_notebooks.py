"""Every notebook as it is stored, and executed in profile ``smoke`` on the default model."""

import ast
import re
from pathlib import Path

import nbformat
import papermill
import pytest
from build import chapters
from check_site import check_notebook

from mlprune_helpers.runs import run_book
from mlprune_helpers.runs.parameters import DOMAINS

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# What only the site renders, and Colab shows as it is written: roles, colon fences, directives.
SPHINX_ONLY = re.compile(r"\{[\w:-]+\}`|^\s*:::|^\s*```\{", re.MULTILINE)


def read(path: Path):
    return nbformat.read(path, as_version=4)


def has_tag(cell, tag: str) -> bool:
    return tag in cell.metadata.get("tags", [])


every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def test_the_book_has_all_notebooks():
    assert chapters() == NOTEBOOKS


@every_notebook
def test_stored_without_outputs(path):
    notebook = read(path)
    for cell in notebook.cells:
        assert not cell.get("outputs"), cell.source
        assert cell.get("execution_count") is None, cell.source
        assert "papermill" not in cell.metadata
    assert notebook.metadata.kernelspec.name == "python3"
    assert "papermill" not in notebook.metadata


@every_notebook
def test_parameters_are_declared_once_and_checked_in_the_next_cell(path):
    cells = read(path).cells
    (at,) = (i for i, cell in enumerate(cells) if has_tag(cell, "parameters"))
    statements = ast.parse(cells[at].source).body
    assert all(isinstance(statement, ast.AnnAssign) for statement in statements)
    names = [statement.target.id for statement in statements]
    assert set(names) <= set(DOMAINS), (
        "names are the same throughout the book: add new ones to DOMAINS"
    )
    # papermill reads the cell line by line, and warns of names it does not find.
    assert set(papermill.inspect_notebook(str(path))) == set(names)
    assert "check_parameters(globals())" in cells[at + 1].source
    assert "parameters" in ast.unparse(ast.parse(cells[at + 1].source))


@every_notebook
def test_data_are_those_of_the_parameters_and_checked_before_the_model_is_loaded(path):
    code = [cell.source for cell in read(path).cells if cell.cell_type == "code"]
    (checked, *_) = (i for i, source in enumerate(code) if "check_parameters(globals())" in source)
    (model, *_) = (i for i, source in enumerate(code) if "load_model(model)" in source)
    assert checked < model
    calls = re.findall(r"load_parallel\((.*)\)", "\n".join(code))
    assert calls
    assert all("source, name=parallel" in call for call in calls)


@every_notebook
def test_first_code_cell_installs_the_package_in_colab(path):
    first = next(cell for cell in read(path).cells if cell.cell_type == "code")
    assert "%pip install" in first.source


@every_notebook
def test_reads_well_in_colab(path):
    for cell in read(path).cells:
        if cell.cell_type == "markdown":
            assert not SPHINX_ONLY.search(cell.source), cell.source


@every_notebook
def test_solutions_are_hidden(path):
    for cell in read(path).cells:
        if has_tag(cell, "solution"):
            assert cell.cell_type == "code"
            assert has_tag(cell, "hide-cell"), cell.source


@pytest.mark.slow
@every_notebook
def test_runs_on_the_real_model(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    run_book([path], "smoke", "_build")
    assert check_notebook(ROOT / "_build" / "smoke" / "notebooks" / path.name) == []
    assert (ROOT / "_build" / "smoke" / "results" / f"{path.stem}.json").is_file()
