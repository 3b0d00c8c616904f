"""The command ``mlprune``."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
import torch
from nbformat.v4 import new_code_cell, new_notebook

import mlprune_helpers
from mlprune_helpers import load_model, save_results
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
    nbformat.write(
        new_notebook(cells=[cell], metadata={"kernelspec": kernel}),
        folder / "notebooks" / "one.ipynb",
    )
    assert main(["run", "--build-dir", "out"]) == 0
    assert (folder / "out" / "default" / "notebooks" / "one.ipynb").is_file()
    assert "time (s)" in capsys.readouterr().out


def test_parameters_of_the_command_line(folder, capsys):
    (folder / "notebooks" / "profiles").mkdir(parents=True)
    (folder / "notebooks" / "profiles" / "default.yml").write_text("limit: 5")
    cells = [
        new_code_cell("limit: int = 60\nsparsity: float = 0.3", metadata={"tags": ["parameters"]}),
        new_code_cell(
            "from mlprune_helpers import check_parameters\nprint(check_parameters(globals()))"
        ),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(
        new_notebook(cells=cells, metadata={"kernelspec": kernel}),
        folder / "notebooks" / "one.ipynb",
    )
    assert main(["run", "-p", "limit=12", "--parameter", "sparsity = 2:4"]) == 0
    (path,) = folder.glob("_build/default-*/notebooks/one.ipynb")
    assert f"Everything goes to {path.parents[1].relative_to(folder)}" in capsys.readouterr().out
    executed = nbformat.read(path, as_version=4)
    assert executed.cells[-1].outputs[0].text.strip() == "{'limit': 12, 'sparsity': '2:4'}"
    assert main(["run", "-p", "limt=12"]) == 1
    assert "Did you mean 'limit'?" in capsys.readouterr().err


@pytest.mark.parametrize("given", ["limit", "=5", "1x=5"])
def test_parameters_that_cannot_be_read(folder, capsys, given):
    with pytest.raises(SystemExit, match="2"):
        main(["run", "-p", given])
    assert "is not of the form NAME=VALUE" in capsys.readouterr().err


def test_help_imports_no_torch(folder):
    code = (
        "import sys; from mlprune_helpers.cli import main\n"
        "try: main(['run', '--help'])\nexcept SystemExit: print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "NAME=VALUE" in done.stdout and done.stdout.endswith("False\n")


def test_threads_of_the_command_line_wait_without_spinning(folder, monkeypatch):
    monkeypatch.setenv("GOMP_SPINCOUNT", "to be restored")
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    main(["clean-cache"])
    assert os.environ["GOMP_SPINCOUNT"] == "1000"


def test_errors_are_one_message_and_exit_status_1(folder, capsys):
    assert main(["run"]) == 1
    assert "no notebook in the folder notebooks" in capsys.readouterr().err
    assert main(["run", "missing.ipynb"]) == 1
    assert "missing.ipynb" in capsys.readouterr().err


def test_results_are_printed_side_by_side(folder, capsys):
    for limit in (5, 6):
        parameters = {"limit": limit, "seed": 0}
        save_results("04", {"accuracy": limit / 10}, output_dir="out", parameters=parameters)
    assert main(["results", "out"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (limit, *limits), (name, *accuracies) = (line.split() for line in lines[-2:])
    assert (lines[0], limit, name) == ("04", "limit", "accuracy")
    assert dict(zip(limits, accuracies)) == {"5": "0.5", "6": "0.6"}
    assert main(["results", "out", "--csv"]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header == "chapter,date,limit,accuracy" and len(rows) == 2
    assert main(["results", "missing"]) == 1
    assert "no folder missing" in capsys.readouterr().err


def test_convert_writes_an_ordinary_checkpoint(folder, folder_of, load, capsys):
    shutil.copytree(folder_of("xglm"), "pickled")
    Path("pickled/model.safetensors").unlink()
    torch.save(load("xglm").model.state_dict(), "pickled/pytorch_model.bin")
    command = ["convert", "pickled", "converted", "--revision", "a" * 40]
    assert main(command) == 0
    assert capsys.readouterr().out.strip() == "converted"
    assert load_model("converted").fingerprint == load("xglm").fingerprint
    assert main(command) == 1
    assert "converted exists already" in capsys.readouterr().err


def test_convert_needs_a_pinned_revision(folder, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["convert", "facebook/xglm-2.9B", "out"])
    assert main(["convert", "facebook/xglm-2.9B", "out", "--revision", "main"]) == 1
    assert "40 hex digits of a commit" in capsys.readouterr().err


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
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())[
        "project"
    ]
    assert project["version"] == mlprune_helpers.__version__
