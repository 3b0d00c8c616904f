"""Files from outside.

What is dropped, what is refused by its place, and where a folder's things lie.
"""

import json
import subprocess
import sys

import pytest

import mlprune_helpers as mh
from mlprune_helpers.data import DataError, check_source, checked_examples, files_read

NLI = {"premise": "A dog runs.", "hypothesis": "An animal moves.", "label": 0}


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def write_rows(path, *rows):
    return write(path, "\n".join(json.dumps(row) for row in rows))


def test_the_room_loads_no_torch_and_its_face_no_library():
    code = (
        "import sys; from mlprune_helpers.data import TASKS, files_read; assert 'datasets' not in "
        "sys.modules;"
        "from mlprune_helpers.data import load_parallel; load_parallel('en'); assert "
        "'mlprune_helpers.scoring' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# -- sentences ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        "\ufeffone\ntwo",
        "one\r\ntwo\r\n",
        "\ufeffone\r\ntwo",
        "one\n\ufefftwo\n",  # two files put together
    ],
)
def test_marks_and_line_ends_are_no_part_of_a_sentence(tmp_path, content):
    write(tmp_path / "texts" / "en.txt", content)
    assert mh.load_parallel("en", tmp_path)["en"][:] == ["one", "two"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("one\n\nthree\n", "line 2: blank"),
        ("one\n \t\nthree\n", "line 2: blank"),
        ("one\ntwo\n\n", "line 3: blank"),
        ("one\n\u200b\u3000\nthree", "line 2: blank"),
        ("", "is empty"),
        ("one\nça".encode("latin-1"), r"line 2: not UTF-8 \(byte 0xe7\)"),
        ("one\ntwo".encode("utf-16"), "line 1: the file is UTF-16; save it as UTF-8"),
        (b"one\ntw\0o", "line 2: a zero byte"),
    ],
)
def test_what_is_no_sentence_is_refused_with_file_and_line(tmp_path, content, message):
    write(tmp_path / "texts" / "en.txt", content)
    with pytest.raises(DataError, match=rf"en\.txt.*{message}"):
        mh.load_parallel("en", tmp_path)


def test_dev_and_test_share_no_sentence_where_a_file_repeats_one(tmp_path):
    write(tmp_path / "texts" / "en.txt", "a\nb\nc\nd\ne\nf\na\nh\ni\nj")
    write(tmp_path / "texts" / "fr.txt", "A\nB\nC\nD\nE\nF\nG\nH\nC\nJ")
    both, en = (mh.load_parallel(codes, tmp_path, split="test") for codes in (["en", "fr"], ["en"]))
    assert both["id"][:] == ["texts-8", "texts-10"]  # line 7 is a, line 9 is C
    assert en["en"][:] == ["h", "i", "j"]
    assert len(mh.load_parallel(["en", "fr"], tmp_path)) == 10
    write(tmp_path / "texts" / "en.txt", "a\n" * 10)
    with pytest.raises(DataError, match="no sentences in split 'test': of 10 sentences"):
        mh.load_parallel(["en"], tmp_path, split="test")


def test_strays_are_no_sets_and_no_languages(tmp_path):
    write(tmp_path / "texts" / "en.txt", "one")
    for stray in (
        "notes.txt",
        "en.txt",
        "texts/README.txt",
        "docs/notes.txt",
        ".old/en.txt",
        "nli/x",
    ):
        write(tmp_path / stray, "\n\n")
    assert mh.load_parallel("en", tmp_path)["en"][:] == ["one"]
    with pytest.raises(DataError, match=r"has no fr; it has: en\. Change languages, or source\."):
        mh.load_parallel(["en", "fr"], tmp_path)


# -- rows of tasks --------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, 3, ["a"], "", " \t", "\u200b", True])
@pytest.mark.parametrize("field", ["premise", "hypothesis"])
def test_a_field_that_is_no_text_is_refused_by_line_and_name(tmp_path, field, value):
    write_rows(tmp_path / "xnli" / "test.en.jsonl", NLI, NLI | {field: value})
    with pytest.raises(DataError, match=rf"test\.en\.jsonl, line 2: .*{field} is .*not blank"):
        mh.load_task("xnli", "en", tmp_path)


