"""What share to prune: a number, or a pattern n:m.  Knows no torch."""

from __future__ import annotations


def parse_sparsity(sparsity: float | str) -> float | tuple[int, int]:
    """0.3 → 0.3, "2:4" → (2, 4); anything else is a ValueError."""
    if (
        isinstance(sparsity, str)
        and sparsity.count(":") == 1
        and sparsity.replace(":", "").isdigit()
    ):
        n, m = map(int, sparsity.split(":"))
        if not 0 < n < m:
            raise ValueError(
                f"sparsity is '{n}:{m}'; allowed: 'n:m' with 0 < n < m, such as '2:4'."
            )
        return n, m
    if (
        isinstance(sparsity, bool)
        or not isinstance(sparsity, (int, float))
        or not 0 <= sparsity < 1
    ):
        raise ValueError(
            f"sparsity is {sparsity!r}; allowed: a number in [0, 1), or text 'n:m' such as '2:4'."
        )
    return float(sparsity)
