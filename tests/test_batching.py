"""Texts to token ids and batches."""

import pytest
import torch
from hypothesis import given, strategies as st

import mlprune_helpers as mh
from mlprune_helpers.batching import padded, run_in_batches

# -- token ids -------------------------------------------------------------------------------------


def test_encode_adds_what_the_tokenizer_adds_and_cuts_on_the_right(lm):
    texts = ["Le chat dort sur la chaise.", "milk"]
    for side in ("left", "right"):
        lm.tokenizer.truncation_side = lm.tokenizer.padding_side = side
        ids = mh.encode(lm, texts)
        assert ids == [lm.tokenizer(text)["input_ids"] for text in texts]
        assert mh.encode(lm, texts, max_length=3) == [x[:3] for x in ids]


def test_encode_refuses_what_has_no_tokens(load):
    lm = load("gpt2")  # its tokenizer puts nothing before a text
    with pytest.raises(ValueError, match="Text 1 has no tokens: ''"):
        mh.encode(lm, ["a", ""])
    with pytest.raises(ValueError, match="No texts"):
        mh.encode(lm, [])
    with pytest.raises(TypeError, match="put it into a list"):
        mh.encode(lm, "a text")


@given(
    st.lists(st.lists(st.integers(0, 299), min_size=1, max_size=9), min_size=1, max_size=6),
    st.integers(0, 3),
)
def test_padded_keeps_ids_on_the_left_and_masks_the_rest(ids, extra):
    length = max(map(len, ids)) + extra
    tokens, mask = padded(ids, "cpu", length)
    assert tokens.shape == mask.shape == (len(ids), length)
    assert tokens.dtype == mask.dtype == torch.long
    for row, row_mask, expected in zip(tokens, mask, ids):
        assert row[row_mask.bool()].tolist() == expected
        assert row_mask.tolist() == [1] * len(expected) + [0] * (length - len(expected))
    assert padded(ids, "cpu")[0].shape[1] == max(map(len, ids))


LENGTHS = st.lists(st.integers(1, 50), max_size=30)


@given(LENGTHS, st.integers(1, 200))
def test_batches_hold_everything_once_longest_first_within_the_budget(lengths, budget):
    batches = []
    run_in_batches(lengths, budget, batches.append)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    done = [lengths[i] for batch in batches for i in batch]
    assert done == sorted(lengths, reverse=True)
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget


@given(LENGTHS, st.integers(1, 1000), st.integers(50, 400))
def test_batches_are_halved_when_memory_runs_out(lengths, budget, memory):
    done = []

    def run(batch):
        if len(batch) * max(lengths[i] for i in batch) > memory:  # never where it is one alone
            raise torch.OutOfMemoryError("CUDA out of memory.")
        done.extend(batch)

    run_in_batches(lengths, budget, run)
    assert sorted(done) == list(range(len(lengths)))


def test_once_halved_later_batches_are_as_small():
    tried = []

    def run(batch):
        tried.append(len(batch))
        if len(batch) > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    run_in_batches([10] * 8, 80, run)
    assert tried == [8, 4, 2, 2, 2, 2]


@pytest.mark.parametrize(
    ("count", "message"), [(1, "CUDA out of memory"), (4, "shapes cannot be multiplied")]
)
def test_other_errors_and_a_single_text_too_large_are_raised(count, message):
    tried = []

    def run(batch):
        tried.append(len(batch))
        raise RuntimeError(message)

    with pytest.raises(RuntimeError, match=message):
        run_in_batches([10] * count, 100, run)
    assert tried == [count]
