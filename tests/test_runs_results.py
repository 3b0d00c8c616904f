"""A chapter's numbers in one file, apart from where they come from."""

import json
import re
import time

import datasets
import numpy as np
import pytest

from mlprune_helpers.runs import read_results, save_results
from mlprune_helpers.runs.results import results_as_text


def test_results_are_apart_from_provenance(tmp_path):
    results = {
        "accuracy": {"en": np.float32(0.5), "sw": 1 / 3},
        "curve": np.array([0.1, 0.2]),
        "n": np.int64(3),
    }
    data = datasets.Dataset.from_dict({"x": ["a"]})
    started = time.perf_counter()
    path = save_results(
        "03",
        results,
        output_dir=tmp_path / "new",
        parameters={"seed": 4},
        data=data,
        started=started,
    )
    stored = json.loads(path.read_text())
    assert path.parent == tmp_path / "new"
    assert re.fullmatch(r"03-[0-9a-f]{8}\.json", path.name)
    assert stored["results"] == {
        "accuracy": {"en": 0.5, "sw": 0.3333333333},
        "curve": [0.1, 0.2],
        "n": 3,
    }
    assert stored["provenance"]["seed"] == 4
    assert stored["provenance"]["peak_memory_mb"] > 0
    assert list(path.parent.iterdir()) == [path]


def test_provenance_covers_all_data_that_is_given(tmp_path):
    def told(last_row: str) -> str:
        rows = {("nli", "fr"): datasets.Dataset.from_dict({"premise": ["Il pleut.", last_row]})}
        data = {"dev": datasets.Dataset.from_dict({"en": ["a"]}), "rows": rows}
        path = save_results("03", {}, output_dir=tmp_path, parameters={}, data=data)
        return json.loads(path.read_text())["provenance"]["data"]

    assert told("Il vente.") == told("Il vente.") != told("Il neige.")


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (float("nan"), ValueError, r"results\['a'\]\[1\] is nan"),
        ({1}, TypeError, r"results\['a'\]\[1\] is a set"),
    ],
)
def test_results_that_cannot_be_compared_are_refused(tmp_path, value, error, message):
    with pytest.raises(error, match=message):
        save_results("03", {"a": [1, value]}, output_dir=tmp_path, parameters={})
    assert not list(tmp_path.glob("*.json"))


def test_runs_with_other_parameters_stand_side_by_side(tmp_path):
    def save(folder: str, **parameters) -> str:
        given = {"limit": 5, "languages": ["fr"], "output_dir": folder} | parameters
        return save_results("03", {}, output_dir=tmp_path / folder, parameters=given).name

    assert save("a") == save("b") == save("a", languages=["fr"])
    assert len({save("a"), save("a", limit=6), save("a", languages=["fr", "es"])}) == 3
    assert len(list((tmp_path / "a").iterdir())) == 3


# -- many files in one table -----------------------------------------------------------------------


@pytest.fixture
def many(tmp_path):
    """Two runs of one chapter and one of another."""

    def save(name: str, results: dict, **parameters) -> None:
        save_results(name, results, output_dir=tmp_path / name, parameters=parameters)

    accuracy = {"dense": {"fr": 50.0, "sw": None}, "claims": [{"p": 0.25}, {"p": 1}], "curve": [1]}
    save(
        "04", accuracy | {"sparsity": 30.1}, sparsity=0.3, languages=["fr"], output_dir="a", seed=0
    )
    save("04", {"dense": {"fr": 51.5}}, sparsity=0.5, languages=["fr"], output_dir="b", seed=0)
    save("01", {"chrf": 40.2, "translates": True}, languages=["fr", "es"], seed=0)
    return tmp_path


def test_results_of_many_runs_are_one_table(many):
    table = read_results(many)
    assert list(table.columns[:3]) == ["chapter", "date", "sparsity"]  # nothing else was varied
    assert set(table.columns[3:]) == {
        "chrf", "translates", "dense.fr", "dense.sw", "claims[0].p", "claims[1].p",
        "results.sparsity",
    }  # fmt: skip
    by_run = table.set_index(["chapter", table["sparsity"].fillna("-")])
    assert by_run.loc[("04", "0.3"), "dense.fr"] == 50.0
    assert by_run.loc[("04", "0.3"), "results.sparsity"] == 30.1
    assert by_run.loc[("04", "0.5"), "dense.fr"] == 51.5
    assert by_run.loc[("01", "-"), "chrf"] == 40.2
    assert np.isnan(by_run.loc[("01", "-"), "dense.fr"])


def test_a_parameter_that_only_one_run_has_counts_as_varied(tmp_path):
    save_results("04", {}, output_dir=tmp_path, parameters={"seed": 0})
    save_results("04", {}, output_dir=tmp_path, parameters={"seed": 0, "limit": None})
    assert read_results(tmp_path)["limit"].fillna("-").tolist().count("None") == 1


def test_the_table_as_text_has_a_column_for_each_run(many):
    first, second = results_as_text(read_results(many)).split("\n\n")
    assert first.startswith("01\n") and "sparsity" not in first
    lines = {line.split()[0]: line.split()[1:] for line in second.splitlines()[1:]}
    assert sorted(lines["sparsity"]) == ["0.3", "0.5"]
    assert sorted(lines["dense.fr"]) == ["50", "51.5"]
    assert lines["claims[0].p"] == ["0.25"]


def test_other_files_of_a_build_folder_are_passed_over(many):
    n_columns = read_results(many).shape
    (many / "04_chapter.json").write_text('{"run": {"seconds": 1}}')  # beside an executed notebook
    (many / "html" / "_static").mkdir(parents=True)
    (many / "html" / "_static" / "languages.json").write_text("[]")
    assert read_results(many).shape == n_columns


def test_what_is_no_file_of_results_is_named(tmp_path):
    with pytest.raises(ValueError, match="There is no folder"):
        read_results(tmp_path / "missing")
    with pytest.raises(ValueError, match="There are no results"):
        read_results(tmp_path)
    damaged = tmp_path / "04-0123abcd.json"
    for text in ("{", "[]", '{"results": 1}', '{"results": {}, "provenance": {"date": "x"}}'):
        damaged.write_text(text)
        with pytest.raises(ValueError, match=r"04-0123abcd\.json is damaged, or no file"):
            read_results(tmp_path)
