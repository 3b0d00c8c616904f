import numpy as np
import pytest
from conftest import by_hand, nli_rows

import mlprune_helpers as mh
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
