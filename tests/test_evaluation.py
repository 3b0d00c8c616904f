import numpy as np
import pandas as pd
import pytest
from conftest import by_hand, nli_rows
from datasets import Dataset

import mlprune_helpers as mh
from mlprune_helpers import evaluation
from mlprune_helpers.prompts import task_prompts


def n_scored(lm, string):
    """Every token but the first is predicted."""
    return len(lm.tokenizer(string)["input_ids"]) - 1


@pytest.mark.parametrize("task", ["xnli", "marc", "xcopa", "xstory_cloze"])
def test_every_task_from_a_folder(one_lm, folder, task):
    result = mh.evaluate(one_lm, task, "fr", folder)
    rows = list(mh.load_task(task, "fr", folder))
    prompts, choices = task_prompts(task, rows)
    assert result.rows == [row["id"] for row in rows] and result.groups == [
        row["group"] for row in rows
    ]
    assert result.labels.tolist() == [row["label"] for row in rows]
    for n in (0, len(rows) - 1):
        assert result.scores[n] == pytest.approx(
            [by_hand(one_lm, prompts[n] + c) for c in choices[n]], abs=1e-4
        )
    assert result.accuracy == np.mean(
        [np.argmax(s) == row["label"] for s, row in zip(result.scores, rows)]
    )
    assert sum(result.label_distribution.values()) == pytest.approx(1)
    assert (
        result.settings["fingerprint"] == one_lm.fingerprint
        and result.settings["template"] == "paper"
    )


def test_marc_is_binary_without_three_stars(folder):
    rows = list(mh.load_task("marc", "en", folder))
    assert [row["label"] for row in rows] == [0, 0, 1, 1] * 2 and len(rows) == 8


def test_a_row_cut_is_counted(one_lm, folder):
    result = mh.evaluate(one_lm, "xnli", "en", folder, max_length=30)
    long = [
        len(one_lm.tokenizer(f"{r['premise']} , right? Yes , {r['hypothesis']}")["input_ids"]) - 31
        for r in nli_rows("en")
    ]
    assert result.n_cut[:, 0].tolist() == [max(0, x) for x in long] and max(long) > 0
    assert result.table()["n_cut"].max() == result.n_cut.max()
    assert mh.summarise([result])["n_cut"].tolist() == [(result.n_cut.max(1) > 0).sum()]


def test_contextual_calibration_by_hand(one_lm, folder):
    result = mh.evaluate(one_lm, "xnli", "en", folder)
    rows = nli_rows("en")
    shares = []
    for text in ("N/A", "[MASK]", ""):
        strings = [f"{text} , right? {word} , {text}" for word in ("Yes", "Also", "No")]
        sums = np.array(
            [by_hand(one_lm, s) * (len(one_lm.tokenizer(s)["input_ids"]) - 1) for s in strings]
        )
        shares.append(np.exp(sums - sums.max()) / np.exp(sums - sums.max()).sum())
    words = ("Yes", "Also", "No")
    asked = [[f"{r['premise']} , right? {w} , {r['hypothesis']}" for w in words] for r in rows]
    n = np.array([[n_scored(one_lm, string) for string in strings] for strings in asked])
    assert np.array_equal(result.n_tokens, n)
    expected = (result.scores * n - np.log(np.mean(shares, axis=0))).argmax(1)
    assert result.predict("contextual").tolist() == expected.tolist() != result.predictions.tolist()
    sums = mh.evaluate(one_lm, "xnli", "en", folder, reduction="sum")
    assert (
        sums.predict("contextual").tolist() == expected.tolist()
    )  # it does not depend on how the raw score is reduced
    assert (
        result.predict("batch").tolist()
        == sums.predict("batch").tolist()
        == mh.batch_calibrated(result.scores * n).argmax(1).tolist()
    )


def test_contextual_calibration_where_every_row_has_its_own(one_lm, folder):
    assert mh.evaluate(one_lm, "xcopa", "en", folder).content_free is None
    with pytest.raises(ValueError, match="contextual=True"):
        mh.evaluate(one_lm, "xcopa", "en", folder).predict("contextual")
    asked_for = mh.evaluate(one_lm, "xcopa", "en", folder, contextual=True)
    assert asked_for.content_free.shape == (3, 6, 2)
    string = "N/A because it rained."
    assert asked_for.content_free[0, 0, 0] == pytest.approx(
        by_hand(one_lm, string) * (len(one_lm.tokenizer(string)["input_ids"]) - 1), abs=1e-3
    )
    assert mh.evaluate(one_lm, "xnli", "en", folder, contextual=False).content_free is None
    with pytest.raises(ValueError, match="batched.*batch"):
        asked_for.predict("batched")


