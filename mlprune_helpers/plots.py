"""Figures from plain arrays and data frames.  Knows nothing of models.

Every function draws one message and returns the axes.  Figures have a white ground of their own, so
they read the same on light and dark pages; colours are seaborn's colour-blind palette.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

#: Lines and points are told apart without colour too.
_MARKERS = "osD^vPX*hd"

#: How what is drawn for comparison looks: chance, or no difference.
_REFERENCE_LINE: dict[str, Any] = {"color": "0.35", "linestyle": "--", "linewidth": 1.2}

#: The part of a place on the horizontal axis over which its points are spread.
_SPREAD = 0.7


def use_style() -> None:
    """Set fonts, grid and palette for the figures of a notebook, and show long texts in tables."""
    pd.options.display.max_colwidth = 200
    sns.set_theme(context="notebook", style="whitegrid", palette="colorblind")
    plt.rcParams["figure.facecolor"] = "white"
    plt.rcParams["savefig.facecolor"] = "white"
    plt.rcParams["figure.figsize"] = (8, 4.2)
    plt.rcParams["figure.dpi"] = 110


def lines_by_layer(
    series: Mapping[str, Sequence[float]],
    *,
    ylabel: str,
    chance: float | None = None,
    chance_label: str = "chance",
    title: str = "",
    log: bool = False,
) -> Axes:
    """One line a name over the layers 0 … L.

    Args:
        series: By name, a value a layer (n_layers + 1,); what is NaN leaves a gap.
        ylabel: What the values are, with their unit.
        chance: Drawn as a dashed line.
        chance_label: Its name in the legend.
        title: Of the figure.
        log: Whether the vertical axis is logarithmic.

    Returns:
        The axes.

    Raises:
        ValueError: There is no line to draw, or a line is no row of numbers.
    """
    if not series:
        raise ValueError("series is empty; at least one line is needed.")
    lines = {name: _row_of_numbers(values, name) for name, values in series.items()}
    _, ax = plt.subplots()
    for (name, values), marker in zip(lines.items(), cycle(_MARKERS)):
        ax.plot(np.arange(len(values)), values, marker=marker, markersize=4, label=name)
    _draw_chance(ax, chance, chance_label)
    ax.set(xlabel="layer", ylabel=ylabel, title=title, yscale="log" if log else "linear")
    ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 2.5, 5, 10]))
    ax.legend(frameon=True, fontsize="small")
    return ax


def heatmap(
    values: pd.DataFrame, *, label: str, title: str = "", annotate: bool = False, **options: Any
) -> Axes:
    """A labelled matrix.

    Args:
        values: Numbers, whose index and columns are the labels.
        label: What the numbers are, beside the colour bar.
        title: Of the figure.
        annotate: Write each number into its cell.
        options: As in seaborn, such as vmin and vmax, or cmap and center for a diverging scale.

    Returns:
        The axes.

    Raises:
        TypeError: ``values`` is no data frame.
        ValueError: It is empty.
    """
    _check_frame(values, "values")
    _, ax = plt.subplots(figsize=(8, 1.6 + 0.38 * len(values)))
    look = {"cmap": "viridis", "fmt": ".2f", "linewidths": 0.3} | options
    sns.heatmap(values, ax=ax, annot=annotate, cbar_kws={"label": label}, **look)
    ax.set_title(title)
    ax.tick_params(axis="y", rotation=0)
    return ax


def matrix_images(matrices: Mapping[str, ArrayLike], *, title: str = "") -> Axes:
    """Matrices side by side, an element a pixel.

    Args:
        matrices: By name, (rows, columns): numbers in colours with a bar, booleans in black (True)
            and white.
        title: Of the figure.

    Returns:
        The axes of the first matrix.

    Raises:
        ValueError: There is no matrix, or one has not two dimensions.
    """
    if not matrices:
        raise ValueError("matrices is empty; at least one matrix is needed.")
    images = {name: np.asarray(matrix) for name, matrix in matrices.items()}
    for name, pixels in images.items():
        if pixels.ndim != 2 or not pixels.size:
            raise ValueError(f"{name!r} has the shape {pixels.shape}; (rows, columns) is needed.")
    n = len(images)
    figure, axes = plt.subplots(1, n, figsize=(3.2 * n, 3.4), squeeze=False, layout="constrained")
    for ax, (name, pixels) in zip(axes[0], images.items()):
        _draw_matrix(ax, pixels)
        ax.set(title=name, xlabel="input feature", ylabel="output row")
    figure.suptitle(title)
    return axes[0, 0]


def points_with_intervals(
    frame: pd.DataFrame,
    *,
    x: str,
    y: str,
    hue: str,
    low: str = "low",
    high: str = "high",
    chance: float | None = None,
    chance_label: str = "chance",
    ylabel: str = "",
    title: str = "",
) -> Axes:
    """Points with intervals, side by side where they share a place on the horizontal axis.

    Args:
        frame: A row a point.
        x: Column with its place; places are in the order of their first rows.
        y: Column with its value.
        hue: Column with its name in the legend: a colour and a marker for each.
        low: Column with the lower end of its interval.
        high: Column with the upper end.
        chance: Drawn as a dashed line.
        chance_label: Its name in the legend.
        ylabel: What the values are.  Default: the column's name.
        title: Of the figure.

    Returns:
        The axes.

    Raises:
        TypeError: ``frame`` is no data frame.
        ValueError: It is empty, a column is not there, or a row has no place or no name.
    """
    _check_frame(frame, "frame", x, y, hue, low, high)
    _check_named(frame, x, hue)
    _, ax = plt.subplots()
    places = {value: place for place, value in enumerate(pd.unique(frame[x]))}
    names = list(pd.unique(frame[hue]))
    for position, (name, marker) in enumerate(zip(names, cycle(_MARKERS))):
        part = frame[frame[hue] == name]
        offset = (position - (len(names) - 1) / 2) * _SPREAD / len(names)
        at = part[x].map(places) + offset
        errors = _error_bars(part, y, low, high)
        ax.errorbar(at, part[y], yerr=errors, fmt=marker, capsize=3, label=name)
    _draw_chance(ax, chance, chance_label)
    ax.set(xlabel=x, ylabel=ylabel or y, title=title, xlim=(-0.5, len(places) - 0.5))
    ax.set_xticks(range(len(places)), list(places))
    ax.legend(title=hue, frameon=True, fontsize="small", loc="upper left", bbox_to_anchor=(1.01, 1))
    return ax


def differences(
    frame: pd.DataFrame,
    *,
    label: str,
    value: str,
    low: str = "low",
    high: str = "high",
    xlabel: str,
    title: str = "",
) -> Axes:
    """Differences with their intervals, one a line, against a line at zero.

    Args:
        frame: A row a difference, the first on top.
        label: Column with what is compared.
        value: Column with the difference.
        low: Column with the lower end of its interval.
        high: Column with the upper end.
        xlabel: What the differences are, with their unit.
        title: Of the figure.

    Returns:
        The axes.

    Raises:
        TypeError: ``frame`` is no data frame.
        ValueError: It is empty, a column is not there, or a row has no label.
    """
    _check_frame(frame, "frame", label, value, low, high)
    _check_named(frame, label)
    _, ax = plt.subplots(figsize=(8, 1.4 + 0.34 * len(frame)))
    at = np.arange(len(frame))[::-1]
    errors = _error_bars(frame, value, low, high)
    ax.errorbar(frame[value], at, xerr=errors, fmt="o", capsize=3)
    ax.axvline(0, **_REFERENCE_LINE)
    ax.set(xlabel=xlabel, title=title, ylim=(-0.7, len(frame) - 0.3))
    ax.set_yticks(at, frame[label])
    return ax


# -- parts -----------------------------------------------------------------------------------------


def _draw_chance(ax: Axes, chance: float | None, label: str) -> None:
    if chance is not None:
        ax.axhline(chance, label=label, **_REFERENCE_LINE)


def _draw_matrix(ax: Axes, pixels: np.ndarray) -> None:
    """Booleans in black and white; numbers in colours, with a bar."""
    look: dict[str, Any] = {"aspect": "auto", "interpolation": "nearest"}
    if pixels.dtype == bool:
        ax.imshow(pixels, cmap="gray_r", vmin=0, vmax=1, **look)
    else:
        image = ax.imshow(pixels, cmap="viridis", **look)
        ax.figure.colorbar(image, ax=ax, shrink=0.8)
    ax.grid(False)


def _error_bars(frame: pd.DataFrame, value: str, low: str, high: str) -> np.ndarray:
    """Lengths of the bars below and above (2, n); none where an interval ends beyond its point."""
    return np.clip([frame[value] - frame[low], frame[high] - frame[value]], 0, None)


# -- checks ----------------------------------------------------------------------------------------


def _row_of_numbers(values: ArrayLike, name: str) -> np.ndarray:
    """Values of one line; matplotlib would take texts for categories."""
    numbers = np.asarray(values)
    if numbers.dtype == object:  # None where there is no value
        numbers = numbers.astype(float)
    if numbers.ndim != 1 or not len(numbers) or numbers.dtype.kind not in "biuf":
        raise ValueError(
            f"{name!r} has the shape {numbers.shape} and the type {numbers.dtype}; one row of "
            "numbers is needed, a value a layer."
        )
    return numbers


def _check_frame(frame: pd.DataFrame, name: str, *columns: str) -> None:
    """That there is something to draw, and in the columns that are asked for."""
    if not isinstance(frame, pd.DataFrame):
        raise TypeError(f"{name} is of the type {type(frame).__name__}; a data frame is needed.")
    if frame.empty:
        raise ValueError(f"{name} is empty; at least one row and one column are needed.")
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise ValueError(
            f"{name} has no column {', '.join(map(repr, missing))}; it has: "
            f"{', '.join(map(repr, frame.columns))}."
        )


def _check_named(frame: pd.DataFrame, *columns: str) -> None:
    """That no row would be left out of the figure because it belongs nowhere."""
    for column in columns:
        for row in np.flatnonzero(frame[column].isna()):
            raise ValueError(f"Row {row} has no {column!r}; name it, or leave the row out.")
