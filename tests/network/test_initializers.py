"""Initial weights: bounds and moments for each `init`, reproducible from the seed; and those of further characters."""

import functools
import itertools
import math

import numpy as np
import pytest
import tensorflow as tf

from charrnn_tf.network.initializers import SHARE, grown, initialize
from charrnn_tf.network.model import build_model, weights
from charrnn_tf.settings.schema import INITS, ModelConfig

H, L = 8, 2
DRAW = np.random.default_rng(1)

every_init = pytest.mark.parametrize("init", INITS)
both_cells = pytest.mark.parametrize("cell", ["lstm", "gru"])


def config_of(cell, init, **changes):
    sizes = {"vocab_size": 11, "hidden_size": H, "num_layers": L, "embedding_size": 5}
    return ModelConfig(cell=cell, init=init, **sizes | changes)


@every_init
@both_cells
def test_weights_depend_on_the_seed_alone(cell, init):
    config = config_of(cell, init)
    model = build_model(config, 2, seed=1)
    for ours, theirs in zip(build_model(config, 6, seed=1).get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)  # at any batch size
    first = model.get_weights()
    initialize(model, config, 2)
    second = model.get_weights()
    tf.random.set_seed(9)  # not used
    initialize(model, config, 1)
    names = list(weights(model))
    for name, a, b, again in zip(names, first, second, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, again)
        assert np.array_equal(a, b) == (not np.unique(a - a.round()).any()), name  # only constants are equal


@every_init
@both_cells
def test_no_two_kernels_are_drawn_alike(cell, init):
    model = build_model(config_of(cell, init, vocab_size=H, embedding_size=H), 1)
    kernels = [value.numpy() for name, value in weights(model).items() if "kernel" in name or "embeddings" in name]
    assert len(kernels) == 2 * L + 2
    for a, b in itertools.combinations(kernels, 2):
        shared = min(a.shape[1], b.shape[1])
        assert abs(np.corrcoef(a[:, :shared].ravel(), b[:, :shared].ravel())[0, 1]) < 0.7


@functools.cache
def drawn(cell, init, embedding_size=40):
    """All weights by name as arrays, of a model large enough to estimate their moments: H=64, V=50, E=40."""
    config = config_of(cell, init, vocab_size=50, hidden_size=64, embedding_size=embedding_size)
    return {name: value.numpy() for name, value in weights(build_model(config, 1, seed=5)).items()}


def assert_uniform(values, limit):
    """Bounds and standard deviation of U(-limit, limit)."""
    assert 0.9 * limit < np.abs(values).max() <= limit * (1 + 1e-6)
    assert abs(values.mean()) < 5 * limit / math.sqrt(3 * values.size)
    assert values.std() == pytest.approx(limit / math.sqrt(3), rel=0.15 if values.size < 1000 else 0.05)


def glorot(shape):
    return math.sqrt(6 / sum(shape))


def forget_bias(cell, of):
    """Zeros except for ones at the LSTM's forget gate, or at both gates of a GRU (in the inputs' bias)."""
    bias = np.zeros_like(of)
    if cell == "lstm":
        bias[64:128] = 1
    else:
        bias[0, :128] = 1
    return bias


@both_cells
def test_keras_init(cell):
    values = drawn(cell, "keras")
    assert_uniform(values["embedding.embeddings"], 0.05)
    for n in range(2):
        kernel, recurrent = values[f"{cell}_{n}.kernel"], values[f"{cell}_{n}.recurrent_kernel"]
        assert_uniform(kernel, glorot(kernel.shape))
        np.testing.assert_allclose(recurrent @ recurrent.T, np.eye(64), atol=1e-5)
        bias = values[f"{cell}_{n}.bias"]
        np.testing.assert_array_equal(bias, forget_bias(cell, bias) if cell == "lstm" else np.zeros_like(bias))
    assert_uniform(values["logits.kernel"], glorot((64, 50)))
    assert not values["logits.bias"].any()


