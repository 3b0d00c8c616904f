"""Sparsities as users give them."""

import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch
import yaml

import mlprune_helpers as mh
from mlprune_helpers.pruning.sparsity import parse_sparsity


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (0, 0.0),
        (0.3, 0.3),
        (np.float64(0.3), 0.3),
        (np.float32(0.29), 0.29),
        (np.float16(0.1), 0.1),
        (np.int64(0), 0.0),
        (Fraction(1, 4), 0.25),
        ("2:4", (2, 4)),
        (" 2:4\n", (2, 4)),
        ("2 : 4", (2, 4)),
        ("16:32", (16, 32)),
    ],
)
def test_what_is_read(given, read):
    assert parse_sparsity(given) == read
    assert type(parse_sparsity(given)) is type(read)


@pytest.mark.parametrize("pattern", ["2:4", "1:4", "4:8", "1:2", "16:32", "58:59"])
def test_patterns_that_yaml_took_for_numbers(pattern):
    number = yaml.safe_load(f"sparsity: {pattern}")["sparsity"]
    assert isinstance(number, int)
    for value in (number, float(number), np.int64(number)):
        with pytest.raises(ValueError, match=f"YAML reads .* as {number}: write '{pattern}' in"):
            parse_sparsity(value)
    assert parse_sparsity(yaml.safe_load(f"sparsity: '{pattern}'")["sparsity"])


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        (30, "write 0.3"),
        (2.5, "write 0.025"),
        ("30%", "Write 0.3"),
        (" 50 % ", "Write 0.5"),
        ("0.3", "Write 0.3, a number without quotes"),
    ],
)
def test_usual_slips_get_a_hint(given, hint):
    with pytest.raises(ValueError, match=hint):
        parse_sparsity(given)


@pytest.mark.parametrize(
    "given",
    [
        *(True, False, np.bool_(True), None, float("nan"), float("inf"), -0.1, 1, 1.0, -124, 3600),
        *("", "half", "2:", ":4", "2:4:8", "-2:4", "2.0:4", "²:4", "２:４", "4:4", "0:4", "nan"),
        *([2, 4], (2, 4), np.array([0.3]), torch.tensor(0.3), 0.3j, b"2:4"),
    ],
)
def test_all_else_is_refused(given):
    with pytest.raises(ValueError, match="sparsity is .*allowed") as refused:
        parse_sparsity(given)
    assert "YAML" not in str(refused.value)


def test_a_share_in_single_precision_counts_as_it_is_written():
    score = torch.rand(3, 100, generator=torch.Generator().manual_seed(0))
    assert mh.unstructured_mask(score, np.float32(0.29)).sum(1).tolist() == [29, 29, 29]


def test_reading_a_sparsity_loads_no_torch():
    program = "import sys, mlprune_helpers.pruning.sparsity; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
