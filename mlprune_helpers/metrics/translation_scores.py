"""How good translations are, by sacrebleu; two systems compared; outputs that are no attempt."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import pandas as pd
import sacrebleu
from sacrebleu.metrics.base import Metric

from .checks import as_references, as_texts, check_as_many, check_whole_number
from .flips import kept_units
from .p_values import smallest_p_value

#: BLEU's tokenizer by language code, where 13a does not find the words: it needs spaces between
#: them, and punctuation of ASCII.
TOKENIZERS = {
    **dict.fromkeys(("zh", "zho", "chi", "cmn", "yue", "wuu"), "zh"),
    **dict.fromkeys(("ja", "jpn", "ko", "kor", "th", "tha", "lo", "lao"), "char"),
    **dict.fromkeys(("my", "mya", "bur", "km", "khm", "bo", "bod", "tib", "dz", "dzo"), "char"),
    **dict.fromkeys(("hi", "hin", "ur", "urd", "ar", "ara", "arb"), "intl"),
}

#: Scores (n,) from the summed statistics of n corpora (n, n_statistics), in sacrebleu's order.
_Scores = Callable[[np.ndarray], np.ndarray]


def translation_quality(
    hypotheses: Collection[str], references: Collection[str], target: str
) -> dict[str, Any]:
    """Corpus BLEU and chrF++ by sacrebleu, with 95 % bootstrap intervals and signatures.

    Args:
        hypotheses: (n,) translations; a blank one is a translation that says nothing.
        references: (n,) what they should be, in the same order.
        target: Code of the language they are in, two or three lowercase letters.  It chooses BLEU's
            tokenizer: :data:`TOKENIZERS` has the languages that need one of their own; any other
            code gets sacrebleu's 13a, for words between spaces.

    Returns:
        For ``bleu`` and ``chrf`` each the score (0 to 100), ``…_low`` and ``…_high``,
        ``…_signature``, and ``…_floor``: the score of the same hypotheses against wrong references,
        for each sentence the next that differs (NaN where all references are alike).

    Raises:
        TypeError: A text stands for a list of texts.
        ValueError: Lengths differ or are 0, an element is no text, a reference is blank, or
            ``target`` is no language code.
    """
    translations, right = as_texts(hypotheses, "hypotheses"), as_references(references)
    check_as_many(hypotheses=translations, references=right)
    metrics = {"bleu": _bleu(target), "chrf": _ResampledCHRF(word_order=2)}
    quality: dict[str, Any] = {}
    for name, metric in metrics.items():
        quality[f"{name}_floor"] = _floor(metric, translations, right)
        quality |= _score_and_interval(name, metric, translations, right)
    return quality


def compare_translations(
    before: Collection[str],
    after: Collection[str],
    references: Collection[str],
    target: str,
    *,
    n_resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """BLEU and chrF++ of two systems on the same sentences, with paired randomisation.

    If nothing but chance told the systems apart, the two outputs of each sentence could as well be
    swapped.  The p-value is the share of random swaps after which the corpus scores differ at least
    as much as they do; ties count, and so do the data themselves, so its error rate holds at any
    number of sentences (approximate randomisation: Noreen 1989; Riezler and Maxwell 2005,
    W05-0908).

    Args:
        before: (n,) translations of one system; a blank one is a translation that says nothing.
        after: (n,) translations of the other.
        references: (n,) what they should be, in the same order.
        target: Code of the language they are in, see :func:`translation_quality`.
        n_resamples: How many random swaps; all 2 ** n patterns, where those are no more.
        seed: Of the random draws.

    Returns:
        A row each for ``bleu`` and ``chrf``, with the columns ``metric``, ``before``, ``after``,
        ``p_value`` and ``signature`` (sacrebleu's, of the scores).  The p-value is two-sided, and
        at least :func:`smallest_p_value` of the sentences.

    Raises:
        TypeError: A text stands for a list of texts.
        ValueError: Lengths differ or are 0, an element is no text, a reference is blank, ``target``
            is no language code, ``n_resamples`` is not at least 1, or ``seed`` is negative.
    """
    first, second = as_texts(before, "before"), as_texts(after, "after")
    right = as_references(references)
    check_as_many(hypotheses=first, references=right)
    check_as_many(hypotheses=second, references=right)
    check_whole_number(n_resamples, "n_resamples", at_least=1)
    check_whole_number(seed, "seed", at_least=0)
    metrics: dict[str, tuple[Metric, _Scores]] = {
        "bleu": (_bleu(target), _bleu_scores),
        "chrf": (sacrebleu.CHRF(word_order=2), _chrf_scores),
    }
    rows = []
    for name, (metric, scores) in metrics.items():
        score_before, of_before = _score_and_statistics(metric, scores, first, right)
        score_after, of_after = _score_and_statistics(metric, scores, second, right)
        p_value = _randomisation_p_value(scores, of_before, of_after, n_resamples, seed)
        rows.append((name, score_before, score_after, p_value, str(metric.get_signature())))
    return pd.DataFrame(rows, columns=["metric", "before", "after", "p_value", "signature"])


def degenerate_outputs(
    texts: Collection[str], sources: Collection[str] | None = None
) -> dict[str, int]:
    """How many texts are not even an attempt.

    Args:
        texts: (n,) what a model wrote.
        sources: (n,) what it was to translate.  Default: nothing counts as copied.

    Returns:
        ``empty``: blank; ``copied``: the source itself; ``repeated``: three or more characters,
        four times over.

    Raises:
        TypeError: A text stands for a list of texts.
        ValueError: Lengths differ or are 0, or an element is no text.
    """
    written = as_texts(texts, "texts")
    if not written:
        raise ValueError("texts is empty; at least one text is needed.")
    copied = 0
    if sources is not None:
        originals = as_texts(sources, "sources")
        check_as_many(texts=written, sources=originals)
        copied = sum(map(_is_copy, written, originals))
    return {
        "empty": sum(not text.strip() for text in written),
        "copied": copied,
        "repeated": sum(_repeats_itself(text) for text in written),
    }


class _ResampledCHRF(sacrebleu.CHRF):
    """chrF whose resampled scores are all of one type.

    sacrebleu resamples in float32 but gives a resample without a match the Python float 0.0, and
    `statistics.mean`, by which it makes its interval, has no mean of both.
    """

    def _compute_f_score(self, statistics: Any) -> float:
        score = super()._compute_f_score(statistics)
        return statistics.dtype.type(score) if isinstance(statistics, np.ndarray) else score


def _bleu(target: str) -> sacrebleu.BLEU:
    """BLEU with the tokenizer of a language."""
    if not isinstance(target, str) or not re.fullmatch("[a-z]{2,3}", target):
        raise ValueError(
            f"target is {target!r}; a language code is needed, two or three lowercase letters, "
            "such as 'fr' or 'zh'."
        )
    return sacrebleu.BLEU(tokenize=TOKENIZERS.get(target, "13a"))


def _score_and_statistics(
    metric: Metric, scores: _Scores, hypotheses: list[str], references: list[str]
) -> tuple[float, np.ndarray]:
    """sacrebleu's corpus score, and its statistics of each sentence (n, n_statistics).

    ``scores`` has the metric's formula once more, for many corpora at a time; here it has to give
    what sacrebleu gives, so that a formula that changed there cannot go on here unseen.
    """
    score = metric.corpus_score(hypotheses, [references]).score
    statistics = metric._extract_corpus_statistics(hypotheses, [references])
    of_sentences = np.array(statistics, dtype=float)
    own = scores(of_sentences.sum(axis=0, keepdims=True))[0]
    if not np.isclose(own, score, rtol=1e-9, atol=1e-9):
        raise RuntimeError(
            f"sacrebleu {sacrebleu.__version__} scores {score}, this package {own}: their formulas "
            f"of {type(metric).__name__} differ. Use another version of sacrebleu, such as 2.6."
        )
    return score, of_sentences


def _randomisation_p_value(
    scores: _Scores, before: np.ndarray, after: np.ndarray, n_resamples: int, seed: int
) -> float:
    """Share of swaps after which the scores differ at least as much; see compare_translations.

    ``before`` and ``after`` are the statistics of each sentence, (n, n_statistics).
    """
    observed = abs(scores(after.sum(axis=0)[None]) - scores(before.sum(axis=0)[None]))
    n_swaps, n_extreme = 0, 0
    for kept in kept_units(len(before), n_resamples, seed):
        of_one = kept @ before + (1 - kept) @ after
        of_other = kept @ after + (1 - kept) @ before
        differences = np.abs(scores(of_one) - scores(of_other))
        n_swaps += len(kept)
        n_extreme += int((differences >= observed - 1e-9).sum())  # ties, but for rounding
    return max(n_extreme / n_swaps, smallest_p_value(len(before), n_resamples))


def _bleu_scores(statistics: np.ndarray) -> np.ndarray:
    """BLEU of corpora (n,), as sacrebleu's ``compute_bleu`` with its exponential smoothing.

    Statistics (n, 10) are lengths of hypotheses and references, then matches of 1- to 4-grams, then
    counts of 1- to 4-grams.  A corpus without a match, or without any 4-gram, scores 0.
    """
    hypothesis_length, reference_length = statistics[:, 0], statistics[:, 1]
    n_matches, n_grams = statistics[:, 2:6], statistics[:, 6:10]
    # Each order without a match counts half as much as the one before.
    smoothed = 0.5 ** np.cumsum(n_matches == 0, axis=1)
    precisions = np.where(n_matches > 0, n_matches, smoothed) / np.maximum(n_grams, 1)
    shortage = np.maximum(reference_length / np.maximum(hypothesis_length, 1) - 1, 0)
    scores = 100 * np.exp(np.log(precisions).mean(axis=1) - shortage)
    is_defined = (n_matches > 0).any(axis=1) & (n_grams > 0).all(axis=1)
    return np.where(is_defined, scores, 0.0)


def _chrf_scores(statistics: np.ndarray) -> np.ndarray:
    """chrF of corpora (n,) with recall twice as weighty, as sacrebleu's ``_compute_f_score``.

    Statistics (n, 3 n_orders) are, of each order of n-grams, the counts in the hypotheses, in the
    references, and in both.  Orders that one side has none of are left out of the means.
    """
    in_hypotheses, in_references, in_both = statistics.reshape(len(statistics), -1, 3).T
    counted = (in_hypotheses > 0) & (in_references > 0)
    n_orders = np.maximum(counted.sum(axis=0), 1)
    precision = (counted * in_both / np.maximum(in_hypotheses, 1)).sum(axis=0) / n_orders
    recall = (counted * in_both / np.maximum(in_references, 1)).sum(axis=0) / n_orders
    weighted = 4 * precision + recall
    return 100 * 5 * precision * recall / np.where(weighted > 0, weighted, 1)


def _score_and_interval(
    name: str, metric: Metric, hypotheses: list[str], references: list[str]
) -> dict[str, float | str]:
    """A metric's score, its interval and its signature, by their names in the results."""
    score = metric.corpus_score(hypotheses, [references], n_bootstrap=1000)
    # Mean and half-width reach beyond the scale where resamples differ much, as when half failed.
    low = max(0.0, score._mean - score._ci)
    high = min(score._mean + score._ci, max(100.0, score.score))
    return {
        name: score.score,
        f"{name}_low": float(low),
        f"{name}_high": float(high),
        f"{name}_signature": str(metric.get_signature()),
    }


def _floor(metric: Metric, hypotheses: list[str], references: list[str]) -> float:
    """Score against the references of other sentences; NaN where there are no others."""
    if len(set(references)) == 1:
        return float("nan")
    n = len(references)
    wrong = []
    for place, reference in enumerate(references):
        following = place + 1
        while references[following % n] == reference:
            following += 1
        wrong.append(references[following % n])
    return metric.corpus_score(hypotheses, [wrong]).score


def _is_copy(text: str, source: str) -> bool:
    """Whether a text says what its source says, but for space around it."""
    return bool(text.strip()) and text.strip() == source.strip()


def _repeats_itself(text: str) -> bool:
    """Whether three or more characters stand four times in a row."""
    return re.search(r"(\S.{2,}?)(\s*\1){3}", text) is not None
