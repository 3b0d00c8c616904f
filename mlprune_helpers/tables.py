"""Tables that read well in a notebook, in Colab, on the book's pages and on a phone.

Numbers stand right below right-aligned headers and are never broken; texts stand left and may be.
A table that is wider than the page scrolls by itself.  Knows nothing of models.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
import pandas as pd

from .metrics import p_told

#: How one column is written: a format string such as "{:.3f}", or a function of the value.
Format = str | Callable[[Any], str]

#: What stands where there is no value.
NOTHING = "–"

#: Columns whose numbers are p-values.
P_VALUES = ("p", "p_value", "p_holm", "p (Holm)")

#: Looks that no style sheet has to provide, so that they hold in Colab too.
_NUMBER = "text-align: right; white-space: nowrap; padding: 0.3em 0.6em"
_NUMBER_HEADER = "text-align: right; white-space: normal; padding: 0.3em 0.6em"
_TEXT = "text-align: left; padding: 0.3em 0.6em"
#: A long text gets a width below which it is not squeezed.
_LONG_TEXT = f"{_TEXT}; min-width: 9em; white-space: pre-line"
_LONG = 24


@dataclass(frozen=True)
class Column:
    """One column as it is shown.

    Attributes:
        name: Its header.
        cells: The written values.
        numeric: Whether they are numbers, which stand on the right.
    """

    name: str
    cells: tuple[str, ...]
    numeric: bool

    @property
    def header_style(self) -> str:
        """CSS of its header, which may wrap: what stands below it, and not it, sets the width."""
        return _NUMBER_HEADER if self.numeric else f"{_TEXT}; white-space: normal"

    @property
    def style(self) -> str:
        """CSS of each of its cells."""
        if self.numeric:
            return _NUMBER
        longest = max((len(cell) for cell in self.cells), default=0)
        return _LONG_TEXT if longest > _LONG else f"{_TEXT}; white-space: nowrap"


@dataclass(frozen=True)
class Table:
    """A table that Jupyter, Colab and the book's pages show as HTML, a terminal as Markdown.

    Attributes:
        columns: From left to right.
        rows: How many rows are shown at once; the rest is folded.
        caption: Above the table.
    """

    columns: tuple[Column, ...]
    rows: int
    caption: str = ""

    @property
    def n_rows(self) -> int:
        """How many rows there are, shown and folded."""
        return len(self.columns[0].cells)

    def _repr_html_(self) -> str:
        shown = _html_table(self.columns, 0, self.rows, self.caption)
        if self.n_rows <= self.rows:
            return shown
        summary = f"<summary>{_folded(self.n_rows - self.rows)}</summary>"
        rest = _html_table(self.columns, self.rows, self.n_rows)
        return f"{shown}\n<details>{summary}\n{rest}\n</details>"

    def __repr__(self) -> str:
        """In Markdown: what is shown, and how much is not."""
        lines = [f"{self.caption}\n"] if self.caption else []
        lines.append(_markdown_line([column.name for column in self.columns]))
        lines.append(
            _markdown_line(["--:" if column.numeric else ":--" for column in self.columns])
        )
        for row in range(min(self.rows, self.n_rows)):
            lines.append(_markdown_line([column.cells[row] for column in self.columns]))
        if self.n_rows > self.rows:
            lines.append(f"\n… {_folded(self.n_rows - self.rows)}")
        return "\n".join(lines)


def show_table(
    frame: pd.DataFrame,
    *,
    digits: int | Mapping[str, int] = 2,
    percent: Collection[str] = (),
    formats: Mapping[str, Format] | None = None,
    intervals: Mapping[str, tuple[str, str]] | None = None,
    index: bool = True,
    rows: int = 10,
    caption: str | None = None,
) -> Table:
    """A data frame as a table to read.

    Missing values become "–", a rounded zero has no sign, truth values become yes and no, and
    columns named ``p``, ``p_value`` or ``p_holm`` are written as p-values ("< 0.001").

    Args:
        frame: What to show.
        digits: After the point, for all columns or by column (2 for those not named).
        percent: Columns of shares, 0 to 1, to be shown in percent (with one digit, unless
            ``digits`` names the column).
        formats: By column, a format string or a function, instead of these rules.
        intervals: By column, the columns with the two ends of its interval, which are then
            written into its cells, as in "1.2 [-0.3, 2.7]", and not shown for themselves.
        index: Whether the row labels are shown, as the first columns.
        rows: How many rows are shown; further ones are folded.
        caption: Above the table.

    Returns:
        The table; as the last expression of a cell it is displayed.

    Raises:
        TypeError: ``frame`` is no data frame.
        ValueError: A column that is named is not there, ``rows`` is below 1, or there is no column.

    Example:
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"arm": ["dense", "pruned"], "change": [None, -0.001]})
        >>> show_table(frame, index=False)
        | arm | change |
        | :-- | --: |
        | dense | – |
        | pruned | 0.00 |
    """
    if not isinstance(frame, pd.DataFrame):
        raise TypeError(f"frame is of the type {type(frame).__name__}; a data frame is needed.")
    if rows < 1:
        raise ValueError(f"rows is {rows}; at least one row has to be shown.")
    named = _with_index(frame) if index else frame
    named = named.set_axis([_header(name) for name in named.columns], axis="columns")
    formats, intervals = dict(formats or {}), dict(intervals or {})
    by_column = dict(digits) if isinstance(digits, Mapping) else {}
    ends = [end for pair in intervals.values() for end in pair]
    _check_columns(named, [*by_column, *percent, *formats, *intervals, *ends])
    columns = []
    for position, name in enumerate(named.columns):
        if name in ends:
            continue
        values = list(named.iloc[:, position])
        written = _writer(name, digits, percent, formats)
        cells = [_cell(value, written) for value in values]
        numeric = all(_is_number(value) or _is_missing(value) for value in values)
        if name in intervals:
            low, high = (list(named[end]) for end in intervals[name])
            cells = [_with_interval(*one, written) for one in zip(cells, low, high)]
        columns.append(Column(name, tuple(cells), numeric))
    if not columns:
        raise ValueError("frame has no column to show.")
    return Table(tuple(columns), rows, caption or "")


# -- cells -----------------------------------------------------------------------------------------


def _writer(
    name: str,
    digits: int | Mapping[str, int],
    percent: Collection[str],
    formats: Mapping[str, Format],
) -> Callable[[Any], str]:
    """How the values of a column are written."""
    if name in formats:
        given = formats[name]
        return given if callable(given) else lambda value: _unsigned_zero(given.format(value))
    if name in P_VALUES:
        return _for_numbers(_p_value)
    by_column = digits if isinstance(digits, Mapping) else {}
    if name in percent:
        places = by_column.get(name, 1)
        return _for_numbers(lambda share: f"{_fixed(100 * share, places)} %")
    places = by_column.get(name, 2) if isinstance(digits, Mapping) else digits
    return _for_numbers(lambda number: _fixed(number, places))


def _p_value(p: float) -> str:
    """As in a sentence, but for the letter, which stands above: "0.012", "< 0.001"."""
    return p_told(p).removeprefix("p ").removeprefix("= ")


def _for_numbers(written: Callable[[Any], str]) -> Callable[[Any], str]:
    """A rule for numbers, which leaves other values as they are."""
    return lambda value: written(value) if _is_number(value) else _plain(value)


def _cell(value: Any, written: Callable[[Any], str]) -> str:
    return NOTHING if _is_missing(value) else str(written(value))


def _fixed(number: Any, places: int) -> str:
    """So many digits after the point; whole numbers of a type of their own need none."""
    if isinstance(number, Integral):
        return str(number)
    if math.isinf(number):
        return "∞" if number > 0 else "-∞"
    return _unsigned_zero(f"{number:.{places}f}")


def _plain(value: Any) -> str:
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple, set)) else str(value)


def _unsigned_zero(number: str) -> str:
    """Without the sign where rounding has left nothing but zeros."""
    nothing_left = number.startswith("-") and not any(digit in number for digit in "123456789∞")
    return number[1:] if nothing_left else number


def _with_interval(cell: str, low: Any, high: Any, written: Callable[[Any], str]) -> str:
    """A cell with its interval; without where there is none."""
    if _is_missing(low) or _is_missing(high):
        return cell
    return f"{cell} [{_cell(low, written)}, {_cell(high, written)}]"


def _is_missing(value: Any) -> bool:
    return value is None or (pd.api.types.is_scalar(value) and bool(pd.isna(value)))


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, (bool, np.bool_))


# -- headers ---------------------------------------------------------------------------------------


def _with_index(frame: pd.DataFrame) -> pd.DataFrame:
    """Row labels as the first columns; an index without a name has an empty header."""
    names = ["" if name is None else str(name) for name in frame.index.names]
    return frame.reset_index(names=names, allow_duplicates=True)


def _header(name: Hashable) -> str:
    """A column's name; several levels in one line."""
    levels = name if isinstance(name, tuple) else (name,)
    return ", ".join(str(level) for level in levels if level != "")


