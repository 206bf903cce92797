"""The training step: schedule, state resets, dropout, clipping, what computes it, and that neither calls nor shards change a
result.
"""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from charrnn_tf.network.cells import Engine
from charrnn_tf.network.model import recurrent_layers, zero_state
from charrnn_tf.settings.schema import ModelConfig, TrainConfig
from charrnn_tf.text.vocabulary import Vocabulary
from charrnn_tf.text.windows import Streams
from charrnn_tf.training import step as steps
from charrnn_tf.training.budget import steps_a_call
from charrnn_tf.training.compiled import compile_steps
from charrnn_tf.training.randomness import dropout_mask
from charrnn_tf.training.schedule import learning_rate
from charrnn_tf.training.state import Adam, RunState, build_optimizer
from charrnn_tf.training.step import begin_window, window_loss

V, STEPS_PER_EPOCH = 11, 7

PASSAGE = (
    "The ferry leaves at nine, and by ten the harbour is quiet again. A boy counts the boats as they come home; his sister "
    "mends a net and tells him what each of them has caught. When the last one is in they walk up the hill, where supper "
    "waits, and nobody asks what they have learnt.\n"
)

every_input = pytest.mark.parametrize("settings", [{"cell": "lstm"}, {"cell": "gru"}, {"cell": "lstm", "embedding_size": 5}])


def model_config(**changes):
    return ModelConfig(**{"vocab_size": V, "hidden_size": 8, "num_layers": 1, "dropout": 0.0, **changes})


def train_config(**changes):
    plain = {"batch_size": 2, "num_steps": 4, "max_steps": 50, "schedule": "constant", "state_reset": 0.0, "shards": 1}
    return TrainConfig(**{**plain, "warmup_steps": 0, **changes})


def random_windows(config, count, seed=0):
    """Windows that follow each other as those of a text do: each begins with the last character of the one before."""
    length = config.batch_size * count * config.num_steps + 1
    ids = np.random.default_rng(seed).integers(V, size=length)
    return Streams(ids.astype(np.uint8), config.batch_size, config.num_steps).read(0, count)


def train(model, config, windows, calls, steps_per_epoch=STEPS_PER_EPOCH):
    """A run trained on windows in calls of so many steps, and the sum of the losses of each call."""
    run = RunState(model, config)
    run_steps = compile_steps(run, model, config, steps_per_epoch)
    sums, begin = [], 0
    for count in calls:
        before = float(run.loss_sum)
        run_steps(windows[begin : begin + count], 0.0)
        sums.append(float(run.loss_sum) - before)
        begin += count
    return run, np.array(sums)


def values(run):
    return {f"{group}/{name}": each.numpy() for group, named in run.variables().items() for name, each in named.items()}


def keras_loss(model, window):
    """The mean loss of a window by the Keras model's own stateful call."""
    probabilities = model(window[:, :-1], training=False).numpy().astype(np.float64)
    return -np.log(np.take_along_axis(probabilities, window[:, 1:, None], axis=2)).mean()


# The learning rate


def test_a_constant_rate_is_constant():
    config = train_config(learning_rate=0.3)
    rates = [float(learning_rate(config, 7, step, tf.constant(0.9, tf.float64))) for step in (0, 13, 49, 200)]
    assert rates == [np.float32(0.3)] * 4


@pytest.mark.parametrize(
    ("budgets", "time_fraction", "fractions"),
    [
        ({"max_steps": 40, "epochs": None}, 0.0, lambda step: step / 40),
        ({"max_steps": None, "epochs": 3}, 0.0, lambda step: step / (3 * 7)),
        ({"max_steps": None, "epochs": None, "max_seconds": 60.0}, 0.25, lambda step: 0.25),
        ({"max_steps": 40, "epochs": 3}, 0.0, lambda step: max(step / 40, step / 21)),
        ({"max_steps": 20, "epochs": 3}, 0.0, lambda step: max(step / 20, step / 21)),
        ({"max_steps": 40, "epochs": 30, "max_seconds": 60.0}, 0.4, lambda step: max(step / 40, step / 210, 0.4)),
    ],
)
def test_a_cosine_rate_follows_the_largest_fraction_of_the_budgets(budgets, time_fraction, fractions):
    config = train_config(learning_rate=0.02, schedule="cosine", **budgets)
    for step in (0, 1, 10, 19, 30, 60):
        expected = 0.02 * 0.5 * (1 + np.cos(np.pi * min(fractions(step), 1.0)))
        rate = learning_rate(config, 7, tf.constant(step, tf.int64), tf.constant(time_fraction, tf.float64))
        np.testing.assert_allclose(float(rate), expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "step"])
