"""Loading from folders, and from the hub.

Files here with the columns and splits of the real repositories.
"""

import json

import datasets
import pytest
from hypothesis import given, settings, strategies as st

import mlprune_helpers as mh
from mlprune_helpers.data import DataError, sources

NLI = {"premise": "A dog runs.", "hypothesis": "An animal moves."}


def write_lines(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def write_rows(path, rows):
    write_lines(path, [json.dumps(row, ensure_ascii=False) for row in rows])


@pytest.fixture
def folder(tmp_path):
    """Ten parallel sentences and four premises with three hypotheses each, in two languages."""
    for language in ("en", "hi"):
        write_lines(tmp_path / "texts" / f"{language}.txt", [f"{language} {i}" for i in range(10)])
        rows = [
            {
                "id": f"{p:02}-{k}",
                "premise": f"{language} {p}",
                "hypothesis": f"{language} {p} {k}",
                "label": k - 1,
            }
            for p in range(1, 5)
            for k in (1, 2, 3)
        ]
        write_rows(tmp_path / "nli" / f"test.{language}.jsonl", rows)
    return tmp_path


# -- parallel sentences of a folder ----------------------------------------------------------------


def test_parallel_lines_of_a_folder(folder):
    rows = mh.load_parallel(["hi", "en"], folder)
    assert rows.column_names == ["id", "hi", "en"]
    assert rows[3] == {"id": "texts-4", "hi": "hi 3", "en": "en 3"}
    assert mh.load_parallel("en", str(folder), name="texts")["en"][:] == [
        f"en {i}" for i in range(10)
    ]


def test_splits_share_no_line_and_miss_none(folder):
    dev, test = (
        mh.load_parallel(["en"], folder, split=split)["en"][:] for split in ("dev", "test")
    )
    assert (len(dev), len(test)) == (6, 4)
    assert dev + test == mh.load_parallel(["en"], folder)["en"][:]


def test_the_split_of_a_known_set_is_fixed(tmp_path):
    write_lines(tmp_path / "ntrex" / "en.txt", map(str, range(1997)))
    assert len(mh.load_parallel(["en"], tmp_path, split="dev")) == 600
    write_lines(tmp_path / "sentences" / "en.txt", map(str, range(180)))
    assert len(mh.load_parallel(["en"], tmp_path, name="sentences", split="test")) == 40


def test_only_line_ends_separate_lines(tmp_path):
    lines = ["one\u2028same", "two\x85same", "  three ", "four"]
    write_lines(tmp_path / "texts" / "en.txt", lines)
    assert mh.load_parallel(["en"], tmp_path)["en"][:] == lines


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(languages=["xx"]), r"language \['xx'\]; allowed: en, fr"),
        (dict(languages=[]), "allowed: en, fr"),
        (dict(languages=["en", "fr", "sw"]), "texts has no fr, sw; it has: en, hi"),
        (dict(name="news"), "parallel set 'news'; there are: texts"),
        (dict(split="train"), "split is 'train'; allowed: 'dev', 'test', or None"),
        (
            dict(source="no/such/folder"),
            "source is 'no/such/folder'; allowed: 'builtin', 'hub', or an existing folder",
        ),
        (
            dict(source="hub", name="flores"),
            "name is 'flores'; allowed on the hub: 'ntrex', 'flores_plus'",
        ),
    ],
)
def test_wrong_parallel_requests_are_refused(folder, arguments, message):
    with pytest.raises(DataError, match=message):
        mh.load_parallel(**{"languages": ["en"], "source": folder} | arguments)


def test_sets_that_are_not_parallel_or_ambiguous_are_refused(folder):
    write_lines(folder / "texts" / "fr.txt", ["un", "deux"])
    with pytest.raises(
        DataError, match=r"texts is not parallel: lines by language \{'en': 10, 'fr': 2\}"
    ):
        mh.load_parallel(["en", "fr"], folder)
    write_lines(folder / "other" / "en.txt", ["one"])
    with pytest.raises(DataError, match="parallel set None; there are: other, texts"):
        mh.load_parallel(["en"], folder)
    with pytest.raises(DataError, match="there are: none"):
        mh.load_parallel(["en"], folder / "texts")


# -- tasks of a folder -----------------------------------------------------------------------------


