"""The measured speed of products: rounded, lowered by quotas, and replaced by the environment. Nothing depends on time."""

from types import SimpleNamespace

import pytest

from charrnn_tf.errors import ConfigError
from charrnn_tf.machine import speed
from charrnn_tf.machine.speed import SPEED, measured_speed, product_rate
from charrnn_tf.settings.recipe import AVX2, AVX512, BFLOAT16


@pytest.fixture
def rate(monkeypatch):
    """Sets the rate that is measured, in GFLOP/s per core, and the share of a core that a quota allows."""
    monkeypatch.delenv(SPEED)

    def measured(gflops, share=1.0):
        monkeypatch.setattr(speed, "product_rate", lambda shards, precision: gflops)
        monkeypatch.setattr(speed, "core_share", lambda: share)

    return measured


@pytest.mark.parametrize(
    ("gflops", "reference", "expected"),
    [
        (140 / 2, AVX2, 1), (474 / 2, AVX512, 1), (900 / 2, BFLOAT16, 1),  # machines A and B in docs/performance.md
        (197 / 2, AVX512, 0.444), (390 / 2, BFLOAT16, 0.444),  # C
        (450 * 3.3, BFLOAT16, 3.38), (450 / 80, BFLOAT16, 0.0116),
    ],
)  # fmt: skip
@pytest.mark.parametrize("noise", [1, 0.95, 1.05])
def test_speeds_are_relative_to_the_reference_and_coarse(rate, gflops, reference, expected, noise):
    rate(gflops * noise)
    assert measured_speed(2, "float32", reference.gflops) == expected


@pytest.mark.parametrize("step", range(-6, 4))
def test_noise_of_a_fifth_does_not_change_a_speed_between_two_steps(rate, step):
    speeds = set()
    for noise in (0.82, 0.9, 1, 1.1, 1.2):
        rate(237 * 1.5**step * noise)
        speeds.add(measured_speed(2, "float32", 237))
    assert len(speeds) == 1


def test_a_quota_of_time_lowers_the_speed(rate):
    rate(450, share=0.5)
    assert measured_speed(1, "bfloat16", 450) == 0.444


def test_the_environment_replaces_the_measurement(monkeypatch):
    monkeypatch.setattr(speed, "product_rate", None)
    monkeypatch.setenv(SPEED, "0.7")
    assert measured_speed(2, "float32", 237) == 0.7


@pytest.mark.parametrize("given", ["fast", "0", "-1", "nan", "inf"])
def test_a_speed_in_the_environment_is_a_positive_number(monkeypatch, given):
    monkeypatch.setenv(SPEED, given)
    with pytest.raises(ConfigError, match=f"^{SPEED} in the environment must be a positive number, not '{given}'$"):
        measured_speed(2, "float32", 237)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_rate_is_the_work_of_all_threads_per_second_of_cpu_time(monkeypatch, precision):
    cpu_seconds = iter([10.0, 10.5])
    clock = SimpleNamespace(process_time=lambda: next(cpu_seconds), perf_counter=lambda: 0.0)
    monkeypatch.setattr(speed, "time", clock)
    monkeypatch.setattr(speed, "SECONDS", 0)  # one product in each thread
    monkeypatch.setattr(speed, "SIZE", 8)
    product_rate.cache_clear()
    try:
        assert product_rate(3, precision) == pytest.approx(3 * 2 * 8**3 / 0.5 / 1e9)
        assert product_rate(3, precision) == product_rate(3, precision)  # measured once
    finally:
        product_rate.cache_clear()
