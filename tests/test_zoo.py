"""Every causal class of transformers: right to the last digit, or refused by its right name."""

from __future__ import annotations

import functools
import re
import shutil
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import zoo
from conftest import SENTENCES, make_tokenizer
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

import mlprune_helpers as mh

EXACT, REFUSED, WRONG, CRASHED = "exact", "refused", "wrong", "crashed"
AT_LEAST_EXACT = 55

PROMPTS = [
    f"{SENTENCES[0]}\n{SENTENCES[1]}\nThe same? ",
    f"{SENTENCES[0]}\n{SENTENCES[3]}\nThe same? ",
    "Oui. ",
]
CHOICES = [["Yes", "No, not at all"], ["Yes", "No, not at all"], ["Non.", "Oui, oui"]]
CALIBRATION = [SENTENCES[6], SENTENCES[1], "Oui.", "A red house"]
DEMONSTRATIONS = "English: Good day.\nFrench: Bonjour.\n"
TO_TRANSLATE = ["Go.", "A", "No", "The cat sleeps on the old chair.", "Is it so?"]
NEW_TOKENS = 8
MARKS = r"\n|English:|French:"  # where a translation ends
NEAR = 1e-3  # two tokens whose logits differ by less may change places
SPARSITY = 0.5


@dataclass(frozen=True)
class Verdict:
    """What became of a specimen; ``problem`` is empty where nothing is amiss."""

    outcome: str
    message: str = ""
    problem: str = ""
    families: tuple[str, ...] = ()


@dataclass(frozen=True)
class Case:
    """A loaded model of the package beside the same weights in a plain one."""

    lm: mh.LanguageModel
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.tokenizer(text)["input_ids"] for text in texts]


def scores_differ(case: Case) -> str:
    scores = mh.score_choices(case.lm, PROMPTS, CHOICES)
    for i, (prompt, choices) in enumerate(zip(PROMPTS, CHOICES, strict=True)):
        for j, ids in enumerate(case.ids([prompt + choice for choice in choices])):
            right = zoo.plain_score(case.model, ids)
            if not np.isclose(scores[i, j], right, rtol=1e-4, atol=2e-4):
                return f"choice {j} of prompt {i} scores {scores[i, j]:.4f}, not {right:.4f}"
    return ""


def translations_differ(case: Case) -> str:
    outputs = mh.translate(
        case.lm, TO_TRANSLATE, "en", "fr", DEMONSTRATIONS, max_new_tokens=NEW_TOKENS
    )
    prompts = [f"{DEMONSTRATIONS}English: {sentence}\nFrench:" for sentence in TO_TRANSLATE]
    for ids, output in zip(case.ids(prompts), outputs, strict=True):
        written = zoo.plain_continuation(
            case.model, ids, NEW_TOKENS, lambda new: new[-1] == case.tokenizer.eos_token_id
        )
        text = case.tokenizer.decode(written.ids, skip_special_tokens=True)
        right = re.split(MARKS, text)[0].strip()
        if output != right and written.gap > NEAR:
            return f"a translation is {output!r}, not {right!r}"
    return ""


def statistics_differ(case: Case) -> str:
    stats = mh.collect_activations(case.lm, CALIBRATION)
    seen = zoo.plain_statistics(case.model, case.ids(CALIBRATION))
    if stats.inputs.keys() != seen.inputs.keys():
        return f"other matrices: {sorted(stats.inputs.keys() ^ seen.inputs.keys())[:3]}"
    hidden = np.stack([seen.hidden[layer].sqrt() for layer in sorted(seen.hidden)])
    if stats.hidden.shape != hidden.shape or not _near(stats.hidden, hidden):
        return "norms of hidden states differ"
    wrong = [n for n, s in seen.inputs.items() if not _near(stats.inputs[n], s.sqrt().numpy())]
    return f"norms of inputs differ, first of {wrong[0]}" if wrong else ""


def masks_differ(case: Case) -> str:
    report = mh.prune(case.lm, CALIBRATION, method="wanda", sparsity=SPARSITY)
    masks = {name: np.asarray(mask) for name, mask in report.masks.items()}
    wrong = zoo.misplaced(case.model, case.ids(CALIBRATION), masks, SPARSITY, tolerance=1e-3)
    return f"masks differ, first of {wrong[0]}" if wrong else ""


def _near(values: np.ndarray, right: np.ndarray) -> bool:
    return np.allclose(values, right, rtol=2e-3, atol=1e-4 * right.max())


CHECKS: list[Callable[[Case], str]] = [
    scores_differ,
    translations_differ,
    statistics_differ,
    masks_differ,  # last, for it prunes both models
]


@pytest.fixture(scope="session")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Callable[[zoo.Specimen], Verdict]:
    """A function: specimen → verdict, worked out once."""
    tokenizer = make_tokenizer(bos=True)

    @functools.cache
    def judged(specimen: zoo.Specimen) -> Verdict:
        folder = tmp_path_factory.mktemp("checkpoint")  # a name that says nothing of the model
        families = tuple(sorted(zoo.families(zoo.save_specimen(specimen, tokenizer, folder))))
        found = verdict(folder, tokenizer, families)
        shutil.rmtree(folder)
        return found

    return judged


