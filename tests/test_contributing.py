"""The recipes of CONTRIBUTING.md run as they are printed."""

import json
import re
from pathlib import Path

import nbformat
import pytest
import zoo
from conftest import SENTENCES, make_tokenizer
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

import mlprune_helpers as mh
from mlprune_helpers.runs.profiles import declared_parameters

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def blocks(title):
    """The Python blocks of a recipe."""
    (section,) = re.findall(rf"\n## {title}\n(.*?)(?=\n## |\Z)", TEXT, flags=re.DOTALL)
    found = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
    assert found
    return found


@pytest.fixture
def run(one_lm, tmp_path):
    """A function: title of a recipe → the names that its blocks leave."""
    registries = (mh.TASKS, mh.METHODS, mh.STATISTICS)
    before = [dict(registry) for registry in registries]
    names = {name: getattr(mh, name) for name in mh.__all__}
    names |= {"lm": one_lm, "prompts": SENTENCES[:3], "folder": tmp_path, "zoo": zoo}
    names |= {
        "make_tokenizer": make_tokenizer,
        "json": json,
        "nbformat": nbformat,
        "new_notebook": new_notebook,
    }
    names |= {"new_code_cell": new_code_cell, "new_markdown_cell": new_markdown_cell}

    def run_blocks(title):
        for block in blocks(title):
            exec(block, names)
        return names

    yield run_blocks
    for registry, content in zip(registries, before):
        registry.clear()
        registry.update(content)


def test_add_a_score(run, one_lm):
    report = run("Add a score")["report"]
    assert report.method == "centred"
    assert report.pruned_fraction == pytest.approx(0.3, abs=0.03)


def test_add_a_task(run, one_lm, tmp_path):
    run("Add a task")
    result = mh.evaluate(one_lm, "food", "en", tmp_path)
    assert result.labels.tolist() == [1, 0] and result.scores.shape == (2, 2)
    namespace = {"tasks": ["food"], "__annotations__": {"tasks": list[str]}}
    assert mh.check_parameters(namespace)["tasks"] == ["food"]  # legal in every chapter


def test_add_a_language(run):
    run("Add a language")


def test_add_an_architecture(run):
    run("Add an architecture")


def test_add_a_chapter(run, tmp_path):
    run("Add a chapter")
    declared = declared_parameters(tmp_path / "11_mine.ipynb")
    assert list(declared) == ["model", "languages", "seed"]


def test_every_path_exists():
    paths = re.findall(r"`([\w./]+/[\w./]+|\w+\.(?:md|toml|yml))`", TEXT)
    assert len(paths) > 20
    for path in paths:
        if not path.startswith((".venv/", "FOLDER/", "runs/")):
            assert (ROOT / path).exists(), path