def test_saved_and_read_again(one_lm, folder, tmp_path):
    result = mh.evaluate(one_lm, "xnli", "fr", folder, limit=7, shots=1)
    result.save(tmp_path / "fr.json")
    assert [p.name for p in tmp_path.iterdir()] == ["fr.json"]
    again = mh.Evaluation.load(tmp_path / "fr.json")
    for name, value in vars(result).items():
        assert (
            np.array_equal(getattr(again, name), value)
            if isinstance(value, np.ndarray)
            else getattr(again, name) == value
        )
    assert again.table().equals(result.table())
    table = result.table()
    assert list(table["group"].value_counts()) == [3, 3]  # whole premises
    assert np.array_equal(
        table[["score_entailment", "score_neutral", "score_contradiction"]], result.scores
    )
    assert (table["correct"] == (table["prediction"] == table["label"])).all()


def test_rank_consistency_of_parallel_rows_only(one_lm, folder):
    en, fr = (mh.evaluate(one_lm, "xnli", language, folder) for language in ("en", "fr"))
    assert en.rank_consistency(fr) == mh.rank_consistency(en.scores, fr.scores)
    assert en.rank_consistency(fr, per_row=True).shape == (18,)
    fewer = mh.evaluate(one_lm, "xnli", "fr", folder, limit=6)
    with pytest.raises(ValueError, match="no parallel rows.*same limit and seed"):
        en.rank_consistency(fewer)


# -- what is recorded, and read again --------------------------------------------------------------


def test_all_that_decides_a_score_is_recorded(one_lm, folder):
    chosen = {"reduction": "sum", "span": "continuation", "shots": 1, "seed": 3, "limit": 6}
    how = {"max_length": 60, "truncation": "left", "contextual": False, "split": "validation"}
    result = mh.evaluate(one_lm, "xnli", "fr", folder, **chosen, **how)
    for name, value in {**chosen, **how, "source": str(folder), "template": "paper"}.items():
        assert result.settings[name] == value
    assert result.settings["template_content"]["prompt"] == "{premise} , right?"
    assert result.settings["label_names"] == ["entailment", "neutral", "contradiction"]
    budgets = mh.evaluate(
        one_lm, "xnli", "fr", folder, **chosen, **how, token_budget=40, logit_budget=7
    )
    assert budgets.settings == result.settings
    assert budgets.scores == pytest.approx(result.scores, abs=1e-4)


def test_what_is_read_is_what_was_written_to_the_last_bit(tmp_path):
    scores = np.float32([[1 / 3, -np.pi], [0, 1e-30]])
    one = mh.Evaluation(
        task="reviews",
        language="fr",
        scores=scores,
        labels=np.int32([1, 0]),
        rows=("a", "b"),
        groups=["g", "g"],
        settings={"reduction": "sum", "limit": np.int64(5), "template": {"choices": (" a", " b")}},
        n_tokens=np.ones((2, 2), dtype=np.uint8),
        n_cut=np.zeros((2, 2), dtype=int),
        content_free=np.full((3, 2, 2), np.nextafter(1, 2)),
    )
    one.save(tmp_path / "one.json")
    again = mh.Evaluation.load(tmp_path / "one.json")
    for name, value in vars(one).items():
        read = getattr(again, name)
        assert type(read) is type(value)
        if isinstance(value, np.ndarray):
            assert read.dtype == value.dtype and np.array_equal(read, value)
        else:
            assert read == value
    assert again.table().equals(one.table())


def plain(**changes):
    given = {
        "task": "reviews",
        "language": "fr",
        "scores": np.array([[1.0, 2.0], [3.0, 0.0], [1.0, 1.0]]),
        "labels": np.array([1, 0, 1]),
        "rows": ["a", "b", "c"],
        "groups": ["a", "b", "c"],
        "settings": {"reduction": "mean"},
        "n_tokens": np.ones((3, 2), dtype=int),
        "n_cut": np.zeros((3, 2), dtype=int),
    }
    return mh.Evaluation(**{**given, **changes})


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"scores": np.array([[1.0, 2.0], [np.nan, 0.0], [1.0, 1.0]])}, r"scores.*\(1, 0\)"),
        ({"scores": np.array([[1.0, 2.0], [np.inf, 0.0], [1.0, 1.0]])}, r"scores.*\(1, 0\)"),
        ({"content_free": np.full((3, 3, 2), np.nan)}, "content_free are not finite"),
        ({"content_free": np.zeros((3, 2, 2))}, r"content_free are \(2, 2\)"),
        ({"labels": np.array([1, 2, 0])}, "row 'b': label is 2; allowed: 0 to 1"),
        ({"labels": np.array([1, -1, 0])}, "label is -1"),
        ({"labels": np.array([1.0, 0.0, 1.0])}, "labels are of type float64"),
        ({"labels": np.array([1, 0])}, r"labels are \(2,\)"),
        ({"rows": ["a", "b"]}, r"rows are \(2,\)"),
        ({"groups": ["a"] * 4}, r"groups are \(4,\)"),
        ({"n_cut": np.zeros((3, 1), dtype=int)}, r"n_cut are \(3, 1\)"),
        ({"scores": np.zeros((0, 2))}, r"scores are \(0, 2\)"),
        ({"scores": np.zeros(3)}, r"scores are \(3,\)"),
        ({"settings": {"limit": float("nan")}}, "JSON"),
    ],
)
def test_what_is_no_evaluation_is_refused(changes, named):
    with pytest.raises(ValueError, match=named):
        plain(**changes)


