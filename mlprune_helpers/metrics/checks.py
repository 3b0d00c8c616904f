"""What every metric checks of what it is given: a wrong value is refused by its place."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Set
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

#: What the axes of an array are called in an error, by how many it has.
_AXES = {1: ("row",), 2: ("row", "choice"), 3: ("input", "row", "choice")}


def check_is_list(values: object, name: str) -> None:
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


def check_as_many(**lists: Collection) -> None:
    """All have as many elements, at least one."""
    lengths = {len(values) for values in lists.values()}
    if len(lengths) > 1 or 0 in lengths:
        counts = " and ".join(f"{len(values)} {name}" for name, values in lists.items())
        raise ValueError(f"{counts}; as many are needed, at least one.")


def check_whole_number(value: object, name: str, *, at_least: int) -> None:
    is_whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not is_whole or value < at_least:  # type: ignore[operator]
        raise ValueError(f"{name} is {value!r}; a whole number is needed, at least {at_least}.")


def as_elements(values: Any, name: str) -> list[Any]:
    """The elements of a list, or of what is like one: a tuple, an array, a column."""
    check_is_list(values, name)
    n_dimensions = getattr(values, "ndim", 1)
    if n_dimensions != 1:
        raise ValueError(f"{name} has {n_dimensions} dimensions; a plain list is needed.")
    return [_plain(value) for value in values]


def _plain(value: Any) -> Any:
    """A number of numpy or torch as Python's: torch's are alike only to themselves."""
    return value.item() if getattr(value, "ndim", None) == 0 else value


def as_texts(values: Any, name: str) -> list[str]:
    """A list of texts; an element that is none is an error that names its place."""
    texts = as_elements(values, name)
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(
                f"{name}: row {row} is {text!r}; a text is needed, as in all rows. Find out why "
                "there is none, or leave the row out of all lists."
            )
    return texts


def as_references(values: Any) -> list[str]:
    """Texts of which none is blank: a sentence without its translation cannot be scored."""
    references = as_texts(values, "references")
    for row, text in enumerate(references):
        if not text.strip():
            raise ValueError(
                f"references: row {row} is blank; a reference has words. Leave the sentence out of "
                "all lists."
            )
    return references


def has_names(values: ArrayLike, name: str) -> bool:
    """Whether this list has a text in it."""
    return any(isinstance(value, str) for value in as_elements(values, name))


def as_codes(names: Collection[Hashable], name: str) -> np.ndarray:
    """0, 1, … for distinct values in the order of their first appearance: (n,)."""
    code_of: dict[Hashable, int] = {}
    codes = []
    for row, value in enumerate(as_elements(names, name)):
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


def as_indices(values: ArrayLike, name: str, n_labels: int | None = None) -> np.ndarray:
    """Indices of labels (n,), as integers."""
    numbers = as_row_of_numbers(values, name)
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


def as_rows_of_choices(values: ArrayLike, name: str) -> np.ndarray:
    """Numbers (n, n_choices), at least one of each."""
    numbers = as_numbers(values, name)
    if numbers.ndim != 2 or not numbers.size:
        raise ValueError(f"{name} has the shape {numbers.shape}; it is (rows, choices), not empty.")
    return numbers


def as_row_of_numbers(values: ArrayLike, name: str) -> np.ndarray:
    """Numbers (n,), at least one."""
    numbers = as_numbers(values, name)
    if numbers.ndim != 1 or not len(numbers):
        raise ValueError(
            f"{name} has the shape {numbers.shape}; one row of numbers is needed, at least one."
        )
    return numbers


def as_numbers(values: ArrayLike, name: str) -> np.ndarray:
    """Finite float64 of one to three dimensions; what is none is an error that names its place."""
    check_is_list(values, name)
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
