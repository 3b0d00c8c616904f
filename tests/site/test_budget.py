"""The page on time and memory says what was measured."""

import dataclasses
import json
import re

import pytest
from budget import Budget, Measured, measured

MACHINE = {"cores": 2, "memory_gb": 8, "system": "Linux x86_64"}
FAST = Measured("00_first", 59.6, 1510.0, 80.0, 0, "2026-01-31T10:00:00+00:00", MACHINE)
SLOW = Measured("01_second", 301.0, 3960.0, 0.1, 1234, "2026-02-01T10:00:00+00:00", MACHINE)


def rows(text: str) -> dict[str, list[str]]:
    """Cells of the table by the first in their row, without links and bold."""
    plain = re.sub(r"\[([\w ]+)\]\([^)]*\)|\*\*", r"\1", text)
    lines = [line.strip("|").split("|") for line in plain.splitlines() if line.startswith("| ")]
    return {first.strip(): [cell.strip() for cell in cells] for first, *cells in lines}


def page(budget: Budget, site_seconds: float = 30.0) -> str:
    return budget.with_site_time(budget.table(), site_seconds)


def test_each_chapter_and_all_steps_are_there():
    text = page(Budget("default", [FAST, SLOW], install_seconds=100.0))
    assert text.startswith(
        "Measured in profile `default` on 2026-01-31 to 2026-02-01: Linux x86_64, 2 processor "
        "cores, 8 GB of memory."
    )
    assert "[00 first](../notebooks/00_first.ipynb)" in text
    table = rows(text)
    assert table["00 first"] == ["1 min 00 s", "within 5 minutes", "1.5 GB", "0"]
    assert table["01 second"] == ["5 min 01 s", "over 5 minutes", "4.0 GB", "1,234"]
    assert table["all chapters"] == ["6 min 01 s", "", "4.0 GB", ""]
    assert table["installing the packages"][0] == "1 min 40 s"
    assert table["preparing the model"][0] == "1 min 20 s"
    assert table["building this site"][0] == "30 s"
    assert table["with set-up"][:2] == ["9 min 31 s", "within 20 minutes"]
    assert "-OF-" not in text and "-ON-" not in text


def test_what_was_not_measured_is_not_made_up():
    table = rows(page(Budget("smoke", [FAST])))
    assert table["installing the packages"][0] == "not measured"
    assert table["with set-up"][0] == "2 min 50 s, without the packages"


@pytest.mark.parametrize(("seconds", "verdict"), [(1199, "within"), (1201, "over")])
def test_the_whole_is_held_against_the_budget(seconds, verdict):
    run = dataclasses.replace(FAST, seconds=seconds, preparation_seconds=0.0)
    assert rows(page(Budget("default", [run]), 0.0))["with set-up"][1] == f"{verdict} 20 minutes"


def test_a_day_is_said_once():
    assert "on 2026-01-31: " in Budget("default", [FAST, FAST]).table()


def test_the_stamp_of_a_run_is_read(tmp_path):
    run = {"notebook": FAST.chapter, "seconds": FAST.seconds, "peak_mb": FAST.peak_mb}
    others = dataclasses.asdict(FAST)
    for name in ("chapter", "seconds", "peak_mb"):
        del others[name]
    stamp = tmp_path / "00_first.json"
    stamp.write_text(json.dumps({"inputs": "", "run": run} | others))
    assert measured(stamp) == FAST
