import re
import warnings
from itertools import pairwise

import datasets
import pytest
from hypothesis import given, settings, strategies as st

import mlprune_helpers as mh
from mlprune_helpers.data import DataError

FORMS = [
    dict(),
    dict(target="fr"),
    dict(target="fr", pairing="mismatched"),
    dict(target="fr", pairing="blocks"),
]


def numbers(prompt: str, language: str) -> list[int]:
    """Which sentences of the fixture ``parallel`` a prompt holds in a language, in order."""
    return [int(n) for n in re.findall(rf"{language} (\d+)", prompt)]


# -- demonstrations --------------------------------------------------------------------------------


def test_forms_are_as_in_the_paper(parallel):
    options = dict(shots=2, n_prompts=1, separator="</s>")
    (monolingual,) = mh.build_demonstrations(parallel, "fr", **options)
    (translation,) = mh.build_demonstrations(parallel, "fr", "en", **options)
    first, second = numbers(monolingual, "french")
    assert monolingual == f"French: french {first}</s>French: french {second}</s>"
    assert translation == (
        f"French: french {first}</s>English: english {first}</s>French: french "
        f"{second}</s>English: english {second}</s>"
    )


@given(shots=st.integers(1, 6), n_prompts=st.integers(1, 12), seed=st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_every_form_has_the_same_sentences(parallel, shots, n_prompts, seed):
    forms = FORMS if shots * n_prompts > 1 else FORMS[:2]
    options = dict(shots=shots, n_prompts=n_prompts, seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = [mh.build_demonstrations(parallel, "en", **options, **form) for form in forms]
    chosen = [numbers(prompt, "english") for prompt in made[0]]
    assert len(chosen) == n_prompts and all(len(set(c)) == shots for c in chosen)
    for prompts in made[1:]:
        assert [numbers(prompt, "english") for prompt in prompts] == chosen
    if shots * n_prompts <= len(parallel):  # then every partner stands once in every form, too
        flat = sorted(n for numbers_of_one in chosen for n in numbers_of_one)
        assert len(set(flat)) == len(flat)
        for prompts in made[1:]:
            assert sorted(n for prompt in prompts for n in numbers(prompt, "french")) == flat


@given(
    shots=st.integers(1, 6),
    n_prompts=st.integers(1, 60),
    pairing=st.sampled_from(["mismatched", "blocks"]),
)
@settings(max_examples=60, deadline=None)
def test_mismatched_prompts_hold_no_translation(parallel, shots, n_prompts, pairing):
    if shots * n_prompts == 1:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prompts = mh.build_demonstrations(
            parallel, "en", "fr", shots=shots, n_prompts=n_prompts, pairing=pairing
        )
    for prompt in prompts:
        own, partners = numbers(prompt, "english"), numbers(prompt, "french")
        assert len(own) == len(partners) == shots
        assert all(a != b for a, b in zip(own, partners))
        if n_prompts > 1:
            assert not set(own) & set(partners)


def supply(n):
    rows = {"en": [f"english {i}" for i in range(n)], "fr": [f"french {i}" for i in range(n)]}
    return datasets.Dataset.from_dict(rows)


def sentences(prompts):
    """All that some prompts hold, in both languages, each as often as it stands there."""
    found = [
        (name, i) for text in prompts for name in ("english", "french") for i in numbers(text, name)
    ]
    return sorted(found)


@given(
    n_prompts=st.integers(2, 10),
    shots=st.integers(1, 4),
    pairing=st.sampled_from(["mismatched", "blocks"]),
    seed=st.integers(0, 5),
)
@settings(max_examples=60, deadline=None)
def test_partners_are_swapped_within_units(parallel, n_prompts, shots, pairing, seed):
    """A unit has the same sentences in every form, and shares none with another unit."""
    options = dict(shots=shots, n_prompts=n_prompts, seed=seed)
    aligned = mh.build_demonstrations(parallel, "en", "fr", **options)
    other = mh.build_demonstrations(parallel, "en", "fr", pairing=pairing, **options)
    starts = [*range(0, n_prompts - 1, 2), n_prompts]  # of two prompts, or three at the end
    if n_prompts % 2:
        starts = [*range(0, n_prompts - 2, 2), n_prompts]
    seen = set()
    for start, end in pairwise(starts):
        assert end - start in (2, 3)
        assert sentences(aligned[start:end]) == sentences(other[start:end])
        assert not seen & set(sentences(other[start:end]))
        seen |= set(sentences(other[start:end]))
        for i in range(start, end):  # each has the partners of the next one of its unit, whole
            after = i + 1 if i + 1 < end else start
            assert numbers(other[i], "french") == numbers(aligned[after], "french")


@pytest.mark.parametrize("pairing", ["mismatched", "blocks"])
@pytest.mark.parametrize("shots", [1, 2, 3, 4])
@pytest.mark.parametrize("n", [8, 10, 12, 13, 15, 21])
def test_a_short_supply_puts_no_translation_into_a_prompt(n, shots, pairing):
    """Of every number of prompts, warned of as soon as any two share a sentence."""
    for n_prompts in range(2, 3 * n // shots):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            options = dict(shots=shots, n_prompts=n_prompts)
            aligned = mh.build_demonstrations(supply(n), "en", "fr", **options)
            prompts = mh.build_demonstrations(supply(n), "en", "fr", pairing=pairing, **options)
        held = [numbers(text, "english") for text in prompts]
        assert held == [numbers(text, "english") for text in aligned]
        for own, text in zip(held, prompts):
            partners = numbers(text, "french")
            assert len(set(own)) == len(set(partners)) == shots and not set(own) & set(partners)
        shared = len({i for own in held for i in own}) < n_prompts * shots
        assert bool(caught) == (n_prompts > n // shots)
        assert bool(caught) or not shared
        even = n_prompts - n_prompts % 2 - 2 * (n_prompts % 2)  # where units are two for certain
        for start in range(0, even, 2):
            two = slice(start, start + 2)
            assert sentences(aligned[two]) == sentences(prompts[two])


def test_too_few_sentences_for_mismatched_prompts_are_named():
    with pytest.warns(UserWarning), pytest.raises(DataError, match="7 sentences.*needed: 8"):
        mh.build_demonstrations(supply(7), "en", "fr", pairing="mismatched", n_prompts=2)
    lone = dict(pairing="mismatched", n_prompts=1)  # has its own, in another order
    (prompt,) = mh.build_demonstrations(supply(4), "en", "fr", **lone)
    assert sorted(numbers(prompt, "french")) == [0, 1, 2, 3]
    assert all(a != b for a, b in zip(numbers(prompt, "english"), numbers(prompt, "french")))


@given(n_prompts=st.integers(1, 30), unit=st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_units_are_consecutive_and_complete(n_prompts, unit):
    if unit > n_prompts:
        with pytest.raises(ValueError, match=f"unit is {unit} and n_prompts {n_prompts}"):
            mh.prompt_units(n_prompts, unit)
        return
    units = mh.prompt_units(n_prompts, unit)
    assert [i for one in units for i in one] == list(range(n_prompts))
    assert all(len(one) == unit for one in units[:-1]) and unit <= len(units[-1]) < 2 * unit


@pytest.mark.parametrize(
    ("arguments", "named"), [((0,), "n_prompts is 0"), ((4, 2.0), "unit is 2.0")]
)
def test_wrong_units_are_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        mh.prompt_units(*arguments)


def test_aligned_prompts_hold_nothing_but_translations(parallel):
    for prompt in mh.build_demonstrations(parallel, "en", "fr", n_prompts=10):
        assert numbers(prompt, "english") == numbers(prompt, "french")


def test_blocks_stand_one_language_after_the_other(parallel):
    aligned = mh.build_demonstrations(
        parallel, "en", "fr", shots=3, n_prompts=2, pairing="mismatched"
    )
    for prompt, other in zip(
        mh.build_demonstrations(parallel, "en", "fr", shots=3, n_prompts=2, pairing="blocks"),
        aligned,
    ):
        assert [line.split(":")[0] for line in prompt.splitlines()] == ["English"] * 3 + [
            "French"
        ] * 3
        assert sorted(prompt.splitlines()) == sorted(other.splitlines())


def test_no_sentence_twice_while_the_supply_lasts_and_a_warning_after(parallel):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prompts = mh.build_demonstrations(parallel, "en", "fr", shots=4, n_prompts=10)
    assert sorted(n for prompt in prompts for n in numbers(prompt, "english")) == list(range(40))
    with pytest.warns(UserWarning, match="11 prompts of 4 shots need 44 sentences; there are 40"):
        more = mh.build_demonstrations(parallel, "en", "fr", shots=4, n_prompts=11)
    assert more[:10] == prompts
    assert len(set(more)) == 11


def test_the_seed_decides(parallel):
    one, same, other = (
        mh.build_demonstrations(parallel, "en", n_prompts=5, seed=seed) for seed in (1, 1, 2)
    )
    assert one == same != other


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            dict(pairing="shuffled", target="fr"),
            ValueError,
            "pairing is 'shuffled'; allowed: aligned, mismatched, blocks",
        ),
        (
            dict(pairing="blocks"),
            ValueError,
            "pairing is 'blocks'.*without a target only 'aligned'",
        ),
        (dict(shots=0), ValueError, "shots is 0 and n_prompts 32; both must be at least 1"),
        (dict(n_prompts=0), ValueError, "n_prompts 0"),
        (dict(shots=41), DataError, "41 shots asked, but there are only 40 sentences"),
        (dict(target="sw"), DataError, r"No column 'sw'.*'id', 'en', 'fr'"),
        (
            dict(target="fr", pairing="mismatched", shots=1, n_prompts=1),
            ValueError,
            "raise shots or n_prompts",
        ),
    ],
)
def test_wrong_demonstrations_are_refused(parallel, arguments, error, message):
    with pytest.raises(error, match=message):
        mh.build_demonstrations(parallel, "en", **arguments)


def test_translation_prompt_follows_its_demonstrations(parallel):
    (shown,) = mh.build_demonstrations(parallel, "fr", "en", n_prompts=1)
    assert (
        mh.translation_prompt("Bonjour.", "fr", "en", shown) == f"{shown}French: Bonjour.\nEnglish:"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(shots="4"), "shots is '4'.*whole numbers"),
        (dict(shots=True), "shots is True"),
        (dict(n_prompts=2.0), r"n_prompts 2\.0"),
        (dict(seed=-1), "seed is -1"),
        (dict(seed="a"), "seed is 'a'"),
        (dict(target="en"), "source and target are both 'en'"),
        (dict(target="id"), "The column 'id' has the rows' ids, not Indonesian"),
        (dict(shots=200), "200 shots asked, but there are only 40 sentences"),
    ],
)
def test_values_of_another_type_are_refused(parallel, arguments, message):
    with pytest.raises(ValueError, match=message):
        mh.build_demonstrations(parallel, "en", **arguments)


