import dataclasses
from itertools import product

import numpy as np
import pytest
import scipy.stats
import torch
import transformers
from hypothesis import given, settings, strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

import mlprune_helpers as mh


def stats_of(rms, tokens=None):
    """ActivationStats with the given root mean squares (n_prompts, n_layers + 1, hidden)."""
    rms = np.asarray(rms, dtype=np.float64)
    tokens = np.full(len(rms), 7) if tokens is None else np.asarray(tokens)
    zero = np.zeros(rms.shape[1:])
    squares = (rms**2 * tokens[:, None, None]).astype(np.float32)
    return mh.ActivationStats(squares, tokens, {}, zero, zero, zero, zero)


# -- top features, overlap -------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(
    size=st.integers(1, 40),
    kinds=st.integers(1, 50),
    percent=st.integers(1, 100),
    seed=st.integers(0, 999),
)
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


@pytest.mark.parametrize("fraction", [True, np.nan, "0.3", None])
def test_a_fraction_is_a_number(fraction):
    with pytest.raises(ValueError, match=f"fraction is {fraction!r}"):
        mh.top_features(np.ones(4), fraction)


def test_norms_that_cannot_be_ranked_are_refused():
    with pytest.raises(ValueError, match=r"NaN at \(1, 2\)"):
        mh.top_features(np.array([[1.0, 2, 3], [1, 2, np.nan]]))
    with pytest.raises(ValueError, match="NaN"):
        mh.overlap(np.ones(10), np.full(10, np.nan))
    with pytest.raises(ValueError, match="one number"):
        mh.top_features(np.float64(3))


def test_overlap_needs_the_same_features_and_a_top():
    with pytest.raises(ValueError, match=r"\(10,\) and \(2, 10\)"):
        mh.overlap(np.ones(10), np.ones((2, 10)))
    with pytest.raises(ValueError, match="top is 0.05, less than one of 10"):
        mh.overlap(np.ones(10), np.ones(10), top=0.05)


def test_whole_numbers_are_ranked_as_they_are():
    unsigned = np.array([3, 0, 2, 1], dtype=np.uint8)  # of which the negative would wrap around
    assert mh.top_features(unsigned, 0.5).tolist() == [True, False, True, False]
    assert mh.overlap(unsigned, unsigned, top=0.5, bottom=0.5) == 0


# -- relative change, the paper's definition -------------------------------------------------------


def test_relative_change_by_hand():
    a, b = stats_of([[[2.0, 1.0, 0.0, 5.0]]], [3]), stats_of([[[1.0, 4.0, 0.0, 5.0]]], [11])
    assert mh.relative_change(a, b) == pytest.approx(np.array([[1.0, -2.0, 0.0, 0.0]]), abs=1e-6)
    two = stats_of([[[2.0]], [[8.0]]], [3, 5])
    one = stats_of([[[1.0]], [[1.0]]], [4, 4])
    assert mh.relative_change(two, one, per_prompt=True).ravel() == pytest.approx([1.0, 3.0])


def test_one_prompt_is_not_stretched_over_many():
    many, one = stats_of(np.ones((5, 2, 3))), stats_of(np.ones((1, 2, 3)))
    assert mh.relative_change(many, one).tolist() == np.zeros((2, 3)).tolist()
    with pytest.raises(ValueError, match="5 translation and 1 control prompts"):
        mh.relative_change(many, one, per_prompt=True)


def other_model():
    return stats_of(np.ones((6, 2, 5)))


def other_matrices():
    return dataclasses.replace(stats_of(np.ones((6, 2, 4))), input_squares={"a": np.ones(3)})


def not_finite():
    return stats_of(np.where(np.arange(4) == 2, np.nan, np.ones((6, 2, 4))))


def nothing_counted():
    return stats_of(np.ones((6, 2, 4)), [7, 7, 0, 7, 7, 7])


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (other_model, "different models"),
        (other_matrices, "different models"),
        (not_finite, "not finite"),
        (nothing_counted, "no token counts"),
    ],
)
@pytest.mark.parametrize(
    "function",
    [
        mh.relative_change,
        mh.sign_flip_test,
        mh.translation_specific_features,
        mh.feature_stability,
    ],
)
def test_statistics_that_cannot_be_compared_are_refused(function, wrong, named):
    good = stats_of(np.ones((6, 2, 4)))
    function(good, good)
    with pytest.raises(ValueError, match=named):
        function(good, wrong())


def test_several_controls_are_each_checked():
    good = stats_of(np.ones((6, 2, 4)))
    for function in (mh.sign_flip_test, mh.translation_specific_features, mh.feature_stability):
        with pytest.raises(ValueError, match="different models"):
            function(good, [good, other_model()])
        with pytest.raises(ValueError, match="No control"):
            function(good, [])
        with pytest.raises(TypeError, match="ndarray"):
            function(good, [np.ones((2, 4))])


def test_specific_features_against_every_control(rng):
    base = rng.uniform(1, 2, (12, 3, 40))
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