def test_task_rows_of_a_folder(folder):
    rows = mh.load_task("nli", "hi", folder)
    assert rows.column_names == ["id", "group", "label", "premise", "hypothesis"]
    assert rows[4] == {
        "id": "02-2",
        "group": "02",
        "label": 1,
        "premise": "hi 2",
        "hypothesis": "hi 2 2",
    }


@given(limit=st.integers(1, 15), seed=st.integers(0, 20))
@settings(max_examples=40, deadline=None)
def test_a_limit_keeps_whole_groups_the_same_in_each_language(tmp_path_factory, limit, seed):
    folder = tmp_path_factory.getbasetemp() / "uneven"
    sizes = [1, 3, 2, 3, 1, 2]
    for language in ("en", "sw"):
        if not (folder / "nli" / f"test.{language}.jsonl").exists():
            rows = [
                NLI | {"id": f"{g}-{k}", "label": 0}
                for g, size in enumerate(sizes)
                for k in range(size)
            ]
            write_rows(folder / "nli" / f"test.{language}.jsonl", rows)
    en, sw = (
        mh.load_task("nli", language, folder, limit=limit, seed=seed) for language in ("en", "sw")
    )
    assert en["id"][:] == sw["id"][:] == sorted(en["id"][:])
    kept = [int(group) for group in en["group"]]
    assert all(kept.count(group) == sizes[group] for group in kept)
    assert len(en) <= limit or len(set(kept)) == 1
    assert kept
    if limit >= sum(sizes):
        assert len(en) == sum(sizes)


def test_the_limit_is_drawn_with_the_seed(folder):
    drawn = {
        tuple(mh.load_task("nli", "en", folder, limit=6, seed=seed)["group"]) for seed in range(20)
    }
    assert {len(groups) for groups in drawn} == {6}
    assert len(drawn) > 3
    assert (
        mh.load_task("nli", "en", folder, limit=6)["id"][:]
        == mh.load_task("nli", "en", folder, limit=7, seed=0)["id"][:]
    )