@pytest.mark.parametrize("make", [lambda rows: rows.to_dict(), lambda rows: rows.to_pandas(), list])
def test_what_is_no_data_set_is_refused(parallel, make):
    with pytest.raises(TypeError, match="parallel is .*from load_parallel"):
        mh.build_demonstrations(make(parallel), "en")


@pytest.mark.parametrize("blank", [None, "", " "])
def test_a_missing_sentence_is_named(blank):
    rows = datasets.Dataset.from_dict({"en": ["a", "b"], "fr": ["c", blank]})
    with pytest.raises(DataError, match="Sentence 1 in 'fr' is"):
        mh.build_demonstrations(rows, "en", "fr", shots=1, n_prompts=1)


def test_indonesian_sentences_stand_in_their_column(tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "id.txt").write_text("satu\ndua")
    rows = mh.load_parallel(["id"], tmp_path)
    (prompt,) = mh.build_demonstrations(rows, "id", shots=2, n_prompts=1)
    assert sorted(prompt.splitlines()) == ["Indonesian: dua", "Indonesian: satu"]


def test_translation_prompts_are_checked():
    with pytest.raises(TypeError, match="sentence is None"):
        mh.translation_prompt(None, "fr", "en")
    with pytest.raises(DataError, match="language 'xx'; allowed"):
        mh.translation_prompt("a", "fr", "xx")


@pytest.mark.parametrize("value", [None, 1, ""])
def test_task_rows_are_checked_before_they_are_asked(value):
    rows = [{"premise": "a", "hypothesis": value}]
    with pytest.raises(DataError, match="nli, row 0: hypothesis is"):
        mh.task_prompts("nli", rows)
