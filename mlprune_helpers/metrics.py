"""Numbers from arrays: accuracy, agreement, calibrated scores, intervals, p-values, translation quality."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import sacrebleu
from sacrebleu.significance import PairedTest
from scipy.special import log_softmax, logsumexp, softmax

#: BLEU's tokenizer where 13a does not find the words: no spaces between words, or punctuation outside ASCII.
TOKENIZERS = {
    "zh": "zh",
    "ja": "char",
    "ko": "char",
    "th": "char",
    "my": "char",
    "hi": "intl",
    "ur": "intl",
    "ar": "intl",
}


def accuracy(predictions, labels) -> float:
    """Share of predictions that equal the label."""
    return float(np.mean(np.asarray(predictions) == np.asarray(labels)))


def macro_f1(predictions, labels, n_labels: int) -> float:
    """Mean over all labels of F1, 2 TP / (2 TP + FP + FN); 0 for a label neither predicted nor present."""
    predictions, labels = np.asarray(predictions), np.asarray(labels)
    hits = np.bincount(labels[predictions == labels], minlength=n_labels)
    total = np.bincount(predictions, minlength=n_labels) + np.bincount(labels, minlength=n_labels)
    return float(np.mean(2 * hits / np.maximum(total, 1)))


def batch_calibrated(log_likelihoods: np.ndarray) -> np.ndarray:
    """Log p(choice | row) - log mean p(choice): batch calibration (Zhou et al., arXiv 2309.17249).

    ``log_likelihoods`` (n, n_choices): sums over tokens.  It assumes that the labels of the batch are balanced.
    """
    log_p = log_softmax(np.asarray(log_likelihoods, dtype=float), axis=1)
    return log_p - (logsumexp(log_p, axis=0) - np.log(len(log_p)))


def contextual_calibrated(log_likelihoods: np.ndarray, content_free: np.ndarray) -> np.ndarray:
    """Log p(choice | row) - log p(choice | no content): contextual calibration (Zhao et al., arXiv 2102.09690).

    ``log_likelihoods`` (n, n_choices): sums over tokens.  ``content_free`` (m, n or 1, n_choices): those of m questions
    without content, whose probabilities are averaged.
    """
    prior = logsumexp(log_softmax(np.asarray(content_free, dtype=float), axis=-1), axis=0) - np.log(
        len(content_free)
    )
    return log_softmax(np.asarray(log_likelihoods, dtype=float), axis=1) - prior


def rank_consistency(
    scores_a: np.ndarray, scores_b: np.ndarray, *, per_row: bool = False
) -> float | np.ndarray:
    """RankC (Qi et al., arXiv 2310.10378): do two languages rank the choices alike?  1: everywhere.

    ``scores`` (n, n_choices) of the same examples in two languages, higher = likelier.  Ranks that stand further up
    weigh more (softmax of N - j).  ``per_row``: (n,), for paired comparisons.
    """
    scores_a, scores_b = np.asarray(scores_a), np.asarray(scores_b)
    if scores_a.shape != scores_b.shape or scores_a.ndim != 2:
        raise ValueError(
            f"Scores of the same examples are needed; these have the shapes {scores_a.shape} and {scores_b.shape}."
        )
    order_a, order_b = (
        np.argsort(-scores, axis=1, kind="stable") for scores in (scores_a, scores_b)
    )
    total = np.zeros(len(scores_a))
    for j, weight in enumerate(softmax(np.arange(scores_a.shape[1], 0, -1.0)), start=1):
        total += weight / j * (order_a[:, :j, None] == order_b[:, None, :j]).any(axis=2).sum(axis=1)
    return total if per_row else float(total.mean())


def rank_consistency_least_likely_first(scores_a: np.ndarray, scores_b: np.ndarray) -> float:
    """RankC as the code of arXiv 2409.16911 has it: sorted ascending, so the least likely choice weighs most."""
    return rank_consistency(-np.asarray(scores_a), -np.asarray(scores_b))


def rank_consistency_chance(n_choices: int) -> float:
    """Expected :func:`rank_consistency` of two independent random rankings."""
    return float(softmax(np.arange(n_choices, 0, -1.0)) @ np.arange(1, n_choices + 1) / n_choices)


@dataclass(frozen=True)
class Comparison:
    """``difference`` b - a with its 95 % interval and p-value, and how many rows and groups it rests on."""

    difference: float
    low: float
    high: float
    p_value: float
    n: int
    n_groups: int

    def __str__(self) -> str:
        interval = (
            f"95 % interval {100 * self.low:+.1f} to {100 * self.high:+.1f}, p = {self.p_value:.3f}"
        )
        return f"{100 * self.difference:+.1f} points ({interval}, {self.n} rows in {self.n_groups} groups)"


def paired_bootstrap(
    correct_a, correct_b, *, groups=None, strata=None, n_resamples: int = 10_000, seed: int = 0
) -> Comparison:
    """Difference of two means on the same rows, whole groups resampled.

    ``correct`` (n,): 1 or 0 a row (or any figure), in the same order.  ``groups`` (n,): rows that are not independent
    share a value: hypotheses of one premise, the same example in several languages (default: every row by itself).
    ``strata`` (n,): the language of each row; then a mean is the mean of the languages' means, and a group is drawn
    in all languages at once.  Percentile interval; p-value of a two-sided sign-flip permutation of whole groups.
    """
    a, b = np.asarray(correct_a, dtype=float), np.asarray(correct_b, dtype=float)
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise ValueError(
            f"Two equally long rows of numbers are needed; these have the shapes {a.shape} and {b.shape}."
        )
    sums, sizes = _by_group(b - a, groups, strata)
    n, rng, draws, flips = len(sums), np.random.default_rng(seed), [], []
    share = (sums / sizes.sum(axis=0)).mean(axis=1)  # what each group adds to the difference
    for k in range(0, n_resamples, 1000):  # in parts, so that memory does not grow with n_resamples
        size = min(1000, n_resamples - k)
        picks = rng.multinomial(n, np.full(n, 1 / n), size=size)
        with np.errstate(
            invalid="ignore"
        ):  # a stratum of which nothing was drawn is left out of that mean
            draws.append(np.nanmean((picks @ sums) / (picks @ sizes), axis=1))
        flips.append(rng.choice([-1.0, 1.0], size=(size, n)) @ share)
    low, high = np.quantile(np.concatenate(draws), [0.025, 0.975])
    p_value = (1 + (np.abs(np.concatenate(flips)) >= abs(share.sum()) - 1e-12).sum()) / (
        1 + n_resamples
    )
    return Comparison(float(share.sum()), float(low), float(high), float(p_value), len(a), n)


def bootstrap_interval(values, **options) -> tuple[float, float]:
    """95 % percentile interval of a mean; ``options`` as in :func:`paired_bootstrap`."""
    comparison = paired_bootstrap(np.zeros(len(values)), values, **options)
    return comparison.low, comparison.high


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Holm's step-down adjusted p-values, in the order given."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    return np.minimum(stepped, 1)[np.argsort(order)]


def translation_quality(hypotheses: Sequence[str], references: Sequence[str], target: str) -> dict:
    """Corpus BLEU and chrF++ by sacrebleu, with 95 % bootstrap intervals and signatures; ``target``: language code.

    ``…_floor``: the score of the same hypotheses against the references of the next sentences, which are wrong.
    ``translates``: whether chrF++ is at least twice its floor, a rule of thumb of this book (and 1: no output is no translation).
    """
    result, wrong = {}, [*references[1:], *references[:1]]
    for name, metric in _translation_metrics(target, references, hypotheses).items():
        result[f"{name}_floor"] = metric.corpus_score(list(hypotheses), [wrong]).score
        score = metric.corpus_score(list(hypotheses), [list(references)], n_bootstrap=1000)
        result |= {
            name: score.score,
            f"{name}_low": score._mean - score._ci,
            f"{name}_high": score._mean + score._ci,
        }
        result[f"{name}_signature"] = str(metric.get_signature())
    return result | {"translates": result["chrf"] >= max(1, 2 * result["chrf_floor"])}


def compare_translations(
    before, after, references, target: str, *, n_resamples: int = 1000
) -> pd.DataFrame:
    """BLEU and chrF++ of two systems on the same sentences, a row each, with sacrebleu's paired-bootstrap p-value."""
    metrics = _translation_metrics(target, references, before, after)
    systems = [("before", list(before)), ("after", list(after))]
    signatures, scores = PairedTest(systems, metrics, [list(references)], "bs", n_resamples)()
    keys, columns = (
        [key for key in scores if key != "System"],
        ("metric", "before", "after", "p_value", "signature"),
    )
    same = systems[0][1] == systems[1][1]  # sacrebleu's p-value would then be the smallest there is
    p_values = [1.0 if same else scores[key][1].p_value for key in keys]
    rows = [
        (name, *(r.score for r in scores[key]), p, str(signatures[key]))
        for name, key, p in zip(metrics, keys, p_values)
    ]
    return pd.DataFrame(rows, columns=columns)


