"""Parameters, cached results, stored results, and notebooks executed with profiles."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

import datasets
import nbformat
import numpy as np
import pandas as pd
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from mlprune_helpers import runs
from mlprune_helpers.runs import (
    NotebookFailed,
    cached,
    check_parameters,
    run_book,
    run_notebook,
    save_results,
)

# -- parameters ---------------------------------------------------------------------------------------------------


def checked(declared: str, injected: str = "") -> dict:
    namespace = {"In": ["", declared], "Out": {}, "exit": object()}
    exec(compile(declared, "parameters", "exec", dont_inherit=True), namespace)
    exec(injected, namespace)
    return check_parameters(namespace)


def test_declared_values_pass_unchanged():
    declared = 'languages: list[str] = ["en", "fr"]\nlimit: int = 60\nsparsity: float = 0.3\nsource: str = "builtin"'
    assert checked(declared) == {"languages": ["en", "fr"], "limit": 60, "sparsity": 0.3, "source": "builtin"}


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("languages", '["fr","sw"]', ["fr", "sw"]),
        ("languages", "['fr', 'sw']", ["fr", "sw"]),
        ("languages", "fr,sw", ["fr", "sw"]),
        ("languages", ("fr", "sw"), ["fr", "sw"]),
        ("limit", "12", 12),
        ("limit", None, None),
        ("limit", "none", None),
        ("sparsity", "0.5", 0.5),
        ("sparsity", 0, 0.0),
        ("sparsity", "2:4", "2:4"),
        ("own_list", "0.1, 0.3", [0.1, 0.3]),
        ("own_switch", "true", True),
        ("own_number", "3", 3.0),
        ("own_layers", "1, 2", [1, 2]),
        ("own_layers", "none", None),
    ],
)
def test_values_get_their_type(name, given, expected):
    kinds = {"languages": "list[str]", "own_list": "list[float]", "own_switch": "bool", "own_number": "float"}
    kinds["own_layers"] = "list[int] | None"
    result = checked(f"{name}: {kinds.get(name, 'int')} = 1", f"{name} = {given!r}")[name]
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("model", ""),
        ("languages", []),
        ("languages", ["en", "en"]),
        ("languages", ["en", "xx"]),
        ("languages", 3),
        ("languages", ["en"]),
        ("source", "no/such/folder"),
        ("n_prompts", 1),
        ("shots", 0),
        ("limit", 0),
        ("limit", "many"),
        ("limit", True),
        ("limit", 2.5),
        ("sparsity", 1.0),
        ("sparsity", -0.1),
        ("sparsity", float("nan")),
        ("sparsity", "4:2"),
        ("sparsity", "half"),
        ("seed", -1),
        ("output_dir", 7),
        ("own", "text"),
    ],
)
def test_wrong_values_are_refused_by_name(name, wrong):
    with pytest.raises(ValueError, match=rf"^{name} is .*Allowed: ."):
        checked(f"{name}: int = 1", f"{name} = wrong".replace("wrong", repr(wrong).replace("nan", "float('nan')")))


def test_misspelt_name_is_refused_with_the_closest():
    with pytest.raises(ValueError, match=r"'sparcity'.*Did you mean 'sparsity'\?.*limit, sparsity"):
        checked("limit: int = 60\nsparsity: float = 0.3", "sparcity = 0.5")


def test_second_check_in_a_live_notebook_ignores_its_variables():
    namespace = {}
    exec(compile("limit: int = 60", "parameters", "exec", dont_inherit=True), namespace)
    check_parameters(namespace)
    namespace |= {"accuracy": 0.5, "limit": "70"}
    assert check_parameters(namespace) == {"limit": 70}


def test_annotations_of_python_3_14():
    namespace = {"limit": "7", "__annotate__": lambda form: {1: {"limit": int}}[form], "__annotations__": {}}
    assert check_parameters(namespace) == {"limit": 7}


def test_import_needs_nothing_that_executes_notebooks():
    code = "import mlprune_helpers, sys; print({'papermill', 'nbformat', 'nbclient', 'dask', 'lingua'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"


# -- cached results -----------------------------------------------------------------------------------------------

calls = []


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MLPRUNE_CACHE", str(tmp_path / "cache"))
    calls.clear()


def measure(a, b=2, *, source="builtin"):
    calls.append((a, b, source))
    return {"numbers": [1.5, 2], "text": "été"}


def echo(value):
    calls.append(value)
    return value


@dataclass
class Model:
    fingerprint: str


@dataclass
class Stored:
    text: str

    def save(self, path):
        path.write_text(self.text)

    @classmethod
    def load(cls, path):
        return cls(path.read_text())


def make_stored(text):
    calls.append(text)
    return Stored(text)


def test_same_call_in_any_form_is_made_once():
    results = [cached(measure)(1), cached(measure)(1, 2), cached(measure)(b=2, a=1), cached(measure)(a=1, source="builtin")]
    assert results == [{"numbers": [1.5, 2], "text": "été"}] * 4
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0),
        (1, True),
        (1, "1"),
        (Model("dense"), Model("pruned")),
        ([1, 2], [2, 1]),
        ({"a": 1}, {"a": 2}),
        (np.zeros(3), np.zeros(3, dtype="float32")),
        (np.zeros((2, 3)), np.zeros((3, 2))),
        (pd.DataFrame({"x": [1, 2]}), pd.DataFrame({"x": [1, 3]})),
        (pd.DataFrame({"x": [1, 2]}), pd.DataFrame({"y": [1, 2]})),
        (datasets.Dataset.from_dict({"x": ["a"]}), datasets.Dataset.from_dict({"x": ["b"]})),
    ],
)
def test_different_arguments_do_not_share_a_result(one, other):
    cached(measure)(one)
    cached(measure)(other)
    cached(measure)(one)
    assert len(calls) == 2


def test_a_folder_as_source_counts_by_content(tmp_path):
    (tmp_path / "data").mkdir()
    file = tmp_path / "data" / "en.txt"
    file.write_text("one")
    cached(measure)(1, source=str(tmp_path / "data"))
    file.write_text("two")
    cached(measure)(1, source=str(tmp_path / "data"))
    assert len(calls) == 2


def test_changed_package_is_measured_again(monkeypatch):
    cached(measure)(1)
    monkeypatch.setitem(runs._CODE, "package", "edited")
    cached(measure)(1)
    assert len(calls) == 2


def test_all_that_decides_a_result_counts_as_the_package():
    names = {file.name for file in runs._package_files("plots")}
    assert {"templates.yml", "languages.yml", "scoring.py", "en.txt"} <= names and "plots.py" not in names


@pytest.mark.parametrize("value", [object(), {1, 2}, np.array([object()]), print])
def test_arguments_without_comparable_content_are_refused(value):
    with pytest.raises(TypeError, match="cannot be compared by content"):
        cached(measure)(value)


@pytest.mark.parametrize("value", [None, 3, "text", [1, {"a": [0.1]}], np.arange(6.0).reshape(2, 3), np.array(["a", "b"])])
def test_results_come_back_as_they_were(value):
    for _ in range(2):
        result = cached(echo)(value)
        assert type(result) is type(value)
        assert np.array_equal(result, value) if isinstance(value, np.ndarray) else result == value
    assert len(calls) == 1


def test_data_frames_and_objects_that_save_themselves_come_back():
    frame = pd.DataFrame({"language": ["en", "sw"], "accuracy": [0.5, 0.25]})
    for _ in range(2):
        pd.testing.assert_frame_equal(cached(echo)(frame), frame)
        assert cached(make_stored)("abc") == Stored("abc")
    assert len(calls) == 2


def test_other_results_are_refused_and_leave_nothing(tmp_path):
    with pytest.raises(TypeError, match="set cannot be cached"):
        cached(lambda: {1})()
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


def test_damaged_result_is_computed_again(tmp_path):
    cached(measure)(1)
    (file,) = (file for file in tmp_path.rglob("*") if file.is_file())
    file.write_text('{"numbers": [1.5')
    assert cached(measure)(1)["numbers"] == [1.5, 2]
    assert len(calls) == 2
    assert json.loads(file.read_text())["numbers"] == [1.5, 2]


def test_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "replace", lambda *paths: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        cached(measure)(1)
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


# -- stored results -----------------------------------------------------------------------------------------------


def test_results_are_apart_from_provenance(tmp_path):
    results = {"accuracy": {"en": np.float32(0.5), "sw": 1 / 3}, "curve": np.array([0.1, 0.2]), "n": np.int64(3)}
    data = datasets.Dataset.from_dict({"x": ["a"]})
    started = time.perf_counter()
    path = save_results("03", results, output_dir=tmp_path / "new", parameters={"seed": 4}, data=data, started=started)
    stored = json.loads(path.read_text())
    assert path == tmp_path / "new" / "03.json"
    assert stored["results"] == {"accuracy": {"en": 0.5, "sw": 0.3333333333}, "curve": [0.1, 0.2], "n": 3}
    assert stored["provenance"]["seed"] == 4
    assert stored["provenance"]["peak_memory_mb"] > 0
    assert [f.name for f in path.parent.iterdir()] == ["03.json"]


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [(float("nan"), ValueError, r"results\['a'\]\[1\] is nan"), ({1}, TypeError, r"results\['a'\]\[1\] is a set")],
)
def test_results_that_cannot_be_compared_are_refused(tmp_path, value, error, message):
    with pytest.raises(error, match=message):
        save_results("03", {"a": [1, value]}, output_dir=tmp_path, parameters={})
    assert not list(tmp_path.glob("*.json"))


# -- executing notebooks ------------------------------------------------------------------------------------------


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A folder with two small notebooks and a profile; ``write`` replaces the last cell of the first."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notebooks" / "profiles").mkdir(parents=True)

    def write(code: str, name: str = "one", parameters: str = "limit: int = 60\noutput_dir: str = 'results'") -> str:
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
    assert text_of(folder / "one.ipynb").split() == ["5", "_build/small/results", "1", str(tmp_path)]
    assert text_of(folder / "two.ipynb").split() == ["1"]
    assert [run.notebook for run in done] == ["one", "two"]
    assert all(run.seconds > 0 and run.peak_mb > 10 and not run.skipped for run in done)
    assert lines[0].startswith("one: ")
    table = [line.split() for line in runs.time_table([*done, runs.Run("three", 1, 2000.4, skipped=True)]).splitlines()]
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
    with pytest.raises(NotebookFailed, match=r"one.ipynb, cell 3 \(# divide\): ZeroDivisionError: division by zero"):
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
    code += f"from mlprune_helpers.runs import run_notebook; run_notebook({path!r}, 'out/one.ipynb', profile='small')"
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
    monkeypatch.setattr("mlprune_helpers.runs.default_checkpoint", made.touch)
    path = book(f"from pathlib import Path; print(Path({str(made)!r}).exists())", parameters="model: str = ''")
    book.profile("model: other\n")
    run_notebook(path, tmp_path / "other.ipynb", profile="small")
    book.profile("model: gemma-3-270m\n")
    run_notebook(path, tmp_path / "default.ipynb", profile="small")
    assert [text_of(tmp_path / f"{name}.ipynb").strip() for name in ("other", "default")] == ["False", "True"]


def test_kernel_is_of_this_python_whatever_else_is_registered(book, tmp_path, monkeypatch):
    other = tmp_path / "other" / "kernels" / "python3"
    other.mkdir(parents=True)
    (other / "kernel.json").write_text(json.dumps({"argv": ["false"], "display_name": "other", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "other"))
    run_notebook(book("import sys; print(sys.executable)"), tmp_path / "out.ipynb", profile="small")
    assert text_of(tmp_path / "out.ipynb").strip() == sys.executable
    assert os.environ["JUPYTER_PATH"] == str(tmp_path / "other")


def test_undeclared_parameters_are_refused(book, tmp_path):
    path = book("pass")
    with pytest.raises(ValueError, match=r"one.ipynb: There is no parameter 'limt'. Did you mean 'limit'\?"):
        run_notebook(path, tmp_path / "one.ipynb", profile="small", parameters={"limt": 5})
    with pytest.raises(ValueError, match="no profile 'tiny'.*Profiles: small"):
        run_notebook(path, tmp_path / "one.ipynb", profile="tiny")
    book.profile("limits: 5")
    with pytest.raises(ValueError, match=r"small.yml: There is no parameter 'limits'. Did you mean 'limit'\?"):
        run_notebook(path, tmp_path / "one.ipynb", profile="small")
    book.profile("limit: 5\nnotebooks:\n  one:\n    shots: 2\n")
    with pytest.raises(ValueError, match="There is no parameter 'shots'"):
        run_notebook(path, tmp_path / "one.ipynb", profile="small")


def test_profile_has_sections_for_single_notebooks(book, tmp_path):
    path = book("print(limit)")
    book.profile("limit: 5\nnotebooks:\n  one:\n    limit: 7\n")
    run_notebook(path, tmp_path / "out.ipynb", profile="small")
    assert text_of(tmp_path / "out.ipynb").strip() == "7"
