"""Parameters of notebooks, checked.  Knows no torch."""

from __future__ import annotations

import ast
import datetime
import difflib
import re
import sys
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..data.languages import LANGUAGES
from ..data.tasks import TASKS
from ..pruning.sparsity import parse_sparsity

#: What chapters prune with and compare.
ARMS = (
    "translation",
    "mismatched",
    "blocks",
    "monolingual",
    "english",
    "refined",
    "magnitude",
    "random",
)

#: Model ids whose weights are on the hub as a pickle file (``.bin``) only.
_BIN_ONLY = re.compile(r"(?:facebook/)?(xglm-[\d.]+[MB])")


class Domain(Protocol):
    """What a parameter may be: its type, and which values of that type."""

    @property
    def kind(self) -> object:
        """The type, as an annotation: ``int``, ``str | None``, ``list[str]``."""

    @property
    def allowed(self) -> str:
        """What is allowed, in words."""

    def fits(self, value: Any) -> bool:
        """Whether a value of the type is allowed; may raise ValueError instead of saying no."""


@dataclass(frozen=True)
class WholeNumber:
    """A whole number.

    Attributes:
        at_least: The smallest.
        none: What none stands for, where it is allowed.
    """

    at_least: int
    none: str | None = None

    @property
    def kind(self) -> object:
        return int if self.none is None else int | None

    @property
    def allowed(self) -> str:
        also_none = "" if self.none is None else f", or none for {self.none}"
        return f"a whole number from {self.at_least}{also_none}"

    def fits(self, value: int | None) -> bool:
        return value is None or value >= self.at_least


@dataclass(frozen=True)
class Names:
    """A list of names, none of them twice.

    Attributes:
        known: Returns the names there are, asked at every check: what a reader has declared by then
            is legal.
        besides: A name that is not enough by itself.
        without: A name that may not be there.
        may_be_empty: Whether no name at all is allowed.
        advice: How to get other names.
    """

    known: Callable[[], Collection[str]]
    besides: str | None = None
    without: str | None = None
    may_be_empty: bool = False
    advice: str = ""

    @property
    def kind(self) -> object:
        return list[str]

    @property
    def allowed(self) -> str:
        more = "" if self.besides is None else f", at least one besides {self.besides}"
        if self.may_be_empty:
            more += ", or an empty one: []"
        return f"a list without repetition of {', '.join(self._names())}{more}{self.advice}"

    def fits(self, value: list[str]) -> bool:
        chosen = set(value)
        enough = self.may_be_empty or bool(chosen - {self.besides})
        return enough and len(chosen) == len(value) and chosen <= set(self._names())

    def _names(self) -> list[str]:
        return [name for name in self.known() if name != self.without]


@dataclass(frozen=True)
class OneOf:
    """One of a few names.

    Attributes:
        names: All there are.
    """

    names: tuple[str, ...]

    @property
    def kind(self) -> object:
        return str

    @property
    def allowed(self) -> str:
        return " or ".join(map(repr, self.names))

    def fits(self, value: str) -> bool:
        return value in self.names


@dataclass(frozen=True)
class Value:
    """A value of any type, with a check of one's own."""

    kind: object
    allowed: str
    fits: Callable[[Any], bool]


def _registered_methods() -> Collection[str]:
    """Names in ``METHODS``, as far as this process has loaded them: whoever registered one has."""
    methods = sys.modules.get("mlprune_helpers.pruning.methods")
    return () if methods is None else methods.METHODS


def _arms() -> list[str]:
    return [*ARMS, *(name for name in _registered_methods() if name not in ARMS)]


def _is_method(name: str) -> bool:
    known = _registered_methods()  # if none is loaded, `prune` refuses what there is not
    return name in known if known else name.isidentifier()


def _is_source(source: str) -> bool:
    return source in ("builtin", "hub") or Path(source).expanduser().is_dir()


def _is_given(text: str | None) -> bool:
    return text is None or bool(text.strip())


def _is_template(name: str) -> bool:
    return any(name in task.templates for task in TASKS.values())


def _anything(value: object) -> bool:
    return True


def _is_sparsity(sparsity: float | str) -> bool:
    parse_sparsity(sparsity)
    return True


