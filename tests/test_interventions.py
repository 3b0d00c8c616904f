import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make_tokenizer
from tokenizers import processors

import mlprune_helpers as mh
from mlprune_helpers.hooks import residual_stream


def states(lm, text):
    return torch.from_numpy(mh.collect_activations(lm, [text]).hidden)


def test_zeroed_features_are_zero_where_asked(lm, prompts):
    before, fingerprint = states(lm, prompts[0]), lm.fingerprint
    with mh.zero_features(lm, {1: [3, 5], 3: np.arange(32) == 7}):
        zeroed, meanwhile = states(lm, prompts[0]), lm.fingerprint
        logits = lm.model(torch.tensor([lm.tokenizer(prompts[0])["input_ids"]])).logits
    assert (zeroed[1, [3, 5]] == 0).all() and zeroed[3, 7] == 0
    assert torch.equal(zeroed[0], before[0]) and not torch.equal(zeroed[2], before[2])
    assert (np.delete(zeroed[1].numpy(), [3, 5]) != 0).all()
    assert fingerprint != meanwhile and lm.fingerprint == fingerprint and lm.interventions == []
    assert torch.equal(states(lm, prompts[0]), before)
    assert not torch.equal(
        logits, lm.model(torch.tensor([lm.tokenizer(prompts[0])["input_ids"]])).logits
    )


def test_zeroing_equals_a_changed_embedding(one_lm, load):
    """At layer 0, zeroing a feature is the same as an embedding without it."""
    other = load("llama")
    other.model.get_input_embeddings().weight.data[:, [2, 9]] = 0
    ids = torch.tensor([one_lm.tokenizer("A red house")["input_ids"]])
    with mh.zero_features(one_lm, {0: [2, 9]}), torch.no_grad():
        assert torch.allclose(one_lm.model(ids).logits, other.model(ids).logits, atol=1e-6)


def test_mean_ablation_puts_the_mean(one_lm, prompts):
    mean = mh.collect_activations(one_lm, prompts).mean
    with mh.zero_features(one_lm, {2: [4, 8]}, values=mean):
        a = mh.collect_activations(one_lm, prompts[:2])
        first = one_lm.fingerprint
    assert a.mean[2, [4, 8]] == pytest.approx(mean[2, [4, 8]], rel=1e-5)
    assert a.rms[2, [4, 8]] == pytest.approx(np.abs(mean[2, [4, 8]]), rel=1e-5)
    with mh.zero_features(one_lm, {2: [4, 8]}):
        assert one_lm.fingerprint != first


@pytest.mark.parametrize(
    ("features", "values", "named"),
    [
        ({4: [0]}, None, "layer 4.*0 to 3"),
        ({-1: [0]}, None, "layer -1"),
        ({0: [32]}, None, r"\[32\].*0 to 31"),
        ({0: [-1]}, None, r"\[-1\]"),
        ({0: [1]}, np.zeros((4, 31)), r"\(4, 31\).*\(4, 32\)"),
        ({0: [1]}, np.full((4, 32), np.nan), "finite"),
    ],
)
def test_wrong_features_are_named(one_lm, features, values, named):
    with pytest.raises(ValueError, match=named):
        with mh.zero_features(one_lm, features, values=values):
            pass
    assert one_lm.interventions == []


MASK = np.zeros((4, 32), dtype=bool)
MASK[1, [3, 5]] = MASK[3, 7] = True


@pytest.mark.parametrize(
    "features",
    [
        MASK,
        MASK.tolist(),
        torch.from_numpy(MASK),
        pd.DataFrame(MASK),
        {1: [3, 5], 3: [7]},
        {np.int64(1): torch.tensor([5, 3]), 3: pd.Series([7])},
        {1: MASK[1].tolist(), 3: torch.from_numpy(MASK[3]), 0: []},
        {1: np.array([3, 5], dtype=np.uint8), 3: range(7, 8)},
    ],
)
def test_a_mask_and_its_dimensions_are_one_thing(one_lm, prompts, features):
    with mh.zero_features(one_lm, MASK):
        expected, there = states(one_lm, prompts[0]), one_lm.fingerprint
    with mh.zero_features(one_lm, features):
        assert torch.equal(states(one_lm, prompts[0]), expected)
        assert one_lm.fingerprint == there
    assert np.argwhere(expected.numpy() == 0).tolist() == [[1, 3], [1, 5], [3, 7]]


