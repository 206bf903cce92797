"""Weights of characters that a model did not know: the old ones' probabilities hardly change, whatever their number."""

import numpy as np
import pytest

from charrnn_tf.network.growth import SHARE, grown

H, DRAW = 6, np.random.default_rng(1)


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
