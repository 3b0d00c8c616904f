"""Methods of the reader's own, and the registry."""

import functools
import json

import numpy as np
import pytest
import torch
from pruning_oracles import CODE, assert_untouched, stable_oracle, upright, weights_of

import mlprune_helpers as mh
from mlprune_helpers.pruning.methods import METHODS, Method
from mlprune_helpers.pruning.statistics import STATISTICS


@pytest.fixture(autouse=True)
def registry():
    """What a test puts in goes out again."""
    kept = dict(METHODS)
    yield
    METHODS.clear()
    METHODS.update(kept)


def inputs_of(lm, prompts):
    """{name: inputs (n_tokens, in_features)} as numpy has them, one prompt at a time."""
    seen = {name: [] for name in lm.prunable}
    handles = []
    for name, module in lm.prunable.items():

        def hook(module, args, output, name=name):
            seen[name].append(args[0].detach().reshape(-1, args[0].shape[-1]).double().numpy())

        handles.append(module.register_forward_hook(hook))
    for prompt in prompts:
        with torch.no_grad():
            lm.model(torch.tensor([lm.tokenizer(prompt)["input_ids"]]))
    for handle in handles:
        handle.remove()
    return {name: np.concatenate(rows) for name, rows in seen.items()}


def lowest_of(lm, score, sparsity):
    """{name: mask} of ``score(name, |weight|)``, by plain sorting."""
    masks = {}
    for name, module in lm.prunable.items():
        values = score(name, upright(module).abs().double().numpy())
        masks[name] = stable_oracle(values, int(sparsity * values.shape[1] + 1e-9))
    return masks


def assert_masks(got, expected, allowed=2):
    """Equal but for a swap in a matrix, where rounding decides."""
    for name, mask in expected.items():
        assert (got[name].numpy() != mask).sum() <= allowed, name


# -- two lines -----------------------------------------------------------------------------------


def test_a_score_of_mean_and_deviation_takes_two_lines(architecture, load, prompts):
    def my_score(weight, input_mean, input_std):
        return weight.abs() * (input_mean.abs() + input_std)

    METHODS["mine"] = my_score
    x = inputs_of(load(architecture), prompts)
    expected = lowest_of(
        load(architecture),
        lambda name, w: w * (abs(x[name].mean(axis=0)) + x[name].std(axis=0)),
        0.4,
    )
    lm = load(architecture)
    report = mh.prune(lm, prompts, method="mine", sparsity=0.4, propagate_error=False)
    assert_masks(report.masks, expected)
    for name, module in lm.prunable.items():
        assert (upright(module)[report.masks[name]] == 0).all()
    propagated = mh.prune(load(architecture), prompts, method="mine", sparsity=0.4).masks
    assert any((propagated[name].numpy() != expected[name]).any() for name in expected)


def test_a_score_with_a_contrast(load, prompts):
    METHODS["away"] = lambda weight, input_norm, contrast_mean, contrast_std: (
        weight.abs() * (input_norm / (contrast_mean.abs() + contrast_std))
    )
    x, c = inputs_of(load("gpt2"), prompts), inputs_of(load("gpt2"), CODE)

    def oracle(name, w):
        contrast = abs(c[name].mean(axis=0)) + c[name].std(axis=0)
        return w * np.linalg.norm(x[name], axis=0) / contrast

    report = mh.prune(load("gpt2"), prompts, method="away", contrast=CODE, propagate_error=False)
    assert_masks(report.masks, lowest_of(load("gpt2"), oracle, 0.3))
    assert report.settings["contrast"] is not None
    with pytest.raises(ValueError, match="contrast is missing.*away"):
        mh.prune(load("gpt2"), prompts, method="away")
    with pytest.raises(ValueError, match="contrast goes with .*refined, away.*'wanda' does not"):
        mh.prune(load("gpt2"), prompts, contrast=CODE)


def test_a_score_of_the_contrast_alone_needs_no_calibration(load):
    METHODS["only"] = lambda weight, contrast_norm: weight.abs() * contrast_norm
    only = mh.prune(load("llama"), method="only", contrast=CODE).masks
    wanda = mh.prune(load("llama"), CODE).masks
    assert all(torch.equal(only[name], wanda[name]) for name in wanda)


def test_parts_of_a_corpus_count_the_same_in_a_mean(load, prompts):
    METHODS["mean"] = lambda weight, input_mean: weight.abs() * input_mean.abs()
    parts = {"a": prompts[:1], "b": prompts[1:]}
    x = {name: inputs_of(load("llama"), part) for name, part in parts.items()}
    expected = lowest_of(
        load("llama"),
        lambda name, w: w * abs(x["a"][name].mean(axis=0) + x["b"][name].mean(axis=0)),
        0.3,
    )
    got = mh.prune(load("llama"), parts, method="mean", propagate_error=False).masks
    assert_masks(got, expected)


