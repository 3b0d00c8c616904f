"""The repository's address is the same everywhere, and the site builds in profile ``smoke``."""

import json
import re
import shutil
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import papermill
import pytest
import yaml
from build import BuildFailed, build_site, chapters
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from mlprune_helpers.runs import run_book

ROOT = Path(__file__).parents[2]
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
PUBLISHED = "https://{}.github.io/{}/".format(*REPOSITORY.split("/")[-2:])


def test_config_names_the_repository():
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    sphinx = config["sphinx"]["config"]
    assert sphinx["html_theme_options"]["repository_url"] == REPOSITORY
    assert config["html"]["baseurl"] == sphinx["ogp_site_url"] == PUBLISHED


@pytest.mark.parametrize("path", chapters(), ids=lambda path: path.stem)
def test_install_cell_names_the_repository(path):
    cells = json.loads(path.read_text())["cells"]
    first = "".join(next(cell for cell in cells if cell["cell_type"] == "code")["source"])
    assert re.search(rf"git\+{re.escape(REPOSITORY)}(?![\w-])", first)


@pytest.mark.parametrize(
    "name",
    ["README.md", "CITATION.cff", "book/intro.md", "book/reproducibility.md", "book/corpus.md"],
)
def test_links_go_to_this_repository(name):
    owners = re.findall(
        r"https://github\.com/[\w.-]+/multilingual[\w-]*", (ROOT / name).read_text()
    )
    assert set(owners) <= {REPOSITORY}


def test_a_second_build_into_one_folder_waits_for_the_first(tmp_path, monkeypatch):
    steps = []

    def stage(build, source, root):
        steps.append("begin")
        time.sleep(0.2)
        steps.append("end")
        raise BuildFailed("enough")

    def build_once(_):
        with pytest.raises(BuildFailed, match="enough"):
            build_site(tmp_path / "build")

    monkeypatch.setattr("build._stage", stage)
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(build_once, range(2)))
    assert steps == ["begin", "end"] * 2


@pytest.mark.slow
def test_site_builds_and_passes_its_check(monkeypatch):
    monkeypatch.chdir(ROOT)
    build = Path("_build/smoke")
    run_book(chapters(), build.name, build.parent)
    first_page = build_site(build)
    pages = {
        path.relative_to(build / "html").as_posix() for path in (build / "html").rglob("*.html")
    }
    assert {f"notebooks/{path.stem}.html" for path in chapters()} | {"book/intro.html"} <= pages
    text = (build / "html" / "notebooks" / f"{chapters()[0].stem}.html").read_text()
    assert (
        REPOSITORY.replace("github.com", "colab.research.google.com/github")
        + "/blob/main/notebooks/"
        in text
    )

    built = first_page.stat().st_mtime_ns
    build_site(build)
    assert first_page.stat().st_mtime_ns == built, "nothing has changed, so nothing is built"


@pytest.mark.slow
def test_site_with_a_fault_is_not_put_in_place(tmp_path, monkeypatch):
    """A page with a broken link, in a book of one page."""
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "intro.md").write_text("# Title\n\n[nowhere](missing.md)\n")
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: book/intro\n")
    (tmp_path / "_config.yml").write_text("title: T\nexecute:\n  execute_notebooks: 'off'\n")
    (tmp_path / "requirements.lock").write_text("")
    with pytest.raises(BuildFailed, match="missing.md"):
        build_site(tmp_path / "build", tmp_path)
    assert not (tmp_path / "build" / "html").exists()


@pytest.mark.slow
def test_a_small_site_offers_notebooks_to_go_on_with_and_tells_its_times(tmp_path, monkeypatch):
    """A book of one chapter: the download runs, an edit of it takes effect, times are measured."""
    monkeypatch.chdir(tmp_path)
    small_book(tmp_path)
    build = Path("_build/small")
    run_book(chapters(tmp_path), "small", "_build")
    built = build_site(build, tmp_path).stat().st_mtime_ns

    download = build / "html" / "_sources" / "notebooks" / "00_small.ipynb"
    cells = nbformat.read(download, as_version=4).cells
    assert [cell.source for cell in cells if cell.cell_type == "code"] == [
        'limit: int = 5  # rows\noutput_dir: str = "results"',
        "print(limit, output_dir)",
    ]
    again = papermill.execute_notebook(
        str(download), None, {}, kernel_name="python3", progress_bar=False
    )
    assert again.cells[-1].outputs[0].text.split() == ["5", "results"]

    text = re.sub(r"<[^>]+>", " ", (build / "html" / "book" / "budget.html").read_text())
    assert re.search(r"building this site\s+\d+ s", text)
    assert re.search(r"with set-up\s+.*within 20 minutes", text, re.DOTALL)
    assert "-OF-" not in text and "-ON-" not in text

    assert [run.skipped for run in run_book(chapters(tmp_path), "small", "_build")] == [True]
    assert build_site(build, tmp_path).stat().st_mtime_ns == built


def small_book(folder: Path) -> None:
    """A title, the page on time and memory, and a chapter with a profile."""
    (folder / "book").mkdir()
    (folder / "book" / "intro.md").write_text("# Title\n\n{doc}`budget`\n")
    page = (ROOT / "book" / "budget.md").read_text()
    (folder / "book" / "budget.md").write_text(page.partition("{doc}")[0])
    contents = ["format: jb-book", "root: book/intro", "chapters:"]
    contents += ["- file: notebooks/00_small", "- file: book/budget"]
    (folder / "_toc.yml").write_text("\n".join(contents))
    shutil.copy(ROOT / "_config.yml", folder)
    shutil.copytree(ROOT / "book" / "_static", folder / "book" / "_static")
    shutil.copy(ROOT / "book" / "references.bib", folder / "book")
    (folder / "requirements.lock").write_text("")
    cells = [
        new_markdown_cell("# Small"),
        new_code_cell(
            'limit: int = 60  # rows\noutput_dir: str = "results"',
            metadata={"tags": ["parameters"]},
        ),
        new_code_cell("print(limit, output_dir)"),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    (folder / "notebooks" / "profiles").mkdir(parents=True)
    (folder / "notebooks" / "profiles" / "small.yml").write_text("limit: 5")
    notebook = new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(notebook, folder / "notebooks" / "00_small.ipynb")
