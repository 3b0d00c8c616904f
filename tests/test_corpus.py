"""The built-in corpus.

Checked by machine: what no reader would notice and what would spoil a measurement.

Bounds on rules that must not work (longer, shorter, shared words) are stated beside chance, with
the number of rows.
"""

import itertools
import re
import unicodedata
from collections import Counter

import numpy as np
import pytest
from scipy.stats import spearmanr

import mlprune_helpers as mh
from mlprune_helpers.translation import right_language

LANGUAGES = mh.BOOK_LANGUAGES
TRANSLATIONS = [language for language in LANGUAGES if language != "en"]
FIELDS = {
    "nli": ("premise", "hypothesis"),
    "reviews": ("text",),
    "stories": ("premise", "choice1", "choice2"),
    "topics": ("text",),
}
ROWS = {"nli": 90, "reviews": 80, "stories": 80, "topics": 120}
#: What would name one of the topics: its label, words of the same stem, and the native label.
TOPIC_WORDS = {
    "en": r"\b(sport|politi|health|scien|travel|food)",
    "fr": r"\b(sport|politi|sant[ée]|sanitaire|scien|voyag|aliment|nourri)",
    "es": r"\b(deport|pol[ií]tic|salud|sanitari|cien(ci|tí)|viaj|comida|aliment)",
    "de": r"(?<!tran)sport|\bpoliti|gesund|wissenschaft|\b(ab|an|ein|rück|ver)?reis(e|t)"
    r"|(\b|abend|mittag)essen\b|gegessen",
    "zh": "体育|运动|政治|健康|卫生|科学|旅行|旅游|旅客|饮食|食物|食品|美食",
    "hi": r"खेल|राजनी|राजनै|सियास|स्वास्थ्य|सेहत|स्वस्थ|विज्ञान|वैज्ञानिक|यात्र|भोजन|\bखान[ाे]\b",
    "sw": "mchezo|michezo|siasa|afya|sayansi|safari|safiri|chakula|vyakula",
}
SCRIPTS = {"zh": "CJK UNIFIED", "hi": "DEVANAGARI"}
ENDS = {"zh": "。？！”", "hi": '।?!"”'}

every_language = pytest.mark.parametrize("language", LANGUAGES)
every_translation = pytest.mark.parametrize("language", TRANSLATIONS)
every_task = pytest.mark.parametrize("task", FIELDS)


def sentences(language: str, split: str | None = None) -> list[str]:
    return mh.load_parallel([language], split=split)[language][:]


def task_texts(language: str) -> dict[str, str]:
    """Every text of the tasks in a language by the place where it stands.

    A premise of three rows once.
    """
    texts = {}
    for task, fields in FIELDS.items():
        for row in mh.load_task(task, language):
            for field in fields:
                place = row["group"] if field == "premise" else row["id"]
                texts[f"{task} {place} {field}"] = row[field]
    return texts


def all_texts(language: str) -> dict[str, str]:
    lines = {f"sentences {i}": text for i, text in enumerate(sentences(language), start=1)}
    return lines | task_texts(language)


def length(text: str, language: str) -> int:
    """In words; in characters where words are not separated."""
    return len(text) if language == "zh" else len(text.split())


def words(text: str, language: str) -> set[str]:
    """Longer words, without the case; in Chinese, pairs of neighbouring characters."""
    if language == "zh":
        return {a + b for a, b in itertools.pairwise(re.findall(r"[\u4e00-\u9fff]", text))}
    plain = re.sub(r"[^\w\s\u0900-\u097f]", " ", text.lower())
    return {word for word in plain.split() if len(word) > 3}


# -- what is there ---------------------------------------------------------------------------------


def test_sentences_are_180_in_every_language_split_140_to_40():
    rows = mh.load_parallel(LANGUAGES)
    assert len(rows) == 180
    assert rows.column_names == ["id", *LANGUAGES]
    dev, test = (mh.load_parallel(LANGUAGES, split=split) for split in ("dev", "test"))
    assert (len(dev), len(test)) == (140, 40)
    assert not set(dev["id"]) & set(test["id"])