#: Parameters of the book by name.  Your own may have domains too: DOMAINS["depth"] = WholeNumber(1)
DOMAINS: dict[str, Domain] = {
    "model": Value(
        str,
        "'gemma-3-270m', the folder of a checkpoint, or a hub id such as 'bigscience/bloom-560m'",
        _is_given,
    ),
    "languages": Names(LANGUAGES.keys, besides="en"),
    "negative_controls": Names(LANGUAGES.keys, without="en", may_be_empty=True),
    "source": Value(str, "'builtin', 'hub', or a folder that exists", _is_source),
    "parallel": Value(
        str | None,
        "the name of a set of parallel sentences, or none where the source has only one",
        _is_given,
    ),
    "tasks": Names(TASKS.keys, advice="; or declare your own in TASKS, above the parameters"),
    "template": Value(
        str,
        "the name of one of the tasks' templates: 'paper' or 'native', and of some 'published'",
        _is_template,
    ),
    "split": Value(
        str | None,
        "the name of a split of the tasks, such as 'test', or none for each task's first",
        _is_given,
    ),
    "reduction": OneOf(("mean", "sum")),
    "span": OneOf(("full", "continuation")),
    "limit": WholeNumber(1, none="all rows"),
    "arms": Names(_arms),
    "method": Value(str, "the name of a method in METHODS, such as 'wanda'", _is_method),
    "sparsity": Value(
        float | str, "a share from 0 to below 1, or 'n:m' such as '2:4'", _is_sparsity
    ),
    "pooled": Value(bool, "true (one model for all pairs) or false (one for each)", _anything),
    "n_prompts": WholeNumber(2),  # of each language pair
    "shots": WholeNumber(1),
    "separator": OneOf(("newline", "eos")),
    "n_sentences": WholeNumber(2),
    "max_new_tokens": WholeNumber(1),
    "n_seeds": WholeNumber(1),
    "n_draws": WholeNumber(10),  # with fewer no p-value is below 0.09
    "n_placebos": WholeNumber(0),
    "seed": WholeNumber(0),
    "output_dir": Value(str, "the path of a folder, which is made if need be", _is_given),
}


def check_parameters(namespace: dict[str, Any]) -> dict[str, Any]:
    """Check a notebook's parameters, in the cell after them.

    Lists and numbers given as text are read: ``'["fr", "sw"]'``, ``'fr,sw'``, ``'1e-1'``.  What
    does not go together is refused, before a model is loaded for it: a source must have all that
    the notebook needs of it, in English, ``languages`` and ``negative_controls``; no language is in
    both lists; the tasks have the template; the sentences are enough for the shots.

    Args:
        namespace: ``globals()``.  Its annotated names are the parameters (``limit: int = 60``).

    Returns:
        Each parameter as the type that it has in :data:`DOMAINS`, or else its annotated one.

    Raises:
        ValueError: A value of another type or outside of its domain, with what is allowed; other
            plain data in ``namespace``, which papermill put there under a name that is not
            declared; values that do not go together, with the parameters to change.

    Example:
        >>> parameters = check_parameters(globals())
        >>> globals().update(parameters)
    """
    kinds = _annotations(namespace)
    # When cells are run again, the notebook's own variables are there too.
    if "_parameters_checked" not in namespace:
        own = _variables_above(namespace.get("In", ()), kinds)
        advice = " Variables of your own stand above the parameters, or below their check."
        refuse_unknown(sorted(_plain_data(namespace) - own), kinds, advice=advice)
    checked = {}
    for name, kind in kinds.items():
        if name in namespace:
            checked[name] = _checked(name, namespace[name], kind)
    check_model(checked.get("model"))
    _check_negative_controls(checked)
    _check_source(checked)
    _check_template(checked)
    _check_shots(checked)
    namespace["_parameters_checked"] = True
    return checked


def refuse_unknown(
    names: Iterable[object], allowed: Collection[str], *, where: str = "", advice: str = ""
) -> None:
    """Raise ValueError for the first of ``names`` that is not allowed, with the closest that is.

    Args:
        names: As they were given.
        allowed: Names of parameters.
        where: How the message begins.
        advice: How it ends.
    """
    for name in names:
        if name not in allowed:
            close = difflib.get_close_matches(str(name), allowed, n=1)
            meant = f" Did you mean {close[0]!r}?" if close else ""
            listed = ", ".join(allowed) or "none"
            raise ValueError(
                f"{where}There is no parameter {name!r}.{meant} Parameters: {listed}.{advice}"
            )