@pytest.mark.parametrize(
    "settings",
    [
        {"count": 0},
        {"count": 41},
        {"count": True},
        {"count": 2.5},
        {"method": "test", "alpha": 5},
        {"method": "test", "alpha": True},
        {"method": "overlap", "top": 0},
    ],
)
def test_settings_out_of_range_choose_nothing_by_silence(settings):
    stats = stats_of(np.ones((6, 2, 40)))
    with pytest.raises(ValueError, match="allowed"):
        mh.translation_specific_features(stats, stats, **settings)


def test_five_percent_of_few_features_are_one():
    t = np.ones((2, 1, 4))
    t[..., 2] = 3.0
    found = mh.translation_specific_features(stats_of(t), stats_of(np.ones((2, 1, 4))))
    assert found.tolist() == [[False, False, True, False]]


def test_the_papers_definition(rng):
    """Top share of the prompt-averaged norm under translation, bottom share under the control."""
    a, b = rng.random((5, 2, 20)), rng.random((5, 2, 20))
    found = mh.translation_specific_features(
        stats_of(a), stats_of(b), method="overlap", top=0.4, bottom=0.25
    )
    for layer in range(2):
        top = set(np.argsort(-a[:, layer].mean(0))[:8])
        bottom = set(np.argsort(b[:, layer].mean(0))[:5])
        assert set(np.flatnonzero(found[layer])) == top & bottom


# -- the sign-flip test ----------------------------------------------------------------------------


def loop_test(differences, two_sided):
    """Maximum of Student's t over features under every flip, written out."""
    n = len(differences)

    def t(x):
        value = np.array([scipy.stats.ttest_1samp(column, 0).statistic for column in x.T])
        return np.abs(value) if two_sided else value

    observed = t(differences)
    maxima = np.array(
        [t(differences * np.array(s)[:, None]).max() for s in product([1, -1], repeat=n)]
    )
    return (maxima[:, None] >= observed - 1e-9).mean(axis=0)


@pytest.mark.parametrize("alternative", ["greater", "two-sided"])
def test_sign_flip_equals_all_flips_written_out(rng, alternative):
    differences = rng.normal(0.3, 1, (6, 8))
    translation, control = 2.0 ** differences.reshape(6, 2, 4), np.ones((6, 2, 4))
    change, p = mh.sign_flip_test(
        stats_of(translation), stats_of(control), unit=1, alternative=alternative
    )
    assert change.ravel() == pytest.approx(differences.mean(0), abs=1e-5)
    assert p.ravel() == pytest.approx(loop_test(differences, alternative == "two-sided"))


def test_a_single_feature_equals_scipy(rng):
    x = rng.normal(0.5, 1, 9)
    p = mh.sign_flip_test(stats_of(2.0 ** x[:, None, None]), stats_of(np.ones((9, 1, 1))), unit=1)[
        1
    ]
    expected = scipy.stats.permutation_test(
        (x,),
        lambda v, axis: v.mean(axis=axis),
        permutation_type="samples",
        n_resamples=np.inf,
        alternative="greater",
    )
    assert p.item() == pytest.approx(expected.pvalue)


def test_random_flips_come_near_to_all_of_them(rng):
    x, one = stats_of(2.0 ** rng.normal(0.4, 1, (24, 1, 5))), stats_of(np.ones((24, 1, 5)))
    exact = mh.sign_flip_test(x, one, n_flips=4096)[1]
    drawn = mh.sign_flip_test(x, one, n_flips=4000)[1]
    assert np.abs(exact - drawn).max() < 4 * np.sqrt(0.25 / 4000)
    assert np.array_equal(drawn, mh.sign_flip_test(x, one, n_flips=4000)[1])
    assert not np.array_equal(drawn, mh.sign_flip_test(x, one, n_flips=4000, seed=1)[1])


@pytest.mark.parametrize(("n", "units"), [(8, [2, 2, 2, 2]), (9, [2, 2, 2, 3]), (5, [2, 3])])
def test_a_unit_of_prompts_is_one_observation(rng, n, units):
    """As if averages over consecutive prompts were the prompts; the last unit takes the rest."""
    differences = rng.normal(0.3, 1, (n, 2, 4))
    ends = np.cumsum(units)
    averages = np.array([differences[end - k : end].mean(axis=0) for end, k in zip(ends, units)])
    one = np.ones((n, 2, 4))
    got = mh.sign_flip_test(stats_of(2.0**differences), stats_of(one))
    expected = mh.sign_flip_test(
        stats_of(2.0**averages), stats_of(one[: len(units)]), unit=1, n_flips=2**9
    )
    assert got[0] == pytest.approx(averages.mean(axis=0), abs=1e-5)
    assert got[1] == pytest.approx(expected[1])