@every_language
@every_task
def test_tasks_have_all_rows_and_balanced_labels(task, language):
    rows = mh.load_task(task, language)
    labels = Counter(rows["label"])
    assert len(rows) == ROWS[task] == len(set(rows["id"]))
    assert labels == dict.fromkeys(
        range(len(mh.TASKS[task].labels)), ROWS[task] // len(mh.TASKS[task].labels)
    )


@every_translation
@every_task
def test_rows_are_the_same_examples_in_every_language(task, language):
    english, rows = mh.load_task(task, "en"), mh.load_task(task, language)
    for column in {"id", "group", "label", "question"} & set(english.column_names):
        assert rows[column][:] == english[column][:]


def test_nli_has_every_label_once_a_premise_in_every_order():
    rows = mh.load_task("nli", "en")
    groups = {}
    for row in rows:
        groups.setdefault(row["group"], []).append(row)
    assert len(groups) == 30
    orders = Counter(tuple(row["label"] for row in group) for group in groups.values())
    assert orders == dict.fromkeys(itertools.permutations(range(3)), 5)


@every_language
def test_nli_rows_of_a_group_share_their_premise_and_no_others_do(language):
    rows = mh.load_task("nli", language)
    pairs = {(row["group"], row["premise"]) for row in rows}
    assert (
        len(pairs)
        == len({group for group, _ in pairs})
        == len({premise for _, premise in pairs})
        == 30
    )


def test_stories_are_balanced_by_question_and_label():
    rows = mh.load_task("stories", "en")
    assert Counter(zip(rows["question"], rows["label"])) == dict.fromkeys(
        itertools.product(["cause", "effect"], [0, 1]), 20
    )


@pytest.mark.parametrize("task", ["reviews", "stories", "topics"])
def test_labels_follow_no_pattern(task):
    """As many changes between neighbours as chance has, within 3 standard errors."""
    labels = np.array(mh.load_task(task, "en")["label"])
    chance = 1 - 1 / len(mh.TASKS[task].labels)
    error = np.sqrt(chance * (1 - chance) / (len(labels) - 1))
    assert abs((labels[1:] != labels[:-1]).mean() - chance) < 3 * error
    assert max(len(list(run)) for _, run in itertools.groupby(labels)) <= 8


# -- how it is written -----------------------------------------------------------------------------


@every_language
def test_texts_are_clean(language):
    wrong = {}
    for place, text in all_texts(language).items():
        problems = [
            "empty" if not text.strip() else "",
            "space at an end or twice" if text != " ".join(text.split()) else "",
            "not in normal form C" if unicodedata.normalize("NFC", text) != text else "",
            "control character"
            if any(unicodedata.category(c) in ("Cc", "Co", "Cn") for c in text)
            else "",
            "no full stop" if text[-1:] not in ENDS.get(language, '.?!»“”"') else "",
            "two full stops" if re.search(r"[.。।]{2,}", text) else "",
            "space before punctuation" if re.search(r" [,.。]", text) else "",
        ]
        if any(problems):
            wrong[place] = [*filter(None, problems), text]
    assert not wrong


@every_language
def test_texts_are_in_their_script(language):
    script = SCRIPTS.get(language, "LATIN")
    wrong = {}
    for place, text in all_texts(language).items():
        letters = [c for c in text if unicodedata.category(c)[0] == "L"]
        if not letters or any(script not in unicodedata.name(c) for c in letters):
            wrong[place] = text
    assert not wrong
    if language == "zh":
        assert not [text for text in all_texts("zh").values() if re.search(r"[ ,.?!;:]", text)]