def test_a_rate_rises_over_the_first_steps(schedule):
    settings = {"learning_rate": 0.02, "schedule": schedule, "max_steps": 400}
    for step in (0, 1, 8, 9, 10, 300):
        with_rise, without = (
            float(learning_rate(train_config(warmup_steps=rise, **settings), 7, step, tf.constant(0.0, tf.float64)))
            for rise in (10, 0)
        )
        assert with_rise == pytest.approx(without * min(1, (step + 1) / 10), rel=1e-6)


def test_a_step_rate_falls_at_epochs():
    config = train_config(learning_rate=0.05, schedule="step", step_epochs=2, gamma=0.2)
    for step, expected in [(0, 0.05), (13, 0.05), (14, 0.01), (27, 0.01), (28, 0.002), (42, 0.0004)]:
        rate = learning_rate(config, 7, tf.constant(step, tf.int64), tf.constant(0.9, tf.float64))
        np.testing.assert_allclose(float(rate), expected, rtol=1e-6)


@pytest.mark.slow
def test_every_step_of_a_call_has_its_own_rate():
    config = train_config(learning_rate=0.1, schedule="step", step_epochs=1, gamma=0.0001, optimizer="sgd", clip_norm=0.0)
    windows = random_windows(config, 9)
    six, _ = train(model_config(), config, windows[:6], [6])
    nine, _ = train(model_config(), config, windows, [9])
    assert float(six.optimizer.learning_rate) == np.float32(0.1)
    assert float(nine.optimizer.learning_rate) == np.float32(0.1 * 0.0001)
    seven, _ = train(model_config(), config, windows[:7], [7])
    for name, before in values(seven).items():
        if name.startswith("weights/"):
            np.testing.assert_allclose(values(nine)[name], before, atol=1e-4)
            assert not np.allclose(values(six)[name], before, atol=1e-4)


# State resets


def was_reset(config, step):
    """Which streams begin a step's window from a zero state, [B]."""
    ones = [
        tuple(tf.ones_like(part) for part in layer) for layer in zero_state(model_config(num_layers=2), config.batch_size)
    ]
    after = begin_window(config, STEPS_PER_EPOCH, tf.constant(step, tf.int64), ones)
    parts = np.stack([part.numpy() for part in tf.nest.flatten(after)])  # [4, B, H]
    assert np.isin(parts, (0, 1)).all()
    assert (parts == parts[:1, :, :1]).all()  # all of a stream's state or none of it
    return parts[0, :, 0] == 0


def test_without_resets_only_an_epoch_begins_from_zero():
    config = train_config(batch_size=16, state_reset=0.0)
    fresh = [was_reset(config, step) for step in range(15)]
    assert [bool(streams.all()) for streams in fresh] == [step in (0, 7, 14) for step in range(15)]
    assert [bool(streams.any()) for streams in fresh] == [step in (0, 7, 14) for step in range(15)]


def test_with_certain_resets_every_window_begins_from_zero():
    config = train_config(batch_size=16, state_reset=1.0)
    assert all(was_reset(config, step).all() for step in range(20))


