"""Many steps in a compiled call: the number of steps per call, XLA and the engine don't change the results."""

import dataclasses
import threading
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from gpu import GRADIENT, OPERATION, operations, stand_in
from tiny_training import STEPS_PER_EPOCH, Training, assert_equal, model_config, random_windows, train_config

from charrnn_tf.network.cells import Engine
from charrnn_tf.network.model import recurrent_layers, zero_state
from charrnn_tf.text.vocabulary import Vocabulary
from charrnn_tf.text.windows import Streams
from charrnn_tf.training import budget, state
from charrnn_tf.training.compiled import compile_steps
from charrnn_tf.training.replicas import Replicas
from charrnn_tf.training.state import RunState
from charrnn_tf.training.step import window_loss

PASSAGE = (
    "The ferry leaves at nine, and by ten the harbour is quiet again. A boy counts the boats as they come home; his sister "
    "mends a net and tells him what each of them has caught. When the last one is in they walk up the hill, where supper "
    "waits, and nobody asks what they have learnt.\n"
)

every_input = pytest.mark.parametrize("settings", [{"cell": "lstm"}, {"cell": "gru"}, {"cell": "lstm", "embedding_size": 5}])


def keras_loss(model, window):
    """The mean loss of a window by the Keras model's own stateful call."""
    probabilities = model(window[:, :-1], training=False).numpy().astype(np.float64)
    return -np.log(np.take_along_axis(probabilities, window[:, 1:, None], axis=2)).mean()


# Steps per call


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_the_number_of_steps_per_call_changes_nothing(cell):
    config = train_config(batch_size=4, shards=2, state_reset=0.3, schedule="cosine", learning_rate=0.05)
    windows, ended = random_windows(config, 12), []
    training = Training(model_config(cell=cell, dropout=0.4), config)
    for calls in ([1] * 12, [12], [5, 7]):
        training.restart()
        training.train(windows, calls)
        ended.append(training.values())
    assert ended[0]["counters/step"] == ended[0]["counters/loss_steps"] == 12
    for other in ended[1:]:
        assert_equal(other, ended[0])


@pytest.mark.slow
def test_a_run_repeats_itself_bit_for_bit():
    model = model_config(hidden_size=64, dropout=0.4)
    config = train_config(batch_size=16, num_steps=16, shards=2, state_reset=0.3, learning_rate=0.01)
    windows, first, second = random_windows(config, 10), Training(model, config), Training(model, config)
    np.testing.assert_array_equal(second.train(windows, [1] * 10), first.train(windows, [1] * 10))
    assert_equal(second.values(), first.values())


@pytest.mark.slow
def test_every_step_of_a_call_has_its_own_rate():
    config = train_config(learning_rate=0.1, schedule="step", step_epochs=1, gamma=0.0001, optimizer="sgd", clip_norm=0.0)
    windows, weights, training = random_windows(config, 9), {}, Training(model_config(), config)
    for count, rate in [(6, 0.1), (7, 0.1), (9, 0.1 * 0.0001)]:
        training.restart()
        training.train(windows[:count], [count])
        assert float(training.run.optimizer.learning_rate) == np.float32(rate)
        weights[count] = training.run.model.get_weights()
    for six, seven, nine in zip(*weights.values(), strict=True):
        np.testing.assert_allclose(nine, seven, atol=1e-4)
        assert not np.allclose(six, seven, atol=1e-4)


@pytest.mark.slow
def test_the_loop_resets_states_before_the_window_is_read():
    config = train_config(state_reset=1.0, learning_rate=1e-30, optimizer="sgd")
    windows, training = random_windows(config, 3), Training(model_config(), config)
    losses = training.train(windows, [1, 1, 1])
    for window, loss in zip(windows, losses, strict=True):
        zeros, run = zero_state(model_config(), 2), training.run
        fresh, _ = window_loss(run.model, config, 0.0, run.step, tf.constant(window), zeros)
        np.testing.assert_allclose(loss, float(fresh), atol=1e-6)
    carried = Training(model_config(), dataclasses.replace(config, state_reset=0.0)).train(windows, [1, 1, 1])
    assert carried[0] == losses[0]
    assert abs(carried[1:] - losses[1:]).min() > 1e-5


@pytest.mark.slow
@every_input
def test_the_losses_are_those_of_the_keras_models_stateful_call(settings):
    config = train_config(learning_rate=0.02, batch_size=4, shards=2)
    training = Training(model_config(num_layers=2, **settings), config)
    for step, window in enumerate(random_windows(config, 10)):
        if step % STEPS_PER_EPOCH == 0:
            for layer in recurrent_layers(training.run.model):
                layer.reset_state()
        expected = keras_loss(training.run.model, window)
        (loss,) = training.train(window[None], [1])
        assert abs(loss - expected) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_repetitive_text_is_learnt(cell):
    config = train_config(batch_size=4, num_steps=8, learning_rate=0.02, optimizer="adam", max_steps=400)
    text = np.tile(np.array([0, 1, 2, 0, 3, 4, 0, 1, 5, 6], np.uint8), 33)
    windows = Streams.cut(text, 4, 8).read(0, 300)
    losses = Training(model_config(cell=cell, hidden_size=16), config, steps_per_epoch=10).train(windows, [299, 1])
    assert losses[1] < 0.3