def test_a_generator_is_seeded(load):
    METHODS["mine"] = lambda w, generator: torch.rand(w.shape, generator=generator)
    for seed in (0, 1):
        mine = mh.prune(load("llama"), method="mine", seed=seed)
        random = mh.prune(load("llama"), method="random", seed=seed)
        assert mine.fingerprint_after == random.fingerprint_after


def test_products_come_to_a_score_too(load, prompts):
    METHODS["mine"] = lambda weight, products: weight.abs() * products.diagonal().sqrt()
    mine = mh.prune(load("llama"), prompts, method="mine", propagate_error=False).masks
    wanda = mh.prune(load("llama"), prompts, propagate_error=False).masks
    assert_masks(mine, {name: mask.numpy() for name, mask in wanda.items()})
    stats = mh.collect_activations(load("llama"), prompts)
    with pytest.raises(ValueError, match="'mine' needs products.*pass prompts"):
        mh.prune(load("llama"), stats, method="mine", propagate_error=False)


def test_a_statistic_of_the_readers_own(load, prompts, monkeypatch):
    monkeypatch.setitem(STATISTICS, "rms", lambda count, squares: (squares / count).sqrt())
    METHODS["mine"] = lambda weight, input_rms: weight.abs() * input_rms
    mine = mh.prune(load("llama"), prompts, method="mine", propagate_error=False).masks
    wanda = mh.prune(load("llama"), prompts, propagate_error=False).masks
    assert_masks(mine, {name: mask.numpy() for name, mask in wanda.items()})


@pytest.mark.parametrize("group", ["matrix", "model", "2:4"])
def test_own_scores_have_all_groups_and_patterns(load, prompts, group):
    settings = dict(sparsity="2:4") if group == "2:4" else dict(group=group, sparsity=0.3)
    METHODS["mine"] = lambda weight, input_norm: weight.abs() * input_norm
    settings |= dict(propagate_error=False)
    mine = mh.prune(load("llama"), prompts, method="mine", **settings)
    wanda = mh.prune(load("llama"), prompts, **settings)
    assert mine.fingerprint_after == wanda.fingerprint_after


def test_a_solver_of_the_readers_own(load, prompts):
    def doubled(weight, input_norm, sparsity):
        mask = mh.unstructured_mask(weight.abs() * input_norm, sparsity)
        return mask, 2 * weight  # what is pruned is zeroed for it

    METHODS["doubled"] = Method(solve=doubled)
    lm, plain = load("gpt2"), load("gpt2")
    report = mh.prune(lm, prompts, method="doubled", propagate_error=False)
    mh.prune(plain, prompts, propagate_error=False)
    for name, module in lm.prunable.items():
        assert torch.equal(upright(module), 2 * upright(plain.prunable[name]))
        assert (upright(module)[report.masks[name]] == 0).all()
    with pytest.raises(ValueError, match="model.*doubled"):
        mh.prune(load("gpt2"), prompts, method="doubled", group="model", propagate_error=False)


# -- no name is special --------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_a_method_works_the_same_under_another_name(load, prompts, method):
    METHODS["other"] = METHODS[method]
    contrast = CODE if "contrast" in METHODS[method].corpora else None
    first, again = (
        mh.prune(load("llama"), prompts, method=name, contrast=contrast)
        for name in (method, "other")
    )
    assert first.fingerprint_after == again.fingerprint_after
    assert first.settings == again.settings


def test_methods_say_what_they_need():
    needs = {name: (method.corpora, method.kinds) for name, method in METHODS.items()}
    assert needs == {
        "wanda": (("input",), ("squares",)),
        "ria": (("input",), ("squares",)),
        "magnitude": ((), ()),
        "refined": (("input", "contrast"), ("squares",)),
        "random": ((), ()),
        "sparsegpt": (("input",), ("products",)),
    }


# -- the registry --------------------------------------------------------------------------------


def test_the_registry_is_live(one_lm):
    with pytest.raises(ValueError, match="mine.*wanda"):
        mh.prune(one_lm, method="mine")
    METHODS.update(mine=mh.magnitude_score)
    assert "mine" in METHODS and isinstance(METHODS["mine"], Method)
    with pytest.raises(ValueError, match="mien.*mine"):
        mh.prune(one_lm, method="mien")
    assert mh.prune(one_lm, method="mine").method == "mine"
    del METHODS["mine"]
    with pytest.raises(ValueError, match="method is 'mine'"):
        mh.prune(one_lm, method="mine")


def test_options_are_set_by_partial_and_recorded(load, prompts):
    METHODS["ria-0"] = functools.partial(mh.ria_score, power=0.0)
    METHODS["by-hand"] = lambda weight, input_norm: mh.ria_score(weight, input_norm, 0.0)
    partial = mh.prune(load("llama"), prompts, method="ria-0")
    assert (
        partial.fingerprint_after
        == mh.prune(load("llama"), prompts, method="by-hand").fingerprint_after
    )
    assert partial.provenance()["options"] == {"power": 0.0}
    assert partial.provenance()["function"].endswith("scores.ria_score")
    assert mh.prune(load("llama"), prompts, method="ria").settings["options"] == {"power": 0.5}
    sparsegpt = mh.prune(load("llama"), prompts, method="sparsegpt").provenance()
    assert json.loads(json.dumps(sparsegpt))["options"] == {"damping": 0.01, "block": 128}


