"""The sentences of a verdict, and the table that a chapter ends with.

A verdict follows its data: every sentence here is chosen by a comparison's p-value and by its sign,
and carries its interval, so that a run with other parameters says what *its* numbers say.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from .metrics import Comparison

#: Above it, chance alone is an explanation.
ALPHA = 0.05


@dataclass(frozen=True)
class Verdict:
    """What a chapter has to say on one claim.

    Attributes:
        claim: The claim, as whoever makes it would put it.
        needed: What would have to be seen for it to hold.
        found: What was seen, with its interval.
        possible: What this leaves possible.
    """

    claim: str
    needed: str
    found: str
    possible: str


def verdict_table(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """The table that a chapter ends with: a row a claim.

    Args:
        verdicts: In the order of the chapter.

    Returns:
        Columns ``needed``, ``found`` and ``still possible``, indexed by ``claim``.

    Raises:
        ValueError: There is none.
    """
    if not verdicts:
        raise ValueError("verdicts is empty; a chapter says what follows from it.")
    table = pd.DataFrame([asdict(verdict) for verdict in verdicts])
    return table.rename(columns={"possible": "still possible"}).set_index("claim")


def judged(
    comparison: Comparison,
    *,
    up: str,
    down: str,
    undecided: str,
    unit: str = "points",
    p_value: float | None = None,
    numbers: bool = True,
) -> str:
    """One of three sentences, by a comparison, and its numbers.

    Args:
        comparison: Of two means.
        up: What to say if the difference is above zero, and chance alone seldom makes it.
        down: The same below zero.
        undecided: What to say if chance alone could make it, or nothing changed.
        unit: Of the numbers, ``"points"`` or ``"nats"``.
        p_value: Counts instead of the comparison's own: one corrected for several tests.
        numbers: Whether the numbers follow in brackets.

    Returns:
        The sentence, without a full stop.

    Example:
        >>> from mlprune_helpers import paired_bootstrap
        >>> same = paired_bootstrap([0, 1, 1, 0], [0, 1, 1, 0])
        >>> judged(same, up="better", down="worse", undecided="no change", numbers=False)
        'no change'
    """
    p = comparison.p_value if p_value is None else p_value
    if p >= ALPHA:
        sentence = undecided
    else:
        sentence = up if comparison.difference > 0 else down
    if not numbers:
        return sentence
    return f"{sentence} ({comparison.text(unit, brackets=False)})"


def listed(names: Iterable[str]) -> str:
    """Names in a sentence: ``"French, Spanish and Swahili"``, or ``"none"``."""
    *before, last = [*names] or ["none"]
    return f"{', '.join(before)} and {last}" if before else last


def counted(number: int, singular: str, plural: str | None = None) -> str:
    """A number with its noun: ``"1 row"``, ``"12 rows"``."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"


def saved(verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    """Verdicts as JSON data, for :func:`save_results`."""
    return [asdict(verdict) for verdict in verdicts]