@pytest.mark.parametrize("label", [None, True, 0.5, "1", "Neutral", 3, -1, [0], float("inf")])
def test_a_label_that_is_none_is_refused(label):
    with pytest.raises(DataError, match="rows, row 0: label is .*0 to 2, or a name: entailment"):
        checked_examples("xnli", [NLI | {"label": label}], "rows")


def test_labels_by_name_are_labels_by_number(tmp_path):
    rows = [NLI | {"label": label} for label in ("contradiction", 1, "entailment", 2.0)]
    write_rows(tmp_path / "nli" / "test.en.jsonl", *rows)
    assert mh.load_task("nli", "en", tmp_path)["label"][:] == [2, 1, 0, 2]
    assert [row["label"] for row in checked_examples("nli", rows, "rows")] == [2, 1, 0, 2]


@pytest.mark.parametrize(
    ("task", "raw", "label"),
    [
        ("marc", {"text": "Good.", "label": 1}, 1),
        ("marc", {"text": "Bad.", "label": 0}, 0),
        ("marc", {"text": "Good.", "stars": 4}, 1),
        ("marc", {"text": "Bad.", "stars": 2}, 0),
        ("xstory_cloze", {"premise": "A.", "choice1": "B.", "choice2": "C.", "label": 1}, 1),
    ],
)
def test_only_raw_rows_of_a_folder_are_converted(tmp_path, task, raw, label):
    write_rows(tmp_path / task / "test.en.jsonl", raw)
    assert mh.load_task(task, "en", tmp_path, split="test")["label"][:] == [label]


@pytest.mark.parametrize(
    ("task", "raw", "message"),
    [
        ("marc", {"text": "Good."}, "line 1: .*no label"),
        ("marc", {"text": "Good.", "label": 4}, "line 1: .*label is 4; allowed: 0 to 1"),
        ("marc", {"text": "Good.", "stars": 6}, "line 1: .*stars is 6; allowed: 1 to 5"),
        (
            "xstory_cloze",
            {"input_sentence_1": "A.", "answer_right_ending": 3},
            "is 3; allowed: 1 or 2",
        ),
    ],
)
def test_rows_that_cannot_be_converted_are_named(tmp_path, task, raw, message):
    write_rows(tmp_path / task / "test.en.jsonl", raw)
    with pytest.raises(DataError, match=message):
        mh.load_task(task, "en", tmp_path, split="test")


@pytest.mark.parametrize("limit", [True, 2.0, "3", float("nan")])
def test_a_limit_that_is_no_whole_number_is_refused(limit):
    with pytest.raises(DataError, match="limit is .*a whole number of at least 1"):
        mh.load_task("nli", "en", limit=limit)


def test_one_array_two_ids_and_no_rows_are_refused(tmp_path):
    path = write(tmp_path / "nli" / "test.en.jsonl", json.dumps([NLI]))
    with pytest.raises(DataError, match="line 1: not one JSON object .*an array"):
        mh.load_task("nli", "en", tmp_path)
    write_rows(path, NLI | {"id": 1}, NLI | {"id": "1"})
    with pytest.raises(DataError, match="line 2.*the id '1' is that of an earlier row"):
        mh.load_task("nli", "en", tmp_path)
    write(path, "\n")
    with pytest.raises(DataError, match="nli in 'en': no rows"):
        mh.load_task("nli", "en", tmp_path)


# -- what is there --------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """Two parallel sets, one in two languages; a task in both, another without English."""
    for name, language in (("news", "en"), ("news", "fr"), ("talks", "en")):
        write(tmp_path / name / f"{language}.txt", "one\ntwo")
    for language in ("en", "fr"):
        write_rows(tmp_path / "xnli" / f"test.{language}.jsonl", NLI)
    write_rows(tmp_path / "xcopa" / "test.sw.jsonl", {})
    return tmp_path


