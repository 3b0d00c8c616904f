"""Nats from the source: against plain passes, models that cannot use a source, and the real one."""

import numpy as np
import pytest
import torch
from conftest import SENTENCES

import mlprune_helpers as mh
from mlprune_helpers import translation_evaluation
from mlprune_helpers.translation_evaluation import swapped

FRENCH = [*SENTENCES[1::2], "Oui, un chat.", "Le lait est vieux."][:5]
ENGLISH = [*SENTENCES[0::2], "Yes, a cat.", "The milk is old."][:5]
SHOTS = "French: Oui.\nEnglish: Yes.\n"


def plain_pass(lm, prompt, reference):
    """Mean log-probability of a reference's tokens after a prompt, from one pass of the string."""
    start = len(lm.tokenizer(prompt)["input_ids"])
    ids = torch.tensor([lm.tokenizer(f"{prompt} {reference}")["input_ids"]])
    with torch.no_grad():
        logits = lm.model(ids).logits[0].double().log_softmax(-1)
    return float(logits[:-1].gather(1, ids[0, 1:, None])[start - 1 :].mean())


def prompt_of(sentence, shots="", separator="\n"):
    return f"{shots}French: {sentence}{separator}English:"


@pytest.mark.parametrize("architecture", ["gemma3", "gpt2", "llama", "bloom"], indirect=True)
def test_equals_plain_passes(lm):
    wrong = [1, 0, 3, 4, 2]  # swapped within the pair, and the last three in a cycle
    own_shots = [SHOTS, "", SHOTS * 2, "", SHOTS]
    for shots, separator in (("", "\n"), (SHOTS, "\n"), (own_shots, "\n"), (SHOTS, " ### ")):
        of_each = [shots] * 5 if isinstance(shots, str) else shots
        expected = np.array([
            [
                plain_pass(lm, prompt_of(FRENCH[asked], own, separator), reference)
                for asked in (number, wrong[number])
            ]
            for number, (own, reference) in enumerate(zip(of_each, ENGLISH))
        ])  # fmt: skip
        asked = (lm, FRENCH, ENGLISH, "fr", "en", shots)
        result = mh.evaluate_translation(*asked, separator=separator, generate=False)
        assert result.below_own == pytest.approx(expected[:, 0], abs=1e-4)
        assert result.below_wrong == pytest.approx(expected[:, 1], abs=1e-4)
        gained = expected[:, 0] - expected[:, 1]
        nats = mh.from_the_source(*asked, separator=separator)
        assert nats == pytest.approx(gained, abs=2e-4) and np.abs(gained).max() > 0.01
        assert np.array_equal(nats, result.from_the_source)
        assert np.array_equal(result.reference, result.below_own)
        assert np.array_equal(result.fluency, result.below_wrong)
        assert result.hypotheses is None and result.groups == [0, 0, 1, 1, 1]


def test_translations_are_those_of_translate(one_lm):
    options = {"max_new_tokens": 6, "separator": "###"}
    result = mh.evaluate_translation(one_lm, FRENCH, ENGLISH, "fr", "en", SHOTS, **options)
    assert result.hypotheses == mh.translate(one_lm, FRENCH, "fr", "en", SHOTS, **options)
    assert result.quality == mh.translation_quality(result.hypotheses, ENGLISH, "en")
    assert result.settings["max_new_tokens"] == 6 and result.settings["separator"] == "###"
    assert result.settings["fingerprint"] == one_lm.fingerprint
    silent = mh.evaluate_translation(one_lm, FRENCH, ENGLISH, "fr", "en", SHOTS, generate=False)
    with pytest.raises(ValueError, match="fr→en: nothing was generated.*generate=True"):
        silent.quality  # noqa: B018


# -- planted truths --------------------------------------------------------------------------------


def test_a_model_that_sees_one_token_gains_nothing_from_the_source(one_lm):
    """Without attention a token depends on the one before it, and "English:" ends every prompt."""
    with torch.no_grad():
        for layer in one_lm.layers:
            layer.self_attn.o_proj.weight.zero_()
    result = mh.evaluate_translation(one_lm, FRENCH, ENGLISH, "fr", "en", SHOTS, generate=False)
    assert result.from_the_source == pytest.approx(np.zeros(5), abs=1e-5)
    assert np.ptp(result.fluency) > 0.01  # though references differ in how likely they are
    assert not result.translates


