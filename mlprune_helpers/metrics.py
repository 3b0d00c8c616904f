"""Numbers from arrays: accuracy, agreement, calibrated scores, intervals, p-values, translation quality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import sacrebleu
from scipy.special import log_softmax, logsumexp


def accuracy(predictions, labels) -> float:
    """Share of predictions that equal the label."""
    return float(np.mean(np.asarray(predictions) == np.asarray(labels)))


def batch_calibrated(scores: np.ndarray) -> np.ndarray:
    """Scores (n, n_choices) with the label prior taken out: log p(choice | row) - log mean p(choice).

    Batch calibration (Zhou et al., arXiv 2309.17249).  It assumes that the labels of the batch are balanced.
    """
    log_p = log_softmax(np.asarray(scores, dtype=float), axis=1)
    return log_p - (logsumexp(log_p, axis=0) - np.log(len(log_p)))


def rank_consistency(scores_a: np.ndarray, scores_b: np.ndarray) -> float:
    """RankC (Qi et al., arXiv 2310.10378): do two languages rank the choices alike?

    ``scores`` (n, n_choices) of the same examples in two languages, higher = likelier.  1: the same ranking
    everywhere.  Ranks that stand further up weigh more (softmax of N - j).
    """
    scores_a, scores_b = np.asarray(scores_a), np.asarray(scores_b)
    if scores_a.shape != scores_b.shape or scores_a.ndim != 2:
        raise ValueError(f"Scores of the same examples are needed; these have the shapes {scores_a.shape} and {scores_b.shape}.")
    n = scores_a.shape[1]
    order_a = np.argsort(-scores_a, axis=1, kind="stable")
    order_b = np.argsort(-scores_b, axis=1, kind="stable")
    weights = np.exp(np.arange(n, 0, -1.0))
    weights /= weights.sum()
    total = np.zeros(len(scores_a))
    for j in range(1, n + 1):
        both = (order_a[:, :j, None] == order_b[:, None, :j]).any(axis=2).sum(axis=1)
        total += weights[j - 1] * both / j
    return float(total.mean())


def rank_consistency_chance(n_choices: int) -> float:
    """Expected :func:`rank_consistency` of two independent random rankings."""
    weights = np.exp(np.arange(n_choices, 0, -1.0))
    return float((weights / weights.sum() * np.arange(1, n_choices + 1) / n_choices).sum())


@dataclass(frozen=True)
class Comparison:
    """b against a: ``difference`` (b - a) with its 95 % interval, p-value, and how many rows and groups it rests on."""

    difference: float
    low: float
    high: float
    p_value: float
    n: int
    n_groups: int

    def __str__(self) -> str:
        return (
            f"{100 * self.difference:+.1f} points (95 % interval {100 * self.low:+.1f} to {100 * self.high:+.1f}, "
            f"p = {self.p_value:.3f}, {self.n} rows in {self.n_groups} groups)"
        )


def paired_bootstrap(correct_a, correct_b, *, groups=None, n_resamples: int = 10_000, seed: int = 0) -> Comparison:
    """Difference of two means on the same rows, whole groups resampled.

    Parameters
    ----------
    correct_a, correct_b : array (n,)
        1 or 0 a row (or any figure), of the same rows in the same order.
    groups : array (n,), optional
        Rows that are not independent share a value: hypotheses of one premise, and the same example in several
        languages.  Default: every row by itself.

    Returns
    -------
    Comparison
        Percentile interval; p-value of a two-sided sign-flip permutation of whole groups.
    """
    a, b = np.asarray(correct_a, dtype=float), np.asarray(correct_b, dtype=float)
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise ValueError(f"Two equally long rows of numbers are needed; these have the shapes {a.shape} and {b.shape}.")
    sums, sizes = _by_group(b - a, groups)
    rng = np.random.default_rng(seed)
    draws = _resampled_means(sums, sizes, n_resamples, rng)
    low, high = np.quantile(draws, [0.025, 0.975])
    flips = rng.choice([-1.0, 1.0], size=(n_resamples, len(sums))) @ sums
    at_least = np.abs(flips) >= abs(sums.sum()) - 1e-9
    p_value = (1 + at_least.sum()) / (1 + n_resamples)
    return Comparison(float(sums.sum() / sizes.sum()), float(low), float(high), float(p_value), len(a), len(sums))


def bootstrap_interval(values, *, groups=None, n_resamples: int = 10_000, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of a mean, whole groups resampled."""
    sums, sizes = _by_group(np.asarray(values, dtype=float), groups)
    draws = _resampled_means(sums, sizes, n_resamples, np.random.default_rng(seed))
    return tuple(float(x) for x in np.quantile(draws, [0.025, 0.975]))


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Holm's step-down adjusted p-values, in the order given."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted


def translation_quality(hypotheses: Sequence[str], references: Sequence[str], target: str) -> dict:
    """Corpus BLEU and chrF++ by sacrebleu, with 95 % bootstrap intervals and signatures.

    ``target``: language code, which chooses BLEU's tokenizer (``zh``, ``ja-mecab`` …; 13a elsewhere).
    """
    if len(hypotheses) != len(references) or not hypotheses:
        raise ValueError(f"{len(hypotheses)} hypotheses and {len(references)} references; as many are needed, at least one.")
    tokenizer = {"zh": "zh", "ja": "char", "ko": "char", "th": "char", "my": "char"}.get(target, "13a")
    result = {}
    for name, metric in (("bleu", sacrebleu.BLEU(tokenize=tokenizer)), ("chrf", sacrebleu.CHRF(word_order=2))):
        score = metric.corpus_score(list(hypotheses), [list(references)], n_bootstrap=1000)
        low, high = score._mean - score._ci, score._mean + score._ci
        result |= {name: score.score, f"{name}_low": low, f"{name}_high": high}
        result[f"{name}_signature"] = str(metric.get_signature())
    return result


def _by_group(values: np.ndarray, groups) -> tuple[np.ndarray, np.ndarray]:
    """Sum and number of values in each group."""
    if groups is None:
        return values, np.ones(len(values))
    codes, names = pd.factorize(np.asarray(groups))
    if len(codes) != len(values):
        raise ValueError(f"{len(values)} values and {len(codes)} groups; as many are needed.")
    return np.bincount(codes, values, len(names)), np.bincount(codes, minlength=len(names)).astype(float)


def _resampled_means(sums: np.ndarray, sizes: np.ndarray, n_resamples: int, rng) -> np.ndarray:
    picks = rng.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=n_resamples)
    return (picks @ sums) / (picks @ sizes)
