"""Figures from plain arrays and data frames.  Knows nothing of models.

Every function draws one message and returns the axes.  Figures have a white ground of their own, so they read the
same on light and dark pages; colours are seaborn's colour-blind palette.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns


def use_style() -> None:
    """Set fonts, grid and palette for the figures of a notebook, and show long texts in its tables."""
    pd.options.display.max_colwidth = 200
    sns.set_theme(context="notebook", style="whitegrid", palette="colorblind")
    plt.rcParams |= {
        "figure.facecolor": "white",
        "savefig.facecolor": "white",
        "figure.figsize": (8, 4.2),
        "figure.dpi": 110,
    }


def lines_by_layer(
    series: Mapping[str, Sequence[float]],
    *,
    ylabel: str,
    chance: float | None = None,
    chance_label: str = "chance",
    title: str = "",
    log: bool = False,
) -> plt.Axes:
    """One line a name over the layers 0 … L; ``chance`` is drawn as a dashed line."""
    _, ax = plt.subplots()
    for (name, values), marker in zip(series.items(), "osD^vPX*hd" * 3):
        ax.plot(np.arange(len(values)), values, marker=marker, markersize=4, label=name)
    if chance is not None:
        ax.axhline(chance, color="0.35", linestyle="--", linewidth=1.2, label=chance_label)
    ax.set(xlabel="layer", ylabel=ylabel, title=title, yscale="log" if log else "linear")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend(frameon=True, fontsize="small")
    return ax


def heatmap(
    values: pd.DataFrame, *, label: str, title: str = "", annotate: bool = False, **options
) -> plt.Axes:
    """A labelled matrix; ``options`` as in seaborn, such as vmin and vmax, or cmap and center for a diverging scale."""
    _, ax = plt.subplots(figsize=(8, 1.6 + 0.38 * len(values)))
    options = {"cmap": "viridis", "fmt": ".2f", "linewidths": 0.3} | options
    sns.heatmap(values, ax=ax, annot=annotate, cbar_kws={"label": label}, **options)
    ax.set_title(title)
    ax.tick_params(axis="y", rotation=0)
    return ax


def matrix_images(matrices: Mapping[str, np.ndarray], *, title: str = "") -> plt.Axes:
    """Matrices side by side, (rows, columns) as pixels; booleans in black (True) and white."""
    figure, axes = plt.subplots(
        1, len(matrices), figsize=(3.2 * len(matrices), 3.4), squeeze=False, layout="constrained"
    )
    for ax, (name, matrix) in zip(axes[0], matrices.items()):
        boolean = np.asarray(matrix).dtype == bool
        look = dict(cmap="gray_r", vmin=0, vmax=1) if boolean else dict(cmap="viridis")
        image = ax.imshow(matrix, **look, aspect="auto", interpolation="nearest")
        ax.set(title=name, xlabel="input feature", ylabel="output row")
        ax.grid(False)
        if not boolean:
            figure.colorbar(image, ax=ax, shrink=0.8)
    figure.suptitle(title)
    return axes[0, 0]


def points_with_intervals(
    frame: pd.DataFrame, *, x: str, y: str, hue: str, low: str = "low", high: str = "high",
    chance: float | None = None, chance_label: str = "chance", ylabel: str = "", title: str = "",
) -> plt.Axes:  # fmt: skip
    """Points with intervals: a place on the horizontal axis for each ``x``, a colour and marker for each ``hue``."""
    _, ax = plt.subplots()
    places = {value: i for i, value in enumerate(pd.unique(frame[x]))}
    names = list(pd.unique(frame[hue]))
    for k, (name, marker) in enumerate(zip(names, "osD^vPX*hd" * 3)):
        part = frame[frame[hue] == name]
        at = part[x].map(places) + (k - (len(names) - 1) / 2) * 0.7 / len(names)
        errors = np.clip([part[y] - part[low], part[high] - part[y]], 0, None)
        ax.errorbar(at, part[y], yerr=errors, fmt=marker, capsize=3, label=name)
    if chance is not None:
        ax.axhline(chance, color="0.35", linestyle="--", linewidth=1.2, label=chance_label)
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
) -> plt.Axes:
    """Differences with their intervals, one a line, against a line at zero."""
    _, ax = plt.subplots(figsize=(8, 1.4 + 0.34 * len(frame)))
    at = np.arange(len(frame))[::-1]
    errors = np.clip([frame[value] - frame[low], frame[high] - frame[value]], 0, None)
    ax.errorbar(frame[value], at, xerr=errors, fmt="o", capsize=3)
    ax.axvline(0, color="0.35", linestyle="--", linewidth=1.2)
    ax.set(xlabel=xlabel, title=title, ylim=(-0.7, len(frame) - 0.3))
    ax.set_yticks(at, frame[label])
    return ax
