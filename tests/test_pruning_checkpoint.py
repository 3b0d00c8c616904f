"""A pruned model as a checkpoint that other tools load."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
import yaml
from pruning_oracles import CODE, logits_of

import mlprune_helpers as mh
from mlprune_helpers.pruning.methods import METHODS


def test_saved_model_loads_with_transformers_alone(lm, prompts, tmp_path):
    mh.prune(lm, prompts, sparsity=0.5)
    folder = mh.save_pruned(lm, tmp_path / "a" / "pruned")
    plain = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ids = torch.tensor([tokenizer(prompts[0])["input_ids"]])
    with torch.no_grad():
        assert torch.equal(plain(ids).logits, logits_of(lm, prompts[0]))
    assert mh.load_model(str(folder), device="cpu").fingerprint == lm.fingerprint
    provenance = json.loads((folder / "pruning.json").read_text())
    assert provenance["fingerprint"] == lm.fingerprint
    assert [step["sparsity"] for step in provenance["steps"]] == [0.5]


def test_saved_model_loads_with_lm_evaluation_harness(lm, prompts, tmp_path):
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    mh.prune(lm, prompts, sparsity=0.5)
    folder = str(mh.save_pruned(lm, tmp_path / "pruned"))
    harness = HFLM(pretrained=folder, device="cpu", dtype="float32", batch_size=1)
    theirs = harness.loglikelihood(
        [Instance("loglikelihood", {}, (prompts[0], " x"), 0)], disable_tqdm=True
    )
    ours = mh.score_choices(lm, prompts[:1], [[" x"]], reduction="sum", span="continuation")
    np.testing.assert_allclose(theirs[0][0], ours[0, 0], rtol=1e-5)


def test_model_card_says_what_was_done(load, prompts, tmp_path):
    lm = load("gemma3")
    lm.name = "someone/gemma: a model"
    mh.prune(lm, method="magnitude", sparsity=0.1)
    mh.prune(lm, prompts, method="refined", contrast=CODE, sparsity="2:4")
    folder = mh.save_pruned(lm, tmp_path / "card")
    _, header, body = (folder / "README.md").read_text().split("---\n", 2)
    header = yaml.safe_load(header)
    assert header["base_model"] == lm.name and header["tags"] == ["pruned", "magnitude", "refined"]
    assert header["library_name"] == "transformers"
    for said in (
        "sparsity: 2:4",
        "sparsity: 0.1",
        lm.fingerprint,
        lm.history[1]["contrast"],
        "were modified",
    ):
        assert said in body
    assert "Gemma Terms of Use" in (folder / "NOTICE").read_text()
    lm = load("gpt2")  # loaded from a folder: its path is nobody's business
    card = (mh.save_pruned(lm, tmp_path / "other") / "README.md").read_text()
    assert str(Path(lm.name).parent) not in card and Path(lm.name).name in card
    assert not (tmp_path / "other" / "NOTICE").exists()


def test_by_hand_in_a_few_lines(lm, architecture, load, prompts, tmp_path):
    stats = mh.collect_activations(lm, prompts)
    for name, module in lm.prunable.items():
        weight = mh.weight_matrix(module)
        score = mh.wanda_score(weight, torch.from_numpy(stats.inputs[name]))
        weight[mh.unstructured_mask(score, 0.3)] = 0
    folder = mh.save_pruned(lm, tmp_path / "by-hand")
    other = load(architecture)
    mh.prune(other, prompts, sparsity=0.3, propagate_error=False)
    assert mh.load_model(str(folder), device="cpu").fingerprint == other.fingerprint


def test_an_existing_folder_is_not_overwritten(one_lm, tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "note.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="kept"):
        mh.save_pruned(one_lm, tmp_path / "kept")
    assert [p.name for p in (tmp_path / "kept").iterdir()] == ["note.txt"]


def test_nothing_half_written_stays(one_lm, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError("no space left")

    # The weights have been written by then.
    monkeypatch.setattr(one_lm.tokenizer, "save_pretrained", full)
    with pytest.raises(OSError, match="no space left"):
        mh.save_pruned(one_lm, tmp_path / "pruned")
    assert list(tmp_path.iterdir()) == []


def test_weights_of_another_memory_order_are_saved_in_place(load, prompts, tmp_path):
    lm = load("llama")
    for module in lm.prunable.values():
        module.weight.data = module.weight.data.T.contiguous().T
    mh.prune(lm, prompts)
    folder = mh.save_pruned(lm, tmp_path / "pruned")
    again = mh.load_model(str(folder), device="cpu")
    for name, module in lm.prunable.items():
        assert torch.equal(again.prunable[name].weight, module.weight), name


def test_what_a_checkpoint_cannot_hold_is_refused(one_lm, tmp_path):
    with mh.zero_features(one_lm, {1: np.arange(32) < 3}):
        with pytest.raises(ValueError, match="intervention .*is active.*checkpoint"):
            mh.save_pruned(one_lm, tmp_path / "pruned")
    assert list(tmp_path.iterdir()) == []


def test_names_of_own_methods_do_not_break_the_card(one_lm, tmp_path, monkeypatch):
    monkeypatch.setitem(METHODS, "mine: [v2", mh.magnitude_score)
    mh.prune(one_lm, method="mine: [v2")
    card = (mh.save_pruned(one_lm, tmp_path / "pruned") / "README.md").read_text()
    assert yaml.safe_load(card.split("---\n")[1])["tags"] == ["pruned", "mine: [v2"]
