"""Matrix products in float32 or with bfloat16 factors, and differentiable operations built on them."""

from collections.abc import Callable
from typing import Any, TypeAlias

import tensorflow as tf

from ..machine.hardware import only_avx2
from .gradients import custom_gradient

Tensor = Any
Precision: TypeAlias = tf.DType | None  # dtype that the factors of products are rounded to; None keeps their own
SPARE_COLUMNS = 16


def product(a: Tensor, b: Tensor, precision: Precision = None, **transposed: bool) -> Tensor:
    """`tf.matmul(a, b)`; with a precision (bfloat16) the factors are rounded to it, and the result is float32."""
    if precision is None:
        return tf.matmul(a, b, **transposed)
    return tf.cast(tf.matmul(tf.cast(a, precision), tf.cast(b, precision), **transposed), tf.float32)


def repeated_product(kernel: Tensor, precision: Precision = None) -> Callable[[Tensor], Tensor]:
    """Prepare a kernel [H, G] for the product of every time step: x [B, H] -> x kernel [B, G]."""
    if precision:  # bfloat16 products are faster with the second factor transposed, float32 ones are not
        turned = tf.cast(tf.transpose(kernel), precision)
        return lambda x: product(x, turned, precision, transpose_b=True)
    padded = pad_columns(kernel)
    return lambda x: tf.matmul(x, padded)[:, : kernel.shape[1]]


def summed_product(rows: Tensor, columns: Tensor, precision: Precision = None) -> Tensor:
    """Sum of outer products over N, a kernel's gradient: rows [N, F], columns [N, G] -> [F, G]."""
    padded = columns if precision else pad_columns(columns)
    return product(rows, padded, precision, transpose_a=True)[:, : columns.shape[1]]


def pad_columns(factor: Tensor) -> Tensor:
    """Pad the second factor of a product with zero columns so that its rows do not map to the same cache sets.

    Rows whose length is a multiple of 512 bytes do: with AVX2 alone, products of 64 x 512 x 2048 took 1.5 to 2 times as
    long (`tests/benchmarks/parts.py`).
    """
    return tf.pad(factor, ((0, 0), (0, SPARE_COLUMNS))) if only_avx2() and factor.shape[1] % 128 == 0 else factor


def linear(inputs: Tensor, kernel: Tensor, bias: Tensor, precision: Precision = None) -> Tensor:
    """x W + b: inputs [N, F], kernel [F, G], bias [G] -> [N, G]."""

    @custom_gradient
    def affine(inputs: Tensor, kernel: Tensor, bias: Tensor) -> Any:
        def gradient(d: Tensor) -> tuple[Tensor, ...]:
            ones = tf.ones((1, tf.shape(d)[0]), d.dtype)  # summing as a product is faster than `tf.reduce_sum`
            d_inputs = product(d, kernel, precision, transpose_b=True)
            return d_inputs, summed_product(inputs, d, precision), product(ones, d, precision)[0]

        return product(inputs, kernel, precision) + bias, gradient

    return affine(inputs, kernel, bias)


def dense_losses(inputs: Tensor, kernel: Tensor, bias: Tensor, targets: Tensor, precision: Precision = None) -> Tensor:
    """-log softmax(x W + b)[target]: inputs [N, H], kernel [H, V], bias [V], targets [N] -> nats [N]; fast for large V.

    Equal to `linear` with `sparse_softmax_cross_entropy_with_logits`, but reads and writes [N, V] numbers fewer times: one
    softmax exponentiates them, and the gradient's factor of each row is applied on the products' smaller side.
    log sum exp(logits) is the largest logit minus the log of the largest probability, which is at least 1 / V.
    """

    @custom_gradient
    def losses(inputs: Tensor, kernel: Tensor, bias: Tensor, targets: Tensor) -> Any:
        logits = tf.nn.bias_add(product(inputs, kernel, precision), bias)
        largest, own = tf.reduce_max(logits, axis=1), tf.gather(logits, targets, batch_dims=1)
        with tf.control_dependencies([largest, own]):  # so that softmax can reuse the buffer of the logits
            probabilities = tf.nn.softmax(logits)
        nats = largest - tf.math.log(tf.reduce_max(probabilities, axis=1)) - own

        def gradient(d_nats: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
            places = tf.stack([tf.range(tf.shape(targets)[0]), targets], axis=1)
            with tf.control_dependencies([nats]):  # so that the subtraction happens in place
                d = tf.tensor_scatter_nd_sub(probabilities, places, tf.ones_like(d_nats))
            d, rows = tf.cast(d, precision or d.dtype), d_nats[:, None]
            d_inputs = rows * product(d, kernel, precision, transpose_b=True)
            d_kernel = product(rows * inputs, d, precision, transpose_a=True)
            return d_inputs, d_kernel, product(d_nats[None], d, precision)[0], None

        return nats, gradient

    return losses(inputs, kernel, bias, targets)