def test_flips_in_parts_are_the_same_flips(rng, monkeypatch):
    """The matrix of flips × features is cut; an oracle has it whole."""
    changes = rng.normal(0.2, 1, (1, 7, 3, 500_000 // 3)).astype(np.float32)
    signs = np.array(list(product([1, -1], repeat=7)), dtype=np.float32)
    scaled = changes.reshape(7, -1) / np.linalg.norm(changes.reshape(7, -1), axis=0)
    whole = (signs @ scaled).max(axis=1)
    assert np.allclose(mh.features.changes._largest_by_flip([signs], scaled, False), whole)


@pytest.mark.parametrize(("alternative", "patterns"), [("greater", 1), ("two-sided", 2)])
def test_no_p_value_is_smaller_than_the_flips_allow(alternative, patterns):
    """Ten units that all grow: of 2^10 patterns, one is as large (or two), drawn or not."""
    grown, one = stats_of(np.full((10, 1, 1), 2.0)), stats_of(np.ones((10, 1, 1)))
    for n_flips in (1000, 1024):
        p = [
            mh.sign_flip_test(
                grown, one, unit=1, alternative=alternative, n_flips=n_flips, seed=seed
            )[1].item()
            for seed in range(5)
        ]
        assert min(p) >= patterns / 2**10
    assert p == [patterns / 2**10] * 5


def test_any_false_find_is_as_rare_as_promised():
    """Of 300 experiments without an effect, on correlated features, 5 % find something."""
    rng = np.random.default_rng(1)
    finds = 0
    for _ in range(300):
        common = rng.normal(size=(16, 1, 1))
        noise = (rng.normal(size=(16, 2, 15)) + common) * rng.uniform(0.01, 3, (1, 2, 15))
        finds += (
            mh.sign_flip_test(stats_of(2.0**noise), stats_of(np.ones((16, 2, 15))))[1] <= 0.05
        ).any()
    assert 3 <= finds <= 15 + 4 * np.sqrt(300 * 0.05 * 0.95)


def false_finds(make, test, repeats=400, seed=0):
    """Share of experiments in which ``test`` finds any feature, all of them false."""
    rng = np.random.default_rng(seed)
    return np.mean([test(*make(rng)).any() for _ in range(repeats)])


def grown_against_one_control_only(rng):
    """No feature grows against both controls, and each hugely against one of them."""
    translation, first, second = rng.normal(size=(3, 14, 2, 150))
    first[..., :75] -= 50
    second[..., 75:] -= 50
    return stats_of(2.0**translation), [stats_of(2.0**first), stats_of(2.0**second)]


def test_against_several_controls_any_false_find_is_as_rare_as_promised():
    """Two tests of their own, and the larger p-value, find something twice as often as stated."""

    def jointly(translation, controls):
        return mh.sign_flip_test(translation, controls)[1] <= 0.05

    def apart(translation, controls):
        p_values = [mh.sign_flip_test(translation, one)[1] for one in controls]
        return np.max(p_values, axis=0) <= 0.05

    standard_error = np.sqrt(0.05 * 0.95 / 400)
    assert false_finds(grown_against_one_control_only, jointly) <= 0.05 + 2 * standard_error
    assert false_finds(grown_against_one_control_only, apart) >= 0.05 + 2 * standard_error


def test_what_grows_against_every_control_is_found_among_what_does_not():
    rng = np.random.default_rng(3)
    translation, controls = grown_against_one_control_only(rng)
    translation = stats_of(np.concatenate([rms_of(translation), np.full((14, 2, 3), 8.0)], axis=2))
    controls = [
        stats_of(np.concatenate([rms_of(one), 2.0 ** rng.normal(0, 0.3, (14, 2, 3))], axis=2))
        for one in controls
    ]
    found = mh.sign_flip_test(translation, controls)[1] <= 0.05
    assert found[:, 150:].all() and not found[:, :150].any()


def rms_of(stats):
    return np.sqrt(stats.prompt_squares / stats.prompt_tokens[:, None, None])


def swapped_partners(rng, effect=0.0, n=16, shape=(2, 100), grown=5):
    """Log sizes made of both sentences of a prompt, and of ``effect`` where they are a translation.

    In the control, the English of prompt i is that of prompt i ^ 1.
    """
    french, english = rng.normal(size=(2, n, *shape))
    noise = 0.2 * rng.normal(size=(2, n, *shape))
    aligned = french + english + noise[0]
    aligned[..., :grown] += effect
    swapped = french + english[np.arange(n) ^ 1] + noise[1]
    return stats_of(2.0**aligned), stats_of(2.0**swapped)


def test_prompts_that_swap_partners_are_dependent_and_their_units_are_not():
    aligned, swapped = swapped_partners(np.random.default_rng(0), n=200)
    change = mh.relative_change(aligned, swapped, per_prompt=True).reshape(200, -1)
    units = change.reshape(100, 2, -1).mean(axis=1)
    within = np.corrcoef(change[::2].ravel(), change[1::2].ravel())[0, 1]
    between = np.corrcoef(units[::2].ravel(), units[1::2].ravel())[0, 1]
    assert within < -0.9 and abs(between) < 4 / np.sqrt(units.size / 2)


def test_units_of_swapped_partners_have_the_stated_error_and_see_what_single_prompts_miss():
    """Prompt by prompt, the sentence that changes sides hides the effect."""

    def by(unit):
        return lambda *pair: mh.sign_flip_test(*pair, unit=unit)[1] <= 0.05

    spread = np.sqrt(0.05 * 0.95 / 400)
    by_units = false_finds(swapped_partners, by(2))
    assert 0.05 - 3 * spread <= by_units <= 0.05 + 3 * spread
    assert (
        false_finds(
            swapped_partners, lambda *pair: mh.sign_flip_test(*pair, unit=1, n_flips=500)[1] <= 0.05
        )
        < 0.02
    )
    aligned, swapped = swapped_partners(np.random.default_rng(1), effect=0.8)
    power = {unit: by(unit)(aligned, swapped)[:, :5].mean() for unit in (1, 2)}
    assert power[2] > 0.9 and power[1] < 0.1


def test_of_several_controls_the_worst_counts(rng):
    """Written out: the maximum over both controls, of the same flips."""
    t, a, b = (2.0 ** rng.normal(size=(7, 1, 6)) for _ in range(3))
    change, p = mh.sign_flip_test(stats_of(t), [stats_of(a), stats_of(b)], unit=1)
    against = [np.log2(t / other)[:, 0] for other in (a, b)]
    joint = loop_test(np.hstack(against), two_sided=False)
    assert p.ravel() == pytest.approx(np.maximum(joint[:6], joint[6:]))
    least = np.minimum(*(one.mean(axis=0) for one in against))
    assert change.ravel() == pytest.approx(least, abs=1e-5)


def test_a_constant_change_is_found_and_silence_is_not():
    t, one = np.ones((12, 1, 3)) * [2.0, 1.0, 0.0], np.ones((12, 1, 3)) * [1.0, 1.0, 0.0]
    change, p = mh.sign_flip_test(stats_of(t), stats_of(one))
    assert p.ravel().tolist() == [1 / 64, 1.0, 1.0]
    assert change.ravel().tolist() == pytest.approx([1.0, 0.0, 0.0])


@pytest.mark.parametrize(("n", "others"), [(3, 4), (1, 1), (3, 3)])
def test_unpaired_prompts_are_refused(n, others):
    with pytest.raises(ValueError, match=f"{n} translation and {others} control.*pairs"):
        mh.sign_flip_test(stats_of(np.ones((n, 1, 2))), stats_of(np.ones((others, 1, 2))))


@pytest.mark.parametrize("n_flips", [0, -1, True, 2.5, "100"])
def test_flips_are_a_whole_number(n_flips):
    stats = stats_of(np.ones((4, 1, 2)))
    with pytest.raises(ValueError, match="n_flips"):
        mh.sign_flip_test(stats, stats, n_flips=n_flips)


@pytest.mark.parametrize("unit", [0, -1, True, 2.0, "2", None])
def test_a_unit_is_a_whole_number(unit):
    stats = stats_of(np.ones((4, 1, 2)))
    for function in (mh.sign_flip_test, mh.feature_stability):
        with pytest.raises(ValueError, match="unit is"):
            function(stats, stats, unit=unit)


def test_wrong_alternatives_are_named():
    with pytest.raises(ValueError, match="less.*greater"):
        mh.sign_flip_test(
            stats_of(np.ones((3, 1, 2))), stats_of(np.ones((3, 1, 2))), alternative="less"
        )


# -- a model in which the translation-specific features are known ----------------------------------

PLANTED = [20, 33, 47]  # dimensions that block 0 writes to where a word meets its translation
CONCEPTS = 16


@pytest.fixture(scope="module")
def planted():
    """GPT-2 of two blocks.  Words a0 … a15 and b0 … b15 say the same things in two languages.

    Attention of block 0 looks at words of the same concept and fetches their language; its MLP
    compares that with the word's own language and, where the other one is among them, writes to
    PLANTED.
    """
    words = [f"{language}{i}" for language in "ab" for i in range(CONCEPTS)]
    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="a0")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="a0")
    config = transformers.GPT2Config(
        vocab_size=len(words),
        n_embd=64,
        n_layer=2,
        n_head=1,
        n_positions=64,
        bos_token_id=0,
        eos_token_id=0,
    )
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
            embedding[i, 20:] = (
                noise  # of one mean and length for every word: the first norm is one map
            )
            embedding[i, concept] = embedding[i, 16 + language] = 1.0
        block = model.transformer.h[0]
        query_key_value = block.attn.c_attn.weight  # (in, 3 * 64): Conv1D
        for i in range(CONCEPTS):
            query_key_value[i, i] = query_key_value[i, 64 + i] = 3.0
        query_key_value[16, 128], query_key_value[17, 129] = 1.0, 1.0
        block.attn.c_proj.weight[0, 18] = block.attn.c_proj.weight[1, 19] = (
            0.18  # language of what is looked at
        )
        for neuron, (own, seen) in enumerate([(16, 19), (17, 18)]):
            block.mlp.c_fc.weight[own, neuron] = block.mlp.c_fc.weight[seen, neuron] = 4.0
            block.mlp.c_fc.bias[neuron] = (
                -4.0 * 5.7
            )  # between a word beside its translation (7.2) and one without (4.2)
            block.mlp.c_proj.weight[neuron, PLANTED] = 2.0
    return mh.LanguageModel("planted", model, tokenizer)


