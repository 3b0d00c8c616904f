"""How much features grow under translation, and whether that is more than chance."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from ..activations import ActivationStats
from ..metrics.flips import kept_units
from ..prompts import prompt_units
from .checks import (
    check_as_many_prompts,
    check_comparable,
    check_count,
    floored,
    listed,
    rms_per_prompt,
)

ALTERNATIVES = ("greater", "two-sided")


def relative_change(
    translation: ActivationStats, control: ActivationStats, *, per_prompt: bool = False
) -> np.ndarray:
    """How much larger features are under translation: log2 of the ratio of root mean squares.

    0: as large (or silent in both); 1: twice as large; -1: half as large.

    Args:
        translation: Statistics of translation prompts.
        control: Statistics of other prompts, of the same model.
        per_prompt: Compare prompt i with prompt i instead of all prompts with all.

    Returns:
        (n_layers + 1, hidden_size), or (n_prompts, n_layers + 1, hidden_size) per prompt.

    Raises:
        ValueError: If the two are of different models or not finite; per prompt, also if they
            have not as many prompts.
    """
    check_comparable(translation, [control])
    if per_prompt:
        check_as_many_prompts(translation, control, least=1)
        above = floored(rms_per_prompt(translation))
        below = floored(rms_per_prompt(control))
    else:
        above, below = floored(translation.rms), floored(control.rms)
    return np.log2(above / below)


def sign_flip_test(
    translation: ActivationStats,
    control: ActivationStats | Sequence[ActivationStats],
    *,
    unit: int = 2,
    alternative: str = "greater",
    n_flips: int = 10_000,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Which features change from control to translation: paired sign-flip test, maximum statistic.

    Prompt i of all must have the same sentences, but for partners that are swapped within a unit of
    :func:`prompt_units`; units share no sentence with one another.  Log2 ratios are averaged over
    the prompts of a unit.  If translation changes nothing, a unit's ratios to all controls may
    change sign together: exchanging the partners in a unit makes its aligned prompts the mismatched
    ones and the reverse.  (For a last unit of three that holds as well: renaming its sentences
    turns the cycle around.)

    Every feature's Student statistic against every control is compared with the maximum over
    controls × layers × features under such flips, so that with ``p <= alpha`` the chance of finding
    *any* feature that does not change against *some* control is at most ``alpha``, however much
    others change (Westfall and Young, 1993).  A p-value is at least 2^-n_units (two-sided: twice
    that), so it takes five units, or six, to get below 0.05.

    Args:
        translation: Statistics of translation prompts.
        control: Statistics of as many other prompts of the same model; or several such, of which
            the smallest change and the largest p-value count.
        unit: Prompts that are flipped together: 2 for controls of :func:`build_demonstrations` with
            swapped partners (``"mismatched"``, ``"blocks"``), of an odd number of prompts the last
            unit is three; 1 where each prompt has the same sentences as its control, such as
            one language alone.
        alternative: ``"greater"``, or ``"two-sided"``.
        n_flips: Random flips, besides the observed signs; all 2^n_units, if those are no more.
        seed: Of the random flips.

    Returns:
        Log2 ratios, averaged over units, and corrected p-values, both (n_layers + 1, hidden_size).

    Raises:
        ValueError: If prompts are not pairs, fewer than two units, of different models or not
            finite, or a setting is out of range.
    """
    if alternative not in ALTERNATIVES:
        raise ValueError(f"alternative is {alternative!r}; allowed: 'greater', 'two-sided'.")
    check_count("n_flips", n_flips)
    check_count("unit", unit)
    controls = listed(control)
    check_comparable(translation, controls)
    for one in controls:
        check_as_many_prompts(translation, one, least=2 * unit)
    units = prompt_units(len(translation.prompt_tokens), unit)
    changes = np.stack([_change_by_unit(translation, one, units) for one in controls])
    two_sided = alternative == "two-sided"
    p_values = _corrected_p_values(changes, _sign_flips(len(units), n_flips, seed), two_sided)
    return _least_change(changes.mean(axis=1), two_sided), p_values.max(axis=0)


def _change_by_unit(
    translation: ActivationStats, control: ActivationStats, units: Sequence[np.ndarray]
) -> np.ndarray:
    """Log2 ratios averaged over the prompts of each unit (n_units, n_layers + 1, hidden_size)."""
    change = relative_change(translation, control, per_prompt=True)
    return np.stack([change[prompts].mean(axis=0) for prompts in units])


def _sign_flips(n_units: int, n_flips: int, seed: int) -> Iterator[np.ndarray]:
    """Signs of the units, float32 (some flips, n_units) at a time; the observed ones among them."""
    for kept in kept_units(n_units, n_flips, seed):
        yield (2 * kept - 1).astype(np.float32)


def _corrected_p_values(
    changes: np.ndarray, signs: Iterable[np.ndarray], two_sided: bool
) -> np.ndarray:
    """Share of flips whose largest statistic reaches a feature's own.

    Args:
        changes: (n_controls, n_units, ...), all of which a flip changes together.
        signs: (some flips, n_units) at a time.
        two_sided: Whether the size counts, whatever the sign.

    Returns:
        (n_controls, ...).
    """
    n_controls, n_units = changes.shape[:2]
    flat = np.moveaxis(changes, 1, 0).reshape(n_units, -1).astype(np.float64)
    # Over its root sum of squares, which no flip alters, a sum grows with Student's t: no need to
    # go on to t.
    length = np.sqrt(np.square(flat).sum(axis=0))
    scaled = (flat / np.maximum(length, np.finfo(np.float64).tiny)).astype(np.float32)
    observed = scaled.sum(axis=0)
    if two_sided:
        observed = np.abs(observed)
    maxima = np.sort(_largest_by_flip(signs, scaled, two_sided))
    smaller = np.searchsorted(maxima, observed - 1e-5)  # equal but for rounding is equal
    p_values = (len(maxima) - smaller) / len(maxima)
    # Random flips may miss the only one, or two, that reach a value, though it is as likely as any.
    smallest = 2.0 ** (1 - n_units if two_sided else -n_units)
    return np.maximum(p_values, smallest).reshape(n_controls, *changes.shape[2:])


def _largest_by_flip(
    signs: Iterable[np.ndarray], scaled: np.ndarray, two_sided: bool
) -> np.ndarray:
    """The largest statistic under each flip (n_flips,), in parts that fit in memory."""
    at_once = max(1, 2**22 // scaled.shape[1])
    largest = []
    for flips in signs:
        for start in range(0, len(flips), at_once):
            statistics = flips[start : start + at_once] @ scaled
            largest.append((np.abs(statistics) if two_sided else statistics).max(axis=1))
    return np.concatenate(largest)


def _least_change(changes: np.ndarray, two_sided: bool) -> np.ndarray:
    """Of several controls (n_controls, ...), the change that is smallest: (...)."""
    size = np.abs(changes) if two_sided else changes
    least = size.argmin(axis=0)[np.newaxis]
    return np.take_along_axis(changes, least, axis=0)[0]