def verdict(folder: Path, tokenizer: PreTrainedTokenizerBase, families: tuple[str, ...]) -> Verdict:
    try:
        lm = mh.load_model(str(folder), device="cpu")
    except mh.ModelError as error:
        message = str(error).replace(str(folder), "")
        return Verdict(REFUSED, message, wrong_cause(message, families), families)
    except Exception:
        return Verdict(CRASHED, _last_line(), "no ModelError at loading", families)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    for check in CHECKS:
        try:
            if problem := check(Case(lm, model, tokenizer)):
                return Verdict(WRONG, "", problem, families)
        except Exception:
            return Verdict(CRASHED, _last_line(), f"{check.__name__} raised", families)
    return Verdict(EXACT, "", "", families)


def _last_line() -> str:
    return traceback.format_exc().strip().splitlines()[-1][:300]


def wrong_cause(message: str, families: Sequence[str]) -> str:
    """Empty where a refusal names a family of the model and none that it is not of."""
    own = {word for family in families for word in zoo.WORDS[family]}
    prose = re.sub(r"\w+(?:[._]\w+)+", "", message).lower()  # names of modules accuse no one
    accused = {
        family
        for family, words in zoo.WORDS.items()
        if family not in families and any(word in prose for word in set(words) - own)
    }
    if accused - ({"encoder"} if "composite" in families else set()):  # a tower is an encoder
        return f"called {', '.join(sorted(accused))}"
    if own and not any(word in message.lower() for word in own):
        return f"not called {' or '.join(families)}"
    return "" if message.strip() else "an empty message"


@pytest.mark.parametrize("specimen", zoo.SPECIMENS, ids=lambda specimen: specimen.name)
def test_exact_or_refused_by_its_right_name(specimen, judge):
    found = judge(specimen)
    assert not found.problem, f"{found.outcome}: {found.problem}. {found.message}"


def test_a_checkpoint_that_claims_quantised_weights_is_refused_as_such(tmp_path):
    zoo.save_specimen(zoo.Specimen("llama"), make_tokenizer(), tmp_path)
    zoo.claim_quantised(tmp_path)
    with pytest.raises(mh.ModelError, match="quanti[sz]ed"):
        mh.load_model(str(tmp_path), device="cpu")


def test_most_plain_decoders_are_exact_and_none_is_wrong(judge):
    verdicts = {specimen: judge(specimen) for specimen in zoo.SPECIMENS}
    print(table(verdicts))
    classes = {s.class_name for s, v in verdicts.items() if v.outcome == EXACT}
    wrong = [s.name for s, v in verdicts.items() if v.outcome in (WRONG, CRASHED)]
    assert len(classes) >= AT_LEAST_EXACT
    assert not wrong


def table(verdicts: dict[zoo.Specimen, Verdict]) -> str:
    """Counts, then a line for each specimen."""
    outcomes = Counter(found.outcome for found in verdicts.values())
    lines = [", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common())]
    for specimen, found in verdicts.items():
        told = "; ".join(part for part in (found.problem, found.message) if part)
        kind = "+".join(found.families) or "plain"
        lines.append(f"{found.outcome:8} {kind:18} {specimen.name:32} {told[:160]}")
    return "\n".join(lines)


def test_masks_from_dense_inputs_would_be_noticed(tmp_path):
    case = one_case(tmp_path)
    report = mh.prune(case.lm, CALIBRATION, sparsity=SPARSITY, propagate_error=False)
    masks = {name: np.asarray(mask) for name, mask in report.masks.items()}
    wrong = zoo.misplaced(case.model, case.ids(CALIBRATION), masks, SPARSITY, tolerance=1e-3)
    assert wrong and not any(name.startswith("model.layers.0.") for name in wrong)


def test_statistics_of_the_zoo_are_those_of_the_hidden_states_that_the_model_gives(tmp_path):
    case = one_case(tmp_path)
    (ids,) = case.ids(CALIBRATION[:1])
    given = case.model(torch.tensor([ids]), output_hidden_states=True).hidden_states
    seen = zoo.plain_statistics(case.model, [ids]).hidden
    for layer in range(zoo.BLOCKS):  # the last one that it gives is after the final norm
        squares = given[layer][0].double().square().sum(dim=0)
        torch.testing.assert_close(seen[layer], squares, rtol=1e-5, atol=1e-6)


def one_case(folder: Path) -> Case:
    tokenizer = make_tokenizer(bos=True)
    model = zoo.save_specimen(zoo.Specimen("llama"), tokenizer, folder)
    return Case(mh.load_model(str(folder), device="cpu"), model, tokenizer)


def test_the_zoo_holds_every_class_that_can_be_built():
    names = {specimen.model_type for specimen in zoo.SPECIMENS}
    missing = set(zoo.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) - names - set(zoo.UNBUILDABLE)
    assert missing == {"gpt-sw3"}, "gpt-sw3 is GPT-2's configuration under another name"