@pytest.mark.parametrize(
    ("features", "named"),
    [
        (MASK.astype(int), r"int64.*mask.astype\(bool\)"),
        (MASK.astype(float), "float64"),
        (torch.from_numpy(MASK).float(), "float32"),
        (pd.DataFrame(MASK.astype(int)), "int64"),
        (MASK[:3], r"\(3, 32\).*\(4, 32\)"),
        (MASK[:, :31], r"\(4, 31\)"),
        (MASK[0], r"\(32,\)"),
        (MASK[np.newaxis], r"\(1, 4, 32\)"),
        (pd.Series({1: [3, 5]}), "Series.*dict"),
        ("1", "allowed: bool"),
        ([[True], [True, False]], "allowed: bool"),
        ({1: MASK[1].astype(int)}, r"layer 1.*0 stands 30 times.*astype\(bool\)"),
        ({1: [3, 5, 3]}, "3 stands 2 times"),
        ({1: MASK[1].astype(float)}, "layer 1.*float64"),
        ({1: [3.0]}, "float64"),
        ({1: [True, 3]}, "True, 3"),
        ({1: [True] * 31}, "mask of 31 bools.*32"),
        ({1: np.zeros(0, dtype=bool)}, "mask of 0 bools"),
        ({1: ["3"]}, "layer 1"),
        ({1: "3"}, "'3'"),
        ({1: 3}, "dimensions 3;"),
        ({1: True}, "dimensions True;"),
        ({1: [[3, 5]]}, "layer 1"),
        ({1: {3, 5}}, "layer 1"),
        ({"1": [3]}, "layer '1'"),
        ({1.0: [3]}, "layer 1.0"),
        ({True: [3]}, "layer True"),
    ],
)
def test_what_leaves_open_which_features_are_meant_is_refused(one_lm, features, named):
    with pytest.raises(ValueError, match=named), mh.zero_features(one_lm, features):
        pass
    assert one_lm.interventions == [] and not one_lm.layers[0]._forward_pre_hooks


def test_values_of_any_form_are_put_in(one_lm, prompts):
    mean = mh.collect_activations(one_lm, prompts).mean
    found = []
    for values in (mean, torch.from_numpy(mean), pd.DataFrame(mean), mean.tolist()):
        with mh.zero_features(one_lm, {2: [4]}, values=values):
            found.append((states(one_lm, prompts[0]).tolist(), one_lm.fingerprint))
    assert all(one == found[0] for one in found)


def test_values_that_the_model_cannot_hold_are_refused(one_lm):
    one_lm.model.half()
    values = np.full((4, 32), 1e5)  # more than float16 has
    with pytest.raises(ValueError, match="float16"):
        with mh.zero_features(one_lm, {0: [1]}, values=values):
            pass


def test_interventions_nest(one_lm, prompts):
    """The inner one sees what the outer one made; each leaves as it came."""
    ones, twos = np.ones((4, 32)), np.full((4, 32), 2.0)
    seen = [one_lm.fingerprint]
    with mh.zero_features(one_lm, {1: [3, 4]}, values=ones):
        outer = mh.collect_activations(one_lm, prompts).mean
        seen.append(one_lm.fingerprint)
        with mh.zero_features(one_lm, {1: [4, 5]}, values=twos):
            inner = mh.collect_activations(one_lm, prompts).mean
            seen.append(one_lm.fingerprint)
        assert np.array_equal(mh.collect_activations(one_lm, prompts).mean, outer)
        assert one_lm.fingerprint == seen[1]
    assert inner[1, [3, 4, 5]].tolist() == [1, 2, 2]
    assert len(set(seen)) == 3 and one_lm.fingerprint == seen[0]


def test_an_error_inside_removes_the_intervention(one_lm):
    with pytest.raises(KeyError):
        with mh.zero_features(one_lm, np.ones((4, 32), dtype=bool)):
            raise KeyError
    assert one_lm.interventions == [] and not one_lm.layers[0]._forward_pre_hooks


