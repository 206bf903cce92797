"""Plots of runs: lines, units, scales, names and files."""

import math

import numpy as np
import pytest
from conftest import write_checkpoint

from charrnn_tf.errors import CheckpointError, ConfigError
from charrnn_tf.insight import plots
from charrnn_tf.runs.metrics import MetricsFile, Row

PNG, PDF = b"\x89PNG\r\n", b"%PDF"


def write_run(folder, losses, validations=(), seconds=2.0):
    """A run's metrics.csv, a row each ten steps."""
    folder.mkdir(parents=True)
    file = MetricsFile(folder / "metrics.csv", 0)
    for n, loss in enumerate(losses):
        validation = validations[n] if n < len(validations) else None
        file.append(Row(10 * (n + 1), 0.5, seconds * (n + 1), loss, validation, 0.01, 1000.0))
    file.close()
    return folder


def lines(figure):
    return {line.get_label(): line for line in figure.axes[0].get_lines()}


@pytest.fixture
def two(tmp_path):
    falling = [3 / (1 + n / 5) for n in range(80)]
    first = write_run(tmp_path / "one" / "run", falling, [None] * 19 + [2.0] + [None] * 19 + [1.0])
    second = write_run(tmp_path / "two" / "run", falling[:60])
    return first, second


@pytest.mark.parametrize(("name", "begins"), [("a.png", PNG), ("b.PDF", PDF), ("c.svg", b"<?xml")])
def test_the_suffix_chooses_the_format(two, tmp_path, name, begins):
    assert plots.plot_runs(two, tmp_path / name) == tmp_path / name
    data = (tmp_path / name).read_bytes()
    assert data.startswith(begins)
    assert len(data) > 5000
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("name", ["a.jpg", "a", "a.png.txt"])
def test_another_suffix_is_refused_before_anything_is_read(tmp_path, name):
    with pytest.raises(ConfigError, match=r"`output` must end with \.png, \.svg, \.pdf"):
        plots.plot_runs([tmp_path / "none"], tmp_path / name)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"smoothing": float("nan")}, "`smoothing` must be from 0 to below 1, got nan"),
        ({"smoothing": 1.0}, "`smoothing` must be"),
        ({"against": "epochs"}, "`against` must be one of steps, characters, seconds, got 'epochs'"),
    ],
)
def test_a_setting_out_of_range_is_refused(two, tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        plots.plot_runs(two, tmp_path / "a.png", **settings)


@pytest.mark.parametrize("name", ["a$x$b", r"$\x$", "_hidden", "loop"])
def test_odd_names_of_folders_are_drawn(tmp_path, name):
    write_run(tmp_path / name, [2.0])
    run = plots.read_run(tmp_path / name)
    figure = plots.draw([run])
    figure.savefig(tmp_path / "a.png")
    assert [text.get_text().replace(r"\$", "$").removeprefix("./") for text in figure.axes[0].get_legend().get_texts()] == [
        f"{name}, training"
    ]
    assert figure.axes[0].get_lines()[0].get_marker() == "o"  # a single row is a point, not a line


@pytest.mark.parametrize("name", ["loop", "d" * 300])
def test_a_missing_folder_is_an_error(tmp_path, name):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(CheckpointError, match="is not a run's folder"):
        plots.plot_runs([tmp_path / name], tmp_path / "a.png")


def test_a_folder_without_a_run_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match=r"is not a run's folder: it has no metrics\.csv"):
        plots.plot_runs([tmp_path], tmp_path / "a.png")
    write_run(tmp_path / "empty", [])
    with pytest.raises(CheckpointError, match="has logged nothing yet"):
        plots.plot_runs([tmp_path / "empty"], tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


def test_each_run_has_a_smooth_line_a_raw_one_behind_and_its_validations(two):
    runs = [plots.read_run(folder, name) for folder, name in zip(two, plots.names(two), strict=True)]
    figure = plots.draw(runs)
    drawn = lines(figure)
    assert {"one/run, training, smoothed", "one/run, validation", "two/run, training, smoothed"} <= set(drawn)
    assert len(figure.axes[0].get_lines()) == 5
    raw = np.array([row.train_loss for row in runs[0].rows])
    smooth = drawn["one/run, training, smoothed"].get_ydata()
    assert np.abs(np.diff(smooth, 2)).max() < np.abs(np.diff(raw, 2)).max()
    assert list(drawn["one/run, validation"].get_xdata()) == [200, 400]
    assert drawn["one/run, training, smoothed"].get_color() == drawn["one/run, validation"].get_color()
    assert drawn["one/run, training, smoothed"].get_color() != drawn["two/run, training, smoothed"].get_color()
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == [
        "one/run, training, smoothed", "one/run, validation", "two/run, training, smoothed",
    ]  # fmt: skip


def test_a_short_run_is_drawn_as_it_is_and_so_are_all_beside_it(tmp_path):
    short = plots.read_run(write_run(tmp_path / "short", [3.0, 2.0, 1.0]), "short")
    long = plots.read_run(write_run(tmp_path / "long", [3 / (1 + n / 5) for n in range(80)]), "long")
    assert {*lines(plots.draw([short, long]))} == {"short, training", "long, training"}
    assert "long, training, smoothed" in lines(plots.draw([long]))


def test_the_first_steep_fall_does_not_set_the_scale(tmp_path):
    run = plots.read_run(write_run(tmp_path / "run", [100.0] + [2.0 - n / 200 for n in range(199)]))
    bottom, top = plots.draw([run], smoothing=0).axes[0].get_ylim()
    assert 0.9 < bottom < 1.01
    assert 1.99 < top < 2.2


@pytest.mark.parametrize(
    ("against", "last", "label"),
    [
        ("steps", 400, "training steps"),
        ("seconds", 4000, "minutes of the run"),
        ("characters", 3200, "characters read in training"),
    ],
)
def test_losses_are_drawn_against_steps_time_or_characters(tmp_path, against, last, label):
    folder = write_run(tmp_path / "run", [2.0] * 40, seconds=100.0)
    write_checkpoint(folder, step=400)  # of 2 streams x 4 characters
    figure = plots.draw([plots.read_run(folder)], against=against)
    assert lines(figure)["run, training"].get_xdata()[-1] == last
    assert figure.axes[0].get_xlabel() == label


@pytest.mark.parametrize(("seconds", "unit"), [(1.0, "seconds"), (20.0, "minutes"), (400.0, "hours")])
def test_time_has_the_unit_that_reads_best(tmp_path, seconds, unit):
    figure = plots.draw([plots.read_run(write_run(tmp_path / "run", [2.0] * 40, seconds=seconds))], against="seconds")
    assert figure.axes[0].get_xlabel() == f"{unit} of the run"
    assert 3 <= len(figure.axes[0].get_xticks()) <= 14


def test_characters_need_a_checkpoint(tmp_path):
    run = plots.read_run(write_run(tmp_path / "run", [2.0, 1.0]))
    with pytest.raises(CheckpointError, match="has no checkpoint, so the number of characters per step is unknown"):
        plots.draw([run], against="characters")


def test_smoothing_ignores_gaps_and_starts_without_bias():
    nan = math.nan
    np.testing.assert_allclose(plots.smoothed(np.array([4.0, 2.0]), 0.5), [(4 + 0.5 * 2) / 1.5, (0.5 * 4 + 2) / 1.5])
    first, last = (4 + 0.5 * 2) / 1.5, (0.5 * 4 + 2) / 1.5
    np.testing.assert_allclose(plots.smoothed(np.array([nan, 4.0, nan, 2.0]), 0.5), [first, first, 3.0, last])
    np.testing.assert_array_equal(plots.smoothed(np.array([nan, nan]), 0.5), [nan, nan])
    values = np.array([3.0, 1.0, 2.0])
    np.testing.assert_array_equal(plots.smoothed(values, 0.0), values)
    twice = plots.smoothed(np.array([4.0, 2.0]), 0.5, [2.0, 1.0])
    np.testing.assert_allclose(twice, [(2 * 4 + 0.25 * 2) / (2 + 0.25), (0.5 * 2 * 4 + 2) / (0.5 * 2 + 1)])
    half = plots.smoothed(np.array([4.0, 2.0]), 0.25, [1.0, 0.5])  # half a value decays by the square root of 0.25
    np.testing.assert_allclose(half, [(4 + 0.25 * 0.5 * 2) / (1 + 0.25 * 0.5), (0.5 * 4 + 0.5 * 2) / 1.0])


def test_smoothing_does_not_lag_behind_a_falling_line():
    values = np.linspace(3.0, 1.0, 41)
    np.testing.assert_allclose(plots.smoothed(values, 0.6)[15:-15], values[15:-15], atol=1e-3)


def test_names_are_as_long_as_needed(tmp_path):
    assert plots.names([tmp_path / "a", tmp_path / "b"]) == ["a", "b"]
    assert plots.names([tmp_path / "x" / "run", tmp_path / "y" / "run"]) == ["x/run", "y/run"]
    assert plots.names([tmp_path / "a"]) == ["a"]


@pytest.mark.parametrize("look", plots.LOOKS)
def test_seven_runs_have_seven_colours_and_none_is_black_on_black(tmp_path, look):
    run = plots.read_run(write_run(tmp_path / "run", [2.0]))
    found = [line.get_color() for line in plots.draw([run] * 7, look=look).axes[0].get_lines()]
    assert len(set(found)) == 7
    assert "#000000" not in found


def test_a_notebook_shows_a_picture_without_pyplot(two):
    assert plots.draw([plots.read_run(two[0])])._repr_png_().startswith(b"\x89PNG")


def test_an_svg_element_stands_alone_in_a_page(two):
    svg = plots.as_svg(plots.draw([plots.read_run(two[0])], look="dark"))
    assert svg.startswith("<svg")
    assert svg.rstrip().endswith("</svg>")
    assert "http://" not in svg.replace("http://www.w3.org/", "").replace("http://purl.org/", "").replace(
        "http://creativecommons.org/", ""
    )
