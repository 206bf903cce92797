"""Surprise, cells and influence, compared with slow and plain ways of computing the same."""

import math

import numpy as np
import pytest
import tensorflow as tf
from conftest import TEXT, forward

from charrnn_tf.inference.evaluation import Evaluator
from charrnn_tf.insight import trace
from charrnn_tf.network.model import build_model, recurrent_layers, zero_state
from charrnn_tf.runs.checkpoint import load_model
from charrnn_tf.runs.find import latest_checkpoint
from charrnn_tf.settings.schema import CELLS, ModelConfig

READ = TEXT[:120]


@pytest.fixture(scope="module", params=CELLS)
def model(request, trained):
    model, record = load_model(latest_checkpoint(trained(request.param)))
    return model, record.model, record.vocabulary.encode(READ)


@pytest.fixture(scope="module")
def read(model):
    return trace.read(*model)


@pytest.mark.slow
def test_surprise_is_the_evaluators_loss(model, read):
    evaluation = Evaluator(model[0], model[1]).evaluate(model[2])
    assert math.isnan(read.nats[0])
    assert np.nanmean(read.nats) == pytest.approx(evaluation.nats_per_character, abs=1e-5)


@pytest.mark.slow
def test_the_likeliest_characters_are_those_of_the_forward_pass(model, read):
    logits, _ = forward(model[0], tf.constant(model[2][None].astype(np.int32)), zero_state(model[1], 1))
    probabilities = tf.nn.softmax(logits).numpy()
    for n in (1, 50, len(READ) - 1):
        order = np.argsort(-probabilities[n - 1], kind="stable")[: trace.LIKELIEST]
        np.testing.assert_allclose(read.probabilities[n], probabilities[n - 1][order], atol=1e-6)
        np.testing.assert_allclose(probabilities[n - 1][read.likeliest[n]], read.probabilities[n], atol=1e-6)


@pytest.mark.slow
def test_cells_are_the_states_after_each_character(model, read):
    config = model[1]
    _, state = forward(model[0], tf.constant(model[2][None, :70].astype(np.int32)), zero_state(config, 1))
    cells = [np.tanh(layer[1]) if len(layer) > 1 else layer[0].numpy() for layer in state]
    np.testing.assert_allclose(read.cells[69], np.concatenate([cell[0] for cell in cells]), atol=1e-5)
    assert read.cells.shape == (len(READ), config.num_layers * config.hidden_size)


def test_a_vocabulary_of_two_has_two_likeliest_characters():
    config = ModelConfig(2, hidden_size=4)
    read = trace.read(build_model(config, 1), config, np.array([0, 1, 1, 0]))
    assert read.likeliest.shape == (4, 2)
    np.testing.assert_allclose(read.probabilities[1:].sum(axis=1), 1, atol=1e-6)


# Features of a text


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("inside quotes", 'a "b" c', [0, 0, 1, 1, 0, 0, 0]),
        ("inside quotes", "“a\n\nb", [1, 1, 1, 0, 0]),
        ("inside brackets", "a(b[c])d", [0, 1, 1, 2, 2, 1, 0, 0]),
        ("inside brackets", ")(a\n\nb", [0, 1, 1, 1, 0, 0]),
        ("since the last newline", "ab\nc", [1, 2, 0, 1]),
        ("position in the line", "ab\ncd", [1 / 3, 2 / 3, 1, 0.5, 1]),
        ("inside a word", "ab c1", [1, 0, 0, 1, 0]),
        ("capital next", "aB C", [1, 0, 1, 0]),
        ("indentation", "  a b\n\tc", [1, 2, 2, 2, 2, 0, 4, 4]),
    ],
)
def test_a_feature(name, text, expected):
    assert trace.FEATURES[name](text) == pytest.approx(expected)


@pytest.mark.parametrize("name", trace.FEATURES)
@pytest.mark.parametrize("text", ["a", "\n", "\n\n\n", "é“\u2028x\x0c\r\n", 'x"(y)\tZ' * 50])
def test_a_feature_has_a_number_for_each_character(name, text):
    assert len(trace.FEATURES[name](text)) == len(text)


def test_correlations_are_those_of_numpy_and_0_for_constants():
    draw = np.random.default_rng(0)
    text = 'He said "not now (or then)", and\n  went. ' * 5
    cells = draw.normal(size=(len(text), 6)).astype(np.float32)
    cells[:, 0] = trace.inside_quotes(text)
    cells[:, 1] = 3.0
    found = trace.correlations(cells, text)
    assert found[0, 0] == pytest.approx(1)
    assert (found[1] == 0).all()
    for n, measure in enumerate(trace.FEATURES.values()):
        assert found[3, n] == pytest.approx(np.corrcoef(cells[:, 3], measure(text))[0, 1], abs=1e-5)
    assert trace.correlations(cells, "a" * len(text))[:, 0].tolist() == [0] * 6
    assert next(trace.clearest(found, 3)) == (0, 0)
    assert len(list(trace.clearest(found, 3))) == 3
    assert list(trace.clearest(np.array([[0.5, 0.2], [0.1, -0.9], [-0.3, 0.0]]), 2)) == [(1, 1), (0, 0)]


# Influence of earlier characters


def plain_gradient(model, config, ids, n):
    """Lengths of the gradients of log p(character n + 1) by its inputs, nearest first, through Keras's own `call`."""
    embedded = [layer for layer in model.layers if layer.name == "embedding"]
    inputs = embedded[0](ids[None, : n + 1]) if embedded else tf.one_hot(ids[None, : n + 1], config.vocab_size)
    inputs = tf.convert_to_tensor(inputs)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = inputs
        for layer in recurrent_layers(model):
            layer.reset_state()
            outputs = layer(outputs)
        log = tf.nn.log_softmax(model.get_layer("logits")(outputs[:, -1]))[0, int(ids[n + 1])]
    return tf.norm(tape.gradient(log, inputs)[0], axis=1).numpy()[::-1]


@pytest.mark.slow
@pytest.mark.parametrize("embedding", [0, 5])
@pytest.mark.parametrize("cell", CELLS)
def test_influence_is_the_gradient_by_the_inputs(cell, embedding):
    config = ModelConfig(9, cell=cell, hidden_size=6, num_layers=2, embedding_size=embedding, init="pytorch")
    model = build_model(config, 1, seed=3)
    ids = np.random.default_rng(1).integers(0, 9, 30)
    told = []
    found = trace.influence(model, trace.read(model, config, ids), back=12, progress=lambda *done: told.append(done))
    assert found.shape == (29, 12)
    assert told[-1] == (29, 29)
    for n in (0, 5, 11, 12, 28):
        expected = plain_gradient(model, config, ids, n)[:12]
        np.testing.assert_allclose(found[n, : len(expected)], expected, rtol=1e-3, atol=1e-6)
        assert (found[n, len(expected) :] == 0).all()


@pytest.mark.slow
def test_influence_in_a_text_shorter_than_its_reach(model):
    short = trace.read(model[0], model[1], model[2][:3])
    assert trace.influence(model[0], short).shape == (2, 2)
