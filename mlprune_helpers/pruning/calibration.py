"""What users give as calibration or contrast, read and checked before anything is touched."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..activations import ActivationStats
from ..models.architecture import weight_matrix
from ..models.language_model import LanguageModel

#: One corpus, or several of which each counts the same.
Calibration = Sequence[str] | ActivationStats | Mapping[str, Sequence[str] | ActivationStats]

#: Raw sums that ready statistics hold.
READY_KINDS = ("count", "sums", "squares")


@dataclass(frozen=True)
class Prompts:
    """Texts to run the model over: {part: texts}."""

    parts: dict[str, list[str]]

    @property
    def digest(self) -> str:
        """Identity, for provenance."""
        return hashlib.sha256(json.dumps(self.parts).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class ReadyStatistics:
    """What was collected from the dense model: {part: statistics}."""

    parts: dict[str, ActivationStats]

    @property
    def digest(self) -> str:
        """Identity, for provenance: of all that pruning takes from them."""
        digest = hashlib.sha256()
        for part, stats in self.parts.items():
            digest.update(json.dumps([part, stats.n_tokens]).encode())
            for kind in ("sums", "squares"):
                for name, values in _arrays(stats, kind).items():
                    digest.update(json.dumps([kind, name, str(values.dtype)]).encode())
                    digest.update(np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()[:16]

    def check(self, lm: LanguageModel, kinds: Collection[str]) -> None:
        """Refuse statistics of another model, without the sums needed, or not finite."""
        for stats in self.parts.values():
            if stats.n_tokens < 1:
                raise ValueError("These statistics are of no tokens: collect them anew.")
            for kind in ("sums", "squares"):
                if kind in kinds:
                    _check_arrays(lm, kind, _arrays(stats, kind))

    def sums(self, lm: LanguageModel, kinds: Collection[str]) -> dict[str, dict[str, Tensor]]:
        """{matrix: {kind: sums}}; of several parts, the sum of what each has per token."""
        return {
            name: {kind: torch.as_tensor(self._sum(name, kind)) for kind in kinds}
            for name in lm.prunable
        }

    def _sum(self, name: str, kind: str) -> Any:
        total: Any = 0
        for stats in self.parts.values():
            scale = 1 / stats.n_tokens if len(self.parts) > 1 else 1.0
            one = stats.n_tokens if kind == "count" else _arrays(stats, kind)[name]
            total = total + scale * np.asarray(one, dtype=np.float64)
        return total


def read_calibration(setting: str, given: Calibration) -> Prompts | ReadyStatistics:
    """Read what is given as ``setting``, "calibration" or "contrast".

    Args:
        setting: For the messages.
        given: Texts, ActivationStats, or a dict of either.

    Returns:
        The corpus; a lone one is the part "".

    Raises:
        TypeError: Where something is of another type, such as one string, or a prompt that is no
        text. ValueError: Where there are no texts, or texts and statistics both.
    """
    parts = dict(given) if isinstance(given, Mapping) else {"": given}
    if not parts:
        raise ValueError(f"{setting} is an empty dict: No texts given.")
    for name in parts:
        if not isinstance(name, str):
            raise TypeError(f"{setting}: parts have names that are text, not {name!r}.")
    statistics = {n: part for n, part in parts.items() if isinstance(part, ActivationStats)}
    if len(statistics) == len(parts):
        return ReadyStatistics(statistics)
    if statistics:
        raise ValueError(f"Statistics and prompts do not mix: {setting} holds both.")
    return Prompts({name: _texts(_place(setting, name), part) for name, part in parts.items()})


def _place(setting: str, part: str) -> str:
    return f"{setting}[{part!r}]" if part else setting


def _texts(place: str, given: Any) -> list[str]:
    """A list of texts, checked."""
    if isinstance(given, (str, bytes)):
        raise TypeError(
            f"{place}: A list of texts is expected, not one string: put it into a list."
        )
    flat = getattr(given, "ndim", 1) == 1  # a table would go by as the names of its columns
    if not flat or isinstance(given, (Set, Mapping)) or not isinstance(given, Iterable):
        raise TypeError(
            f"{place} is a {type(given).__name__}; allowed: a list of texts, ActivationStats, or a "
            "dict of either."
        )
    texts = list(given)
    if not texts:
        raise ValueError(f"{place}: No texts given.")
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"{place}: text {number} is {text!r}, not a text.")
    return [str(text) for text in texts]  # numpy's strings too


def _arrays(stats: ActivationStats, kind: str) -> Mapping[str, np.ndarray]:
    """{matrix: "sums" or "squares" over its inputs}."""
    return getattr(stats, f"input_{kind}", None) or {}


def _check_arrays(lm: LanguageModel, kind: str, arrays: Mapping[str, np.ndarray]) -> None:
    if not arrays:
        raise ValueError(
            f"These statistics hold no {kind} of inputs: collect them anew, or pass prompts."
        )
    if arrays.keys() != lm.prunable.keys():
        raise ValueError(
            f"These statistics are of another model than {lm.name}: the matrices have other names."
        )
    for name, module in lm.prunable.items():
        width = weight_matrix(module).shape[1]
        values = np.asarray(arrays[name])
        if values.shape != (width,):
            raise ValueError(
                f"These statistics are of another model than {lm.name}: {name} has {width} inputs, "
                f"they hold an array of shape {values.shape}."
            )
        if not np.isfinite(values).all() or (kind == "squares" and (values < 0).any()):
            raise ValueError(
                f"Statistics of the inputs of {name} are not finite, or squares below zero: "
                "collect them anew."
            )
