"""Numbers from arrays: accuracy, calibration, ranks, intervals, p-values, translation quality.

Every function checks what it is given.  A missing value compares as False and a text is a sequence
of its characters, so that both would give a number, and a wrong one; here they are refused, by
their place.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Hashable, Mapping, Sequence, Set
from dataclasses import dataclass
from decimal import Decimal
from numbers import Real
from typing import Any, cast

import numpy as np
import pandas as pd
import sacrebleu
from numpy.typing import ArrayLike
from sacrebleu.metrics.base import Metric
from sacrebleu.significance import PairedTest, Result
from scipy.special import log_softmax, logsumexp, softmax

#: BLEU's tokenizer by language code, where 13a does not find the words: it needs spaces between
#: them, and punctuation of ASCII.
TOKENIZERS = {
    **dict.fromkeys(("zh", "zho", "chi", "cmn", "yue", "wuu"), "zh"),
    **dict.fromkeys(("ja", "jpn", "ko", "kor", "th", "tha", "lo", "lao"), "char"),
    **dict.fromkeys(("my", "mya", "bur", "km", "khm", "bo", "bod", "tib", "dz", "dzo"), "char"),
    **dict.fromkeys(("hi", "hin", "ur", "urd", "ar", "ara", "arb"), "intl"),
}

#: Resamples are drawn so many at a time, so that memory does not grow with their number.
_RESAMPLES_AT_ONCE = 1000

#: What the axes of an array are called in an error, by how many it has.
_AXES = {1: ("row",), 2: ("row", "choice"), 3: ("input", "row", "choice")}


# -- accuracy and F1 -------------------------------------------------------------------------------


def accuracy(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Share of predictions that equal the label.

    Args:
        predictions: (n,) indices of labels, or their names.
        labels: (n,) of the same kind, in the same order.

    Returns:
        A share from 0 to 1.

    Raises:
        TypeError: One of them is no list.
        ValueError: They are empty, differ in length, or hold anything but whole numbers from 0 (or
            names in both).
    """
    if _has_names(predictions, "predictions") or _has_names(labels, "labels"):
        predicted = np.array(_texts(predictions, "predictions"), dtype=object)
        right = np.array(_texts(labels, "labels"), dtype=object)
    else:
        predicted, right = _indices(predictions, "predictions"), _indices(labels, "labels")
    _check_as_many(predictions=predicted, labels=right)
    return float(np.mean(predicted == right))


def macro_f1(predictions: ArrayLike, labels: ArrayLike, n_labels: int) -> float:
    """Mean over all labels of F1, 2 TP / (2 TP + FP + FN).

    Args:
        predictions: (n,) indices of labels.
        labels: (n,) the same, in the same order.
        n_labels: How many labels there are; one that is neither predicted nor present counts as 0.

    Returns:
        A figure from 0 to 1.

    Raises:
        TypeError: One of them is no list.
        ValueError: They are empty, differ in length, or hold anything but whole numbers from 0 to
            ``n_labels - 1``.
    """
    _check_whole_number(n_labels, "n_labels", at_least=1)
    predicted = _indices(predictions, "predictions", n_labels)
    right = _indices(labels, "labels", n_labels)
    _check_as_many(predictions=predicted, labels=right)
    hits = np.bincount(right[predicted == right], minlength=n_labels)
    n_predicted = np.bincount(predicted, minlength=n_labels)
    n_present = np.bincount(right, minlength=n_labels)
    return float(np.mean(2 * hits / np.maximum(n_predicted + n_present, 1)))


# -- calibration -----------------------------------------------------------------------------------


def batch_calibrated(log_likelihoods: ArrayLike) -> np.ndarray:
    """Log p(choice | row) - log mean p(choice): batch calibration (Zhou et al., arXiv 2309.17249).

    It assumes that the labels of the batch are balanced.

    Args:
        log_likelihoods: (n, n_choices) sums over tokens, in nats.

    Returns:
        (n, n_choices) calibrated scores, higher = likelier.

    Raises:
        ValueError: The shape is another, or a value is missing or not finite.
    """
    log_p = log_softmax(_by_choice(log_likelihoods, "log_likelihoods"), axis=1)
    return log_p - (logsumexp(log_p, axis=0) - np.log(len(log_p)))


