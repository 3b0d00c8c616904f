"""Small models with random weights.

Of every architecture the book names, saved to folders and loaded from there.

Norm weights, biases and matrices are drawn so that nothing is degenerate: no norm is 1, no bias is
0, attention looks at more than one place.  The tokenizers are trained here, on the sentences below.
"""

from __future__ import annotations

import json
import os

os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

import mlprune_helpers as mh

VOCABULARY = 300
SENTENCES = [
    "The cat sleeps on the old chair near the window.",
    "Le chat dort sur la vieille chaise près de la fenêtre.",
    "My brother bought two bottles of milk this morning.",
    "Mon frère a acheté deux bouteilles de lait ce matin.",
    "It rained all night, so the river is high today.",
    "Il a plu toute la nuit, donc la rivière est haute aujourd'hui.",
    "English: Nobody knows who wrote this letter.",
    "French: Personne ne sait qui a écrit cette lettre.",
]

_COMMON = dict(vocab_size=VOCABULARY, bos_token_id=0, eos_token_id=1, pad_token_id=None)
_MODERN = dict(
    hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,  # noqa: E501
    max_position_embeddings=256, tie_word_embeddings=False,
)  # fmt: skip

#: Name: (configuration class, its settings, first special token put before every text, padding
#: side).
ARCHITECTURES = {
    "xglm": ("XGLMConfig", dict(d_model=32, ffn_dim=48, num_layers=3, attention_heads=4, max_position_embeddings=256, dropout=0.0, attention_dropout=0.0), True, "right"),  # noqa: E501
    "gpt2": ("GPT2Config", dict(n_embd=32, n_layer=3, n_head=4, n_positions=256), False, "right"),
    "bloom": ("BloomConfig", dict(hidden_size=32, n_layer=3, n_head=4), False, "left"),
    "gemma3": ("Gemma3TextConfig", _MODERN | dict(head_dim=8, sliding_window=8, layer_types=["sliding_attention", "full_attention", "sliding_attention"], query_pre_attn_scalar=8), True, "right"),  # noqa: E501
    "llama": ("LlamaConfig", _MODERN, True, "left"),
    "qwen2": ("Qwen2Config", _MODERN, False, "right"),
    "qwen3": ("Qwen3Config", _MODERN | dict(head_dim=8), False, "right"),
    "mistral": ("MistralConfig", _MODERN | dict(sliding_window=8), True, "left"),
    "opt": ("OPTConfig", dict(hidden_size=32, word_embed_proj_dim=32, ffn_dim=48, num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=256, dropout=0.0), True, "left"),  # noqa: E501
}  # fmt: skip


