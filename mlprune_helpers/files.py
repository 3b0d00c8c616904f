"""The cache folder; files and folders that are written beside, then renamed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import numpy as np
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


class SavedAsJson:
    """A dataclass of plain data and arrays that is kept in one JSON file.

    Its own check says whether it can be, and its ``__post_init__`` makes arrays of lists again.
    """

    def _check(self) -> None:
        """Raise ValueError or TypeError where a field is not what it should be."""

    def save(self, path: str | Path) -> None:
        """Write one JSON file, complete or not at all; :meth:`load` gives back the same values."""
        self._check()
        content = json.dumps(vars(self), default=np.ndarray.tolist, allow_nan=False)
        with written_beside(path) as beside:
            beside.write_text(content, encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what :meth:`save` wrote."""
        return cls(**json.loads(Path(path).read_text(encoding="utf-8")))
