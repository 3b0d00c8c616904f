"""Methods by name: how each chooses the weights that go, and what it needs to know for that.

A method says what it needs by the parameters of its function, so a method of your own takes two
lines::

    def my_score(weight, input_mean, input_std): return weight.abs() * (input_mean + input_std)
    METHODS["mine"] = my_score

The first parameter is the weight; the others are what :func:`known_names` lists.
"""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from .masks import GROUPS
from .scores import magnitude_score, random_score, refined_score, ria_score, wanda_score
from .sparsegpt import sparsegpt
from .statistics import CORPORA, kinds_of, known_statistics

#: What a function may ask for beside statistics: a torch.Generator that the seed sets, and two
#: settings of ``prune``.
SETTINGS = ("generator", "sparsity", "group")


def known_names() -> tuple[str, ...]:
    """Every name that the function of a method may ask for, after the weight."""
    return (*known_statistics(), *SETTINGS)


@dataclass(frozen=True)
class Method:
    """How weights are chosen: by a score, or by a solver that also adapts the weights that stay.

    Args:
        score: ``score(weight, …)`` → (out_features, in_features), the lowest is pruned first.  It
            gets a copy of the weight (out_features, in_features) in float32 or better, and
            statistics in the same type.
        solve: Instead of ``score``: ``solve(weight, …)`` → (mask, new weights).  It gets a copy of
            the weight in its own type, and statistics in float64.
        needs: What to pass after the weight, in this order.  By default what the parameters of the
            function say, each by its name: statistics of the inputs over the calibration tokens
            ("input_norm", "input_mean", "input_std", "input_squares", "products"), the same over
            the contrast ("contrast_norm", …: ``prune`` then wants a contrast), "generator",
            "sparsity", "group".  Other parameters with a default are options, which
            ``functools.partial`` sets.

    Raises:
        TypeError: Unless there is one function, whose parameters can be read.
        ValueError: For a parameter that is not known and has no default.

    Example:
        >>> METHODS["ria-1"] = functools.partial(ria_score, power=1.0)
        >>> METHODS["abs"] = Method(torch.abs, needs=())
    """

    score: Callable[..., Tensor] | None = None
    solve: Callable[..., tuple[Tensor, Tensor]] | None = None
    needs: tuple[str, ...] | None = None
    #: What the function is given after the weight.
    asked: tuple[str, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        functions = [f for f in (self.score, self.solve) if f is not None]
        if len(functions) != 1 or not callable(functions[0]):
            raise TypeError("A method has one function: a score, or solve.")
        if isinstance(self.needs, str):
            raise TypeError(
                f"needs is {self.needs!r}; allowed: a tuple of names, ({self.needs!r},)."
            )
        asked = _asked(self.function) if self.needs is None else _checked(tuple(self.needs))
        object.__setattr__(self, "asked", asked)

    @property
    def function(self) -> Callable[..., Any]:
        """The score, or the solver."""
        function = self.score if self.solve is None else self.solve
        assert function is not None  # __post_init__ has seen to that
        return function

    @property
    def statistics(self) -> dict[str, tuple[str, str]]:
        """What it asks for of the inputs: {name: (whose inputs, which statistic)}."""
        known = known_statistics()
        return {name: known[name] for name in self.asked if name in known}

    @property
    def corpora(self) -> tuple[str, ...]:
        """Whose inputs it needs: "input" (the calibration data), "contrast", both or none."""
        used = {corpus for corpus, _ in self.statistics.values()}
        return tuple(corpus for corpus in CORPORA if corpus in used)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The raw sums over inputs that its statistics are made from."""
        needed = [kind for _, statistic in self.statistics.values() for kind in kinds_of(statistic)]
        return tuple(dict.fromkeys(needed))

    @property
    def groups(self) -> tuple[str, ...]:
        """Where it can compare weights.  A solver goes from matrix to matrix."""
        return GROUPS if self.solve is None else ("row", "matrix")

    @property
    def random(self) -> bool:
        """Whether the seed counts."""
        return "generator" in self.asked

    @property
    def description(self) -> dict[str, Any]:
        """The function and its options, for provenance."""
        function: Any = self.function
        while isinstance(function, functools.partial):
            function = function.func
        name = getattr(function, "__qualname__", type(function).__name__)
        told = {"function": f"{getattr(function, '__module__', None)}.{name}"}
        options = {} if self.needs is not None else _options(self.function)
        return {**told, "options": options} if options else told

    def __call__(self, weight: Tensor, given: Mapping[str, Any]) -> Any:
        """The score, or (mask, new weights), from a weight and {name: what it asks for}."""
        values = {name: given[name] for name in self.asked}
        if self.needs is None:
            return self.function(weight, **values)
        return self.function(weight, *values.values())


class Methods(MutableMapping[str, Method]):
    """Methods by name.  A function that is put in becomes a :class:`Method`, checked."""

    def __init__(self, methods: Mapping[str, Method | Callable[..., Tensor]]):
        self._methods: dict[str, Method] = {}
        for name, method in methods.items():
            self[name] = method

    def __getitem__(self, name: str) -> Method:
        return self._methods[name]

    def __setitem__(self, name: str, method: Method | Callable[..., Tensor]) -> None:
        if not isinstance(name, str) or not name.strip():
            raise TypeError(f"The name of a method is text, not {name!r}.")
        self._methods[name] = method if isinstance(method, Method) else Method(method)

    def __delitem__(self, name: str) -> None:
        del self._methods[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._methods)

    def __len__(self) -> int:
        return len(self._methods)

    def __repr__(self) -> str:
        return f"Methods({self._methods!r})"


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        raise TypeError(
            f"The parameters of {_name(function)} cannot be read. Write Method({_name(function)}, "
            f"needs=(…)): what to pass after the weight, of {', '.join(known_names())}."
        ) from None


def _asked(function: Callable[..., Any]) -> tuple[str, ...]:
    """What a function asks for, by the names of its parameters."""
    parameters = _parameters(function)
    known = known_names()
    first = parameters[0] if parameters else None
    if first is None or first.kind is first.KEYWORD_ONLY or first.name in known:
        found = first.name if first else "missing"
        raise ValueError(
            f"The first parameter of {_name(function)} is {found}; it must be the weight."
        )
    needed = [p for p in parameters[1:] if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    names = [p.name for p in needed if p.name in known or p.default is p.empty]
    return _checked(tuple(names), _name(function))


def _checked(names: tuple[str, ...], function: str = "needs") -> tuple[str, ...]:
    """Names that may be asked for, or a ValueError."""
    known = known_names()
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(str(name), known, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ValueError(
                f"{function} asks for {name!r}; allowed after the weight: {', '.join(known)}; and "
                f"options, which have a default.{hint}"
            )
    return names


def _options(function: Callable[..., Any]) -> dict[str, Any]:
    """Parameters with a default that ``prune`` does not set, ready for JSON."""
    known = known_names()
    values = {
        p.name: p.default
        for p in _parameters(function)[1:]
        if p.default is not p.empty and p.name not in known
    }
    plain = (bool, int, float, str, type(None))
    return {name: v if isinstance(v, plain) else repr(v) for name, v in values.items()}


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", type(function).__name__)


#: The live registry: what is put in here, ``prune`` knows.
METHODS = Methods(
    {
        "wanda": wanda_score,
        "ria": ria_score,
        "magnitude": magnitude_score,
        "refined": refined_score,
        "random": random_score,
        "sparsegpt": Method(solve=sparsegpt),
    }
)