def test_a_score_that_was_spoilt_is_not_saved(tmp_path):
    one = plain()
    one.scores[0, 0] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        one.save(tmp_path / "one.json")
    assert not list(tmp_path.iterdir())


def test_of_equally_likely_choices_the_first_is_predicted():
    assert plain().predictions.tolist() == [1, 0, 0]
    assert plain().label_distribution == {"negative": 2 / 3, "positive": 1 / 3}
    assert plain().accuracy == 2 / 3


def test_log_likelihoods_need_to_know_how_scores_were_reduced():
    with pytest.raises(ValueError, match=r"reduction.*None.*mean, sum"):
        plain(settings={}).predict("batch")


# -- rows and tasks of one's own -------------------------------------------------------------------


def test_examples_are_the_rows_that_would_be_loaded(one_lm, folder):
    rows = mh.load_task("xnli", "fr", folder, limit=6, seed=2)
    loaded = mh.evaluate(one_lm, "xnli", "fr", folder, limit=6, seed=2)
    names = ("entailment", "neutral", "contradiction")
    by_name = [{**row, "label": names[row["label"]]} for row in rows]
    for examples in (rows, list(rows), by_name, Dataset.from_list(by_name)):
        given = mh.evaluate(one_lm, "xnli", "fr", examples=examples, limit=6, seed=2)
        assert np.array_equal(given.scores, loaded.scores)
        assert given.labels.tolist() == loaded.labels.tolist() and given.rows == loaded.rows
        assert mh.compare([loaded], [given], n_resamples=10)["difference"].eq(0).all()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"label": "entailed"}, "entailed"),
        ({"label": 3}, "label is 3"),
        ({"label": -1}, "label is -1"),
        ({"label": None}, "label is None"),
        ({"hypothesis": None}, "hypothesis is None"),
        ({"hypothesis": " "}, "hypothesis is ' '"),
        ({"premise": 5}, "premise is 5"),
    ],
)
def test_examples_are_checked_before_anything_is_scored(one_lm, monkeypatch, change, named):
    monkeypatch.setattr(evaluation, "score_choices", None)
    rows = nli_rows("fr")
    rows[4] |= change
    with pytest.raises(mh.DataError, match=f"row 4.*{named}"):
        mh.evaluate(one_lm, "xnli", "fr", examples=rows)


def test_examples_that_are_no_rows_are_refused(one_lm):
    rows = nli_rows("fr")
    for examples in ("xnli", {"premise": ["a"]}, [], pd.DataFrame(rows), [["a", "b", 0]]):
        with pytest.raises(mh.DataError, match="examples"):
            mh.evaluate(one_lm, "xnli", "fr", examples=examples)
    with pytest.raises(ValueError, match="limit is 5, but 18 examples"):
        mh.evaluate(one_lm, "xnli", "fr", examples=rows, limit=5)
    with pytest.raises(ValueError, match="split is 'test', but examples are given"):
        mh.evaluate(one_lm, "xnli", "fr", examples=rows, split="test")
    with pytest.raises(mh.DataError, match="'xnlii'.*TASKS|'xnlii'.*xnli"):
        mh.evaluate(one_lm, "xnlii", "fr", examples=rows)


def declare(monkeypatch, **changes):
    declaration = {
        "labels": ("no", "yes"),
        "fields": ("claim", "evidence"),
        "templates": {"paper": {"prompt": "{evidence} {claim}", "choices": [" No", " Yes"]}},
        **changes,
    }
    monkeypatch.setitem(mh.TASKS, "mine", mh.Task(**declaration))


