"""The live registry of tasks, and how texts are written in templates."""

import dataclasses
import json

import pytest

import mlprune_helpers as mh
from mlprune_helpers.data import TASKS, DataError, Task
from mlprune_helpers.data.writing import first_words, lower_first, without_full_stop
from mlprune_helpers.prompts import task_prompts

ODD = Task(
    labels=("no", "yes"),
    fields=("question", "choice_of_words", "kind", "given"),
    answers=("given",),
    templates={
        "prompt": {"kind": {"a": "{question} {choice_of_words} A", "b": "{question} B"}},
        "choices": [" No, {given}", " Yes, {given}"],
    },
)
ROW = {"question": "Q?", "choice_of_words": "W", "kind": "a", "given": "G", "label": 1}


@pytest.fixture
def odd(monkeypatch):
    """A reader's task whose fields are named as those of other tasks that are no texts."""
    monkeypatch.setitem(TASKS, "odd", ODD)
    return "odd"


def test_a_task_of_ones_own_is_a_task_like_the_others(odd, tmp_path):
    (tmp_path / "odd").mkdir()
    path = tmp_path / "odd" / "test.tr.jsonl"
    path.write_text(str([ROW])[1:-1].replace("'", '"'))
    (row,) = mh.load_task(odd, "tr", tmp_path)
    assert row == {"id": "0", "group": "0", "label": 1} | ROW
    assert mh.task_prompts(odd, [row]) == (["Q? W A"], [[" No, G", " Yes, G"]])


def test_texts_are_known_by_declaration_and_not_by_name(odd):
    assert (ODD.texts, ODD.selectors, ODD.answers) == (
        ("question", "choice_of_words"),
        ("kind",),
        ("given",),
    )
    assert mh.task_prompts(odd, [ROW], content_free="N/A") == (
        ["N/A N/A A"],
        [[" No, G", " Yes, G"]],
    )


def test_a_template_that_is_not_there_is_named(odd):
    with pytest.raises(ValueError, match="template is 'native'; odd has paper, or give a prompt"):
        mh.task_prompts(odd, [ROW], template="native")
    with pytest.raises(DataError, match="odd: kind is 'c'; the template knows a, b"):
        mh.task_prompts(odd, [ROW | {"kind": "c"}])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": "no"}, "labels is 'no'; needed: a list"),
        ({"labels": ("no", "no")}, "each once"),
        ({"fields": ("id",)}, "every row has id, group, label"),
        ({"answers": ("other",)}, "answers has 'other'"),
        ({"templates": {"prompt": "{missing}", "choices": ["a", "b"]}}, "asks for 'missing'"),
        ({"templates": {"prompt": "{given}", "choices": ["a"]}}, "2 choices"),
        ({"templates": {"prompt": "{given!x}", "choices": ["a", "b"]}}, "conversion !x"),
        ({"templates": {"native": {"prompt": "", "choices": ["a", "b"]}}}, "needed: 'paper'"),
        ({"convert": 1}, "convert is 1; needed: a function"),
    ],
)
def test_a_wrong_declaration_is_refused_when_it_is_made(changes, message):
    with pytest.raises((TypeError, ValueError), match=message):
        dataclasses.replace(ODD, **changes)


def test_what_is_no_task_is_refused(monkeypatch):
    monkeypatch.setitem(TASKS, "odd", {"labels": ["a"]})
    with pytest.raises(TypeError, match=r"TASKS\['odd'\] is .*needed: a Task"):
        mh.load_task("odd", "en")


def test_a_description_changes_with_templates_and_functions():
    described = ODD.describe()
    assert described == dataclasses.replace(ODD).describe()
    same, other = (dataclasses.replace(ODD, group=lambda n, row, k=k: n // k) for k in (2, 3))
    assert same.describe() != other.describe() != described
    edited = dataclasses.replace(ODD)
    edited.templates["paper"]["choices"][0] = " Never"
    assert edited.describe() != described == ODD.describe()


# -- writing --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "language", "lowered"),
    [
        ("İçeri", "tr", "içeri"),
        ("Işığı", "tr", "ışığı"),
        ("I\u0307çeri", "tr", "içeri"),
        ("İçeri", "az", "içeri"),
        ("Il fait", "fr", "il fait"),
        ("IJs", "nl", "ijs"),
        ("IJs", "en", "iJs"),
        ("Élan", "fr", "élan"),
        ("«Il»", "fr", "«Il»"),
        ("他", "zh", "他"),
        ("", "tr", ""),
    ],
)
def test_a_first_letter_is_lowered_as_its_language_writes_it(text, language, lowered):
    assert lower_first(text, language) == lowered


def test_prompts_are_written_in_the_language_of_their_texts():
    row = {
        "premise": "P.",
        "choice1": "İçeri girdi.",
        "choice2": "Işığı açtı.",
        "question": "cause",
    }
    _, ((first, second),) = mh.task_prompts("xcopa", [row], language="tr")
    assert (first, second) == (" içeri girdi.", " ışığı açtı.")
    assert mh.task_prompts("xcopa", [row | {"choice2": "It ran."}])[1][0][1] == " it ran."
    with pytest.raises(DataError, match="language 'Turkish'; allowed"):
        mh.task_prompts("xcopa", [row], language="Turkish")


@pytest.mark.parametrize("stop", [".", "。", "।", "॥", "۔", "။", "։", ". "])
def test_full_stops_of_every_script_are_taken_off(stop):
    assert without_full_stop(f"a. b{stop}") == "a. b"


def test_words_are_counted_where_there_are_any_and_else_characters():
    words = ["w" * 20] * 200
    assert first_words("  ".join(words)) == " ".join(words[:128])
    assert first_words("字" * 1000) == "字" * 768


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(convert=lambda row: row["text"].absent), "line 1.*AttributeError: .*absent"),
        (dict(convert=lambda row: 5), "line 1.*5 is no object"),
        (dict(group=lambda number, row: row["absent"]), "line 1.*group: no 'absent'"),
    ],
)
def test_what_a_readers_function_raises_has_the_rows_place(monkeypatch, tmp_path, changes, message):
    task = dataclasses.replace(mh.TASKS["reviews"], **changes)
    monkeypatch.setitem(mh.TASKS, "mine", task)
    (tmp_path / "mine").mkdir()
    row = {"id": 1, "text": "Good.", "label": 1}
    (tmp_path / "mine" / "test.en.jsonl").write_text(json.dumps(row))
    with pytest.raises(DataError, match=message):
        mh.load_task("mine", "en", tmp_path)


def test_a_field_that_chooses_ones_own_prompt_keeps_its_value_without_content():
    prompts = {"prompt": {"hypothesis": {"b": "{premise}?"}}, "choices": [" x", " y", " z"]}
    rows = [{"premise": "a", "hypothesis": "b"}]
    assert task_prompts("nli", rows, template=prompts, content_free="N/A")[0] == ["N/A?"]


@pytest.mark.parametrize(
    ("language", "lowered"), [("az", "ışıq"), ("tr-TR", "ışıq"), ("nl", "işıq"), ("lt", "işıq")]
)
def test_casing_is_had_in_languages_that_have_no_data(language, lowered):
    own = {"prompt": "It", "choices": [" {text!l}", " no"]}
    (choices,) = task_prompts("reviews", [{"text": "Işıq"}], template=own, language=language)[1]
    assert choices[0] == " " + lowered
    with pytest.raises(DataError, match="language 'xx'"):
        task_prompts("reviews", [{"text": "a"}], language="xx")
