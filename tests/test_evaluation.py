import json

import numpy as np
import pytest
import torch
from datasets import Dataset

import mlprune_helpers as mh
from mlprune_helpers import data, evaluation
from mlprune_helpers.hooks import residual_stream
from mlprune_helpers.prompts import task_prompts

LANGUAGES = ("en", "fr", "sw")
NOUNS = ["cat", "river", "letter", "chair", "window", "brother"]


def nli_rows(language, n=18):
    rows = [{"premise": f"The {NOUNS[i // 3]} {language} is old.", "hypothesis": f"It is {word}", "label": (i + i // 3) % 3}
            for i, word in zip(range(n), ["old", "young", "red"] * n)]  # fmt: skip
    return rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Tasks laid out as any folder of data is."""
    root = tmp_path_factory.mktemp("data")

    def write(task, split, language, rows):
        (root / task).mkdir(exist_ok=True)
        text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
        (root / task / f"{split}.{language}.jsonl").write_text(text, encoding="utf-8")

    for language in LANGUAGES:
        write("xnli", "validation", language, nli_rows(language))
        n = {"en": 10, "fr": 15, "sw": 10}[language]
        write("marc", "test", language, [{"text": f"{language} {NOUNS[i % 6]} {i}", "stars": i % 5 + 1} for i in range(n)])
        causes = [{"premise": f"The {x} fell.", "choice1": "It rained.", "choice2": "The sun shone.",
                   "question": ["cause", "effect"][i % 2], "label": i % 2} for i, x in enumerate(NOUNS)]  # fmt: skip
        write("xcopa", "validation", language, causes)
        story = {f"input_sentence_{i}": f"Part {i}." for i in range(1, 5)}
        quiz = {"sentence_quiz1": "It ended.", "sentence_quiz2": "It began.", "answer_right_ending": 2}
        write("xstory_cloze", "eval", language, [story | quiz])
    return root


# -- templates --------------------------------------------------------------------------------------------------

ROWS = {
    "nli": {"premise": "It rains.", "hypothesis": "It is wet.", "label": 0},
    "reviews": {"text": "A fine book.", "label": 1},
    "stories": {"premise": "It rained.", "choice1": "The river rose.", "choice2": "The sun shone.", "question": "effect", "label": 0},
    "xstory_cloze": {"premise": "One. Two.", "choice1": "Three.", "choice2": "Zero.", "label": 0},
}


def asked(task, template, language="en", **changes):
    rows = [{"id": "0", "group": "0", **ROWS[task], **changes}]
    (prompt,), (choices,) = task_prompts(task, rows, template=template, language=language)
    return [prompt + choice for choice in choices]


@pytest.mark.parametrize(
    ("task", "changes", "strings"),
    [
        ("nli", {}, ["It rains. , right? Yes , It is wet.", "It rains. , right? Also , It is wet.", "It rains. , right? No , It is wet."]),
        ("reviews", {}, ["A fine book. It is negative", "A fine book. It is positive"]),
        ("stories", {}, ["It rained so the river rose.", "It rained so the sun shone."]),
        ("stories", {"question": "cause"}, ["It rained because the river rose.", "It rained because the sun shone."]),
        ("xstory_cloze", {}, ["One. Two. Three.", "One. Two. Zero."]),
    ],
)
def test_the_papers_templates_are_the_default_in_every_language(task, changes, strings):
    for language in LANGUAGES:
        assert asked(task, "paper", language, **changes) == strings
    assert asked(task, "native", "en", **changes) == strings


def test_native_templates():
    assert asked("nli", "native", "fr")[0] == "It rains. , n'est-ce pas ? Oui , It is wet."
    assert asked("stories", "native", "zh", premise="下雨了。", choice1="河水上涨。", choice2="太阳出来了。") == [
        "下雨了，所以河水上涨。", "下雨了，所以太阳出来了。",
    ]  # fmt: skip
    assert asked("stories", "native", "de", question="cause") == [
        "It rained. Der Grund: The river rose.", "It rained. Der Grund: The sun shone.",
    ]  # fmt: skip


@pytest.mark.parametrize("task", ROWS)
@pytest.mark.parametrize("language", mh.BOOK_LANGUAGES)
def test_every_language_of_the_book_has_native_templates(task, language):
    strings = [s for question in ("cause", "effect") for s in asked(task, "native", language, question=question)]
    assert all("{" not in s and s == s.strip() and "  " not in s for s in strings)
    assert len(set(strings[: len(strings) // 2])) == len(data.TASKS[task].labels)
    if language != "en" and task != "xstory_cloze":
        assert not set(strings) & set(asked(task, "paper"))


def test_long_reviews_are_cut_at_words_and_where_there_are_none_at_characters():
    assert asked("reviews", "paper", text="word " * 300)[0] == " ".join(["word"] * 128) + " It is negative"
    assert asked("reviews", "paper", text="字" * 2000)[0] == "字" * 768 + " It is negative"


def test_a_template_of_ones_own():
    own = {"prompt": "Is this good? {text}", "choices": [" No", " Yes"]}
    assert asked("reviews", own) == ["Is this good? A fine book. No", "Is this good? A fine book. Yes"]


@pytest.mark.parametrize(
    ("template", "language", "named"),
    [
        ("pape", "en", "pape.*paper, native"),
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
        # One set of shots for all rows of a premise, so that what comes first is shared; other premises see others.
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
        assert full.split("\n\n")[0] == empty.split("\n\n")[0] and empty.split("\n\n")[1].startswith("N/A ")
        assert full.endswith(("because", "so")) and empty.endswith(full.split()[-1])
        assert row["premise"].startswith("The")  # the rows themselves stay


# -- evaluation -------------------------------------------------------------------------------------------------


def by_hand(lm, string):
    """Mean log-likelihood of a string from one forward pass."""
    ids = torch.tensor([lm.tokenizer(string)["input_ids"]])
    with torch.no_grad():
        logits = lm.model(ids).logits.double().log_softmax(-1)
    return float(logits[0, :-1].gather(1, ids[0, 1:, None]).mean())


@pytest.mark.parametrize("task", ["xnli", "marc", "xcopa", "xstory_cloze"])
def test_every_task_from_a_folder(one_lm, folder, task):
    result = mh.evaluate(one_lm, task, "fr", folder)
    rows = list(mh.load_task(task, "fr", folder))
    prompts, choices = task_prompts(task, rows)
    assert result.rows == [row["id"] for row in rows] and result.groups == [row["group"] for row in rows]
    assert result.labels.tolist() == [row["label"] for row in rows]
    for n in (0, len(rows) - 1):
        assert result.scores[n] == pytest.approx([by_hand(one_lm, prompts[n] + c) for c in choices[n]], abs=1e-4)
    assert result.accuracy == np.mean([np.argmax(s) == row["label"] for s, row in zip(result.scores, rows)])
    assert sum(result.label_distribution.values()) == pytest.approx(1)
    assert result.settings["fingerprint"] == one_lm.fingerprint and result.settings["template"] == "paper"


def test_marc_is_binary_without_three_stars(folder):
    rows = list(mh.load_task("marc", "en", folder))
    assert [row["label"] for row in rows] == [0, 0, 1, 1] * 2 and len(rows) == 8


def test_a_row_cut_is_counted(one_lm, folder):
    result = mh.evaluate(one_lm, "xnli", "en", folder, max_length=30)
    long = [len(one_lm.tokenizer(f"{r['premise']} , right? Yes , {r['hypothesis']}")["input_ids"]) - 31 for r in nli_rows("en")]
    assert result.n_cut[:, 0].tolist() == [max(0, x) for x in long] and max(long) > 0
    assert result.table()["n_cut"].max() == result.n_cut.max()
    assert mh.summarise([result])["n_cut"].tolist() == [(result.n_cut.max(1) > 0).sum()]


def test_contextual_calibration_by_hand(one_lm, folder):
    result = mh.evaluate(one_lm, "xnli", "en", folder)
    shares = []
    for text in ("N/A", "[MASK]", ""):
        strings = [f"{text} , right? {word} , {text}" for word in ("Yes", "Also", "No")]
        sums = np.array([by_hand(one_lm, s) * (len(one_lm.tokenizer(s)["input_ids"]) - 1) for s in strings])
        shares.append(np.exp(sums - sums.max()) / np.exp(sums - sums.max()).sum())
    n = np.array([[len(one_lm.tokenizer(f"{r['premise']} , right? {w} , {r['hypothesis']}")["input_ids"]) - 1
                   for w in ("Yes", "Also", "No")] for r in nli_rows("en")])  # fmt: skip
    assert np.array_equal(result.n_tokens, n)
    expected = (result.scores * n - np.log(np.mean(shares, axis=0))).argmax(1)
    assert result.predict("contextual").tolist() == expected.tolist() != result.predictions.tolist()
    sums = mh.evaluate(one_lm, "xnli", "en", folder, reduction="sum")
    assert sums.predict("contextual").tolist() == expected.tolist()  # it does not depend on how the raw score is reduced
    assert result.predict("batch").tolist() == sums.predict("batch").tolist() == mh.batch_calibrated(result.scores * n).argmax(1).tolist()


def test_contextual_calibration_where_every_row_has_its_own(one_lm, folder):
    assert mh.evaluate(one_lm, "xcopa", "en", folder).content_free is None
    with pytest.raises(ValueError, match="contextual=True"):
        mh.evaluate(one_lm, "xcopa", "en", folder).predict("contextual")
    asked_for = mh.evaluate(one_lm, "xcopa", "en", folder, contextual=True)
    assert asked_for.content_free.shape == (3, 6, 2)
    string = "N/A because it rained."
    assert asked_for.content_free[0, 0, 0] == pytest.approx(by_hand(one_lm, string) * (len(one_lm.tokenizer(string)["input_ids"]) - 1), abs=1e-3)
    assert mh.evaluate(one_lm, "xnli", "en", folder, contextual=False).content_free is None
    with pytest.raises(ValueError, match="batched.*batch"):
        asked_for.predict("batched")


def test_saved_and_read_again(one_lm, folder, tmp_path):
    result = mh.evaluate(one_lm, "xnli", "fr", folder, limit=7, shots=1)
    result.save(tmp_path / "fr.json")
    assert [p.name for p in tmp_path.iterdir()] == ["fr.json"]
    again = mh.Evaluation.load(tmp_path / "fr.json")
    for name, value in vars(result).items():
        assert np.array_equal(getattr(again, name), value) if isinstance(value, np.ndarray) else getattr(again, name) == value
    assert again.table().equals(result.table())
    table = result.table()
    assert list(table["group"].value_counts()) == [3, 3]  # whole premises
    assert np.array_equal(table[["score_entailment", "score_neutral", "score_contradiction"]], result.scores)
    assert (table["correct"] == (table["prediction"] == table["label"])).all()


# -- comparisons ------------------------------------------------------------------------------------------------


def made(language, correct, task="xnli", groups=None, **settings):
    """An evaluation whose raw predictions are right where ``correct`` says so."""
    labels = np.arange(len(correct)) % 2
    scores = np.zeros((len(correct), 2 if task == "marc" else 3))
    scores[np.arange(len(correct)), np.where(correct, labels, 1 - labels)] = 1.0
    rows = [str(i) for i in range(len(correct))]
    groups = groups or [str(i // 3) for i in range(len(correct))]
    settings = {"reduction": "mean", "seed": 0, "model": "m", "fingerprint": "f", **settings}
    ones = np.ones_like(scores, dtype=int)
    return mh.Evaluation(task, language, scores, labels, rows, groups, settings, n_tokens=ones, n_cut=0 * ones)


def test_summary_by_hand(rng):
    correct = {language: rng.random(60) < share for language, share in zip(LANGUAGES, (0.9, 0.5, 0.4))}
    evaluations = [made(language, c) for language, c in correct.items()]
    table = mh.summarise(evaluations).set_index("language")
    assert list(table.index) == [*LANGUAGES, "average"]
    for e in evaluations:
        assert table.loc[e.language, "accuracy"] == correct[e.language].mean() == e.accuracy
        assert tuple(table.loc[e.language, ["low", "high"]]) == mh.bootstrap_interval(e.correct, groups=e.groups)
        assert table.loc[e.language, "accuracy_batch"] == e.calibrated.mean()
    assert table.loc["average", "accuracy"] == pytest.approx(np.mean([c.mean() for c in correct.values()]))
    # A premise is drawn in all languages at once: the interval is that of the premises' means over languages.
    joint = mh.bootstrap_interval(np.mean(list(correct.values()), axis=0), groups=evaluations[0].groups)
    assert tuple(table.loc["average", ["low", "high"]]) == pytest.approx(joint)
    assert table.loc["average", "n"] == 180 and table.loc["average", "n_groups"] == 20
    assert table.loc["en", "share_neutral"] == pytest.approx((evaluations[0].predictions == 1).mean())


def test_comparison_by_hand(rng):
    before = [made(language, rng.random(90) < 0.4) for language in LANGUAGES]
    after = [made(language, e.correct | (rng.random(90) < gain)) for language, e, gain in zip(LANGUAGES, before, (0.4, 0.05, 0))]
    table = mh.compare(before, after, n_resamples=2000)
    assert set(table["calibration"]) == {"raw", "batch"}
    raw = table[table["calibration"] == "raw"].set_index("language")
    for a, b in zip(before, after):
        alone = mh.paired_bootstrap(a.correct, b.correct, groups=a.groups, n_resamples=2000)
        assert raw.loc[a.language, "difference"] == pytest.approx(b.accuracy - a.accuracy)
        assert tuple(raw.loc[a.language, ["low", "high", "p_value"]]) == (alone.low, alone.high, alone.p_value)
    assert raw.loc[list(LANGUAGES), "p_holm"].tolist() == mh.holm(raw.loc[list(LANGUAGES), "p_value"]).tolist()
    assert np.isnan(raw.loc["average", "p_holm"])
    together = mh.paired_bootstrap(
        np.mean([e.correct for e in before], axis=0), np.mean([e.correct for e in after], axis=0), groups=before[0].groups, n_resamples=2000
    )
    assert tuple(raw.loc["average", ["difference", "low", "high", "p_value"]]) == pytest.approx(
        (together.difference, together.low, together.high, together.p_value)
    )
    batch = table[table["calibration"] == "batch"].set_index("language")
    assert batch.loc["en", "difference"] == pytest.approx(after[0].calibrated.mean() - before[0].calibrated.mean())


def test_rows_of_a_task_that_is_not_parallel_are_not_joined(rng):
    before, after = ([made(language, rng.random(40) < p, task="marc") for language in ("en", "fr")] for p in (0.4, 0.6))
    table = mh.compare(before, after, n_resamples=200)
    assert table.loc[table["language"] == "average", "n_groups"].tolist() == [28, 28]
    with pytest.raises(ValueError, match=r"marc.*no parallel rows.*Parallel tasks: nli"):
        before[0].rank_consistency(before[1])


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (dict(language="fr"), "language differs"),
        (dict(seed=1), "seed differs"),
        (dict(reduction="sum"), "reduction differs"),
        (dict(correct=[True] * 5), "rows differs"),
    ],
)
def test_only_like_is_compared(other, named):
    first = {"language": "en", "correct": [True] * 6}
    with pytest.raises(ValueError, match=named):
        mh.compare([made(**first)], [made(**first | other)])
    assert len(mh.compare([made(**first)], [made(**first, model="n", fingerprint="g")], n_resamples=10)) == 2
    with pytest.raises(ValueError, match="1 evaluations before and 0 after"):
        mh.compare([made(**first)], [])


def test_rank_consistency_of_parallel_rows_only(one_lm, folder):
    en, fr = (mh.evaluate(one_lm, "xnli", language, folder) for language in ("en", "fr"))
    assert en.rank_consistency(fr) == mh.rank_consistency(en.scores, fr.scores)
    assert en.rank_consistency(fr, per_row=True).shape == (18,)
    fewer = mh.evaluate(one_lm, "xnli", "fr", folder, limit=6)
    with pytest.raises(ValueError, match="no parallel rows.*same limit and seed"):
        en.rank_consistency(fewer)


# -- translation ------------------------------------------------------------------------------------------------


class Typist:
    """Stands in for ``generate``: types a given text, a token at a time, until the stopping criteria say so."""

    def __init__(self, lm, texts):
        self.lm, self.texts, self.batches, self.steps = lm, texts, [], 0

    def __call__(self, input_ids, attention_mask, max_new_tokens, stopping_criteria, pad_token_id, **options):
        prompts = [self.lm.tokenizer.decode(row[m.bool()], skip_special_tokens=True) for row, m in zip(input_ids, attention_mask)]
        self.batches.append(prompts)
        texts = [next(text for key, text in self.texts.items() if key in p.rsplit("French:", 1)[1]) for p in prompts]
        ids = [self.lm.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        for step in range(max_new_tokens):
            column = torch.tensor([[row[step] if step < len(row) else pad_token_id] for row in ids])
            input_ids, self.steps = torch.cat([input_ids, column], dim=1), self.steps + 1
            if stopping_criteria(input_ids, None).all():
                break
        return input_ids


def test_a_made_up_pair_is_never_part_of_a_translation(one_lm, monkeypatch):
    typed = {
        "un": " One.\nFrench: deux\nEnglish: Two.\n",  # runs on after the separator
        "deux": " Two. French: trois English: Three.\n",  # without one
        "trois": "\nFrench: quatre\nEnglish: Four.\n",  # says nothing about this sentence
        "quatre": " Four, and no end\n",
    }
    typist = Typist(one_lm, typed)
    monkeypatch.setattr(one_lm.model, "generate", typist)
    assert mh.translate(one_lm, list(typed), "fr", "en", max_new_tokens=200) == ["One.", "Two.", "", "Four, and no end"]
    assert typist.steps < 40  # stopped, not typed to the end


def test_the_separator_may_be_another(one_lm, monkeypatch):
    monkeypatch.setattr(one_lm.model, "generate", Typist(one_lm, {"un": " One\nline ### two"}))
    assert mh.translate(one_lm, ["un"], "fr", "en", separator="###", max_new_tokens=80) == ["One\nline"]


def test_translation_equals_greedy_decoding_one_by_one(lm):
    sentences = ["Oui.", "Le chat dort sur la vieille chaise.", "Il a plu"]
    got = mh.translate(lm, sentences, "fr", "en", max_new_tokens=8, token_budget=10_000)
    for sentence, text in zip(sentences, got):
        ids = lm.tokenizer(f"French: {sentence}\nEnglish:")["input_ids"]
        n = len(ids)
        for _ in range(8):
            with torch.no_grad():
                token = int(lm.model(torch.tensor([ids])).logits[0, -1].argmax())
            if token == lm.tokenizer.eos_token_id:
                break
            ids.append(token)
        assert text == lm.tokenizer.decode(ids[n:], skip_special_tokens=True).split("\n")[0].strip()


def test_demonstrations_fixed_or_one_a_sentence(one_lm, parallel, monkeypatch):
    typist = Typist(one_lm, {"un": " one\n", "deux": " two\n"})
    monkeypatch.setattr(one_lm.model, "generate", typist)
    drawn = mh.build_demonstrations(parallel, "fr", "en", shots=1, n_prompts=2)
    mh.translate(one_lm, ["un", "deux"], "fr", "en", drawn, max_new_tokens=8, token_budget=1)
    mh.translate(one_lm, ["un", "deux"], "fr", "en", drawn[0], max_new_tokens=8, token_budget=1)
    own, fixed = typist.batches[:2], typist.batches[2:]
    assert {p for (p,) in own} == {d + f"French: {s}\nEnglish:" for d, s in zip(drawn, ["un", "deux"])}
    assert all(p.startswith(drawn[0]) for (p,) in fixed)
    with pytest.raises(ValueError, match="1 demonstrations for 2 sentences"):
        mh.translate(one_lm, ["un", "deux"], "fr", "en", drawn[:1])


def test_right_language():
    texts = ["The cat sleeps on the old chair.", "Le chat dort sur la vieille chaise.", "", "Paka analala kwenye kiti cha zamani."]
    assert mh.right_language(texts, "en").tolist() == [True, False, False, False]
    assert mh.right_language(texts, "sw").tolist() == [False, False, False, True]
    with pytest.raises(mh.DataError, match="does not know Burmese; it knows .*English"):
        mh.right_language(texts, "my")


# -- baselines --------------------------------------------------------------------------------------------------


def test_self_translate(one_lm, folder, monkeypatch):
    seen = []

    def translator(lm, texts, source, target, demonstrations, **options):
        seen.append((texts, source, target, demonstrations, options))
        return [text.upper() if "cat" in text else "" for text in texts]

    monkeypatch.setattr(evaluation, "translate", translator)
    rows = mh.load_task("xnli", "fr", folder)
    english = list(mh.self_translate(one_lm, "xnli", rows, "fr", "demo", max_new_tokens=9))
    ((texts, *rest),) = seen
    assert rest == ["fr", "en", "demo", {"max_new_tokens": 9}] and len(texts) == len(set(texts)) == 6 + 3
    assert english[0]["premise"] == "THE CAT FR IS OLD." and english[3]["premise"] == rows[3]["premise"]
    assert [{k: r[k] for k in ("id", "group", "label")} for r in english] == [{k: r[k] for k in ("id", "group", "label")} for r in rows]
    result = mh.evaluate(one_lm, "xnli", "fr", examples=Dataset.from_list(english))
    assert result.scores[0, 0] == pytest.approx(by_hand(one_lm, "THE CAT FR IS OLD. , right? Yes , It is old"), abs=1e-4)
    causes = list(mh.self_translate(one_lm, "xcopa", mh.load_task("xcopa", "fr", folder), "fr"))
    assert {row["question"] for row in causes} == {"cause", "effect"} and causes[0]["premise"] == "The cat fell.".upper()


def test_language_vector(lm):
    sentences = ["Le chat dort.", "Oui. Personne ne sait."]
    states = []
    for sentence in sentences:
        with torch.no_grad():
            ids = torch.tensor([lm.tokenizer(sentence)["input_ids"]])
            begin = int(ids[0, 0] == lm.tokenizer.bos_token_id)
            states.append(torch.stack(lm.model(ids, output_hidden_states=True).hidden_states)[:-1, 0, begin:])
    expected = torch.cat(states, dim=1).mean(1)
    torch.testing.assert_close(mh.language_vector(lm, sentences), expected, atol=1e-5, rtol=1e-5)


def test_lrp2_moves_hidden_states_there_and_back(lm):
    french, english = mh.language_vector(lm, ["Le chat dort."]), mh.language_vector(lm, ["The cat sleeps."])
    ids = torch.tensor([lm.tokenizer("Oui.")["input_ids"]])

    def logits(seen):
        with torch.no_grad(), residual_stream(lm, lambda layer, hidden: seen.update({layer: hidden.clone()})):
            return lm.model(ids).logits

    before, received, fingerprint = {}, {}, lm.fingerprint
    plain = logits(before)
    with mh.lrp2(lm, french, english, (1, 2)):
        moved, there = logits(received), lm.fingerprint
    torch.testing.assert_close(received[1], before[1] + (english - french)[1])
    with mh.lrp2(lm, english, french, (1, 2)):  # as long a vector, the other way
        assert len({lm.fingerprint, there, fingerprint}) == 3
    with mh.lrp2(lm, french, french, (1, 2)):
        torch.testing.assert_close(logits({}), plain)
    assert torch.equal(logits({}), plain) and lm.fingerprint == fingerprint and not lm.interventions
    assert not torch.allclose(moved, plain, atol=1e-3)
    for layers in [(2, 1), (0, 1), (1, 3)]:
        with pytest.raises(ValueError, match=r"allowed: two of 1 to 2"), mh.lrp2(lm, french, english, layers):
            pass
