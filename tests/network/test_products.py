"""Matrix products by precision, and operations built on them, against TensorFlow's own."""

import numpy as np
import pytest
import tensorflow as tf

from charrnn_tf.network import products
from charrnn_tf.network.products import dense_losses, linear, product, repeated_product


def random(seed, *shape, dtype=np.float32):
    return tf.constant(np.random.default_rng(seed).uniform(-1, 1, shape).astype(dtype))


def rounded(array):
    return tf.cast(tf.cast(array, tf.bfloat16), tf.float32)


@pytest.mark.parametrize("transposed", [{}, {"transpose_a": True}, {"transpose_b": True}])
def test_a_bfloat16_product_is_that_of_the_rounded_factors(transposed):
    a, b = random(1, 32, 32), random(2, 32, 32)
    result = product(a, b, tf.bfloat16, **transposed)
    assert result.dtype == tf.float32
    np.testing.assert_allclose(result, tf.matmul(rounded(a), rounded(b), **transposed), rtol=2**-7, atol=1e-5)
    assert np.abs(result - tf.matmul(a, b, **transposed)).max() > 0.005


def test_a_product_without_a_precision_keeps_the_factors_dtype():
    a, b = random(1, 5, 6, dtype=np.float64), random(2, 6, 7, dtype=np.float64)
    result = product(a, b)
    assert result.dtype == tf.float64
    np.testing.assert_allclose(result, a.numpy() @ b.numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("precision", "padded"), [(None, False), (None, True), (tf.bfloat16, False)])
def test_a_repeated_product_is_product(precision, padded, monkeypatch):
    monkeypatch.setattr(products, "only_avx2", lambda: padded)
    x, kernel = random(1, 5, 12), random(2, 12, 128)
    expected = product(x, kernel, precision)
    np.testing.assert_allclose(repeated_product(kernel, precision)(x), expected, rtol=1e-5, atol=1e-5)


def test_the_gradients_of_linear_are_those_of_a_product_plus_a_bias():
    tensors = [random(n, *shape, dtype=np.float64) for n, shape in enumerate([(5, 3), (3, 4), (4,)])]
    found = []
    for function in (linear, lambda x, kernel, bias: x @ kernel + bias):
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            outputs = function(*tensors)
            loss = tf.reduce_sum(outputs * random(5, 5, 4, dtype=np.float64))
        found.append([outputs, *tape.gradient(loss, tensors)])
    for ours, plain in zip(*found, strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("scale", [0.1, 3.0, 60.0])  # at 60 the likeliest of some rows have all the probability
@pytest.mark.parametrize("precision", [None, tf.bfloat16])
def test_dense_losses_and_gradients_are_those_of_tensorflows_cross_entropy(scale, precision):
    draw = np.random.default_rng(0)
    inputs, kernel, bias = (tf.constant(draw.normal(size=size) * scale, tf.float32) for size in ((12, 5), (5, 40), (40,)))
    targets, weights = tf.constant(draw.integers(40, size=12), tf.int32), tf.constant(draw.random(12), tf.float32)

    def plain(inputs, kernel, bias):
        return tf.nn.sparse_softmax_cross_entropy_with_logits(targets, linear(inputs, kernel, bias, precision))

    def ours(inputs, kernel, bias):
        return dense_losses(inputs, kernel, bias, targets, precision)

    @tf.function(autograph=False)
    def derived(losses):
        with tf.GradientTape() as tape:
            tape.watch((inputs, kernel, bias))
            nats = losses(inputs, kernel, bias)
            total = tf.reduce_sum(weights * nats)
        return nats, *tape.gradient(total, (inputs, kernel, bias))

    for name, expected, found in zip(("nats", "inputs", "kernel", "bias"), derived(plain), derived(ours), strict=True):
        atol = np.abs(expected).max() * (1e-5 if precision is None else 1e-2)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=atol, err_msg=name)
