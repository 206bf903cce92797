"""Optimizers by name, and Adam as one operation."""

import keras
import numpy as np
import tensorflow as tf
from tiny_training import train_config

from charrnn_tf.training.optimizers import Adam, build_optimizer


def test_optimizers_by_name():
    kinds = {"adam": keras.optimizers.Adam, "sgd": keras.optimizers.SGD, "rmsprop": keras.optimizers.RMSprop}
    for name, kind in kinds.items():
        optimizer = build_optimizer(train_config(optimizer=name, learning_rate=0.25))
        assert isinstance(optimizer, kind)
        assert float(optimizer.learning_rate) == 0.25
    assert build_optimizer(train_config(optimizer="adam")).epsilon == 1e-8


def test_adam_as_one_operation_equals_keras_adam():
    draw = np.random.default_rng(0)
    start = draw.normal(size=(6, 5)).astype(np.float32)
    ours, keras_own = (kind(0.01, epsilon=1e-8) for kind in (Adam, keras.optimizers.Adam))
    variables = [keras.Variable(start), keras.Variable(start)]
    for optimizer, variable in zip((ours, keras_own), variables, strict=True):
        optimizer.build([variable])
    for _ in range(50):
        gradient = tf.constant(draw.normal(size=(6, 5)) * draw.choice([1e-9, 1.0, 1e3]), tf.float32)
        ours.update_step(gradient, variables[0].value, ours.learning_rate)
        ours.iterations.assign_add(1)
        keras_own.apply([gradient], [variables[1]])
    np.testing.assert_allclose(variables[0], variables[1], rtol=0, atol=5e-6)
    assert np.abs(variables[0] - start).max() > 0.1
    for a, b in zip(ours.variables, keras_own.variables, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4)  # the operation takes 1 - beta_2 in float32
