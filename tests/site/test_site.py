"""The repository's address is the same everywhere, and the site builds in profile ``smoke``."""

import json
import re
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from build import BuildFailed, build_site, chapters

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
