"""What pruning tells, and how it is kept."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from pruning_oracles import CODE
from safetensors import safe_open
from safetensors.numpy import save_file

import mlprune_helpers as mh


def test_report_tells_what_was_done(one_lm, prompts):
    before = one_lm.fingerprint
    report = mh.prune(one_lm, prompts, sparsity=0.3)
    assert (report.fingerprint_before, report.fingerprint_after) == (before, one_lm.fingerprint)
    assert report.fingerprint_after != before
    total = sum(mask.numel() for mask in report.masks.values())
    assert report.pruned_fraction == pytest.approx(
        sum(int(mask.sum()) for mask in report.masks.values()) / total
    )
    assert list(report.table["name"]) == list(one_lm.prunable)
    provenance = json.loads(json.dumps(report.provenance()))
    assert (
        provenance["method"] == "wanda"
        and provenance["sparsity"] == 0.3
        and provenance["contrast"] is None
    )
    assert one_lm.history == [report.provenance()]


def test_provenance_tells_calibrations_apart(load, prompts):
    digests = {
        mh.prune(load("llama"), sample, method="refined", contrast=CODE).provenance()["calibration"]
        for sample in (prompts, prompts[:3], prompts[::-1])
    }
    assert len(digests) == 3


@pytest.mark.parametrize("group", ["row", "model"])
def test_report_saved_and_applied_again(lm, architecture, load, prompts, tmp_path, group):
    settings = (
        dict(sparsity="2:4")
        if group == "row"
        else dict(sparsity=0.3, propagate_error=False, group=group)
    )
    report = mh.prune(lm, prompts, **settings)
    report.save(tmp_path / "report.safetensors")
    again = mh.PruningReport.load(tmp_path / "report.safetensors")
    assert again.provenance() == report.provenance() and again.table.equals(report.table)
    assert list(again.masks) == list(report.masks)
    assert all(
        torch.equal(mask, report.masks[name]) and mask.dtype == torch.bool
        for name, mask in again.masks.items()
    )
    dense = load(architecture)
    mh.apply_masks(dense, again.masks)
    folder = mh.save_pruned(lm, tmp_path / "pruned")
    assert (
        dense.fingerprint == lm.fingerprint == mh.load_model(str(folder), device="cpu").fingerprint
    )


def as_report(mask, name="a"):
    """A report that holds one mask."""
    rows, columns = mask.shape
    row = {"name": name, "rows": rows, "columns": columns, "weights": mask.numel()}
    table = pd.DataFrame([{**row, "asked": 0.5, "pruned": 0.25, "zero_before": 0.0}])
    return mh.PruningReport("wanda", 0.5, {name: mask}, table, {}, "", "", 1.0)


VIEWS = {
    "rows first": lambda mask: mask.clone(),
    "columns first": lambda mask: mask.T.contiguous().T,
    "every second column": lambda mask: mask.repeat_interleave(2, dim=1)[:, ::2],
    "every second row": lambda mask: mask.repeat_interleave(2, dim=0)[::2],
    "one row for all": lambda mask: mask[:1].expand(mask.shape),
    "from numpy": lambda mask: torch.from_numpy(np.asfortranarray(mask.numpy())),
}


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (8, 16), (5, 7), (32, 96), (3, 8)])
@pytest.mark.parametrize("order", VIEWS)
def test_masks_of_any_memory_order_are_the_same_after_loading(tmp_path, shape, order):
    random = torch.rand(shape, generator=torch.Generator().manual_seed(0)) < 0.4
    mask = VIEWS[order](random)
    as_report(mask).save(tmp_path / "report")
    loaded = mh.PruningReport.load(tmp_path / "report").masks["a"]
    assert loaded.tolist() == mask.tolist() and loaded.dtype == torch.bool


def test_masks_of_a_report_lie_row_by_row(lm):
    for mask in mh.prune(lm, method="magnitude").masks.values():
        assert mask.is_contiguous() and mask.device.type == "cpu"


@pytest.mark.parametrize("sparsity", [0, 0.3, "2:4"])
def test_the_table_is_the_same_after_loading(load, prompts, tmp_path, sparsity):
    report = mh.prune(load("gpt2"), prompts, sparsity=sparsity)
    report.save(tmp_path / "report")
    again = mh.PruningReport.load(tmp_path / "report")
    pd.testing.assert_frame_equal(again.table, report.table, check_exact=True)
    assert again.settings == report.settings and again.sparsity == report.sparsity
    assert again.seconds == report.seconds


def test_a_report_saves_all_or_nothing(tmp_path):
    mask = torch.ones(2, 3, dtype=torch.bool)
    for masks in ({}, {"a": mask, "b": mask}, {"a": mask.int()}, {"a": mask[:, :2]}):
        report = as_report(mask)
        report.masks = masks
        with pytest.raises(ValueError, match="first is|int32|weight"):
            report.save(tmp_path / "report")
    assert list(tmp_path.iterdir()) == []


def damaged(path, how):
    """A file that is no whole report."""
    whole = path.read_bytes()
    if how == "cut":
        path.write_bytes(whole[:-3])
    elif how == "text":
        path.write_text("not a report at all, but long enough to have a header")
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "foreign":
        save_file({"a": np.zeros(3)}, path)
    elif how == "no json":
        save_file({"a": np.zeros((2, 1), np.uint8)}, path, {"report": "{"})
    else:
        with safe_open(path, "np") as file:
            rest = json.loads(file.metadata()["report"])
            bits = {name: file.get_tensor(name) for name in file.keys()}
        if how == "missing":
            del bits["a"]
        elif how == "extra":
            bits["b"] = bits["a"]
        elif how == "shape":
            bits["a"] = bits["a"][:1].copy()
        elif how == "type":
            bits["a"] = bits["a"].astype(np.int32)
        elif how == "field":
            del rest["settings"]
        save_file(bits, path, {"report": json.dumps(rest)})


@pytest.mark.parametrize(
    "how",
    ["cut", "text", "empty", "foreign", "no json", "missing", "extra", "shape", "type", "field"],
)
def test_what_is_no_whole_report_is_refused(tmp_path, how):
    path = tmp_path / "report"
    as_report(torch.ones(2, 3, dtype=torch.bool)).save(path)
    assert mh.PruningReport.load(path).masks["a"].all()
    damaged(path, how)
    with pytest.raises(ValueError, match=r"report holds no whole pruning report.*report\.save"):
        mh.PruningReport.load(path)


def test_a_report_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        mh.PruningReport.load(tmp_path / "nowhere")