def write_labelled(folder, task, labels, languages=("en",), rows_a_group=1):
    """Rows whose labels are these, the same in every language; so many rows have one group."""
    for language in languages:
        rows = [
            {"id": f"{n:03}", "text": f"{language} {n}", "label": label, "group": n // rows_a_group}
            for n, label in enumerate(labels)
        ]
        write_rows(folder / task / f"test.{language}.jsonl", rows)


@given(
    supply=st.lists(st.integers(0, 9), min_size=6, max_size=6).filter(any),
    limit=st.integers(1, 40),
    seed=st.integers(0, 30),
)
@settings(max_examples=60, deadline=None)
def test_a_draw_has_as_many_rows_of_each_label_as_the_supply_allows(
    tmp_path_factory, supply, limit, seed
):
    folder = tmp_path_factory.getbasetemp() / "labelled"
    labels = [label for label, n in enumerate(supply) for _ in range(n)]
    write_labelled(folder, "topics", labels, ("en", "sw"))
    en, sw = (mh.load_task("topics", code, folder, limit=limit, seed=seed) for code in ("en", "sw"))
    assert en["id"][:] == sw["id"][:] == sorted(en["id"][:])
    assert len(en) == min(limit, sum(supply))
    drawn = [en["label"][:].count(label) for label in range(6)]
    left = [n - some for n, some in zip(supply, drawn)]
    for some, still in zip(drawn, left):
        # Who has fewer than another by more than one has nothing left to give.
        assert max(drawn) - some <= 1 or still == 0
    fewer = mh.load_task("topics", "en", folder, limit=max(1, limit - 7), seed=seed)
    assert set(fewer["id"]) <= set(en["id"])
    assert en["id"][:] == mh.load_task("topics", "en", folder, limit=limit, seed=seed)["id"][:]


def test_which_rows_and_whose_turn_is_drawn_with_the_seed(tmp_path):
    write_labelled(tmp_path, "topics", [n % 6 for n in range(60)])
    draws = [mh.load_task("topics", "en", tmp_path, limit=8, seed=seed) for seed in range(40)]
    assert len({tuple(rows["id"]) for rows in draws}) == 40
    twice = {label for rows in draws for label in range(6) if rows["label"][:].count(label) == 2}
    assert twice == set(range(6))
    # Each row has the same chance, 8 of 60, so of 40 draws 5.3 have it, SE 2.1.
    times = [sum(f"{n:03}" in rows["id"][:] for rows in draws) for n in range(60)]
    assert 0 < min(times) and max(times) < 15


def test_groups_of_one_label_are_drawn_whole_and_in_turn(tmp_path):
    labels = [label for label in (0, 0, 0, 1, 0, 1) for _ in range(2)]
    write_labelled(tmp_path, "reviews", labels, rows_a_group=2)
    for seed in range(10):
        rows = mh.load_task("reviews", "en", tmp_path, limit=9, seed=seed)
        assert rows["label"][:].count(0) == rows["label"][:].count(1) == 4


def test_groups_that_hold_several_labels_and_many_labels_are_drawn_as_they_come(
    tmp_path, monkeypatch
):
    """Not in turn: of two labels, one nine times as frequent, a draw has mostly that one."""
    labels = [int(n % 10 == 0) for n in range(100)]
    write_labelled(tmp_path, "reviews", labels, rows_a_group=2)
    frequent = [
        mh.load_task("reviews", "en", tmp_path, limit=20, seed=seed)["label"][:].count(0)
        for seed in range(20)
    ]
    assert 160 < sum(frequent) / 20 * 10 < 200
    many = mh.Task(
        labels=[str(n) for n in range(11)],
        fields=("text",),
        templates={"prompt": "{text}", "choices": [f" {n}" for n in range(11)]},
    )
    monkeypatch.setitem(mh.TASKS, "many", many)
    write_labelled(tmp_path, "many", labels)
    rows = mh.load_task("many", "en", tmp_path, limit=20)
    assert rows["label"][:].count(0) > 12


def test_splits_of_a_folder(folder):
    write_rows(folder / "xnli" / "test.en.jsonl", [NLI | {"label": 1}])
    assert mh.load_task("xnli", "en", folder)["label"][:] == [1]  # the only split there is
    write_rows(folder / "xnli" / "validation.en.jsonl", [NLI | {"label": 2}])
    assert mh.load_task("xnli", "en", folder)["label"][:] == [2]  # the first of the task
    assert mh.load_task("xnli", "en", folder, split="test")["label"][:] == [1]
    with pytest.raises(
        DataError, match=r"xnli has no train.en.jsonl; it has: test.en.jsonl, validation.en.jsonl"
    ):
        mh.load_task("xnli", "en", folder, split="train")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(task="snli"), "task is 'snli'; allowed: nli, reviews"),
        (dict(language="xx"), r"language \['xx'\]; allowed: en, fr"),
        (dict(language="fr"), "nli has no test.fr.jsonl; it has: test.en.jsonl, test.hi.jsonl"),
        (dict(task="reviews"), "reviews has no test.en.jsonl; it has: nothing"),
        (dict(limit=0), "limit is 0; allowed: a whole number of at least 1"),
        (
            dict(source="hub"),
            "nli is part of the built-in corpus, not of the hub: pass source='builtin'",
        ),
        (dict(source="no/such"), "source is 'no/such'"),
    ],
)
def test_wrong_task_requests_are_refused(folder, arguments, message):
    with pytest.raises(DataError, match=message):
        mh.load_task(**{"task": "nli", "language": "en", "source": folder} | arguments)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"premise": "a", "label": 0},
            "nli in 'en', row 1: no hypothesis; a row needs premise, hypothesis, label",
        ),
        (NLI, "row 1: no label"),
        (
            NLI | {"label": 3},
            r"line 2: .*row 1: label is 3; allowed: 0 to 2, or a name: entailment",
        ),
        (NLI | {"label": -1}, "label is -1"),
        (NLI | {"label": "Neutral"}, "label is 'Neutral'"),
    ],
)
def test_wrong_rows_are_named(tmp_path, row, message):
    write_rows(tmp_path / "nli" / "test.en.jsonl", [NLI | {"id": "1-1", "label": 0}, row])
    with pytest.raises(DataError, match=message):
        mh.load_task("nli", "en", tmp_path)


def test_a_broken_line_is_named(tmp_path):
    write_lines(
        tmp_path / "nli" / "test.en.jsonl", [json.dumps(NLI | {"label": 0}), "", '{"premise": "A']
    )
    with pytest.raises(DataError, match=r"test.en.jsonl, line 3: not one JSON object"):
        mh.load_task("nli", "en", tmp_path)


