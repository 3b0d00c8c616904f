import itertools

import numpy as np
import pytest
import torch
from conftest import SENTENCES, make_model, make_tokenizer
from hypothesis import given, settings, strategies as st

import mlprune_helpers as mh
from mlprune_helpers import scoring
from mlprune_helpers.models import language_model as models

# Rows with the same premise, one that shares nothing, choices of one token, of many, and of which
# one begins another.
PROMPTS = [
    SENTENCES[0] + " , right?",
    "Oui",
    SENTENCES[0] + " , right?",
    SENTENCES[2] + " xh",
    "Oui",
    SENTENCES[0] + " , rig",
]
CHOICES = [
    [" Yes , the cat sleeps", " Also , the cat sleeps", " No"],
    [".", " Oui.", " Oui. Nobody knows who wrote this letter, donc la rivière est haute."],
    [" Yes , it rained all night", " Also , it rained all night", " No , it rained all night"],
    ["ier", " acheté deux", "e sleeps"],  # this "e" merges with the "h" before it
    [".", "!", "?"],
    ["ht?", "id river", "ht? Yes"],
]


def token_logprobs(lm, ids):
    """One forward pass of the whole string, by itself; at t the log-probability of token t."""
    with torch.no_grad():
        logits = lm.model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return [0.0] + [float(logits[t - 1, ids[t]]) for t in range(1, len(ids))]


def oracle(lm, prompts, choices, reduction="mean", span="full"):
    scores = np.zeros((len(prompts), len(choices[0])))
    for n, (prompt, texts) in enumerate(zip(prompts, choices)):
        for k, choice in enumerate(texts):
            ids = lm.tokenizer(prompt + choice)["input_ids"]
            start = 1 if span == "full" else len(lm.tokenizer(prompt)["input_ids"])
            part = token_logprobs(lm, ids)[start:]
            scores[n, k] = sum(part) / (len(part) if reduction == "mean" else 1)
    return scores


@pytest.mark.parametrize("span", ["full", "continuation"])
def test_equals_one_forward_pass_per_string(lm, span):
    for reduction in ("mean", "sum"):
        expected = oracle(lm, PROMPTS, CHOICES, reduction, span)
        for token_budget, logit_budget in [(None, 256), (1, 1), (60, 7)]:
            got = mh.score_choices(
                lm,
                PROMPTS,
                CHOICES,
                reduction=reduction,
                span=span,
                token_budget=token_budget,
                logit_budget=logit_budget,
            )
            # Relative to the number of tokens summed: single precision carries about 1e-6 for each.
            np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-4)


def test_a_choice_that_merges_with_the_prompt_is_tokenized_with_it(one_lm):
    tokenizer = one_lm.tokenizer
    prompt, choice = PROMPTS[3], CHOICES[3][2]
    together = tokenizer(prompt + choice)["input_ids"]
    assert (
        together[: len(tokenizer(prompt)["input_ids"])] != tokenizer(prompt)["input_ids"]
    )  # else this shows nothing


def test_padding_side_of_the_tokenizer_does_not_matter(lm):
    before = mh.score_choices(lm, PROMPTS, CHOICES)
    lm.tokenizer.padding_side = "left" if lm.tokenizer.padding_side == "right" else "right"
    side, cached = lm.tokenizer.padding_side, lm.model.config.use_cache
    assert np.array_equal(mh.score_choices(lm, PROMPTS, CHOICES), before)
    assert (lm.tokenizer.padding_side, lm.model.config.use_cache) == (side, cached)


@pytest.mark.parametrize("architecture", ["gemma3", "bloom", "opt"], indirect=True)
def test_row_order_does_not_matter(lm):
    order = [3, 5, 0, 4, 2, 1]
    got = mh.score_choices(
        lm, [PROMPTS[i] for i in order], [CHOICES[i] for i in order], token_budget=80
    )
    np.testing.assert_allclose(got, mh.score_choices(lm, PROMPTS, CHOICES)[order], atol=1e-5)


@given(st.lists(st.lists(st.integers(0, 2), min_size=2, max_size=8), min_size=1, max_size=7))
@settings(max_examples=200, deadline=None)
def test_units_are_the_best_cut_of_the_sorted_strings(ids):
    units = [(unit.members, unit.shared) for unit in scoring._units([x[:-1] for x in ids])]
    assert sorted(i for members, _ in units for i in members) == list(range(len(ids)))
    for members, shared in units:
        assert len({tuple(ids[i][:shared]) for i in members}) == 1 and shared < min(
            len(ids[i]) for i in members
        )

    def cost(groups):
        total = 0
        for group in groups:
            fed = [x[:-1] for x in group]
            shared = next(
                (t for t in range(min(map(len, fed))) if len({x[t] for x in fed}) > 1),
                min(map(len, fed)),
            )
            total += shared + sum(len(x) - shared for x in fed)
        return total

    order = sorted(ids, key=lambda x: x[:-1])
    cuts = itertools.product([False, True], repeat=len(ids) - 1)
    runs = ([list(g) for _, g in itertools.groupby(order, key=iter_runs(cut))] for cut in cuts)
    assert cost([[ids[i] for i in members] for members, _ in units]) == min(map(cost, runs))


