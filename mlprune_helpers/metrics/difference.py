"""A difference of two means: its interval, its p-value, and how they are told."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.stats import t as student

from .p_values import p_told

#: Five groups have 32 patterns of signs, of which two have all signs alike: p is at least 0.0625.
SMALLEST_N_GROUPS = 6

#: By unit: what a difference is multiplied by before it is shown, and its decimals.
_UNITS = {"points": (100, 1), "nats": (1, 2)}


@dataclass(frozen=True)
class Comparison:
    """A difference of two means, and what it rests on.

    Interval and p-value come from the same test (see :func:`paired_bootstrap`), so 0 lies in the
    interval where the p-value is above 0.05, and nowhere else.

    Attributes:
        difference: b - a, in the unit of what was compared.
        low: Lower end of its 95 % interval; ``-inf`` where the data exclude nothing.
        high: Upper end of its 95 % interval; ``inf`` where the data exclude nothing.
        p_value: Of a two-sided test of no difference.
        n: How many rows.
        n_groups: How many groups of rows, which are independent of one another.
        n_better: Groups that add to the difference.
        n_worse: Groups that take from it.
        standard_error: Of the difference, by leaving out a group at a time (the jackknife); ``inf``
            for a single group.
    """

    difference: float
    low: float
    high: float
    p_value: float
    n: int
    n_groups: int
    n_better: int
    n_worse: int
    standard_error: float

    @property
    def changed(self) -> bool:
        """Whether any group rose or fell."""
        return self.n_better + self.n_worse > 0

    @property
    def bounded(self) -> bool:
        """Whether the data exclude any difference at all."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    def __str__(self) -> str:
        return self.text()

    def text(self, unit: str = "points", *, brackets: bool = True) -> str:
        """The difference with its interval, its p-value, and what it rests on.

        Args:
            unit: ``"points"`` for shares (times 100), or ``"nats"``.
            brackets: Whether all but the difference stands in brackets, or after a comma.

        Returns:
            One phrase; where nothing changed or no interval exists, it says so.

        Raises:
            ValueError: ``unit`` is another.
        """
        scale, decimals = _scale_and_decimals(unit)
        basis = f"{_counted(self.n, 'row')} in {_counted(self.n_groups, 'group')}"
        if not self.changed:
            return f"no difference: no group rose or fell, {basis}"
        difference = f"{_signed(scale * self.difference, decimals)} {unit}"
        interval = self._interval_text(scale, decimals)
        rest = f"{interval}, {p_told(self.p_value)}, {basis}"
        return f"{difference} ({rest})" if brackets else f"{difference}, {rest}"

    def as_points(self) -> dict[str, float | None]:
        """For a results file: ``difference``, ``low`` and ``high`` in points, and ``p_value``.

        Returns:
            Plain numbers; an end where the interval is unbounded is None.
        """
        return self._plain("points")

    def as_nats(self) -> dict[str, float | None]:
        """For a results file: ``difference``, ``low`` and ``high`` in nats, and ``p_value``.

        Returns:
            Plain numbers; an end where the interval is unbounded is None.
        """
        return self._plain("nats")

    def detectable(self, power: float = 0.8) -> float:
        """The true difference that a comparison of this size would find this often, at 5 %.

        It is (t(0.975) + t(power)) standard errors, with Student's t at ``n_groups - 1`` degrees of
        freedom (Bloom 1995, "Minimum detectable effects", Evaluation Review 19(5)).

        Args:
            power: In how many of such comparisons the p-value would be at most 0.05.

        Returns:
            In the unit of the difference; ``inf`` where no difference could be found because the
            groups are too few; NaN where the groups do not differ, since the spread of other data
            cannot be told from those.

        Raises:
            ValueError: ``power`` does not lie between 0.05 and 1.
        """
        if not 0.05 < power < 1:  # also of NaN
            raise ValueError(f"power is {power!r}; it lies between 0.05 and 1, such as 0.8.")
        if self.n_groups < SMALLEST_N_GROUPS:
            return math.inf
        if self.standard_error == 0:
            return math.nan
        freedom = self.n_groups - 1
        n_errors = student.ppf(0.975, freedom) + student.ppf(power, freedom)
        return float(n_errors * self.standard_error)

    def _interval_text(self, scale: float, decimals: int) -> str:
        if self.n_groups < SMALLEST_N_GROUPS:
            return f"no interval: fewer than {SMALLEST_N_GROUPS} groups exclude nothing"
        if not self.bounded:
            return "no interval: too few sign-flips to exclude anything"
        low = _away_from_zero(scale * self.low, decimals) if self.low > 0 else None
        high = _away_from_zero(scale * self.high, decimals) if self.high < 0 else None
        low = low or _signed(scale * self.low, decimals)
        high = high or _signed(scale * self.high, decimals)
        return f"95 % interval {low} to {high}"

    def _plain(self, unit: str) -> dict[str, float | None]:
        scale, _ = _scale_and_decimals(unit)
        return {
            "difference": scale * self.difference,
            "low": scale * self.low if math.isfinite(self.low) else None,
            "high": scale * self.high if math.isfinite(self.high) else None,
            "p_value": self.p_value,
        }


def _scale_and_decimals(unit: str) -> tuple[float, int]:
    if unit not in _UNITS:
        raise ValueError(f"unit is {unit!r}; allowed: {', '.join(map(repr, _UNITS))}.")
    return _UNITS[unit]


def _signed(value: float, decimals: int) -> str:
    """With a sign, but for what rounds to zero: no minus ("z")."""
    return f"{value:+z.{decimals}f}"


def _away_from_zero(value: float, decimals: int) -> str:
    """With as many decimals as show that it is not zero, since a p-value beside it says so."""
    while round(value, decimals) == 0 and decimals < 6:
        decimals += 1
    return _signed(value, decimals)


def _counted(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
