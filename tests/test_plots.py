"""Figures: drawn without a warning, axes named, what was given is what is shown."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

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


ARMS = pd.DataFrame(
    {
        "measure": ["ranking", "ranking", "accuracy", "accuracy"],
        "arm": ["translation", "English", "translation", "English"],
        "difference": [1.0, 2.0, -3.0, -4.0],
        "low": [0.0, 1.0, -4.0, -6.0],
        "high": [2.0, 3.0, -1.0, -3.0],
    }
)

SEEDS = pd.DataFrame(
    {
        "measure": ["ranking", "ranking", "accuracy"],
        "arm": ["translation", "translation", "English"],
        "difference": [0.5, 1.5, -4.5],
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
    (below,) = ax.figure.legends
    return [text.get_text() for text in below.get_texts()]


def title(ax):
    return ax.figure.get_suptitle()


def points(container):
    """Of an error bar's points: (x, y) each."""
    return list(zip(*container.lines[0].get_data()))


def bars(container):
    """Ends of the bars of an error bar: (x, y) each."""
    (collection,) = container.lines[2]
    return [segment.tolist() for segment in collection.get_segments()]


def beyond(ax):
    """How far what is drawn goes beyond the edges of the figure, in inches."""
    figure = drawn(ax).figure
    box = figure.get_tightbbox()
    return max(-box.x0, -box.y0, box.x1 - figure.get_figwidth(), box.y1 - figure.get_figheight())


def test_plots_are_part_of_the_package():
    assert mlprune_helpers.plots is plots


def test_lines_by_layer():
    series = {"French": [0.1, 0.2, 0.4], "Swahili": [0.3, 0.2, 0.1]}
    ax = drawn(plots.lines_by_layer(series, ylabel="share", chance=0.3, title="Overlap"))
    assert (ax.get_xlabel(), ax.get_ylabel(), title(ax)) == ("layer", "share", "Overlap")
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
        lambda: plots.lines_by_x({}, [1], xlabel="x", ylabel="y"),
        lambda: plots.matrix_images({}),
        lambda: plots.place_figure({}, xlabel="nats"),
        lambda: plots.arms_figure(ARMS[:0], xlabel="points"),
        lambda: plots.arms_figure(ARMS, ARMS[:0], xlabel="points"),
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
    assert (ax.get_xlabel(), ax.get_ylabel(), title(ax)) == ("sparsity (%)", "language", "T")
    assert ax.figure.axes[1].get_xlabel() == "difference (points)"
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
    assert list(images) == ["score", "mask"] and title(ax) == "Wanda"
    assert ax.get_ylabel() == "output row"
    assert {a.get_xlabel() for a in images.values()} == {"input feature"}
    assert images["score"].images[0].get_array().tolist() == matrices["score"].tolist()
    assert len(ax.figure.axes) == 3  # a colour bar for the scores only


def test_a_mask_is_orange_on_white(rng):
    mask = rng.random((4, 6)) < 0.5
    (image,) = drawn(plots.matrix_images({"mask": mask})).images
    colours = image.get_array()
    assert (colours[~mask] == 1).all()
    red, _, blue = colours[mask][:, :3].T
    assert (red > 0.8).all() and (blue < 0.1).all()


def test_an_image_of_a_mask_that_marks_everything_is_orange():
    (image,) = drawn(plots.matrix_images({"all": np.ones((2, 2), dtype=bool)})).images
    assert image.get_array()[..., 2].max() < 0.1


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
    assert (named.get_ylabel(), title(named)) == ("accuracy (share)", "T")
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


def test_points_with_a_floor_each():
    frame = INTERVALS.assign(floor=[0.1, 0.2, 0.3, 0.2])
    ax = drawn(
        plots.points_with_intervals(
            frame, x="language", y="accuracy", hue="arm", floor="floor", floor_label="by chance"
        )
    )
    assert legend(ax) == ["dense", "pruned", "by chance"]
    (floors,) = [c for c in ax.collections if c.get_label() == "by chance"]
    drawn_at = {
        (round(segment[:, 0].mean(), 6), segment[0, 1]) for segment in floors.get_segments()
    }
    under = [place for container in ax.containers for place, _ in points(container)]
    assert drawn_at == {(round(x, 6), y) for x, y in zip(under, [0.1, 0.2, 0.3, 0.2])}