# Averages of the weights


@pytest.mark.slow
@pytest.mark.parametrize("xla", [False, True])
def test_the_averages_are_the_means_of_the_last_steps_weights(xla, monkeypatch):
    monkeypatch.setattr(budget, "CALL_STEPS", 4)
    config = train_config(max_steps=10, averaging=0.35, learning_rate=0.05, xla=xla)
    windows, plain = random_windows(config, 10), Training(model_config(), dataclasses.replace(config, averaging=0.0))
    trained = []
    for n in range(10):
        plain.train(windows[n : n + 1], [1])
        trained.append(plain.run.model.get_weights())
    for calls in ([1] * 10, [4, 4, 2]):
        training = Training(model_config(), config)
        for n, count in enumerate(calls):
            begin = sum(calls[:n])
            training.train(windows[begin : begin + count], [count])
            used = training.run.model.get_weights()  # which exchanges the weights, and the next call exchanges them back
            averaged = trained[6 : begin + count] or [trained[begin + count - 1]]
            for mean, *each in zip(used, *averaged, strict=True):
                np.testing.assert_allclose(mean, np.mean(each, axis=0), atol=1e-6)
        training.run.to_train()
        for ours, theirs in zip(training.run.copies[0][0].get_weights(), trained[-1], strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-6 if xla else 0)


def test_another_thread_that_asks_for_the_model_waits_for_the_steps():
    config = train_config(max_steps=10, averaging=1.0, learning_rate=0.05)
    windows, alone, watched = random_windows(config, 8), Training(model_config(), config), Training(model_config(), config)
    for window in windows:
        alone.train(window[None], [1])
    ended = threading.Event()

    def watch():
        while not ended.is_set():
            watched.run.model.get_weights()

    watcher = threading.Thread(target=watch)
    watcher.start()
    for window in windows:
        watched.train(window[None], [1])
    ended.set()
    watcher.join()
    assert_equal(watched.values(), alone.values())


def test_a_larger_budget_forgets_the_averages():
    config = train_config(max_steps=None, max_seconds=60.0, averaging=0.5, learning_rate=0.05)
    training, windows = Training(model_config(), config), random_windows(config, 3)
    for window, used, averaged in zip(windows, (0.9, 0.2, 0.6), (1, 0, 1), strict=True):
        training.run_at(window[None], used)
        assert int(training.run.averaged) == averaged
        weights = training.run.model.get_weights()
        training.run.to_train()
        for mean, trained in zip(weights, training.run.copies[0][0].get_weights(), strict=True):
            np.testing.assert_allclose(mean, trained, atol=1e-6)


# Several replicas


class Pair(Replicas):
    """Two replicas on this machine's one device; each keeps its own gradients."""

    alone, count, devices = False, 2, ("", "")

    def run(self, function, *arguments):
        return [function(n, *arguments) for n in range(2)]


def test_each_replica_carries_only_its_own_states_from_step_to_step(monkeypatch):
    config, shapes, looped = train_config(batch_size=4, shards=2), [], tf.while_loop

    def while_loop(goes_on, body, variables, **options):
        shapes.append([getattr(each, "shape", None) for each in tf.nest.flatten(variables)[1:]])
        return looped(goes_on, body, variables, **options)

    monkeypatch.setattr(tf, "while_loop", while_loop)
    run = RunState(model_config(), config, Pair())
    steps = compile_steps(run, model_config(), config, STEPS_PER_EPOCH)
    assert shapes[0] == [(2, 8)] * 4  # hidden and cell of either replica
    windows = random_windows(config, 1)
    steps(windows, 0.0)
    alone = Training(model_config(), train_config())
    alone.train(windows[:, 2:], [1])  # the second replica's streams
    np.testing.assert_array_equal(run.recurrent[0][0][2:], alone.run.recurrent[0][0])


# XLA


