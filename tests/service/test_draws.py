"""Random numbers of many seeds at once are those that TensorFlow draws for each."""

import numpy as np
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from charrnn_tf.service.draws import uniforms

WHOLE = st.integers(-(2**63), 2**63 - 1)


@given(seed=WHOLE, position=st.integers(0, 2**40))
def test_a_row_draws_what_a_sample_draws(seed, position):
    place = tf.constant([seed, position], tf.int64)
    expected = tf.random.stateless_uniform([9], place, alg="philox").numpy()
    assert uniforms(seed, position, np.arange(9)).tolist() == expected.tolist()


def test_rows_and_positions_broadcast():
    seeds, positions, numbers = np.array([1, 2, 2]), np.arange(5)[:, None], np.array([0, 0, 7])
    drawn = uniforms(seeds, positions, numbers)
    assert drawn.shape == (5, 3)
    assert drawn.dtype == np.float32
    assert drawn[3, 2] == uniforms(2, 3, 7)
    assert len(set(drawn.ravel().tolist())) == drawn.size
