"""What the functions on features are given: refused where it would give a silent wrong number."""

from __future__ import annotations

import numbers
from collections.abc import Sequence

import numpy as np

from ..activations import ActivationStats

SILENT = np.finfo(np.float32).tiny  # a size that counts as none: its logarithm is still a number


def listed(control: ActivationStats | Sequence[ActivationStats]) -> list[ActivationStats]:
    """One control or several, as a list."""
    controls = [control] if isinstance(control, ActivationStats) else list(control)
    if not controls:
        raise ValueError("No control given; needed: the statistics of other prompts.")
    return controls


def check_comparable(translation: ActivationStats, controls: Sequence[ActivationStats]) -> None:
    for stats in (translation, *controls):
        if not isinstance(stats, ActivationStats):
            raise TypeError(
                f"{type(stats).__name__} where ActivationStats are needed: see collect_activations."
            )
        if not np.isfinite(stats.prompt_squares).all():
            raise ValueError(
                "These statistics are not finite: collect them with a model in float32."
            )
        if not len(stats.prompt_tokens) or np.min(stats.prompt_tokens) < 1:
            raise ValueError("These statistics have no prompt, or one of which no token counts.")
    shape = translation.prompt_squares.shape[1:]
    for stats in controls:
        other = stats.prompt_squares.shape[1:]
        if other != shape or stats.input_squares.keys() != translation.input_squares.keys():
            raise ValueError(
                "Translation and control are of different models: their layers and features are "
                f"{shape} and {other}, or their matrices differ. Collect both with one model."
            )


def check_as_many_prompts(
    translation: ActivationStats, control: ActivationStats, *, least: int
) -> None:
    n, others = len(translation.prompt_tokens), len(control.prompt_tokens)
    if n != others or n < least:
        raise ValueError(
            f"{n} translation and {others} control prompts; needed: pairs of them, and at least "
            f"{least} (two units, where prompts go by units)."
        )


def check_count(name: str, value: int, *, most: int | None = None) -> None:
    if not is_whole(value) or value < 1 or (most is not None and value > most):
        limit = "of at least 1" if most is None else f"from 1 to {most}"
        raise ValueError(f"{name} is {value!r}; allowed: a whole number {limit}.")


def is_number(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, (bool, np.bool_))


def is_whole(value: object) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, (bool, np.bool_))


def checked_numbers(name: str, values: np.ndarray) -> np.ndarray:
    """As floats; NaN, which every comparison would pass over, is refused."""
    array = np.asarray(values)
    if array.dtype == bool or not np.issubdtype(array.dtype, np.floating):
        array = array.astype(np.float64)
    if np.isnan(array).any():
        where = tuple(int(i) for i in np.argwhere(np.isnan(array))[0])
        raise ValueError(f"{name} are NaN at {where}; allowed: numbers.")
    return array


def checked_mask(name: str, values: np.ndarray) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype != bool:
        raise ValueError(
            f"{name} are of type {array.dtype}; allowed: a bool array. For a mask of 0 and 1, pass "
            "mask.astype(bool)."
        )
    return array


def floored(sizes: np.ndarray) -> np.ndarray:
    return np.maximum(sizes, SILENT)


def log_size(sizes: np.ndarray) -> np.ndarray:
    return np.log(floored(sizes))


def rms_per_prompt(stats: ActivationStats) -> np.ndarray:
    """Root mean square over the tokens of each prompt (n_prompts, n_layers + 1, hidden_size)."""
    return np.sqrt(stats.prompt_squares / stats.prompt_tokens[:, np.newaxis, np.newaxis])
