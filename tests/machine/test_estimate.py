"""Estimates of memory and disk: they grow with the model, and a model that does not fit is refused."""

import pytest

from charrnn_tf import ModelConfig, TrainConfig, build_model
from charrnn_tf.errors import ConfigError
from charrnn_tf.machine import estimate


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize("embedding_size", [0, 5])
def test_parameters_are_those_of_the_model(cell, num_layers, embedding_size):
    config = ModelConfig(11, cell=cell, hidden_size=7, num_layers=num_layers, embedding_size=embedding_size)
    assert estimate.parameters(config) == build_model(config, 1).count_params()


def test_memory_grows_with_model_batch_and_window():
    def need(batch_size=64, num_steps=100, **model):
        return estimate.training_memory(ModelConfig(80, **model), TrainConfig(batch_size=batch_size, num_steps=num_steps))

    assert need(hidden_size=512) > need() > estimate.TENSORFLOW
    assert need(num_layers=5) > need()
    assert need(batch_size=1000) > need()
    assert need(num_steps=1000) > need()


def test_several_workers_share_the_memory_of_a_batch():
    model, config = ModelConfig(80), TrainConfig(batch_size=1000, num_steps=100, validation_fraction=0)
    one, two, four = (estimate.training_memory(model, config, workers) for workers in (1, 2, 4))
    assert one - two == pytest.approx(2 * (two - four))
    assert one > two > four > estimate.TENSORFLOW


@pytest.mark.parametrize(("keep", "existing", "count"), [(5, 0, 7), (5, 3, 4), (5, 7, 1), (5, 20, 1), (1, 0, 3)])
def test_disk_holds_the_kept_checkpoints_the_best_and_one_being_written(keep, existing, count):
    model = ModelConfig(80)
    for optimizer, slots in [("adam", 2), ("sgd", 0), ("rmsprop", 1)]:
        config = TrainConfig(keep=keep, optimizer=optimizer)
        assert estimate.checkpoint_bytes(model, config) == 4 * estimate.parameters(model) * (1 + slots)
        assert estimate.disk(model, config, existing) == count * estimate.checkpoint_bytes(model, config)


def test_a_long_window_needs_as_much_as_many_streams():
    long = TrainConfig(batch_size=1, num_steps=12_800)
    assert estimate.training_memory(ModelConfig(80), long) == estimate.training_memory(ModelConfig(80), TrainConfig())


def test_a_model_that_does_not_fit_is_refused_with_the_estimate(monkeypatch, tmp_path):
    monkeypatch.setattr(estimate, "available_memory", lambda: int(4e9))
    estimate.check_memory(3.9e9, "Use less.")
    with pytest.raises(ConfigError, match=r"about 4\.1 GB of memory, the machine has 4\.0 GB\. Use less\."):
        estimate.check_memory(4.1e9, "Use less.")
    estimate.check_disk(1e3, tmp_path / "not" / "there")
    with pytest.raises(
        ConfigError, match=r"would take about 1e\+21 GB on disk, '.*' has [0-9,.]+ GB left\. Use a lower `keep`"
    ):
        estimate.check_disk(1e30, tmp_path / "not" / "there")


def test_unknown_memory_refuses_nothing(monkeypatch):
    monkeypatch.setattr(estimate, "available_memory", lambda: None)
    assert estimate.check_memory(1e30, "") is None
