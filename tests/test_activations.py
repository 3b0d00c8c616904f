import numpy as np
import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

import mlprune_helpers as mh

ARRAYS = (
    "prompt_squares",
    "prompt_tokens",
    "hidden_max",
    "hidden_sum",
    "hidden_above",
    "hidden_massive",
)


# -- the oracle: one prompt at a time, with the model's own hidden states --------------------------


def hidden_states(lm, ids, mask=None):
    """(n_layers + 1, length, hidden): transformers' own, but the last before the final norm."""
    last = []
    handle = lm.layers[-1].register_forward_hook(
        lambda m, a, o: last.append(o[0] if isinstance(o, tuple) else o)
    )
    with torch.no_grad():
        states = lm.model(
            torch.tensor([ids]), attention_mask=mask, output_hidden_states=True
        ).hidden_states
    handle.remove()
    return torch.stack([*(state[0] for state in states[:-1]), last[0][0]]).double().numpy()


def oracle(lm, prompts, *, skip=0, threshold=6.0, fill=None):
    squares, tokens, every = [], [], []
    for prompt in prompts:
        ids = lm.tokenizer(prompt)["input_ids"]
        mask = None
        if fill:
            mask = torch.tensor([[1] * len(ids) + [0] * (fill - len(ids))])
            ids = ids + [0] * (fill - len(ids))
        states = hidden_states(lm, ids, mask)[:, skip:]
        squares.append((states**2).sum(axis=1))
        tokens.append(states.shape[1])
        every.append(states)
    every = np.concatenate(every, axis=1)
    size = np.abs(every)
    middle = np.sort(size, axis=-1)[..., (size.shape[-1] - 1) // 2, None]
    return {
        "prompt_squares": np.stack(squares),
        "prompt_tokens": np.array(tokens),
        "hidden_max": size.max(axis=1),
        "hidden_sum": every.sum(axis=1),
        "hidden_above": (size > threshold).sum(axis=1),
        "hidden_massive": ((size > 100) & (size > 1000 * middle)).sum(axis=1),
    }


def input_squares(lm, prompts):
    squares, handles = {}, []
    for name, module in lm.model.named_modules():
        if isinstance(module, (nn.Linear, Conv1D)) and "lm_head" not in name:

            def hook(module, args, output, name=name):
                squares[name] = (
                    squares.get(name, 0)
                    + args[0].double().reshape(-1, args[0].shape[-1]).square().sum(0).numpy()
                )

            handles.append(module.register_forward_hook(hook))
    with torch.no_grad():
        for prompt in prompts:
            lm.model(torch.tensor([lm.tokenizer(prompt)["input_ids"]]))
    for handle in handles:
        handle.remove()
    return squares


def assert_close(stats, expected, rtol=1e-5):
    for name, array in expected.items():
        got = getattr(stats, name)
        assert got.shape == array.shape, name
        # Sums of mixed signs cancel: their error is measured against what was summed.
        scale = np.abs(array).max() if name == "hidden_sum" else 0
        np.testing.assert_allclose(got, array, rtol=rtol, atol=scale * rtol, err_msg=name)


def assert_same(a, b, rtol=1e-5):
    assert_close(a, {name: getattr(b, name) for name in ARRAYS}, rtol)
    assert a.input_squares.keys() == b.input_squares.keys()
    for name, squares in b.input_squares.items():
        np.testing.assert_allclose(a.input_squares[name], squares, rtol=rtol)


def test_residual_stream_equals_transformers(lm, prompts):
    stats = mh.collect_activations(lm, prompts, threshold=2.0)
    for module in lm.model.modules():  # nothing stays behind in the model
        assert not module._forward_pre_hooks and not module._forward_hooks
    assert_close(stats, oracle(lm, prompts, threshold=2.0))
    assert 0 < stats.share_above.mean() < 1


def test_inputs_of_matrices_equal_plain_hooks(lm, prompts):
    stats, expected = mh.collect_activations(lm, prompts), input_squares(lm, prompts)
    assert stats.input_squares.keys() == lm.prunable.keys() == expected.keys()
    for name, squares in expected.items():
        np.testing.assert_allclose(stats.input_squares[name], squares, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("token_budget", [1, 60, 100_000])
def test_batches_and_order_do_not_matter(lm, prompts, token_budget):
    whole = mh.collect_activations(lm, prompts)
    order = [3, 0, 4, 1, 2]
    for side in ("left", "right"):
        lm.tokenizer.padding_side = side
        other = mh.collect_activations(lm, [prompts[i] for i in order], token_budget=token_budget)
        np.testing.assert_allclose(other.prompt_squares, whole.prompt_squares[order], rtol=1e-5)
        assert_same(other, mh.collect_activations(lm, [prompts[i] for i in order]))
        for name, squares in whole.input_squares.items():
            np.testing.assert_allclose(other.input_squares[name], squares, rtol=1e-5)


def test_counted_padding_and_the_first_token(lm, prompts):
    short = [p[:40] for p in prompts]
    assert_close(
        mh.collect_activations(lm, short, padding="counted", max_length=48),
        oracle(lm, short, fill=48),
    )
    long = [prompts[0], prompts[1], prompts[3]]
    skipped = mh.collect_activations(lm, long, skip_first=2)
    assert_close(skipped, oracle(lm, long, skip=2))
    assert skipped.n_tokens == mh.collect_activations(lm, long).n_tokens - 6


def test_norms_by_hand(one_lm):
    stats = mh.ActivationStats(
        prompt_squares=np.array([[[16.0, 0.0]], [[9.0, 4.0]]], dtype=np.float32), prompt_tokens=np.array([3, 1]),  # noqa: E501
        input_squares={"w": np.array([4.0, 9.0])}, hidden_max=np.array([[3.0, 2.0]]), hidden_sum=np.array([[-2.0, 2.0]]),  # noqa: E501
        hidden_above=np.array([[1, 0]]), hidden_massive=np.array([[0, 2]]),
    )  # fmt: skip
    assert stats.n_tokens == 4
    assert stats.hidden.tolist() == [[5.0, 2.0]] and stats.hidden_per_prompt.tolist() == [
        [3.5, 1.0]
    ]
    assert stats.rms.tolist() == [[2.5, 1.0]] and stats.mean.tolist() == [[-0.5, 0.5]]
    assert stats.share_above.tolist() == [[0.25, 0.0]] and stats.share_massive.tolist() == [
        [0.0, 0.5]
    ]
    assert stats.inputs["w"].tolist() == [2.0, 3.0]


def test_merged_is_as_if_collected_together(lm, prompts):
    merged = mh.collect_activations(lm, prompts[:2]).merge(mh.collect_activations(lm, prompts[2:]))
    assert_same(merged, mh.collect_activations(lm, prompts))


@pytest.mark.parametrize("chosen", [[3, 0], np.array([1]), slice(0, None, 2), range(2)])
def test_selected_prompts_are_as_if_collected_alone(one_lm, prompts, chosen):
    part = mh.collect_activations(one_lm, prompts).select(chosen)
    alone = [
        prompts[i] for i in (range(len(prompts))[chosen] if isinstance(chosen, slice) else chosen)
    ]
    expected = mh.collect_activations(one_lm, alone)
    assert part.prompt_tokens.tolist() == expected.prompt_tokens.tolist()
    assert part.n_tokens == expected.n_tokens
    for name in ("prompt_squares", "hidden", "hidden_per_prompt", "rms"):
        np.testing.assert_allclose(getattr(part, name), getattr(expected, name), rtol=1e-4)


def test_what_is_summed_over_all_prompts_is_not_known_of_some(one_lm, prompts, tmp_path):
    whole = mh.collect_activations(one_lm, prompts)
    before = whole.mean.copy()
    part = whole.select(np.arange(len(prompts)) < 2)
    part.save(tmp_path / "part")
    again = whole.merge(part)
    for stats in (part, mh.ActivationStats.load(tmp_path / "part"), again):
        for name in ("mean", "share_above", "share_massive", "inputs"):
            with pytest.raises(ValueError, match="not known of selected ones: call collect"):
                getattr(stats, name)
        assert np.isnan(stats.hidden_max).all()
    with pytest.raises(ValueError, match="not finite"):
        mh.prune(one_lm, part, propagate_error=False)
    assert np.array_equal(whole.mean, before) and whole.share_massive.shape == before.shape


@pytest.mark.parametrize(
    "chosen", [[], [0, 0], [99], [-1], [0.0], ["0"], [True], None, 0, slice(9, 9), [[0]]]
)
def test_wrong_prompts_are_named(one_lm, prompts, chosen):
    stats = mh.collect_activations(one_lm, prompts)
    with pytest.raises(ValueError, match="chosen is .*different whole numbers"):
        stats.select(chosen)


def test_only_what_fits_is_merged(load, prompts):
    one = mh.collect_activations(load("llama"), prompts[:1])
    with pytest.raises(ValueError, match="different models"):
        one.merge(mh.collect_activations(load("gpt2"), prompts[:1]))
    with pytest.raises(ValueError, match=r"6\.0.*2\.0"):
        one.merge(mh.collect_activations(load("llama"), prompts[:1], threshold=2.0))


def test_saved_and_loaded(one_lm, prompts, tmp_path):
    stats = mh.collect_activations(one_lm, prompts, threshold=1.5)
    stats.save(tmp_path / "stats.safetensors")
    loaded = mh.ActivationStats.load(tmp_path / "stats.safetensors")
    assert_same(loaded, stats, rtol=0)
    assert loaded.threshold == 1.5 and [p.name for p in tmp_path.iterdir()] == ["stats.safetensors"]
    assert_same(loaded.merge(stats), stats.merge(stats), rtol=0)


# -- massive activations ---------------------------------------------------------------------------


def test_a_massive_activation_is_told_from_a_large_one(one_lm):
    """One token's embedding is 500 in dimension 7 amid values near 0.1.

    The other dimension is large, not massive.
    """
    embedding = one_lm.model.get_input_embeddings().weight.data
    embedding.copy_(0.1 * torch.sign(embedding))
    cat, dog = (one_lm.tokenizer(text)["input_ids"][-1] for text in ("e", "a"))
    embedding[cat, 7], embedding[dog, 9] = -500.0, 99.0
    stats = mh.collect_activations(one_lm, ["e", "a", "e", "z"])
    tokens = stats.n_tokens
    assert stats.share_massive[0].tolist() == [2 / tokens if i == 7 else 0 for i in range(32)]
    assert stats.share_above[0].tolist() == [{7: 2, 9: 1}.get(i, 0) / tokens for i in range(32)]
    assert stats.hidden_max[0, 7] == 500 and stats.hidden_max[0, 9] == 99


# -- numbers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_float32(folder_of, dtype, prompts):
    lm = mh.load_model(str(folder_of("llama")), device="cpu", dtype=dtype)
    lm.model.get_input_embeddings().weight.data *= 400  # squares overflow float16
    stats = mh.collect_activations(lm, prompts, token_budget=1)
    expected = oracle(lm, prompts)
    assert expected["hidden_max"].max() > 300
    assert_close(stats, expected)
    for name, squares in input_squares(lm, prompts).items():
        np.testing.assert_allclose(stats.input_squares[name], squares, rtol=1e-5)


def test_what_is_not_finite_is_named(load, prompts):
    lm = load("llama")
    lm.model.get_input_embeddings().weight.data[lm.tokenizer("A red")["input_ids"][1]] = float(
        "nan"
    )
    with pytest.raises(ValueError, match="not finite.*layer 0"):
        mh.collect_activations(lm, prompts)
    lm = load("llama")
    lm.prunable["model.layers.1.mlp.up_proj"].weight.data.fill_(3e38)
    with pytest.raises(ValueError, match="not finite from layer 2 on"):
        mh.collect_activations(lm, prompts)


# -- memory ----------------------------------------------------------------------------------------


def test_a_batch_is_halved_when_memory_runs_out(one_lm, prompts, monkeypatch):
    whole = mh.collect_activations(one_lm, prompts)
    block, sizes, forward = one_lm.layers[1], [], one_lm.layers[1].forward

    def tight(hidden, *args, **kwargs):
        sizes.append(hidden.shape[0])
        if hidden.shape[0] > 2:
            raise RuntimeError("CUDA out of memory")
        return forward(hidden, *args, **kwargs)

    monkeypatch.setattr(block, "forward", tight)
    assert_same(mh.collect_activations(one_lm, prompts, token_budget=100_000), whole)
    assert sizes[0] == 5 and sizes[1] == 2
    monkeypatch.setattr(
        block,
        "forward",
        lambda *args, **kwargs: (_ for _ in ()).throw(RuntimeError("out of memory")),
    )
    with pytest.raises(RuntimeError, match="out of memory"):
        mh.collect_activations(one_lm, prompts)


# -- wrong settings, other models ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ({"padding": "none"}, "none.*masked"),
        ({"skip_first": -1}, "-1.*0 to"),
        ({"skip_first": 99}, "99.*0 to"),
        ({"prompts": []}, "No texts"),
    ],
)
def test_wrong_settings_are_named(one_lm, prompts, setting, named):
    with pytest.raises(ValueError, match=named):
        mh.collect_activations(one_lm, **{"prompts": prompts} | setting)