@pytest.mark.slow
def test_resets_come_as_often_as_asked_and_differ_by_step_stream_and_seed():
    config = train_config(batch_size=64, state_reset=0.3)
    steps_inside = [step for step in range(300) if step % STEPS_PER_EPOCH]
    fresh = np.stack([was_reset(config, step) for step in steps_inside])
    assert abs(fresh.mean() - 0.3) < 0.02
    assert np.abs(fresh.mean(axis=0) - 0.3).max() < 0.15  # no stream is favoured
    assert len(np.unique(fresh, axis=0)) == len(steps_inside)
    assert len(np.unique(fresh, axis=1).T) == 64
    other = np.stack([was_reset(dataclasses.replace(config, seed=1), step) for step in steps_inside[:20]])
    assert (other != fresh[:20]).any(axis=1).all()


def test_resets_go_by_the_streams_number_in_the_whole_batch():
    whole = [was_reset(train_config(batch_size=8, state_reset=0.3, shards=1), step) for step in range(1, 7)]
    for shards in (2, 4, 8):
        cut = [was_reset(train_config(batch_size=8, state_reset=0.3, shards=shards), step) for step in range(1, 7)]
        np.testing.assert_array_equal(cut, whole)


@pytest.mark.slow
def test_the_loop_resets_before_the_window_is_read():
    config = train_config(state_reset=1.0, learning_rate=1e-30, optimizer="sgd")
    windows = random_windows(config, 3)
    run, losses = train(model_config(), config, windows, [1, 1, 1])
    for window, loss in zip(windows, losses, strict=True):
        fresh, _ = window_loss(run.model, config, 0.0, run.step, tf.constant(window), zero_state(model_config(), 2))
        np.testing.assert_allclose(loss, float(fresh), atol=1e-6)
    carried = train(model_config(), train_config(learning_rate=1e-30, optimizer="sgd"), windows, [1, 1, 1])[1]
    assert carried[0] == losses[0]
    assert abs(carried[1:] - losses[1:]).min() > 1e-5


# Dropout


@pytest.fixture
def masks(monkeypatch):
    """A function: settings, step -> what dropout makes of ones in layers 0 and 1 of each shard."""

    def draw(step, rate=0.25, **changes):
        seen = []

        def fake_losses(model, window, state, dropout, engine):
            seen.append([dropout(layer, tf.ones((50, window.shape[0], 8))).numpy() for layer in (0, 1)])
            return tf.zeros((4, window.shape[0])), state

        monkeypatch.setattr(steps, "character_losses", fake_losses)
        config = train_config(**{"batch_size": 4, "shards": 2, **changes})
        state = zero_state(model_config(num_layers=2), config.batch_size)
        window = tf.zeros((config.batch_size, config.num_steps + 1), tf.int32)
        window_loss(None, config, rate, tf.constant(step, tf.int64), window, state)
        return np.array(seen)  # [shards, layers, 50, B / shards, H]

    return draw


def test_dropout_drops_the_share_asked_and_scales_the_rest(masks):
    drawn = np.concatenate([masks(step).ravel() for step in range(5)])
    assert set(np.unique(drawn)) == {0, np.float32(1 / 0.75)}
    assert abs((drawn == 0).mean() - 0.25) < 0.02


def test_dropout_differs_by_step_layer_and_shard(masks):
    drawn = np.concatenate([masks(step).reshape(4, -1) for step in (0, 1, 2, 100_000)])
    assert len(np.unique(drawn, axis=0)) == 16
    share_equal = (drawn[:, None] == drawn[None]).mean(axis=2)  # unrelated draws agree at 0.25^2 + 0.75^2
    assert np.abs(share_equal[~np.eye(16, dtype=bool)] - 0.625).max() < 0.08


def test_dropout_repeats_for_the_same_seed_and_no_other(masks):
    np.testing.assert_array_equal(masks(5, seed=3), masks(5, seed=3))
    assert (masks(5, seed=3) != masks(5, seed=4)).any()


def mask_of(shape, rate, seed=(1, 2)):
    return dropout_mask(tf.constant(shape), rate, tf.constant(seed, tf.int32)).numpy()


@pytest.mark.parametrize("rate", [1e-9, 0.001, 0.25, 0.5, 0.999, 1 - 1e-9])
def test_a_mask_drops_the_share_asked_and_keeps_the_mean(rate):
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