def test_rows_need_no_labels_of_their_own():
    frame = INTERVALS.set_axis([0, 0, 0, 0])  # as after pd.concat
    ax = plots.points_with_intervals(frame, x="language", y="accuracy", hue="arm")
    assert [y for c in ax.containers for _, y in points(c)] == [0.5, 0.4, 0.55, 0.35]


@pytest.mark.parametrize("low, high", [(-np.inf, np.inf), (-0.5, np.inf), (-np.inf, 0.5)])
def test_an_interval_without_an_end_is_dotted_to_the_edge(low, high):
    frame = pd.DataFrame(
        {"arm": ["a", "b"], "d": [0.0, 0.2], "low": [-1.0, low], "high": [1.0, high]}
    )
    ax = drawn(plots.differences(frame, label="arm", value="d", xlabel="points"))
    (dotted,) = [line for line in ax.lines if line.get_linestyle() == ":"]
    left, right = ax.get_xlim()
    assert dotted.get_xdata().tolist() == [max(low, left), min(high, right)]
    upright = plots.points_with_intervals(frame, x="arm", y="d", hue="arm")
    (dotted,) = [line for line in drawn(upright).lines if line.get_linestyle() == ":"]
    assert set(np.ptp([dotted.get_xdata(), dotted.get_ydata()], axis=1) == 0) == {True, False}


