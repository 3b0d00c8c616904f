"""Figures from plain arrays and data frames.  Knows nothing of models.

Every function draws one message and returns the axes.  All figures have one width, at which their
type can be read on a phone; legends stand below, long texts are broken into lines.  The ground is
white and the colours are seaborn's colour-blind palette; the book's dark page turns the ground
dark and keeps the hues.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import cycle
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike
from scipy.stats import binom

from .metrics import coin_chance

#: Width of every figure in inches.  Type of 12 points has 10 pixels on a phone then.
_WIDTH = 5.8

#: How many letters fit into the width as a title, and as a legend (with 6 for each sample).
_TITLE_LETTERS = 56
_LEGEND_LETTERS = 58

#: How many letters fit as an axis's name: below a whole panel, below one that shares the width with
#: the names of its rows, and along a vertical axis.
_BELOW = 52
_BELOW_ROWS = 40
_BESIDE = 30

#: How many letters of names along an axis go into an inch, and of a row's name beside its row.
_LETTERS_AN_INCH = 10
_ROW_LETTERS = 22

#: Height of a line of text, in inches.
_LINE = 0.24

#: Lines and points are told apart without colour too.
_MARKERS = "osD^vPX*hd"

#: How what is drawn for comparison looks: chance, or no difference.
_REFERENCE_LINE: dict[str, Any] = {"color": "0.3", "linestyle": "--", "linewidth": 1.8}

#: How a floor looks, and a single draw.
_FLOOR: dict[str, Any] = {"colors": "0.6", "linewidth": 5}
_DRAW: dict[str, Any] = {"color": "0.55", "marker": "o", "markersize": 6, "linestyle": "none"}

#: How far an interval goes that has no end: to the edge, dotted.
_UNBOUNDED: dict[str, Any] = {"color": "0.3", "linestyle": ":", "linewidth": 1.8, "zorder": 1}

#: From the ground's colour to one far from it: large numbers stand out on light and on dark.
_COLOURS = "Blues"

#: The part of a place on the horizontal axis over which its points are spread.
_SPREAD = 0.7


def use_style() -> None:
    """Set type, lines, grid and palette for the figures of a notebook, and long texts in tables.

    In a notebook figures get twice the pixels at the same size, so that they are sharp on screens
    of high resolution.
    """
    pd.options.display.max_colwidth = 200
    sns.set_theme(context="notebook", style="whitegrid", palette="colorblind", rc=_style())
    _sharp_figures()


def _style() -> dict[str, Any]:
    return {
        "figure.facecolor": "white",
        "savefig.facecolor": "white",
        "figure.figsize": (_WIDTH, 3.8),
        "figure.dpi": 100,
        "figure.constrained_layout.use": True,  # nothing leaves the figure, so none gets wider
        "font.size": 12,
        "figure.titlesize": 13,
        "axes.titlesize": 12,
        "axes.labelsize": 12,
        "xtick.labelsize": 12,
        "ytick.labelsize": 12,
        "legend.fontsize": 12,
        "legend.title_fontsize": 12,
        "lines.linewidth": 2.4,
        "lines.markersize": 8,
        "grid.color": "0.85",
        "axes.edgecolor": "0.6",
    }


def _sharp_figures() -> None:
    from IPython import get_ipython

    if get_ipython() is not None:
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("retina")


# -- lines -----------------------------------------------------------------------------------------


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
    _check_some(series, "series", "line")
    lines = {name: _row_of_numbers(values, name, "a layer") for name, values in series.items()}
    figure, ax = _one_panel()
    for (name, values), marker in zip(lines.items(), cycle(_MARKERS)):
        ax.plot(np.arange(len(values)), values, marker=marker, markersize=6, label=name)
    _draw_chance(ax, chance, chance_label)
    ax.set(xlabel="layer", ylabel=_broken(ylabel, _BESIDE), yscale="log" if log else "linear")
    ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 2.5, 5, 10]))
    _finish(figure, ax, title)
    return ax


def lines_by_x(
    series: Mapping[str, Sequence[float]],
    x: Sequence[float],
    *,
    xlabel: str,
    ylabel: str,
    reference: Sequence[float] | None = None,
    reference_label: str = "by chance",
    title: str = "",
) -> Axes:
    """One line a name over values of ``x``, such as sparsities, with what chance alone would give.

    Two masks that have nothing to do with each other agree, at each sparsity, on that share of
    what they prune, so there the reference is ``x`` itself.

    Args:
        series: By name, a value for each of ``x`` (n,); what is NaN leaves a gap.
        x: Places on the horizontal axis (n,).
        xlabel: What they are, with their unit.
        ylabel: What the values are, with their unit.
        reference: Drawn as a dashed line, a value for each of ``x`` (n,).
        reference_label: Its name in the legend.
        title: Of the figure.

    Returns:
        The axes.

    Raises:
        ValueError: There is no line to draw, or a line is no row of as many numbers as ``x``.
    """
    _check_some(series, "series", "line")
    at = _row_of_numbers(x, "x", "a place")
    if reference is not None and reference_label in series:
        raise ValueError(f"{reference_label!r} is the name of the reference and of a line.")
    named = dict(series) if reference is None else {**series, reference_label: reference}
    lines = {name: _row_of_numbers(values, name, "a place") for name, values in named.items()}
    for name, values in lines.items():
        if len(values) != len(at):
            raise ValueError(f"{name!r} has {len(values)} values, x has {len(at)}; give one each.")
    dashed = None if reference is None else lines.pop(reference_label)
    figure, ax = _one_panel()
    for (name, values), marker in zip(lines.items(), cycle(_MARKERS)):
        ax.plot(at, values, marker=marker, label=name)
    if dashed is not None:
        ax.plot(at, dashed, label=reference_label, **_REFERENCE_LINE)
    ax.set(xlabel=_broken(xlabel, _BELOW), ylabel=_broken(ylabel, _BESIDE))
    _finish(figure, ax, title)
    return ax


# -- matrices --------------------------------------------------------------------------------------


def heatmap(
    values: pd.DataFrame, *, label: str, title: str = "", annotate: bool = False, **options: Any
) -> Axes:
    """A labelled matrix.

    Args:
        values: Numbers, whose index and columns are the labels.
        label: What the numbers are, below the colour bar.
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
    figure, ax = _one_panel(2.1 + 0.4 * len(values))
    look = {"cmap": _COLOURS, "fmt": ".2f", "linewidths": 0.3, "annot_kws": {"fontsize": 11}}
    look |= {"xticklabels": False, "yticklabels": False}  # seaborn would lay them out for nothing
    bar = {"label": _broken(label, _BELOW_ROWS), "location": "bottom", "aspect": 40}
    sns.heatmap(values, ax=ax, annot=annotate, cbar_kws=bar, **(look | options))
    _name_rows(ax, np.arange(len(values)) + 0.5, values.index)
    _name_places(ax, np.arange(len(values.columns)) + 0.5, values.columns, inches=4.2)
    _write_title(figure, title)
    return ax


