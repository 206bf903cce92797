"""State resets and dropout: as frequent as set, different by step, layer, shard and seed, otherwise repeatable."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from tiny_training import STEPS_PER_EPOCH, model_config, train_config

from charrnn_tf.network.model import zero_state
from charrnn_tf.training.randomness import drop_outputs, drop_weights, dropout_mask, zero_states

# State resets


def was_reset(config, step):
    """Which streams begin a step's window from a zero state, [B]."""
    ones = tf.nest.map_structure(tf.ones_like, zero_state(model_config(num_layers=2), config.batch_size))
    after = zero_states(config, STEPS_PER_EPOCH, tf.constant(step, tf.int64), ones)
    parts = np.stack([part.numpy() for part in tf.nest.flatten(after)])  # [4, B, H]
    assert np.isin(parts, (0, 1)).all()
    assert (parts == parts[:1, :, :1]).all()  # all of a stream's state or none of it
    return parts[0, :, 0] == 0


def test_without_resets_only_an_epoch_begins_from_zero():
    config = train_config(batch_size=16, state_reset=0.0)
    fresh = [was_reset(config, step) for step in range(15)]
    assert [bool(streams.all()) for streams in fresh] == [step in (0, 7, 14) for step in range(15)]
    assert [bool(streams.any()) for streams in fresh] == [step in (0, 7, 14) for step in range(15)]


def test_with_resets_at_chance_1_every_window_begins_from_zero():
    config = train_config(batch_size=16, state_reset=1.0)
    assert all(was_reset(config, step).all() for step in range(20))


def test_resets_have_the_set_chance_and_differ_by_step_stream_and_seed():
    config = train_config(batch_size=64, state_reset=0.3)
    steps_inside = [step for step in range(150) if step % STEPS_PER_EPOCH]
    fresh = np.stack([was_reset(config, step) for step in steps_inside])
    assert abs(fresh.mean() - 0.3) < 0.02
    assert np.abs(fresh.mean(axis=0) - 0.3).max() < 0.15  # in every stream
    assert len(np.unique(fresh, axis=0)) == len(steps_inside)
    assert len(np.unique(fresh, axis=1).T) == 64
    other = np.stack([was_reset(dataclasses.replace(config, seed=1), step) for step in steps_inside[:20]])
    assert (other != fresh[:20]).any(axis=1).all()


def test_resets_depend_on_the_streams_number_in_the_whole_batch():
    whole = [was_reset(train_config(batch_size=8, state_reset=0.3, shards=1), step) for step in range(1, 7)]
    for shards in (2, 4, 8):
        cut = [was_reset(train_config(batch_size=8, state_reset=0.3, shards=shards), step) for step in range(1, 7)]
        np.testing.assert_array_equal(cut, whole)
    config, ones = train_config(batch_size=8, state_reset=0.3), [(tf.ones((2, 8)),)]
    part = zero_states(config, STEPS_PER_EPOCH, tf.constant(1, tf.int64), ones, slice(4, 6))
    np.testing.assert_array_equal(part[0][0][:, 0] == 0, whole[0][4:6])  # of a worker that reads two streams


@pytest.mark.slow
def test_xla_resets_the_same_streams():
    config = train_config(batch_size=64, state_reset=0.3)
    ones = tf.nest.map_structure(tf.ones_like, zero_state(model_config(), 64))
    both = [
        tf.function(lambda step: zero_states(config, STEPS_PER_EPOCH, step, ones), autograph=False, jit_compile=xla)
        for xla in (False, True)
    ]
    for step in range(1, 4):
        plain, compiled = (tf.nest.flatten(each(tf.constant(step, tf.int64)))[0].numpy() for each in both)
        np.testing.assert_array_equal(compiled, plain)


# Dropout on outputs


def dropped(step, seed=0):
    """Ones after dropout of 0.25, for two shards and two layers: [4, 50, 2, 8]."""
    config = train_config(seed=seed)
    places = [(shard, layer) for shard in (0, 1) for layer in (0, 1)]
    return np.stack([drop_outputs(config, 0.25, tf.constant(step, tf.int64), n, s, tf.ones((50, 2, 8))) for s, n in places])