# -- scaled features -------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [1.1, -2, 0.5])
def test_scaled_features_are_multiplied_where_asked(lm, prompts, factor):
    before, fingerprint = mh.collect_activations(lm, prompts).mean, lm.fingerprint
    with mh.scale_features(lm, {1: [3, 5], 3: np.arange(32) == 7}, factor):
        scaled, meanwhile = mh.collect_activations(lm, prompts).mean, lm.fingerprint
        assert len(lm.interventions) == 1
    assert scaled[1, [3, 5]] == pytest.approx(factor * before[1, [3, 5]], rel=1e-5)
    assert np.array_equal(np.delete(scaled[1], [3, 5]), np.delete(before[1], [3, 5]))
    assert np.array_equal(scaled[0], before[0]) and not np.allclose(scaled[2], before[2])
    assert fingerprint != meanwhile and lm.fingerprint == fingerprint and lm.interventions == []
    assert np.array_equal(mh.collect_activations(lm, prompts).mean, before)


def test_scaling_equals_a_scaled_embedding(one_lm, load):
    """At layer 0, scaling a feature is the same as an embedding that is larger there."""
    other = load("llama")
    other.model.get_input_embeddings().weight.data[:, [2, 9]] *= 3
    ids = torch.tensor([one_lm.tokenizer("A red house")["input_ids"]])
    with mh.scale_features(one_lm, {0: [2, 9]}, 3), torch.no_grad():
        assert torch.allclose(one_lm.model(ids).logits, other.model(ids).logits, atol=1e-5)


def test_scaling_at_several_layers_multiplies_again(one_lm, prompts):
    """Blocks that add nothing hand on what they receive: twice, and twice again."""
    for layer in one_lm.layers:
        layer.self_attn.o_proj.weight.data.zero_()
        layer.mlp.down_proj.weight.data.zero_()
    before = mh.collect_activations(one_lm, prompts).mean
    with mh.scale_features(one_lm, {1: [4], 2: [4]}, 2):
        after = mh.collect_activations(one_lm, prompts).mean
    assert after[:, 4] == pytest.approx(before[:, 4] * [1, 2, 4, 4], rel=1e-5)


def test_a_factor_of_one_changes_nothing_and_zero_takes_away(one_lm, prompts):
    plain = states(one_lm, prompts[0])
    with mh.scale_features(one_lm, MASK, 1):
        assert torch.equal(states(one_lm, prompts[0]), plain)
    with mh.zero_features(one_lm, MASK):
        zeroed, there = states(one_lm, prompts[0]), one_lm.fingerprint
    with mh.scale_features(one_lm, MASK, 0):
        assert torch.equal(states(one_lm, prompts[0]), zeroed)
        assert one_lm.fingerprint != there


def test_scaling_is_told_by_features_and_factor(one_lm):
    seen = {one_lm.fingerprint}
    for features, factor in [(MASK, 1.1), (MASK, 1.2), ({1: [3]}, 1.1)]:
        with mh.scale_features(one_lm, features, factor):
            seen.add(one_lm.fingerprint)
    assert len(seen) == 4
    with mh.scale_features(one_lm, {3: [7], 1: [5, 3]}, np.float32(2)):
        there = one_lm.fingerprint
    with mh.scale_features(one_lm, MASK, 2):
        assert one_lm.fingerprint == there


def test_scaling_nests(one_lm, prompts):
    ones = np.ones((4, 32))
    with mh.zero_features(one_lm, {1: [3, 4]}, values=ones):
        with mh.scale_features(one_lm, {1: [4]}, 3):
            assert mh.collect_activations(one_lm, prompts).mean[1, [3, 4]].tolist() == [1, 3]
        with pytest.raises(KeyError), mh.scale_features(one_lm, {1: [4]}, 3):
            raise KeyError
        assert mh.collect_activations(one_lm, prompts).mean[1, [3, 4]].tolist() == [1, 1]
    assert one_lm.interventions == [] and not one_lm.layers[0]._forward_pre_hooks


@pytest.mark.parametrize("factor", [np.nan, np.inf, "2", None, True, np.bool_(True), [2.0], 2j])
def test_a_factor_is_a_finite_number(one_lm, factor):
    with pytest.raises(ValueError, match=r"factor is .*; allowed: a finite number"):
        with mh.scale_features(one_lm, MASK, factor):
            pass
    assert one_lm.interventions == []


