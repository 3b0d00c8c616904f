"""What share to prune: a number, or a pattern n:m.  Knows no torch."""

from __future__ import annotations

import re
from numbers import Real
from typing import Any

ALLOWED = "a number in [0, 1), or text 'n:m' such as '2:4'"


def parse_sparsity(sparsity: Any) -> float | tuple[int, int]:
    """Read a sparsity as users give it.

    Args:
        sparsity: A number in [0, 1), of Python or numpy, or text "n:m" with 0 < n < m.

    Returns:
        The share as a float, or (n, m).

    Raises:
        ValueError: For anything else, with a hint where a usual slip made it.

    Example:
        >>> parse_sparsity(0.3), parse_sparsity("2:4")
        (0.3, (2, 4))
    """
    if isinstance(sparsity, str):
        return _pattern(sparsity)
    if isinstance(sparsity, bool) or not isinstance(sparsity, Real):
        raise _refused(sparsity)
    # The shortest text of a numpy number: float32's 0.29 as it is written, not 0.28999999165534973.
    number = float(str(sparsity)) if hasattr(sparsity, "dtype") else float(sparsity)
    if not 0 <= number < 1:
        raise _refused(sparsity, _hint_for_number(number))
    return number


def sparsity_text(pattern: float | tuple[int, int]) -> float | str:
    """A parsed sparsity as it is recorded: 0.3 or "2:4"."""
    return pattern if isinstance(pattern, float) else f"{pattern[0]}:{pattern[1]}"


def check_pattern(n: int, m: int) -> None:
    """Refuse a pattern that prunes nothing or everything."""
    if not 0 < n < m:
        raise ValueError(f"sparsity is '{n}:{m}'; allowed: 'n:m' with 0 < n < m, such as '2:4'.")


def _pattern(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"\s*([0-9]+)\s*:\s*([0-9]+)\s*", text)
    if not found:
        raise _refused(text, _hint_for_text(text))
    n, m = int(found[1]), int(found[2])
    check_pattern(n, m)
    return n, m


def _hint_for_text(text: str) -> str:
    percent = text.strip().endswith("%")
    try:
        number = float(text.strip().removesuffix("%"))
    except ValueError:
        return ""
    share = number / 100 if percent else number
    return f"Write {share:g}, a number without quotes." if 0 <= share < 1 else ""


def _hint_for_number(number: float) -> str:
    hints = []
    if number.is_integer():
        n, m = divmod(int(number), 60)  # YAML 1.1 reads a:b as a number to the base of 60
        if 0 < n < m:
            hints.append(
                f"YAML reads {n}:{m} without quotes as {int(number)}: write '{n}:{m}' in quotes."
            )
    if 1 < number < 100:
        hints.append(f"For {number:g} %, write {number / 100:g}.")
    return " ".join(hints)


def _refused(sparsity: Any, hint: str = "") -> ValueError:
    return ValueError(f"sparsity is {sparsity!r}; allowed: {ALLOWED}. {hint}".rstrip())