@every_language
def test_texts_are_in_their_language(language):
    """Single short texts of one language may pass for another.

    All of five together must be right, and nearly all alone.
    """
    texts = list(all_texts(language).values())
    together = [" ".join(texts[i : i + 5]) for i in range(0, len(texts), 5)]
    assert right_language(together, language).all(), np.array(together)[
        ~right_language(together, language)
    ]
    long = [text for text in texts if length(text, language) >= 8]
    right = right_language(long, language)
    assert right.mean() > 0.98, np.array(long)[~right]


@every_translation
def test_nothing_is_left_in_english(language):
    english, texts = all_texts("en"), all_texts(language)
    assert not [place for place in texts if texts[place] == english[place]]
    if language not in SCRIPTS:
        # Words of four letters or more may be the same (names, animal, hotel), but not most of
        # them.
        same = {
            place: words(texts[place], language) & words(english[place], "en") for place in texts
        }
        assert not {
            p: s for p, s in same.items() if len(s) > max(2, 0.6 * len(words(english[p], "en")))
        }


# -- alignment -------------------------------------------------------------------------------------


@every_translation
def test_numbers_agree_with_english(language):
    def numbers(text: str) -> Counter:
        joined = re.sub(r"(?<=\d)[.,\s\u202f\u00a0](?=\d{3}\b)", "", text)
        return Counter(re.findall(r"\d+", joined))

    english, texts = all_texts("en"), all_texts(language)
    assert texts.keys() == english.keys()
    assert not {
        p: (english[p], texts[p]) for p in texts if numbers(texts[p]) != numbers(english[p])
    }


@every_translation
def test_lengths_go_with_english(language):
    english, texts = all_texts("en"), all_texts(language)
    ratios = {place: len(texts[place]) / len(english[place]) for place in english}
    middle = np.median(list(ratios.values()))
    assert not {
        p: (english[p], texts[p]) for p, ratio in ratios.items() if not 0.5 < ratio / middle < 1.9
    }


@every_translation
def test_lines_are_not_shifted(language):
    """Lengths of translations follow those of the sentences, and do not follow those of the next."""  # noqa: E501
    own, english = ([len(text) for text in sentences(code)] for code in (language, "en"))
    assert spearmanr(own, english).statistic > 0.55
    assert abs(spearmanr(own, np.roll(english, 1)).statistic) < 0.3


@every_translation
def test_questions_stay_questions(language):
    marks = ("?", "？")
    pairs = zip(all_texts("en").items(), all_texts(language).values())
    assert not [
        place for (place, english), text in pairs if english.endswith(marks) != text.endswith(marks)
    ]


# -- nothing twice ---------------------------------------------------------------------------------


def shingles(text: str, n: int) -> set[str]:
    plain = "".join(c for c in text.lower() if unicodedata.category(c)[0] in "LMN")
    return {plain[i : i + n] for i in range(max(1, len(plain) - n + 1))}


@every_language
def test_no_text_is_nearly_another(language):
    """Less than half of the character sequences shared.

    The choices and hypotheses of one example may be closer.
    """
    texts = all_texts(language)
    sets = {place: shingles(text, 2 if language == "zh" else 5) for place, text in texts.items()}
    near = []
    for (a, one), (b, other) in itertools.combinations(sets.items(), 2):
        if a.split()[0] != "sentences" and re.split(r"[ -]", a)[:2] == re.split(r"[ -]", b)[:2]:
            continue
        if len(one & other) >= 0.5 * len(one | other):
            near.append((a, texts[a], b, texts[b]))
    assert not near


@every_language
def test_choices_and_hypotheses_of_an_example_differ(language):
    assert all(row["choice1"] != row["choice2"] for row in mh.load_task("stories", language))
    hypotheses = mh.load_task("nli", language)["hypothesis"][:]
    assert len(set(hypotheses)) == len(hypotheses)


def test_dev_and_test_share_no_subject():
    """In English, no test sentence has half of its rarer words in one dev sentence."""
    count = Counter(word for text in sentences("en") for word in words(text, "en"))
    rare = [{w for w in words(text, "en") if count[w] < 5} for text in sentences("en")]
    near = [
        (i, j)
        for i in range(140)
        for j in range(140, 180)
        if len(rare[i] & rare[j]) >= max(2, 0.5 * len(rare[j]))
    ]
    assert not near