def planted_prompts(kind, n=12, seed=0):
    """Four "sentences" of two words a prompt: with the translation, another's, or alone."""
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
    aligned, mismatched, alone = (
        mh.collect_activations(planted, planted_prompts(k))
        for k in ("aligned", "mismatched", "alone")
    )
    truth = np.zeros(aligned.rms.shape, dtype=bool)
    truth[1:, PLANTED] = True
    found = mh.translation_specific_features(aligned, [mismatched, alone], count=3)
    assert np.array_equal(found[1:], truth[1:])
    tested = mh.translation_specific_features(aligned, [mismatched, alone], method="test")
    assert tested[truth].all() and not tested[0].any()
    change = mh.sign_flip_test(aligned, mismatched)[0]
    assert change[truth].min() > 2 * change[~truth].max()
    stability = mh.feature_stability(aligned, [mismatched, alone], count=3, n_splits=5)
    assert (
        stability["jaccard"][1:].tolist() == [1.0, 1.0] and (stability["chance"][1:] < 0.05).all()
    )
    assert (
        mh.sign_flip_test(mismatched, alone)[1][:, PLANTED].min() > 0.05
    )  # a second language alone is not it


def test_planted_features_matter_and_others_do_not(planted):
    """The head reads them out to word b15; without them it is as if nothing was translated."""
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