@pytest.mark.slow
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_dropout_comes_after_every_layer_of_every_shard(monkeypatch, dropout):
    seen = []
    real = steps.character_losses

    def spy(model, window, state, dropout, engine):
        def noted(layer, outputs):
            seen.append((layer, tuple(outputs.shape[1:])))
            return dropout(layer, outputs)

        return real(model, window, state, dropout and noted, engine)

    monkeypatch.setattr(steps, "character_losses", spy)
    config = train_config(batch_size=4, shards=2)
    train(model_config(num_layers=2, dropout=dropout), config, random_windows(config, 1), [1])
    assert sorted(seen) == sorted([(layer, (2, 8)) for layer in (0, 1)] * 2 if dropout else [])


@pytest.fixture
def kernels(monkeypatch):
    """The recurrent kernels that each shard of a step computes with, [shards, layers, H, G], and the model's own."""

    def draw(step=0, cell="lstm", **changes):
        seen = []

        def fake_losses(model, window, state, dropout, engine):
            seen.append([tf.convert_to_tensor(layer.cell.recurrent_kernel).numpy() for layer in recurrent_layers(model)])
            return tf.zeros((4, window.shape[0])), state

        monkeypatch.setattr(steps, "character_losses", fake_losses)
        config = train_config(batch_size=4, shards=2, **changes)
        model = RunState(model_config(num_layers=2, hidden_size=32, cell=cell), config).model
        state = zero_state(model_config(num_layers=2), config.batch_size)
        window_loss(model, config, 0.0, tf.constant(step, tf.int64), tf.zeros((4, config.num_steps + 1), tf.int32), state)
        return np.array(seen), np.array([layer.cell.recurrent_kernel.numpy() for layer in recurrent_layers(model)])

    return draw


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_weight_dropout_leaves_weights_out_for_the_whole_batch(kernels, cell):
    seen, own = kernels(cell=cell, weight_dropout=0.25)
    np.testing.assert_array_equal(seen[0], seen[1])  # of both shards
    assert abs((seen[0] == 0).mean() - 0.25) < 0.02
    np.testing.assert_allclose(seen[0][seen[0] != 0], own[seen[0] != 0] / 0.75, rtol=1e-6)
    assert ((seen[0, 0] == 0) != (seen[0, 1] == 0)).any()  # each layer has its own


def test_weight_dropout_differs_by_step_and_repeats(kernels):
    first, again, next_step, other_seed = (
        kernels(step, weight_dropout=0.5, seed=seed)[0][0] == 0 for step, seed in [(3, 1), (3, 1), (4, 1), (3, 2)]
    )
    np.testing.assert_array_equal(first, again)
    for other in (next_step, other_seed):
        assert abs((first == other).mean() - 0.5) < 0.05


def test_without_weight_dropout_the_weights_are_the_models(kernels):
    seen, own = kernels()
    np.testing.assert_array_equal(seen, np.array([own, own]))


@pytest.mark.slow
@pytest.mark.parametrize("xla", [False, True])
def test_weights_left_out_get_no_update_and_the_others_do(xla):
    config = train_config(weight_dropout=0.5, optimizer="sgd", learning_rate=0.1, clip_norm=0.0, xla=xla)
    before = RunState(model_config(), config).model.get_layer("lstm_0").cell.recurrent_kernel.numpy()
    run, _ = train(model_config(), config, random_windows(config, 1), [1])
    moved = run.model.get_layer("lstm_0").cell.recurrent_kernel.numpy() != before
    assert abs(moved.mean() - 0.5) < 0.15


