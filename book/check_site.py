"""What Jupyter Book lets through, even with warnings as errors.

It is looked for in executed notebooks and in the built site.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat

COLAB = re.compile(r"https://colab\.research\.google\.com/github/[^/]+/[^/]+/blob/[^/]+/([^?#]+)")
WIDGET = "application/vnd.jupyter.widget-view+json"


def check_notebook(path: Path) -> list[str]:
    """What makes an executed notebook unfit to be published, a line of text each."""
    cells = nbformat.read(path, as_version=4).cells
    code = [
        (number, cell)
        for number, cell in enumerate(cells, start=1)
        if cell.cell_type == "code" and cell.source.strip()
    ]
    problems = []
    if not any(cell.outputs for _, cell in code):
        problems.append(f"{path.name}: no code cell has an output")
    for number, cell in code:
        problems += [f"{path.name}, cell {number}: {problem}" for problem in _cell_problems(cell)]
    return problems


def check_published(path: Path) -> list[str]:
    """What a notebook that readers download still tells of how it was run, a line of text each."""
    notebook = nbformat.read(path, as_version=4)
    problems = []
    if "papermill" in notebook.metadata:
        problems.append(f"{path.name}: metadata of papermill")
    for number, cell in enumerate(notebook.cells, start=1):
        where = f"{path.name}, cell {number}"
        if "papermill" in cell.metadata:
            problems.append(f"{where}: metadata of papermill")
        if "injected-parameters" in cell.metadata.get("tags", []):
            problems.append(f"{where}: an injected cell, which undoes edits of the parameters")
    return problems


def _cell_problems(cell: nbformat.NotebookNode) -> Iterator[str]:
    if cell.execution_count is None:
        yield "did not run"
    if cell.metadata.get("papermill", {}).get("exception"):
        yield "papermill reports an error"
    for output in cell.outputs:
        data = output.get("data", {})
        if output.output_type == "error":
            yield f"shows a traceback ({output.ename})"
        if output.get("name") == "stderr":
            yield f"error output: {output.text.strip()[:200]}"
        if WIDGET in data:
            yield f"a widget, which a page cannot show: {data.get('text/plain', '')[:200]}"
        if any(kind.startswith("image/") for kind in data) and not _alt(cell):
            yield "a figure without alt text (cell metadata mystnb.image.alt)"


def _alt(cell: nbformat.NotebookNode) -> str:
    return cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "").strip()


class _Page(HTMLParser):
    """Links, anchors, images and outside scripts of one page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors = {"", "top"}
        self.links: list[str] = []
        self.images: list[tuple[str, str]] = []  # address, alt text
        self.resources: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attributes}
        self.anchors |= {found[name] for name in ("id", "name") if found.get(name)}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if tag == "img":
            self.images.append((found.get("src", ""), found.get("alt", "")))
        if tag == "script" and found.get("src"):
            self.resources.append(found["src"])
        if tag == "link" and {"stylesheet", "icon", "preload"} & set(found.get("rel", "").split()):
            self.resources.append(found.get("href", ""))


def check_site(site: Path, root: Path) -> list[str]:
    """What is broken in the built site, a line of text each.

    Args:
        site: Its folder.
        root: The repository, where the targets of Colab links must exist.
    """
    site = site.resolve()
    pages = {}
    for path in sorted(site.rglob("*.html")):
        if "_static" not in path.relative_to(site).parts:  # templates
            pages[path] = _Page(path.read_text(encoding="utf-8"))
    if not pages:
        return [f"{site}: no pages"]
    problems = []
    for path in pages:
        found = _page_problems(path, pages, root)
        problems += [f"{path.relative_to(site)}: {problem}" for problem in found]
    for path in sorted(site.rglob("*.ipynb")):  # what the pages offer for download
        problems += check_published(path)
    return problems


def _page_problems(path: Path, pages: dict[Path, _Page], root: Path) -> Iterator[str]:
    page = pages[path]
    for link in page.links:
        colab = COLAB.match(link)
        if colab and not (root / unquote(colab[1])).is_file():
            yield f"Colab link to {colab[1]}, which does not exist"
        yield from _broken(path, link, pages)
    for source, alt in page.images:
        if not alt.strip():
            yield f"image {source} without alt text"
    for source in [*page.resources, *(source for source, _ in page.images)]:
        if urlsplit(source).netloc:
            yield f"{source} is loaded from outside"
        else:
            yield from _broken(path, source, pages)


def _broken(page: Path, link: str, pages: dict[Path, _Page]) -> Iterator[str]:
    """What is wrong with a link that stays within the site."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return
    target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    if target.is_dir():
        target = target / "index.html"
    if not target.exists():
        yield f"broken link to {link}"
    elif target in pages and unquote(parts.fragment) not in pages[target].anchors:
        yield f"link to {link}: the page has no such anchor"