# -- stability -------------------------------------------------------------------------------------


def test_stability_of_noise_is_chance(rng):
    t, c = (
        stats_of(2.0 ** rng.normal(size=(40, 2, 200))),
        stats_of(2.0 ** rng.normal(size=(40, 2, 200))),
    )
    table = mh.feature_stability(t, c, count=60, n_splits=10, seed=3)
    assert table["layer"].tolist() == [0, 1]
    # The whole sample is split, so noise agrees less often than at random.
    assert (table["jaccard"] < table["chance"] + 0.05).all() and (
        table["chance"] - 0.176
    ).abs().max() < 0.01
    assert (table["low"] <= table["jaccard"]).all() and (table["jaccard"] <= table["high"]).all()
    assert table.equals(mh.feature_stability(t, c, count=60, n_splits=10, seed=3))


def test_stability_needs_two_units():
    three = stats_of(np.ones((3, 1, 4)))
    with pytest.raises(ValueError, match="3 translation and 3 control prompts.*at least 4"):
        mh.feature_stability(three, three)
    assert len(mh.feature_stability(three, three, unit=1)) == 1


@pytest.mark.parametrize("n", [8, 9])
def test_stability_splits_by_whole_units(n, monkeypatch):
    """Prompt i has its own token count, which tells it among the chosen ones."""
    stats, seen = stats_of(np.ones((n, 1, 4)), np.arange(n) + 1), []

    def choose(translation, controls, **settings):
        seen.append((translation.prompt_tokens - 1).tolist())
        assert settings == {"unit": 2, "method": "test"}
        assert [(one.prompt_tokens - 1).tolist() for one in controls] == [seen[-1]]
        return np.ones((1, 4), dtype=bool)

    monkeypatch.setattr(mh.features.specific, "translation_specific_features", choose)
    mh.feature_stability(stats, stats, n_splits=5, method="test")
    last = [[6, 7]] if n == 8 else [[6, 7, 8]]
    units = [[0, 1], [2, 3], [4, 5], *last]
    for half, other in zip(seen[::2], seen[1::2]):
        assert sorted(half + other) == list(range(n))
        # What the test would count off from a half are units of the whole.
        assert all(unit.tolist() in units for unit in np.split(half, range(2, len(half) - 1, 2)))
    assert len({tuple(half) for half in seen}) > 2


def test_halves_can_be_tested(rng):
    t = 2.0 ** rng.normal(0, 0.1, (20, 2, 30))
    t[..., 3] *= 4
    table = mh.feature_stability(
        stats_of(t), stats_of(np.ones((20, 2, 30))), method="test", n_splits=3
    )
    assert table["jaccard"].tolist() == [1.0, 1.0]


def test_stability_does_not_drop_prompts():
    with pytest.raises(ValueError, match="6 translation and 4 control"):
        mh.feature_stability(stats_of(np.ones((6, 1, 4))), stats_of(np.ones((4, 1, 4))))
    with pytest.raises(ValueError, match="n_splits is 0"):
        mh.feature_stability(stats_of(np.ones((6, 1, 4))), stats_of(np.ones((6, 1, 4))), n_splits=0)


