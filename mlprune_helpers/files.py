"""The cache folder; files and folders that are written beside, then renamed."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import platformdirs


def cache_dir() -> Path:
    """Where prepared models and cached results live: ``MLPRUNE_CACHE``, or the user's cache."""
    return Path(os.environ.get("MLPRUNE_CACHE") or platformdirs.user_cache_dir("mlprune"))


@contextlib.contextmanager
def written_beside(path: str | Path) -> Iterator[Path]:
    """A path beside ``path`` to write a file or folder to; renamed to ``path`` if all goes well."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{uuid.uuid4().hex[:8]}.{path.name}")
    try:
        yield beside
        os.replace(beside, path)
    finally:
        shutil.rmtree(beside) if beside.is_dir() else beside.unlink(missing_ok=True)