@pytest.mark.parametrize("init", ["pytorch", "wide", "default"])
@both_cells
def test_pytorch_wide_and_default_init(cell, init):
    values, limit = drawn(cell, init), 1 / 8
    embeddings = values["embedding.embeddings"]
    assert embeddings.std() == pytest.approx(1, rel=0.05)
    assert 3 < np.abs(embeddings).max() < 6
    for n in range(2):
        assert_uniform(values[f"{cell}_{n}.kernel"], limit)
        assert_uniform(values[f"{cell}_{n}.recurrent_kernel"], limit)
        bias = values[f"{cell}_{n}.bias"]
        if cell == "gru":
            assert bias.shape == (2, 192)
            for row in bias:
                assert_uniform(row, limit)
        else:  # the sum of two draws
            forget, others = bias[64:128], np.delete(bias, slice(64, 128))
            assert limit < np.abs(others).max() <= 2 * limit
            assert others.std() == pytest.approx(limit * math.sqrt(2 / 3), rel=0.15)
            assert (forget == 1).all() if init == "default" else abs(forget.mean()) < limit / 2
    if init in ("wide", "default"):
        assert_uniform(values["logits.kernel"], 1)
        assert not values["logits.bias"].any()
    else:
        assert_uniform(values["logits.kernel"], limit)
        assert 0 < np.abs(values["logits.bias"]).max() <= limit
        assert np.unique(values["logits.bias"]).size == 50


@both_cells
def test_tf1_init(cell):
    values, gates = drawn(cell, "tf1"), 4 if cell == "lstm" else 3
    assert_uniform(values["embedding.embeddings"], 0.05)
    for n, inputs in enumerate([40, 64]):
        limit = math.sqrt(6 / (inputs + 64 + gates * 64))  # both kernels as one matrix
        assert_uniform(values[f"{cell}_{n}.kernel"], limit)
        assert_uniform(values[f"{cell}_{n}.recurrent_kernel"], limit)
        bias = values[f"{cell}_{n}.bias"]
        np.testing.assert_array_equal(bias, forget_bias(cell, bias))
    dense = values["logits.kernel"]
    assert 0.15 < np.abs(dense).max() <= 0.2  # truncated at two deviations
    assert dense.std() == pytest.approx(0.088, rel=0.05)  # that of the truncated normal: 0.8796 of 0.1
    assert not values["logits.bias"].any()


@every_init
def test_one_hot_input_is_drawn_by_the_same_rule(init):
    kernel = drawn("lstm", init, embedding_size=0)["lstm_0.kernel"]
    limit = {"keras": glorot((50, 256)), "tf1": math.sqrt(6 / (50 + 64 + 256))}.get(init, 1 / 8)
    assert_uniform(kernel, limit)


# Of characters that a model did not know: the old ones' probabilities hardly change, whatever their number


def log_probabilities(outputs, kernel, bias):
    logits = outputs @ kernel.astype(np.float64) + bias
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


@pytest.mark.parametrize(("old", "new"), [(1, 1), (5, 1), (5, 3), (80, 1), (80, 500), (4000, 1)])
@pytest.mark.parametrize("spread", [0.0, 0.1, 5.0])
def test_new_characters_take_little_of_the_old_ones_probabilities(old, new, spread):
    kernel, bias = (DRAW.normal(0, spread, shape).astype(np.float32) for shape in ((H, old), old))
    outputs = DRAW.uniform(-1, 1, (50, H))  # of any recurrent layer
    before = log_probabilities(outputs, kernel, bias)
    wider, longer = grown(kernel, (H, old + new)), grown(bias, (old + new,))
    assert (wider.dtype, wider.shape, longer.shape) == (np.float32, (H, old + new), (old + new,))
    after = log_probabilities(outputs, wider, longer)
    np.testing.assert_array_equal(wider[:, :old], kernel)
    np.testing.assert_array_equal(longer[:old], bias)
    np.testing.assert_allclose(after[:, :old], before, rtol=0, atol=1.01 * SHARE)
    assert (longer[old:] <= bias.mean() + 1e-6 * spread).all()


def test_new_rows_and_columns_are_the_mean_of_the_others():
    rows = DRAW.normal(size=(5, 4)).astype(np.float32)
    np.testing.assert_allclose(grown(rows, (7, 4))[5:], [rows.mean(0)] * 2, rtol=1e-6)
    np.testing.assert_allclose(grown(rows, (5, 6))[:, 4:], rows.mean(1)[:, None].repeat(2, 1), rtol=1e-6)
    assert grown(rows, (5, 4)) is rows