def test_english_sentences_are_of_a_length_and_begin_differently():
    lines = sentences("en")
    assert not [line for line in lines if not 8 <= length(line, "en") <= 25]
    starts = Counter(tuple(re.findall(r"[\w']+", line.lower())[:3]) for line in lines)
    assert not [start for start, n in starts.items() if n > 1]


# -- labels are not told by form -------------------------------------------------------------------


def preferred(values: np.ndarray) -> np.ndarray:
    """(n, 2) → per row 1 where the second is larger, 0 where the first is, 0.5 in a tie."""
    return (np.sign(values[:, 1] - values[:, 0]) + 1) / 2


def nli_rule_accuracy(values: np.ndarray, labels: np.ndarray) -> float:
    """The best way to give labels to the three hypotheses of a premise by the rank of a value.

    (30, 3) both.

    A value that knows nothing reaches 0.42, as the best of six ways is taken, and in one of a
    thousand draws 0.56.
    """
    ranks = values.argsort(axis=1, kind="stable").argsort(axis=1)
    return max((np.array(way)[ranks] == labels).mean() for way in itertools.permutations(range(3)))


def nli_table(language: str, value) -> tuple[np.ndarray, np.ndarray]:
    rows = list(mh.load_task("nli", language))
    return np.array([value(row) for row in rows]).reshape(30, 3), np.array(
        [row["label"] for row in rows]
    ).reshape(30, 3)


def shared(row: dict, field: str, language: str) -> float:
    """Share of a text's words that the premise has."""
    own = words(row[field], language)
    return len(own & words(row["premise"], language)) / max(1, len(own))


@every_language
def test_nli_labels_are_not_told_by_length(language):
    assert (
        nli_rule_accuracy(*nli_table(language, lambda row: length(row["hypothesis"], language)))
        < 0.56
    )


@every_language
def test_nli_labels_are_not_told_by_shared_words(language):
    """Neutral hypotheses bring in what the premise does not say, and so share fewer words.

    Told, but not reliably.
    """
    assert (
        nli_rule_accuracy(*nli_table(language, lambda row: shared(row, "hypothesis", language)))
        < 0.7
    )


def test_english_negations_do_not_tell_the_label():
    """Five rows of 30 are 1.2 standard errors of a difference at the usual rates."""
    negation = re.compile(
        r"\b(not|no|never|nobody|nothing|none|neither|nor|cannot|without)\b|n['’]t\b", re.IGNORECASE
    )
    values, labels = nli_table("en", lambda row: bool(negation.search(row["hypothesis"])))
    counts = [int(values[labels == label].sum()) for label in range(3)]
    assert min(counts) >= 1
    assert max(counts) - min(counts) <= 5


def test_english_lengths_by_label():
    values, labels = nli_table("en", lambda row: length(row["hypothesis"], "en"))
    means = [values[labels == label].mean() for label in range(3)]
    assert max(means) - min(means) <= 0.7
    reviews = mh.load_task("reviews", "en").to_pandas()
    positive, negative = (
        reviews.text[reviews.label == label].str.split().str.len().mean() for label in (1, 0)
    )
    assert abs(positive - negative) <= 1.5


@every_language
def test_hypothesis_words_alone_do_not_tell_the_label(language):
    """Naive Bayes on the hypotheses, each premise left out in turn: chance 1/3, SE 0.05."""
    rows = list(mh.load_task("nli", language))
    # Here short words count too: they are what gives labels away.
    bags = [words(r["hypothesis"], language) | set(r["hypothesis"].lower().split()) for r in rows]
    labels = np.array([row["label"] for row in rows])
    vocabulary = {word: i for i, word in enumerate(sorted(set().union(*bags)))}
    counts = np.zeros((90, len(vocabulary)))
    for i, bag in enumerate(bags):
        counts[i, [vocabulary[word] for word in bag]] = 1
    right = 0
    for held in range(0, 90, 3):
        train = np.r_[0:held, held + 3 : 90]
        seen = np.array(
            [counts[train][labels[train] == label].sum(axis=0) + 1 for label in range(3)]
        )
        scores = counts[held : held + 3] @ np.log(seen / 31).T
        right += (scores.argmax(axis=1) == labels[held : held + 3]).sum()
    assert right / 90 < 0.47


