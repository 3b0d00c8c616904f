import numpy as np
import pytest
import torch

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
    assert not torch.equal(logits, lm.model(torch.tensor([lm.tokenizer(prompts[0])["input_ids"]])).logits)


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


def test_an_error_inside_removes_the_intervention(one_lm):
    with pytest.raises(KeyError):
        with mh.zero_features(one_lm, np.ones((4, 32), dtype=bool)):
            raise KeyError
    assert one_lm.interventions == [] and not one_lm.layers[0]._forward_pre_hooks


# -- language vectors -------------------------------------------------------------------------------------------


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