def test_embeddings_smaller_than_the_blocks(save_model, prompts):
    """As in OPT-350M, which projects its embeddings into the blocks and out of them again."""
    folder = save_model("OPTConfig", dict(
        hidden_size=32, word_embed_proj_dim=16, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4,  # noqa: E501
        max_position_embeddings=256, do_layer_norm_before=False,
    ))  # fmt: skip
    lm = mh.load_model(str(folder), device="cpu")
    assert lm.hidden_size == 32
    stats = mh.collect_activations(lm, prompts)
    assert stats.hidden.shape == (3, 32)
    for name, squares in input_squares(lm, prompts).items():
        if "project" not in name:
            np.testing.assert_allclose(stats.input_squares[name], squares, rtol=1e-5)


def test_experts_are_refused(save_model):
    folder = save_model("MixtralConfig", dict(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,  # noqa: E501
        num_local_experts=4, max_position_embeddings=256,
    ))  # fmt: skip
    with pytest.raises(mh.ModelError, match="experts"):
        mh.load_model(str(folder), device="cpu")


def test_offloaded_weights_are_refused(load, one_lm):
    model = load("llama").model
    model.model.layers[1].mlp.to("meta")
    with pytest.raises(mh.ModelError, match=r"layers\.1\.mlp\.gate_proj.*2 more.*offloaded"):
        mh.LanguageModel("away", model, one_lm.tokenizer)