def matrix_images(matrices: Mapping[str, ArrayLike], *, title: str = "") -> Axes:
    """Matrices side by side, an element a pixel.

    Args:
        matrices: By name, (rows, columns): numbers in colours with a bar, booleans in orange
            (True) and white, which the book's dark page turns dark.
        title: Of the figure.

    Returns:
        The axes of the first matrix.

    Raises:
        ValueError: There is no matrix, or one has not two dimensions.
    """
    _check_some(matrices, "matrices", "matrix")
    images = {name: np.asarray(matrix) for name, matrix in matrices.items()}
    for name, pixels in images.items():
        if pixels.ndim != 2 or not pixels.size:
            raise ValueError(f"{name!r} has the shape {pixels.shape}; (rows, columns) is needed.")
    figure, axes = _panels(len(images), 3.2)
    letters = int(_WIDTH * _LETTERS_AN_INCH / len(images)) - 2
    for ax, (name, pixels) in zip(axes, images.items()):
        _draw_matrix(ax, pixels)
        ax.set(title=_broken(name, letters), xlabel="input feature")
        ax.xaxis.set_major_locator(MaxNLocator(3, integer=True))
    axes[0].set_ylabel("output row")
    _write_title(figure, title)
    return axes[0]


def _draw_matrix(ax: Axes, pixels: np.ndarray) -> None:
    """Booleans in orange and white; numbers in colours, with a bar."""
    look: dict[str, Any] = {"aspect": "auto", "interpolation": "nearest"}
    if pixels.dtype == bool:
        orange = sns.light_palette(sns.color_palette("colorblind")[3], as_cmap=True)
        colours = np.where(pixels[..., None], orange(1.0), (1.0, 1.0, 1.0, 1.0))
        ax.imshow(colours, **look)
    else:
        image = ax.imshow(pixels, cmap=_COLOURS, **look)
        ax.figure.colorbar(image, ax=ax, location="bottom", ticks=MaxNLocator(2))
    ax.grid(False)