OWN_ROWS = [
    {"claim": f"The {noun} is {what}.", "evidence": f"It is {what}.", "label": label}
    for noun in ("cat", "river", "letter")
    for what, label in (("old", "yes"), ("young", "no"))
]


def test_a_task_of_ones_own_is_one_like_the_others(one_lm, monkeypatch, tmp_path):
    declare(monkeypatch)
    result = mh.evaluate(one_lm, "mine", "sw", examples=OWN_ROWS)
    string = "It is young. The cat is young. Yes"
    assert result.scores[1, 1] == pytest.approx(by_hand(one_lm, string), abs=1e-4)
    assert result.labels.tolist() == [1, 0] * 3 and set(result.label_distribution) == {"no", "yes"}
    assert result.content_free.shape == (3, 6, 2)
    assert np.isfinite(mh.summarise([result])["accuracy_contextual"]).all()
    with pytest.raises(ValueError, match="native"):
        mh.evaluate(one_lm, "mine", "sw", examples=OWN_ROWS, template="native")
    result.save(tmp_path / "mine.json")
    monkeypatch.delitem(mh.TASKS, "mine")
    again = mh.Evaluation.load(tmp_path / "mine.json")
    assert again.label_distribution == result.label_distribution
    with pytest.raises(mh.DataError, match=r"Declare one of your own first: TASKS\['mine'\]"):
        mh.summarise([again])


def test_a_question_without_content_and_frame_is_none(load, monkeypatch):
    """A tokenizer that adds nothing leaves nothing to condition on; the scores do not need it."""
    bare = load("gpt2")
    declare(monkeypatch, templates={"paper": {"prompt": "{claim}", "choices": ["!", "?"]}})
    assert mh.evaluate(bare, "mine", "en", examples=OWN_ROWS).content_free is None


# -- ranking ---------------------------------------------------------------------------------------