# -- the hub ---------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """``hub(repository, configuration, split, rows)`` stores rows.

    The package's requests for that are sent there.
    """
    stored = {}

    def store(repository, configuration, split, rows, revision=None, features=None):
        path = tmp_path / f"{len(stored)}.parquet"
        datasets.Dataset.from_list(rows, features=features).to_parquet(path)
        stored[repository, configuration, split, revision] = path

    def redirected(repository, configuration=None, *, split, revision=None):
        path = stored.get((repository, configuration, split, revision))
        if path is None:
            raise datasets.exceptions.DatasetNotFoundError(
                f"Dataset {repository!r} doesn't exist on the Hub.\nMore."
            )
        return load_dataset(
            "parquet", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache")
        )

    load_dataset = datasets.load_dataset
    monkeypatch.setattr(sources, "load_dataset", redirected)
    return store


def test_xnli(hub):
    label = datasets.ClassLabel(names=["entailment", "neutral", "contradiction"])
    text = datasets.Value("string")
    features = datasets.Features(premise=text, hypothesis=text, label=label)
    for language in ("fr", "sw"):
        rows = [
            dict(premise=f"{language} {i // 3}", hypothesis=str(i), label=(i + i // 3) % 3)
            for i in range(12)
        ]
        hub("facebook/xnli", language, "validation", rows, features=features)
    rows = mh.load_task("xnli", "fr", "hub")
    assert rows[5] == {"id": "5", "group": "1", "label": 0, "premise": "fr 1", "hypothesis": "5"}
    few = [mh.load_task("xnli", language, "hub", limit=7, seed=3) for language in ("fr", "sw")]
    assert few[0]["id"][:] == few[1]["id"][:]
    assert [few[0]["group"][:].count(group) for group in set(few[0]["group"])] == [3, 3]


def test_marc_drops_three_stars(hub):
    rows = [
        {
            "id": f"es_{stars}",
            "text": f"{stars} estrellas",
            "label": stars - 1,
            "label_text": str(stars - 1),
        }
        for stars in (5, 3, 1, 4, 3, 2)
    ]
    hub("SetFit/amazon_reviews_multi_es", None, "test", rows)
    rows = mh.load_task("marc", "es", "hub")
    assert rows["id"][:] == rows["group"][:] == ["es_5", "es_1", "es_4", "es_2"]
    assert rows["label"][:] == [1, 0, 1, 0]
    assert rows["text"][1] == "1 estrellas"


def test_sib200(hub, tmp_path):
    """Known by ``index_id``, in the configurations of FLORES-200, with categories by name."""
    topics = mh.TASKS["sib200"].labels
    rows = [
        {"index_id": 7 * n, "category": topics[n % 7], "text": f"Sentence {n}."} for n in range(21)
    ]
    for configuration in ("eng_Latn", "zho_Hans", "swh_Latn", "est_Latn"):
        hub("Davlan/sib200", configuration, "validation", rows)
    hub("Davlan/sib200", "eng_Latn", "test", rows[:1])
    got = mh.load_task("sib200", "en", "hub")
    assert got[5] == {"id": "35", "group": "35", "label": 5, "text": "Sentence 5."}
    assert topics[5] == "sports"
    for language in ("zh", "sw", "et"):
        few = mh.load_task("sib200", language, "hub", limit=14, seed=3)
        assert few["id"][:] == mh.load_task("sib200", "en", "hub", limit=14, seed=3)["id"][:]
        assert sorted(few["label"]) == sorted([*range(7), *range(7)])
    assert len(mh.load_task("sib200", "en", "hub", split="test")) == 1
    # The same rows in a folder, as on the hub or in the task's own form.
    own = {"id": 35, "text": "Sentence 5.", "label": "sports"}
    write_rows(tmp_path / "sib200" / "validation.en.jsonl", [rows[3], own])
    assert mh.load_task("sib200", "en", tmp_path)["label"][:] == [3, 5]
    hub("Davlan/sib200", "fra_Latn", "validation", [rows[0] | {"category": "weather"}])
    with pytest.raises(DataError, match="label is 'weather'; allowed: 0 to 6, or a name: enter"):
        mh.load_task("sib200", "fr", "hub")


def test_xcopa(hub):
    row = dict(
        premise="P.", choice1="A.", choice2="B.", question="effect", label=1, idx=17, changed=False
    )
    hub("cambridgeltl/xcopa", "sw", "validation", [row])
    hub("cambridgeltl/xcopa", "sw", "test", [row | {"label": 0}])
    (got,) = mh.load_task("xcopa", "sw", "hub")
    assert got["question"] == "effect" and got["label"] == 1 and got["choice2"] == "B."
    assert mh.load_task("xcopa", "sw", "hub", split="test")["label"][:] == [0]


def test_xstory_cloze(hub):
    sentences = {f"input_sentence_{i}": f"S{i}." for i in range(1, 5)}
    row = {
        "story_id": "a-b",
        **sentences,
        "sentence_quiz1": "Q1.",
        "sentence_quiz2": "Q2.",
        "answer_right_ending": 2,
    }
    hub("juletxara/xstory_cloze", "hi", "eval", [row], revision="refs/convert/parquet")
    (got,) = mh.load_task("xstory_cloze", "hi", "hub")
    assert got["premise"] == "S1. S2. S3. S4."
    assert [got["choice1"], got["choice2"], got["label"]] == ["Q1.", "Q2.", 1]


def test_ntrex(hub):
    columns = ("eng_Latn", "swa_Latn", "zho_Hans", "est_Latn", "arb_Arab", "hin_Deva")
    hub(
        "mteb/NTREX",
        None,
        "test",
        [{column: f"{column} {i}" for column in columns} for i in range(1997)],
    )
    rows = mh.load_parallel(["sw", "en", "zh", "et", "ar", "hi"], "hub")
    assert len(rows) == 1997
    assert (
        rows[1]["id"] == "ntrex-2"
        and rows[1]["sw"] == "swa_Latn 1"
        and rows[1]["et"] == "est_Latn 1"
    )
    dev, test = (mh.load_parallel(["en"], "hub", split=split)["en"][:] for split in ("dev", "test"))
    assert (len(dev), len(test)) == (600, 1397)
    assert not set(dev) & set(test)
    with pytest.raises(
        DataError, match="mteb/NTREX has no th, ja; it has columns eng_Latn, swa_Latn"
    ):
        mh.load_parallel(["en", "th", "ja"], "hub")


def test_flores_plus_is_aligned_by_id(hub):
    def rows(language, ids):
        return [
            {"id": i, "iso_639_3": language, "text": f"{language} {i}", "topic": "t"} for i in ids
        ]

    for split, ids in (("dev", [2, 0, 1]), ("devtest", [0, 1])):
        hub("openlanguagedata/flores_plus", "eng_Latn", split, rows("eng", ids))
        hub("openlanguagedata/flores_plus", "cmn_Hans", split, rows("cmn", ids[::-1]))
        hub("openlanguagedata/flores_plus", "swh_Latn", split, rows("swh", ids[1:]))
    both = mh.load_parallel(["en", "zh"], "hub", name="flores_plus")
    assert both["id"][:] == [
        "flores-dev-0",
        "flores-dev-1",
        "flores-dev-2",
        "flores-devtest-0",
        "flores-devtest-1",
    ]
    assert all(en.split()[1] == zh.split()[1] for en, zh in zip(both["en"], both["zh"]))
    splits = [
        mh.load_parallel(["en", "zh"], "hub", name="flores_plus", split=split)
        for split in ("dev", "test")
    ]
    assert splits[0]["id"][:] + splits[1]["id"][:] == both["id"][:]
    with pytest.raises(DataError, match="flores_plus has other sentences in 'sw' than in 'en'"):
        mh.load_parallel(["en", "sw"], "hub", name="flores_plus")


@pytest.mark.parametrize(
    "call", [lambda: mh.load_task("xcopa", "en", "hub"), lambda: mh.load_parallel(["en"], "hub")]
)
def test_what_the_hub_refuses_is_named_with_next_steps(hub, call):
    with pytest.raises(
        DataError,
        match=r"Cannot load \S+ \(.*\) from the hub: .*doesn't exist on the Hub. Check the network.*hf auth login",  # noqa: E501
    ):
        call()


def test_an_error_without_words_is_told_by_its_kind(monkeypatch):
    monkeypatch.setattr(
        sources, "load_dataset", lambda *_, **__: (_ for _ in ()).throw(TimeoutError())
    )
    with pytest.raises(DataError, match="from the hub: TimeoutError Check the network"):
        mh.load_task("xnli", "en", "hub")
