"""The ranking: held against brute force over pairs of rows, its units against the true spread."""

import itertools

import numpy as np
import pytest
from scipy import stats

import mlprune_helpers as mh
from mlprune_helpers.ranking import rank_across_rows, rank_within_groups, rank_within_rows


def shares_won(higher, lower):
    """Over all pairs of a row that should be higher and one that should be lower."""
    return [0.5 if a == b else float(a > b) for a in higher for b in lower]


def area(log_likelihoods, labels, pairs):
    """Mean over pairs of labels of the area under the curve, by loops."""
    areas = []
    for first, second in pairs:
        margins = (log_likelihoods[:, first] - log_likelihoods[:, second]).round(9)
        areas.append(np.mean(shares_won(margins[labels == first], margins[labels == second])))
    return np.mean(areas)


def drawn(rng, n_labels, n_each, skill, shared=None, agreement=0.0):
    """Log-likelihoods in which the right label is ``skill`` standard deviations likelier.

    Two draws with the same ``shared`` noise are two models on the same rows.
    """
    labels = np.repeat(np.arange(n_labels), n_each)
    noise = rng.normal(size=(len(labels), n_labels))
    if shared is not None:
        noise = agreement**0.5 * shared + (1 - agreement) ** 0.5 * noise
    noise[np.arange(len(labels)), labels] += skill
    return noise, labels


def all_pairs(n_labels):
    return list(itertools.combinations(range(n_labels), 2))


@pytest.mark.parametrize("n_labels", [2, 3, 6])
def test_across_rows_is_the_area_under_the_curve(rng, n_labels):
    log_likelihoods, labels = drawn(rng, n_labels, 7, skill=0.7)
    log_likelihoods, labels = log_likelihoods.round(1)[3:], labels[3:]  # ties; labels unbalanced
    units = rank_across_rows(log_likelihoods, labels, range(len(labels)), all_pairs(n_labels))
    expected = area(log_likelihoods, labels, all_pairs(n_labels))
    assert units.values.mean() == pytest.approx(expected) and 0.5 < expected < 1
    assert units.groups == list(range(len(labels)))
    if n_labels == 2:
        margins = (log_likelihoods[:, 0] - log_likelihoods[:, 1]).round(9)
        u = stats.mannwhitneyu(margins[labels == 0], margins[labels == 1]).statistic
        assert expected == pytest.approx(u / ((labels == 0).sum() * (labels == 1).sum()))


@pytest.mark.parametrize("n_labels", [2, 4])
def test_the_spread_of_units_is_that_of_the_jackknife(rng, n_labels):
    """Each row left out in turn, within its label: for two labels this is DeLong's variance."""
    log_likelihoods, labels = drawn(rng, n_labels, 9, skill=0.7)
    log_likelihoods, labels = log_likelihoods[2:], labels[2:]
    pairs = all_pairs(n_labels)
    variance = 0.0
    for label in range(n_labels):
        without = [
            area(np.delete(log_likelihoods, row, axis=0), np.delete(labels, row), pairs)
            for row in np.flatnonzero(labels == label)
        ]
        variance += (len(without) - 1) * np.var(without)
    values = rank_across_rows(log_likelihoods, labels, range(len(labels)), pairs).values
    assert values.var() / len(values) == pytest.approx(variance)


def test_rows_that_say_the_same_are_one_unit(rng):
    """Every row three times over, as a group: no more is known than from each once."""
    log_likelihoods, labels = drawn(rng, 3, 8, skill=0.5)
    once = rank_across_rows(log_likelihoods, labels, range(24), all_pairs(3))
    thrice = rank_across_rows(
        np.repeat(log_likelihoods, 3, axis=0),
        np.repeat(labels, 3),
        np.repeat(np.arange(24), 3).tolist(),
        all_pairs(3),
    )
    assert thrice.values == pytest.approx(once.values) and thrice.groups == once.groups


def repeated(rng, n_labels, n_each, skill, n_draws):
    """Two models as good as each other on the same rows, many times."""
    for _ in range(n_draws):
        shared = rng.normal(size=(n_labels * n_each, n_labels))
        units = []
        for _ in range(2):
            log_likelihoods, labels = drawn(rng, n_labels, n_each, skill, shared, agreement=0.6)
            groups = range(len(labels))
            units.append(rank_across_rows(log_likelihoods, labels, groups, all_pairs(n_labels)))
        yield units


