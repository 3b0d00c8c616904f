"""What Jupyter Book lets through, even with warnings as errors: looked for in executed notebooks and in the site."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat

COLAB = re.compile(r"https://colab\.research\.google\.com/github/[^/]+/[^/]+/blob/[^/]+/([^?#]+)")


def check_notebook(path: Path) -> list[str]:
    """What makes an executed notebook unfit to be published, a line of text each."""
    problems = []
    cells = nbformat.read(path, as_version=4).cells
    code = [(i, cell) for i, cell in enumerate(cells, start=1) if cell.cell_type == "code" and cell.source.strip()]
    if not any(cell.outputs for _, cell in code):
        problems.append(f"{path.name}: no code cell has an output")
    for i, cell in code:
        where = f"{path.name}, cell {i}"
        if cell.execution_count is None:
            problems.append(f"{where}: did not run")
        if cell.metadata.get("papermill", {}).get("exception"):
            problems.append(f"{where}: papermill reports an error")
        for output in cell.outputs:
            if output.output_type == "error":
                problems.append(f"{where}: shows a traceback ({output.ename})")
            if output.get("name") == "stderr":
                problems.append(f"{where}: error output: {output.text.strip()[:200]}")
            if "application/vnd.jupyter.widget-view+json" in output.get("data", {}):
                problems.append(f"{where}: a widget, which a page cannot show: {output.data.get('text/plain', '')[:200]}")
            if any(kind.startswith("image/") for kind in output.get("data", {})) and not _alt(cell):
                problems.append(f"{where}: a figure without alt text (cell metadata mystnb.image.alt)")
    return problems


def _alt(cell) -> str:
    return cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "").strip()


class _Page(HTMLParser):
    """Links, anchors, images and outside scripts of one page."""

    def __init__(self, text: str):
        super().__init__()
        self.anchors, self.links, self.images, self.resources = {"", "top"}, [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.anchors |= {found[key] for key in ("id", "name") if found.get(key)}
        if tag == "a" and found.get("href") is not None:
            self.links.append(found["href"])
        if tag == "img":
            self.images.append((found.get("src") or "", found.get("alt")))
        if tag == "script" and found.get("src"):
            self.resources.append(found["src"])
        if tag == "link" and {"stylesheet", "icon", "preload"} & set((found.get("rel") or "").split()):
            self.resources.append(found.get("href") or "")


def check_site(site: Path, root: Path) -> list[str]:
    """What is broken in the built site, a line of text each.

    ``root`` is the repository, where the targets of Colab links must exist.
    """
    site = site.resolve()
    files = [path for path in sorted(site.rglob("*.html")) if "_static" not in path.relative_to(site).parts]  # templates
    pages = {path: _Page(path.read_text(encoding="utf-8")) for path in files}
    problems = [] if pages else [f"{site}: no pages"]
    for path, page in pages.items():
        name = path.relative_to(site)
        for link in page.links:
            if (colab := COLAB.match(link)) and not (root / unquote(colab[1])).is_file():
                problems.append(f"{name}: Colab link to {colab[1]}, which does not exist")
            problem = _broken(path, link, pages)
            problems += [f"{name}: {problem}"] if problem else []
        for source, alt in page.images:
            if not (alt or "").strip():
                problems.append(f"{name}: image {source} without alt text")
        for source in [*page.resources, *(source for source, _ in page.images)]:
            if urlsplit(source).netloc:
                problems.append(f"{name}: {source} is loaded from outside")
            elif problem := _broken(path, source, pages):
                problems.append(f"{name}: {problem}")
    return problems


def _broken(page: Path, link: str, pages: dict[Path, _Page]) -> str | None:
    """What is wrong with a link that stays within the site."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return None
    target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    if target.is_dir():
        target = target / "index.html"
    if not target.exists():
        return f"broken link to {link}"
    if parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
        return f"link to {link}: the page has no such anchor"
    return None
