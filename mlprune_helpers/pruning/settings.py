"""The settings of a pruning, checked before anything is touched."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..activations import PADDINGS
from ..models.architecture import weight_matrix
from ..models.language_model import LanguageModel
from .calibration import READY_KINDS, Calibration, Prompts, ReadyStatistics, read_calibration
from .masks import GROUPS
from .methods import METHODS, Method
from .sparsity import parse_sparsity, sparsity_text

#: What the user calls the data whose inputs a method asks for.
SETTING_OF = {"input": "calibration", "contrast": "contrast"}


@dataclass(frozen=True)
class Settings:
    """What :func:`prune` was asked for: right in itself, and for the model."""

    method_name: str
    method: Method
    pattern: float | tuple[int, int]
    group: str
    propagate_error: bool
    max_length: int | None
    padding: str
    seed: int
    token_budget: int
    #: Of the corpora that the method needs: "input" (the calibration data), "contrast".
    corpora: dict[str, Prompts | ReadyStatistics]

    @property
    def sparsity(self) -> float | str:
        """0.3 or "2:4"."""
        return sparsity_text(self.pattern)

    @property
    def share(self) -> float:
        """The share of weights to prune."""
        if isinstance(self.pattern, float):
            return self.pattern
        n, m = self.pattern
        return n / m

    @property
    def prompts(self) -> dict[str, Prompts]:
        """The corpora over which the model has to run: all, or none."""
        return {name: c for name, c in self.corpora.items() if isinstance(c, Prompts)}

    @property
    def statistics(self) -> dict[str, ReadyStatistics]:
        """The corpora whose statistics are ready: all, or none."""
        return {name: c for name, c in self.corpora.items() if isinstance(c, ReadyStatistics)}

    def record(self) -> dict[str, Any]:
        """For provenance, ready for JSON; None where a setting has no say."""
        run = bool(self.prompts)
        digests = {
            SETTING_OF[corpus]: self.corpora[corpus].digest if corpus in self.corpora else None
            for corpus in SETTING_OF
        }
        return {
            "group": self.group,
            "propagate_error": self.propagate_error if self.corpora else None,
            "max_length": self.max_length if run else None,
            "padding": self.padding if run else None,
            "token_budget": self.token_budget if run else None,
            "seed": self.seed if self.method.random else None,
            **digests,
            **self.method.description,
        }


def checked_settings(
    lm: LanguageModel,
    given: Mapping[str, Calibration | None],
    *,
    method: str,
    sparsity: float | str,
    group: str,
    propagate_error: bool,
    max_length: int | None,
    padding: str,
    seed: int,
    token_budget: int,
) -> Settings:
    """Check what :func:`prune` was asked for.

    Args:
        lm: The model to be pruned.
        given: {"calibration": …, "contrast": …}.
        method: And all others: as in :func:`prune`.

    Raises:
        ValueError: Naming the setting, matrix or value that is wrong, and what is allowed.
        TypeError: For what is of another kind than allowed.
    """
    if not isinstance(method, str):
        raise TypeError(
            f"method is {method!r}; it goes by its name: put it into METHODS, and pass the name."
        )
    _check_choice("method", method, METHODS)
    _check_choice("group", group, GROUPS)
    _check_choice("padding", padding, PADDINGS)
    if not isinstance(propagate_error, (bool, np.bool_)):
        raise ValueError(f"propagate_error is {propagate_error!r}; allowed: True, False.")
    chosen = METHODS[method]
    settings = Settings(
        method_name=method,
        method=chosen,
        pattern=parse_sparsity(sparsity),
        group=group,
        propagate_error=bool(propagate_error),
        max_length=None if max_length is None else _whole("max_length", max_length, least=1),
        padding=padding,
        seed=_whole("seed", seed, least=0),
        token_budget=_whole("token_budget", token_budget, least=1),
        corpora=_corpora(method, chosen, given),
    )
    _check_statistics(lm, settings)
    _check_group(settings)
    _check_weights(lm, settings)
    return settings


def _check_choice(setting: str, value: Any, allowed: Any) -> None:
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{setting} is {value!r}; allowed: {', '.join(allowed)}.")


def _whole(setting: str, value: Any, least: int) -> int:
    """A whole number, of Python or numpy."""
    most = 2**63 - 1
    if not isinstance(value, (bool, np.bool_)):
        try:
            number = operator.index(value)
        except TypeError:
            number = least - 1
        if least <= number <= most:
            return number
    raise ValueError(f"{setting} is {value!r}; allowed: a whole number from {least} on.")


def _corpora(
    name: str, method: Method, given: Mapping[str, Calibration | None]
) -> dict[str, Prompts | ReadyStatistics]:
    """The corpora that the method needs, read."""
    if given["contrast"] is not None and "contrast" not in method.corpora:
        takers = [n for n, other in METHODS.items() if "contrast" in other.corpora]
        raise ValueError(
            f"contrast goes with methods that need it: {', '.join(takers)}; method {name!r} does "
            "not."
        )
    corpora = {}
    for corpus in method.corpora:
        setting = SETTING_OF[corpus]
        value = given[setting]
        if value is None:
            example = "code" if corpus == "contrast" else "build_demonstrations gives"
            raise ValueError(
                f"{setting} is missing: method {name!r} needs {setting}: a list of prompts, such "
                f"as {example}."
            )
        corpora[corpus] = read_calibration(setting, value)
    return corpora


def _check_statistics(lm: LanguageModel, settings: Settings) -> None:
    """Whether ready statistics, where there are some, do for the method and fit the model."""
    if not settings.statistics:
        return
    if settings.propagate_error:
        raise ValueError(
            "Ready statistics are of the dense model: pass propagate_error=False, or prompts "
            "instead."
        )
    missing = [kind for kind in settings.method.kinds if kind not in READY_KINDS]
    if missing:
        raise ValueError(
            f"method {settings.method_name!r} needs {missing[0]} of inputs, which ready statistics "
            "do not hold: pass prompts."
        )
    if settings.prompts:
        raise ValueError(
            "Statistics and prompts do not mix: pass both calibration and contrast as the same."
        )
    for corpus in settings.statistics.values():
        corpus.check(lm, settings.method.kinds)


def _check_group(settings: Settings) -> None:
    walked = bool(settings.corpora) and settings.propagate_error
    patterned = isinstance(settings.pattern, tuple)
    possible = settings.group in settings.method.groups
    if settings.group == "model" and (walked or patterned or not possible):
        refused = [name for name, method in METHODS.items() if "model" not in method.groups]
        raise ValueError(
            "group 'model' needs propagate_error=False, a share as sparsity, and none of these "
            f"methods: {', '.join(refused)}."
        )


def _check_weights(lm: LanguageModel, settings: Settings) -> None:
    for name, module in lm.prunable.items():
        weight = weight_matrix(module)
        if not torch.isfinite(weight).all():
            raise ValueError(
                f"{name} holds weights that are not finite. Load an intact checkpoint."
            )
        if isinstance(settings.pattern, tuple) and weight.shape[1] % settings.pattern[1]:
            raise ValueError(
                f"{settings.sparsity!r} needs rows that divide by {settings.pattern[1]}; {name} "
                f"has {weight.shape[1]} columns."
            )
