"""What holds the project together: pins, hooks, workflows, the API page, what is packaged."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version
from pre_commit.clientlib import load_config

from mlprune_helpers import plots

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MAKEFILE = (ROOT / "Makefile").read_text()
PACKAGE = ROOT / "mlprune_helpers"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


# Pins.


def requirements() -> list[Requirement]:
    project = PYPROJECT["project"]
    extras = project["optional-dependencies"].values()
    return [Requirement(line) for line in sum(extras, project["dependencies"])]


def pins() -> dict[str, list[Version]]:
    """Of the lock, and torch's of the Makefile; some packages have one for each Python."""
    lines = (ROOT / "requirements.lock").read_text() + MAKEFILE
    found: dict[str, list[Version]] = {}
    for name, version in re.findall(r"^(?:TORCH := )?([\w.-]+)==(\S+)", lines, re.MULTILINE):
        found.setdefault(name, []).append(Version(version))
    return found


@pytest.mark.parametrize("requirement", requirements(), ids=str)
def test_the_lock_is_within_the_bounds(requirement):
    versions = pins()[requirement.name.lower()]
    assert all(requirement.specifier.contains(version) for version in versions), versions


def test_torch_is_pinned_alike_everywhere():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())
    (apart,) = (entry["pip"] for entry in conda["dependencies"] if isinstance(entry, dict))
    metadata = PYPROJECT["tool"]["uv"]["dependency-metadata"]
    pinned = f"torch=={pins()['torch'][0]}"
    assert apart == [pinned]
    assert pinned in PYPROJECT["tool"]["uv"]["constraint-dependencies"]
    assert [f"{package['name']}=={package['version']}" for package in metadata] == [pinned]


# Checks before a commit and in continuous integration.


def commands(target: str) -> list[str]:
    """The lines below a target of the Makefile, its prerequisites' first."""
    needs, lines = re.search(rf"^{target}:(.*)\n((?:\t.*\n)*)", MAKEFILE, re.MULTILINE).groups()
    before = [line for need in needs.split() if need.isidentifier() for line in commands(need)]
    return before + [
        line.strip().replace("$(VENV)", ".venv/bin/python") for line in lines.splitlines()
    ]


def test_hooks_run_what_make_test_runs():
    (repository,) = load_config(ROOT / ".pre-commit-config.yaml")["repos"]
    *checks, notebooks = [hook["entry"] for hook in repository["hooks"]]
    assert [*checks, ".venv/bin/python -m pytest"] == commands("test")
    assert commands("test-fast") == [*checks, '.venv/bin/python -m pytest -m "not slow"']
    assert notebooks.startswith(".venv/bin/python -m pytest ")
    assert repository["repo"] == "local"


def test_the_notebooks_hook_selects_a_test():
    (repository,) = load_config(ROOT / ".pre-commit-config.yaml")["repos"]
    selected, folder = re.search(r"-k (\w+) (\S+)$", repository["hooks"][-1]["entry"]).groups()
    tests = (ROOT / folder / "test_notebooks.py").read_text()
    assert len(re.findall(rf"^def test_\w*{selected}\w*\(", tests, re.MULTILINE)) == 1


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_to_commits(path):
    for action in re.findall(r"uses: (.*)", path.read_text()):
        assert action.startswith("./") or re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v[\d.]+", action)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_may_read_and_no_more(path):
    assert yaml.safe_load(path.read_text())["permissions"] == {"contents": "read"}


def test_the_oldest_python_is_tested_in_full_and_the_newest_fast():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text())["jobs"]
    locked = {
        entry["python"]: entry["command"] for entry in jobs["test"]["strategy"]["matrix"]["include"]
    }
    oldest, newest = re.search(r"Python (3\.\d+) to (3\.\d+)", MAKEFILE).groups()
    assert locked == {oldest: "bash .ci/run", newest: "make test-fast"}
    assert PYPROJECT["project"]["requires-python"] == f">={oldest}"


# The package's face.


def public_names() -> dict[str, list[str]]:
    """Of each room, from ``__init__.pyi``; of ``plots``, called by its own name, all functions."""
    face = ast.parse((PACKAGE / "__init__.pyi").read_text()).body
    rooms = [node for node in face if isinstance(node, ast.ImportFrom) and node.module]
    names: dict[str, list[str]] = {"plots": [name for name in vars(plots) if is_own_function(name)]}
    for room in rooms:
        names.setdefault(room.module, []).extend(alias.name for alias in room.names)
    return names


def is_own_function(name: str) -> bool:
    return (
        not name.startswith("_") and getattr(vars(plots)[name], "__module__", "") == plots.__name__
    )


def test_the_api_page_has_each_public_name_below_its_room():
    page = (ROOT / "book" / "api.md").read_text()
    listed = re.findall(r"automodule:: mlprune_helpers\.([\w.]+)\n +:members: (.*)", page)
    assert {room: sorted(members.split(", ")) for room, members in listed} == {
        room: sorted(names) for room, names in public_names().items()
    }


def test_the_api_page_builds_without_a_warning(tmp_path):
    """As in the site (book/build.py), but alone: Sphinx understands every docstring."""
    shutil.copytree(ROOT / "book", tmp_path / "book", ignore=shutil.ignore_patterns("*.py"))
    shutil.copy(ROOT / "_config.yml", tmp_path)
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: book/api\n")
    jupyter_book = Path(sys.executable).with_name("jupyter-book")
    command = [jupyter_book, "build", str(tmp_path), "-W", "--keep-going", "--quiet"]
    done = subprocess.run(command, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert "load_model" in (tmp_path / "_build" / "html" / "book" / "api.html").read_text()


def test_the_wheel_has_every_file_of_the_package(tmp_path):
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, tmp_path / PACKAGE.name, ignore=ignored)
    files = {
        path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("mlprune_helpers/**/*.*")
    }
    build = "from setuptools import build_meta; build_meta.build_wheel('.')"
    subprocess.run([sys.executable, "-c", build], cwd=tmp_path, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert files <= set(zipfile.ZipFile(wheel).namelist())