# Calls and shards


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_the_number_of_steps_in_a_call_changes_nothing(cell):
    model = model_config(cell=cell, dropout=0.4)
    config = train_config(batch_size=4, shards=2, state_reset=0.3, schedule="cosine", learning_rate=0.05)
    windows = random_windows(config, 12)
    runs = [values(train(model, config, windows, calls)[0]) for calls in ([1] * 12, [12], [5, 7])]
    assert runs[0]["counters/step"] == runs[0]["counters/loss_steps"] == 12
    for other in runs[1:]:
        assert other.keys() == runs[0].keys()
        for name, value in runs[0].items():
            np.testing.assert_array_equal(other[name], value, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_the_number_of_shards_changes_next_to_nothing(cell):
    model = model_config(cell=cell)
    one = train_config(batch_size=4, state_reset=0.3, optimizer="sgd", learning_rate=0.5, shards=1)
    windows = random_windows(one, 20)
    whole, whole_losses = train(model, one, windows, [1] * 20)
    cut, cut_losses = train(model, dataclasses.replace(one, shards=2), windows, [1] * 20)
    np.testing.assert_allclose(cut_losses, whole_losses, atol=1e-5)
    assert np.ptp(whole_losses) > 0.01
    for name, value in values(whole).items():
        np.testing.assert_allclose(values(cut)[name], value, atol=1e-5, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(("shards", "xla"), [(2, False), (1, True)])
def test_a_run_repeats_itself_bit_for_bit(shards, xla):
    model = model_config(hidden_size=64, dropout=0.4)
    config = train_config(batch_size=16, num_steps=16, shards=shards, state_reset=0.3, learning_rate=0.01, xla=xla)
    windows = random_windows(config, 20)
    (first, losses), (again, losses_again) = (train(model, config, windows, [1] * 20) for _ in range(2))
    np.testing.assert_array_equal(losses_again, losses)
    for name, value in values(first).items():
        np.testing.assert_array_equal(values(again)[name], value, err_msg=name)


@pytest.mark.slow
def test_another_seed_is_another_run():
    config = train_config()
    windows = random_windows(config, 2)
    first, again, other = (train(model_config(), train_config(seed=seed), windows, [2])[1] for seed in (0, 0, 1))
    assert first == again
    assert first != other


@pytest.mark.slow
@every_input
def test_the_keras_models_stateful_call_gives_the_loops_losses(settings):
    model = model_config(num_layers=2, **settings)
    config = train_config(learning_rate=0.02, batch_size=4, shards=2)
    windows = random_windows(config, 10)
    run = RunState(model, config)
    run_steps = compile_steps(run, model, config, STEPS_PER_EPOCH)
    for step, window in enumerate(windows):
        if step % STEPS_PER_EPOCH == 0:
            for layer in recurrent_layers(run.model):
                layer.reset_state()
        expected, before = keras_loss(run.model, window), float(run.loss_sum)
        run_steps(window[None], 0.0)
        assert abs(float(run.loss_sum) - before - expected) < 1e-6


# What computes: Keras's own loops on a GPU, products in bfloat16, XLA


@pytest.fixture
def keras_loops(monkeypatch):
    """The layers whose loop Keras's own code ran."""
    seen = []
    for kind in (keras.layers.LSTM, keras.layers.GRU):
        real = kind.inner_loop

        def spy(self, *arguments, real=real, **named):
            seen.append(self.name)
            return real(self, *arguments, **named)

        monkeypatch.setattr(kind, "inner_loop", spy)
    return seen


@pytest.mark.slow
@every_input
def test_on_a_gpu_steps_take_keras_own_loops(settings, monkeypatch, keras_loops):
    model = model_config(num_layers=2, dropout=0.4, **settings)
    config = train_config(batch_size=4, shards=2, state_reset=0.3, learning_rate=0.02, precision="bfloat16")
    windows = random_windows(config, 10)
    monkeypatch.setattr(steps, "has_bfloat16", lambda: False)
    run, losses = train(model, config, windows, [1] * 10)
    assert run.engine == Engine()
    assert not keras_loops
    monkeypatch.setattr(steps, "gpus", lambda: 1)  # a stand-in: Keras's loops still compute on the CPU
    run, on_gpu = train(model, config, windows, [1] * 10)
    assert run.engine == Engine(precision=None, cudnn=True)
    assert sorted(set(keras_loops)) == [f"{settings['cell']}_{n}" for n in (0, 1)]
    np.testing.assert_allclose(on_gpu, losses, rtol=0, atol=1e-5)
    assert np.ptp(losses) > 0.01


@pytest.mark.parametrize(
    ("precision", "has", "engine"),
    [
        ("float32", True, Engine()),
        ("float32", False, Engine()),
        ("bfloat16", True, Engine(tf.bfloat16)),
        ("bfloat16", False, Engine()),
    ],
)
def test_products_are_in_bfloat16_where_asked_and_the_processor_has_it(precision, has, engine, monkeypatch):
    monkeypatch.setattr(steps, "has_bfloat16", lambda: has)
    assert RunState(model_config(), train_config(precision=precision)).engine == engine


@pytest.mark.slow
@every_input
def test_a_text_is_learnt_in_bfloat16_as_in_float32(settings, monkeypatch):
    monkeypatch.setattr(steps, "has_bfloat16", lambda: True)  # elsewhere TensorFlow emulates it
    vocabulary = Vocabulary.from_text(PASSAGE)
    model = model_config(vocab_size=len(vocabulary), hidden_size=32, **settings)
    config = train_config(batch_size=8, num_steps=16, learning_rate=0.01, max_steps=300)
    streams = Streams(vocabulary.encode(PASSAGE * 20), 8, 16)
    windows = streams.read(0, 300)
    exact, rounded = (
        train(model, dataclasses.replace(config, precision=precision), windows, [1] * 300, streams.steps_per_epoch)
        for precision in ("float32", "bfloat16")
    )
    assert exact[1][-50:].mean() < 0.5 * exact[1][0]
    assert abs(rounded[1][-50:].mean() - exact[1][-50:].mean()) < 0.02
    assert np.abs(rounded[1] - exact[1]).min() > 0
    kinds = {name: value.dtype for name, value in values(rounded[0]).items() if not name.startswith("counters/")}
    assert {name: kind for name, kind in kinds.items() if kind != np.float32} == {"optimizer/000.iteration": np.int64}


@pytest.mark.slow
def test_xla_compiles_the_steps_where_asked(monkeypatch):
    asked, real = [], tf.function
    monkeypatch.setattr(tf, "function", lambda *given, **named: asked.append(named["jit_compile"]) or real(*given, **named))
    for xla in (None, False, True):
        config = train_config(xla=xla)
        compile_steps(RunState(model_config(), config), model_config(), config, STEPS_PER_EPOCH)
    assert asked == [False, False, True]


@pytest.mark.slow
@every_input
def test_xla_changes_next_to_nothing(settings):
    model = model_config(dropout=0.4, **settings)
    config = train_config(batch_size=4, shards=2, schedule="cosine", learning_rate=0.02)
    windows = random_windows(config, 20)
    losses = [train(model, dataclasses.replace(config, xla=xla), windows, [1] * 20)[1] for xla in (False, True)]
    np.testing.assert_allclose(*losses, rtol=0, atol=1e-5)
    assert np.ptp(losses[0]) > 0.01


@pytest.mark.slow
def test_with_xla_the_same_streams_begin_anew():
    config = train_config(batch_size=64, state_reset=0.3)
    ones = [tuple(tf.ones_like(part) for part in layer) for layer in zero_state(model_config(), 64)]
    begin = [
        tf.function(lambda step: begin_window(config, STEPS_PER_EPOCH, step, ones), autograph=False, jit_compile=xla)
        for xla in (False, True)
    ]
    for step in range(1, 4):
        plain, compiled = (tf.nest.flatten(each(tf.constant(step, tf.int64)))[0].numpy() for each in begin)
        np.testing.assert_array_equal(compiled, plain)


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_with_xla_the_number_of_steps_in_a_call_changes_nothing(cell):
    model = model_config(cell=cell, dropout=0.4)
    config = train_config(batch_size=4, state_reset=0.3, schedule="cosine", learning_rate=0.05, xla=True)
    windows, run = random_windows(config, 6), RunState(model, config)
    run_steps = compile_steps(run, model, config, STEPS_PER_EPOCH)
    begun, ended = values(run), []
    for calls in ([1] * 6, [6], [2, 4]):
        for group, named in run.variables().items():
            for name, variable in named.items():
                variable.assign(begun[f"{group}/{name}"])
        for part in np.split(windows, np.cumsum(calls)[:-1]):
            run_steps(part, 0.0)
        ended.append(values(run))
    assert ended[0]["counters/step"] == ended[0]["counters/loss_steps"] == 6
    for other in ended[1:]:
        for name, value in ended[0].items():
            np.testing.assert_array_equal(other[name], value, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("xla", [False, True])
def test_a_call_may_have_the_most_steps(xla):
    config = train_config(batch_size=1, num_steps=3, xla=xla)
    most = steps_a_call(config)
    run, losses = train(model_config(), config, random_windows(config, most + 1), [most, 1])
    assert int(run.step) == int(run.loss_steps) == most + 1
    assert 0 < losses[0] / most < 4


# Updates


@pytest.mark.slow
@pytest.mark.parametrize("clip_norm", [0.0, 0.05, 1000.0])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_an_sgd_update_is_the_clipped_gradient(cell, clip_norm):
    model = model_config(cell=cell)
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
    run, _ = train(model, config, window, [1])
    for before, gradient, after in zip(untrained.get_weights(), gradients, run.model.get_weights(), strict=True):
        np.testing.assert_allclose(after, before - 0.5 * factor * gradient, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("embedding_size", [0, 5])
def test_adam_updates_are_those_of_keras_fit(embedding_size):
    """Among them an embedding's, whose gradient Keras's Adam squares occurrence by occurrence."""
    model = model_config(cell="gru", embedding_size=embedding_size)
    config = train_config(learning_rate=0.01, state_reset=1.0, clip_norm=0.0)
    windows = random_windows(config, 8)
    ids = keras.Input((config.num_steps,), dtype="int32")
    if embedding_size:
        inputs = keras.layers.Embedding(model.vocab_size, embedding_size)(ids)
    else:
        inputs = keras.ops.one_hot(ids, model.vocab_size)
    outputs = keras.layers.GRU(model.hidden_size, return_sequences=True)(inputs)
    peer = keras.Model(ids, keras.layers.Dense(model.vocab_size)(outputs))
    peer.set_weights(RunState(model, config).model.get_weights())
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    peer.compile(keras.optimizers.Adam(0.01, epsilon=1e-8), loss)
    for window in windows:
        peer.train_on_batch(window[:, :-1], window[:, 1:])
    run, _ = train(model, config, windows, [8])
    for ours, theirs in zip(run.model.get_weights(), peer.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5)


def test_optimizers_by_name():
    kinds = {"adam": keras.optimizers.Adam, "sgd": keras.optimizers.SGD, "rmsprop": keras.optimizers.RMSprop}
    for name, kind in kinds.items():
        optimizer = build_optimizer(train_config(optimizer=name, learning_rate=0.25))
        assert isinstance(optimizer, kind)
        assert float(optimizer.learning_rate) == 0.25
    assert build_optimizer(train_config(optimizer="adam")).epsilon == 1e-8


@pytest.mark.slow
def test_adams_first_step_moves_every_weight_by_the_rate():
    config = train_config(optimizer="adam", learning_rate=0.01, clip_norm=0.0)
    before = RunState(model_config(), config).model.get_weights()
    run, _ = train(model_config(), config, random_windows(config, 1), [1])
    moved = np.abs(run.model.get_weights()[-1] - before[-1])  # dense bias: no gradient of it is near epsilon
    np.testing.assert_allclose(moved, 0.01, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_repetitive_text_is_learnt(cell):
    config = train_config(batch_size=4, num_steps=8, learning_rate=0.02, optimizer="adam", max_steps=400)
    text = np.tile(np.array([0, 1, 2, 0, 3, 4, 0, 1, 5, 6], np.uint8), 33)
    windows = Streams(text, 4, 8).read(0, 300)
    _, losses = train(model_config(cell=cell, hidden_size=16), config, windows, [299, 1], steps_per_epoch=10)
    assert losses[1] < 0.3


def test_adam_as_one_operation_is_keras_adam():
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
