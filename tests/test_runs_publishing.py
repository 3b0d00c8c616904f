"""What a reader downloads: it says the values of the run, once, and an edit takes effect."""

import ast
import copy

import nbformat
import papermill
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from mlprune_helpers.runs import NotPublishable, publish, published
from mlprune_helpers.runs.publishing import with_values

PARAMETERS = """\
model: str = 'a "name"'  # of a model
languages: list[str] = [
    "en", "fr",  # two
]
limit: int | None = 60; seed: int = 0
naïveté: str = "é"  # ünïcode before and after
own: list[float] = [0.1]
unset: int
output_dir: str = "results"  # where it goes
"""
SHOW = "print([model, languages, limit, seed, naïveté, own, output_dir])"


def notebook(parameters: str = PARAMETERS, show: str = SHOW):
    cells = [
        new_markdown_cell("# Title"),
        new_code_cell(parameters, metadata={"tags": ["parameters"]}),
        new_code_cell(show, metadata={"tags": ["hide-input"], "mystnb": {"image": {"alt": "A"}}}),
        new_code_cell("limit"),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernel})


def executed(folder, given: dict, source=None, name: str = "executed"):
    """The path of a notebook that papermill ran."""
    if source is None:
        source = folder / "stored.ipynb"
        nbformat.write(notebook(), source)
    path = folder / f"{name}.ipynb"
    papermill.execute_notebook(
        str(source), str(path), given, kernel_name="python3", progress_bar=False
    )
    return path


def shown(path) -> list:
    """What the notebook printed."""
    cells = nbformat.read(path, as_version=4).cells
    (output,) = next(cell for cell in cells if cell.source == SHOW).outputs
    return ast.literal_eval(output.text)


def test_a_published_copy_runs_again_and_takes_edits(tmp_path):
    given = {
        "model": 'it\'s "b\\n"',
        "languages": "fr,sw",
        "limit": None,
        "naïveté": "日本",
        "own": [0.5, 2],
        "output_dir": "_build/default/results",
    }
    first = executed(tmp_path, given)
    wanted = [given["model"], ["fr", "sw"], None, 0, "日本", [0.5, 2], "results"]
    copy_of_it = tmp_path / "published.ipynb"
    publish(first, copy_of_it)

    again = executed(tmp_path, {}, copy_of_it, "again")
    assert shown(again) == wanted

    edited = nbformat.read(copy_of_it, as_version=4)
    edited.cells[1].source = edited.cells[1].source.replace("seed: int = 0", "seed: int = 7")
    nbformat.write(edited, tmp_path / "edited.ipynb")
    assert shown(executed(tmp_path, {}, tmp_path / "edited.ipynb", "of an edit"))[3] == 7
    assert shown(executed(tmp_path, {"seed": 8}, copy_of_it, "of papermill"))[3] == 8


def test_nothing_tells_how_it_was_run(tmp_path):
    path = executed(tmp_path, {"limit": 5, "output_dir": "_build/x"})
    ran = nbformat.read(path, as_version=4)
    before = copy.deepcopy(ran)
    result = published(ran)
    assert ran == before
    nbformat.validate(result)
    stored = nbformat.read(tmp_path / "stored.ipynb", as_version=4)
    assert [cell.id for cell in result.cells] == [cell.id for cell in stored.cells]
    assert [cell.metadata for cell in result.cells] == [cell.metadata for cell in stored.cells]
    assert "papermill" not in nbformat.writes(result) and "_build" not in result.cells[1].source
    assert [cell.get("execution_count") for cell in result.cells] == [None, 1, 2, 3]
    assert result.cells[3].outputs[0].execution_count == 3
    assert result.cells[3].outputs[0].data["text/plain"] == "5"
    assert result.cells[1].source == PARAMETERS.replace("= 60", "= 5")


def test_a_notebook_that_ran_as_stored_is_as_stored(tmp_path):
    result = published(nbformat.read(executed(tmp_path, {}), as_version=4))
    assert [cell.source for cell in result.cells] == [cell.source for cell in notebook().cells]


@pytest.mark.parametrize(
    ("line", "values", "expected"),
    [
        ("a: int = 1  # = 1", {"a": 2}, "a: int = 2  # = 1"),
        ("a: str = '1'", {"a": "1"}, "a: str = '1'"),
        ("a: str = 'x'", {"a": "y"}, 'a: str = "y"'),
        ("limit: int = 60", {"limit": "5"}, "limit: int = 5"),
        ("sparsity: float = 0.3", {"sparsity": "2:4"}, 'sparsity: float = "2:4"'),
        ("sparsity: float = 0.3", {"sparsity": "0.5"}, "sparsity: float = 0.5"),
        ("pooled: bool = True", {"pooled": "no"}, "pooled: bool = False"),
        ("a: float = 1", {"a": True}, "a: float = True"),
        ("a: int = (\n    1 +\n    1)  # two", {"a": 3}, "a: int = (\n    3)  # two"),
        ("a: int = 2 * 3", {"a": 6}, "a: int = 6"),
        ("a: list = []; b: int = 1", {"b": 2, "a": [1]}, "a: list = [1]; b: int = 2"),
        ("%matplotlib inline\n\na: int = 1", {"a": 2}, "%matplotlib inline\n\na: int = 2"),
        ("%%time\n# first\na: int = 1", {"a": 2}, "%%time\n# first\na: int = 2"),
        ("\n\na: int = 1", {"a": 2}, "a: int = 2"),
        ("a: int  # one\nb: int = 1", {"a": 2}, "a: int = 2  # one\nb: int = 1"),
        ("unset: int = 1", {}, "unset: int = 1"),
        ("  a: int = 1\n  b: int = 2", {"b": 3}, "a: int = 1\nb: int = 3"),
        ("a = 1", {"a": 2}, "a = 1"),
    ],
)
def test_a_value_takes_the_place_of_the_declared_one(line, values, expected):
    assert with_values(line, values)[0] == expected


def test_what_has_no_place_is_refused(tmp_path):
    ran = nbformat.read(executed(tmp_path, {"limit": 5}), as_version=4)
    ran.metadata.papermill.parameters["limt"] = 6
    with pytest.raises(NotPublishable, match="the run has the parameter 'limt'"):
        published(ran)
    nbformat.write(ran, tmp_path / "odd.ipynb")
    with pytest.raises(NotPublishable, match=r"^odd.ipynb: the run"):
        publish(tmp_path / "odd.ipynb", tmp_path / "out.ipynb")
    assert not (tmp_path / "out.ipynb").exists()
    with pytest.raises(NotPublishable, match="a is nan, which cannot be written"):
        with_values("a: float = 1.0", {"a": float("nan")})