def test_a_source_that_has_everything_passes_without_being_read(folder):
    with files_read() as files:
        check_source(folder, ["en", "fr"], ["xnli"], "news")
        check_source("builtin", mh.BOOK_LANGUAGES, ["nli", "reviews", "stories"])
        check_source("hub", ["en", "fr"], ["xnli", "marc"], "flores_plus")
    assert files == set()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("folder", ["en"]), "parallel set None; there are: news, talks.*parameter parallel"),
        (("folder", ["en"], [], "old"), "parallel set 'old'; there are: news, talks"),
        (
            ("folder", ["en", "fr"], [], "talks"),
            "talks has no fr; it has: en.*parameter parallel: news",
        ),
        (
            ("folder", ["en"], ["xcopa"], "news"),
            r"xcopa has no .*it has: test.sw.jsonl. Change tasks",
        ),
        (("folder", ["en"], ["xnli"], "news", "dev"), r"xnli has no dev.en.jsonl"),
        (
            ("builtin", ["en", "tr"]),
            "has no tr; it has: de, en, es, fr, hi, sw, zh. Change languages",
        ),
        (("builtin", ["en"], ["xnli"]), "xnli has no .*it has: nothing. Change tasks"),
        (("hub", ["en"], ["nli"]), "not of the hub.*change tasks"),
        (("hub", ["en"], ["xcopa"]), "xcopa on the hub has no en; it has: et.*Change tasks"),
        (
            ("hub", ["en"], [], "news"),
            "allowed on the hub: 'ntrex', 'flores_plus'.*parameter parallel",
        ),
        (("", ["en"]), "source is ''; allowed: 'builtin', 'hub', or an existing folder"),
        ((None, ["en"]), "source is None"),
        (("builtin", ["en"], ["snli"]), "task is 'snli'; allowed"),
    ],
)
def test_a_source_that_lacks_something_says_what_to_change(folder, arguments, message):
    source, *others = arguments
    with pytest.raises(DataError, match=message):
        check_source(folder if source == "folder" else source, *others)


def test_languages_with_different_splits_of_a_task_are_refused(folder):
    write_rows(folder / "xnli" / "validation.fr.jsonl", NLI)
    with pytest.raises(
        DataError, match=r"test.en.jsonl, validation.fr.jsonl are of different splits"
    ):
        check_source(folder, ["en", "fr"], ["xnli"], "news")


def test_files_read_tells_the_files_of_each_context(folder):
    with files_read() as outer:
        mh.load_parallel("fr", folder, name="news")
        with files_read() as inner:
            mh.load_task("xnli", "en", folder)
    assert [path.name for path in inner] == ["test.en.jsonl"]
    assert outer == inner | {(folder / "news" / "fr.txt").resolve()}


@pytest.mark.parametrize("again", ["e\u0301t\u00e9 1", " \u00e9t\u00e9  1"])
def test_a_repetition_is_known_in_another_writing(tmp_path, again):
    dev = ["\u00e9t\u00e9 1", "b", "c", "d", "e", "f"]
    write(tmp_path / "news" / "fr.txt", "\n".join([*dev, "x", again, "y", "z"]))
    assert mh.load_parallel("fr", tmp_path, split="test")["id"][:] == [
        "news-7",
        "news-9",
        "news-10",
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (json.dumps(NLI | {"label": 10**400}), r"line 1: .*label is 1000.*allowed: 0 to 2"),
        ('{"premise": ' + "[" * 100_000, "line 1: not one JSON object"),
    ],
)
def test_a_line_of_absurd_size_is_refused_by_its_place(tmp_path, line, message):
    write(tmp_path / "nli" / "test.en.jsonl", line)
    with pytest.raises(DataError, match=message):
        mh.load_task("nli", "en", tmp_path)


def test_a_folder_that_is_itself_a_set_says_which_to_pass(tmp_path):
    write(tmp_path / "news" / "en.txt", "a\nb\n")
    with pytest.raises(DataError, match=f"there are: none.*pass {tmp_path}"):
        mh.load_parallel("en", tmp_path / "news")
