"""The variables of a run: engine and mean loss."""

import pytest
from tiny_training import model_config, train_config

from charrnn_tf.network.cells import Engine
from charrnn_tf.training import state
from charrnn_tf.training.state import RunState, choose_engine


@pytest.mark.parametrize(
    ("precision", "has_bfloat16", "gpus", "engine"),
    [
        ("float32", True, 0, Engine.FLOAT32),
        ("float32", False, 0, Engine.FLOAT32),
        ("bfloat16", True, 0, Engine.BFLOAT16),
        ("bfloat16", False, 0, Engine.FLOAT32),
        ("bfloat16", True, 1, Engine.CUDNN),
    ],
)
def test_the_engine_follows_precision_cpu_and_gpu(precision, has_bfloat16, gpus, engine, monkeypatch):
    monkeypatch.setattr(state, "has_bfloat16", lambda: has_bfloat16)
    monkeypatch.setattr(state, "gpus", lambda: gpus)
    assert choose_engine(train_config(precision=precision)) == engine


def test_the_mean_loss_leaves_skipped_steps_out():
    run = RunState(model_config(), train_config())
    assert run.mean_loss() is None
    run.loss_sum.assign(6.0)
    run.loss_steps.assign(5)
    run.skipped.assign(2)
    assert run.mean_loss() == 2.0
    run.reset_losses()
    assert run.mean_loss() is None
    assert not any(float(counter) for counter in (run.loss_sum, run.loss_steps, run.skipped))
