"""A process that trains, samples and evaluates again and again keeps nothing of it."""

import gc
import os
from collections import Counter

import pytest
from commandline import TEXT
from tensorflow.python.framework import ops
from tiny_training import model_config, train_config

import charrnn_tf as cr
from charrnn_tf.training.state import RunState

KINDS = ("FuncGraph", "WhileBodyFuncGraph", "ResourceVariable", "Functional", "Trainer", "Sampler")


def kept():
    """Counts of whatever a round could leave behind."""
    gc.collect()
    counts = Counter(type(each).__name__ for each in gc.get_objects())
    files = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
    return [counts[kind] for kind in KINDS], len(ops.gradient_registry.list()), files


@pytest.mark.slow
def test_training_sampling_and_evaluating_again_keeps_nothing(tmp_path):
    counts = []
    for _ in range(3):
        run = cr.train(
            text=TEXT, max_steps=2, hidden_size=8, batch_size=2, num_steps=4, checkpoint_dir=tmp_path, overwrite=True,
            display=False,
        )  # fmt: skip
        run.sample("The ", 5)
        cr.evaluate(run.latest, TEXT[:100])
        del run
        counts.append(kept())
    assert counts[1] == counts[2]


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "rmsprop"])
def test_variables_are_named_alike_in_every_run_since_tensorflow_keeps_an_operation_for_each_name(optimizer):
    runs = [RunState(model_config(dropout=0.1), train_config(optimizer=optimizer)) for _ in range(2)]
    first, second = ([each.value.name for each in (*run.model.variables, *run.optimizer.variables)] for run in runs)
    assert first == second
    assert any("seed_generator" in name for name in first)