# -- points with intervals -------------------------------------------------------------------------


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
    floor: str | None = None,
    floor_label: str = "floor",
    ylabel: str = "",
    title: str = "",
) -> Axes:
    """Points with intervals, side by side where they share a place on the horizontal axis.

    Args:
        frame: A row a point.
        x: Column with its place; places are in the order of their first rows.
        y: Column with its value.
        hue: Column with its name in the legend: a colour and a marker for each.
        low: Column with the lower end of its interval; an interval without an end is dotted.
        high: Column with the upper end.
        chance: Drawn as a dashed line.
        chance_label: Its name in the legend.
        floor: Column with what each point would be by chance alone, where that differs from point
            to point; drawn as a short grey bar.
        floor_label: Its name in the legend.
        ylabel: What the values are.  Default: the column's name.
        title: Of the figure.

    Returns:
        The axes.

    Raises:
        TypeError: ``frame`` is no data frame.
        ValueError: It is empty, a column is not there, or a row has no place or no name.
    """
    _check_frame(frame, "frame", x, y, hue, low, high, *([floor] if floor else []))
    _check_named(frame, x, hue)
    figure, ax = _one_panel()
    places = {value: place for place, value in enumerate(pd.unique(frame[x]))}
    names = list(pd.unique(frame[hue]))
    columns = frame[hue].map(names.index) - (len(names) - 1) / 2
    at = (frame[x].map(places) + columns * _SPREAD / len(names)).to_numpy(float)
    for name, marker in zip(names, cycle(_MARKERS)):
        mine = (frame[hue] == name).to_numpy()
        errors = _error_bars(frame[mine], y, low, high)
        ax.errorbar(at[mine], frame[y][mine], yerr=errors, fmt=marker, capsize=4, label=name)
    if floor:
        half = _SPREAD / len(names) / 2
        ax.hlines(frame[floor], at - half, at + half, label=floor_label, zorder=1, **_FLOOR)
    _draw_chance(ax, chance, chance_label)
    ax.set(xlabel=x, ylabel=_broken(ylabel or y, _BESIDE), xlim=(-0.5, len(places) - 0.5))
    _name_places(ax, range(len(places)), places)
    _draw_unbounded(ax, frame, at, low, high, upright=True)
    _finish(figure, ax, title, legend_title=hue)
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
        low: Column with the lower end of its interval; an interval without an end is dotted.
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
    figure, ax = _one_panel(1.0 + 0.5 * len(frame))
    at = np.arange(len(frame))[::-1]
    errors = _error_bars(frame, value, low, high)
    ax.errorbar(frame[value], at, xerr=errors, fmt="o", capsize=4)
    ax.axvline(0, **_REFERENCE_LINE)
    ax.set(xlabel=_broken(xlabel, _BELOW_ROWS), ylim=(-0.7, len(frame) - 0.3))
    _name_rows(ax, at, frame[label])
    _draw_unbounded(ax, frame, at, low, high, upright=False)
    _write_title(figure, title)
    return ax