def made(below_own, below_wrong, groups, **changes):
    given = {
        "source": "fr",
        "target": "en",
        "references": [f"Number {k}" for k in range(len(below_own))],
        "hypotheses": None,
        "settings": {"model": "m"},
    }
    arrays = {"below_own": below_own, "below_wrong": below_wrong, "groups": groups}
    return mh.TranslationEvaluation(**{**given, **arrays, **changes})


def scored(table):
    """From log-probabilities (reference, source) what an evaluation would be."""
    n = len(table)
    numbered = [str(k) for k in range(n)]
    wrong, groups = swapped(numbered, numbered)
    return made(table.diagonal(), table[np.arange(n), wrong], groups)


@pytest.mark.parametrize("n", [12, 15])
def test_easy_references_and_inviting_sources_cancel(rng, n):
    """Each source stands once above its own and once above a wrong reference."""
    table = rng.normal(size=(n, n)) + 2 * np.eye(n)
    moved = table + 5 * rng.normal(size=(n, 1)) + 5 * rng.normal(size=(1, n))
    one, other = scored(table), scored(moved)
    assert other.nats.difference == pytest.approx(one.nats.difference)
    if n == 12:  # swaps of two cancel pair by pair, so that the test is not disturbed either
        assert other.nats.p_value == one.nats.p_value
        assert other.nats.low == pytest.approx(one.nats.low)


def test_where_the_source_is_ignored_it_is_rarely_found(rng):
    """A true zero: sources and references differ, but no pair of them is special."""
    p_values = []
    for _ in range(200):
        table = rng.normal(size=(24, 24)) + 2 * rng.normal(size=(1, 24)) + rng.normal(size=(24, 1))
        p_values.append(scored(table).nats.p_value)
    # Of 200 draws at 5 %, more than 9 % would come up once in 100 times.
    assert np.mean(np.array(p_values) < 0.05) <= 0.09
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.08)


@pytest.mark.parametrize(("gain", "translates"), [(0.5, False), (1.0, False), (1.6, True)])
def test_it_translates_where_the_low_end_is_at_least_one_nat(rng, gain, translates):
    result = scored(0.5 * rng.normal(size=(40, 40)) + gain * np.eye(40))
    assert result.translates is translates
    assert result.translates == (result.nats.low >= 1)
    assert result.nats.difference == pytest.approx(result.from_the_source.mean())
    assert (result.nats.n, result.nats.n_groups) == (40, 20)


# -- which source is wrong -------------------------------------------------------------------------


@pytest.mark.parametrize("n", range(2, 12))
def test_sources_are_swapped_within_pairs(n):
    texts = [f"text {k}" for k in range(n)]
    wrong, groups = swapped(texts, texts)
    paired = n if n % 2 == 0 else n - 3
    assert wrong[:paired] == [k + 1 if k % 2 == 0 else k - 1 for k in range(paired)]
    assert groups[:paired] == [k // 2 for k in range(paired)]
    if n % 2:
        assert wrong[paired:] == [n - 2, n - 1, n - 3] and len(set(groups[paired:])) == 1
    assert sorted(wrong) == list(range(n))  # every source is wrong once
    assert all(groups[one] == groups[other] for one, other in enumerate(wrong))


def test_what_is_the_same_is_no_wrong_source():
    sources = ["a", "b", "c", "d", "e", "f"]
    references = ["A", "A ", "C", "D", "E", "F"]  # 0 and 1 have the same reference
    wrong, groups = swapped(sources, references)
    assert wrong == [2, 3, 0, 1, 5, 4] and groups == [0, 1, 0, 1, 2, 2]
    wrong, _ = swapped(["a", "a", "c", "d"], list("ABCD"))
    assert wrong == [2, 3, 0, 1]
    for same in (["a", "a"], ["a", "b", "a"], ["a", "b", "c", "c"], ["a", "a", "b", "b", "b"]):
        with pytest.raises(ValueError, match="No wrong source is left for '[abc]'"):
            swapped(same, [str(k) for k in range(len(same))])
        with pytest.raises(ValueError, match="No wrong source is left"):
            swapped([str(k) for k in range(len(same))], same)


# -- what is refused, and files --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error", "named"),
    [
        ({"sentences": FRENCH[:4]}, ValueError, "4 sentences and 5 references"),
        ({"sentences": FRENCH[:1], "references": ENGLISH[:1]}, ValueError, "1 sentences and 1"),
        ({"sentences": "Oui."}, TypeError, "sentences is one string"),
        ({"references": "Yes."}, TypeError, "references is one string"),
        ({"references": [*ENGLISH[:4], " "]}, mh.DataError, "references: item 4 is ' '"),
        ({"sentences": [None, *FRENCH[1:]]}, mh.DataError, "sentences: item 0 is None"),
        ({"source": "xx"}, mh.DataError, "language 'xx'"),
        ({"target": "english"}, mh.DataError, "language 'english'"),
        ({"demonstrations": [SHOTS] * 4}, ValueError, "4 demonstrations for 5 sentences"),
        ({"demonstrations": SHOTS * 40}, ValueError, "fit"),
        ({"sentences": ["Oui."] * 5}, ValueError, "No wrong source is left for 'Oui.'"),
    ],
)
def test_what_cannot_be_measured_is_refused(one_lm, monkeypatch, changes, error, named):
    asked = {
        "sentences": FRENCH,
        "references": ENGLISH,
        "source": "fr",
        "target": "en",
        "demonstrations": SHOTS,
    }
    monkeypatch.setattr(translation_evaluation, "translate", None)
    for function in (mh.evaluate_translation, mh.from_the_source):
        with pytest.raises(error, match=named):
            function(one_lm, **{**asked, **changes})