def contextual_calibrated(log_likelihoods: ArrayLike, content_free: ArrayLike) -> np.ndarray:
    """Log p(choice | row) - log p(choice | no content): contextual calibration.

    Source: Zhao et al., arXiv 2102.09690.

    Args:
        log_likelihoods: (n, n_choices) sums over tokens, in nats.
        content_free: (m, n or 1, n_choices) the same for m questions without content, whose
            probabilities are averaged.

    Returns:
        (n, n_choices) calibrated scores, higher = likelier.

    Raises:
        ValueError: A shape is another, or a value is missing or not finite.
    """
    log_p = log_softmax(_by_choice(log_likelihoods, "log_likelihoods"), axis=1)
    n, n_choices = log_p.shape
    without = _numbers(content_free, "content_free")
    if without.shape[1:] not in ((n, n_choices), (1, n_choices)) or not len(without):
        raise ValueError(
            f"content_free has the shape {without.shape}; for log-likelihoods of the shape "
            f"{log_p.shape} it is (inputs, {n} or 1, {n_choices}), at least one input."
        )
    prior = logsumexp(log_softmax(without, axis=-1), axis=0) - np.log(len(without))
    return log_p - prior


# -- ranks -----------------------------------------------------------------------------------------


def rank_consistency(
    scores_a: ArrayLike, scores_b: ArrayLike, *, per_row: bool = False
) -> float | np.ndarray:
    """RankC (Qi et al., arXiv 2310.10378): do two languages rank the choices alike?

    Ranks that stand further up weigh more (softmax of N - j).

    Args:
        scores_a: (n, n_choices) of n examples in one language, higher = likelier.
        scores_b: (n, n_choices) of the same examples in another.
        per_row: Return every example's own value, for paired comparisons.

    Returns:
        The mean over examples, 1 where all rankings agree; or (n,) with ``per_row``.

    Raises:
        ValueError: The shapes differ, or a value is missing or not finite.
    """
    a, b = _numbers(scores_a, "scores_a"), _numbers(scores_b, "scores_b")
    if a.shape != b.shape or a.ndim != 2 or not a.size:
        raise ValueError(
            "Scores of the same examples are needed, (n, n_choices); these have the shapes "
            f"{a.shape} and {b.shape}."
        )
    order_a = np.argsort(-a, axis=1, kind="stable")
    order_b = np.argsort(-b, axis=1, kind="stable")
    consistency = np.zeros(len(a))
    for j, weight in enumerate(_rank_weights(a.shape[1]), start=1):
        in_both = (order_a[:, :j, None] == order_b[:, None, :j]).any(axis=2).sum(axis=1)
        consistency += weight / j * in_both
    return consistency if per_row else float(consistency.mean())


def rank_consistency_least_likely_first(
    scores_a: ArrayLike, scores_b: ArrayLike
) -> float | np.ndarray:
    """RankC as the code of arXiv 2409.16911 has it: sorted ascending.

    So the least likely choice weighs most.  Arguments and errors as in :func:`rank_consistency`.
    """
    return rank_consistency(-_numbers(scores_a, "scores_a"), -_numbers(scores_b, "scores_b"))


def rank_consistency_chance(n_choices: int) -> float:
    """Expected :func:`rank_consistency` of two independent random rankings of ``n_choices``."""
    _check_whole_number(n_choices, "n_choices", at_least=1)
    return float(_rank_weights(n_choices) @ np.arange(1, n_choices + 1) / n_choices)


def _rank_weights(n_choices: int) -> np.ndarray:
    """RankC's weight of each number of first places (n_choices,); they sum to 1."""
    return softmax(np.arange(n_choices, 0, -1.0))


