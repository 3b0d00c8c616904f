"""Profiles: parameter files for papermill, without the traps of YAML.  What notebooks declare."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
import yaml

from .parameters import declared_names, refuse_unknown


class NotebookUnreadable(ValueError):
    """A notebook, or its parameters, cannot be read.  The message names notebook and cell."""


def cells_of(path: Path) -> list[nbformat.NotebookNode]:
    """The cells of a notebook.

    Raises:
        NotebookUnreadable: The file is no notebook.
    """
    try:
        return nbformat.read(path, as_version=4).cells
    except (ValueError, AttributeError, KeyError, nbformat.ValidationError) as error:
        told = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise NotebookUnreadable(f"{path.name}: not a notebook ({told}).") from None


def declared_parameters(path: Path) -> list[str]:
    """Names that a notebook annotates in its code cells tagged ``parameters``, in order.

    IPython's own commands beside them (``%matplotlib inline``, ``!pip install``) are no obstacle.

    Raises:
        NotebookUnreadable: The file is no notebook, or such a cell is not Python.
    """
    declared: list[str] = []
    for number, cell in enumerate(cells_of(path), start=1):
        if cell.cell_type != "code" or "parameters" not in cell.metadata.get("tags", []):
            continue
        try:
            statements = ast.parse(plain_python(cell.source)).body
        except SyntaxError as error:
            raise NotebookUnreadable(
                f"{path.name}, cell {number} (tagged parameters), line {error.lineno}: "
                f"{error.msg}. The cell declares parameters, such as: limit: int = 60"
            ) from None
        declared += [name for s in statements for name in declared_names([s])]
    return declared


def plain_python(source: str) -> str:
    """A cell as Python: IPython's commands become calls, ``%%time`` above it is left out."""
    # Here, because only who runs notebooks needs it; it is there with the kernel.
    from IPython.core.inputtransformer2 import TransformerManager

    cell_magic = re.match(r"\s*%%\w.*\n?", source)
    if cell_magic:
        source = "pass\n" + source[cell_magic.end() :]  # lines keep their numbers
    return TransformerManager().transform_cell(source)


def profile_of(path: Path, profile: str) -> dict[str, Any]:
    """Parameters that a profile has for one notebook.

    Args:
        path: The notebook; ``profiles/PROFILE.yml`` stands beside it.
        profile: Name of the file, without its ending.

    Returns:
        The common parameters that this notebook declares, and over them its own, which stand in the
        file under ``notebooks: {name of the notebook: ...}``.

    Raises:
        ValueError: There is no such profile; it is not YAML, or has a value that YAML does not read
            as it is written; or it has a name that no notebook beside it declares.
    """
    file = path.parent / "profiles" / f"{profile}.yml"
    if not file.is_file():
        names = ", ".join(sorted(other.stem for other in file.parent.glob("*.yml"))) or "none"
        raise ValueError(f"There is no profile {profile!r} in {file.parent}. Profiles: {names}.")
    common = _mapping(_read(file), f"{file}")
    own = _mapping(common.pop("notebooks", None), f"{file}, notebooks")
    _check_names(path, file, common, own)
    declared = declared_parameters(path)
    shared = {name: value for name, value in common.items() if name in declared}
    return shared | _mapping(own.get(path.stem), f"{file}, {path.stem}")


def _check_names(path: Path, file: Path, common: Mapping, own: Mapping) -> None:
    """Refuse what no notebook declares; a sibling that cannot be read might declare anything."""
    known: dict[str, list[str]] = {}
    all_read = True
    for other in sorted({path, *path.parent.glob("*.ipynb")}):
        try:
            known[other.stem] = declared_parameters(other)
        except NotebookUnreadable:
            if other == path:
                raise
            all_read = False
    if all_read:
        names = sorted({name for declared in known.values() for name in declared})
        refuse_unknown(common, names, where=f"{file}: ")
    for notebook, values in own.items():
        where = f"{file}, {notebook}"
        if notebook in known:
            refuse_unknown(_mapping(values, where), known[notebook], where=f"{where}: ")
        elif all_read:
            raise ValueError(f"{where}: there is no such notebook. Notebooks: {', '.join(known)}.")


def _mapping(content: Any, where: str) -> dict:
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ValueError(
            f"{where} is a {type(content).__name__}. A profile has lines of the form: limit: 60"
        )
    return content


# -- YAML ------------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """YAML, without what it reads as something else than is written, and names that stand twice."""


def _read(file: Path) -> Any:
    try:
        return yaml.load(file.read_text(encoding="utf-8-sig"), _Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{file}, line {mark.line + 1}" if mark else f"{file}"
        told = getattr(error, "problem", None) or error
        raise ValueError(f"{where}: {told}") from None


def _whole_number(loader: _Loader, node: yaml.ScalarNode) -> int:
    return _as_written(node, loader.construct_yaml_int(node))


def _decimal_number(loader: _Loader, node: yaml.ScalarNode) -> float:
    return _as_written(node, loader.construct_yaml_float(node))


def _as_written(node: yaml.ScalarNode, number: Any) -> Any:
    """The number; refused for 2:4, which YAML takes for minutes and seconds, and 010, its eight."""
    if ":" in node.value or re.fullmatch(r"[-+]?0[0-9_]+", node.value):
        raise _trap(node, number)
    return number


def _date(loader: _Loader, node: yaml.ScalarNode) -> Any:
    raise _trap(node, "a date")


def _trap(node: yaml.ScalarNode, value: object) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(
        problem=f"{node.value} without quotes is read as {value}. "
        f"Write '{node.value}' in quotes if that is meant.",
        problem_mark=node.start_mark,
    )


def _unique_names(loader: _Loader, node: yaml.MappingNode) -> dict:
    seen = set()
    for key, _ in node.value:
        if key.value in seen:
            raise yaml.MarkedYAMLError(
                problem=f"{key.value} stands there twice.", problem_mark=key.start_mark
            )
        seen.add(key.value)
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:int", _whole_number)
_Loader.add_constructor("tag:yaml.org,2002:float", _decimal_number)
_Loader.add_constructor("tag:yaml.org,2002:timestamp", _date)
_Loader.add_constructor("tag:yaml.org,2002:map", _unique_names)
