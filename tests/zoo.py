"""A tiny model of every causal class that transformers has, and what is true of it by plain means.

Three parts, none of which knows the package:

- :data:`SPECIMENS` and :func:`build_model`: every configuration class that ``AutoModelForCausalLM``
  accepts, with three blocks of width 32 and random weights in which nothing is degenerate; and
  variants that have led programs astray.
- :func:`families`: what kind of model it is, told from its own modules and from how it behaves.
- References: scores, greedy continuations, norms and Wanda masks by whole forward passes, one
  string at a time, without padding, mask or cache.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.pytorch_utils import Conv1D

VOCABULARY = 300
BLOCKS = 3
WINDOW = 8
POSITIONS = 256
GAIN = 2.0  # spread of what a matrix puts out, for inputs of spread 1


# -- what there is ---------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Specimen:
    """A model type with settings that differ from the tiny ones of its class."""

    model_type: str
    variant: str = ""
    changes: Mapping[str, object] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.model_type}, {self.variant}" if self.variant else self.model_type

    @property
    def class_name(self) -> str:
        return MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[self.model_type]


#: Classes that cannot be built here, and why.
UNBUILDABLE = {
    "gemma3n": "its vision tower needs the package timm",
    "gemma4_assistant": "a drafting head: it reads keys and values of another model",
    "gemma4_unified_assistant": "a drafting head: it reads keys and values of another model",
    "musicgen": "its class takes a decoder's configuration, the auto-class gives the whole one",
    "musicgen_melody": "its class takes a decoder's configuration, the auto-class gives another",
}


def _same(value: object, names: str) -> dict[str, object]:
    return dict.fromkeys(names.split(), value)


#: Settings by the names that the configurations give them; each takes those that it has.
TINY: dict[str, object] = {
    **_same(32, "hidden_size n_embd d_model emb_dim embedding_size embedding_dim"),
    **_same(32, "input_embedding_size output_embedding_size word_embed_proj_dim lru_width"),
    **_same(32, "backbone_hidden_size attention_hidden_size"),
    **_same(BLOCKS, "num_hidden_layers n_layer n_layers num_layers num_blocks"),
    **_same(BLOCKS, "decoder_layers encoder_layers num_decoder_layers num_encoder_layers"),
    **_same(4, "num_attention_heads n_head n_heads num_heads attention_heads"),
    **_same(4, "decoder_attention_heads encoder_attention_heads"),
    **_same(4, "num_decoder_attention_heads num_encoder_attention_heads"),
    **_same(2, "num_key_value_heads num_kv_heads num_query_groups kv_n_heads"),
    **_same(8, "head_dim kv_channels attention_head_dim d_head attention_head_size dim_head"),
    **_same(8, "swa_head_dim qk_rope_head_dim qk_nope_head_dim v_head_dim query_pre_attn_scalar"),
    **_same(16, "qk_head_dim q_lora_rank kv_lora_rank"),
    **_same(48, "intermediate_size ffn_dim n_inner dff dim_ff feed_forward_size ffn_hidden_size"),
    **_same(48, "decoder_ffn_dim encoder_ffn_dim d_inner intermediate_size_mlp"),
    **_same(48, "dense_intermediate_size prefix_dense_intermediate_size shared_intermediate_size"),
    **_same(48, "block_multiple_of"),
    **_same(16, "moe_intermediate_size shared_expert_intermediate_size expert_ffn_hidden_size"),
    **_same(16, "shared_experts_intermediate_size moe_shared_expert_intermediate_size"),
    **_same(4, "num_experts num_local_experts n_routed_experts moe_num_experts"),
    **_same(2, "num_experts_per_tok num_experts_per_token moe_topk moe_k moe_top_k top_k_experts"),
    **_same(1, "n_group topk_group num_expert_group first_k_dense_replace"),
    **_same(1, "n_shared_experts num_shared_experts moe_num_shared_experts"),
    **_same(VOCABULARY, "vocab_size vocab_size_per_layer_input decoder_vocab_size"),
    **_same(VOCABULARY, "unpadded_vocab_size"),
    **_same(POSITIONS, "max_position_embeddings n_positions n_ctx max_seq_len model_max_length"),
    **_same(POSITIONS, "max_target_positions max_source_positions context_length"),
    **_same(WINDOW, "sliding_window window_size sliding_window_size attention_window_size"),
    **_same(WINDOW, "attention_chunk_size"),
    **_same(
        8, "mamba_d_state state_size ssm_state_size mamba_n_heads mamba_d_head mamba_num_heads"
    ),
    **_same(8, "mamba_head_dim mamba_headdim mamba_chunk_size chunk_size"),
    **_same(8, "linear_key_head_dim linear_value_head_dim linear_head_dim"),
    **_same(8, "hidden_size_per_layer_input laurel_rank o_lora_rank"),
    **_same(4, "mamba_d_conv linear_conv_kernel_dim mamba_dt_rank time_step_rank rotary_dim"),
    **_same(4, "linear_num_key_heads linear_num_value_heads linear_num_heads"),
    **_same(4, "adapter_rank gated_norm_rank"),
    **_same(2, "mamba_expand n_mamba_heads index_n_heads type_vocab_size layer_group_size"),
    **_same(1, "mamba_n_groups mamba_ngroups n_groups num_mem_blocks n_langs max_window_layers"),
    **_same(0, "num_kv_shared_layers num_nextn_predict_layers"),
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": None,
    "use_sliding_window": True,
    "mamba_d_ssm": 64,
    "index_head_dim": 16,
    "index_topk": 16,
    "conv_L_cache": 3,
    "axial_pos_shape": [16, 16],
    "axial_pos_embds_dim": [8, 24],
}

#: Settings that hold one word for every block.
PER_BLOCK = ("layer_types", "mlp_layer_types", "layers_block_type", "block_types", "indexer_types")

SLIDING = ["sliding_attention", "full_attention", "sliding_attention"]
_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
_PADDED = {"pad_token_id": 1, "max_position_embeddings": POSITIONS + 2}  # positions begin after pad
_WINDOWED = {"sliding_window": WINDOW, "layer_types": SLIDING}  # else only if so many blocks
_INDEXED = {
    "indexer_n_heads": 2,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 16,
    "indexer_budget": 16,
    "indexer_compress_ratio": 4,
}
_GEMMA4 = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "global_head_dim": 16,
    "max_position_embeddings": POSITIONS,
    "sliding_window": WINDOW,
    "layer_types": ["full_attention", "sliding_attention", "full_attention"],
    "vocab_size_per_layer_input": VOCABULARY,
    "hidden_size_per_layer_input": 8,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,  # takes the place of what is not text, so there must be one
}
_DOTS = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "moe_intermediate_size": 16,
    "shared_experts_intermediate_size": 16,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "head_dim": 16,
    "index_head_dim": 16,
    "index_n_heads": 2,
    "index_topk": 16,
    "layer_types": ["indexed_attention"] * BLOCKS,
    "max_position_embeddings": POSITIONS,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": None,
}

#: These take nothing from :data:`TINY`, for what varies by block cannot be read from them at large.
WHOLE: dict[str, dict] = {
    "dots3_note": {
        "text_config": _DOTS,
        "vision_config": {
            "adapter_out_dim": 32,
            "num_hidden_layers": 1,
            "mlp_layer_types": ["dense"],
        }
        | {
            "hidden_size": 32,
            "adapter_in_dim": 32,
            "intermediate_size": 48,
            "num_attention_heads": 4,
        },
        "audio_config": {"adapter_out_dim": 32, "num_hidden_layers": 1, "hidden_size": 32}
        | {"intermediate_size": 48, "num_attention_heads": 4, "adapter_input_size": 32},
    },
    "dots3_note_text": _DOTS,
    "gemma4": {"text_config": _GEMMA4},
    "gemma4_text": _GEMMA4,
    "gemma4_unified": {"text_config": _GEMMA4},
    "gemma4_unified_text": _GEMMA4,
}

_ABSENT = object()  # leave a setting at what its class computes

#: What a class needs beside :data:`TINY`.
NEEDED: dict[str, dict] = {
    "bamba": {"attn_layer_indices": [1]},
    "blt": {
        "encoder_hash_byte_group_vocab": 50,
        "encoder_hash_byte_group_size": [3, 4],
        "encoder_config": {"hidden_size_global": 32},
        "decoder_config": {"hidden_size_global": 32},
    },
    "camembert": _PADDED,
    "cohere_compass_text": {
        "layer_types": SLIDING,
        "rope_parameters": {"sliding_attention": _ROPE, "full_attention": _ROPE},
    },
    "data2vec-text": _PADDED,
    "dbrx": {"attn_config": {"rope_theta": 10000.0, "clip_qkv": 8.0}},
    "dots1": {"layer_types": SLIDING},
    "emu3": {
        "text_config": {"pad_token_id": 1},
        "vq_config": {"base_channels": 32, "channel_multiplier": [1, 1], "codebook_size": 16},
    },
    "gpt_neo": {
        "attention_types": [[["global", "local"], 1], [["local"], 1]],
        "attention_layers": _ABSENT,
    },
    "granitemoehybrid": {"layer_types": ["linear_attention", "full_attention", "linear_attention"]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "laguna": {"layer_types": SLIDING},
    "lfm2": {"layer_types": ["conv", "full_attention", "conv"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention", "conv"], "num_dense_layers": 1},
    "mamba2": {"num_heads": 8},
    "mellum": {"layer_types": SLIDING},
    "minicpm3": {"dim_model_base": 32},
    "modernbert-decoder": {"pad_token_id": 1},
    "prophetnet": {"pad_token_id": 1},
    "qwen2": _WINDOWED,
    "qwen2_moe": _WINDOWED,
    "qwen3": _WINDOWED,
    "qwen3_moe": _WINDOWED,
    "qwen4_exp": {"text_config": _INDEXED},
    "qwen4_exp_text": _INDEXED,
    "reformer": {
        "is_decoder": True,
        "pad_token_id": 1,
        "attn_layers": ["local", "lsh", "local"],
        "num_buckets": 4,
        "hash_seed": 0,
        "local_attn_chunk_length": 16,
        "lsh_attn_chunk_length": 16,
    },
    "roberta": _PADDED,
    "roberta-prelayernorm": _PADDED,
    "roc_bert": {
        "shape_vocab_size": VOCABULARY,
        "pronunciation_vocab_size": VOCABULARY,
        "shape_embed_dim": 8,
        "pronunciation_embed_dim": 8,
    },
    "xlm": {"pad_token_id": 2},
    "xlm-roberta": _PADDED,
    "xlm-roberta-xl": _PADDED,
    "xlstm": {"hidden_size": 128, "embedding_dim": 128},
    "xmod": _PADDED | {"default_language": "en_XX"},
    "zamba": {
        "num_hidden_layers": 5,
        "layers_block_type": [*["linear_attention"] * 2, "hybrid", "linear_attention", "hybrid"],
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
    },
    "zamba2": {
        "layers_block_type": ["linear_attention", "hybrid", "linear_attention"],
        "n_mamba_heads": 8,
        **dict.fromkeys(
            ["attention_hidden_size", "attention_head_dim", "mamba_headdim", "kv_channels"], _ABSENT
        ),
    },
    "zaya": {"num_experts_per_tok": 1},
}

_YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0}
_LONG = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0] * 4,
    "long_factor": [4.0] * 4,
    "original_max_position_embeddings": 32,
}
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
_SCALED = {
    "logits_scaling": 8.0,
    "embedding_multiplier": 6.0,
    "residual_multiplier": 0.5,
    "attention_multiplier": 0.2,
}

#: Settings that change what a program must do, on top of the tiny ones.
VARIANTS = [
    Specimen("bert", "decoder", {"is_decoder": True}),
    Specimen("bloom", "norm before residual", {"apply_residual_connection_post_layernorm": True}),
    Specimen("bloom", "untied", {"tie_word_embeddings": False}),
    Specimen("cohere", "logits × 0.1", {"logit_scale": 0.1}),
    Specimen("cohere", "norm of queries", {"use_qk_norm": True}),
    Specimen("cohere", "untied", {"tie_word_embeddings": False, "logit_scale": 3.0}),
    Specimen("cohere2", "logits × 0.1", {"logit_scale": 0.1}),
    Specimen("deepseek_v3", "dense", {"first_k_dense_replace": BLOCKS}),
    Specimen("doge", "experts", {"is_moe": True, "num_experts": 4}),
    Specimen("doge", "window", {"keep_window_size": WINDOW}),
    Specimen("falcon", "ALiBi", {"alibi": True}),
    Specimen("falcon", "new", {"new_decoder_architecture": True}),
    Specimen(
        "falcon",
        "new, one norm",
        {"new_decoder_architecture": True, "num_ln_in_parallel_attn": 1},
    ),
    Specimen(
        "falcon",
        "sequential",
        {"parallel_attn": False, "multi_query": False, "num_kv_heads": 4, "bias": True},
    ),
    Specimen("falcon", "untied", {"tie_word_embeddings": False}),
    Specimen("gemma2", "caps", {"final_logit_softcapping": 3.0, "attn_logit_softcapping": 1.0}),
    Specimen("gemma2", "untied", {"tie_word_embeddings": False}),
    Specimen("gemma3_text", "caps", {"final_logit_softcapping": 3.0}),
    Specimen("gemma3_text", "sees the future", {"use_bidirectional_attention": True}),
    Specimen(
        "gemma4_text",
        "experts",
        {
            "enable_moe_block": True,
            "num_experts": 4,
            "top_k_experts": 2,
            "moe_intermediate_size": 16,
        },
    ),
    Specimen("gemma4_text", "no inputs per block", {"hidden_size_per_layer_input": 0}),
    Specimen("gpt2", "attention by depth", {"scale_attn_by_inverse_layer_idx": True}),
    Specimen("gpt2", "untied", {"tie_word_embeddings": False}),
    Specimen("gpt_bigcode", "many heads", {"multi_query": False}),
    Specimen("gpt_neo", "global", {"attention_types": [[["global"], BLOCKS]]}),
    Specimen("gpt_neox", "sequential", {"use_parallel_residual": False}),
    Specimen("gpt_neox", "tied", {"tie_word_embeddings": True}),
    Specimen("granite", "scaled", _SCALED),
    Specimen("granite", "scaled, tied", _SCALED | {"tie_word_embeddings": True}),
    Specimen("granite_swa", "scaled", _SCALED),
    Specimen(
        "granitemoehybrid",
        "dense",
        _SCALED | {"layer_types": ["full_attention"] * BLOCKS, "num_local_experts": 0},
    ),
    Specimen("hyperclovax", "no norms after", {"use_post_norm": False}),
    Specimen("hyperclovax", "scaled", _SCALED | {"logits_scaling": 0.25}),
    Specimen("llama", "biases", {"attention_bias": True, "mlp_bias": True}),
    Specimen("llama", "llama3 positions", {"rope_parameters": _LLAMA3}),
    Specimen("llama", "no cache", {"use_cache": False}),
    Specimen("llama", "one key head", {"num_key_value_heads": 1}),
    Specimen("llama", "padded vocabulary", {"vocab_size": 320}),
    Specimen("llama", "tied", {"tie_word_embeddings": True}),
    Specimen("llama", "wide heads", {"head_dim": 16}),
    Specimen("llama", "YaRN", {"rope_parameters": _YARN}),
    Specimen("minicpm3", "scaled", {"scale_emb": 6, "scale_depth": 1.0, "dim_model_base": 16}),
    Specimen("mistral", "no window", {"sliding_window": None}),
    Specimen("mpt", "untied", {"tie_word_embeddings": False}),
    Specimen("nanochat", "caps", {"final_logit_softcapping": 3.0}),
    Specimen("opt", "narrow embeddings", {"word_embed_proj_dim": 16}),
    Specimen("opt", "norms after", {"do_layer_norm_before": False, "word_embed_proj_dim": 16}),
    Specimen("opt", "untied", {"tie_word_embeddings": False}),
    Specimen("phi", "norm of queries", {"qk_layernorm": True}),
    Specimen(
        "phi3",
        "long positions",
        {"rope_parameters": _LONG, "original_max_position_embeddings": 32, "sliding_window": None},
    ),
    Specimen("phi3", "window", {"sliding_window": WINDOW}),
    Specimen("qwen2", "no window", {"use_sliding_window": False, "layer_types": None}),
    Specimen("qwen2", "tied", {"tie_word_embeddings": True}),
    Specimen("qwen2_moe", "dense", {"mlp_only_layers": [0, 1, 2]}),
    Specimen("roberta", "decoder", {"is_decoder": True}),
    Specimen("smollm3", "window", {"sliding_window": WINDOW, "layer_types": SLIDING}),
    Specimen("stablelm", "norm of queries", {"qk_layernorm": True, "use_qkv_bias": True}),
    Specimen("stablelm", "parallel", {"use_parallel_residual": True}),
    Specimen("starcoder2", "window", {"sliding_window": WINDOW}),
    Specimen("vaultgemma", "caps", {"final_logit_softcapping": 3.0, "attn_logit_softcapping": 1.0}),
    Specimen("xglm", "untied", {"tie_word_embeddings": False}),
    Specimen("xlm", "causal", {"causal": True, "is_encoder": True}),
]


def _classes() -> list[Specimen]:
    """Every model type that has a configuration class of its own."""
    types = set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) - set(UNBUILDABLE)
    return [Specimen(name) for name in types if CONFIG_MAPPING[name].model_type == name]


SPECIMENS = sorted([*_classes(), *VARIANTS], key=lambda specimen: specimen.name)


# -- building --------------------------------------------------------------------------------------


def build_model(specimen: Specimen, seed: int = 0) -> PreTrainedModel:
    """The model of a specimen, on the CPU in float32, with its weights drawn by ``seed``."""
    config = CONFIG_MAPPING[specimen.model_type](**tiny_settings(specimen))
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    redraw(model, seed)
    even_out(model)
    return model


def tiny_settings(specimen: Specimen) -> dict[str, object]:
    """Arguments of the configuration class."""
    if specimen.model_type in WHOLE:
        return _merged(WHOLE[specimen.model_type], specimen.changes)
    settings = _tiny(CONFIG_MAPPING[specimen.model_type]())
    return _merged(_merged(settings, NEEDED.get(specimen.model_type, {})), specimen.changes)


def _tiny(config: PreTrainedConfig) -> dict[str, object]:
    """:data:`TINY` as far as a configuration has the names, and those inside it likewise."""
    settings: dict[str, object] = {}
    for name in config.to_dict():
        value = getattr(config, name, None)
        if isinstance(value, PreTrainedConfig):
            settings[name] = _tiny(value)
        elif name in PER_BLOCK and value:
            words = list(dict.fromkeys(value))
            settings[name] = [words[i % len(words)] for i in range(BLOCKS)]
        elif name in TINY:
            several = isinstance(value, list) and not isinstance(TINY[name], list)
            settings[name] = [TINY[name]] * BLOCKS if several else TINY[name]
    if "kv_lora_rank" in settings:  # keys and values of every head are unfolded from one vector
        settings["num_key_value_heads"] = settings["num_attention_heads"]
    if getattr(config, "sliding_window", None) is None:
        settings.pop("sliding_window", None)
    return settings


def _merged(settings: Mapping, changes: Mapping) -> dict:
    merged = dict(settings)
    for name, value in changes.items():
        if value is _ABSENT:
            merged.pop(name, None)
        elif isinstance(value, dict) and isinstance(merged.get(name), dict):
            merged[name] = _merged(merged[name], value)
        else:
            merged[name] = value
    return merged


def redraw(model: PreTrainedModel, seed: int) -> None:
    """No norm is 1, no bias 0, and attention looks at more than one place.

    What the class begins with stays the centre: 1 for most norms, 0 for biases and for Gemma's
    norms, which multiply by 1 + weight.
    """
    generator = torch.Generator().manual_seed(seed)
    owners = {id(p): m for m in model.modules() for p in m.parameters(recurse=False)}
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim < 2:
                parameter.copy_(_centre(parameter) + 0.3 * noise)
            elif isinstance(owners[id(parameter)], nn.Embedding):
                parameter.copy_(0.7 * noise)
            else:
                parameter.copy_(GAIN * noise / _inputs(owners[id(parameter)], parameter) ** 0.5)


@torch.no_grad()
def even_out(model: PreTrainedModel, spread: float = 0.7) -> None:
    """Scale the embeddings so that they come into the first block with this spread.

    Where a class multiplies them by the root of its width, or more, blocks would else add next to
    nothing, and a model whose head is tied would say its last token again, whatever went before.
    """
    entering: list[Tensor] = []

    def see(module: nn.Module, args: tuple, kwargs: dict) -> None:
        given = [x for x in [*args, *kwargs.values()] if torch.is_tensor(x)]
        entering.extend(x for x in given if x.is_floating_point() and x.ndim >= 3)

    with blocks(model)[0].register_forward_pre_hook(see, with_kwargs=True):
        plain_logits(model, range(4, 44))
    if entering:
        model.get_input_embeddings().weight.mul_(spread / entering[0].std())


def _centre(parameter: Tensor) -> float:
    first = parameter.flatten()[0].item()
    constant = first in (0.0, 1.0) and bool((parameter == first).all())
    return first if constant else 0.0


def _inputs(owner: nn.Module, parameter: Tensor) -> int:
    """How many products make up one output."""
    if isinstance(owner, nn.modules.conv._ConvNd):
        return parameter[0].numel()
    return parameter.shape[0] if isinstance(owner, Conv1D) else parameter.shape[-1]


def save_specimen(
    specimen: Specimen, tokenizer: PreTrainedTokenizerBase, folder: Path
) -> PreTrainedModel:
    """Write an ordinary checkpoint folder; return the model that was written."""
    model = build_model(specimen)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


def claim_quantised(folder: Path) -> None:
    """Let the configuration of a saved checkpoint say that its weights are quantised."""
    path = folder / "config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings["quantization_config"] = {"quant_method": "gptq", "bits": 4, "group_size": 32}
    path.write_text(json.dumps(settings), encoding="utf-8")


# -- what kind of model it is ----------------------------------------------------------------------

#: Family: words of which a refusal names one.
WORDS = {
    "composite": ("vision", "image", "audio", "multimodal"),
    "encoder": ("encoder", "bidirectional", "later tokens", "cross-attention"),
    "experts": ("mixture of experts", "mixtures of experts", "expert"),
    "recurrent": ("recurrent", "recurrence", "convolution", "state-space", "linear attention"),
    "quantised": ("quantised", "quantized"),
}

_CROSS = re.compile("encoder_attn|cross_?attn")
_EXPERTS = re.compile(r"(^|[._])(experts?|moe|router_gate)([._]|$)")
_RECURRENT = re.compile(
    r"mamba|rwkv|xlstm|mlstm|deltanet|deltaattention|recurrent|rglru|shortconv|linearattention"
    r"|lightningattention|conv1d$|convolution",
    re.IGNORECASE,
)


def families(model: PreTrainedModel) -> set[str]:
    """Which of :data:`WORDS` a model belongs to; none: a plain decoder.

    ``composite``: there is a tower for images or sound.  ``encoder``: a token's logits depend on
    later tokens, or blocks have attention to an encoder's output.  ``experts``: modules or
    parameters are named so.  ``recurrent``: blocks with a recurrence or a convolution.
    """
    found = set()
    inside = [pair for block in blocks(model) for pair in block.named_modules()]
    if any(re.search("vision|audio|image", name) for name, _ in model.named_modules()):
        found.add("composite")
    if sees_the_future(model) or any(_CROSS.search(name) for name, _ in inside):
        found.add("encoder")
    if any(_EXPERTS.search(name) for name, _ in [*inside, *model.named_parameters()]):
        found.add("experts")
    kinds = {type(module).__name__ for _, module in inside} - {"Conv1D"}  # GPT-2's is a matrix
    if any(_RECURRENT.search(kind) for kind in kinds):
        found.add("recurrent")
    return found


def sees_the_future(model: PreTrainedModel) -> bool:
    """Whether the logits of a token change with the tokens after it."""
    ids = torch.randint(4, 290, (1, 24), generator=torch.Generator().manual_seed(0))
    other = ids.clone()
    other[0, 16:] = (ids[0, 16:] + 50) % 280 + 4
    change = plain_logits(model, other[0])[:16] - plain_logits(model, ids[0])[:16]
    return change.abs().max().item() > 1e-3


def blocks(model: PreTrainedModel) -> list[nn.Module]:
    """The longest list of modules with the most weights: the blocks."""
    return list(model.get_submodule(blocks_name(model)))


def blocks_name(model: PreTrainedModel) -> str:
    lists = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList)
        and len(module) >= BLOCKS
        and not re.search("vision|visual|audio|image_encoder", name)
    }
    outermost = {
        name: module
        for name, module in lists.items()
        if not any(name.startswith(f"{other}.") for other in lists)
    }
    return max(outermost, key=lambda name: sum(p.numel() for p in outermost[name].parameters()))


def matrices(model: PreTrainedModel) -> dict[str, nn.Module]:
    """{qualified name: every Linear and Conv1D inside the blocks}."""
    prefix = f"{blocks_name(model)}."
    return {
        name: module
        for name, module in model.named_modules()
        if name.startswith(prefix) and isinstance(module, nn.Linear | Conv1D)
    }


# -- references ------------------------------------------------------------------------------------


@torch.no_grad()
def plain_logits(model: PreTrainedModel, ids: Sequence[int] | Tensor) -> Tensor:
    """(length, vocabulary) by one pass over one string, no cache, no mask, no padding."""
    tokens = torch.as_tensor(ids)[None]
    return model(input_ids=tokens, use_cache=False).logits[0].double()


def plain_score(model: PreTrainedModel, ids: Sequence[int]) -> float:
    """Mean log-likelihood of the tokens after the first."""
    logprob = plain_logits(model, ids)[:-1].log_softmax(dim=-1)
    return logprob[range(len(ids) - 1), ids[1:]].mean().item()


@dataclass(frozen=True)
class Continuation:
    """What a greedy pass wrote, and the smallest gap between its choice and the next best."""

    ids: list[int]
    gap: float


def plain_continuation(
    model: PreTrainedModel, ids: Sequence[int], steps: int, stop: Callable[[list[int]], bool]
) -> Continuation:
    """The likeliest token, again and again, each by a pass over everything before it."""
    written, gap = list(ids), float("inf")
    for _ in range(steps):
        best = plain_logits(model, written)[-1].topk(2)
        gap = min(gap, (best.values[0] - best.values[1]).item())
        written.append(int(best.indices[0]))
        if stop(written[len(ids) :]):
            break
    return Continuation(written[len(ids) :], gap)


@dataclass
class Seen:
    """Sums of squares over tokens.

    ``inputs``: {matrix: (in,)}.  ``hidden``: {block: (width,)} at its input, and after the last.
    """

    inputs: dict[str, Tensor] = field(default_factory=dict)
    hidden: dict[int, Tensor] = field(default_factory=dict)

    def add(self, where: dict, key: str | int, values: Tensor) -> None:
        squares = values.detach().double().reshape(-1, values.shape[-1]).square().sum(dim=0)
        where[key] = where.get(key, torch.zeros_like(squares)) + squares


@contextmanager
def _hooks(model: PreTrainedModel, seen: Seen) -> Iterator[None]:
    def matrix_hook(name: str) -> Callable:
        return lambda module, args: seen.add(seen.inputs, name, args[0])

    def block_hook(index: int) -> Callable:
        def hook(module: nn.Module, args: tuple, kwargs: dict) -> None:
            seen.add(seen.hidden, index, args[0] if args else kwargs["hidden_states"])

        return hook

    def last_hook(module: nn.Module, args: tuple, output: Tensor | tuple) -> None:
        seen.add(seen.hidden, len(layers), output[0] if isinstance(output, tuple) else output)

    layers = blocks(model)
    with ExitStack() as stack:
        for name, module in matrices(model).items():
            stack.enter_context(module.register_forward_pre_hook(matrix_hook(name)))
        for index, block in enumerate(layers):
            hook = block.register_forward_pre_hook(block_hook(index), with_kwargs=True)
            stack.enter_context(hook)
        stack.enter_context(layers[-1].register_forward_hook(last_hook))
        yield


def plain_statistics(model: PreTrainedModel, prompts: Sequence[Sequence[int]]) -> Seen:
    """What hooks see while the whole model runs over one prompt after the other."""
    seen = Seen()
    with _hooks(model, seen):
        for ids in prompts:
            plain_logits(model, ids)
    return seen


def weight_of(module: nn.Module) -> Tensor:
    """(out, in), whichever way round the module stores it; writing to it changes the module."""
    weight = module.weight.detach()
    return weight.T if isinstance(module, Conv1D) else weight


def misplaced(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    masks: Mapping[str, np.ndarray],
    sparsity: float,
    tolerance: float,
) -> list[str]:
    """Matrices whose masks are not Wanda's; ``model`` is pruned by ``masks`` on the way.

    Block by block: the whole model runs from its first token on, the blocks before already pruned
    by ``masks`` and this one dense.  Of every row the lowest scores |W| · ‖X‖₂ are pruned (Sun et
    al., arXiv 2306.11695).  A place may differ where its score is within ``tolerance`` of the row's
    threshold, relatively: sums in another order decide such ties otherwise.
    """
    wrong = []
    for block in blocks(model):
        norms = plain_statistics(model, prompts).inputs
        members = set(block.modules())
        own = {name: module for name, module in matrices(model).items() if module in members}
        for name, module in own.items():
            score = weight_of(module).double().abs() * norms[name].sqrt()
            if not _is_lowest(masks[name], score.numpy(), sparsity, tolerance):
                wrong.append(name)
        for name, module in own.items():
            weight_of(module)[torch.as_tensor(masks[name])] = 0
    return wrong


def _is_lowest(mask: np.ndarray, score: np.ndarray, sparsity: float, tolerance: float) -> bool:
    """Whether a mask holds the lowest scores of every row, but for places near the threshold."""
    count = int(sparsity * score.shape[1] + 1e-9)
    if mask.shape != score.shape or (mask.sum(axis=1) != count).any():
        return False
    in_order = np.sort(score, axis=1)
    threshold = in_order[:, count - 1 : count + 1].mean(axis=1, keepdims=True)
    near = np.abs(score - threshold) <= tolerance * threshold
    return bool((near | (mask == (score < threshold))).all())
