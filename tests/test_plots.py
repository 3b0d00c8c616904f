"""Figures: drawn without a warning, axes named, what was given is what is shown."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import mlprune_helpers
from mlprune_helpers import plots

# seaborn calls what matplotlib will deprecate; readers never see that kind.
pytestmark = pytest.mark.filterwarnings("error", "ignore::PendingDeprecationWarning")

INTERVALS = pd.DataFrame(
    {
        "language": ["en", "sw", "en", "sw"],
        "arm": ["dense", "dense", "pruned", "pruned"],
        "accuracy": [0.5, 0.4, 0.55, 0.35],
        "low": [0.45, 0.3, 0.5, 0.35],  # an interval may end at its point
        "high": [0.6, 0.5, 0.6, 0.45],
    }
)


@pytest.fixture(autouse=True)
def _style():
    with plt.rc_context():
        plots.use_style()
        yield
    plt.close("all")


def drawn(ax):
    """Render the whole figure: some warnings come only then."""
    ax.figure.canvas.draw()
    return ax


def horizontal_lines(ax):
    return [
        line.get_ydata()[0]
        for line in ax.lines
        if len(line.get_ydata()) == 2 and len(set(line.get_ydata())) == 1
    ]


def vertical_lines(ax):
    return [
        line.get_xdata()[0]
        for line in ax.lines
        if len(line.get_xdata()) == 2 and len(set(line.get_xdata())) == 1
    ]


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_plots_are_part_of_the_package():
    assert mlprune_helpers.plots is plots


def test_lines_by_layer():
    series = {"French": [0.1, 0.2, 0.4], "Swahili": [0.3, 0.2, 0.1]}
    ax = drawn(plots.lines_by_layer(series, ylabel="share", chance=0.3, title="Overlap"))
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == ("layer", "share", "Overlap")
    assert horizontal_lines(ax) == [0.3]
    assert legend(ax) == ["French", "Swahili", "chance"]
    assert ax.lines[0].get_xdata().tolist() == [0, 1, 2]
    assert list(ax.lines[1].get_ydata()) == [0.3, 0.2, 0.1]
    assert len({line.get_marker() for line in ax.lines[:2]}) == 2  # told apart without colour


def test_lines_by_layer_without_chance_and_on_a_logarithmic_scale():
    ax = drawn(plots.lines_by_layer({"norm": [1.0, 10.0, 100.0]}, ylabel="L2 norm", log=True))
    assert horizontal_lines(ax) == []
    assert ax.get_yscale() == "log"


def test_more_lines_than_markers():
    ax = drawn(plots.lines_by_layer({str(i): [i, i] for i in range(41)}, ylabel="y"))
    assert len(ax.lines) == 41


def test_more_points_than_markers():
    frame = pd.DataFrame({"x": "fr", "arm": range(41), "y": 0.5, "low": 0.4, "high": 0.6})
    ax = plots.points_with_intervals(frame, x="x", y="y", hue="arm")
    assert len(ax.containers) == 41


@pytest.mark.parametrize("values", [[], "123", ["1", "2"], [[1, 2], [3, 4]], [1j]])
def test_a_line_is_a_row_of_numbers(values):
    with pytest.raises(ValueError, match="'French'.*row of numbers"):
        plots.lines_by_layer({"French": values}, ylabel="y")
    assert not plt.get_fignums()  # no empty figure is left


def test_a_line_may_have_gaps():
    ax = plots.lines_by_layer({"French": [0.1, None, float("nan"), 0.4]}, ylabel="y")
    assert np.isnan(ax.lines[0].get_ydata()).tolist() == [False, True, True, False]


def test_nothing_to_draw_is_refused():
    for call in (
        lambda: plots.lines_by_layer({}, ylabel="y"),
        lambda: plots.matrix_images({}),
        lambda: plots.heatmap(pd.DataFrame(), label="share"),
        lambda: plots.points_with_intervals(INTERVALS[:0], x="language", y="accuracy", hue="arm"),
        lambda: plots.differences(INTERVALS[:0], label="arm", value="accuracy", xlabel="points"),
    ):
        with pytest.raises(ValueError, match="is empty"):
            call()


def test_a_column_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="no column 'acuracy'; it has: 'language', .*'accuracy'"):
        plots.points_with_intervals(INTERVALS, x="language", y="acuracy", hue="arm")
    with pytest.raises(ValueError, match="no column 'lower'"):
        plots.differences(INTERVALS, label="arm", value="accuracy", low="lower", xlabel="points")
    with pytest.raises(TypeError, match="a data frame is needed"):
        plots.heatmap(INTERVALS["accuracy"], label="share")


@pytest.mark.parametrize("column", ["language", "arm"])
def test_a_point_without_a_place_is_refused(column):
    """pandas takes no missing name for equal, so the point would not be drawn."""
    frame = INTERVALS.copy()
    frame.loc[2, column] = None
    with pytest.raises(ValueError, match=f"Row 2 has no '{column}'"):
        plots.points_with_intervals(frame, x="language", y="accuracy", hue="arm")
    with pytest.raises(ValueError, match=f"Row 2 has no '{column}'"):
        plots.differences(frame, label=column, value="accuracy", xlabel="points")


@pytest.mark.parametrize("shape", [(3,), (2, 2, 3), (0, 3)])
def test_a_matrix_has_rows_and_columns(shape):
    with pytest.raises(ValueError, match="'mask' has the shape"):
        plots.matrix_images({"mask": np.zeros(shape)})


@pytest.mark.parametrize("options", [{}, {"center": 0.0, "annotate": True}, {"vmin": 0, "vmax": 1}])
def test_heatmap(options):
    values = pd.DataFrame(
        np.linspace(-1, 1, 6).reshape(2, 3), index=["en", "sw"], columns=[10, 20, 30]
    )
    values.index.name, values.columns.name = "language", "sparsity (%)"
    ax = drawn(plots.heatmap(values, label="difference (points)", title="T", **options))
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == ("sparsity (%)", "language", "T")
    assert ax.figure.axes[1].get_ylabel() == "difference (points)"
    image = ax.collections[0]
    assert image.get_array().ravel().tolist() == values.to_numpy().ravel().tolist()
    if "center" in options:
        low, high = image.get_clim()
        assert image.cmap(image.norm(0.0)) == image.cmap(0.5)
        assert low == -1 and high == 1
        assert len(ax.texts) == 6
    if "vmin" in options:
        assert image.get_clim() == (0, 1)


def test_matrix_images(rng):
    matrices = {"score": rng.random((4, 6)), "mask": rng.random((4, 6)) < 0.5}
    ax = drawn(plots.matrix_images(matrices, title="Wanda"))
    images = {a.get_title(): a for a in ax.figure.axes if a.images}
    assert list(images) == ["score", "mask"]
    assert all(
        (a.get_xlabel(), a.get_ylabel()) == ("input feature", "output row") for a in images.values()
    )
    mask = images["mask"].images[0]
    assert mask.cmap(mask.norm(1.0))[:3] == (0, 0, 0) and mask.cmap(mask.norm(0.0))[:3] == (1, 1, 1)
    assert len(ax.figure.axes) == 3  # a colour bar for the scores only


def test_an_image_of_a_mask_that_marks_everything_is_black():
    ax = drawn(plots.matrix_images({"all": np.ones((2, 2), dtype=bool)}))
    (image,) = ax.images
    assert image.cmap(image.norm(1.0))[:3] == (0, 0, 0)


def test_points_with_intervals():
    ax = drawn(
        plots.points_with_intervals(INTERVALS, x="language", y="accuracy", hue="arm", chance=1 / 3)
    )
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("language", "accuracy")
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["en", "sw"]
    assert horizontal_lines(ax) == [1 / 3]
    assert set(legend(ax)) == {"dense", "pruned", "chance"}
    dense, pruned = ax.containers
    assert list(dense.lines[0].get_ydata()) == [0.5, 0.4]
    assert (dense.lines[0].get_xdata() != pruned.lines[0].get_xdata()).all()
    assert dense.lines[0].get_marker() != pruned.lines[0].get_marker()
    (bars,) = dense.lines[2]
    assert [segment[:, 1].tolist() for segment in bars.get_segments()] == [[0.45, 0.6], [0.3, 0.5]]
    named = plots.points_with_intervals(
        INTERVALS, x="language", y="accuracy", hue="arm", ylabel="accuracy (share)", title="T"
    )
    assert (named.get_ylabel(), named.get_title()) == ("accuracy (share)", "T")
    assert horizontal_lines(named) == []


def test_differences():
    frame = pd.DataFrame(
        {
            "language": ["en", "fr", "sw"],
            "d": [0.01, -0.02, 0.0],
            "low": [-0.01, -0.04, -0.01],
            "high": [0.03, 0.0, 0.01],
        }
    )
    ax = drawn(
        plots.differences(frame, label="language", value="d", xlabel="difference in accuracy")
    )
    assert ax.get_xlabel() == "difference in accuracy"
    assert vertical_lines(ax) == [0]
    height = {tick.get_text(): at for tick, at in zip(ax.get_yticklabels(), ax.get_yticks())}
    assert height["en"] > height["fr"] > height["sw"]  # first on top
    (points,) = ax.containers
    assert dict(zip(points.lines[0].get_ydata(), points.lines[0].get_xdata())) == {
        height["en"]: 0.01,
        height["fr"]: -0.02,
        height["sw"]: 0.0,
    }
    (bars,) = points.lines[2]
    assert np.allclose(
        sorted(segment[0, 0] for segment in bars.get_segments()), sorted(frame["low"])
    )


def test_figures_are_the_same_on_dark_pages():
    ax = drawn(plots.lines_by_layer({"a": [1, 2]}, ylabel="y"))
    assert ax.figure.get_facecolor() == (1, 1, 1, 1)
    assert plt.rcParams["savefig.facecolor"] == "white"
