"""A chapter's numbers in one file, apart from where they come from."""

import json
import time

import datasets
import numpy as np
import pytest

from mlprune_helpers.runs import save_results


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
    assert path == tmp_path / "new" / "03.json"
    assert stored["results"] == {
        "accuracy": {"en": 0.5, "sw": 0.3333333333},
        "curve": [0.1, 0.2],
        "n": 3,
    }
    assert stored["provenance"]["seed"] == 4
    assert stored["provenance"]["peak_memory_mb"] > 0
    assert [f.name for f in path.parent.iterdir()] == ["03.json"]


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