# -- intervals and p-values ------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """A difference of two means, and what it rests on.

    Attributes:
        difference: b - a, in the unit of what was compared.
        low: Lower end of its 95 % interval.
        high: Upper end of its 95 % interval.
        p_value: Of a two-sided test of no difference.
        n: How many rows.
        n_groups: How many groups of rows, which are independent of one another.
    """

    difference: float
    low: float
    high: float
    p_value: float
    n: int
    n_groups: int

    def __str__(self) -> str:
        # "z": what rounds to zero has no minus.
        interval = f"95 % interval {100 * self.low:+z.1f} to {100 * self.high:+z.1f}"
        p = "p < 0.001" if self.p_value < 0.0005 else f"p = {self.p_value:.3f}"
        basis = f"{self.n} rows in {self.n_groups} groups"
        return f"{100 * self.difference:+z.1f} points ({interval}, {p}, {basis})"


def paired_bootstrap(
    correct_a: ArrayLike,
    correct_b: ArrayLike,
    *,
    groups: Collection[Hashable] | None = None,
    strata: Collection[Hashable] | None = None,
    n_resamples: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Difference of two means on the same rows, whole groups resampled.

    The interval is the percentile interval of a bootstrap; the p-value that of a two-sided
    sign-flip permutation, both of whole groups.

    Args:
        correct_a: (n,) 1 or 0 a row, or any finite figure.
        correct_b: (n,) the same rows in the same order (not by the index of a pandas Series).
        groups: (n,) Rows that are not independent share a value: hypotheses of one premise, the
            same example in several languages.  Default: every row by itself.
        strata: (n,) The language of each row; then a mean is the mean of the languages' means, and
            a group is drawn in all languages at once.  Default: one stratum.
        n_resamples: How many resamples, and as many sign-flips.
        seed: Of the random draws.

    Returns:
        The mean of ``correct_b`` minus that of ``correct_a``, as a :class:`Comparison`.  Its
        p-value is at least :func:`smallest_p_value` of the groups.

    Raises:
        TypeError: A text, a set or a dict stands for a list.
        ValueError: Lengths differ or are 0, or a row has a missing or infinite value, or no group.

    Example:
        >>> str(paired_bootstrap([0, 0, 1, 0], [0, 1, 1, 0], groups=["p", "p", "q", "r"]))
        '+25.0 points (95 % interval +0.0 to +50.0, p = 1.000, 4 rows in 3 groups)'
    """
    a, b = _numbers(correct_a, "correct_a"), _numbers(correct_b, "correct_b")
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise ValueError(
            f"Two equally long rows of numbers are needed; these have the shapes {a.shape} and "
            f"{b.shape}."
        )
    _check_whole_number(n_resamples, "n_resamples", at_least=1)
    _check_whole_number(seed, "seed", at_least=0)
    sums, sizes = _sums_and_sizes(b - a, groups, strata)
    shares = (sums / sizes.sum(axis=0)).mean(axis=1)  # what each group adds to the difference
    difference = shares.sum()
    drawn, flipped = _resampled_differences(sums, sizes, shares, n_resamples, seed)
    low, high = np.quantile(drawn, [0.025, 0.975])
    rounding = 1e-12 * np.abs(shares).sum()
    n_extreme = (np.abs(flipped) >= abs(difference) - rounding).sum()
    p_value = (1 + n_extreme) / (1 + n_resamples)
    p_value = max(p_value, smallest_p_value(len(shares), n_resamples))
    return Comparison(
        float(difference), float(low), float(high), float(p_value), len(a), len(shares)
    )


def bootstrap_interval(
    values: ArrayLike,
    *,
    groups: Collection[Hashable] | None = None,
    strata: Collection[Hashable] | None = None,
    n_resamples: int = 10_000,
    seed: int = 0,
) -> tuple[float, float]:
    """95 % percentile interval of a mean; all else as in :func:`paired_bootstrap`.

    Args:
        values: (n,) 1 or 0 a row, or any finite figure.
        groups: (n,) see there.
        strata: (n,) see there.
        n_resamples: How many resamples.
        seed: Of the random draws.

    Returns:
        Its lower and its upper end.

    Raises:
        TypeError: A text, a set or a dict stands for a list.
        ValueError: ``values`` is empty, a row has a missing or infinite value, or no group.
    """
    numbers = _row_of_numbers(values, "values")
    comparison = paired_bootstrap(
        np.zeros(len(numbers)),
        numbers,
        groups=groups,
        strata=strata,
        n_resamples=n_resamples,
        seed=seed,
    )
    return comparison.low, comparison.high


def smallest_p_value(n_units: int, n_resamples: int) -> float:
    """The smallest p-value that a two-sided paired test can honestly give: one rule for all tests.

    ``n_units`` independent pairs have 2 ** n_units patterns of signs, of which two have all signs
    alike; and n random resamples, with the data themselves, tell no probability below 1 / (n + 1).

    Args:
        n_units: Groups, sentences or whatever is exchanged as a whole.
        n_resamples: Random resamples, or sign-flips.

    Returns:
        The larger of both bounds; 1 for a single unit.
    """
    _check_whole_number(n_units, "n_units", at_least=1)
    _check_whole_number(n_resamples, "n_resamples", at_least=1)
    return max(2.0 ** (1 - n_units), 1 / (1 + n_resamples))


