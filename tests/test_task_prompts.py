import pytest
from conftest import LANGUAGES

import mlprune_helpers as mh
from mlprune_helpers import data
from mlprune_helpers.prompts import task_prompts

# -- templates -------------------------------------------------------------------------------------

ROWS = {
    "nli": {"premise": "It rains.", "hypothesis": "It is wet.", "label": 0},
    "topics": {"text": "He scored twice.", "label": 0},
    "sib200": {"text": "He scored twice.", "label": 5},
    "reviews": {"text": "A fine book.", "label": 1},
    "stories": {
        "premise": "It rained.",
        "choice1": "The river rose.",
        "choice2": "The sun shone.",
        "question": "effect",
        "label": 0,
    },
    "xstory_cloze": {"premise": "One. Two.", "choice1": "Three.", "choice2": "Zero.", "label": 0},
}


def asked(task, template, language="en", **changes):
    rows = [{"id": "0", "group": "0", **ROWS[task], **changes}]
    (prompt,), (choices,) = task_prompts(task, rows, template=template, language=language)
    return [prompt + choice for choice in choices]


@pytest.mark.parametrize(
    ("task", "changes", "strings"),
    [
        (
            "nli",
            {},
            [
                "It rains. , right? Yes , It is wet.",
                "It rains. , right? Also , It is wet.",
                "It rains. , right? No , It is wet.",
            ],
        ),
        (
            "topics",
            {},
            [
                f"He scored twice.\nTopic: {word}"
                for word in ("sports", "politics", "health", "science", "travel", "food")
            ],
        ),
        (
            "sib200",
            {},
            [
                "He scored twice.\nTopic: entertainment",
                "He scored twice.\nTopic: geography",
                "He scored twice.\nTopic: health",
                "He scored twice.\nTopic: politics",
                "He scored twice.\nTopic: science",
                "He scored twice.\nTopic: sports",
                "He scored twice.\nTopic: travel",
            ],
        ),
        ("reviews", {}, ["A fine book. It is negative", "A fine book. It is positive"]),
        ("stories", {}, ["It rained so the river rose.", "It rained so the sun shone."]),
        (
            "stories",
            {"question": "cause"},
            ["It rained because the river rose.", "It rained because the sun shone."],
        ),
        ("xstory_cloze", {}, ["One. Two. Three.", "One. Two. Zero."]),
    ],
)
def test_the_papers_templates_are_the_default_in_every_language(task, changes, strings):
    for language in LANGUAGES:
        assert asked(task, "paper", language, **changes) == strings
    assert asked(task, "native", "en", **changes) == strings


def test_published_templates_are_those_of_the_papers_code():
    """Two spaces before the word; 128 words between spaces, which a Chinese text has not."""
    assert asked("nli", "published") == [
        "It rains. , right?  Yes , It is wet.",
        "It rains. , right?  Also , It is wet.",
        "It rains. , right?  No , It is wet.",
    ]
    assert asked("reviews", "published") == asked("reviews", "paper")
    assert asked("reviews", "published", text="word  " * 300) == [
        " ".join(["word"] * 128) + f" It is {label}" for label in ("negative", "positive")
    ]
    assert (
        asked("reviews", "published", "zh", text="字" * 2000)[1] == "字" * 2000 + " It is positive"
    )
    for task in ("xnli", "marc"):
        like = {"xnli": "nli", "marc": "reviews"}[task]
        assert data.TASKS[task].templates["published"] == data.TASKS[like].templates["published"]


def test_native_templates():
    assert asked("nli", "native", "fr")[0] == "It rains. , n'est-ce pas ? Oui , It is wet."
    assert asked("stories", "native", "zh", premise="下雨了。", choice1="河水上涨。", choice2="太阳出来了。") == [  # noqa: E501
        "下雨了，所以河水上涨。", "下雨了，所以太阳出来了。",
    ]  # fmt: skip
    assert asked("stories", "native", "de", question="cause") == [
        "It rained. Der Grund: The river rose.", "It rained. Der Grund: The sun shone.",
    ]  # fmt: skip


@pytest.mark.parametrize("task", ROWS)
@pytest.mark.parametrize("language", mh.BOOK_LANGUAGES)
def test_every_language_of_the_book_has_native_templates(task, language):
    strings = [
        s
        for question in ("cause", "effect")
        for s in asked(task, "native", language, question=question)
    ]
    assert all("{" not in s and s == s.strip() and "  " not in s for s in strings)
    assert len(set(strings[: len(strings) // 2])) == len(data.TASKS[task].labels)
    if language != "en" and task != "xstory_cloze":
        assert not set(strings) & set(asked(task, "paper"))


def test_long_reviews_are_cut_at_words_and_where_there_are_none_at_characters():
    assert (
        asked("reviews", "paper", text="word " * 300)[0]
        == " ".join(["word"] * 128) + " It is negative"
    )
    assert asked("reviews", "paper", text="字" * 2000)[0] == "字" * 768 + " It is negative"


def test_a_template_of_ones_own():
    own = {"prompt": "Is this good? {text}", "choices": [" No", " Yes"]}
    assert asked("reviews", own) == [
        "Is this good? A fine book. No",
        "Is this good? A fine book. Yes",
    ]


@pytest.mark.parametrize(
    ("template", "language", "named"),
    [
        ("pape", "en", "pape.*paper, published, native"),
        ("native", "th", "native template in 'th'.*fr"),
        ({"prompt": "{text}", "choices": ["a"]}, "en", "2 choices.*negative, positive"),
        ({"prompt": "{text}"}, "en", None),
    ],
)
def test_wrong_templates_are_named(template, language, named):
    with pytest.raises((ValueError, KeyError), match=named):
        asked("reviews", template, language)


def test_an_unknown_question_is_named():
    with pytest.raises(data.DataError, match="'reason'.*cause, effect"):
        asked("stories", "paper", question="reason")


def test_shots(folder):
    prompts = {}
    for language in LANGUAGES:
        rows = list(mh.load_task("xnli", language, folder))
        zero, choices = task_prompts("xnli", rows)
        prompts[language], same = task_prompts("xnli", rows, shots=2, seed=3)
        assert same == choices
        for row, plain, few in zip(rows, zero, prompts[language]):
            first, second, last = few.split("\n\n")
            assert last == plain
            solved = {p + c[r["label"]]: r["group"] for p, c, r in zip(zero, choices, rows)}
            assert solved[first] != row["group"] != solved[second] and first != second
        # One set of shots for all rows of a premise, so that what comes first is shared; other
        # premises see others.
        shown = [few.rpartition("\n\n")[0] for few in prompts[language]]
        assert all(shown[i] == shown[i - i % 3] for i in range(len(shown))) and len(set(shown)) > 2
    assert [p.replace("fr", "en") for p in prompts["fr"]] == prompts["en"]
    with pytest.raises(data.DataError, match="16 shots asked, but only 15"):
        task_prompts("xnli", rows, shots=16)


def test_content_free_keeps_shots_and_given_answers(folder):
    rows = list(mh.load_task("xcopa", "en", folder))
    prompts, choices = task_prompts("xcopa", rows, shots=1)
    blank, same = task_prompts("xcopa", rows, shots=1, content_free="N/A")
    assert same == choices
    for full, empty, row in zip(prompts, blank, rows):
        assert full.split("\n\n")[0] == empty.split("\n\n")[0] and empty.split("\n\n")[
            1
        ].startswith("N/A ")
        assert full.endswith(("because", "so")) and empty.endswith(full.split()[-1])
        assert row["premise"].startswith("The")  # the rows themselves stay