@pytest.mark.parametrize(("xla", "asked"), [(None, False), (False, False), (True, True)])
def test_xla_compiles_the_steps_where_set(xla, asked, monkeypatch):
    found = []

    def function(run_steps, autograph, jit_compile):
        found.append(jit_compile)
        return SimpleNamespace(get_concrete_function=lambda *signature: None)

    monkeypatch.setattr(tf, "function", function)
    config = train_config(xla=xla)
    compile_steps(RunState(model_config(), config), model_config(), config, STEPS_PER_EPOCH)
    assert found == [asked]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "shards"), [({"cell": "lstm"}, 2), ({"cell": "gru"}, 1), ({"cell": "lstm", "embedding_size": 5}, 1)]
)
def test_xla_changes_only_roundings_and_allows_any_number_of_steps_per_call(settings, shards, monkeypatch):
    monkeypatch.setattr(budget, "CALL_STEPS", 8)  # to which windows are padded
    model = model_config(dropout=0.4, **settings)
    config = train_config(
        batch_size=4, shards=shards, state_reset=0.3, weight_dropout=0.3, schedule="cosine", learning_rate=0.05, xla=True
    )
    windows, training = random_windows(config, 8), Training(model, config)
    losses = training.train(windows, [1] * 8)
    plain = Training(model, dataclasses.replace(config, xla=False)).train(windows, [1] * 8)
    np.testing.assert_allclose(losses, plain, rtol=0, atol=1e-5)
    assert np.ptp(losses) > 0.01
    ended = training.values()
    assert ended["counters/step"] == ended["counters/loss_steps"] == 8
    for calls in ([8], [3, 5]):
        training.restart()
        training.train(windows, calls)
        assert_equal(training.values(), ended)


# Engines: Keras's own loops on a GPU, products in bfloat16


@pytest.fixture
def keras_loops(monkeypatch):
    """The names of the layers that ran Keras's own loop."""
    seen = []
    for kind in (keras.layers.LSTM, keras.layers.GRU):

        def spy(self, *arguments, real=kind.inner_loop, **named):
            seen.append(self.name)
            return real(self, *arguments, **named)

        monkeypatch.setattr(kind, "inner_loop", spy)
    return seen


@pytest.mark.slow
@every_input
def test_on_a_gpu_steps_run_keras_own_loops(settings, monkeypatch, keras_loops):
    model = model_config(num_layers=2, dropout=0.4, **settings)
    config = train_config(batch_size=4, state_reset=0.3, weight_dropout=0.3, learning_rate=0.02, precision="bfloat16")
    windows = random_windows(config, 6)
    monkeypatch.setattr(state, "has_bfloat16", lambda: False)
    on_cpu = Training(model, config)
    losses = on_cpu.train(windows, [1] * 6)
    assert on_cpu.run.engine is Engine.FLOAT32
    assert not keras_loops
    stand_in(monkeypatch)
    on_gpu = Training(model, config)
    np.testing.assert_allclose(on_gpu.train(windows, [1] * 6), losses, rtol=0, atol=1e-5)
    assert on_gpu.run.engine is Engine.CUDNN
    assert sorted(set(keras_loops)) == [f"{settings['cell']}_{n}" for n in (0, 1)]
    assert np.ptp(losses) > 0.01


@every_input
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_graph_of_the_steps_has_cudnns_operation_for_every_layer_on_a_gpu(settings, precision, monkeypatch):
    traced, function = [], tf.function

    def spy(*arguments, **named):
        compiled = function(*arguments, **named)

        def concrete(*signature):
            traced.append(compiled.get_concrete_function(*signature).graph.as_graph_def())

        return SimpleNamespace(get_concrete_function=concrete)

    stand_in(monkeypatch, cudnn=True)
    monkeypatch.setattr(tf, "function", spy)
    model = model_config(num_layers=2, dropout=0.4, **settings)
    config = train_config(batch_size=4, state_reset=0.3, weight_dropout=0.3, precision=precision, xla=False)
    compile_steps(RunState(model, config), model, config, STEPS_PER_EPOCH)
    (definition,) = traced
    found = operations(definition)
    assert (found[OPERATION], found[GRADIENT]) == (2, 2)
    assert found["While"] + found["StatelessWhile"] == 1  # over the steps, none over characters


@pytest.mark.slow
@every_input
def test_a_text_is_learnt_in_bfloat16_as_in_float32(settings, monkeypatch):
    monkeypatch.setattr(state, "has_bfloat16", lambda: True)  # elsewhere TensorFlow emulates it
    vocabulary = Vocabulary.from_text(PASSAGE)
    model = model_config(vocab_size=len(vocabulary), hidden_size=32, **settings)
    config = train_config(batch_size=8, num_steps=16, learning_rate=0.02, max_steps=150)
    streams = Streams.cut(vocabulary.encode(PASSAGE * 20), 8, 16)
    windows, losses = streams.read(0, 150), {}
    for precision in ("float32", "bfloat16"):
        training = Training(model, dataclasses.replace(config, precision=precision), streams.steps_per_epoch)
        losses[precision] = training.train(windows, [1] * 150)
    exact, rounded = losses.values()
    assert exact[-30:].mean() < 0.5 * exact[0]
    assert abs(rounded[-30:].mean() - exact[-30:].mean()) < 0.02
    assert np.abs(rounded - exact).min() > 0
    kinds = {name: value.dtype for name, value in training.values().items() if not name.startswith("counters/")}
    assert {name: kind for name, kind in kinds.items() if kind != np.float32} == {"optimizer/000.iteration": np.int64}