def test_dropout_drops_the_set_share_and_scales_the_rest():
    drawn = np.stack([dropped(step) for step in range(5)])
    assert set(np.unique(drawn)) == {0, np.float32(1 / 0.75)}
    assert abs((drawn == 0).mean() - 0.25) < 0.02


def test_dropout_differs_by_step_layer_and_shard():
    drawn = np.concatenate([dropped(step).reshape(4, -1) for step in (0, 1, 2, 100_000)])
    assert len(np.unique(drawn, axis=0)) == 16
    share_equal = (drawn[:, None] == drawn[None]).mean(axis=2)  # unrelated draws agree at 0.25^2 + 0.75^2
    assert np.abs(share_equal[~np.eye(16, dtype=bool)] - 0.625).max() < 0.08


def test_dropout_repeats_for_the_same_seed_only():
    np.testing.assert_array_equal(dropped(5, seed=3), dropped(5, seed=3))
    assert (dropped(5, seed=3) != dropped(5, seed=4)).any()


def mask_of(shape, rate, seed=(1, 2)):
    return dropout_mask(tf.constant(shape), rate, tf.constant(seed, tf.int32)).numpy()


@pytest.mark.parametrize("rate", [1e-9, 0.001, 0.25, 0.5, 0.999, 1 - 1e-9])
def test_a_mask_drops_the_set_share_and_keeps_the_mean(rate):
    mask = mask_of((100, 100, 101), rate)
    share = min(max(round(rate * 2**16), 1), 2**16 - 1) / 2**16
    assert mask.dtype == np.float32
    assert set(np.unique(mask)) == {0, np.float32(1 / (1 - share))}
    spread = np.sqrt(share * (1 - share) / mask.size)
    assert abs((mask == 0).mean() - share) < 4 * spread
    assert abs(mask.mean() - 1) < 4 * spread / (1 - share)


@pytest.mark.parametrize("shape", [(1,), (1, 1, 1), (3, 5, 7), (2, 3)])
def test_a_mask_has_any_shape(shape):
    mask = mask_of(shape, 0.5)
    assert mask.shape == shape
    assert set(np.unique(mask)) <= {0, 2}


def test_masks_differ_by_seed_and_repeat_for_the_same():
    np.testing.assert_array_equal(mask_of((9, 9), 0.5), mask_of((9, 9), 0.5))
    masks = [mask_of((999,), 0.5, seed) for seed in [(1, 2), (1, 3), (2, 2)]]
    halves = np.stack([part for mask in masks for part in (mask[0:998:2], mask[1:998:2])]) / 2  # of a random number each
    equal = (halves[:, None] == halves[None]).mean(axis=2)
    assert np.abs(equal[~np.eye(6, dtype=bool)] - 0.5).max() < 0.1


# Dropout on recurrent weights


def test_weight_dropout_scales_the_kept_weights_and_differs_by_layer():
    kernels = np.random.default_rng(0).normal(size=(2, 32, 128)).astype(np.float32)
    found = np.stack(drop_weights(train_config(weight_dropout=0.25), tf.constant(0, tf.int64), list(kernels)))
    assert abs((found == 0).mean() - 0.25) < 0.02
    np.testing.assert_allclose(found[found != 0], kernels[found != 0] / 0.75, rtol=1e-6)
    assert ((found[0] == 0) != (found[1] == 0)).any()


def test_weight_dropout_differs_by_step_and_seed_and_repeats():
    first, again, next_step, other_seed = (
        drop_weights(train_config(weight_dropout=0.5, seed=seed), tf.constant(step, tf.int64), [tf.ones((32, 128))])[0] == 0
        for step, seed in [(3, 1), (3, 1), (4, 1), (3, 2)]
    )
    np.testing.assert_array_equal(first, again)
    for other in (next_step, other_seed):
        assert abs(np.equal(first, other).mean() - 0.5) < 0.05
