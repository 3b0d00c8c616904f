"""Environment variables of kernels and of the command line.  Knows no torch."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator, Mapping

import psutil

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


def machine() -> dict[str, object]:
    """What a time depends on: ``cores`` that this process may use, ``memory_gb``, ``system``."""
    # Fewer than the machine has, where a container or a queue allots them.
    allotted = getattr(os, "sched_getaffinity", None)
    cores = len(allotted(0)) if allotted else os.cpu_count()
    return {
        "cores": cores,
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "system": f"{platform.system()} {platform.machine()}",
    }
