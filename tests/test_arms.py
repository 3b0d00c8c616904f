"""What the arms of the chapters prune with."""

import pytest
from datasets import Dataset

import mlprune_helpers as mh
from mlprune_helpers.arms import ARM_DESCRIPTIONS
from mlprune_helpers.pruning.methods import Method
from mlprune_helpers.runs.parameters import ARMS

N = 40


@pytest.fixture
def dev() -> Dataset:
    """Sentences that say which they are, in three languages."""
    columns = {code: [f"<{code}{n}>" for n in range(N)] for code in ("en", "fr", "es")}
    return Dataset.from_dict({"id": [str(n) for n in range(N)], **columns})


def sentences(prompts, code) -> set[str]:
    return {f"{n}" for n in range(N) for prompt in prompts if f"<{code}{n}>" in prompt}


def settings(arm, dev, languages=("fr", "es"), **options):
    return mh.arm_settings(arm, dev, languages, **{"n_prompts": 4, "shots": 2, **options})


def test_every_arm_is_described_and_works(dev):
    assert set(ARM_DESCRIPTIONS) == set(ARMS)
    for arm in ARMS:
        chosen = settings(arm, dev)
        assert chosen["method"] in mh.METHODS
        assert ("calibration" in chosen) == (arm not in ("magnitude", "random"))
        assert ("contrast" in chosen) == (arm == "refined")


def test_arms_differ_in_form_and_not_in_sentences(dev):
    translation = settings("translation", dev)["calibration"]
    for arm in ("mismatched", "blocks", "monolingual", "english"):
        prompts = settings(arm, dev)["calibration"]
        for code in ("en", "fr", "es"):
            found = sentences(prompts, code)
            silent = {"english": {"fr", "es"}, "monolingual": {"en"}}.get(arm, set())
            assert found == (set() if code in silent else sentences(translation, code)), arm


def test_mismatched_pairs_are_no_translations(dev):
    for prompt in settings("mismatched", dev)["calibration"]:
        assert not any(f"<fr{n}>" in prompt and f"<en{n}>" in prompt for n in range(N))


@pytest.mark.parametrize("n_prompts", [3, 4])
def test_draws_share_no_sentence(dev, n_prompts):
    for arm in ("translation", "mismatched"):
        draws = [
            settings(arm, dev, ["fr"], n_prompts=n_prompts, draw=draw)["calibration"]
            for draw in (0, 1)
        ]
        assert [len(prompts) for prompts in draws] == [n_prompts, n_prompts]
        assert not sentences(draws[0], "fr") & sentences(draws[1], "fr")


def test_a_method_of_ones_own_is_an_arm(dev, monkeypatch):
    monkeypatch.setitem(mh.METHODS, "mine", Method(mh.wanda_score))
    assert settings("mine", dev)["method"] == "mine"
    assert settings("mine", dev)["calibration"] == settings("translation", dev)["calibration"]


def test_what_is_no_arm_is_refused(dev):
    with pytest.raises(ValueError, match="arm is 'translated'; allowed: translation"):
        settings("translated", dev)
    with pytest.raises(ValueError, match="one other than English"):
        settings("translation", dev, ["en"])