# -- what two languages share ----------------------------------------------------------------------


def random_choice(rng, layers=8, hidden=40, n_dimensions=6):
    """Dimensions at random, each for some layers in a row."""
    chosen = np.zeros((layers, hidden), dtype=bool)
    for dimension in rng.permutation(hidden)[:n_dimensions]:
        start = rng.integers(layers - 3)
        chosen[start : rng.integers(start + 3, layers) + 1, dimension] = True
    return chosen


def test_features_of_one_layer_are_shared_as_the_hypergeometric_says():
    a, b = np.zeros((2, 1, 30), dtype=bool)
    a[0, :10], b[0, 4:16] = True, True
    got = mh.shared_features(a, b)
    exact = scipy.stats.hypergeom(30, 10, 12)
    assert got.n_shared == 6 and got.expected == pytest.approx(exact.mean())
    assert got.p_value == pytest.approx(exact.sf(5), abs=4 * np.sqrt(0.25 / 10_000))
    assert got == mh.shared_features(b, a) or got.p_value == pytest.approx(
        mh.shared_features(b, a).p_value, abs=0.03
    )


def independent_layers(a, b):
    """p-value if what is chosen at one layer said nothing of the next: exact, by convolution."""
    distribution = np.ones(1)
    for row, other in zip(a, b):
        counts = np.arange(a.shape[1] + 1)
        here = scipy.stats.hypergeom(a.shape[1], row.sum(), other.sum()).pmf(counts)
        distribution = np.convolve(distribution, here)
    return distribution[(a & b).sum() :].sum()


def test_tracks_at_random_are_shared_as_rarely_as_promised():
    """Independent layers would call chance significant, because a dimension lasts over layers."""
    rng = np.random.default_rng(0)
    pairs = [(random_choice(rng), random_choice(rng)) for _ in range(300)]
    results = [mh.shared_features(a, b, n_permutations=199) for a, b in pairs]
    error = np.mean([result.p_value <= 0.05 for result in results])
    spread = np.sqrt(0.05 * 0.95 / 300)
    assert 0.02 < error <= 0.05 + 3 * spread
    assert np.mean([independent_layers(a, b) <= 0.05 for a, b in pairs]) > 0.05 + 3 * spread
    excess = np.array([result.n_shared - result.expected for result in results])
    assert abs(excess.mean()) < 4 * excess.std() / np.sqrt(300)


def test_what_is_shared_is_seen(rng):
    a = random_choice(rng)
    same = mh.shared_features(a, a, n_permutations=999)
    assert same.n_shared == a.sum() and same.p_value == 1 / 1000
    assert same.expected == pytest.approx((a.sum(axis=1) ** 2 / 40).sum())
    n_shared, expected, p_value = mh.shared_features(a, np.zeros_like(a), n_permutations=99)
    assert (n_shared, expected, p_value) == (0, 0.0, 1.0)
    assert mh.shared_features(a, a, n_permutations=50) == mh.shared_features(
        a, a, n_permutations=50
    )


@pytest.mark.parametrize(
    ("a", "b", "named"),
    [
        (np.eye(4, dtype=bool), np.eye(5, dtype=bool), r"\(4, 4\) and b \(5, 5\)"),
        (np.ones(4, dtype=bool), np.ones(4, dtype=bool), r"a is \(4,\)"),
        (np.eye(4), np.eye(4, dtype=bool), "a are of type float64"),
        (np.eye(4, dtype=bool), np.eye(4, dtype=int), "b are of type int64"),
    ],
)
def test_what_cannot_be_shared_is_named(a, b, named):
    with pytest.raises(ValueError, match=named):
        mh.shared_features(a, b)
    right = np.eye(4, dtype=bool)
    with pytest.raises(ValueError, match="n_permutations is 0"):
        mh.shared_features(right, right, n_permutations=0)


# -- ablation --------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    hidden=st.integers(4, 60),
    layers=st.integers(1, 3),
    share=st.floats(0, 0.5),
    seed=st.integers(0, 999),
)
def test_matched_features_are_others_as_many(hidden, layers, share, seed):
    rng = np.random.default_rng(seed)
    norms = rng.random((layers, hidden))
    features = np.zeros((layers, hidden), dtype=bool)
    for row in features:
        row[rng.permutation(hidden)[: int(share * hidden)]] = True
    drawn = mh.matched_random_features(features, norms, seed=seed, tracks=False)
    assert np.array_equal(drawn.sum(1), features.sum(1)) and not (drawn & features).any()
    again = mh.matched_random_features(features, norms, seed=seed, tracks=False)
    assert np.array_equal(drawn, again)