def _annotations(namespace: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters and their types."""
    # From Python 3.14 on, annotations are made when asked for; the argument 1 asks for values.
    make = namespace.get("__annotate__")
    kinds = make(1) if make else namespace.get("__annotations__", {})
    # They are text below `from __future__ import annotations`.
    return {
        name: eval(kind, dict(namespace)) if isinstance(kind, str) else kind
        for name, kind in kinds.items()
    }


def _plain_data(namespace: Mapping[str, Any]) -> set[str]:
    """Names in a notebook that could come from papermill."""
    plain = (bool, int, float, str, list, tuple, dict, types.NoneType)
    ipython = {"In", "Out"}
    return {
        name
        for name, value in namespace.items()
        if isinstance(value, plain) and not name.startswith("_") and name not in ipython
        if not _is_imported(name, value)
    }


def _is_imported(name: str, value: object) -> bool:
    """Whether a table is the package's, such as TASKS where a task of one's own is declared."""
    if not isinstance(value, (list, tuple, dict)):
        return False
    package = __name__.partition(".")[0]
    modules = [module for key, module in sys.modules.items() if key.partition(".")[0] == package]
    return any(vars(module).get(name) is value for module in modules)


def _variables_above(cells: Iterable[str], parameters: Collection[str]) -> set[str]:
    """Names that cells above the parameters gave a value to, such as parts of a task of one's own.

    Args:
        cells: Sources, in the order in which they ran.
        parameters: Their names.
    """
    found: set[str] = set()
    for source in cells:
        try:
            statements = ast.parse(source).body
        except SyntaxError:
            continue
        if declared_names(statements) & set(parameters):
            return found
        for node in ast.walk(ast.Module(statements, [])):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
            if isinstance(node, ast.alias):
                found.add(node.asname or node.name)
    return set()  # they were not declared in a cell


def declared_names(statements: Iterable[ast.stmt]) -> set[str]:
    """Names that statements annotate: the parameters, if they are those of their cell."""
    annotated = (statement for statement in statements if isinstance(statement, ast.AnnAssign))
    return {a.target.id for a in annotated if isinstance(a.target, ast.Name)}


def read_value(name: str, value: object, annotated: Any = object) -> object:
    """A value as the type of its parameter, where it can be read so, and else as it is.

    Args:
        name: Of the parameter.
        value: As it was given, such as ``"fr,sw"``.
        annotated: The type, if :data:`DOMAINS` has no parameter of this name.
    """
    kind = DOMAINS[name].kind if name in DOMAINS else annotated
    with suppress(ValueError):
        return _coerced(value, kind)
    return value


def _checked(name: str, value: object, annotated: Any) -> object:
    domain = DOMAINS.get(name)
    kind = annotated if domain is None else domain.kind
    with suppress(ValueError):
        result = _coerced(value, kind)
        if domain is None or domain.fits(result):
            return result
    allowed = getattr(kind, "__name__", str(kind)) if domain is None else domain.allowed
    raise ValueError(f"{name} is {value!r}. Allowed: {allowed}.{_yaml_hint(value, kind)}")


# -- what goes together ----------------------------------------------------------------------------


def check_model(model: object) -> None:
    """Refuse a model of the hub that must be converted before it can be used.

    Args:
        model: The parameter; what is no text is none.

    Raises:
        ValueError: With the command that converts it.
    """
    bin_only = _BIN_ONLY.fullmatch(model) if isinstance(model, str) else None
    if bin_only is None or Path(str(model)).is_dir():
        return
    folder = bin_only[1]
    hub_id = f"facebook/{folder}"
    raise ValueError(
        f"model is {model!r}, and there is no such folder here. On the hub {hub_id} is a pickle "
        "file (.bin) only, which no chapter reads. Convert it once, and name the folder:\n"
        f"  mlprune convert {hub_id} {folder} --revision COMMIT\n"
        f"  mlprune run … -p model={folder}\n"
        "COMMIT is the 40 hex digits of a commit of it that you trust; this lists the newest:\n"
        f"  git ls-remote https://huggingface.co/{hub_id} HEAD"
    )


def _all_languages(parameters: Mapping[str, Any]) -> list[str]:
    """All that a notebook needs texts in: English first, the negative controls last."""
    named = [*parameters["languages"], *parameters.get("negative_controls", ())]
    return ["en", *(language for language in named if language != "en")]


def _check_negative_controls(parameters: Mapping[str, Any]) -> None:
    languages = parameters.get("languages", ())
    for control in parameters.get("negative_controls", ()):
        if control in languages:
            raise ValueError(
                f"{control!r} is in languages and in negative_controls. A negative control is a "
                "language that the model does not translate, and no average has it: leave "
                f"{control!r} out of one of the two."
            )


def _check_source(parameters: Mapping[str, Any]) -> None:
    if not {"source", "languages"} <= parameters.keys():
        return
    from ..data import sources  # here, because not every notebook has a source

    sources.check_source(
        parameters["source"],
        _all_languages(parameters),
        parameters.get("tasks", ()),
        parameters.get("parallel"),
        parameters.get("split"),
    )


def _check_template(parameters: Mapping[str, Any]) -> None:
    """See that each task can be asked so, in all languages."""
    if not {"template", "tasks", "languages"} <= parameters.keys():
        return
    name = parameters["template"]
    for task in parameters["tasks"]:
        templates = TASKS[task].templates
        if name not in templates:
            raise ValueError(
                f"template is {name!r}, and of tasks {task!r} has {', '.join(templates)}. Change "
                "template or tasks."
            )
        by_language = templates[name]
        if {"prompt", "choices"} & by_language.keys():
            continue
        missing = [code for code in _all_languages(parameters) if code not in by_language]
        if missing:
            raise ValueError(
                f"template is {name!r}, which {task!r} does not have in {', '.join(missing)}, but "
                f"in {', '.join(by_language)}. Change template, tasks or languages."
            )


def _check_shots(parameters: Mapping[str, Any]) -> None:
    """See that a prompt can be filled once the sentences of the tests' prompt are set aside."""
    if not {"source", "languages", "shots"} <= parameters.keys():
        return
    shots = parameters["shots"]
    supply = _dev_sentences(parameters)
    if supply is None or 2 * shots <= supply:
        return
    left = max(0, supply - shots)
    raise ValueError(
        f"shots is {shots}. There are {supply} sentences for prompts. Chapters set the first "
        f"{min(shots, supply)} of them aside for the prompts of their tests, which leaves {left}, "
        f"and one prompt needs {shots}. Allowed with these sentences: at most {supply // 2}."
    )


def _dev_sentences(parameters: Mapping[str, Any]) -> int | None:
    """How many sentences there are to make prompts of; None if that would need a download."""
    from ..data import sources

    source, parallel = parameters["source"], parameters.get("parallel")
    if source == "hub":
        return sources.DEV_LINES.get(parallel or "ntrex")
    languages = _all_languages(parameters)
    return len(sources.load_parallel(languages, source, name=parallel, split="dev"))


# -- from what was given to the type that is meant -------------------------------------------------


def _coerced(value: Any, kind: Any) -> Any:
    """``value`` as the type ``kind``, or ValueError."""
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        return _one_of(value, typing.get_args(kind))
    if typing.get_origin(kind) is list:
        return _list(value, *typing.get_args(kind))
    if type(value) is kind:
        return value
    if kind is int:
        return _whole_number(value)
    if kind is float and type(value) in (int, str):
        return float(value)
    if kind in (bool, types.NoneType) and isinstance(value, str):
        return _word(value, kind)
    raise ValueError


def _one_of(value: Any, kinds: Iterable[Any]) -> Any:
    for kind in sorted(kinds, key=lambda kind: kind is str):  # text if nothing else fits
        with suppress(ValueError):
            return _coerced(value, kind)
    raise ValueError


def _list(value: Any, kind: Any) -> list:
    if isinstance(value, str):
        parts = value.strip(" []").split(",")
        value = [part.strip(" '\"") for part in parts if part.strip()]
    if not isinstance(value, (list, tuple)):
        raise ValueError
    return [_coerced(item, kind) for item in value]


def _whole_number(value: Any) -> int:
    if type(value) not in (int, float, str):
        raise ValueError
    with suppress(ValueError):
        if type(value) is not float:
            return int(value)
    number = float(value)  # YAML reads 1e3 as text
    if not number.is_integer():
        raise ValueError
    return int(number)


def _word(value: str, kind: type) -> Any:
    words: dict[str, Any] = {"none": None, "null": None}
    words |= dict.fromkeys(("true", "yes", "on"), True)
    words |= dict.fromkeys(("false", "no", "off"), False)
    meant = words.get(value.strip().lower(), value)
    if not isinstance(meant, kind):
        raise ValueError
    return meant


def _yaml_hint(value: object, kind: Any) -> str:
    """A sentence on what YAML makes of text without quotes, where that may be the cause."""
    kinds = {*typing.get_args(kind), kind}
    if str not in kinds:
        return ""
    for item in value if isinstance(value, (list, tuple)) else [value]:
        if isinstance(item, bool):
            return (
                " In YAML, no, off, yes and on stand in quotes where they are text: without them "
                "they are read as false and true."
            )
        pattern = _pattern_read_as(item)
        is_number = isinstance(item, (int, float)) and float not in kinds
        if pattern or is_number or isinstance(item, datetime.date):
            example = f": without them, {pattern} is read as {item}" if pattern else ""
            return (
                " In YAML, text that looks like a number, a time or a date stands in "
                f"quotes{example}."
            )
    return ""


def _pattern_read_as(item: object) -> str | None:
    """The n:m that YAML takes for ``item`` seconds, minutes and seconds being separated so."""
    if not isinstance(item, int):
        return None
    n, m = divmod(item, 60)
    return f"{n}:{m}" if 0 < n < m else None
