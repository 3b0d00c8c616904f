"""What is learnt and proved of a model when it is loaded, and what is refused then, by name."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
import transformers
from conftest import ARCHITECTURES, SENTENCES, make_model, make_tokenizer
from safetensors.torch import load_file, save_file
from tokenizers import processors
from torch import nn

import mlprune_helpers as mh
from mlprune_helpers.models import ModelError

LLAMA = ARCHITECTURES["llama"][1]
PROMPTS, CHOICES = [SENTENCES[0], "Oui"], [[" Yes", " No , the cat"], [".", " Oui."]]


def plain_scores(model, rows):
    """Mean log-probability of all predicted tokens, a plain pass a string."""
    scores = []
    for ids in rows:
        with torch.no_grad():
            logprobs = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        scores.append(np.mean([float(logprobs[t - 1, ids[t]]) for t in range(1, len(ids))]))
    return np.array(scores).reshape(len(PROMPTS), -1)


def strings():
    return [prompt + choice for prompt, texts in zip(PROMPTS, CHOICES) for choice in texts]


def tokenizer_with(template):
    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    return tokenizer


# -- the head is asked -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config_class", "settings"),
    [
        ("GraniteConfig", {"logits_scaling": 8.0, "embedding_multiplier": 3.0}),
        ("CohereConfig", {"logit_scale": 0.1}),
        ("Cohere2Config", {"logit_scale": 0.1, "sliding_window": 8}),
        ("Gemma2Config", {"final_logit_softcapping": 2.0, "head_dim": 8, "sliding_window": 8}),
        ("OPTConfig", dict(ARCHITECTURES["opt"][1], word_embed_proj_dim=16)),
    ],
)
def test_scores_are_those_of_the_models_own_logits(save_model, config_class, settings):
    common = {} if config_class == "OPTConfig" else LLAMA
    lm = mh.load_model(str(save_model(config_class, common | settings)), device="cpu")
    rows = [lm.tokenizer(text)["input_ids"] for text in strings()]
    expected = plain_scores(lm.model, rows)
    assert mh.score_choices(lm, PROMPTS, CHOICES) == pytest.approx(expected, abs=1e-4)


def test_a_head_that_needs_all_words_is_asked_whole():
    """Something done to all logits together cannot be done to parts of them."""

    class Normalised(transformers.LlamaForCausalLM):
        def forward(self, *args, **kwargs):
            output = super().forward(*args, **kwargs)
            output.logits = output.logits / output.logits.norm(dim=-1, keepdim=True)
            return output

    model = make_model("LlamaConfig", LLAMA)
    model.__class__ = Normalised
    lm = mh.LanguageModel("normalised", model, make_tokenizer())
    rows = [lm.tokenizer(text)["input_ids"] for text in strings()]
    assert mh.score_choices(lm, PROMPTS, CHOICES) == pytest.approx(
        plain_scores(model, rows), abs=1e-5
    )


# -- special tokens are learnt ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "template", ["$A", "<s> $A", "</s> $A", "$A </s>", "</s> $A </s>", "<s> </s> $A"]
)
def test_special_tokens_are_those_that_the_tokenizer_puts(template):
    tokenizer = tokenizer_with(template)
    lm = mh.LanguageModel("tiny", make_model("LlamaConfig", LLAMA), tokenizer)
    before, _, after = template.partition("$A")
    ids = {"<s>": 0, "</s>": 1}
    assert lm.prefix == [ids[token] for token in before.split()]
    assert lm.suffix == [ids[token] for token in after.split()]
    plain = make_tokenizer()
    rows = [lm.prefix + plain(text)["input_ids"] for text in strings()]
    assert mh.encode(lm, strings()) == rows
    assert mh.score_choices(lm, PROMPTS, CHOICES) == pytest.approx(
        plain_scores(lm.model, rows), abs=1e-4
    )
    starts = [len(lm.prefix + plain(prompt)["input_ids"]) for prompt in PROMPTS]
    scored = mh.score_choices(lm, PROMPTS, CHOICES, span="continuation", details=True)
    for n, start in enumerate(starts):
        assert scored.n_tokens[n].tolist() == [len(row) - start for row in rows[2 * n : 2 * n + 2]]


def test_the_prefix_is_kept_when_a_text_is_cut_and_left_out_of_a_language_vector():
    lm = mh.LanguageModel("tiny", make_model("LlamaConfig", LLAMA), tokenizer_with("</s> $A"))
    long = SENTENCES[1] * 3
    ids = mh.encode(lm, [long + " a"])[0]
    cut = lm.prefix + ids[1 + len(ids) - 1 - 30 :]
    with pytest.warns(UserWarning, match="cut on the left to 30"):
        got = mh.score_choices(lm, [long], [[" a"]], max_length=30)
    with torch.no_grad():
        logprobs = lm.model(torch.tensor([cut])).logits[0].log_softmax(-1)
    expected = np.mean([float(logprobs[t - 1, cut[t]]) for t in range(1, len(cut))])
    assert got[0, 0] == pytest.approx(expected, abs=1e-4)
    stats = mh.collect_activations(lm, [long], skip_first=1)
    assert np.allclose(mh.language_vector(lm, [long]).numpy(), stats.mean[:-1], atol=1e-5)


def test_special_tokens_written_out_are_there_once():
    lm = mh.LanguageModel("tiny", make_model("LlamaConfig", LLAMA), tokenizer_with("<s> $A"))
    assert mh.encode(lm, ["<s>Oui", "<s><s>Oui"]) == mh.encode(lm, ["Oui", "Oui"])
    assert mh.encode(lm, ["Oui</s>Non"])[0].count(1) == 1  # a separator in the text stays


def test_a_tokenizer_that_puts_special_tokens_inside_is_refused():
    tokenizer = make_tokenizer()

    class Doubling:
        def __getattr__(self, name):
            return getattr(tokenizer, name)

        def __call__(self, text, add_special_tokens=True, **options):
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            return {"input_ids": [i for x in ids for i in (x, 1)] if add_special_tokens else ids}

    with pytest.raises(ModelError, match="does not simply put special tokens before and after"):
        mh.LanguageModel("tiny", make_model("LlamaConfig", LLAMA), Doubling())


def test_a_choice_that_merges_into_the_prompt_is_named(one_lm):
    words = [word for word in one_lm.tokenizer.get_vocab() if len(word) == 2 and word.isalpha()]
    prompt, choice = next(word for word in words if word.isascii())
    with pytest.raises(ValueError, match=f"adds no token to score.*'{choice}' merges.*Put a space"):
        mh.score_choices(one_lm, [prompt], [[choice]], span="continuation")


# -- every weight comes from the checkpoint --------------------------------------------------------


@pytest.fixture
def edited(folder_of, tmp_path):
    """A function (change of the weights, change of the configuration) → the folder of a checkpoint."""  # noqa: E501

    def make(weights=lambda tensors: None, config=None):
        folder = shutil.copytree(folder_of("llama"), tmp_path / "edited")
        tensors = load_file(folder / "model.safetensors")
        weights(tensors)
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        content = json.loads((folder / "config.json").read_text()) | (config or {})
        (folder / "config.json").write_text(json.dumps(content))
        return str(folder)

    return make


def test_missing_weights_are_refused_and_named(edited):
    name = "model.layers.1.mlp.up_proj.weight"
    with pytest.raises(ModelError, match=f"1 weights are missing.*{re.escape(name)}"):
        mh.load_model(edited(lambda tensors: tensors.pop(name)))


def test_weights_without_a_place_are_refused_and_named(edited):
    with pytest.raises(ModelError, match="have no place in the model: model.layers.2"):
        mh.load_model(edited(config={"num_hidden_layers": 2}))


def test_weights_of_another_shape_are_refused(edited):
    def halve(tensors):
        name = "model.layers.0.mlp.up_proj.weight"
        tensors[name] = tensors[name][:24].contiguous()

    with pytest.raises(ModelError, match="model.layers.0.mlp.up_proj.weight"):
        mh.load_model(edited(halve))


def test_a_tokenizer_larger_than_the_embeddings_is_refused(edited):
    def cut(tensors):
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            tensors[name] = tensors[name][:280].contiguous()

    with pytest.raises(
        ModelError, match="the tokenizer has 300 tokens, the model embeddings for 280"
    ):
        mh.load_model(edited(cut, {"vocab_size": 280}))


def test_a_token_beyond_the_embeddings_is_named_with_its_text(one_lm):
    one_lm.tokenizer.add_tokens(["<new>"])
    with pytest.raises(ValueError, match=r"Text 1 holds the token '<new>' \(id 300\).*300 tokens"):
        mh.encode(one_lm, ["Oui", "a <new> day"])


# -- identity --------------------------------------------------------------------------------------


def test_identity_is_of_configuration_and_tokenizer_too(edited, folder_of, load):
    dense = load("llama").fingerprint
    rope = {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}
    assert mh.load_model(edited(config=rope), device="cpu").fingerprint != dense
    model = load("llama").model
    assert mh.LanguageModel("llama", model, make_tokenizer(True, "left")).fingerprint == dense
    assert mh.LanguageModel("llama", model, make_tokenizer(False)).fingerprint != dense
    changed = load("llama")
    changed.tokenizer.add_tokens(["<new>"])
    assert changed.fingerprint != dense


def test_use_of_a_tokenizer_does_not_change_the_identity(load):
    lm = load("llama")
    dense = lm.fingerprint
    lm.tokenizer.pad_token = "</s>"
    lm.tokenizer(SENTENCES, padding=True, truncation=True, max_length=5)
    assert lm.fingerprint == dense


# -- what is no causal model, or computes otherwise ------------------------------------------------


def test_encoders_are_refused(save_model):
    sizes = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
    for config_class in ("XLMRobertaConfig", "BertConfig"):
        folder = save_model(config_class, sizes | {"pad_token_id": 1})
        with pytest.raises(ModelError, match="depends on later tokens.*bidirectional encoder"):
            mh.load_model(str(folder), device="cpu")


class Sharing(nn.Module):
    """A block that adds what the block before it kept aside."""

    def __init__(self, block, layer, kept):
        super().__init__()
        self.block, self.layer, self.kept = block, layer, kept

    def forward(self, hidden_states, **kwargs):
        output = self.block(hidden_states, **kwargs)
        if self.layer:
            output = output + self.kept["mean"]
        self.kept["mean"] = output.mean(dim=-1, keepdim=True)  # of every token
        return output


def test_blocks_that_look_at_what_another_kept_aside_are_refused():
    model, kept = make_model("LlamaConfig", LLAMA), {}
    for i, block in enumerate(model.model.layers):
        model.model.layers[i] = Sharing(block, i, kept)
    with pytest.raises(ModelError, match="part by part .*size of tensor"):
        mh.LanguageModel("sharing", model, make_tokenizer())


def test_a_model_that_overflows_is_loaded_and_what_runs_it_says_so(edited):
    """It is no encoder because numbers that are not finite equal nothing."""

    def enlarge(tensors):
        tensors["model.layers.1.mlp.down_proj.weight"] *= 2e4  # within the range of float16

    lm = mh.load_model(edited(enlarge), device="cpu", dtype=torch.float16)
    text = SENTENCES[1]
    for run in (
        lambda: mh.translate(lm, [text], "fr", "en", max_new_tokens=2),
        lambda: mh.logit_lens(lm, [text], {"a": [5]}),
        lambda: mh.score_choices(lm, [text], [[" a", " b"]]),
        lambda: mh.collect_activations(lm, [text]),
        lambda: mh.prune(lm, [text]),
    ):
        with pytest.raises(ValueError, match="not finite.*float32"):
            run()


def test_identity_is_of_saved_buffers_too(load):
    lm = load("llama")
    lm.model.model.layers[0].register_buffer("scale", torch.ones(()))
    before = lm.fingerprint
    lm.model.model.layers[0].scale += 1
    assert lm.fingerprint != before


def test_hidden_states_under_another_keyword_are_found():
    class Renamed(nn.Module):
        def __init__(self, block):
            super().__init__()
            self.block = block

        def forward(self, x, **kwargs):
            return self.block(x, **kwargs)

    model = make_model("LlamaConfig", LLAMA)
    expected = mh.prune(
        mh.LanguageModel("plain", make_model("LlamaConfig", LLAMA), make_tokenizer()), SENTENCES[:3]
    )
    for i, block in enumerate(model.model.layers):
        model.model.layers[i] = Renamed(block)
    report = mh.prune(mh.LanguageModel("renamed", model, make_tokenizer()), SENTENCES[:3])
    for mask, other in zip(report.masks.values(), expected.masks.values()):
        assert torch.equal(mask, other)


# -- what is said of other things than models ------------------------------------------------------


def test_an_adapter_is_called_one(tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "some/base"}')
    with pytest.raises(ModelError, match="an adapter to 'some/base', not a model. Merge it"):
        mh.load_model(str(tmp_path))


def test_a_file_is_called_one(tmp_path):
    for name, said in (
        ("m.gguf", "a GGUF file.*Dequantise"),
        ("model.safetensors", "a file. Give the folder"),
    ):
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(ModelError, match=said):
            mh.load_model(str(tmp_path / name))


def test_a_quantised_checkpoint_is_called_one(edited):
    folder = edited(config={"quantization_config": {"quant_method": "awq", "bits": 4}})
    with pytest.raises(ModelError, match=r"a quantised checkpoint \(awq\)"):
        mh.load_model(folder)


# -- positions -------------------------------------------------------------------------------------


def test_too_many_tokens_are_said_in_every_function(load):
    lm = load("gpt2")
    long = "mot " * 200
    for run in (
        lambda: mh.prune(lm, [long], max_length=None),
        lambda: mh.collect_activations(lm, [long], max_length=None),
        lambda: mh.logit_lens(lm, [long], {"a": [5]}),
        lambda: mh.language_vector(lm, [long]),
    ):
        with pytest.raises(ValueError, match=r"\d+ tokens; 256 fit. Shorten the texts"):
            run()


def test_rotary_embeddings_that_change_with_length_end_at_the_original_length(save_model):
    rope = {
        "rope_type": "dynamic",
        "rope_theta": 10000.0,
        "factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    lm = mh.load_model(
        str(save_model("LlamaConfig", LLAMA | {"rope_parameters": rope})), device="cpu"
    )
    assert lm.max_positions == 64
