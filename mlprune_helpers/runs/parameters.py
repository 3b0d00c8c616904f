"""Parameters of notebooks, checked.  Knows no torch."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from pathlib import Path

from ..data.languages import LANGUAGES
from ..data.tasks import TASKS
from ..pruning.sparsity import parse_sparsity

ARMS = (
    "translation",
    "mismatched",
    "monolingual",
    "magnitude",
    "random",
)  # what chapters prune with and compare


#: By name: type, test of a value that has it (false or ValueError: refused), and what is allowed in words.
DOMAINS: dict[str, tuple[object, Callable[[typing.Any], bool], str]] = {
    **{
        name: (
            list[str],
            lambda given, known=frozenset(known): (
                set(given) - {"en"} and len(set(given)) == len(given) and set(given) <= known
            ),
            f"a list without repetition of {', '.join(known)}"
            + (", at least one besides en" if known is LANGUAGES else ""),
        )
        for name, known in {"languages": LANGUAGES, "tasks": TASKS, "arms": ARMS}.items()
    },
    **{x: (int, lambda n: n > 0, "a whole number from 1") for x in ("shots", "max_new_tokens")},
    **{x: (int, lambda n: n > 1, "a whole number from 2") for x in ("n_prompts", "n_sentences")},
    "seed": (int, lambda n: n >= 0, "a whole number from 0"),
    "limit": (
        int | None,
        lambda n: n is None or n >= 1,
        "a whole number from 1, or none for all rows",
    ),
    "model": (
        str,
        bool,
        "'gemma-3-270m', the folder of a checkpoint, or a hub id such as 'bigscience/bloom-560m'",
    ),
    "source": (
        str,
        lambda x: x in ("builtin", "hub") or Path(x).expanduser().is_dir(),
        "'builtin', 'hub', or a folder that exists",
    ),
    "sparsity": (
        float | str,
        lambda s: parse_sparsity(s) is not None,
        "a share from 0 to below 1, or 'n:m' such as '2:4'",
    ),
    "output_dir": (str, bool, "the path of a folder, which is made if need be"),
}


def check_parameters(namespace: dict) -> dict:
    """Check a notebook's parameters in the cell after them: ``globals().update(check_parameters(globals()))``.

    The annotated names in ``namespace`` are its parameters (``limit: int = 60``).  Each is returned as its type in
    :data:`DOMAINS` or else its annotated one; lists (``'["fr", "sw"]'``, ``'fr,sw'``) and numbers given as text are read.

    Raises ValueError, saying what is allowed: a value of another type or outside of :data:`DOMAINS`; other plain
    data in ``namespace``, which papermill put there under a name that is not declared.
    """
    # From Python 3.14 on, annotations are made when asked for, by a function whose argument 1 asks for values.
    make = namespace.get("__annotate__")
    kinds = dict(make(1) if make else namespace.get("__annotations__", {}))
    if (
        "_parameters_checked" not in namespace
    ):  # when cells are run again, the notebook's own variables are there too
        plain = (bool, int, float, str, list, tuple, dict, types.NoneType)
        given = {
            name
            for name, value in namespace.items()
            if isinstance(value, plain) and not name.startswith("_")
        }
        _refuse_unknown(sorted(given - {"In", "Out"}), kinds)
    checked = {
        name: _checked(name, namespace[name], kind)
        for name, kind in kinds.items()
        if name in namespace
    }
    namespace["_parameters_checked"] = True
    return checked


def _refuse_unknown(names: Iterable[str], allowed: Collection[str], where: str = "") -> None:
    for name in names:
        if name not in allowed:
            close = difflib.get_close_matches(name, allowed, n=1)
            meant = (
                f" Did you mean {close[0]!r}?" if close else ""
            ) + f" Parameters: {', '.join(allowed) or 'none'}."
            raise ValueError(f"{where}There is no parameter {name!r}.{meant}")


def _checked(name: str, value: object, kind: object) -> object:
    kind, fits, allowed = DOMAINS.get(
        name, (kind, lambda value: True, getattr(kind, "__name__", str(kind)))
    )
    with suppress(ValueError):
        result = _coerced(value, kind)
        if fits(result):
            return result
    raise ValueError(f"{name} is {value!r}. Allowed: {allowed}.")


def _coerced(value: object, kind: object) -> object:
    """``value`` as the type ``kind``, or ValueError."""
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        for option in sorted(
            typing.get_args(kind), key=lambda option: option is str
        ):  # text if nothing else fits
            with suppress(ValueError):
                return _coerced(value, option)
    elif typing.get_origin(kind) is list:
        if isinstance(value, str):
            value = [part.strip(" '\"") for part in value.strip(" []").split(",") if part.strip()]
        if isinstance(value, (list, tuple)):
            return [_coerced(item, *typing.get_args(kind)) for item in value]
    elif type(value) is kind:
        return value
    elif kind in (int, float) and type(value) in (int, str):
        return kind(value)
    elif isinstance(value, str):
        meant = {"true": True, "false": False, "none": None, "null": None}.get(
            value.strip().lower(), value
        )
        if type(meant) is kind:
            return meant
    raise ValueError
