import pytest
import torch
from conftest import by_hand
from datasets import Dataset

import mlprune_helpers as mh
from mlprune_helpers import translation

# -- translation -----------------------------------------------------------------------------------


class Typist:
    """Stands in for ``generate``.

    Types a given text, a token at a time, until the stopping criteria say so.
    """

    def __init__(self, lm, texts):
        self.lm, self.texts, self.batches, self.steps = lm, texts, [], 0

    def __call__(
        self, input_ids, attention_mask, max_new_tokens, stopping_criteria, pad_token_id, **options
    ):
        prompts = [
            self.lm.tokenizer.decode(row[m.bool()], skip_special_tokens=True)
            for row, m in zip(input_ids, attention_mask)
        ]
        self.batches.append(prompts)
        texts = [
            next(text for key, text in self.texts.items() if key in p.rsplit("French:", 1)[1])
            for p in prompts
        ]
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
    assert mh.translate(one_lm, list(typed), "fr", "en", max_new_tokens=200) == [
        "One.",
        "Two.",
        "",
        "Four, and no end",
    ]
    assert typist.steps < 40  # stopped, not typed to the end


def test_the_separator_may_be_another(one_lm, monkeypatch):
    monkeypatch.setattr(one_lm.model, "generate", Typist(one_lm, {"un": " One\nline ### two"}))
    assert mh.translate(one_lm, ["un"], "fr", "en", separator="###", max_new_tokens=80) == [
        "One\nline"
    ]


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
    assert {p for (p,) in own} == {
        d + f"French: {s}\nEnglish:" for d, s in zip(drawn, ["un", "deux"])
    }
    assert all(p.startswith(drawn[0]) for (p,) in fixed)
    with pytest.raises(ValueError, match="1 demonstrations for 2 sentences"):
        mh.translate(one_lm, ["un", "deux"], "fr", "en", drawn[:1])


def test_right_language():
    texts = [
        "The cat sleeps on the old chair.",
        "Le chat dort sur la vieille chaise.",
        "",
        "Paka analala kwenye kiti cha zamani.",
    ]
    assert mh.right_language(texts, "en").tolist() == [True, False, False, False]
    assert mh.right_language(texts, "sw").tolist() == [False, False, False, True]
    with pytest.raises(mh.DataError, match="does not know Burmese; it knows .*English"):
        mh.right_language(texts, "my")


# -- rows in the model's own English ---------------------------------------------------------------


def test_self_translate(one_lm, folder, monkeypatch):
    seen = []

    def translator(lm, texts, source, target, demonstrations, **options):
        seen.append((texts, source, target, demonstrations, options))
        return [text.upper() if "cat" in text else "" for text in texts]

    monkeypatch.setattr(translation, "translate", translator)
    rows = mh.load_task("xnli", "fr", folder)
    english = list(mh.self_translate(one_lm, "xnli", rows, "fr", "demo", max_new_tokens=9))
    ((texts, *rest),) = seen
    assert (
        rest == ["fr", "en", "demo", {"max_new_tokens": 9}]
        and len(texts) == len(set(texts)) == 6 + 3
    )
    assert (
        english[0]["premise"] == "THE CAT FR IS OLD."
        and english[3]["premise"] == rows[3]["premise"]
    )
    assert [{k: r[k] for k in ("id", "group", "label")} for r in english] == [
        {k: r[k] for k in ("id", "group", "label")} for r in rows
    ]
    result = mh.evaluate(one_lm, "xnli", "fr", examples=Dataset.from_list(english))
    assert result.scores[0, 0] == pytest.approx(
        by_hand(one_lm, "THE CAT FR IS OLD. , right? Yes , It is old"), abs=1e-4
    )
    causes = list(mh.self_translate(one_lm, "xcopa", mh.load_task("xcopa", "fr", folder), "fr"))
    assert {row["question"] for row in causes} == {"cause", "effect"} and causes[0][
        "premise"
    ] == "The cat fell.".upper()