@pytest.mark.parametrize("tracks", [False, True])
def test_matched_features_are_of_similar_size(tracks):
    norms = np.exp(np.arange(100.0))[None]
    features, massive = (
        np.isin(np.arange(100), some)[None] for some in ([0, 50, 95], [49, 51, 99])
    )

    def draw(seed, **options):
        return mh.matched_random_features(features, norms, seed=seed, tracks=tracks, **options)

    draws = np.array([np.flatnonzero(draw(seed)) for seed in range(60)])
    assert (np.abs(draws - [0, 50, 95]) <= 12).all() and len(np.unique(draws[:, 1])) > 5
    assert np.isin(draws, [49, 51, 99]).any()
    assert not any((draw(seed, exclude=massive) & massive).any() for seed in range(60))
    with pytest.raises(ValueError, match="3 of 4.*too few others to match"):
        mh.matched_random_features(
            np.array([[True, True, True, False]]), np.ones((1, 4)), tracks=tracks
        )


@settings(max_examples=60, deadline=None)
@given(hidden=st.integers(8, 60), layers=st.integers(1, 4), seed=st.integers(0, 999))
def test_tracks_are_matched_by_tracks(hidden, layers, seed):
    rng = np.random.default_rng(seed)
    norms = rng.random((layers, hidden))
    features = np.zeros((layers, hidden), dtype=bool)
    dimensions = rng.permutation(hidden)[: hidden // 3]
    features[:, dimensions] = rng.random((layers, len(dimensions))) < 0.5
    exclude = np.zeros_like(features)
    exclude[rng.integers(layers), rng.integers(hidden)] = True
    drawn = mh.matched_random_features(features, norms, exclude=exclude, seed=seed)

    def tracks(mask):
        return sorted(tuple(np.flatnonzero(column)) for column in mask.T if column.any())

    assert tracks(drawn) == tracks(features)
    assert not (drawn.any(0) & features.any(0)).any() and not (drawn.any(0) & exclude.any(0)).any()
    assert np.array_equal(drawn.sum(1), features.sum(1))


def test_a_track_is_matched_by_size_where_it_lies():
    """Dimension 0 is like 1 at its own layers, and like 2 elsewhere."""
    norms = np.ones((3, 4))
    norms[:2, [0, 1]], norms[2, [0, 2]] = 50.0, 9.0
    features = np.zeros((3, 4), dtype=bool)
    features[:2, 0] = True
    drawn = mh.matched_random_features(features, norms, nearest=1)
    assert np.argwhere(drawn).tolist() == [[0, 1], [1, 1]]
    draws = [mh.matched_random_features(features, norms, seed=s) for s in range(30)]
    assert len({tuple(np.flatnonzero(drawn.any(0))) for drawn in draws}) == 3
    features[:, :3] = True
    with pytest.raises(
        ValueError, match="3 of 4 dimensions are chosen, and 1 others.*tracks=False"
    ):
        mh.matched_random_features(features, norms)


def test_a_dimension_excluded_anywhere_is_drawn_nowhere():
    """Dimension 1 is like 0 where it is chosen, but massive at another layer."""
    norms = np.array([[5.0, 5.0, 1.0, 1.0], [5.0, 900.0, 1.0, 1.0]])
    features, massive = np.zeros((2, 4), dtype=bool), norms > 100
    features[0, 0] = True
    matched = mh.matched_random_features(features, norms, nearest=1)
    assert np.argwhere(matched).tolist() == [[0, 1]]
    for seed in range(20):
        matched = mh.matched_random_features(features, norms, exclude=massive, seed=seed)
        assert matched[0, 2:].sum() == matched.sum() == 1
        tracks = mh.random_tracks((2, 4), 2, exclude=massive, seed=seed)
        assert not tracks[:, 1].any()


def test_random_tracks_are_whole_dimensions_each_as_likely():
    draws = np.array([mh.random_tracks((3, 10), 4, seed=seed) for seed in range(400)])
    assert (draws.all(axis=1) == draws.any(axis=1)).all() and (draws[:, 0].sum(axis=1) == 4).all()
    share = draws[:, 0].mean(axis=0)
    assert np.abs(share - 0.4).max() < 4 * np.sqrt(0.4 * 0.6 / 400)
    assert np.array_equal(mh.random_tracks((3, 10), 4, seed=7), draws[7])
    assert mh.random_tracks((3, 10), 10).all()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (((3, 10), 11), "n_dimensions is 11; allowed.*1 to 10"),
        (((3, 10), 0), "n_dimensions is 0"),
        (((3, 10), True), "n_dimensions is True"),
        (((3, 10), 2.0), "n_dimensions is 2.0"),
        (((30,), 1), r"shape is \(30,\)"),
        (((3, 0), 1), r"shape is \(3, 0\)"),
        (((3, 10), 10, np.eye(3, 10, dtype=bool)), "allowed.*1 to 7"),
        (((3, 10), 1, np.eye(3, 9, dtype=bool)), r"exclude is \(3, 9\)"),
        (((3, 10), 1, np.eye(3, 10)), "exclude are of type float64"),
    ],
)
def test_wrong_tracks_are_named(arguments, named):
    shape, n_dimensions, *exclude = arguments
    with pytest.raises(ValueError, match=named):
        mh.random_tracks(shape, n_dimensions, exclude=exclude[0] if exclude else None)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"features": np.eye(4, dtype=int)}, "features are of type int64"),
        ({"features": np.ones(4, dtype=bool)}, r"features are \(4,\)"),
        ({"norms": np.ones((5, 4))}, r"norms are \(5, 4\)"),
        ({"norms": np.where(np.eye(4), np.nan, 1.0)}, "NaN"),
        ({"norms": -np.ones((4, 4))}, "negative"),
        ({"exclude": np.ones(4, dtype=bool)}, r"exclude are \(4,\)"),
        ({"exclude": np.eye(4)}, "exclude are of type float64"),
        ({"nearest": 0}, "nearest is 0"),
    ],
)
@pytest.mark.parametrize("tracks", [False, True])
def test_what_cannot_be_matched_is_named(change, named, tracks):
    features = np.arange(16).reshape(4, 4) % 4 < 2
    right = {"features": features, "norms": np.ones((4, 4))}
    mh.matched_random_features(**right, tracks=tracks)
    with pytest.raises(ValueError, match=named):
        mh.matched_random_features(**{**right, **change}, tracks=tracks)


