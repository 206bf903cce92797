"""The learning rate by step, epoch and budget."""

import numpy as np
import pytest
import tensorflow as tf
from tiny_training import train_config

from charrnn_tf.training.schedule import learning_rate


def rate_at(config, step, time_fraction=0.0):
    """The rate of a step; 7 steps per epoch."""
    return float(learning_rate(config, 7, tf.constant(step, tf.int64), tf.constant(time_fraction, tf.float64)))


def test_a_constant_rate_is_constant():
    config = train_config(learning_rate=0.3)
    assert [rate_at(config, step, 0.9) for step in (0, 13, 49, 200)] == [np.float32(0.3)] * 4


@pytest.mark.parametrize(
    ("budgets", "time_fraction", "fractions"),
    [
        ({"max_steps": 40, "epochs": None}, 0.0, lambda step: step / 40),
        ({"max_steps": None, "epochs": 3}, 0.0, lambda step: step / (3 * 7)),
        ({"max_steps": None, "epochs": None, "max_seconds": 60.0}, 0.25, lambda step: 0.25),
        ({"max_steps": 40, "epochs": 3}, 0.0, lambda step: max(step / 40, step / 21)),
        ({"max_steps": 20, "epochs": 3}, 0.0, lambda step: max(step / 20, step / 21)),
        ({"max_steps": 40, "epochs": 30, "max_seconds": 60.0}, 0.4, lambda step: max(step / 40, step / 210, 0.4)),
    ],
)
def test_a_cosine_rate_follows_the_largest_fraction_of_the_budgets(budgets, time_fraction, fractions):
    config = train_config(learning_rate=0.02, schedule="cosine", **budgets)
    for step in (0, 1, 10, 19, 30, 60):
        expected = 0.02 * 0.5 * (1 + np.cos(np.pi * min(fractions(step), 1.0)))
        np.testing.assert_allclose(rate_at(config, step, time_fraction), expected, rtol=1e-6, atol=1e-12)


def test_a_cosine_rate_ends_at_the_final_rate():
    config = train_config(learning_rate=0.02, schedule="cosine", max_steps=40, final_rate=0.25)
    for step, expected in [(0, 0.02), (20, 0.02 * (1 + 0.25) / 2), (40, 0.005), (60, 0.005)]:
        assert rate_at(config, step) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "step"])
def test_a_warm_up_multiplies_any_schedule(schedule):
    settings = {"learning_rate": 0.02, "schedule": schedule, "max_steps": 400}
    for step in (0, 1, 8, 9, 10, 300):
        warm, plain = (rate_at(train_config(warmup_steps=rise, **settings), step) for rise in (10, 0))
        assert warm == pytest.approx(plain * min(1, (step + 1) / 10), rel=1e-6)


def test_a_step_rate_falls_at_epochs():
    config = train_config(learning_rate=0.05, schedule="step", step_epochs=2, gamma=0.2)
    for step, expected in [(0, 0.05), (13, 0.05), (14, 0.01), (27, 0.01), (28, 0.002), (42, 0.0004)]:
        assert rate_at(config, step, 0.9) == pytest.approx(expected, rel=1e-6)
