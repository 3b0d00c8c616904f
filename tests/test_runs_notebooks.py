"""Notebooks executed with profiles."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from mlprune_helpers import runs
from mlprune_helpers.runs import NotebookFailed, NotebookUnreadable, run_book, run_notebook
from mlprune_helpers.runs.notebooks import build_folder
from mlprune_helpers.runs.profiles import declared_parameters

RUN = (
    "from mlprune_helpers.runs import run_notebook; "
    "run_notebook({!r}, 'out/one.ipynb', profile='small')"
)


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A folder with two small notebooks and a profile; it writes the last cell of the first."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notebooks" / "profiles").mkdir(parents=True)

    def write(
        code: str,
        name: str = "one",
        parameters: str = "limit: int = 60\noutput_dir: str = 'results'",
    ) -> str:
        cells = [
            new_markdown_cell("# Title"),
            new_code_cell(parameters, metadata={"tags": ["parameters"]}),
            new_code_cell(code),
        ]
        for i, cell in enumerate(cells):
            cell["id"] = f"cell-{i}"
        path = tmp_path / "notebooks" / f"{name}.ipynb"
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
        return str(path)

    def profile(text: str) -> None:
        (tmp_path / "notebooks" / "profiles" / "small.yml").write_text(text)

    write.profile = profile
    write("print(shots)", "two", "shots: int = 4")
    profile("limit: 5\nshots: 1\n")
    return write


def text_of(path) -> str:
    cells = nbformat.read(path, as_version=4).cells
    return "".join(output.get("text", "") for cell in cells for output in cell.get("outputs", []))


def test_book_runs_with_profile_and_then_only_what_changed(book, tmp_path):
    lock = tmp_path / "requirements.lock"
    lock.write_text("a==1")
    first = book("import os; print(limit, output_dir, os.environ['TQDM_DISABLE'], os.getcwd())")
    both = sorted((tmp_path / "notebooks").glob("*.ipynb"))
    lines = []

    done = run_book(both, "small", report=lines.append)
    folder = tmp_path / "_build" / "small" / "notebooks"
    assert text_of(folder / "one.ipynb").split() == [
        "5",
        "_build/small/results",
        "1",
        str(tmp_path),
    ]
    assert text_of(folder / "two.ipynb").split() == ["1"]
    assert [run.notebook for run in done] == ["one", "two"]
    assert all(run.seconds > 0 and run.peak_mb > 10 and not run.skipped for run in done)
    assert lines[0].startswith("one: ")
    table = [
        line.split()
        for line in runs.time_table(
            [*done, runs.Run("three", 1, 2000.4, skipped=True)]
        ).splitlines()
    ]
    assert [row[0] for row in table[1:]] == ["one", "two", "three", "all"]
    assert table[3] == ["three", "1", "2,000", "yes"]

    assert [run.skipped for run in run_book(both, "small")] == [True, True]
    book.profile("limit: 6\nshots: 1\n")
    assert [run.skipped for run in run_book(both, "small")] == [False, True]
    book("print('edited')")
    assert not run_notebook(first, folder / "one.ipynb", profile="small").skipped
    assert text_of(folder / "one.ipynb").split() == ["edited"]
    lock.write_text("a==2")
    assert not run_notebook(both[1], folder / "two.ipynb", profile="small").skipped


def test_failing_cell_is_named_and_nothing_takes_the_final_name(book, tmp_path):
    path = book("# divide\n1 / 0")
    output = tmp_path / "out" / "one.ipynb"
    with pytest.raises(
        NotebookFailed, match=r"one.ipynb, cell 3 \(# divide\): ZeroDivisionError: division by zero"
    ):
        run_notebook(path, output, profile="small")
    assert [file.name for file in output.parent.iterdir()] == ["one.failed.ipynb"]
    book("print('mended')")
    run_notebook(path, output, profile="small")
    assert sorted(file.name for file in output.parent.iterdir()) == ["one.ipynb", "one.json"]


def test_dead_kernel_is_named(book, tmp_path):
    path = book("import os; os.kill(os.getpid(), 9)")
    with pytest.raises(NotebookFailed, match=r"cell 3 .*the kernel died"):
        run_notebook(path, tmp_path / "one.ipynb", profile="small")


def test_interruption_ends_the_kernel_and_leaves_nothing(book, tmp_path):
    path = book("import time; open('started', 'w').close(); time.sleep(600)")
    # A shell that runs the tests in the background lets them inherit that SIGINT is ignored.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += RUN.format(path)
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "started").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.1)
    kernels = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in process.communicate(timeout=60)[1]
    assert not psutil.wait_procs(kernels, timeout=10)[1]
    assert not list((tmp_path / "out").iterdir())


def test_default_model_is_made_before_the_kernel_starts(book, tmp_path, monkeypatch):
    made = tmp_path / "made"
    monkeypatch.setattr("mlprune_helpers.models.loading.default_checkpoint", made.touch)
    path = book(
        f"from pathlib import Path; print(Path({str(made)!r}).exists())",
        parameters="model: str = ''",
    )
    book.profile("model: other\n")
    run_notebook(path, tmp_path / "other.ipynb", profile="small")
    book.profile("model: gemma-3-270m\n")
    run_notebook(path, tmp_path / "default.ipynb", profile="small")
    assert [text_of(tmp_path / f"{name}.ipynb").strip() for name in ("other", "default")] == [
        "False",
        "True",
    ]


def test_kernel_is_of_this_python_whatever_else_is_registered(book, tmp_path, monkeypatch):
    other = tmp_path / "other" / "kernels" / "python3"
    other.mkdir(parents=True)
    (other / "kernel.json").write_text(
        json.dumps({"argv": ["false"], "display_name": "other", "language": "python"})
    )
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "other"))
    run_notebook(book("import sys; print(sys.executable)"), tmp_path / "out.ipynb", profile="small")
    assert text_of(tmp_path / "out.ipynb").strip() == sys.executable
    assert os.environ["JUPYTER_PATH"] == str(tmp_path / "other")


def test_undeclared_parameters_are_refused(book, tmp_path):
    path = book("pass")
    with pytest.raises(
        ValueError, match=r"one.ipynb: There is no parameter 'limt'. Did you mean 'limit'\?"
    ):
        run_notebook(path, tmp_path / "one.ipynb", profile="small", parameters={"limt": 5})
    with pytest.raises(ValueError, match="no profile 'tiny'.*Profiles: small"):
        run_notebook(path, tmp_path / "one.ipynb", profile="tiny")
    book.profile("limits: 5")
    with pytest.raises(
        ValueError, match=r"small.yml: There is no parameter 'limits'. Did you mean 'limit'\?"
    ):
        run_notebook(path, tmp_path / "one.ipynb", profile="small")
    book.profile("limit: 5\nnotebooks:\n  one:\n    shots: 2\n")
    with pytest.raises(ValueError, match="There is no parameter 'shots'"):
        run_notebook(path, tmp_path / "one.ipynb", profile="small")


def test_profile_has_sections_for_single_notebooks(book, tmp_path):
    path = book("print(limit)")
    book.profile("limit: 5\nnotebooks:\n  one:\n    limit: 7\n")
    run_notebook(path, tmp_path / "out.ipynb", profile="small")
    assert text_of(tmp_path / "out.ipynb").strip() == "7"


def test_parameters_over_those_of_the_profile_leave_its_outputs_alone(book, tmp_path):
    book("print(limit, output_dir)")
    both = sorted((tmp_path / "notebooks").glob("*.ipynb"))
    run_book(both, "small")
    lines = []
    run_book(both, "small", parameters={"limit": "12"}, report=lines.append)
    own = build_folder("_build", "small", {"limit": 12})
    assert lines[0] == f"Over profile small: limit=12. Everything goes to {own}"
    assert own.parent == Path("_build") and own.name.startswith("small-")
    assert text_of(own / "notebooks" / "one.ipynb").split() == ["12", f"{own}/results"]
    assert text_of(own / "notebooks" / "two.ipynb").strip() == "1"
    assert [run.skipped for run in run_book(both, "small")] == [True, True]
    with pytest.raises(ValueError, match=r"'shts'. Did you mean 'shots'\?"):
        run_book(both, "small", parameters={"shts": 5})


def test_the_folder_depends_on_the_parameters_and_not_on_how_they_are_written():
    def folder(**parameters) -> str:
        return build_folder("out", "small", parameters).as_posix()

    assert folder() == "out/small"
    assert folder(limit="12", languages="fr,sw") == folder(languages=["fr", "sw"], limit=12)
    assert len({folder(), folder(limit=1), folder(limit=2), folder(seed=1)}) == 4


def test_a_model_to_be_converted_is_refused_before_a_kernel_starts(book, tmp_path, monkeypatch):
    monkeypatch.setattr("mlprune_helpers.runs.notebooks._execute", None)
    path = book("pass", parameters="model: str = ''")
    book.profile("model: xglm-2.9B")
    with pytest.raises(ValueError, match="mlprune convert facebook/xglm-2.9B xglm-2.9B"):
        run_notebook(path, tmp_path / "out.ipynb", profile="small")


def test_the_stamp_tells_what_the_run_took_and_where(book, tmp_path, monkeypatch):
    monkeypatch.setenv("MLPRUNE_CACHE", str(tmp_path / "cache"))
    shelf = tmp_path / "cache" / "results" / "f"
    shelf.mkdir(parents=True)
    for name in ("a.json", "b-1.npy", "b-1.files"):
        (shelf / name).touch()
    run_notebook(book("pass"), tmp_path / "out.ipynb", profile="small")
    stamp = json.loads((tmp_path / "out.json").read_text())
    assert stamp["cached_results"] == 2
    assert stamp["machine"]["cores"] in range(1, (os.cpu_count() or 1) + 1)
    assert stamp["machine"]["memory_gb"] == round(psutil.virtual_memory().total / 1e9)
    assert stamp["run"]["seconds"] > 0 and stamp["preparation_seconds"] < 1


def test_an_edited_folder_is_not_up_to_date(book, tmp_path):
    (tmp_path / "data").mkdir()
    path = book("print(source)", parameters="source: str = 'data'")
    book.profile("shots: 1")
    run = {"profile": "small", "parameters": {"source": "data"}}
    assert not run_notebook(path, tmp_path / "out.ipynb", **run).skipped
    assert run_notebook(path, tmp_path / "out.ipynb", **run).skipped
    (tmp_path / "data" / "en.txt").write_text("A sentence.")
    assert not run_notebook(path, tmp_path / "out.ipynb", **run).skipped


def test_a_stamp_beside_the_output_of_another_run_is_not_trusted(book, tmp_path):
    path, out = book("print(limit)"), tmp_path / "out.ipynb"
    run_notebook(path, out, profile="small", parameters={"limit": 1})
    stamp = out.with_suffix(".json").read_text()
    run_notebook(path, out, profile="small", parameters={"limit": 2})
    out.with_suffix(".json").write_text(stamp)  # as two runs at once may leave it
    assert not run_notebook(path, out, profile="small", parameters={"limit": 1}).skipped
    assert text_of(out).strip() == "1"
    out.with_suffix(".json").write_text(stamp[:20])  # damaged
    assert not run_notebook(path, out, profile="small", parameters={"limit": 1}).skipped


def test_two_runs_at_once_into_one_folder(book, tmp_path):
    path = book("print(limit)")
    code = RUN.format(path)
    both = [
        subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in both:
        assert process.communicate(timeout=120)[1] == ""
    assert text_of(tmp_path / "out" / "one.ipynb").strip() == "5"
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["one.ipynb", "one.json"]


# -- what notebooks declare -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "cell",
    [
        "%matplotlib inline\nlimit: int = 60",
        "!echo installed\nlimit: int = 60",
        "%%time\nlimit: int = 60",
        "%load_ext autoreload\n%autoreload 2\nlimit: int = 60",
        "files = !ls\nlimit: int = 60\nlimit?",
    ],
)
def test_commands_of_ipython_beside_the_parameters(book, cell):
    assert declared_parameters(Path(book("pass", parameters=cell))) == ["limit"]


def test_a_notebook_with_commands_runs(book, tmp_path):
    path = book("print(limit)", parameters="%matplotlib inline\nlimit: int = 60")
    run_notebook(path, tmp_path / "out.ipynb", profile="small")
    assert text_of(tmp_path / "out.ipynb").strip() == "5"


@pytest.mark.parametrize("cell", ["limit: int = ", "%%bash\necho 'a b", "limit int = 60"])
def test_a_notebook_that_cannot_be_read_is_named_and_the_others_run(book, tmp_path, cell):
    book("pass", parameters=cell)
    both = sorted((tmp_path / "notebooks").glob("*.ipynb"))
    with pytest.raises(
        NotebookUnreadable, match=r"^one.ipynb, cell 2 \(tagged parameters\), line \d+: "
    ):
        run_book(both, "small")
    assert text_of(tmp_path / "_build" / "small" / "notebooks" / "two.ipynb").strip() == "1"


def test_a_file_that_is_no_notebook_is_named(book, tmp_path):
    (tmp_path / "notebooks" / "one.ipynb").write_text("{")
    with pytest.raises(NotebookUnreadable, match="one.ipynb: not a notebook"):
        run_book([tmp_path / "notebooks" / "one.ipynb"], "small")


def test_a_task_of_ones_own_in_a_notebook(book, tmp_path):
    declare = (
        "from mlprune_helpers import TASKS, check_parameters\nTASKS['mine'] = TASKS['reviews']"
    )
    path = book(
        "globals().update(check_parameters(globals())); print(tasks)",
        parameters="tasks: list[str] = ['nli']",
    )
    notebook = nbformat.read(path, as_version=4)
    book.profile("shots: 1")
    notebook.cells.insert(1, new_code_cell(f"template = {{'a': 1}}\n{declare}"))
    nbformat.write(notebook, path)
    run_notebook(path, tmp_path / "out.ipynb", profile="small", parameters={"tasks": "mine"})
    assert text_of(tmp_path / "out.ipynb").strip() == "['mine']"


# -- profiles -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "limit: 5\nshots: 2:4",
            "line 2: 2:4 without quotes is read as 124. Write '2:4' in quotes",
        ),
        ("limit: 12:30", "line 1: 12:30 without quotes is read as 750"),
        ("limit: 1:30.5", "without quotes is read as 90.5"),
        ("limit: 010", "010 without quotes is read as 8"),
        ("limit: 2026-01-31", "2026-01-31 without quotes is read as a date"),
        ("limit: 5\nlimit: 6", "line 2: limit stands there twice"),
        ("limit: [5", "line 1"),
        ("- limit", "A profile has lines of the form: limit: 60"),
        ("limit 5", "A profile has lines of the form: limit: 60"),
        ("notebooks: {one: 5}", "A profile has lines of the form: limit: 60"),
        ("notebooks: {three: {limit: 5}}", "there is no such notebook. Notebooks: one, two"),
        ("on: 5", "There is no parameter True"),
    ],
)
def test_profiles_that_are_read_otherwise_than_written_are_refused(book, tmp_path, text, message):
    path = book("pass")
    book.profile(text)
    with pytest.raises(ValueError, match=r"small\.yml.*" + re.escape(message)):
        run_notebook(path, tmp_path / "one.ipynb", profile="small")


def test_what_yaml_reads_as_it_is_written(book, tmp_path):
    path = book(
        "print(limit, shots)", parameters="limit: float = 60\nshots: str = ''\nswitch: bool = False"
    )
    book.profile("\ufefflimit: 0.5  # a share\nshots: '2:4'\nswitch: yes\nnotebooks:\n  one:\n")
    run_notebook(path, tmp_path / "out.ipynb", profile="small")
    assert text_of(tmp_path / "out.ipynb").split() == ["0.5", "2:4"]


# -- the kernel's environment ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({}, "1000 None"),
        ({"GOMP_SPINCOUNT": "7"}, "7 None"),
        ({"OMP_WAIT_POLICY": "PASSIVE"}, "None PASSIVE"),
    ],
)
def test_waiting_threads_leave_the_cores_alone(book, tmp_path, monkeypatch, chosen, expected):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in chosen.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    path = book("import os; print(*map(os.environ.get, ['GOMP_SPINCOUNT', 'OMP_WAIT_POLICY']))")
    run_notebook(path, tmp_path / "out.ipynb", profile="small")
    assert text_of(tmp_path / "out.ipynb").strip() == expected
    assert dict(os.environ) == before
