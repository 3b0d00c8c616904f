"""The page of architectures names every specimen of the zoo once, and counts them right."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import transformers
import yaml
import zoo

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "book" / "architectures.md").read_text(encoding="utf-8")
VERSION = re.search(r"`transformers` ([\d.]+\d)", PAGE).group(1)

of_this_version = pytest.mark.skipif(
    transformers.__version__ != VERSION, reason="other versions have other model types"
)


def names(title: str) -> list[str]:
    """What a section lists in backticks; prose after the lists may repeat it."""
    section = PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("`") and line.endswith("`.")]
    cells = [line.split("|")[3] for line in section.splitlines() if line.startswith("| ")]
    return re.findall(r"`([^`]+)`", "\n".join(lines + cells))


def test_the_page_is_of_the_locked_version():
    assert f"\ntransformers=={VERSION} " in (ROOT / "requirements.lock").read_text()


@of_this_version
def test_every_specimen_is_listed_once():
    listed = names("Computed exactly") + names("Refused")
    assert sorted(listed) == sorted(specimen.name for specimen in zoo.SPECIMENS)


def test_the_counts_are_those_of_the_lists():
    told = re.search(r"There are (\d+) of them: (\d+) are exact, (\d+) are refused", PAGE)
    exact, refused = len(names("Computed exactly")), len(names("Refused"))
    assert tuple(map(int, told.groups())) == (exact + refused, exact, refused)


def test_what_cannot_be_built_is_named():
    section = PAGE.partition("\n## Not in the zoo\n")[2].partition("\n## ")[0]
    assert set(re.findall(r"`([^`]+)`", section)) == set(zoo.UNBUILDABLE)


def test_the_page_is_in_the_book():
    parts = yaml.safe_load((ROOT / "_toc.yml").read_text())["parts"]
    assert {"file": "book/architectures"} in [page for part in parts for page in part["chapters"]]