@every_language
def test_review_labels_are_not_told_by_length(language):
    """The best threshold, in the better direction.

    Lengths that know nothing reach 0.59, one time in a hundred 0.66.
    """
    rows = mh.load_task("reviews", language)
    lengths, labels = (
        np.array([length(text, language) for text in rows["text"]]),
        np.array(rows["label"]),
    )
    accuracies = [((lengths >= cut) == labels).mean() for cut in np.unique(lengths)]
    assert max(max(accuracies), 1 - min(accuracies)) < 0.66


def test_topic_texts_are_of_a_length():
    lengths = [length(text, "en") for text in mh.load_task("topics", "en")["text"]]
    assert not [n for n in lengths if not 15 <= n <= 35]


@every_language
def test_topics_are_not_told_by_length(language):
    """Nearest mean length, each text left out in turn: chance 1/6, SE 0.034."""
    rows = mh.load_task("topics", language)
    lengths = np.array([length(text, language) for text in rows["text"]])
    labels = np.array(rows["label"])
    right = 0
    for held in range(len(labels)):
        others = np.arange(len(labels)) != held
        means = [lengths[others & (labels == label)].mean() for label in range(6)]
        right += np.abs(np.array(means) - lengths[held]).argmin() == labels[held]
    assert right / len(labels) < 1 / 6 + 3 * 0.034


@every_language
def test_topics_are_not_named_in_any_text(language):
    """Not in their own texts, where it would answer, nor in others, where it would mislead."""
    named = re.compile(TOPIC_WORDS[language], re.IGNORECASE)
    words_of_choices = mh.TASKS["topics"].templates["native"][language]["choices"]
    assert all(named.search(word) for word in words_of_choices)  # the pattern knows them
    assert not [text for text in mh.load_task("topics", language)["text"] if named.search(text)]


@every_language
def test_story_choices_are_not_told_by_length(language):
    """Chance 0.5, SE 0.056: the rule and its opposite stay within 2.7 of them."""
    rows = list(mh.load_task("stories", language))
    lengths = np.array([[length(row[c], language) for c in ("choice1", "choice2")] for row in rows])
    longer, labels = preferred(lengths), np.array([row["label"] for row in rows])
    assert 0.35 < 1 - np.abs(longer - labels).mean() < 0.65


@every_language
def test_story_choices_are_not_told_by_shared_words(language):
    rows = list(mh.load_task("stories", language))
    overlaps = np.array(
        [[shared(row, c, language) for c in ("choice1", "choice2")] for row in rows]
    )
    more, labels = preferred(overlaps), np.array([row["label"] for row in rows])
    assert 0.35 < 1 - np.abs(more - labels).mean() < 0.65


# -- calibration sees no test text -----------------------------------------------------------------


def test_sentences_and_tasks_share_no_wording():
    """In English, no task text has half of its rarer words, and at least three, from one of the sentences."""  # noqa: E501
    lines, texts = sentences("en"), task_texts("en")
    count = Counter(word for text in [*lines, *texts.values()] for word in words(text, "en"))
    rare = [{word for word in words(text, "en") if count[word] < 10} for text in lines]
    near = []
    for place, text in texts.items():
        own = {word for word in words(text, "en") if count[word] < 10}
        near += [
            (place, text, line)
            for line, some in zip(lines, rare)
            if len(own & some) >= max(3, 0.5 * len(own))
        ]
    assert not near