def test_lines_by_x():
    series = {"another draw": [0.9, 0.95], "English": [0.7, None]}
    ax = drawn(
        plots.lines_by_x(
            series,
            [10, 30],
            xlabel="sparsity (%)",
            ylabel="in common",
            reference=[0.1, 0.3],
            reference_label="unrelated masks",
        )
    )
    assert legend(ax) == ["another draw", "English", "unrelated masks"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("sparsity (%)", "in common")
    assert [line.get_xdata().tolist() for line in ax.lines] == [[10, 30]] * 3
    assert list(ax.lines[0].get_ydata()) == [0.9, 0.95]
    assert np.isnan(ax.lines[1].get_ydata()[1])
    assert list(ax.lines[2].get_ydata()) == [0.1, 0.3] and ax.lines[2].get_linestyle() == "--"
    assert len({line.get_marker() for line in ax.lines}) == 3


def test_lines_are_as_long_as_x():
    with pytest.raises(ValueError, match="'a' has 1 values, x has 2"):
        plots.lines_by_x({"a": [1]}, [1, 2], xlabel="x", ylabel="y")
    with pytest.raises(ValueError, match="'by chance' has 3 values, x has 2"):
        plots.lines_by_x({"a": [1, 2]}, [1, 2], xlabel="x", ylabel="y", reference=[1, 2, 3])
    with pytest.raises(ValueError, match="'by chance' is the name of the reference"):
        plots.lines_by_x({"by chance": [1]}, [1], xlabel="x", ylabel="y", reference=[1])
    assert not plt.get_fignums()


def test_arms_figure():
    ax = drawn(plots.arms_figure(ARMS, SEEDS, xlabel="points", title="T"))
    ranking, accuracy, over_all = ax.figure.axes
    assert ax is ranking and title(ax) == "T" and over_all.get_xlabel() == "points"
    assert (ranking.get_title(), accuracy.get_title()) == ("ranking", "accuracy")
    assert legend(ax) == ["mean, interval", "single seeds", "no change"]
    height = {tick.get_text(): at for tick, at in zip(ax.get_yticklabels(), ax.get_yticks())}
    assert height["translation"] > height["English"]  # first on top
    means = dict(zip(("translation", "English"), (1.0, 2.0)))
    assert {y: x for x, y in points(ranking.containers[0])} == {
        height[arm]: mean for arm, mean in means.items()
    }
    assert [[x for x, _ in ends] for ends in bars(accuracy.containers[0])] == [[-4, -1], [-6, -3]]
    seeds = [line for line in accuracy.lines if line.get_label() == "single seeds"]
    assert [line.get_xdata().tolist() for line in seeds] == [[-4.5]]
    assert abs(seeds[0].get_ydata()[0] - height["English"]) < 0.5
    assert vertical_lines(ranking) == vertical_lines(accuracy) == [0]


def test_arms_figure_with_a_chance_each():
    chance = {"ranking": 50.0, "accuracy": 33.3}
    ax = drawn(
        plots.arms_figure(ARMS, reference=chance, reference_label="chance", xlabel="percent")
    )
    assert [vertical_lines(panel) for panel in ax.figure.axes[:2]] == [[50], [33.3]]
    assert legend(ax) == ["mean, interval", "chance"]


def test_arms_figure_refuses_what_it_would_leave_out():
    with pytest.raises(ValueError, match="reference has no value for 'accuracy'"):
        plots.arms_figure(ARMS, reference={"ranking": 50}, xlabel="x")
    with pytest.raises(ValueError, match="'blocks' is 'arm' of seeds, but not one of"):
        plots.arms_figure(ARMS, SEEDS.assign(arm="blocks"), xlabel="x")
    with pytest.raises(ValueError, match="Row 1 has no 'measure'"):
        plots.arms_figure(ARMS.assign(measure=["ranking", None] * 2), xlabel="x")
    with pytest.raises(ValueError, match="2 rows for .*translation.*ranking"):
        plots.arms_figure(pd.concat([ARMS, ARMS[:1]]), xlabel="x")
    assert not plt.get_fignums()


def test_place_figure():
    values = {"French": (2.5, [2.8, 2.9, 2.8]), "Swahili": (0.2, [0.1, 0.3])}
    ax = drawn(
        plots.place_figure(
            values,
            xlabel="nats",
            intervals={"French": (2.25, 2.75)},
            reference={"French": 3.0, "Swahili": 0.4},
            title="T",
        )
    )
    assert (ax.get_xlabel(), title(ax)) == ("nats", "T")
    assert legend(ax) == ["specific", "random draws", "intact"]
    height = {tick.get_text(): at for tick, at in zip(ax.get_yticklabels(), ax.get_yticks())}
    assert height["French"] > height["Swahili"]
    (specific,) = ax.containers
    assert points(specific) == [(2.5, height["French"]), (0.2, height["Swahili"])]
    assert [[2.25, height["French"]], [2.75, height["French"]]] in bars(specific)
    grey = [line for line in ax.lines if line.get_marker() == "o"]
    for line, (name, (_, draws)) in zip(grey, values.items(), strict=True):
        assert line.get_xdata().tolist() == draws
        assert (np.abs(line.get_ydata() - height[name]) < 0.4).all()
        assert len(set(line.get_ydata())) == len(draws)  # equal draws are all seen
    (intact,) = [c for c in ax.collections if c.get_label() == "intact"]
    found = {(segment[0, 0], segment[:, 1].mean()) for segment in intact.get_segments()}
    assert found == {(3.0, height["French"]), (0.4, height["Swahili"])}


def test_place_figure_with_one_reference():
    ax = drawn(plots.place_figure({"fr": (1, [2])}, xlabel="nats", reference=3))
    assert vertical_lines(ax) == [3]
    assert legend(drawn(plots.place_figure({"fr": (1, [2])}, xlabel="nats"))) == [
        "specific",
        "random draws",
    ]


def test_place_figure_refuses_what_it_would_leave_out():
    with pytest.raises(ValueError, match="'fr' has the shape .*one for a draw"):
        plots.place_figure({"fr": (1.0, [])}, xlabel="nats")
    with pytest.raises(ValueError, match="'es' is a label of intervals, but not one of"):
        plots.place_figure({"fr": (1.0, [2])}, xlabel="nats", intervals={"es": (0, 1)})
    with pytest.raises(ValueError, match="reference has no value for 'fr'"):
        plots.place_figure({"fr": (1.0, [2])}, xlabel="nats", reference={"es": 1.0})
    assert not plt.get_fignums()


@pytest.mark.parametrize("better, worse", [(4, 14), (0, 1), (5, 5), (7, 6), (0, 30), (450, 550)])
def test_coins(better, worse):
    ax = drawn(plots.coins(better, worse, title="T"))
    exact = binomtest(better, better + worse).pvalue  # the sign test
    shaded = next(c for c in ax.containers if "as uneven" in c.get_label())
    assert sum(bar.get_height() for bar in shaded) == pytest.approx(exact)
    total = sum(bar.get_height() for container in ax.containers for bar in container)
    assert total == pytest.approx(1)
    said = legend(ax)[-1].rpartition(": ")[2]
    assert (
        said == "below 0.1 %"
        if exact < 0.001
        else float(said[:-2]) == pytest.approx(100 * exact, abs=0.5)
    )
    assert ax.get_xlabel() == f"heads in {better + worse} tosses of a fair coin"
    left, right = ax.get_xlim()
    assert left < better < right


@pytest.mark.parametrize("better, worse", [(0, 0), (-1, 3), (1.5, 2)])
def test_coins_that_cannot_be_thrown(better, worse):
    with pytest.raises(ValueError, match=r"Nothing changed|n_better is -1|n_better is 1\.5"):
        plots.coins(better, worse)


LONG = "mismatched pairs of sentences in several languages"


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plots.lines_by_layer({LONG: [1, 2], "b": [2, 1]}, ylabel=LONG, title=LONG * 2),
        lambda: plots.lines_by_x({LONG: [1, 2]}, [1, 2], xlabel=LONG, ylabel=LONG, title=LONG),
        lambda: plots.heatmap(
            pd.DataFrame(np.eye(7), index=[LONG] * 7, columns=[LONG] * 7), label=LONG, title=LONG
        ),
        lambda: plots.matrix_images({LONG: np.eye(2), "b": np.eye(2) > 0}, title=LONG),
        lambda: plots.points_with_intervals(
            pd.DataFrame(
                {"x": [LONG + str(i) for i in range(6)], "y": 1.0, "h": "a", "low": 0, "high": 2}
            ),
            x="x",
            y="y",
            hue="h",
            ylabel=LONG,
        ),
        lambda: plots.differences(
            INTERVALS.assign(arm=LONG), label="arm", value="accuracy", xlabel=LONG, title=LONG
        ),
        lambda: plots.arms_figure(ARMS.replace("English", LONG), xlabel=LONG, title=LONG * 2),
        lambda: plots.place_figure({LONG: (1, [2, 3])}, xlabel=LONG, specific_label=LONG),
        lambda: plots.coins(400, 500, title=LONG * 2),
    ],
)
def test_long_texts_stay_in_a_figure_as_wide_as_a_phone_can_show(draw):
    ax = draw()
    assert ax.figure.get_figwidth() == 5.8
    assert beyond(ax) < 0.02


def test_type_can_be_read():
    """A phone shows 5.8 inches in 358 pixels."""
    keys = ("xtick.labelsize", "ytick.labelsize", "axes.labelsize", "legend.fontsize")
    assert min(plt.rcParams[key] for key in keys) / 72 / 5.8 * 358 > 10


def test_figures_have_a_ground_of_their_own():
    """The dark page inverts it; a transparent one would leave dark type on dark elsewhere."""
    ax = drawn(plots.lines_by_layer({"a": [1, 2]}, ylabel="y"))
    assert ax.figure.get_facecolor() == (1, 1, 1, 1)
    assert plt.rcParams["savefig.facecolor"] == "white"
