"""The chart of a run's losses that notebooks show."""

import re
from xml.etree import ElementTree

import pytest

from charrnn_tf.runs.chart import HEIGHT, LEFT, WIDTH, chart
from charrnn_tf.runs.metrics import Row

SVG = "{http://www.w3.org/2000/svg}"


def drawn(losses):
    """The chart of (step, training loss, validation loss) -> the points of both lines, and all labels."""
    rows = [Row(step, step / 100, 1.0, training, validation, 0.002, 9.5) for step, training, validation in losses]
    svg = chart(rows)
    assert not re.search("nan|inf", svg)
    root = ElementTree.fromstring(svg)
    lines = [
        [tuple(map(float, point.split(","))) for point in line.get("points").split()] for line in root.iter(f"{SVG}polyline")
    ]
    return *lines, [label.text for label in root.iter(f"{SVG}text")]


def test_losses_are_drawn_against_steps():
    training, validation, labels = drawn([(100, 3.0, None), (200, 2.0, 2.5), (400, None, 2.25), (400, 1.0, None)])
    assert [x for x, _ in training] == pytest.approx([LEFT + (WIDTH - LEFT - 8) * part for part in (0.25, 0.5, 1)])
    assert [x for x, _ in validation] == [training[1][0], training[2][0]]
    top, bottom = training[0][1], training[2][1]
    assert 0 < top < training[1][1] < bottom < HEIGHT
    assert validation[0][1] == pytest.approx(top + (bottom - top) / 4, abs=0.1)
    assert labels == ["3.000", "1.000", "step 400", "training loss", "validation loss, nats per character"]


def test_a_single_validation_is_a_dot():
    svg = chart([Row(100, 1.0, 1.0, 3.0, None, 0.002, 9.5), Row(200, 2.0, 2.0, 2.0, 2.5, 0.002, 9.5)])
    (dot,) = ElementTree.fromstring(svg).iter(f"{SVG}circle")
    assert float(dot.get("cx")) == WIDTH - 8


def test_the_first_losses_do_not_set_the_scale():
    training, _, labels = drawn([(1, 9.0, None), (50, 2.0, None), (100, 1.0, None)])
    assert labels[:2] == ["2.000", "1.000"]
    assert training[0][1] == training[1][1]  # cut at the top


@pytest.mark.parametrize("losses", [[(5, 2.0, None)], [(5, None, None)], [(5, 2.0, None), (9, 2.0, 2.0)]])
def test_a_chart_of_few_or_equal_losses_is_drawn(losses):
    training, _, _ = drawn(losses)
    assert len(training) == sum(loss is not None for _, loss, _ in losses)
