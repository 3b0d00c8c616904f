"""An executed notebook as it is published: parameters once, no trace of how it was run.

papermill leaves the declared parameters as they are and puts a cell below them with the values of
the run.  Who downloads that and edits the parameters sees no effect, because the cell below undoes
the edit.  So the values go to where they are declared, and that cell goes.
"""

from __future__ import annotations

import ast
import copy
import json
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat

from ..files import written_beside
from .parameters import read_value
from .profiles import plain_python

INJECTED = "injected-parameters"
#: What the run writes about itself into the metadata of a notebook or a cell.
_OF_THE_RUN = ("papermill", "execution")
#: Where the run writes to is no one else's business: here the notebook's own value stays.
_KEPT = {"output_dir"}


class NotPublishable(ValueError):
    """A value of the run has no place among the declared parameters."""


def publish(executed: str | Path, published_copy: str | Path) -> None:
    """Write an executed notebook as :func:`published` makes it.

    Args:
        executed: By papermill.
        published_copy: Appears when it is complete.

    Raises:
        NotPublishable: As there.
    """
    executed = Path(executed)
    try:
        notebook = published(nbformat.read(executed, as_version=4))
    except NotPublishable as error:
        raise NotPublishable(f"{executed.name}: {error}") from None
    with written_beside(published_copy) as beside:
        nbformat.write(notebook, beside)


def published(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A copy of an executed notebook that a reader can go on with.

    Its cell of parameters has the values of the run, line by line, with types and comments as they
    were; ``output_dir`` keeps its own.  The injected cell and papermill's metadata are gone, and
    the cells are counted without gap.

    Args:
        notebook: As papermill executed it.

    Returns:
        The copy; the argument is not changed.

    Raises:
        NotPublishable: The run had a parameter that no cell declares, or a value that cannot be
            written as Python.
    """
    copied = copy.deepcopy(notebook)
    values = dict(copied.metadata.get("papermill", {}).get("parameters", {}))
    values = {name: value for name, value in values.items() if name not in _KEPT}
    copied.cells = [cell for cell in copied.cells if INJECTED not in _tags(cell)]
    written: set[str] = set()
    for cell in copied.cells:
        if cell.cell_type == "code" and "parameters" in _tags(cell):
            cell.source, names = with_values(cell.source, values)
            written |= names
    if missing := sorted(values.keys() - written):
        raise NotPublishable(
            f"the run has the parameter {missing[0]!r}, which no cell tagged parameters declares."
        )
    for part in [copied, *copied.cells]:
        for name in _OF_THE_RUN:
            part.metadata.pop(name, None)
    for cell in copied.cells:
        if "tags" in cell.metadata and not cell.metadata["tags"]:
            del cell.metadata["tags"]
    _count_anew(copied.cells)
    return copied


def with_values(source: str, values: Mapping[str, Any]) -> tuple[str, set[str]]:
    """A cell of parameters with other values.

    A value that is the declared one already keeps the form in which it is written.

    Args:
        source: Lines such as ``limit: int = 60  # rows``.
        values: By name of the parameter.  Those that are not declared here are passed over.

    Returns:
        The source, and the names that are declared.

    Raises:
        NotPublishable: A value cannot be written as Python.
    """
    source = textwrap.dedent(source.lstrip("\n"))  # as plain_python does: places stay the same
    lines = [line.encode() for line in source.split("\n")]  # Python counts columns in bytes
    declared = _declared(source)
    wanted = {name: read_value(name, values[name]) for name in declared if name in values}
    for name, value in reversed(wanted.items()):  # so that places above stay
        if not _is(declared[name].value, value):
            _put(_as_python(name, value), declared[name], lines)
    return b"\n".join(lines).decode(), set(declared)


def _declared(source: str) -> dict[str, ast.AnnAssign]:
    """Parameters by name, in the order in which they stand."""
    return {
        statement.target.id: statement
        for statement in ast.parse(plain_python(source)).body
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
    }


def _put(text: str, statement: ast.AnnAssign, lines: list[bytes]) -> None:
    """Write a value in place of the declared one, or after the type where there is none."""
    last = statement.end_lineno or statement.lineno
    after = lines[last - 1][statement.end_col_offset :]
    if statement.value is None:
        first = last
        before = lines[last - 1][: statement.end_col_offset] + b" = "
    else:
        first = statement.value.lineno
        before = lines[first - 1][: statement.value.col_offset]
        after = lines[last - 1][statement.value.end_col_offset :]
    lines[first - 1 : last] = [before + text.encode() + after]


def _is(node: ast.expr | None, value: object) -> bool:
    """Whether an expression is this value, of this type."""
    if node is None:
        return False
    try:
        found = ast.literal_eval(node)
    except ValueError:  # not a plain value, so it is replaced
        return False
    return repr(found) == repr(value)


def _as_python(name: str, value: Any) -> str:
    """A value as one writes it in a cell."""
    text = _written(value)
    try:
        same = repr(ast.literal_eval(text)) == repr(value)
    except (ValueError, SyntaxError):
        same = False
    if not same:
        raise NotPublishable(f"{name} is {value!r}, which cannot be written into a cell.")
    return text


def _written(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return f"[{', '.join(map(_written, value))}]"
    return repr(value)


def _count_anew(cells: list[nbformat.NotebookNode]) -> None:
    """Number the cells that ran, as if the injected one had not been there."""
    ran = [cell for cell in cells if cell.get("execution_count") is not None]
    for number, cell in enumerate(ran, start=1):
        cell.execution_count = number
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = number


def _tags(cell: nbformat.NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])