def arms_figure(
    frame: pd.DataFrame,
    seeds: pd.DataFrame | None = None,
    *,
    arm: str = "arm",
    measure: str = "measure",
    value: str = "difference",
    low: str = "low",
    high: str = "high",
    reference: float | Mapping[str, float] = 0.0,
    reference_label: str = "no change",
    seeds_label: str = "single seeds",
    xlabel: str,
    title: str = "",
) -> Axes:
    """One row an arm, one panel a measure: means with their intervals, single seeds below them.

    The interval says how far the rows of the test data move a mean, the seeds how far the
    calibration data do: a difference between arms has to be larger than both.

    Args:
        frame: A row an arm and measure, the first arm on top, the first measure on the left.
        seeds: A row an arm, measure and calibration seed, drawn as small grey points.
        arm: Column with the arm.
        measure: Column with the measure.
        value: Column with the mean, and in ``seeds`` with a seed's value.
        low: Column with the lower end of the mean's interval; one without an end is dotted.
        high: Column with the upper end.
        reference: Drawn as a dashed line: chance or zero, for all measures or for each.
        reference_label: Its name in the legend.
        seeds_label: Name of the seeds in the legend.
        xlabel: What the values are, with their unit.
        title: Of the figure.

    Returns:
        The axes of the first measure; ``ax.figure.axes`` has all.

    Raises:
        TypeError: ``frame`` or ``seeds`` is no data frame.
        ValueError: One is empty, a column is not there, a row has no name, a measure has no
            reference, or ``seeds`` has an arm or a measure that ``frame`` has not.
    """
    _check_frame(frame, "frame", arm, measure, value, low, high)
    _check_named(frame, arm, measure)
    if seeds is not None:
        _check_frame(seeds, "seeds", arm, measure, value)
        for column in (arm, measure):
            _check_known(seeds[column], frame[column], f"{column!r} of seeds")
    _check_unique(frame, arm, measure)
    arms = list(pd.unique(frame[arm]))
    measures = list(pd.unique(frame[measure]))
    lines = _for_each(reference, measures, "reference")
    heights = {name: height for height, name in enumerate(reversed(arms))}
    figure, axes = _panels(len(measures), 1.4 + 0.55 * len(arms), sharey=True)
    for ax, name in zip(axes, measures):
        part = frame[frame[measure] == name]
        at = part[arm].map(heights)
        errors = _error_bars(part, value, low, high)
        ax.errorbar(part[value], at, xerr=errors, fmt="o", capsize=4, label="mean, interval")
        if seeds is not None:
            own = seeds[seeds[measure] == name]
            ax.plot(own[value], own[arm].map(heights) - 0.25, label=seeds_label, **_DRAW)
        ax.axvline(lines[name], label=reference_label, **_REFERENCE_LINE)
        ax.set(title=_broken(name, 16), ylim=(-0.6, len(arms) - 0.4))
        ax.xaxis.set_major_locator(MaxNLocator(3))
        _draw_unbounded(ax, part, at, low, high, upright=False)
    _name_rows(axes[0], heights.values(), heights, letters=16)
    _name_together(figure, axes, xlabel)
    _finish(figure, axes[0], title)
    return axes[0]


# -- one among many --------------------------------------------------------------------------------


