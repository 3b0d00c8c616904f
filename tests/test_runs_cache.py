"""Cached results: found again exactly if nothing has changed that they depend on."""

import functools
import json
import os
import sys
import time
import types
from dataclasses import dataclass, replace

import datasets
import numpy as np
import pandas as pd
import pytest

from mlprune_helpers.data import LANGUAGES, TASKS, load_task
from mlprune_helpers.runs import cached, identity

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


def named_labels(*names: str) -> datasets.Dataset:
    """The same numbers, which mean something else in another order of the names."""
    features = datasets.Features({"label": datasets.ClassLabel(names=list(names))})
    return datasets.Dataset.from_dict({"label": [0, 1]}, features=features)


def make_stored(text):
    calls.append(text)
    return Stored(text)


def test_same_call_in_any_form_is_made_once():
    results = [
        cached(measure)(1),
        cached(measure)(1, 2),
        cached(measure)(b=2, a=1),
        cached(measure)(a=1, source="builtin"),
    ]
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
        (named_labels("no", "yes"), named_labels("yes", "no")),
        (np.float32(0.5), np.float64(0.5)),
        (TASKS["nli"], TASKS["xnli"]),
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
    monkeypatch.setitem(identity.CODE, "package", "edited")
    cached(measure)(1)
    assert len(calls) == 2


def test_all_that_decides_a_result_counts_as_the_package():
    names = {file.relative_to(identity.PACKAGE).as_posix() for file in identity.measuring_files()}
    assert {
        "data/templates.yml",
        "data/languages.yml",
        "scoring.py",
        "corpus/sentences/en.txt",
    } <= names
    assert not {"plots.py", "runs/cache.py"} & names


# -- what names stand for ------------------------------------------------------------------------


def ask(task, language="fr", method="wanda"):
    calls.append((task, language, method))
    return len(calls)


def test_an_edited_task_is_evaluated_again(monkeypatch):
    template = {"prompt": "{text} It is", "choices": [" bad", " good"]}
    mine = replace(TASKS["reviews"], templates={"paper": template})
    monkeypatch.setitem(TASKS, "mine", mine)
    assert [cached(ask)("mine"), cached(ask)("mine"), cached(ask)("nli")] == [1, 1, 2]
    monkeypatch.setitem(template, "prompt", "{text} So it is")  # in place
    if TASKS["mine"].templates["paper"] is not template:
        monkeypatch.setitem(TASKS, "mine", replace(mine, templates={"paper": template}))
    assert [cached(ask)("mine"), cached(ask)("nli")] == [3, 2]


def test_a_tasks_functions_count_by_what_they_do(monkeypatch):
    for factor, expected in [(1, 1), (2, 2), (1, 1)]:
        declared = replace(TASKS["reviews"], group=lambda i, row, factor=factor: i // factor)
        monkeypatch.setitem(TASKS, "mine", declared)
        assert cached(ask)("mine") == expected
    monkeypatch.setitem(TASKS, "mine", replace(declared, group=lambda i, row: row["id"]))
    assert cached(ask)("mine") == 3


def test_a_registered_method_counts_by_what_it_does(monkeypatch):
    registry = {"mine": lambda weight: weight.abs()}
    monkeypatch.setitem(
        sys.modules, "mlprune_helpers.pruning.methods", types.SimpleNamespace(METHODS=registry)
    )
    assert [cached(ask)("nli", method="mine"), cached(ask)("nli", method="mine")] == [1, 1]
    registry["mine"] = lambda weight: -weight.abs()
    assert cached(ask)("nli", method="mine") == 2


def test_a_table_that_a_registered_function_looks_up_counts(monkeypatch):
    table = {"weight": 1}
    registry = {"mine": functools.partial(lambda weight, power: weight * table["weight"], power=2)}
    methods = types.SimpleNamespace(METHODS=registry)
    monkeypatch.setitem(sys.modules, "mlprune_helpers.pruning.methods", methods)
    assert [cached(ask)("nli", method="mine"), cached(ask)("nli", method="mine")] == [1, 1]
    table["weight"] = 2
    assert cached(ask)("nli", method="mine") == 2


def test_another_name_of_a_language_counts(monkeypatch):
    assert cached(ask)("nli", "fr") == 1
    monkeypatch.setitem(LANGUAGES, "fr", "Français")
    assert cached(ask)("nli", "fr") == 2


# -- functions of one's own -----------------------------------------------------------------------


def defined(source: str, name: str = "own"):
    """A function as a notebook has it: not in a file."""
    namespace = {"__name__": "__main__", "calls": calls}
    exec(source, namespace)
    return namespace[name]


OWN = """
def helper(x):
    return {body}

def own(x):
    calls.append(x)
    return helper(x) + SHIFT

SHIFT = {shift}
"""


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        ({"body": "x * 2  # a comment"}, 1),
        ({"body": "x * 3"}, 2),
        ({"shift": 1}, 2),
    ],
)
def test_a_function_counts_with_the_functions_and_numbers_that_it_uses(edit, expected):
    before = {"body": "x * 2", "shift": 0}
    cached(defined(OWN.format(**before)))(5)
    cached(defined(OWN.format(**before)))(5)
    cached(defined(OWN.format(**before | edit)))(5)
    assert len(calls) == expected


