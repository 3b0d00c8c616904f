"""Statistics of inputs against numpy."""

import numpy as np
import pytest
import torch

from mlprune_helpers.pruning.statistics import (
    STATISTICS,
    kinds_of,
    known_statistics,
    statistic_of,
)

ORACLES = {
    "norm": lambda x: np.linalg.norm(x, axis=0),
    "squares": lambda x: (x**2).sum(axis=0),
    "mean": lambda x: x.mean(axis=0),
    "std": lambda x: x.std(axis=0),
    "products": lambda x: x.T @ x,
}


def raw_sums(x, weight=1.0):
    rows = torch.from_numpy(x)
    sums = {"count": torch.tensor(len(x)), "sums": rows.sum(0), "squares": rows.square().sum(0)}
    return {kind: weight * value for kind, value in (sums | {"products": rows.T @ rows}).items()}


@pytest.mark.parametrize("statistic", STATISTICS)
def test_statistics_are_those_of_numpy(rng, statistic):
    x = rng.normal(size=(50, 7)) + np.arange(7)
    got = statistic_of(statistic, raw_sums(x))
    assert got.dtype == torch.float64
    np.testing.assert_allclose(got, ORACLES[statistic](x), rtol=1e-10)


def test_mean_and_std_do_not_depend_on_the_weight_of_a_token(rng):
    x = rng.normal(size=(50, 7))
    for statistic in ("mean", "std"):
        got = statistic_of(statistic, raw_sums(x, weight=1 / 50))
        np.testing.assert_allclose(got, ORACLES[statistic](x), rtol=1e-10)


def test_inputs_that_never_change_have_no_deviation():
    std = statistic_of("std", raw_sums(np.full((30, 3), 0.1)))
    assert torch.isfinite(std).all() and (std < 1e-8).all()


def test_a_statistic_is_added_in_one_place(monkeypatch):
    monkeypatch.setitem(STATISTICS, "rms", lambda count, squares: (squares / count).sqrt())
    assert kinds_of("rms") == ("count", "squares")
    assert known_statistics()["contrast_rms"] == ("contrast", "rms")
    assert statistic_of("rms", raw_sums(np.full((4, 1), -3.0))).tolist() == [3.0]
