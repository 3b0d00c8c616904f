"""Tables: what is written where, in HTML (read back by a parser) and in Markdown."""

import doctest
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from mlprune_helpers import show_table, tables

NAN, INF = float("nan"), float("inf")


def parsed(table):
    return ElementTree.fromstring(f"<div>{table._repr_html_()}</div>")


def rows_of(element):
    """Header and rows of the HTML tables in an element, as texts."""
    return [["".join(cell.itertext()) for cell in row] for row in element.iter("tr")]


def written(values, **options):
    """What the cells of a column read."""
    table = show_table(pd.DataFrame({"x": values}), index=False, **options)
    return [cell for (cell,) in rows_of(parsed(table))[1:]]


def styles(table):
    """Of the cells of each column, header first: CSS properties."""
    lines = [[style_of(cell) for cell in row] for row in parsed(table).iter("tr")]
    return list(zip(*lines))


def style_of(cell):
    return dict(part.split(": ") for part in cell.get("style").split("; "))


# -- numbers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value, cell",
    [
        (1.234, "1.23"),
        (-1.236, "−1.24"),
        (-0.004, "0.00"),
        (-0.006, "−0.01"),
        (-0.0, "0.00"),
        (NAN, "–"),
        (None, "–"),
        (INF, "∞"),
        (-INF, "−∞"),
        (np.float32(0.5), "0.50"),
    ],
)
def test_a_number(value, cell):
    assert written([value]) == [cell]


def test_whole_numbers_have_no_digits_and_truth_has_words():
    assert written([3, -7]) == ["3", "−7"]
    assert written([True, False]) == ["yes", "no"]
    assert written(pd.array([1, None], dtype="Int64")) == ["1", "–"]
    assert written([pd.NaT, pd.Timestamp("2026-01-02")])[0] == "–"


def test_digits_for_all_and_by_column():
    frame = pd.DataFrame({"a": [1.23456], "b": [1.23456]})
    assert rows_of(parsed(show_table(frame, digits=1, index=False)))[1] == ["1.2", "1.2"]
    assert rows_of(parsed(show_table(frame, digits={"b": 3}, index=False)))[1] == ["1.23", "1.235"]


def test_shares_in_percent():
    assert written([0.4333, -0.0001, NAN], percent=["x"]) == ["43.3 %", "0.0 %", "–"]
    assert written([0.4333], percent=["x"], digits={"x": 0}) == ["43 %"]
    assert written([0.4333], percent=["x"], digits=4) == ["43.3 %"]


@pytest.mark.parametrize("name", tables.P_VALUES)
def test_p_values_are_never_zero(name):
    frame = pd.DataFrame({name: [0.0, 0.0009, 0.001, 0.2, NAN]})
    table = show_table(frame, index=False)
    assert table.columns[0].cells == ("< 0.001", "< 0.001", "0.001", "0.200", "–")


def test_a_format_of_ones_own():
    assert written([1234.5], formats={"x": "{:,.0f} rows"}) == ["1,234 rows"]
    assert written([-0.001], formats={"x": "{:.1f}"}) == ["0.0"]
    assert written([3], formats={"x": "{:.1f}"}) == ["3.0"]
    assert written(["a", None], formats={"x": str.upper}) == ["A", "–"]


def test_a_rule_for_numbers_leaves_texts_alone():
    assert written([0.5, "not run"], percent=["x"]) == ["50.0 %", "not run"]
    frame = pd.DataFrame({"p": ["too few"]})
    assert show_table(frame).columns[1].cells == ("too few",)


def test_intervals_go_into_the_cell():
    frame = pd.DataFrame(
        {"d": [-1.26, 0.5, 2.0], "low": [-2.51, -INF, NAN], "high": [-0.001, INF, NAN]}
    )
    table = show_table(frame, digits=1, intervals={"d": ("low", "high")}, index=False)
    assert rows_of(parsed(table)) == [["d"], ["−1.3 [−2.5, 0.0]"], ["0.5 [−∞, ∞]"], ["2.0"]]


def test_an_interval_is_written_like_its_value():
    frame = pd.DataFrame({"share": [0.5], "low": [0.25], "high": [0.75]})
    table = show_table(frame, percent=["share"], intervals={"share": ("low", "high")})
    assert table.columns[1].cells == ("50.0 % [25.0 %, 75.0 %]",)


# -- how cells stand -------------------------------------------------------------------------------


def test_headers_and_cells_stand_alike():
    frame = pd.DataFrame({"arm": ["dense", "pruned"], "change": [None, -1.0], "kept": [True, True]})
    for column, side in zip(styles(show_table(frame, index=False)), ["left", "right", "left"]):
        assert {style["text-align"] for style in column} == {side}


def test_numbers_are_not_broken_and_cells_do_not_touch():
    long = "a text of many words, which may be broken into several lines"
    frame = pd.DataFrame({"claim": [long], "arm": ["French alone"], "change": [-1.0]})
    claim, arm, change = styles(show_table(frame, index=False))
    for column, wrapping in ((claim, "pre-line"), (arm, "nowrap"), (change, "nowrap")):
        header, *body = column
        assert header["white-space"] == "normal"  # what stands below a header sets the width
        assert {style["white-space"] for style in body} == {wrapping}
    assert all(float(style["padding"].split()[1][:-2]) > 0 for style in claim + arm + change)


