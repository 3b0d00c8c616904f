"""The site check finds what was planted, and nothing in a sound page."""

import nbformat
import pytest
from check_site import check_notebook, check_published, check_site
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

GOOD = (
    '<h1 id="top-of-it">Title</h1> <a href="#top-of-it">up</a> '
    '<a href="other.html#there">on</a> <img src="a.png" alt="A">'
)


def site_of(tmp_path, body: str) -> list[str]:
    site = tmp_path / "site"
    site.mkdir()
    (site / "a.png").write_bytes(b"")
    (site / "other.html").write_text('<h2 id="there">There</h2>')
    (site / "page.html").write_text(f"<html><body>{body}</body></html>")
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "00.ipynb").write_text("")
    return check_site(site, tmp_path)


def test_sound_page_passes(tmp_path):
    colab = '<a href="https://colab.research.google.com/github/o/r/blob/main/notebooks/00.ipynb">Colab</a>'
    assert site_of(tmp_path, GOOD + colab + '<a href="https://example.org/x#y">out</a>') == []


def test_empty_site_is_refused(tmp_path):
    (tmp_path / "site").mkdir()
    assert "no pages" in check_site(tmp_path / "site", tmp_path)[0]


@pytest.mark.parametrize(
    ("planted", "problem"),
    [
        ('<a href="missing.html">x</a>', "broken link to missing.html"),
        ('<a href="other.html#nowhere">x</a>', "no such anchor"),
        ('<a href="#nowhere">x</a>', "no such anchor"),
        ('<img src="missing.png" alt="A">', "broken link to missing.png"),
        ('<img src="a.png">', "without alt text"),
        ('<img src="a.png" alt=" ">', "without alt text"),
        ('<script src="https://cdn.example.org/x.js"></script>', "loaded from outside"),
        ('<link rel="stylesheet" href="//cdn.example.org/x.css">', "loaded from outside"),
        ('<img src="https://example.org/x.png" alt="A">', "loaded from outside"),
        ('<script src="missing.js"></script>', "broken link to missing.js"),
        (
            '<a href="https://colab.research.google.com/github/o/r/blob/main/notebooks/99.ipynb">Colab</a>',
            "Colab link to notebooks/99.ipynb",
        ),
    ],
)
def test_planted_fault_is_found(tmp_path, planted, problem):
    (found,) = site_of(tmp_path, GOOD + planted)
    assert found.startswith("page.html: ")
    assert problem in found


def notebook_of(tmp_path, *cells) -> list[str]:
    nbformat.write(new_notebook(cells=[new_markdown_cell("# Title"), *cells]), tmp_path / "n.ipynb")
    return check_notebook(tmp_path / "n.ipynb")


def ran(*outputs, **metadata):
    return new_code_cell("1", execution_count=1, outputs=list(outputs), metadata=metadata)


TEXT = new_output("stream", name="stdout", text="1")
WIDGET = new_output(
    "display_data",
    data={"application/vnd.jupyter.widget-view+json": {}, "text/plain": "scoring: 0%"},
)
FIGURE = new_output("display_data", data={"image/png": "", "text/plain": "<Figure>"})


def test_sound_notebook_passes(tmp_path):
    assert (
        notebook_of(tmp_path, ran(TEXT), ran(), ran(FIGURE, mystnb={"image": {"alt": "A line."}}))
        == []
    )


@pytest.mark.parametrize(
    ("cell", "problem"),
    [
        (new_code_cell("1"), "did not run"),
        (
            ran(new_output("error", ename="KeyError", evalue="", traceback=[])),
            r"shows a traceback (KeyError)",
        ),
        (ran(new_output("stream", name="stderr", text="a warning")), "error output: a warning"),
        (ran(WIDGET), "a widget, which a page cannot show: scoring: 0%"),
        (ran(papermill={"exception": True}), "papermill reports an error"),
        (ran(FIGURE), "without alt text"),
        (ran(FIGURE, mystnb={"image": {"alt": ""}}), "without alt text"),
    ],
)
def test_planted_fault_in_a_notebook_is_found(tmp_path, cell, problem):
    (found,) = notebook_of(tmp_path, ran(TEXT), cell)
    assert found.startswith("n.ipynb, cell 3: ")
    assert problem in found


def test_notebook_without_outputs_is_refused(tmp_path):
    assert notebook_of(tmp_path, ran(), ran()) == ["n.ipynb: no code cell has an output"]


@pytest.mark.parametrize(
    ("cell", "problem"),
    [
        (new_code_cell("limit = 5", metadata={"tags": ["injected-parameters"]}), "injected cell"),
        (ran(papermill={"status": "completed"}), "metadata of papermill"),
    ],
)
def test_a_trace_of_the_run_in_a_published_notebook_is_found(tmp_path, cell, problem):
    parameters = new_code_cell("limit: int = 5", metadata={"tags": ["parameters"]})
    path = tmp_path / "site" / "_sources" / "n.ipynb"
    path.parent.mkdir(parents=True)
    nbformat.write(new_notebook(cells=[parameters, ran(TEXT)]), path)
    (tmp_path / "site" / "index.html").write_text(GOOD.partition("<a")[0])
    assert check_published(path) == check_site(tmp_path / "site", tmp_path) == []
    nbformat.write(new_notebook(cells=[parameters, cell]), path)
    (found,) = check_published(path)
    assert found.startswith("n.ipynb, cell 2: ") and problem in found
    assert check_site(tmp_path / "site", tmp_path) == [found]
    nbformat.write(new_notebook(cells=[ran(TEXT)], metadata={"papermill": {}}), path)
    assert check_published(path) == ["n.ipynb: metadata of papermill"]