@pytest.mark.parametrize(("n_labels", "n_each"), [(2, 20), (6, 10)])
def test_units_vary_as_much_as_rankings_do_from_sample_to_sample(rng, n_labels, n_each):
    rankings, variances, differences, of_differences = [], [], [], []
    for one, other in repeated(rng, n_labels, n_each, 1.0, 400):
        rankings.append(one.values.mean())
        variances.append(one.values.var() / len(one.values))
        change = other.values - one.values
        differences.append(change.mean())
        of_differences.append(change.var() / len(change))
    # Naive values, the share of its comparisons that each row wins, would give half the variance.
    assert np.mean(variances) == pytest.approx(np.var(rankings), rel=0.2)
    assert np.mean(of_differences) == pytest.approx(np.var(differences), rel=0.2)


@pytest.mark.parametrize(("n_labels", "n_each"), [(2, 20), (6, 10)])
def test_two_models_that_are_alike_rarely_seem_to_differ(rng, n_labels, n_each):
    p_values = []
    covered = []
    for one, other in repeated(rng, n_labels, n_each, 0.7, 400):
        comparison = mh.paired_bootstrap(
            one.values, other.values, groups=one.groups, n_resamples=400
        )
        p_values.append(comparison.p_value)
        covered.append(comparison.low <= 0 <= comparison.high)
    # Of 400 draws at 5 %, more than 7.8 % would come up once in 100 times.
    assert np.mean(np.array(p_values) < 0.05) <= 0.078
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.1)
    assert np.mean(covered) >= 0.91


def test_within_groups_by_brute_force(rng):
    n = 120
    log_likelihoods = rng.normal(size=(n, 3)).round(1)
    labels = rng.integers(3, size=n)
    groups = [f"g{number}" for number in rng.integers(30, size=n)]
    for pairs in ([(0, 2)], all_pairs(3)):
        units = rank_within_groups(log_likelihoods, labels, groups, pairs)
        expected = {}
        for group in dict.fromkeys(groups):
            inside = np.array([other == group for other in groups])
            areas = []
            for first, second in pairs:
                margins = (log_likelihoods[:, first] - log_likelihoods[:, second]).round(9)
                won = shares_won(
                    margins[inside & (labels == first)], margins[inside & (labels == second)]
                )
                areas += [np.mean(won)] if won else []
            if areas:
                expected[group] = np.mean(areas)
        assert units.groups == list(expected)
        assert units.values == pytest.approx(list(expected.values()))
    assert len(rank_within_groups(log_likelihoods, labels, groups, [(0, 2)]).groups) < 30


def test_within_rows_by_brute_force(rng):
    log_likelihoods = rng.integers(3, size=(50, 4)).astype(float)
    labels = rng.integers(4, size=50)
    units = rank_within_rows(log_likelihoods, labels, list("ab") * 25)
    for row, value in zip(range(50), units.values):
        wrong = np.delete(log_likelihoods[row], labels[row])
        assert value == np.mean(shares_won([log_likelihoods[row, labels[row]]], wrong))
    assert units.groups == list("ab") * 25
    with pytest.raises(ValueError, match="one choice"):
        rank_within_rows(log_likelihoods[:, :1], labels * 0, list(range(50)))


def test_ties_stay_ties_whatever_is_added(rng):
    """1.1 - 0.1 and 2.1 - 1.1 differ by rounding alone."""
    steps = np.arange(6.0)
    log_likelihoods = np.column_stack([steps + 1, steps])  # every margin is 1
    labels = np.array([0, 1] * 3)
    for bias in (0.0, 0.1, 1 / 3):
        biased = log_likelihoods + np.array([bias, 0])
        units = rank_across_rows(biased, labels, range(6), [(0, 1)])
        assert units.values.tolist() == [0.5] * 6
        units = rank_within_groups(biased, labels, list("aabbcc"), [(0, 1)])
        assert units.values.tolist() == [0.5] * 3