def holm(p_values: ArrayLike) -> np.ndarray:
    """Holm's step-down adjusted p-values.

    Args:
        p_values: (n,) of the tests of one family.  None give none: nothing was tested.

    Returns:
        (n,) adjusted, in the order given.

    Raises:
        TypeError: ``p_values`` is no list.
        ValueError: A p-value is missing or outside of 0 to 1.
    """
    p = _numbers(p_values, "p_values")
    if p.ndim != 1:
        raise ValueError(f"p_values has the shape {p.shape}; one row of p-values is needed.")
    for row in np.flatnonzero((p < 0) | (p > 1)):
        raise ValueError(f"p_values: row {row} is {p[row]}; a p-value lies between 0 and 1.")
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    return np.minimum(stepped, 1)[np.argsort(order)]


def _resampled_differences(
    sums: np.ndarray, sizes: np.ndarray, shares: np.ndarray, n_resamples: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Differences of groups drawn with replacement, and of groups whose signs are flipped.

    Both (n_resamples,).  ``sums`` and ``sizes`` are those of :func:`_sums_and_sizes`; ``shares``
    (n_groups,) is what each group adds to the difference.
    """
    rng = np.random.default_rng(seed)
    drawn, flipped = [], []
    for start in range(0, n_resamples, _RESAMPLES_AT_ONCE):
        n_now = min(_RESAMPLES_AT_ONCE, n_resamples - start)
        drawn.append(_drawn_differences(sums, sizes, n_now, rng))
        flipped.append(rng.choice([-1.0, 1.0], size=(n_now, len(shares))) @ shares)
    return np.concatenate(drawn), np.concatenate(flipped)


def _drawn_differences(
    sums: np.ndarray, sizes: np.ndarray, n_resamples: int, rng: np.random.Generator
) -> np.ndarray:
    """Mean over strata of the means of groups drawn with replacement: (n_resamples,)."""
    n_groups = len(sums)
    picks = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=n_resamples)
    # A stratum of which nothing was drawn has no mean, and is left out of the mean over strata.
    with np.errstate(invalid="ignore"):
        means = (picks @ sums) / (picks @ sizes)
    return np.nanmean(means, axis=1)


def _sums_and_sizes(
    values: np.ndarray,
    groups: Collection[Hashable] | None,
    strata: Collection[Hashable] | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Sum and number of values by group and stratum, both (n_groups, n_strata)."""
    n = len(values)
    group_of = np.arange(n) if groups is None else _codes(groups, "groups")
    stratum_of = np.zeros(n, dtype=int) if strata is None else _codes(strata, "strata")
    if not n == len(group_of) == len(stratum_of):
        raise ValueError(
            f"{n} values, {len(group_of)} groups and {len(stratum_of)} strata; as many are needed."
        )
    sums = np.zeros((group_of.max() + 1, stratum_of.max() + 1))
    sizes = np.zeros_like(sums)
    np.add.at(sums, (group_of, stratum_of), values)
    np.add.at(sizes, (group_of, stratum_of), 1)
    return sums, sizes


# -- translation -----------------------------------------------------------------------------------


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
        ``translates``: whether chrF++ is at least twice its floor, a rule of thumb of this book
        (and 1: no output is no translation).

    Raises:
        TypeError: A text stands for a list of texts.
        ValueError: Lengths differ or are 0, an element is no text, a reference is blank, or
            ``target`` is no language code.
    """
    translations, right = _texts(hypotheses, "hypotheses"), _references(references)
    _check_as_many(hypotheses=translations, references=right)
    metrics = {"bleu": _bleu(target), "chrf": _ResampledCHRF(word_order=2)}
    quality: dict[str, Any] = {}
    for name, metric in metrics.items():
        quality[f"{name}_floor"] = _floor(metric, translations, right)
        quality |= _score_and_interval(name, metric, translations, right)
    above_floor = quality["chrf"] >= 2 * quality["chrf_floor"]  # False where the floor is NaN
    return quality | {"translates": quality["chrf"] >= 1 and above_floor}


def compare_translations(
    before: Collection[str],
    after: Collection[str],
    references: Collection[str],
    target: str,
    *,
    n_resamples: int = 1000,
) -> pd.DataFrame:
    """BLEU and chrF++ of two systems on the same sentences, with sacrebleu's paired bootstrap.

    Args:
        before: (n,) translations of one system; a blank one is a translation that says nothing.
        after: (n,) translations of the other.
        references: (n,) what they should be, in the same order.
        target: Code of the language they are in, see :func:`translation_quality`.
        n_resamples: How many times sentences are drawn.

    Returns:
        A row each for ``bleu`` and ``chrf``, with the columns ``metric``, ``before``, ``after``,
        ``p_value`` and ``signature``.  The p-value is 1 for equal scores, and at least
        :func:`smallest_p_value` of the sentences.

    Raises:
        TypeError: A text stands for a list of texts.
        ValueError: Lengths differ or are 0, an element is no text, a reference is blank, ``target``
            is no language code, or ``n_resamples`` is not at least 1.
    """
    first, second = _texts(before, "before"), _texts(after, "after")
    right = _references(references)
    _check_as_many(hypotheses=first, references=right)
    _check_as_many(hypotheses=second, references=right)
    _check_whole_number(n_resamples, "n_resamples", at_least=1)
    metrics = {"bleu": _bleu(target), "chrf": sacrebleu.CHRF(word_order=2)}
    systems: list[tuple[str, Sequence[str]]] = [("before", first), ("after", second)]
    signatures, results = PairedTest(systems, metrics, [right], "bs", n_resamples)()
    rows = []
    for name, key in zip(metrics, signatures):  # sacrebleu has names of its own
        baseline, system = cast(list[Result], results[key])
        p_value = _honest_p_value(baseline, system, len(right), n_resamples)
        rows.append((name, baseline.score, system.score, p_value, str(signatures[key])))
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
    written = _texts(texts, "texts")
    if not written:
        raise ValueError("texts is empty; at least one text is needed.")
    copied = 0
    if sources is not None:
        originals = _texts(sources, "sources")
        _check_as_many(texts=written, sources=originals)
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


def _honest_p_value(baseline: Result, system: Result, n_sentences: int, n_resamples: int) -> float:
    """sacrebleu's p-value, but for where it counts too few resamples.

    It counts those that differ by *more* than the systems do, which is none where nothing differs
    (two systems without a match), or where resamples are all alike (one sentence).
    """
    if baseline.score == system.score:
        return 1.0
    return max(system.p_value or 0.0, smallest_p_value(n_sentences, n_resamples))


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


# -- checks ----------------------------------------------------------------------------------------


def _check_is_list(values: object, name: str) -> None:
    """A text is a sequence of characters and a set has no order: neither is a list."""
    if isinstance(values, (str, bytes)):
        raise TypeError(
            f"{name} is the text {values!r:.80}; a list is needed, also of a single one."
        )
    unordered = isinstance(values, (Mapping, Set))
    if unordered or not isinstance(values, Collection) or getattr(values, "ndim", 1) == 0:
        raise TypeError(
            f"{name} is of the type {type(values).__name__}; a list or an array is needed, in the "
            "order of the rows."
        )


def _check_as_many(**lists: Collection) -> None:
    """All have as many elements, at least one."""
    lengths = {len(values) for values in lists.values()}
    if len(lengths) > 1 or 0 in lengths:
        counts = " and ".join(f"{len(values)} {name}" for name, values in lists.items())
        raise ValueError(f"{counts}; as many are needed, at least one.")


def _check_whole_number(value: object, name: str, *, at_least: int) -> None:
    is_whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not is_whole or value < at_least:  # type: ignore[operator]
        raise ValueError(f"{name} is {value!r}; a whole number is needed, at least {at_least}.")


def _elements(values: Any, name: str) -> list[Any]:
    """The elements of a list, or of what is like one: a tuple, an array, a column."""
    _check_is_list(values, name)
    n_dimensions = getattr(values, "ndim", 1)
    if n_dimensions != 1:
        raise ValueError(f"{name} has {n_dimensions} dimensions; a plain list is needed.")
    return [_plain(value) for value in values]


def _plain(value: Any) -> Any:
    """A number of numpy or torch as Python's: torch's are alike only to themselves."""
    return value.item() if getattr(value, "ndim", None) == 0 else value


def _texts(values: Any, name: str) -> list[str]:
    """A list of texts; an element that is none is an error that names its place."""
    texts = _elements(values, name)
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(
                f"{name}: row {row} is {text!r}; a text is needed, as in all rows. Find out why "
                "there is none, or leave the row out of all lists."
            )
    return texts


def _references(values: Any) -> list[str]:
    """Texts of which none is blank: a sentence without its translation cannot be scored."""
    references = _texts(values, "references")
    for row, text in enumerate(references):
        if not text.strip():
            raise ValueError(
                f"references: row {row} is blank; a reference has words. Leave the sentence out of "
                "all lists."
            )
    return references


def _has_names(values: ArrayLike, name: str) -> bool:
    """Whether this list has a text in it."""
    return any(isinstance(value, str) for value in _elements(values, name))


def _codes(names: Collection[Hashable], name: str) -> np.ndarray:
    """0, 1, … for distinct values in the order of their first appearance: (n,)."""
    code_of: dict[Hashable, int] = {}
    codes = []
    for row, value in enumerate(_elements(names, name)):
        if _is_missing(value) or not isinstance(value, Hashable):
            raise ValueError(
                f"{name}: row {row} is {value}; a text or a number is needed that says where the "
                "row belongs. Name it, or leave the row out everywhere."
            )
        codes.append(code_of.setdefault(value, len(code_of)))
    return np.array(codes, dtype=int)


def _is_missing(value: Any) -> bool:
    """None, NaN, NaT and pandas' NA."""
    return bool(pd.api.types.is_scalar(value) and pd.isna(value))


def _indices(values: ArrayLike, name: str, n_labels: int | None = None) -> np.ndarray:
    """Indices of labels (n,), as integers."""
    numbers = _row_of_numbers(values, name)
    allowed = "whole numbers from 0" if n_labels is None else f"0 to {n_labels - 1}"
    is_index = (numbers >= 0) & (numbers == np.floor(numbers))
    if n_labels is not None:
        is_index &= numbers < n_labels
    for row in np.flatnonzero(~is_index):
        raise ValueError(
            f"{name}: row {row} is {numbers[row]:g}; allowed: {allowed}. (A negative label often "
            "says that the label is not known.)"
        )
    return numbers.astype(int)


def _by_choice(values: ArrayLike, name: str) -> np.ndarray:
    """Numbers (n, n_choices), at least one of each."""
    numbers = _numbers(values, name)
    if numbers.ndim != 2 or not numbers.size:
        raise ValueError(f"{name} has the shape {numbers.shape}; it is (rows, choices), not empty.")
    return numbers


def _row_of_numbers(values: ArrayLike, name: str) -> np.ndarray:
    """Numbers (n,), at least one."""
    numbers = _numbers(values, name)
    if numbers.ndim != 1 or not len(numbers):
        raise ValueError(
            f"{name} has the shape {numbers.shape}; one row of numbers is needed, at least one."
        )
    return numbers


def _numbers(values: ArrayLike, name: str) -> np.ndarray:
    """Finite float64 of one to three dimensions; what is none is an error that names its place."""
    _check_is_list(values, name)
    if isinstance(values, np.ma.MaskedArray):
        values = np.ma.filled(
            values.astype(float), np.nan
        )  # numpy would give what is below the mask
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ValueError(f"{name} has rows of different lengths: {error}") from error
    if array.ndim not in _AXES:
        raise ValueError(f"{name} has the shape {array.shape}; allowed: one to three dimensions.")
    if array.dtype.kind not in "biuf":
        array = _from_objects(values, name)
    numbers = array.astype(float)
    for place in np.argwhere(~np.isfinite(numbers)):
        raise _no_number(name, tuple(place), numbers[tuple(place)])
    return numbers


def _from_objects(values: ArrayLike, name: str) -> np.ndarray:
    """An array of what numpy does not know to be numbers: None, texts, dates, pandas' NA …"""
    objects = np.asarray(values, dtype=object)
    for place, value in np.ndenumerate(objects):
        if not isinstance(value, (Real, Decimal, np.bool_)):
            raise _no_number(name, place, repr(value))
    return objects


def _no_number(name: str, place: tuple[int, ...], value: object) -> ValueError:
    where = ", ".join(f"{axis} {i}" for axis, i in zip(_AXES[len(place)], place))
    return ValueError(
        f"{name}: {where} is {value}; a finite number is needed. Find out why it has none, or "
        "leave the row out everywhere."
    )