def place_figure(
    values: Mapping[str, tuple[float, Sequence[float]]],
    *,
    xlabel: str,
    intervals: Mapping[str, tuple[float, float]] | None = None,
    reference: float | Mapping[str, float] | None = None,
    reference_label: str = "intact",
    specific_label: str = "specific",
    draws_label: str = "random draws",
    title: str = "",
) -> Axes:
    """Where one value stands among the values of random draws, one row a label.

    Args:
        values: By label, the first on top: the value, and those of the draws (n,).
        xlabel: What they are, with their unit.
        intervals: By label, the two ends of the value's interval.
        reference: Drawn as a dashed line: one for all labels, or a short one for each.
        reference_label: Its name in the legend.
        specific_label: Name of the value in the legend.
        draws_label: Name of the draws in the legend.
        title: Of the figure.

    Returns:
        The axes.

    Raises:
        ValueError: There is no row, draws are no row of numbers, or a label of ``intervals`` or
            ``reference`` is not one of ``values``, or is missing from ``reference``.
    """
    _check_some(values, "values", "row")
    if isinstance(reference, Mapping):
        _for_each(reference, list(values), "reference")
    draws = {name: _row_of_numbers(row[1], name, "a draw") for name, row in values.items()}
    ends = {name: (np.nan, np.nan) for name in values} | dict(intervals or {})
    _check_known(ends, values, "a label of intervals")
    figure, ax = _one_panel(0.9 + 0.62 * len(values))
    heights = {name: height for height, name in enumerate(reversed(list(values)))}
    for name, row in draws.items():
        label = draws_label if name == next(iter(values)) else None
        ax.plot(row, heights[name] + _scattered(len(row)), label=label, alpha=0.8, **_DRAW)
    frame = pd.DataFrame.from_dict(ends, orient="index", columns=["low", "high"])
    frame["value"] = [float(values[name][0]) for name in frame.index]
    at = np.array([heights[name] for name in frame.index])
    look: dict[str, Any] = {"fmt": "D", "markersize": 11, "capsize": 5, "color": "C3"}
    errors = _error_bars(frame, "value", "low", "high")
    ax.errorbar(frame["value"], at, xerr=errors, label=specific_label, **look)
    _draw_reference(ax, reference, heights, reference_label)
    ax.set(xlabel=_broken(xlabel, _BELOW_ROWS), ylim=(-0.6, len(values) - 0.4))
    _name_rows(ax, heights.values(), heights)
    _draw_unbounded(ax, frame, at, "low", "high", upright=False)
    _finish(figure, ax, title)
    return ax


def coins(n_better: int, n_worse: int, *, title: str = "") -> Axes:
    """How often fair coins fall as unevenly as changes for the better and for the worse did.

    What did not change says nothing about the direction, so it is left out: a coin for each change,
    heads for the better.  The chance is that of the two-sided sign test.

    Args:
        n_better: How many changed for the better.
        n_worse: How many changed for the worse.
        title: Of the figure.

    Returns:
        The axes.

    Raises:
        ValueError: A number is negative or no whole number, or nothing changed.
    """
    chance = _percent(coin_chance(n_better, n_worse))
    n, found = n_better + n_worse, n_better
    if not n:
        raise ValueError("Nothing changed, so there is no coin to throw; leave the figure out.")
    heads = np.arange(n + 1)
    chances = binom.pmf(heads, n, 0.5)
    uneven = np.abs(2 * heads - n) >= abs(2 * found - n)
    figure, ax = _one_panel(3.0)
    width = 0.9 if n < 60 else 1.0  # gaps of less than a pixel would shimmer
    ax.bar(heads[~uneven], chances[~uneven], width=width, linewidth=0, color="0.75")
    label = f"at least as uneven as {n_better} to {n_worse}: {chance}"
    ax.bar(heads[uneven], chances[uneven], width=width, linewidth=0, color="C3", label=label)
    above = chances[found] + 0.05 * chances.max()
    ax.plot(found, above, color="C0", marker="v", linestyle="none", label="what was found")
    shown = np.flatnonzero(chances > 1e-4 * chances.max())
    edges = min(shown[0], found, n - found) - 0.7, max(shown[-1], found, n - found) + 0.7
    ax.set(xlabel=f"heads in {n} tosses of a fair coin", ylabel="chance", xlim=edges)
    ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    _finish(figure, ax, title)
    return ax


def _percent(chance: float) -> str:
    """A chance in percent, with the digits that count."""
    if chance < 0.001:
        return "below 0.1 %"
    return f"{100 * chance:.1f} %" if chance < 0.1 else f"{100 * chance:.0f} %"


def _scattered(n: int) -> np.ndarray:
    """Small heights, never the same for neighbours, so that equal values stay apart (n,)."""
    golden_ratio = 0.618
    return 0.4 * ((np.arange(1, n + 1) * golden_ratio) % 1 - 0.5)


# -- parts -----------------------------------------------------------------------------------------


def _one_panel(height: float = 3.3) -> tuple[Figure, Axes]:
    """One panel; title and legend add to the height."""
    return plt.subplots(figsize=(_WIDTH, height), layout="constrained")


def _panels(n: int, height: float, **options: Any) -> tuple[Figure, Sequence[Axes]]:
    """Panels side by side in the width of one figure."""
    size = (_WIDTH, height)
    figure, axes = plt.subplots(1, n, figsize=size, squeeze=False, layout="constrained", **options)
    return figure, list(axes[0])