def make_tokenizer(
    bos: bool = False, padding_side: str = "right"
) -> transformers.PreTrainedTokenizerFast:
    """Byte-level BPE.

    Every text can be written, and merges make a choice's tokens depend on what is before it.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    assert tokenizer.get_vocab_size() == VOCABULARY
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 0)]
        )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", padding_side=padding_side
    )


def make_model(config_class: str, settings: dict, seed: int = 0) -> transformers.PreTrainedModel:
    config = getattr(transformers, config_class)(**_COMMON | settings)
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 2:
                spread = (
                    0.7
                    if "embed" in name or "wte" in name or "wpe" in name
                    else 1.5 / parameter.shape[-1] ** 0.5
                )
                parameter.copy_(spread * noise)
            elif (
                name.endswith("bias") or "Gemma" in config_class
            ):  # Gemma's norms multiply by 1 + weight
                parameter.copy_(0.3 * noise)
            else:
                parameter.copy_(1 + 0.3 * noise)
    return model


@pytest.fixture(scope="session")
def save_model(tmp_path_factory):
    """A function (configuration class, settings, ...) → folder of a checkpoint with random weights."""  # noqa: E501

    def save(
        config_class: str,
        settings: dict,
        *,
        seed: int = 0,
        bos: bool = False,
        padding_side: str = "right",
    ):
        folder = tmp_path_factory.mktemp(config_class)
        make_model(config_class, settings, seed).save_pretrained(folder)
        make_tokenizer(bos, padding_side).save_pretrained(folder)
        return folder

    return save


@pytest.fixture(scope="session")
def folder_of(save_model):
    """A function: name in ARCHITECTURES → folder of its checkpoint, made once."""
    made = {}

    def folder(name: str):
        if name not in made:
            config_class, settings, bos, padding_side = ARCHITECTURES[name]
            made[name] = save_model(config_class, settings, bos=bos, padding_side=padding_side)
        return made[name]

    return folder


@pytest.fixture(scope="session")
def load(folder_of):
    """A function: name in ARCHITECTURES → LanguageModel, loaded afresh, in float32."""

    def loaded(name: str) -> mh.LanguageModel:
        return mh.load_model(str(folder_of(name)), device="cpu")

    return loaded


@pytest.fixture(params=ARCHITECTURES)
def architecture(request) -> str:
    return request.param


@pytest.fixture
def lm(architecture, load) -> mh.LanguageModel:
    """A model of every architecture in turn."""
    return load(architecture)


@pytest.fixture
def one_lm(load) -> mh.LanguageModel:
    """One model, where the architecture does not matter."""
    return load("llama")


@pytest.fixture(scope="session")
def prompts() -> list[str]:
    """Of different lengths, some longer than the sliding windows of the small models."""
    return [
        SENTENCES[0],
        SENTENCES[1] + "\n" + SENTENCES[2] + "\n",
        "Oui.",
        SENTENCES[5],
        "A red house",
    ]


@pytest.fixture(scope="session")
def parallel():
    """Forty sentence pairs of which each says its number."""
    import datasets

    return datasets.Dataset.from_dict(
        {
            "id": [f"s-{i}" for i in range(40)],
            "en": [f"english {i}" for i in range(40)],
            "fr": [f"french {i}" for i in range(40)],
        }
    )


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


LANGUAGES = ("en", "fr", "sw")
NOUNS = ["cat", "river", "letter", "chair", "window", "brother"]


def nli_rows(language, n=18):
    rows = [{"premise": f"The {NOUNS[i // 3]} {language} is old.", "hypothesis": f"It is {word}", "label": (i + i // 3) % 3}  # noqa: E501
            for i, word in zip(range(n), ["old", "young", "red"] * n)]  # fmt: skip
    return rows


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Tasks in three languages, laid out as any folder of data is."""
    root = tmp_path_factory.mktemp("tasks")

    def write(task, split, language, rows):
        (root / task).mkdir(exist_ok=True)
        text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
        (root / task / f"{split}.{language}.jsonl").write_text(text, encoding="utf-8")

    for language in LANGUAGES:
        write("xnli", "validation", language, nli_rows(language))
        n = {"en": 10, "fr": 15, "sw": 10}[language]
        write(
            "marc",
            "test",
            language,
            [{"text": f"{language} {NOUNS[i % 6]} {i}", "stars": i % 5 + 1} for i in range(n)],
        )
        causes = [{"premise": f"The {x} fell.", "choice1": "It rained.", "choice2": "The sun shone.",  # noqa: E501
                   "question": ["cause", "effect"][i % 2], "label": i % 2} for i, x in enumerate(NOUNS)]  # fmt: skip  # noqa: E501
        write("xcopa", "validation", language, causes)
        story = {f"input_sentence_{i}": f"Part {i}." for i in range(1, 5)}
        quiz = {
            "sentence_quiz1": "It ended.",
            "sentence_quiz2": "It began.",
            "answer_right_ending": 2,
        }
        write("xstory_cloze", "eval", language, [story | quiz])
    return root


def by_hand(lm, string):
    """Mean log-likelihood of a string from one forward pass."""
    ids = torch.tensor([lm.tokenizer(string)["input_ids"]])
    with torch.no_grad():
        logits = lm.model(ids).logits.double().log_softmax(-1)
    return float(logits[0, :-1].gather(1, ids[0, 1:, None]).mean())
