"""What a function does, in a form that can be compared: for caches."""

from __future__ import annotations

import functools
import json
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

PLAIN = (types.NoneType, bool, int, float, str)
#: What a function uses from its module and is described with it; classes and modules are not.
COMPARED = (types.FunctionType, list, tuple, set, dict, *PLAIN)


def describe_function(function: Callable[..., Any] | None) -> object:
    """A JSON form of a function that changes with what it does, also between runs of Python.

    It is made of the compiled code, which is what runs (the source may have been edited since, and
    two functions may stand on one line of it), its defaults, the values that it closes over, and
    the functions and plain data that it finds in its module, described in the same way.

    Args:
        function: A function, a method, a ``functools.partial``, an object that can be called, or
            None.
    """
    return _described(function, set())


def _described(value: object, seen: set[int]) -> object:
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, (list, tuple)):
        return [_described(item, seen) for item in value]
    if isinstance(value, (set, frozenset)):
        return {"set": sorted((_described(item, seen) for item in value), key=json.dumps)}
    if isinstance(value, Mapping):
        pairs = [[_described(key, seen), _described(item, seen)] for key, item in value.items()]
        return {"mapping": sorted(pairs, key=json.dumps)}
    if isinstance(value, types.CodeType):
        used = [list(value.co_names), list(value.co_varnames)]
        return ["code", value.co_code.hex(), used, _described(value.co_consts, seen)]
    if isinstance(value, functools.partial):
        return ["partial", _described([value.func, value.args, value.keywords], seen)]
    if isinstance(value, types.MethodType):
        return ["method", _described([value.__func__, value.__self__], seen)]
    if isinstance(value, types.FunctionType):
        return _described_function(value, seen)
    return _described_object(value, seen)


def _described_function(function: types.FunctionType, seen: set[int]) -> object:
    if id(function) in seen:  # it calls itself, or was described further up
        return {"function": function.__qualname__}
    seen.add(id(function))
    around = {}
    for name in _names(function.__code__):
        value = function.__globals__.get(name)
        if value is not None and isinstance(value, COMPARED):
            around[name] = value
    parts = {
        "code": function.__code__,
        "defaults": [function.__defaults__, function.__kwdefaults__],
        "closed over": [cell.cell_contents for cell in function.__closure__ or ()],
        "around": around,
    }
    return {name: _described(part, seen) for name, part in parts.items()}


def _names(code: types.CodeType) -> Iterator[str]:
    """Names outside of a function that it and the functions inside it use."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _described_object(value: object, seen: set[int]) -> object:
    if (wrapped := getattr(value, "__wrapped__", None)) is not None:  # functools.cache
        return ["wrapped", _described(wrapped, seen)]
    kind = type(value)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(getattr(kind, "__call__", None), types.FunctionType):  # noqa: B004
        called = kind.__call__
        return [name, _described(called, seen), _described(vars(value), seen)]
    return [name, repr(value)]