def test_a_wide_table_scrolls_by_itself():
    element = parsed(show_table(pd.DataFrame({"x": [1]})))[0]
    assert "overflow-x: auto" in element.get("style") and element[0].tag == "table"
    assert "dataframe" in element[0].get("class").split()  # else the theme draws it white on dark


def test_what_is_written_is_text():
    table = show_table(pd.DataFrame({"<b>": ["<eos> & |", "a\nb"]}), caption="a < b", index=False)
    assert rows_of(parsed(table)) == [["<b>"], ["<eos> & |"], ["a\nb"]]
    assert parsed(table).find(".//caption").text == "a < b"
    assert repr(table).splitlines()[-2:] == [r"| <eos> & \| |", "| a b |"]


# -- which rows and columns ------------------------------------------------------------------------


def test_further_rows_are_folded():
    frame = pd.DataFrame({"x": range(13)})
    element = parsed(show_table(frame, index=False))
    folded = element.find("details")
    assert [row[0] for row in rows_of(element[0])] == ["x", *map(str, range(10))]
    assert [row[0] for row in rows_of(folded)] == ["x", "10", "11", "12"]
    assert folded.find("summary").text == "3 more rows"
    assert parsed(show_table(frame, rows=13)).find("details") is None
    assert parsed(show_table(frame, rows=12)).find("details/summary").text == "1 more row"


def test_the_index_comes_first():
    frame = pd.DataFrame({"x": [1]}, index=pd.Index(["fr"], name="language"))
    assert rows_of(parsed(show_table(frame))) == [["language", "x"], ["fr", "1"]]
    assert rows_of(parsed(show_table(frame, index=False))) == [["x"], ["1"]]
    assert rows_of(parsed(show_table(frame.rename_axis(None)))) == [["", "x"], ["fr", "1"]]


def test_an_index_may_be_named_like_a_column():
    frame = pd.DataFrame({"x": [1]}, index=pd.Index(["fr"], name="x"))
    assert rows_of(parsed(show_table(frame))) == [["x", "x"], ["fr", "1"]]


def test_several_levels():
    index = pd.MultiIndex.from_product([["xnli"], ["fr", "es"]], names=["task", None])
    columns = pd.MultiIndex.from_tuples([("accuracy", "raw"), ("p", "")])
    table = show_table(pd.DataFrame([[0.5, 0.0], [0.25, 1.0]], index=index, columns=columns))
    assert rows_of(parsed(table)) == [
        ["task", "", "accuracy, raw", "p"],
        ["xnli", "fr", "0.50", "< 0.001"],
        ["xnli", "es", "0.25", "1.000"],
    ]


def test_a_table_without_rows_has_its_headers():
    assert rows_of(parsed(show_table(pd.DataFrame({"x": []}), index=False))) == [["x"]]


def test_the_frame_is_left_as_it_was():
    frame = pd.DataFrame({"x": [-0.001], "low": [-1.0], "high": [1.0]})
    before = frame.copy()
    show_table(frame, intervals={"x": ("low", "high")})
    pd.testing.assert_frame_equal(frame, before)


def test_markdown_where_there_is_no_html():
    frame = pd.DataFrame({"arm": ["dense"] * 12, "change": [-0.5] * 12})
    lines = repr(show_table(frame, rows=1, index=False, caption="Changes")).splitlines()
    assert lines == [
        "Changes",
        "",
        "| arm | change |",
        "| :-- | --: |",
        "| dense | -0.50 |",
        "",
        "… 11 more rows",
    ]


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"digits": {"y": 1}},
        {"percent": ["y"]},
        {"formats": {"y": "{}"}},
        {"intervals": {"y": ("x", "x")}},
        {"intervals": {"x": ("x", "y")}},
    ],
)
def test_a_column_that_is_not_there_is_named(options):
    with pytest.raises(ValueError, match=r"no column 'y'; there are: \['x'\]"):
        show_table(pd.DataFrame({"x": [1.0]}), index=False, **options)


def test_other_wrong_arguments():
    with pytest.raises(TypeError, match="Series; a data frame is needed"):
        show_table(pd.Series([1]))
    with pytest.raises(ValueError, match="rows is 0"):
        show_table(pd.DataFrame({"x": [1]}), rows=0)
    with pytest.raises(ValueError, match="no column to show"):
        show_table(pd.DataFrame(index=[0, 1]), index=False)
    with pytest.raises(ValueError, match="2 columns are named 'x'"):
        show_table(pd.DataFrame([[1.0, 2.0]], columns=["x", "x"]), digits={"x": 1})


def test_the_example_is_true():
    assert doctest.testmod(tables).failed == 0


def test_no_torch_for_tables():
    code = "import sys, mlprune_helpers as mh; mh.show_table; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