@pytest.mark.parametrize(
    ("changes", "error", "named"),
    [
        ({"below_own": np.array([-1.0, np.nan])}, ValueError, "below_own are not finite at 1"),
        ({"below_wrong": np.array([-np.inf, 0])}, ValueError, "below_wrong are not finite at 0"),
        ({"below_wrong": np.zeros(3)}, ValueError, r"below_wrong are \(3,\); references are \(2,"),
        ({"groups": [0]}, ValueError, r"groups are \(1,\)"),
        ({"hypotheses": ["a"]}, ValueError, r"hypotheses are \(1,\)"),
        ({"hypotheses": ["a", None]}, TypeError, "hypothesis 1 is None"),
        ({"references": ["a", ""]}, mh.DataError, "fr→en: reference 1 is ''"),
        ({"references": []}, ValueError, "0 references"),
        ({"source": "xx"}, mh.DataError, "'xx'"),
        ({"settings": {"limit": float("nan")}}, ValueError, "JSON"),
    ],
)
def test_what_is_no_evaluation_is_refused(changes, error, named):
    with pytest.raises(error, match=named):
        made(**{"below_own": [-1.0, -2], "below_wrong": [-3.0, -4], "groups": [0, 0], **changes})


def test_saved_and_read_again(one_lm, tmp_path):
    for generate in (True, False):
        options = {"generate": generate, "max_new_tokens": 4}
        one = mh.evaluate_translation(one_lm, FRENCH, ENGLISH, "fr", "en", **options)
        one.save(tmp_path / "one.json")
        again = mh.TranslationEvaluation.load(tmp_path / "one.json")
        for name, value in vars(one).items():
            assert np.array_equal(getattr(again, name), value), name
            assert type(getattr(again, name)) is type(value)
        assert again.nats == one.nats
    one.below_own[0] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        one.save(tmp_path / "two.json")
    assert [path.name for path in tmp_path.iterdir()] == ["one.json"]


@pytest.mark.slow
def test_the_real_model_translates_from_french_and_not_from_swahili():
    lm = mh.load_model()
    results = {}
    for source in ("fr", "sw"):
        dev = mh.load_parallel([source, "en"], split="dev")
        test = mh.load_parallel([source, "en"], split="test").select(range(20))
        (shots,) = mh.build_demonstrations(dev, source, "en", shots=4, n_prompts=1)
        results[source] = mh.evaluate_translation(
            lm, test[source], test["en"], source, "en", shots, generate=False
        )
    assert results["fr"].translates and not results["sw"].translates
    assert results["fr"].nats.low > results["sw"].nats.high
    assert results["sw"].nats.low > 0  # a little comes from the source: names, numbers