def _finish(figure: Figure, ax: Axes, title: str, *, legend_title: str = "") -> None:
    """The title above, the legend below: neither makes the figure wider, or its panels lower."""
    handles, labels = _points_first(*ax.get_legend_handles_labels())
    labels = [_broken(label, _LEGEND_LETTERS - 6) for label in labels]
    columns = _legend_columns(labels)
    lines = math.ceil(len(labels) / columns) + bool(legend_title)
    figure.set_figheight(figure.get_figheight() + lines * _LINE)
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=columns,
        title=legend_title or None,
        frameon=False,
        columnspacing=1.2,
    )
    _write_title(figure, title)


def _legend_columns(labels: Sequence[str]) -> int:
    """The most columns that fit into the width; they are filled one after the other."""
    widths = [6 + max(map(len, label.split("\n"))) for label in labels]
    for columns in range(len(labels), 1, -1):
        parts = np.array_split(widths, columns)
        if sum(part.max() for part in parts) <= _LEGEND_LETTERS:
            return columns
    return 1


def _name_together(figure: Figure, axes: Sequence[Axes], xlabel: str) -> None:
    """One name below the horizontal axes of all panels, by an empty panel over them.

    A figure's own name for them would overlap a legend below the figure.
    """
    grid = axes[0].get_gridspec()
    assert grid is not None  # these are panels of one grid
    over_all = figure.add_subplot(grid[0, :], frameon=False, zorder=-1)
    over_all.tick_params(labelcolor="none", length=0)
    over_all.set_xlabel(_broken(xlabel, _BELOW_ROWS), labelpad=10)
    over_all.set_yticks([])
    over_all.grid(False)


def _points_first(handles: list[Any], labels: list[str]) -> tuple[list[Any], list[str]]:
    """Points with intervals before what they are compared with; matplotlib names lines first."""
    order = sorted(
        range(len(handles)), key=lambda one: not isinstance(handles[one], ErrorbarContainer)
    )
    return [handles[one] for one in order], [labels[one] for one in order]


def _write_title(figure: Figure, title: str) -> None:
    if title:
        lines = _broken(title, _TITLE_LETTERS)
        figure.set_figheight(figure.get_figheight() + _LINE * (1 + lines.count("\n")))
        figure.suptitle(lines, x=0.02, ha="left")


def _broken(text: Hashable, letters: int) -> str:
    """A text in lines of so many letters; a longer word stays whole."""
    return textwrap.fill(str(text), max(1, letters), break_long_words=False)


def _name_places(
    ax: Axes, at: Iterable[float], names: Iterable[Hashable], inches: float = 4.9
) -> None:
    """Names along the horizontal axis: in lines, or else on a slant, or else upright.

    Args:
        ax: The axes.
        at: Where they stand.
        names: What is written.
        inches: How much room there is for all of them.
    """
    names = list(names)
    letters = int(inches * _LETTERS_AN_INCH / len(names)) - 1
    level = [_broken(name, letters) for name in names]
    if all(len(line) <= letters for name in level for line in name.split("\n")):
        ax.set_xticks(list(at), level, rotation=0)
        return
    turned = [_broken(name, _ROW_LETTERS) for name in names]
    longest = max(len(line) for name in turned for line in name.split("\n"))
    slant = 35 if not any("\n" in name for name in turned) else 90
    room = math.sin(math.radians(slant)) * longest / _LETTERS_AN_INCH
    figure = _figure_of(ax)
    figure.set_figheight(figure.get_figheight() + room)
    side: dict[str, Any] = {"ha": "right", "va": "center" if slant == 90 else "top"}
    ax.set_xticks(list(at), turned, rotation=slant, rotation_mode="anchor", **side)


def _name_rows(
    ax: Axes, at: Iterable[float], names: Iterable[Hashable], letters: int = _ROW_LETTERS
) -> None:
    """Names beside rows; the figure gets higher where one has more than two lines."""
    broken = [_broken(name, letters) for name in names]
    more_lines = max(0, max(name.count("\n") for name in broken) - 1)
    figure = _figure_of(ax)
    figure.set_figheight(figure.get_figheight() + more_lines * _LINE * len(broken))
    ax.set_yticks(list(at), broken, rotation=0)