@pytest.mark.parametrize("features", [MASK.astype(int), MASK[:3], {4: [0]}, {1: [3, 5, 3]}, {0: 3}])
def test_features_to_scale_are_checked_as_those_to_zero(one_lm, features):
    with pytest.raises(ValueError, match="allowed"), mh.scale_features(one_lm, features, 2):
        pass
    assert one_lm.interventions == []


# -- language vectors ------------------------------------------------------------------------------


def test_language_vector(lm):
    sentences = ["Le chat dort.", "Oui. Personne ne sait."]
    states = []
    for sentence in sentences:
        with torch.no_grad():
            ids = torch.tensor([lm.tokenizer(sentence)["input_ids"]])
            begin = int(ids[0, 0] == lm.tokenizer.bos_token_id)
            states.append(
                torch.stack(lm.model(ids, output_hidden_states=True).hidden_states)[:-1, 0, begin:]
            )
    expected = torch.cat(states, dim=1).mean(1)
    torch.testing.assert_close(mh.language_vector(lm, sentences), expected, atol=1e-5, rtol=1e-5)


def test_lrp2_moves_hidden_states_there_and_back(lm):
    french, english = (
        mh.language_vector(lm, ["Le chat dort."]),
        mh.language_vector(lm, ["The cat sleeps."]),
    )
    ids = torch.tensor([lm.tokenizer("Oui.")["input_ids"]])

    def logits(seen):
        with (
            torch.no_grad(),
            residual_stream(lm, lambda layer, hidden: seen.update({layer: hidden.clone()})),
        ):
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
        with (
            pytest.raises(ValueError, match=r"allowed: two of 1 to 2"),
            mh.lrp2(lm, french, english, layers),
        ):
            pass


def special_first(name, number):
    """A tokenizer that puts this special token before every text, whatever it calls its bos."""
    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{name} $A", special_tokens=[(name, number)]
    )
    return tokenizer


def test_whatever_token_is_put_first_is_no_part_of_a_language(load):
    """As in XGLM, whose tokenizer begins with </s>, though <s> is its bos."""
    model = load("llama").model
    sentences = ["Le chat dort.", "Oui. Personne ne sait."]
    begun = mh.LanguageModel("begun", model, special_first("</s>", 1))
    if not hasattr(begun, "prefix"):
        pytest.skip("the core does not learn the prefix yet")
    states = []
    for sentence in sentences:
        ids = torch.tensor([begun.tokenizer(sentence)["input_ids"]])
        assert ids[0, 0] == 1
        with torch.no_grad():
            hidden = model(ids, output_hidden_states=True).hidden_states
        states.append(torch.stack(hidden)[:-1, 0, 1:])
    expected = torch.cat(states, dim=1).mean(1)
    torch.testing.assert_close(mh.language_vector(begun, sentences), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("sentences", "error", "named"),
    [
        (["Oui.", " "], ValueError, "Sentence 1 is blank"),
        (["Oui.", ""], ValueError, "Sentence 1 is blank"),
        ([], ValueError, "No texts"),
        ("Oui.", TypeError, "list of texts"),
    ],
)
def test_a_language_is_told_by_sentences(one_lm, sentences, error, named):
    with pytest.raises(error, match=named):
        mh.language_vector(one_lm, sentences)


@pytest.mark.parametrize("layers", [(1, 2, 3), (1,), 2, "12", (1.0, 2.0), (True, 2), {1, 2}, None])
def test_lrp2_needs_two_layers(one_lm, layers):
    vector = torch.zeros(3, 32)
    with pytest.raises(ValueError, match="allowed: two of 1 to 2"):
        with mh.lrp2(one_lm, vector, vector, layers):
            pass


@pytest.mark.parametrize("shape", [(4, 32), (2, 32), (3, 31), (32,), (3, 1), (1, 3, 32)])
def test_lrp2_needs_a_vector_a_layer(one_lm, shape):
    right = torch.zeros(3, 32)
    with pytest.raises(ValueError, match=r"english is .*\(3, 32\)"):
        with mh.lrp2(one_lm, right, torch.zeros(shape), (1, 2)):
            pass
    with pytest.raises(ValueError, match="language is .*finite"):
        with mh.lrp2(one_lm, np.full((3, 32), np.nan), right, (1, 2)):
            pass
    assert one_lm.interventions == [] and not one_lm.layers[1]._forward_pre_hooks
