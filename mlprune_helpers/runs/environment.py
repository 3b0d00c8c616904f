"""Environment variables of kernels and of the command line.  Knows no torch."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping

#: Bars and advice would land on the published page as error output.
QUIET = {
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",
}


@contextlib.contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Meanwhile the environment has these variables; then it is as it was.

    Args:
        values: By name.
    """
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def short_waits() -> dict[str, str]:
    """Variables that let OpenMP's threads wait for each other without keeping a core busy.

    By default they spin at every barrier.  Beside one other busy process, two threads are then
    slower than one: what takes 16 seconds alone takes 50 to 100.  With this count it takes 16
    again.  It is read when torch is imported.

    Returns:
        Nothing, if the reader has chosen a way of waiting: so it can go over any environment.
    """
    if "GOMP_SPINCOUNT" in os.environ or "OMP_WAIT_POLICY" in os.environ:
        return {}
    return {"GOMP_SPINCOUNT": "1000"}