def _figure_of(ax: Axes) -> Figure:
    figure = ax.get_figure(root=True)
    assert isinstance(figure, Figure)
    return figure


def _draw_chance(ax: Axes, chance: float | None, label: str) -> None:
    if chance is not None:
        ax.axhline(chance, label=label, **_REFERENCE_LINE)


def _draw_reference(
    ax: Axes,
    reference: float | Mapping[str, float] | None,
    heights: Mapping[str, int],
    label: str,
) -> None:
    """A line through all rows, or a short one in each."""
    if isinstance(reference, Mapping):
        values = _for_each(reference, list(heights), "reference")
        at = np.array(list(heights.values()))
        line = {**_REFERENCE_LINE, "colors": _REFERENCE_LINE["color"], "label": label}
        del line["color"]
        ax.vlines([values[name] for name in heights], at - 0.42, at + 0.42, **line)
    elif reference is not None:
        ax.axvline(reference, label=label, **_REFERENCE_LINE)


def _error_bars(frame: pd.DataFrame, value: str, low: str, high: str) -> np.ndarray:
    """Lengths of the bars below and above (2, n); none where an interval ends beyond its point.

    None either where it has no end: that is dotted, when the axes' ends are known.
    """
    at, start, end = frame[[value, low, high]].to_numpy(float).T
    bars = np.clip([at - start, end - at], 0, None)
    return np.where(np.isinf(bars), 0, bars)


def _draw_unbounded(
    ax: Axes, frame: pd.DataFrame, at: ArrayLike, low: str, high: str, *, upright: bool
) -> None:
    """Dotted lines to the edges for intervals without an end; draw them last."""
    edges = ax.get_ylim() if upright else ax.get_xlim()
    for place, (start, end) in zip(np.asarray(at), frame[[low, high]].to_numpy(float)):
        if np.isinf(start) or np.isinf(end):
            line = np.clip([start, end], *edges)
            across = [place, place]
            ax.plot(*((across, line) if upright else (line, across)), **_UNBOUNDED)
    if upright:
        ax.set_ylim(edges)
    else:
        ax.set_xlim(edges)


# -- checks ----------------------------------------------------------------------------------------


def _check_some(given: Mapping[str, Any], name: str, part: str) -> None:
    if not given:
        raise ValueError(f"{name} is empty; at least one {part} is needed.")


def _check_known(named: Iterable[Hashable], known: Iterable[Hashable], what: str) -> None:
    """That nothing would be left out of the figure because it has no place there."""
    known = list(known)
    for name in named:
        if name not in known:
            raise ValueError(f"{name!r} is {what}, but not one of {known}.")


def _check_unique(frame: pd.DataFrame, *columns: str) -> None:
    """That no two points would lie on one line."""
    counts = frame.groupby(list(columns), sort=False).size()
    for names, count in counts[counts > 1].items():
        raise ValueError(f"frame has {count} rows for {names}; give one.")


def _for_each(
    value: float | Mapping[str, float], names: Sequence[str], what: str
) -> Mapping[str, float]:
    """A value by name, where one was given for all or for each."""
    if not isinstance(value, Mapping):
        return dict.fromkeys(names, value)
    missing = [name for name in names if name not in value]
    if missing:
        raise ValueError(f"{what} has no value for {', '.join(map(repr, missing))}.")
    return value


def _row_of_numbers(values: ArrayLike, name: str, each: str) -> np.ndarray:
    """Values of one line; matplotlib would take texts for categories."""
    numbers = np.asarray(values)
    if numbers.dtype == object:  # None where there is no value
        numbers = numbers.astype(float)
    if numbers.ndim != 1 or not len(numbers) or numbers.dtype.kind not in "biuf":
        raise ValueError(
            f"{name!r} has the shape {numbers.shape} and the type {numbers.dtype}; one row of "
            f"numbers is needed, one for {each}."
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
