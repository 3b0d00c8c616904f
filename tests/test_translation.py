import json
import re

import pytest
import torch
from conftest import by_hand, make_model, make_tokenizer
from datasets import Dataset

import mlprune_helpers as mh
from mlprune_helpers import translation
from mlprune_helpers.prompts import translation_prompt

FRENCH = ["Oui", "Le chat dort sur la vieille chaise.", "Personne", "Il a plu toute la nuit, donc"]
SHOTS = "French: Oui.\nEnglish: Yes.\n" * 2

# -- translation -----------------------------------------------------------------------------------


def greedy(lm, sentence, shots="", separator="\n", n_tokens=12):
    """One sentence by itself: a plain pass of the whole text for every token, the likeliest one taken."""  # noqa: E501
    ids = mh.encode(lm, [translation_prompt(sentence, "fr", "en", shots, separator)])[0]
    marks = "|".join(map(re.escape, (separator, "French:", "English:")))
    n_prompt, text = len(ids), ""
    for _ in range(n_tokens):
        with torch.no_grad():
            ids.append(int(lm.model(torch.tensor([ids])).logits[0, -1].argmax()))
        text = lm.tokenizer.decode(ids[n_prompt:], skip_special_tokens=True)
        if ids[-1] == lm.tokenizer.eos_token_id or re.search(marks, text):
            break
    return re.split(marks, text)[0].strip()


@pytest.mark.parametrize("token_budget", [4096, 100])
def test_equals_plain_greedy_decoding(lm, token_budget):
    """Shared demonstrations, none, and others for each sentence; windows shorter than the prompts."""  # noqa: E501
    options = {"max_new_tokens": 12, "token_budget": token_budget}
    for shots in (SHOTS, "", [SHOTS, "", SHOTS * 2, "x"]):
        of_each = [shots] * 4 if isinstance(shots, str) else shots
        expected = [greedy(lm, text, own) for text, own in zip(FRENCH, of_each)]
        assert mh.translate(lm, FRENCH, "fr", "en", shots, **options) == expected


def test_batches_of_one_length_where_padding_on_the_left_is_not_exact(one_lm):
    expected = mh.translate(one_lm, FRENCH, "fr", "en", SHOTS, max_new_tokens=8)
    one_lm.pads_left = False
    assert mh.translate(one_lm, FRENCH, "fr", "en", SHOTS, max_new_tokens=8) == expected


def test_an_output_ends_at_the_separator(one_lm):
    """Any character that the model writes may separate; what follows it is never part of an output."""  # noqa: E501
    whole = mh.translate(one_lm, FRENCH, "fr", "en", separator="###", max_new_tokens=12)
    assert whole == [greedy(one_lm, text, separator="###") for text in FRENCH]
    assert any(whole)
    mark = next(text for text in whole if len(text) > 3)[2]
    cut = mh.translate(one_lm, FRENCH, "fr", "en", separator=mark, max_new_tokens=12)
    assert cut == [greedy(one_lm, text, separator=mark) for text in FRENCH]
    assert all(mark not in text for text in cut)


@pytest.mark.parametrize(
    "settings",
    [{"repetition_penalty": 1.3}, {"num_beams": 2}, {"do_sample": True, "temperature": 9.0}],
)
def test_settings_of_a_checkpoint_do_not_count(folder_of, tmp_path, settings):
    """FAULTS: greedy, as the docstring says, whatever generation_config.json says."""
    import shutil

    folder = shutil.copytree(folder_of("llama"), tmp_path / "llama")
    (folder / "generation_config.json").write_text(json.dumps(settings))
    lm = mh.load_model(str(folder), device="cpu")
    expected = [greedy(lm, text, SHOTS) for text in FRENCH]
    assert mh.translate(lm, FRENCH, "fr", "en", SHOTS, max_new_tokens=12) == expected


def test_a_finished_sentence_leaves_the_batch(one_lm, monkeypatch):
    sizes = []
    run = mh.LanguageModel.run

    def counted(lm, ids, mask, **options):
        sizes.append(len(ids))
        return run(lm, ids, mask, **options)

    monkeypatch.setattr(mh.LanguageModel, "run", counted)
    whole = mh.translate(one_lm, FRENCH, "fr", "en", separator="###", max_new_tokens=12)
    mark = next(text for text in whole if len(text) > 3)[2]
    sizes.clear()
    mh.translate(one_lm, FRENCH, "fr", "en", separator=mark, max_new_tokens=12)
    steps = sizes[1:]  # the first pass is that of the shared tokens
    assert steps[0] == 4 and steps == sorted(steps, reverse=True) and steps[-1] < 4


def test_what_does_not_fit_is_said_before_anything_runs(load):
    lm = load("gpt2")
    with pytest.raises(ValueError, match=r"\d+ tokens; 256 fit. Shorten the texts"):
        mh.translate(lm, ["mot " * 200], "fr", "en")
    with pytest.raises(ValueError, match="256 fit"):
        mh.translate(lm, ["mot"], "fr", "en", max_new_tokens=300)


def test_states_that_overflow_are_an_error():
    settings = dict(
        hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2
    )
    lm = mh.LanguageModel("big", make_model("LlamaConfig", settings), make_tokenizer())
    lm.model.model.layers[0].mlp.down_proj.weight.data.fill_(float("inf"))
    for run in (
        lambda: mh.translate(lm, ["un"], "fr", "en", max_new_tokens=2),
        lambda: mh.logit_lens(lm, ["un"], {"a": [5]}),
        lambda: mh.score_choices(lm, ["un"], [[" a", " b"]]),
        lambda: mh.collect_activations(lm, ["un"]),
    ):
        with pytest.raises(ValueError, match="not finite.*float32"):
            run()


@pytest.mark.parametrize(
    ("arguments", "error", "named"),
    [
        (("un", "fr", "en"), TypeError, "sentences is one string"),
        ((["un", None], "fr", "en"), TypeError, "item 1 is None"),
        ((["un"], "french", "en"), mh.DataError, "'french'; allowed: en"),
        ((["un", "deux"], "fr", "en", ["one"]), ValueError, "1 demonstrations for 2 sentences"),
    ],
)
def test_wrong_input_is_named(one_lm, arguments, error, named):
    with pytest.raises(error, match=named):
        mh.translate(one_lm, *arguments)


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