def some(rng, task="xnli", n=60, n_labels=3, **changes):
    """Noise with a little skill; three rows a group, in which the labels take turns."""
    labels = np.arange(n) % n_labels
    scores = rng.normal(size=(n, n_labels))
    scores[np.arange(n), labels] += 0.5
    given = {
        "task": task,
        "language": "fr",
        "scores": scores,
        "labels": labels,
        "rows": [str(row) for row in range(n)],
        "groups": [str(row // 3) for row in range(n)],
        "settings": {"reduction": "sum"},
        "n_tokens": rng.integers(5, 30, size=(n, n_labels)),
        "n_cut": np.zeros((n, n_labels), dtype=int),
    }
    return mh.Evaluation(**{**given, **changes})


def test_ranking_of_nli_is_entailed_above_contradicted(rng):
    one = some(rng)
    margins = one.scores[:, 0] - one.scores[:, 2]  # log p(Yes) - log p(No)
    expected = margins[0::3] > margins[2::3]
    assert one.ranking_units.values.tolist() == expected.tolist()
    assert one.ranking_units.groups == [str(group) for group in range(20)]
    assert one.ranking == expected.mean() and 0.5 < one.ranking < 1
    # Without one of the two, a premise has nothing to rank.
    kept = np.delete(np.arange(60), [0, 5])
    fewer = some(
        rng,
        scores=one.scores[kept],
        labels=one.labels[kept],
        rows=[one.rows[row] for row in kept],
        groups=[one.groups[row] for row in kept],
        n_tokens=one.n_tokens[kept],
        n_cut=one.n_cut[kept],
    )
    assert fewer.ranking_units.groups == [str(group) for group in range(2, 20)]
    assert fewer.ranking == expected[2:].mean()


def test_ranking_of_labels_without_a_declared_pair(rng, monkeypatch):
    declare(monkeypatch, labels=("a", "b", "c"), templates=THREE)
    one = some(rng, task="mine", groups=[str(row) for row in range(60)])
    areas = []
    for k, m in ((0, 1), (0, 2), (1, 2)):
        margins = one.scores[:, k] - one.scores[:, m]
        higher, lower = margins[one.labels == k], margins[one.labels == m]
        areas.append(np.mean(higher[:, None] > lower))
    assert one.ranking == pytest.approx(np.mean(areas))
    declare(monkeypatch, labels=("a", "b", "c"), templates=THREE, ranked=("c", "a"))
    margins = one.scores[:, 2] - one.scores[:, 0]
    expected = np.mean(margins[one.labels == 2][:, None] > margins[one.labels == 0])
    assert one.ranking == pytest.approx(expected)
    assert len(one.ranking_units.values) == 40  # rows of b take no part


THREE = {"prompt": "{evidence} {claim}", "choices": [" A", " B", " C"]}


def test_ranking_of_answers_is_by_summed_log_likelihoods(rng):
    one = some(rng, task="xcopa", n_labels=2, settings={"reduction": "mean"})
    sums = one.scores * one.n_tokens
    expected = sums.argmax(axis=1) == one.labels
    assert one.ranking_units.values.tolist() == expected.tolist()
    assert one.ranking_units.groups == one.groups
    assert one.ranking == expected.mean() and (expected != one.correct).any()


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("task", ["xnli", "marc"])
def test_what_a_model_likes_does_not_move_its_ranking(rng, task, reduction):
    n_labels = 2 if task == "marc" else 3
    groups = [str(row // 3 if task == "xnli" else row) for row in range(60)]
    options = {"task": task, "n_labels": n_labels, "groups": groups}
    one = some(rng, **options, settings={"reduction": reduction})
    likings = np.array([3.7, -1.1, 1 / 3])[:n_labels]
    if reduction == "mean":
        likings = likings / one.n_tokens
    biased = some(
        rng,
        **options,
        settings={"reduction": reduction},
        scores=one.scores + likings,
        n_tokens=one.n_tokens,
    )
    assert biased.accuracy != one.accuracy
    assert biased.ranking == one.ranking
    assert np.array_equal(biased.ranking_units.values, one.ranking_units.values)
    assert biased.ranking_units.groups == one.ranking_units.groups


@pytest.mark.parametrize(
    ("task", "labels", "named"),
    [
        ("xnli", [0] * 6, "entailment and contradiction; all rows are of entailment"),
        ("xnli", [0, 1] * 3, "all rows are of entailment, neutral"),
        ("marc", [1] * 6, "two labels; all rows are of positive"),
        ("marc", [0, 0, 0, 0, 0, 1], "two groups of each label; 'positive' has 1"),
    ],
)
def test_where_there_is_nothing_to_rank(rng, task, labels, named):
    groups = list("abcdef")
    n_labels = 2 if task == "marc" else 3
    one = some(rng, task, n=6, n_labels=n_labels, labels=np.array(labels), groups=groups)
    for ask in (lambda: one.ranking, lambda: one.ranking_units):
        with pytest.raises(ValueError, match=f"{task} in 'fr'.*{named}"):
            ask()
    assert "ranking" not in mh.summarise([one])
    assert "ranking" not in set(mh.compare([one], [one], n_resamples=10)["measure"])


def test_a_ranking_needs_two_of_the_labels(monkeypatch):
    assert mh.TASKS["nli"].ranked == mh.TASKS["xnli"].ranked == ("entailment", "contradiction")
    assert mh.TASKS["reviews"].ranked is None
    for wrong in (("no", "maybe"), ("no",), ("no", "no"), ("yes", "no", "maybe")):
        with pytest.raises(ValueError, match="ranked"):
            declare(monkeypatch, ranked=wrong)
    with pytest.raises(TypeError, match="ranked"):
        declare(monkeypatch, ranked="no")


def test_ranking_of_a_model(one_lm, folder):
    """From plain forward passes: hypotheses of one premise, by log p(Yes) - log p(No)."""
    result = mh.evaluate(one_lm, "xnli", "fr", folder)
    rows = list(mh.load_task("xnli", "fr", folder))
    margins = []
    for row in rows:
        strings = [f"{row['premise']} , right? {word} , {row['hypothesis']}" for word in YES_NO]
        yes, no = (by_hand(one_lm, string) * n_scored(one_lm, string) for string in strings)
        margins.append(yes - no)
    for value, group in zip(*result.ranking_units):
        of_group = [n for n, row in enumerate(rows) if row["group"] == group]
        (entailed,) = [margins[n] for n in of_group if rows[n]["label"] == 0]
        (contradicted,) = [margins[n] for n in of_group if rows[n]["label"] == 2]
        assert value == (entailed > contradicted)


YES_NO = ("Yes", "No")


# -- options ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "named"),
    [
        ({"max_lenght": 20}, TypeError, "'max_lenght'. Did you mean 'max_length'"),
        ({"templates": "native"}, TypeError, "Did you mean 'template'"),
        ({"wanda": 1}, TypeError, "'wanda'. Allowed: .*truncation"),
        ({"contextual": 0}, ValueError, "contextual is 0"),
        ({"contextual": "no"}, ValueError, "contextual is 'no'"),
    ],
)
def test_wrong_options_are_named_before_anything_is_scored(
    one_lm, folder, monkeypatch, options, error, named
):
    monkeypatch.setattr(evaluation, "score_choices", None)
    with pytest.raises(error, match=named):
        mh.evaluate(one_lm, "xnli", "fr", folder, **options)
