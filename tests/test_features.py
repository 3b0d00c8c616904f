from itertools import product

import numpy as np
import pytest
import scipy.stats
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

import mlprune_helpers as mh


def stats_of(rms, tokens=None):
    """ActivationStats with the given root mean squares (n_prompts, n_layers + 1, hidden)."""
    rms = np.asarray(rms, dtype=np.float64)
    tokens = np.full(len(rms), 7) if tokens is None else np.asarray(tokens)
    zero = np.zeros(rms.shape[1:])
    squares = (rms**2 * tokens[:, None, None]).astype(np.float32)
    return mh.ActivationStats(squares, tokens, {}, zero, zero, zero, zero)


# -- top features, overlap --------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(size=st.integers(1, 40), kinds=st.integers(1, 50), percent=st.integers(1, 100), seed=st.integers(0, 999))
def test_top_features_is_a_stable_sort(size, kinds, percent, seed):
    norms = np.random.default_rng(seed).integers(0, kinds, (2, size)).astype(float)
    got = mh.top_features(norms, percent / 100)
    for row, chosen in zip(norms, got):
        ranked = sorted(range(size), key=lambda i: (-row[i], i))
        assert sorted(np.flatnonzero(chosen)) == sorted(ranked[: percent * size // 100])


def test_overlap_of_known_sets():
    a = np.arange(10.0)
    assert mh.overlap(a, a) == 0 and mh.overlap(a, -a) == 1
    assert mh.overlap(a, -a, top=0.5, bottom=0.2) == pytest.approx(2 / 5)


def test_overlap_of_unrelated_norms_is_the_bottom_share(rng):
    chance = mh.overlap(rng.random((400, 100)), rng.random((400, 100)), top=0.2, bottom=0.4)
    assert chance.mean() == pytest.approx(0.4, abs=4 * chance.std() / 20)


@pytest.mark.parametrize("fraction", [0, -0.1, 1.1])
def test_wrong_fractions_are_named(fraction):
    with pytest.raises(ValueError, match=f"fraction is {fraction}"):
        mh.top_features(np.ones(4), fraction)


# -- relative change, the paper's definition --------------------------------------------------------------------


def test_relative_change_by_hand():
    a, b = stats_of([[[2.0, 1.0, 0.0, 5.0]]], [3]), stats_of([[[1.0, 4.0, 0.0, 5.0]]], [11])
    assert mh.relative_change(a, b) == pytest.approx(np.array([[1.0, -2.0, 0.0, 0.0]]), abs=1e-6)
    two = stats_of([[[2.0]], [[8.0]]], [3, 5])
    one = stats_of([[[1.0]], [[1.0]]], [4, 4])
    assert mh.relative_change(two, one, per_prompt=True).ravel() == pytest.approx([1.0, 3.0])


def test_specific_features_against_every_control(rng):
    base = rng.uniform(1, 2, (6, 3, 40))
    translation, one, other = base.copy(), base.copy(), base.copy()
    translation[:, 1:, [3, 5]] *= 4  # large under translation only
    translation[:, 1:, 9] *= 8
    other[:, 1:, 9] *= 8  # also large under the second control
    t, controls = stats_of(translation), [stats_of(one), stats_of(other)]
    for method in ("relative", "test"):
        found = mh.translation_specific_features(t, controls, method=method, count=2)
        assert {tuple(x) for x in np.argwhere(found)} == {(1, 3), (1, 5), (2, 3), (2, 5)}
        assert mh.translation_specific_features(t, controls[0], method=method, count=3)[1:, 9].all()
    with pytest.raises(ValueError, match="papers.*relative.*overlap.*test"):
        mh.translation_specific_features(t, controls, method="papers")


def test_the_papers_definition(rng):
    """Top share of the prompt-averaged norm under translation, bottom share under the control."""
    a, b = rng.random((5, 2, 20)), rng.random((5, 2, 20))
    found = mh.translation_specific_features(stats_of(a), stats_of(b), method="overlap", top=0.4, bottom=0.25)
    for layer in range(2):
        top = set(np.argsort(-a[:, layer].mean(0))[:8])
        bottom = set(np.argsort(b[:, layer].mean(0))[:5])
        assert set(np.flatnonzero(found[layer])) == top & bottom


# -- the sign-flip test -----------------------------------------------------------------------------------------


def loop_test(differences, two_sided):
    """Maximum of Student's t over features under every flip, written out."""
    n = len(differences)

    def t(x):
        value = np.array([scipy.stats.ttest_1samp(column, 0).statistic for column in x.T])
        return np.abs(value) if two_sided else value

    observed = t(differences)
    maxima = np.array([t(differences * np.array(s)[:, None]).max() for s in product([1, -1], repeat=n)])
    return (maxima[:, None] >= observed - 1e-9).mean(axis=0)


@pytest.mark.parametrize("alternative", ["greater", "two-sided"])
def test_sign_flip_equals_all_flips_written_out(rng, alternative):
    differences = rng.normal(0.3, 1, (6, 8))
    translation, control = 2.0 ** differences.reshape(6, 2, 4), np.ones((6, 2, 4))
    change, p = mh.sign_flip_test(stats_of(translation), stats_of(control), alternative=alternative)
    assert change.ravel() == pytest.approx(differences.mean(0), abs=1e-5)
    assert p.ravel() == pytest.approx(loop_test(differences, alternative == "two-sided"))


def test_a_single_feature_equals_scipy(rng):
    x = rng.normal(0.5, 1, 9)
    p = mh.sign_flip_test(stats_of(2.0 ** x[:, None, None]), stats_of(np.ones((9, 1, 1))))[1]
    expected = scipy.stats.permutation_test(
        (x,), lambda v, axis: v.mean(axis=axis), permutation_type="samples", n_resamples=np.inf, alternative="greater"
    )
    assert p.item() == pytest.approx(expected.pvalue)


def test_random_flips_come_near_to_all_of_them(rng):
    x = stats_of(2.0 ** rng.normal(0.4, 1, (12, 1, 5)))
    one = stats_of(np.ones((12, 1, 5)))
    exact, drawn = mh.sign_flip_test(x, one, n_flips=4096)[1], mh.sign_flip_test(x, one, n_flips=4000)[1]
    assert np.abs(exact - drawn).max() < 4 * np.sqrt(0.25 / 4000)
    assert np.array_equal(drawn, mh.sign_flip_test(x, one, n_flips=4000)[1])
    assert not np.array_equal(drawn, mh.sign_flip_test(x, one, n_flips=4000, seed=1)[1])


def test_any_false_find_is_as_rare_as_promised():
    """Features are correlated and of unequal spread; of 300 experiments without an effect, 5 % find something."""
    rng = np.random.default_rng(1)
    finds = 0
    for _ in range(300):
        common = rng.normal(size=(8, 1, 1))
        noise = (rng.normal(size=(8, 2, 15)) + common) * rng.uniform(0.01, 3, (1, 2, 15))
        finds += (mh.sign_flip_test(stats_of(2.0**noise), stats_of(np.ones((8, 2, 15))))[1] <= 0.05).any()
    assert 3 <= finds <= 15 + 4 * np.sqrt(300 * 0.05 * 0.95)


def test_of_several_controls_the_worst_counts(rng):
    t, a, b = (stats_of(2.0 ** rng.normal(size=(7, 1, 6))) for _ in range(3))
    change, p = mh.sign_flip_test(t, [a, b])
    singles = [mh.sign_flip_test(t, c) for c in (a, b)]
    assert np.array_equal(p, np.maximum(singles[0][1], singles[1][1]))
    assert np.array_equal(change, np.minimum(singles[0][0], singles[1][0]))


def test_a_constant_change_is_found_and_silence_is_not():
    t = np.ones((6, 1, 3)) * [2.0, 1.0, 0.0]
    change, p = mh.sign_flip_test(stats_of(t), stats_of(np.ones((6, 1, 3)) * [1.0, 1.0, 0.0]))
    assert p.ravel().tolist() == [1 / 64, 1.0, 1.0] and change.ravel().tolist() == pytest.approx([1.0, 0.0, 0.0])


@pytest.mark.parametrize(("n", "others"), [(3, 4), (1, 1)])
def test_unpaired_prompts_are_refused(n, others):
    with pytest.raises(ValueError, match=f"{n} translation and {others} control.*pairs"):
        mh.sign_flip_test(stats_of(np.ones((n, 1, 2))), stats_of(np.ones((others, 1, 2))))


def test_wrong_alternatives_are_named():
    with pytest.raises(ValueError, match="less.*greater"):
        mh.sign_flip_test(stats_of(np.ones((3, 1, 2))), stats_of(np.ones((3, 1, 2))), alternative="less")


# -- a model in which the translation-specific features are known -----------------------------------------------

PLANTED = [20, 33, 47]  # dimensions that block 0 writes to where a word meets its translation
CONCEPTS = 16


@pytest.fixture(scope="module")
def planted():
    """GPT-2 of two blocks.  Words a0 … a15 and b0 … b15 say the same things in two languages.

    Attention of block 0 looks at words of the same concept and fetches their language; its MLP compares that with
    the word's own language and, where the other one is among them, writes to PLANTED.
    """
    words = [f"{language}{i}" for language in "ab" for i in range(CONCEPTS)]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="a0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="a0")
    config = transformers.GPT2Config(vocab_size=len(words), n_embd=64, n_layer=2, n_head=1, n_positions=64, bos_token_id=0, eos_token_id=0)
    model = transformers.AutoModelForCausalLM.from_config(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0 if "ln" in name and name.endswith("weight") else 0.0)
        embedding = model.transformer.wte.weight
        for i in range(len(words)):
            concept, language = i % CONCEPTS, i // CONCEPTS
            noise = torch.randn(44, generator=generator)
            noise = 0.3 * (noise - noise.mean()) / (noise - noise.mean()).norm()
            embedding[i, 20:] = noise  # the same mean and length for every word: the first norm is one and the same map
            embedding[i, concept] = embedding[i, 16 + language] = 1.0
        block = model.transformer.h[0]
        query_key_value = block.attn.c_attn.weight  # (in, 3 * 64): Conv1D
        for i in range(CONCEPTS):
            query_key_value[i, i] = query_key_value[i, 64 + i] = 3.0
        query_key_value[16, 128], query_key_value[17, 129] = 1.0, 1.0
        block.attn.c_proj.weight[0, 18] = block.attn.c_proj.weight[1, 19] = 0.18  # language of what is looked at
        for neuron, (own, seen) in enumerate([(16, 19), (17, 18)]):
            block.mlp.c_fc.weight[own, neuron] = block.mlp.c_fc.weight[seen, neuron] = 4.0
            block.mlp.c_fc.bias[neuron] = -4.0 * 5.7  # between a word beside its translation (7.2) and one without (4.2)
            block.mlp.c_proj.weight[neuron, PLANTED] = 2.0
    return mh.LanguageModel("planted", model, tokenizer)


def planted_prompts(kind, n=12, seed=0):
    """Four "sentences" of three words a prompt, of twelve concepts: with the translation, another's, or alone."""
    rng = np.random.default_rng(seed)
    prompts = []
    for _ in range(n):
        shots = rng.permutation(CONCEPTS)[:8].reshape(4, 2)
        others = rng.permutation(np.setdiff1d(np.arange(CONCEPTS), shots)).reshape(4, 2)
        text = []
        for shot, other in zip(shots, others):
            text += [f"a{i}" for i in shot]
            text += [f"b{i}" for i in {"aligned": shot, "mismatched": other, "alone": []}[kind]]
        prompts.append(" ".join(text))
    return prompts


def test_planted_features_are_found_again(planted):
    aligned, mismatched, alone = (mh.collect_activations(planted, planted_prompts(k)) for k in ("aligned", "mismatched", "alone"))
    truth = np.zeros(aligned.rms.shape, dtype=bool)
    truth[1:, PLANTED] = True
    found = mh.translation_specific_features(aligned, [mismatched, alone], count=3)
    assert np.array_equal(found[1:], truth[1:])
    tested = mh.translation_specific_features(aligned, [mismatched, alone], method="test")
    assert tested[truth].all() and not tested[0].any()
    change = mh.sign_flip_test(aligned, mismatched)[0]
    assert change[truth].min() > 2 * change[~truth].max()
    stability = mh.feature_stability(aligned, [mismatched, alone], count=3, n_splits=5)
    assert stability["jaccard"][1:].tolist() == [1.0, 1.0] and (stability["chance"][1:] < 0.05).all()
    assert mh.sign_flip_test(mismatched, alone)[1][:, PLANTED].min() > 0.05  # a second language alone is not it


def test_planted_features_matter_and_others_do_not(planted):
    """The last block reads them out to word b15; without them it is as if nothing had been translated."""
    with torch.no_grad():
        planted.model.lm_head.weight = torch.nn.Parameter(planted.model.lm_head.weight.clone())
        planted.model.lm_head.weight[31, PLANTED] = 5.0
    prompts = planted_prompts("aligned")
    truth = np.zeros((3, 64), dtype=bool)
    truth[1:, PLANTED] = True
    stats = mh.collect_activations(planted, prompts)
    mean = mh.collect_activations(planted, planted_prompts("mismatched")).mean

    def says():
        return mh.logit_lens(planted, prompts, {"b15": [31]})["b15"][:, -1].mean()

    intact = says()
    with mh.zero_features(planted, mh.matched_random_features(truth, stats.rms)):
        control = says()
    with mh.zero_features(planted, truth):
        zeroed = says()
    with mh.zero_features(planted, truth, values=mean):
        averaged = says()
    assert intact > 0.5 and control > 0.5 and zeroed < 0.1 and averaged < 0.1


# -- stability --------------------------------------------------------------------------------------------------


def test_stability_of_noise_is_chance(rng):
    t, c = stats_of(2.0 ** rng.normal(size=(40, 2, 200))), stats_of(2.0 ** rng.normal(size=(40, 2, 200)))
    table = mh.feature_stability(t, c, count=60, n_splits=10, seed=3)
    assert table["layer"].tolist() == [0, 1]
    # Half the prompts against the other half: the whole sample is split, so noise agrees less often than at random.
    assert (table["jaccard"] < table["chance"] + 0.05).all() and (table["chance"] - 0.176).abs().max() < 0.01
    assert (table["low"] <= table["jaccard"]).all() and (table["jaccard"] <= table["high"]).all()
    assert table.equals(mh.feature_stability(t, c, count=60, n_splits=10, seed=3))


def test_stability_needs_two_prompts():
    one = stats_of(np.ones((1, 1, 4)))
    with pytest.raises(ValueError, match="1 prompts"):
        mh.feature_stability(one, one)


# -- ablation ---------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(hidden=st.integers(4, 60), layers=st.integers(1, 3), share=st.floats(0, 0.5), seed=st.integers(0, 999))
def test_matched_features_are_others_as_many(hidden, layers, share, seed):
    rng = np.random.default_rng(seed)
    norms = rng.random((layers, hidden))
    features = np.zeros((layers, hidden), dtype=bool)
    for row in features:
        row[rng.permutation(hidden)[: int(share * hidden)]] = True
    drawn = mh.matched_random_features(features, norms, seed=seed)
    assert np.array_equal(drawn.sum(1), features.sum(1)) and not (drawn & features).any()
    assert np.array_equal(drawn, mh.matched_random_features(features, norms, seed=seed))


def test_matched_features_are_of_similar_size():
    norms = np.exp(np.arange(100.0))[None]
    features, massive = (np.isin(np.arange(100), some)[None] for some in ([0, 50, 95], [49, 51, 99]))
    draws = np.array([np.flatnonzero(mh.matched_random_features(features, norms, seed=s)) for s in range(60)])
    assert (np.abs(draws - [0, 50, 95]) <= 11).all() and len(np.unique(draws[:, 1])) > 5
    assert np.isin(draws, [49, 51, 99]).any()
    others = [mh.matched_random_features(features, norms, exclude=massive, seed=s) for s in range(60)]
    assert not any((drawn & massive).any() for drawn in others)
    with pytest.raises(ValueError, match="3 of 4.*layer 0"):
        mh.matched_random_features(np.array([[True, True, True, False]]), np.ones((1, 4)))


# -- logit lens -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("token_budget", [1, 100_000])
def test_logit_lens_ends_in_the_models_own_prediction(lm, prompts, token_budget):
    sets = {"some": [3, 5, 7], "one": [9]}
    got = mh.logit_lens(lm, prompts, sets, token_budget=token_budget)
    for row, prompt in enumerate(prompts):
        with torch.no_grad():
            ids = torch.tensor([lm.tokenizer(prompt)["input_ids"]])
            out = lm.model(ids, output_hidden_states=True)
            probability = out.logits[0, -1].softmax(-1)
            middle = lm.model.lm_head(lm.final_norm(out.hidden_states[1][0, -1])).softmax(-1)
        for name, tokens in sets.items():
            assert got[name][row, -1] == pytest.approx(probability[tokens].sum().item(), rel=1e-4)
            assert got[name][row, 1] == pytest.approx(middle[tokens].sum().item(), rel=1e-4)
