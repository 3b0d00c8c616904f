"""The one check of task rows, wherever they come from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .checks import checked_text, shown, whole_number
from .languages import DataError
from .tasks import Row, Task, declared_task


@dataclass(frozen=True)
class PlacedRow:
    """A row that knows where it stands: ``number`` from 0, and ``where`` in words for messages."""

    number: int
    where: str
    row: Row


def checked_examples(task: str, rows: Iterable[Row], where: str) -> list[dict[str, Any]]:
    """The rows of a task, checked.

    Each has ``id``, ``group``, ``label`` (an int) and the task's fields, in this order.

    Labels may be given by number or by name.  Where a row has no ``id``, it is the row's number;
    where it has no ``group``, the task tells it, and else it is the id.  Other columns are left
    out.

    Args:
        task: A key of ``TASKS``.
        rows: A data set, or dicts.
        where: What to call the rows in messages.

    Raises:
        DataError: A field is missing or no text; a label is none of the task's; two rows have one
            id; there are no rows.
    """
    if isinstance(rows, (str, Mapping)) or not isinstance(rows, Iterable):
        raise DataError(
            f"{where}: {shown(rows)} was given; needed: a data set, or a list of dicts, one a row."
        )
    placed = (PlacedRow(n, f"{where}, row {n}", row) for n, row in enumerate(rows))
    return checked_rows(task, placed, where)


def checked_rows(task: str, placed: Iterable[PlacedRow], where: str) -> list[dict[str, Any]]:
    """As :func:`checked_examples`, of rows that know where they stand."""
    declared = declared_task(task)
    examples: dict[str, dict[str, Any]] = {}
    for each in placed:
        example = _checked_row(declared, each)
        if example["id"] in examples:
            raise DataError(
                f"{each.where}: the id {example['id']!r} is that of an earlier row; each row needs "
                "its own."
            )
        examples[example["id"]] = example
    if not examples:
        raise DataError(f"{where}: no rows.")
    return list(examples.values())


def converted_rows(task: Task, placed: Iterable[PlacedRow], all_raw: bool) -> Iterable[PlacedRow]:
    """Rows in the task's own form; those that its conversion drops are left out.

    Args:
        task: With its conversion, if it has one.
        placed: Rows as they were read.
        all_raw: Whether all rows have the raw form (those of the hub), or only those with the
            columns ``task.raw``.

    Raises:
        DataError: The conversion cannot read a row.
    """
    for each in placed:
        is_raw = all_raw or all(column in each.row for column in task.raw)
        if task.convert is None or not is_raw:
            yield each
            continue
        try:
            converted = task.convert(dict(each.row))
        except Exception as error:  # a reader's own function may raise anything
            raise DataError(f"{each.where}: {_told_error(error)}") from error
        if converted is None:
            continue
        if "id" in each.row and isinstance(converted, Mapping):
            converted = {**converted, "id": each.row["id"]}
        yield PlacedRow(each.number, each.where, converted)


def check_fields(task: Task, row: object, where: str, *also: str) -> None:
    """See that a row has the task's fields, each a text, and the columns ``also``.

    Raises:
        DataError: It has not, naming the row and the field.
    """
    needed = (*task.fields, *also)
    if not isinstance(row, Mapping):
        raise DataError(f"{where}: {shown(row)} is no object with {', '.join(needed)}.")
    if missing := [name for name in needed if name not in row]:
        raise DataError(f"{where}: no {', '.join(missing)}; a row needs {', '.join(needed)}.")
    for field in task.fields:
        checked_text(row[field], f"{where}: {field}")


def _checked_row(task: Task, each: PlacedRow) -> dict[str, Any]:
    check_fields(task, each.row, each.where, "label")
    row = dict(each.row)
    row["label"] = _checked_label(task, row["label"], each.where)
    row["id"] = _checked_identity(row.get("id"), f"{each.where}: id") or str(each.number)
    group = _checked_identity(row.get("group"), f"{each.where}: group")
    if group is None:
        group = _told_group(task, each, row)
    return {
        "id": row["id"],
        "group": group,
        "label": row["label"],
        **{field: row[field] for field in task.fields},
    }


def _told_group(task: Task, each: PlacedRow, row: dict[str, Any]) -> str:
    """The group of a row that names none."""
    if task.group is None:
        return row["id"]
    try:
        return str(task.group(each.number, row))
    except Exception as error:  # as for a conversion
        raise DataError(f"{each.where}: group: {_told_error(error)}") from error


def _told_error(error: Exception) -> str:
    """An error in words, also one that says little without its kind."""
    if isinstance(error, DataError):
        return str(error)
    return f"no {error}" if isinstance(error, KeyError) else f"{type(error).__name__}: {error}"


def _checked_identity(value: object, name: str) -> str | None:
    """An identity as text; None where there is none."""
    if value is None:
        return None
    if isinstance(value, str):
        return checked_text(value, name)
    if (number := whole_number(value)) is not None and not isinstance(value, float):
        return str(number)
    raise DataError(f"{name} is {shown(value)}; allowed: a text or a whole number.")


def _checked_label(task: Task, value: object, where: str) -> int:
    """The number of a label that is given by number or by name."""
    if isinstance(value, str) and value in task.labels:
        return task.labels.index(value)
    number = whole_number(value)
    if number is not None and 0 <= number < len(task.labels):
        return number
    hint = f" A row of the raw form is converted: it has {', '.join(task.raw)}." if task.raw else ""
    raise DataError(f"{where}: label is {shown(value)}; allowed: {_told(task.labels)}.{hint}")


def _told(labels: Sequence[str]) -> str:
    return f"0 to {len(labels) - 1}, or a name: {', '.join(labels)}"