# -- logit lens ------------------------------------------------------------------------------------


#: Where it is not ``model.norm``.
FINAL_NORMS = {
    "xglm": "model.layer_norm",
    "gpt2": "transformer.ln_f",
    "bloom": "transformer.ln_f",
    "opt": "model.decoder.final_layer_norm",
}


@pytest.mark.parametrize("token_budget", [1, 100_000])
def test_logit_lens_ends_in_the_models_own_prediction(lm, architecture, prompts, token_budget):
    norm = lm.model.get_submodule(FINAL_NORMS.get(architecture, "model.norm"))
    sets = {"some": [3, 5, 7], "one": [9]}
    got = mh.logit_lens(lm, prompts, sets, token_budget=token_budget)
    for row, prompt in enumerate(prompts):
        with torch.no_grad():
            ids = torch.tensor([lm.tokenizer(prompt)["input_ids"]])
            out = lm.model(ids, output_hidden_states=True)
            probability = out.logits[0, -1].softmax(-1)
            middle = lm.model.lm_head(norm(out.hidden_states[1][0, -1])).softmax(-1)
        for name, tokens in sets.items():
            assert got[name][row, -1] == pytest.approx(probability[tokens].sum().item(), rel=1e-4)
            assert got[name][row, 1] == pytest.approx(middle[tokens].sum().item(), rel=1e-4)


def test_a_token_set_counts_each_token_once_and_may_be_any_collection(one_lm):
    sets = {"list": [3, 9], "twice": [3, 9, 3], "set": {3, 9}, "array": np.array([3, 9])}
    got = mh.logit_lens(one_lm, ["Oui."], sets)
    assert all(np.allclose(got[name], got["list"], atol=0, rtol=1e-6) for name in sets)
    whole = mh.logit_lens(one_lm, ["Oui."], {"all": range(300)})["all"]
    assert whole == pytest.approx(np.ones((1, 4)), rel=1e-5)


@pytest.mark.parametrize("empty", [[], set(), np.array([]), torch.tensor([])])
def test_no_token_has_no_probability(one_lm, empty):
    got = mh.logit_lens(one_lm, ["Oui.", "A red house"], {"none": empty, "one": [3]})
    assert np.array_equal(got["none"], np.zeros((2, 4))) and (got["one"] > 0).all()
    assert np.array_equal(
        mh.logit_lens(one_lm, ["Oui."], {"none": empty})["none"], np.zeros((1, 4))
    )


@pytest.mark.parametrize(
    ("sets", "error", "named"),
    [
        ({"a": "cat"}, TypeError, "'a' is 'cat'"),
        ({"a": 3}, TypeError, "'a' is 3"),
        ({"a": ["3"]}, ValueError, "'3'.*0 to 299"),
        ({"a": [True]}, ValueError, "True"),
        ({"a": [1.0]}, ValueError, r"1\.0"),
        ({"a": [3, 300]}, ValueError, "300.*0 to 299"),
        ({"a": [-1]}, ValueError, "-1.*0 to 299"),
        ({}, ValueError, "token_sets"),
        ([3], ValueError, "token_sets"),
    ],
)
def test_wrong_token_sets_are_named(one_lm, sets, error, named):
    with pytest.raises(error, match=named):
        mh.logit_lens(one_lm, ["Oui."], sets)


def test_a_model_that_overflows_is_no_lens(one_lm):
    one_lm.model.half()
    one_lm.layers[1].mlp.down_proj.weight.data.fill_(6e4)
    with pytest.raises(ValueError, match="not finite.*float32"):
        mh.logit_lens(one_lm, ["Oui.", "A red house"], {"a": [3]})
    with pytest.raises(TypeError, match="list of texts"):
        mh.logit_lens(one_lm, "Oui.", {"a": [3]})