def test_a_function_counts_with_the_model_that_it_closes_over():
    def made(lm):
        def own(x):
            calls.append(x)
            return lm.fingerprint

        return own

    dense, sparse = made(Model("dense")), made(Model("pruned"))
    assert [cached(dense)(1), cached(sparse)(1), cached(dense)(1)] == ["dense", "pruned", "dense"]
    assert len(calls) == 2


@pytest.mark.parametrize("default", [3, "'a'", "(1, 2)", "None"])
def test_a_default_of_a_helper_counts(default):
    helper = "def helper(x, by={}):\n    return [x, by]\n"
    source = helper + "def own(x):\n    calls.append(x)\n    return helper(x)"
    for given in ("None", default, default):
        cached(defined(source.format(given)))(5)
    assert len(calls) == (1 if default == "None" else 2)


def test_a_function_that_calls_itself():
    source = "def own(x):\n    calls.append(x)\n    return 1 if x == 0 else x * own(x - 1)"
    assert [cached(defined(source))(4), cached(defined(source))(4)] == [24, 24]
    assert calls == [4, 3, 2, 1, 0]


# -- files -----------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """A folder with the task `xnli` in French."""
    (tmp_path / "data" / "xnli").mkdir(parents=True)
    write_rows(tmp_path / "data" / "xnli" / "test.fr.jsonl", "Il pleut.")
    return tmp_path / "data"


def write_rows(file, premise):
    row = {"premise": premise, "hypothesis": "Il fait froid.", "label": 1}
    file.write_text(
        "\n".join(json.dumps(row | {"label": label}) for label in (0, 1, 2)), encoding="utf-8"
    )


def first_premise(source, language="fr"):
    calls.append(source)
    return load_task("xnli", language, source)["premise"][0]


def test_only_the_files_that_were_read_count(folder):
    assert cached(first_premise)(str(folder)) == "Il pleut."
    (folder / "notes.txt").write_text("unrelated")
    write_rows(folder / "xnli" / "test.es.jsonl", "Llueve.")
    assert cached(first_premise)(str(folder)) == "Il pleut."
    assert len(calls) == 1
    write_rows(folder / "xnli" / "test.fr.jsonl", "Il neige.")
    assert cached(first_premise)(str(folder)) == "Il neige."
    assert len(calls) == 2


def test_files_that_do_not_count_are_not_read(folder, monkeypatch):
    cached(first_premise)(str(folder))
    big = folder / "big.bin"
    big.write_text("pretend that it is large")
    hashed = []
    monkeypatch.setattr(
        "mlprune_helpers.runs.cache.digest_of_file", lambda path: hashed.append(path.name) or ""
    )
    cached(first_premise)(str(folder))
    assert set(hashed) == {"test.fr.jsonl"}


def test_a_new_file_that_is_read_instead_counts(folder):
    assert cached(first_premise)(str(folder)) == "Il pleut."
    write_rows(folder / "xnli" / "validation.fr.jsonl", "Il vente.")  # the default split of xnli
    assert cached(first_premise)(str(folder)) == "Il vente."
    (folder / "xnli" / "validation.fr.jsonl").unlink()
    assert cached(first_premise)(str(folder)) == "Il pleut."
    assert len(calls) == 2, "the first result is valid again"


def test_the_same_files_elsewhere_have_the_same_result(folder):
    cached(first_premise)(str(folder))
    folder.rename(folder.with_name("moved"))
    assert cached(first_premise)(str(folder.with_name("moved"))) == "Il pleut."
    assert len(calls) == 1


def test_files_count_also_through_a_cached_result_in_between(folder):
    def outer(x):
        calls.append(x)
        return cached(first_premise)(str(folder))

    cached(first_premise)(str(folder))  # so that the next line reads no file
    assert cached(outer)(1) == "Il pleut."
    write_rows(folder / "xnli" / "test.fr.jsonl", "Il neige.")
    assert cached(outer)(1) == "Il neige."


def test_a_file_that_changes_while_it_is_read_gives_no_lasting_result(folder):
    def slow(source):
        read = first_premise(source)
        time.sleep(0.05)
        write_rows(folder / "xnli" / "test.fr.jsonl", "Il neige.")
        return read

    assert cached(slow)(str(folder)) == "Il pleut."
    assert cached(slow)(str(folder)) == "Il neige."


def test_a_language_as_source_is_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for language in ("fr", "sw"):
        (tmp_path / language).mkdir()
        cached(measure)(1, source=language)
    assert len(calls) == 2


# -- results ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [object(), {1, 2}, np.array([object()]), print])
def test_arguments_without_comparable_content_are_refused(value):
    with pytest.raises(TypeError, match="cannot be compared by content"):
        cached(measure)(value)


@pytest.mark.parametrize(
    "value",
    [None, 3, "text", [1, {"a": [0.1]}], np.arange(6.0).reshape(2, 3), np.array(["a", "b"])],
)
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
