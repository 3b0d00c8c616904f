"""Sentences of verdicts follow the numbers."""

import pytest

import mlprune_helpers as mh
from mlprune_helpers.verdicts import counted, judged, listed

WORDS = {"up": "more", "down": "less", "undecided": "open"}


def compared(before, after):
    return mh.paired_bootstrap(before, after)


def test_the_sentence_is_that_of_the_sign_and_the_p_value():
    low, high = [0] * 20, [1] * 20
    assert judged(compared(low, high), **WORDS).startswith("more (")
    assert judged(compared(high, low), **WORDS).startswith("less (")
    assert judged(compared(low, [*low[:-1], 1]), **WORDS).startswith("open (")


def test_a_corrected_p_value_counts_instead():
    found = compared([0] * 20, [1] * 20)
    assert judged(found, **WORDS, p_value=0.2).startswith("open (")


def test_the_numbers_are_those_of_the_comparison():
    found = compared([0.0] * 12, [0.25] * 12)
    told = judged(found, **WORDS, unit="nats")
    assert told.count("(") == told.count(")") == 1
    assert told == f"more ({found.text('nats', brackets=False)})"
    assert found.text("nats", brackets=False) == found.text("nats").replace(" (", ", ")[:-1]
    assert judged(found, **WORDS, unit="nats", numbers=False) == "more"


def test_the_table_has_a_row_a_claim():
    table = mh.verdict_table([mh.Verdict("c", "n", "f", "p"), mh.Verdict("d", "n", "f", "p")])
    assert list(table.index) == ["c", "d"]
    assert list(table.columns) == ["needed", "found", "still possible"]
    with pytest.raises(ValueError, match="empty"):
        mh.verdict_table([])


def test_words():
    assert listed([]) == "none"
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert counted(1, "row") == "1 row"
    assert counted(1200, "match", "matches") == "1,200 matches"