def degenerate_outputs(
    texts: Sequence[str], sources: Sequence[str] | None = None
) -> dict[str, int]:
    """How many texts are ``empty``, ``copied`` from the source, or ``repeated``: three or more characters, four times over."""
    return {
        "empty": sum(not text.strip() for text in texts),
        "copied": sum(
            bool(t.strip()) and t.strip() == s.strip() for t, s in zip(texts, sources or [])
        ),
        "repeated": sum(bool(re.search(r"(\S.{2,}?)(\s*\1){3}", text)) for text in texts),
    }


def _translation_metrics(target: str, references, *systems) -> dict:
    for hypotheses in systems:
        if len(hypotheses) != len(references) or not hypotheses:
            raise ValueError(
                f"{len(hypotheses)} hypotheses and {len(references)} references; as many are needed, at least one."
            )
    return {
        "bleu": sacrebleu.BLEU(tokenize=TOKENIZERS.get(target, "13a")),
        "chrf": sacrebleu.CHRF(word_order=2),
    }


def _by_group(values: np.ndarray, groups, strata) -> tuple[np.ndarray, np.ndarray]:
    """Sum and number of values by group and stratum: (n_groups, n_strata)."""
    groups = range(len(values)) if groups is None else groups
    strata = [0] * len(values) if strata is None else strata
    if not len(values) == len(groups) == len(strata):
        raise ValueError(
            f"{len(values)} values, {len(groups)} groups and {len(strata)} strata; as many are needed."
        )
    place = tuple(pd.factorize(np.asarray(names))[0] for names in (groups, strata))
    sums, sizes = np.zeros((2, *(codes.max() + 1 for codes in place)))
    np.add.at(sums, place, values)
    np.add.at(sizes, place, 1)
    return sums, sizes
