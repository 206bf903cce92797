"""One training step, run eagerly: dropout, shards, clipping and updates, against Keras's own training."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny_training import model_config, random_windows, train_config

from charrnn_tf.network.model import zero_state
from charrnn_tf.training import step as step_module
from charrnn_tf.training.state import RunState
from charrnn_tf.training.step import train_step, window_loss


def take_steps(model, config, windows):
    """Make an update per window, each from the states that the one before left -> the run, and the losses."""
    run, state, losses = RunState(model, config), zero_state(model, config.batch_size), []
    for window in windows:
        loss, state, *_ = train_step(run, config, model.dropout, tf.constant(window), state)
        run.step.assign_add(1)
        losses.append(float(loss))
    return run, np.array(losses)


@pytest.fixture
def passed(monkeypatch):
    """For each shard of a step, what `window_loss` passed to `character_losses`: dropout by layer, and kernels."""
    calls = []

    def losses(model, window, state, dropout, engine, kernels):
        for layer in range(2 if dropout else 0):
            dropout(layer, tf.ones((4, window.shape[0], 8)))
        calls.append(kernels)
        return tf.zeros((4, window.shape[0])), state

    monkeypatch.setattr(step_module, "character_losses", losses)
    return calls


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_dropout_has_the_numbers_of_layer_and_shard(rate, passed, monkeypatch):
    seen = []
    monkeypatch.setattr(
        step_module, "drop_outputs", lambda config, *arguments: seen.append((*arguments[:-1], arguments[-1].shape[1]))
    )
    config = train_config(batch_size=8, shards=4)
    window, state = tf.constant(random_windows(config, 1)[0]), zero_state(model_config(num_layers=2), 8)
    window_loss(None, config, rate, 3, window, state)
    assert seen == ([(0.5, 3, layer, shard, 2) for shard in range(4) for layer in (0, 1)] if rate else [])
    seen.clear()
    window_loss(None, config, rate, 3, window, state, numbers=range(2, 4))  # the second of two replicas
    assert seen == ([(0.5, 3, layer, shard, 4) for shard in (2, 3) for layer in (0, 1)] if rate else [])


@pytest.mark.parametrize("weight_dropout", [0.0, 0.25])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_weight_dropout_is_the_same_for_all_shards(cell, weight_dropout, passed):
    config = train_config(batch_size=4, shards=2, weight_dropout=weight_dropout)
    model = model_config(num_layers=2, hidden_size=32, cell=cell)
    run = RunState(model, config)
    window_loss(run.model, config, 0.0, run.step, tf.constant(random_windows(config, 1)[0]), zero_state(model, 4))
    assert len(passed) == 2
    assert passed[0] is passed[1]
    if weight_dropout == 0:
        assert passed[0] is None
        return
    for n, kernel in enumerate(passed[0]):
        own = run.model.get_layer(f"{cell}_{n}").cell.recurrent_kernel.numpy()
        kept = kernel.numpy() != 0
        assert abs(kept.mean() - 0.75) < 0.05
        np.testing.assert_allclose(kernel.numpy()[kept], own[kept] / 0.75, rtol=1e-6)


def test_dropped_weights_get_no_update_and_the_others_do():
    config = train_config(weight_dropout=0.5, optimizer="sgd", learning_rate=0.1, clip_norm=0.0)
    before = RunState(model_config(), config).model.get_layer("lstm_0").cell.recurrent_kernel.numpy()
    run, _ = take_steps(model_config(), config, random_windows(config, 1))
    moved = run.model.get_layer("lstm_0").cell.recurrent_kernel.numpy() != before
    assert abs(moved.mean() - 0.5) < 0.15


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_the_number_of_shards_changes_only_roundings(cell):
    model = model_config(cell=cell)
    config = train_config(batch_size=4, optimizer="sgd", learning_rate=0.5, shards=1)
    windows = random_windows(config, 8)
    whole, whole_losses = take_steps(model, config, windows)
    cut, cut_losses = take_steps(model, dataclasses.replace(config, shards=2), windows)
    np.testing.assert_allclose(cut_losses, whole_losses, atol=1e-5)
    assert np.ptp(whole_losses) > 0.01
    for ours, theirs in zip(cut.model.get_weights(), whole.model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_another_seed_is_another_run():
    windows = random_windows(train_config(), 2)
    first, again, other = (take_steps(model_config(dropout=0.4), train_config(seed=n), windows)[1] for n in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).all()


@pytest.mark.parametrize(("cell", "embedding_size"), [("lstm", 0), ("gru", 5)])
def test_weight_decay_shrinks_all_weights_but_the_biases(cell, embedding_size):
    model = model_config(cell=cell, embedding_size=embedding_size)
    config = train_config(optimizer="sgd", learning_rate=0.5)
    window = random_windows(config, 1)
    plain, _ = take_steps(model, config, window)
    decayed, _ = take_steps(model, dataclasses.replace(config, weight_decay=0.1), window)
    untrained = RunState(model, config).model
    for variable, before, with_decay, without in zip(
        untrained.trainable_variables, *(each.get_weights() for each in (untrained, decayed.model, plain.model)), strict=True
    ):
        shrunk = 0.0 if variable.path.endswith("bias") else 0.05 * before
        np.testing.assert_allclose(with_decay, without - shrunk, atol=1e-6)


@pytest.mark.parametrize("clip_norm", [0.0, 0.05, 1000.0])
@pytest.mark.parametrize(("cell", "embedding_size"), [("lstm", 0), ("gru", 0), ("gru", 5)])
def test_an_sgd_update_is_the_clipped_gradient(cell, embedding_size, clip_norm):
    """Also that of an embedding, where a character that is read twice has one gradient."""
    model = model_config(cell=cell, embedding_size=embedding_size)
    config = train_config(optimizer="sgd", learning_rate=0.5, clip_norm=clip_norm)
    window = random_windows(config, 1)
    untrained = RunState(model, config).model
    with tf.GradientTape() as tape:
        losses = keras.losses.sparse_categorical_crossentropy(window[0, :, 1:], untrained(window[0, :, :-1]))
        loss = tf.reduce_mean(losses)
    gradients = [tf.convert_to_tensor(each).numpy() for each in tape.gradient(loss, untrained.trainable_variables)]
    norm = np.sqrt(sum((gradient.astype(np.float64) ** 2).sum() for gradient in gradients))
    assert 0.1 < norm < 1000
    factor = min(1.0, clip_norm / norm) if clip_norm else 1.0
    run, _ = take_steps(model, config, window)
    for before, gradient, after in zip(untrained.get_weights(), gradients, run.model.get_weights(), strict=True):
        np.testing.assert_allclose(after, before - 0.5 * factor * gradient, atol=1e-6)


@pytest.mark.parametrize("embedding_size", [0, 5])
def test_adam_updates_are_those_of_keras_fit(embedding_size):
    """Of an embedding, too: as a product with one-hot rows, since Keras's Adam squares an embedding's rows one by one."""
    model = model_config(cell="gru", embedding_size=embedding_size)
    config = train_config(learning_rate=0.01, clip_norm=0.0)
    windows = random_windows(config, 8)
    ids = keras.Input(batch_shape=(config.batch_size, config.num_steps), dtype="int32")
    inputs = keras.ops.one_hot(ids, model.vocab_size)
    if embedding_size:
        inputs = keras.layers.Dense(embedding_size, use_bias=False)(inputs)
    outputs = keras.layers.GRU(model.hidden_size, return_sequences=True, stateful=True)(inputs)
    peer = keras.Model(ids, keras.layers.Dense(model.vocab_size)(outputs))
    peer.set_weights(RunState(model, config).model.get_weights())
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    peer.compile(keras.optimizers.Adam(0.01, epsilon=1e-8), loss, run_eagerly=True)
    for window in windows:
        peer.train_on_batch(window[:, :-1], window[:, 1:])
    run, _ = take_steps(model, config, windows)
    for ours, theirs in zip(run.model.get_weights(), peer.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5)


def test_adams_first_step_moves_every_weight_by_the_rate():
    config = train_config(optimizer="adam", learning_rate=0.01, clip_norm=0.0)
    model = model_config(init="wide")
    before = RunState(model, config).model.get_weights()
    run, _ = take_steps(model, config, random_windows(config, 1))
    moved = np.abs(run.model.get_weights()[-1] - before[-1])  # dense bias: its gradients are far above epsilon
    np.testing.assert_allclose(moved, 0.01, rtol=1e-4)
