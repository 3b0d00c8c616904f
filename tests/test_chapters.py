"""What chapters begin and end with."""

import functools
import json

import pytest

import mlprune_helpers as mh
from mlprune_helpers import chapters

PARAMETERS = {
    "model": "a model",
    "languages": ["fr", "en", "es"],
    "negative_controls": ["sw"],
    "source": "builtin",
    "shots": 2,
    "n_sentences": 7,
    "limit": 12,
    "seed": 0,
}


@pytest.fixture
def opened(load, monkeypatch, tmp_path):
    def with_changes(**changes) -> chapters.Chapter:
        monkeypatch.setattr(chapters, "load_model", lambda name: load("llama"))
        parameters = PARAMETERS | {"output_dir": str(tmp_path)} | changes
        return mh.open_chapter("05_mine", parameters)

    return with_changes


def test_english_comes_first_and_controls_stand_apart(opened):
    chapter = opened()
    assert chapter.languages == ["en", "fr", "es"]
    assert (chapter.others, chapter.first) == (["fr", "es"], "fr")
    assert chapter.all_languages == ["en", "fr", "es", "sw"]
    assert "English, French and Spanish, with Swahili as control" in chapter._repr_markdown_()


def test_no_sentence_is_in_two_parts(opened):
    chapter = opened()
    parts = [set(part["en"]) for part in (chapter.shown, chapter.dev, chapter.test)]
    assert not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]
    assert (len(chapter.shown), len(chapter.test)) == (2, 7)
    whole = mh.load_parallel(["en"], split="dev")
    assert parts[0] | parts[1] == set(whole["en"])


def test_demonstrations_of_tests_come_from_what_is_set_aside(opened):
    chapter = opened()
    prefix = chapter.prefix("fr")
    assert all(sentence in prefix for sentence in chapter.shown["fr"])
    assert not any(sentence in prefix for sentence in chapter.dev["fr"])
    assert chapter.prefix("fr", shots=0) == ""
    assert chapter.prefix("en", "fr", 1).startswith("English: ")
    assert "French" not in chapter.prefix("en", None)


def test_the_separator_is_the_tokenizers_own(opened):
    assert opened().separator == "\n"
    chapter = opened(separator="eos")
    assert chapter.separator == chapter.lm.tokenizer.eos_token
    assert chapter.prefix("fr").count(chapter.separator) == 4
    end = chapter.lm.tokenizer.eos_token_id
    assert chapter.lm.tokenizer(chapter.prefix("fr"))["input_ids"].count(end) == 4


def test_a_separator_that_the_tokenizer_does_not_have_is_refused(opened, monkeypatch):
    lm = opened().lm
    plain = type(lm.tokenizer).__call__
    as_words = functools.partialmethod(plain, split_special_tokens=True)
    with monkeypatch.context() as patched:
        patched.setattr(type(lm.tokenizer), "__call__", as_words)
        with pytest.raises(ValueError, match="not as its end-of-sequence token"):
            chapters._separator(lm, "eos")
    lm.tokenizer.eos_token = None
    with pytest.raises(ValueError, match="no end-of-sequence token"):
        chapters._separator(lm, "eos")


def test_rows_are_those_of_the_parameters_and_count_as_data(opened):
    chapter = opened()
    rows = chapter.rows("reviews", "fr")
    by_hand = mh.load_task("reviews", "fr", limit=12, seed=0)
    assert rows["id"] == by_hand["id"]
    first = json.loads(chapter.save({"x": 1}).read_text())["provenance"]["data"]
    chapter.rows("reviews", "es")
    second = json.loads(chapter.save({"x": 1}).read_text())["provenance"]["data"]
    assert first != second


def test_too_many_shots_are_refused_with_what_is_allowed(opened):
    with pytest.raises(mh.DataError, match="shots is 100.*140 sentences.*up to 70"):
        opened(shots=100)