def test_functions_that_cannot_be_read_are_declared(load):
    with pytest.raises(TypeError, match=r"cannot be read.*needs="):
        METHODS["abs"] = torch.abs
    METHODS["abs"] = Method(torch.abs, needs=())
    mine = mh.prune(load("llama"), method="abs")
    assert mine.fingerprint_after == mh.prune(load("llama"), method="magnitude").fingerprint_after


def test_needs_are_passed_in_their_order(load, prompts):
    METHODS["mine"] = Method(lambda w, a, b: w.abs() * a**2 / b, needs=("input_norm", "input_std"))
    METHODS["read"] = lambda weight, input_std, input_norm: weight.abs() * input_norm**2 / input_std
    mine, read = (mh.prune(load("llama"), prompts, method=name) for name in ("mine", "read"))
    assert mine.fingerprint_after == read.fingerprint_after


@pytest.mark.parametrize(
    ("function", "error", "named"),
    [
        (lambda weight, input_norms: weight, ValueError, "input_norms.*allowed.*input_norm.*Did"),
        (lambda weight, x: weight, ValueError, "'x'.*products.*generator"),
        (lambda input_norm, weight: weight, ValueError, "first parameter .*input_norm.*weight"),
        (lambda: 0, ValueError, "first parameter .*missing"),
        ("wanda", TypeError, "function"),
        (None, TypeError, "function"),
    ],
)
def test_functions_that_ask_for_the_unknown_are_refused(function, error, named):
    with pytest.raises(error, match=named):
        METHODS["mine"] = function
    assert "mine" not in METHODS


def test_methods_that_are_declared_wrongly_are_refused():
    with pytest.raises(ValueError, match="'norm'.*input_norm"):
        Method(torch.mul, needs=("norm",))
    with pytest.raises(TypeError, match="tuple"):
        Method(torch.mul, needs="input_norm")
    with pytest.raises(TypeError, match="one function"):
        Method(mh.wanda_score, solve=mh.sparsegpt)
    with pytest.raises(TypeError, match="text"):
        METHODS[3] = mh.wanda_score


# -- what comes back -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("score", "named"),
    [
        (lambda weight: weight.abs().sum(0), r"shape \(32,\).*\(32, 32\)"),
        (lambda weight: weight.T.repeat(2, 1), r"shape \(64, 32\)"),
        (lambda weight: weight.log(), "NaN"),
        (lambda weight: weight > 0, "bool"),
        (lambda weight: None, "NoneType"),
        (lambda weight: weight.numpy(), "ndarray"),
    ],
)
def test_scores_that_are_none_are_refused(one_lm, score, named):
    METHODS["mine"] = score
    before = weights_of(one_lm)
    with pytest.raises(ValueError, match=f"q_proj.*'mine'.*{named}"):
        mh.prune(one_lm, method="mine")
    assert_untouched(one_lm, before)


@pytest.mark.parametrize(
    ("solve", "named"),
    [
        (lambda weight: (weight.abs() < 0.1, weight * float("inf")), "not finite|NaN"),
        (lambda weight: ((weight.abs() < 0.1).int(), weight), "int32"),
        (lambda weight: (weight.abs() < 0.1, weight[:3]), r"shape \(3, 32\)"),
    ],
)
def test_solutions_that_are_none_are_refused(one_lm, solve, named):
    METHODS["mine"] = Method(solve=solve)
    before = weights_of(one_lm)
    with pytest.raises(ValueError, match=f"q_proj.*({named})"):
        mh.prune(one_lm, method="mine")
    assert_untouched(one_lm, before)


def test_scores_that_compute_in_place_do_not_reach_the_model(load):
    METHODS["mine"] = lambda weight: weight.abs_()
    METHODS["solved"] = Method(solve=lambda weight: (weight.abs_() > 1, weight.neg_()))
    lm = load("llama")
    assert mh.prune(lm, method="mine").fingerprint_after == (
        mh.prune(load("llama"), method="magnitude").fingerprint_after
    )
    METHODS["fails"] = Method(solve=lambda weight: weight.zero_().no_such_thing)
    before = weights_of(lm)
    with pytest.raises(AttributeError):
        mh.prune(lm, method="fails")
    assert_untouched(lm, before)


def test_sums_that_matrices_share_stay_as_they_are(load, prompts):
    def damped_in_place(weight, products, sparsity):
        products.diagonal().add_(products.diagonal().mean())
        return mh.sparsegpt(weight, products, sparsity)

    def damped(weight, products, sparsity):
        return damped_in_place(weight, products.clone(), sparsity)

    METHODS.update(a=Method(solve=damped_in_place), b=Method(solve=damped))
    a, b = (mh.prune(load("llama"), prompts, method=name) for name in ("a", "b"))
    assert a.fingerprint_after == b.fingerprint_after
