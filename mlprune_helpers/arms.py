"""The arms of the book's comparisons: what each of them prunes with.

An arm is one way of pruning.  All arms with calibration data see the same sentences in the same
division into prompts, so that two arms differ in nothing but what their names say.  What goes with
the name differs too: a prompt in one language has half the tokens, and where several languages are
pooled, English alone has its sentences once and not once a language.  Neither changes the scale on
which weights of a row are compared, but fewer tokens make noisier norms.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .data.sources import load_code
from .prompts import build_demonstrations
from .pruning.methods import METHODS
from .runs.parameters import ARMS

if TYPE_CHECKING:
    from datasets import Dataset

#: What each arm is, in words: for legends, tables and the text of chapters.
ARM_DESCRIPTIONS = {
    "translation": "demonstrations of translation into English",
    "mismatched": "the same sentences in both languages, paired with wrong partners",
    "blocks": "the same sentences, first all of one language, then all of English",
    "monolingual": "the same sentences in the other languages, without English",
    "english": "their English translations alone",
    "refined": "demonstrations of translation, contrasted with program code",
    "magnitude": "no data: the smallest weights go",
    "random": "no data: any weights go",
}

#: How the demonstrations of an arm are built: whether English is the target, and the pairing.
_FORMS: dict[str, tuple[str | None, str]] = {
    "translation": ("en", "aligned"),
    "mismatched": ("en", "mismatched"),
    "blocks": ("en", "blocks"),
    "monolingual": (None, "aligned"),
    "english": (None, "aligned"),
    "refined": ("en", "aligned"),
}


def arm_settings(
    arm: str,
    dev: Dataset,
    languages: Sequence[str],
    *,
    n_prompts: int = 16,
    shots: int = 4,
    seed: int = 0,
    draw: int = 0,
    separator: str = "\n",
) -> dict[str, Any]:
    """What to call ``prune`` with for an arm, sparsity apart.

    Args:
        arm: ``"translation"``, ``"mismatched"``, ``"blocks"``, ``"monolingual"``, ``"english"``,
            ``"refined"``, ``"magnitude"``, ``"random"``, or a name in ``METHODS``, which then gets
            the translation prompts.
        dev: Parallel sentences, from :func:`load_parallel`; English among their languages.
        languages: Codes of the languages other than English.  Each gives as many prompts, so one
            language is one pair, as in the published code, and several are pooled.
        n_prompts: Prompts of each language.
        shots: Sentences, or pairs, a prompt.
        seed: Draws the sentences, and what ``"random"`` prunes.
        draw: Which draw of sentences: 0, 1, … share no sentence while the supply lasts.
        separator: After each sentence.

    Returns:
        Keyword arguments of ``prune``: ``method``, ``seed``, and where they are needed
        ``calibration`` and ``contrast``, both lists of prompts.

    Raises:
        ValueError: For an unknown arm, or no language other than English.
    """
    others = [language for language in languages if language != "en"]
    if not others:
        raise ValueError(f"languages are {list(languages)!r}; needed: one other than English.")
    if arm not in _FORMS and arm not in METHODS:
        known = list(dict.fromkeys([*ARMS, *METHODS]))
        raise ValueError(
            f"arm is {arm!r}; allowed: {', '.join(known)}. A method of your own is an arm once it "
            "is in METHODS."
        )
    method = "refined" if arm == "refined" else "wanda" if arm in _FORMS else arm
    settings: dict[str, Any] = {"method": method, "seed": seed + draw}
    if METHODS[method].corpora:
        sources = ["en"] if arm == "english" else others
        target, pairing = _FORMS.get(arm, _FORMS["translation"])
        form = {"shots": shots, "pairing": pairing, "seed": seed, "separator": separator}
        settings["calibration"] = []
        for source in sources:
            settings["calibration"] += _drawn(dev, source, target, n_prompts, draw, form)
    if "contrast" in METHODS[method].corpora:
        settings["contrast"] = load_code()[: len(settings["calibration"])]
    return settings


def _drawn(
    dev: Dataset,
    source: str,
    target: str | None,
    n_prompts: int,
    draw: int,
    form: dict[str, Any],
) -> list[str]:
    """The prompts of one draw: those that come after the prompts of the draws before it."""
    in_pairs = n_prompts + n_prompts % 2  # mismatched partners are swapped within pairs of prompts
    n_so_far = (draw + 1) * in_pairs
    prompts = build_demonstrations(dev, source, target, n_prompts=n_so_far, **form)
    return prompts[draw * in_pairs :][:n_prompts]