def iter_runs(cut):
    """A key for groupby that changes wherever ``cut`` says so."""
    numbers = itertools.accumulate((False, *cut))
    return lambda _: next(numbers)


def test_what_is_shared_is_computed_once(one_lm, monkeypatch):
    """Nine strings of one premise.

    Its tokens are fed once, and equal prefixes have one row of logits.
    """
    fed, rows = [], []
    run, head = mh.LanguageModel.run, mh.LanguageModel.log_probabilities
    monkeypatch.setattr(
        mh.LanguageModel,
        "run",
        lambda lm, ids, mask, **o: (
            fed.append(int(mask[:, -ids.shape[1] :].sum())),
            run(lm, ids, mask, **o),
        )[1],
    )
    monkeypatch.setattr(
        mh.LanguageModel,
        "log_probabilities",
        lambda lm, hidden, *a: (rows.append(len(hidden)), head(lm, hidden, *a))[1],
    )
    prompts = [SENTENCES[0]] * 3
    choices = [
        [f" {word} , {s[:9]}" for word in ("Yes", "Also", "No")]
        for s in (SENTENCES[2], SENTENCES[4], SENTENCES[6])
    ]
    strings = [one_lm.tokenizer(p + c)["input_ids"] for p, cs in zip(prompts, choices) for c in cs]
    shared = next(t for t in range(len(strings[0])) if len({x[t] for x in strings}) > 1)

    mh.score_choices(one_lm, prompts, choices)
    assert (
        sum(fed)
        == shared + sum(len(x) - 1 - shared for x in strings)
        < 0.6 * sum(map(len, strings))
    )
    assert sum(rows) == len({tuple(x[:t]) for x in strings for t in range(1, len(x))})
    rows.clear()
    mh.score_choices(one_lm, prompts, choices, span="continuation")
    start = len(one_lm.tokenizer(prompts[0])["input_ids"])
    assert sum(rows) == len({tuple(x[:t]) for x in strings for t in range(start, len(x))})


def test_memory_that_runs_out_halves_the_batch(one_lm, monkeypatch):
    expected, run, sizes = mh.score_choices(one_lm, PROMPTS, CHOICES), mh.LanguageModel.run, []

    def small(lm, ids, mask, **options):
        sizes.append(len(ids))
        if len(ids) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return run(lm, ids, mask, **options)

    monkeypatch.setattr(mh.LanguageModel, "run", small)
    np.testing.assert_allclose(mh.score_choices(one_lm, PROMPTS, CHOICES), expected, atol=1e-5)
    assert max(sizes) > 2
    monkeypatch.setattr(
        mh.LanguageModel,
        "run",
        lambda *a, **o: (_ for _ in ()).throw(RuntimeError("shapes differ")),
    )
    with pytest.raises(RuntimeError, match="shapes differ"):  # not about memory: not swallowed
        mh.score_choices(one_lm, PROMPTS, CHOICES)


# -- too long --------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["gpt2", "llama"], indirect=True)
@pytest.mark.parametrize("span", ["full", "continuation"])
def test_too_long_is_cut_on_the_left_and_counted(lm, span):
    limit = 20
    scored = mh.score_choices(
        lm, PROMPTS, CHOICES, span=span, reduction="sum", max_length=limit, details=True
    )
    n_special = int(lm.tokenizer("a")["input_ids"][0] == 0)
    some = 0
    for n, (prompt, texts) in enumerate(zip(PROMPTS, CHOICES)):
        for k, choice in enumerate(texts):
            ids = lm.tokenizer(prompt + choice)["input_ids"]
            n_scored = len(ids) - (1 if span == "full" else len(lm.tokenizer(prompt)["input_ids"]))
            if len(ids) > limit + 1:
                some += 1
                ids, cut = ids[:n_special] + ids[n_special - limit - 1 :], len(ids) - limit - 1
                n_scored = min(n_scored, limit)
            else:
                cut = 0
            assert len(ids) <= limit + 1
            assert scored.n_cut[n, k] == cut and scored.n_tokens[n, k] == n_scored
            assert scored.scores[n, k] == pytest.approx(
                sum(token_logprobs(lm, ids)[-n_scored:]), abs=1e-3
            )
    assert 0 < some < scored.scores.size


