"""Every notebook as it is stored, and executed in profile ``smoke`` on the default model."""

import ast
import re
from pathlib import Path

import nbformat
import papermill
import pytest
import yaml
from build import chapters
from check_site import check_notebook, check_published

from mlprune_helpers.runs import publish, run_book
from mlprune_helpers.runs.parameters import DOMAINS

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
BOOK = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["html"]["baseurl"]
# What only the site renders, and Colab shows as it is written: roles, colon fences, directives.
SPHINX_ONLY = re.compile(r"\{[\w:-]+\}`|^\s*:::|^\s*```\{", re.MULTILINE)


def read(path: Path):
    return nbformat.read(path, as_version=4)


def has_tag(cell, tag: str) -> bool:
    return tag in cell.metadata.get("tags", [])


def code_cells(path: Path) -> list:
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def markdown(path: Path) -> str:
    return "\n\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")


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
    code = [cell.source for cell in code_cells(path)]
    (checked, *_) = (i for i, source in enumerate(code) if "check_parameters(globals())" in source)
    opened = f'open_chapter("{path.stem}", parameters'
    (model, *_) = (i for i, s in enumerate(code) if opened in s or "load_model(model)" in s)
    assert checked < model
    for call in re.findall(r"load_parallel\((.*)\)", "\n".join(code)):
        assert "source, name=parallel" in call


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
def test_what_code_shows_has_no_links_between_pages(path):
    """The site turns links of text cells into pages, and leaves those of outputs as they are."""
    for cell in code_cells(path):
        assert not re.search(r"\]\([^)]*\.(md|ipynb)", cell.source), cell.source


@every_notebook
def test_solutions_are_hidden(path):
    for cell in read(path).cells:
        if has_tag(cell, "solution"):
            assert cell.cell_type == "code"
            assert has_tag(cell, "hide-cell"), cell.source


def exercises(path: Path) -> list[tuple[str, str]]:
    """For each solution, the exercise above it, and what stands right below its last cell."""
    cells = read(path).cells
    found = []
    for i, cell in enumerate(cells):
        if has_tag(cell, "solution"):
            above = (other for other in reversed(cells[:i]) if other.cell_type == "markdown")
            below = (other for other in cells[i + 1 :] if not has_tag(other, "solution"))
            after = next(below, None)
            is_text = after is not None and after.cell_type == "markdown"
            found.append((next(above).source, after.source if is_text else ""))
    return found


@every_notebook
def test_an_exercise_says_how_long_it_takes_and_its_solution_is_explained(path):
    found = exercises(path)
    assert found
    for before, after in found:
        assert re.search(r"\d minutes?\b", before), before
        first_line = after.strip().partition("\n")[0]
        assert first_line, f"nothing after the solution of: {before}"
        goes_on = re.match(r"#|\d+\.\s|\*\*(Exercise )?\d", first_line)
        assert not goes_on, f"no word on the output before: {first_line}"


@every_notebook
def test_a_chapter_says_what_it_takes_what_follows_and_what_to_try(path):
    text = markdown(path)
    assert re.search(r"^#+ What follows\b", text, re.MULTILINE)
    assert re.search(r"^#+ Exercises?\b", text, re.MULTILINE)
    needs = re.search(r"You need:.*?(?=\n\n|\Z)", text, re.DOTALL)
    assert needs and re.search(r"\bminutes\b", needs.group())


# -- the page --------------------------------------------------------------------------------------

LONGEST_LINE = 88  # more scrolls sideways on the page and in Colab
VISIBLE_LINES = 120  # of a chapter


def is_visible(cell) -> bool:
    tags = cell.metadata.get("tags", [])
    return not any(tag in ("hide-input", "hide-cell") or tag.startswith("remove-") for tag in tags)


@every_notebook
def test_code_lines_fit_on_the_page(path):
    lines = [line for cell in code_cells(path) for line in cell.source.splitlines()]
    assert [line for line in lines if len(line) > LONGEST_LINE] == []


@every_notebook
def test_visible_code_is_the_idea(path):
    lines = [
        line.strip()
        for cell in code_cells(path)
        if is_visible(cell)
        for line in cell.source.splitlines()
    ]
    assert len([line for line in lines if line and not line.startswith("#")]) <= VISIBLE_LINES


@every_notebook
def test_figures_have_alternative_text(path):
    for cell in code_cells(path):
        if re.search(r"\bplots\.(?!use_style\b)\w+\(|\bplt\.show\b", cell.source):
            assert cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "").strip(), (
                cell.source
            )


@every_notebook
def test_ends_with_licence_author_and_attribution(path):
    last = [cell.source for cell in read(path).cells if cell.cell_type == "markdown"][-1]
    for part in (
        "CC BY 4.0",
        "MIT",
        "by the mlprune project",
        f"({BOOK})",
        "Kim et al.",
        "(https://arxiv.org/abs/2409.16911)",
    ):
        assert part in last


# -- as it runs ------------------------------------------------------------------------------------


@pytest.mark.slow
@every_notebook
def test_runs_on_the_real_model(path, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    run_book([path], "smoke", "_build")
    executed = ROOT / "_build" / "smoke" / "notebooks" / path.name
    assert check_notebook(executed) == []
    assert list((ROOT / "_build" / "smoke" / "results").glob(f"{path.stem}-*.json"))

    publish(executed, tmp_path / path.name)
    assert check_published(tmp_path / path.name) == []
    stored, offered = read(path).cells, read(tmp_path / path.name).cells
    assert [cell.id for cell in offered] == [cell.id for cell in stored]
    differ = [cell for cell, own in zip(offered, stored) if cell.source != own.source]
    assert all(has_tag(cell, "parameters") for cell in differ)