def _check_columns(frame: pd.DataFrame, asked: Collection[str]) -> None:
    known = list(frame.columns)
    for name in asked:
        if name not in known:
            raise ValueError(f"There is no column {name!r}; there are: {known}.")
        if known.count(name) > 1:
            raise ValueError(f"{known.count(name)} columns are named {name!r}; give each its own.")


# -- text ------------------------------------------------------------------------------------------


def _folded(n: int) -> str:
    return f"{n} more row{'s' if n > 1 else ''}"


def _markdown_line(cells: list[str]) -> str:
    escaped = [" ".join(cell.split()).replace("|", "\\|") for cell in cells]
    return f"| {' | '.join(escaped)} |"


def _html_table(columns: tuple[Column, ...], start: int, stop: int, caption: str = "") -> str:
    """Rows start to stop.  The class dataframe takes the site's colours, light and dark."""
    heads = "".join(_html_cell("th", column.name, column) for column in columns)
    lines = [f"<caption>{html.escape(caption)}</caption>"] if caption else []
    lines += [f"<thead><tr>{heads}</tr></thead>", "<tbody>"]
    for row in range(start, min(stop, len(columns[0].cells))):
        cells = "".join(_html_cell("td", column.cells[row], column) for column in columns)
        lines.append(f"<tr>{cells}</tr>")
    table = "\n".join([*lines, "</tbody>"])
    look = 'class="dataframe mlprune-table mathjax_ignore tex2jax_ignore"'
    return f'<div style="max-width: 100%; overflow-x: auto"><table {look}>\n{table}\n</table></div>'


def _html_cell(tag: str, text: str, column: Column) -> str:
    if column.numeric:
        text = text.replace("-", "−")  # as wide as a digit, unlike the hyphen
    style = column.header_style if tag == "th" else column.style
    return f'<{tag} style="{style}">{html.escape(text)}</{tag}>'