def test_a_cut_is_told(one_lm):
    long = ["x" * 300, "Oui"]
    with pytest.warns(UserWarning, match="2 of 4 strings were cut on the left to 256 tokens"):
        mh.score_choices(one_lm, long, [[" a", " b"]] * 2)
    with pytest.raises(ValueError, match=r"30\d tokens; 256 fit.*truncation='left'"):
        mh.score_choices(one_lm, long, [[" a", " b"]] * 2, truncation="error")
    scored = mh.score_choices(one_lm, long[1:], [[" a", " b"]], details=True)
    assert scored.n_cut.tolist() == [[0, 0]]


# -- wrong input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompts", "choices", "options", "named"),
    [
        (["a"], [[" b"]], {"reduction": "median"}, "median.*mean"),
        (["a"], [[" b"]], {"span": "all"}, "all.*continuation"),
        (["a"], [[" b"]], {"truncation": "right"}, "right.*left"),
        (["a", "b"], [[" b"]], {}, "2 prompts and 1 lists"),
        (["a", "b"], [[" b"], [" b", " c"]], {}, r"\[1, 2\] choices"),
        (["a", "b"], [[" b", " c"], [" b", ""]], {"span": "continuation"}, "Choice 1 of prompt 1"),
    ],
)
def test_wrong_input_is_named(one_lm, prompts, choices, options, named):
    with pytest.raises(ValueError, match=named):
        mh.score_choices(one_lm, prompts, choices, **options)


def test_a_score_that_is_no_number_is_refused(one_lm):
    one_lm.model.lm_head.weight.data[:] = float("nan")
    with pytest.raises(ValueError, match="prompt 0 is not finite"):
        mh.score_choices(one_lm, ["a"], [[" b", " c"]])


# -- lm-evaluation-harness -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma3"])
def test_equals_lm_evaluation_harness(load, name):
    """Summed continuations, spaces at a prompt's end and too-long inputs included."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    lm = load(name)
    prompts, choices = [*PROMPTS, "A space at the end "], [*CHOICES, ["one", "two", "three"]]
    if (
        name == "gpt2"
    ):  # which puts no beginning-of-sequence token first: the harness would cut that off too
        prompts, choices = [*prompts, SENTENCES[1] * 12], [*choices, CHOICES[0]]
        assert len(lm.tokenizer(prompts[-1])["input_ids"]) > lm.max_positions
    pairs = [(prompt, c) for prompt, cs in zip(prompts, choices) for c in cs]
    harness = HFLM(
        pretrained=lm.model, tokenizer=lm.tokenizer, batch_size=4, max_length=lm.max_positions
    )
    theirs = harness.loglikelihood(
        [Instance("loglikelihood", {}, pair, 0) for pair in pairs], disable_tqdm=True
    )
    ours = mh.score_choices(
        lm, prompts, choices, reduction="sum", span="continuation", details=True
    )
    # Where a choice merges with the prompt's end, the harness's tokens are those of no string.
    ids = [
        [lm.tokenizer(text)["input_ids"] for text in (prompt.rstrip(), prompt + c)]
        for prompt, c in pairs
    ]
    same_string = np.array([whole[: len(context)] == context for context, whole in ids])
    assert (~same_string).sum() == 3
    np.testing.assert_allclose(
        ours.scores.reshape(-1)[same_string], np.array(theirs)[same_string, 0], rtol=1e-5, atol=1e-4
    )
    assert (ours.n_cut[-1] > 0).all() == (name == "gpt2")


def test_logits_of_a_large_vocabulary_are_never_held_whole(monkeypatch):
    model = make_model("LlamaConfig", dict(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=50_000,  # noqa: E501
        max_position_embeddings=256,
    ))  # fmt: skip
    lm = mh.LanguageModel("wide", model, make_tokenizer())
    expected, sizes, linear = oracle(lm, PROMPTS, CHOICES), [], torch.nn.functional.linear

    def measured(*args):
        result = linear(*args)
        sizes.append(result.numel())
        return result

    monkeypatch.setattr(torch.nn.functional, "linear", measured)
    np.testing.assert_allclose(
        mh.score_choices(lm, PROMPTS, CHOICES, logit_budget=16), expected, atol=1e-4
    )
    assert max(sizes) == 16 * models.VOCABULARY_PART < 16 * 50_000 / 3


@pytest.mark.parametrize("cap", [None, 5.0])
def test_log_probabilities_in_parts(one_lm, monkeypatch, cap):
    one_lm.model.config.final_logit_softcapping = cap
    monkeypatch.setattr(models, "VOCABULARY_PART", 7)
    hidden = 30 * torch.randn(4, one_lm.hidden_size, generator=torch.Generator().manual_seed(0))
    rows, tokens = torch.tensor([0, 0, 1, 3]), torch.tensor([0, 299, 7, 6])
    with torch.no_grad():
        expected = one_lm.logits(hidden).double().log_softmax(-1)[rows, tokens].float()
        torch.testing.assert_close(
            one_lm.log_probabilities(hidden, rows, tokens), expected, atol=1e-4, rtol=1e-5
        )
