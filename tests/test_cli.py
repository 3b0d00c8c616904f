"""The command ``mlprune``."""

import tomllib
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

import mlprune_helpers
from mlprune_helpers.cli import main


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLPRUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_run_executes_the_notebooks_of_the_folder(folder, capsys):
    (folder / "notebooks" / "profiles").mkdir(parents=True)
    (folder / "notebooks" / "profiles" / "default.yml").write_text("limit: 5")
    cell = new_code_cell("limit: int = 60", metadata={"tags": ["parameters"]})
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(new_notebook(cells=[cell], metadata={"kernelspec": kernel}), folder / "notebooks" / "one.ipynb")
    assert main(["run", "--build-dir", "out"]) == 0
    assert (folder / "out" / "default" / "notebooks" / "one.ipynb").is_file()
    assert "time (s)" in capsys.readouterr().out


def test_errors_are_one_message_and_exit_status_1(folder, capsys):
    assert main(["run"]) == 1
    assert "no notebook in the folder notebooks" in capsys.readouterr().err
    assert main(["run", "missing.ipynb"]) == 1
    assert "missing.ipynb" in capsys.readouterr().err


def test_clean_cache_removes_only_what_the_package_made(folder, capsys):
    for name in ("models/m", "results/r", "photos"):
        (folder / "cache" / name).mkdir(parents=True)
    assert main(["clean-cache"]) == 0
    assert [path.name for path in (folder / "cache").iterdir()] == ["photos"]
    assert capsys.readouterr().out.count("removed") == 2


@pytest.mark.slow
def test_model_prints_where_the_default_model_is(capsys):
    assert main(["model"]) == 0
    assert (Path(capsys.readouterr().out.strip()) / "model.safetensors").is_file()


def test_version_is_stated_once():
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    assert project["version"] == mlprune_helpers.__version__
