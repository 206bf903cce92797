"""Models made in the layout of other tools, and comparisons with what is read from their files."""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from conftest import logits_after

from charrnn_tf.runs.checkpoint import load_model
from charrnn_tf.text.vocabulary import Vocabulary

CHARACTERS = "\n abcdefghijé"
VOCABULARY = Vocabulary(CHARACTERS)
V, H, LAYERS = len(CHARACTERS), 10, 2
IDS = np.random.default_rng(0).integers(0, V, 500)


class Evil:
    """Creates a file when it is unpickled."""

    def __reduce__(self):
        return (Path.touch, (Path("run-by-the-file"),))


def logits_of(checkpoint):
    """A checkpoint's logits after each of IDS, [characters, V]."""
    model, record = load_model(checkpoint)
    return logits_after(model, record.model, IDS)


def assert_same_distributions(found, expected):
    """Logits that differ by a constant per row are the same."""
    np.testing.assert_allclose(tf.nn.log_softmax(found), tf.nn.log_softmax(expected), atol=1e-4)


def keras_model(cell="lstm", embedding=0, layers=LAYERS):
    kind = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU}[cell]
    keras.utils.set_random_seed(1)
    stack = [keras.Input((None,)), keras.layers.Embedding(V, embedding)] if embedding else [keras.Input((None, V))]
    for n in range(layers):
        stack += [kind(H, return_sequences=True, bias_initializer="glorot_uniform" if cell == "gru" else "ones")]
        stack += [keras.layers.Dropout(0.3)] if n else []
    return keras.Sequential([*stack, keras.layers.Dense(V)])


def keras_logits(model, embedding, ids=IDS):
    inputs = ids[None] if embedding else tf.one_hot(ids[None], V)
    return tf.function(model)(tf.constant(inputs)).numpy()[0]
