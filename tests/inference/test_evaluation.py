"""Nats a character, against a plain loop over Keras and against a single pass."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import tensorflow as tf
from conftest import TEXT, make_text
from hypothesis import example, given
from hypothesis import strategies as st

from charrnn_tf import ModelConfig, build_model, evaluate, latest_checkpoint
from charrnn_tf.errors import ConfigError, TextError
from charrnn_tf.inference import evaluation
from charrnn_tf.inference.evaluation import CHARACTERS_PER_STREAM, WARM_UP, Evaluation, Evaluator, _streams
from charrnn_tf.runs.checkpoint import load_model
from charrnn_tf.settings.schema import CELLS, EVALUATED_STREAMS


@pytest.fixture(scope="module")
def checkpoint(trained):
    return latest_checkpoint(trained("lstm"))


@pytest.fixture(scope="module")
def without_resets(trained):
    """A model that has learned to carry its state on: nothing but the epochs' ends begins anew."""
    return latest_checkpoint(trained("lstm", state_reset=0.0))


def nats_by_keras(path, text):
    """Sum of -log p(character) over the text but its first character, fed to the stateful model one by one."""
    model, record = load_model(path)
    read = tf.function(model)
    ids = record.vocabulary.encode(text).astype(np.int32)
    return sum(-math.log(read(tf.constant([[id]]))[0, 0, following]) for id, following in itertools.pairwise(ids))


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_the_figure_is_that_of_a_plain_loop_over_keras(trained, cell):
    path = latest_checkpoint(trained(cell))
    text = make_text(150, seed=3)  # more than one call reads
    result = evaluate(path, text)
    assert result.nats_per_character == pytest.approx(nats_by_keras(path, text) / 149, abs=1e-5)
    assert result.nats_per_character < 2.2  # the model has learned something


@pytest.mark.slow
@pytest.mark.parametrize("characters", [2, 3, 100, 101, 102, 201, 202])
def test_every_character_but_the_first_is_scored(characters):
    config = ModelConfig(5, hidden_size=4)
    model = build_model(config, 1)
    model.get_layer("logits").set_weights([np.zeros((4, 5)), np.zeros(5)])
    result = Evaluator(model, config).evaluate(np.zeros(characters, np.uint8))
    assert result.characters == characters - 1
    assert result.nats_per_character == pytest.approx(math.log(5), abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("window", [0, 300])
def test_how_far_it_has_come_is_told(checkpoint, window):
    model, record = load_model(checkpoint)
    ids = record.vocabulary.encode(TEXT)
    told = []
    Evaluator(model, record.model).evaluate(ids, window=window, progress=lambda *parts: told.append(parts))
    assert told[0][1] == 0
    assert told[-1][1] == told[-1][2] >= len(ids) - 1
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)


@pytest.mark.slow
def test_the_order_of_what_came_before_counts(checkpoint):
    figures = {evaluate(checkpoint, text).nats_per_character for text in ("The sea", "ehT sea", "eaT seh")}
    assert len(figures) == 3


def test_each_evaluation_begins_from_a_zero_state(checkpoint):
    model, record = load_model(checkpoint)
    ids = record.vocabulary.encode(TEXT[:300])
    evaluator = Evaluator(model, record.model)
    first = evaluator.evaluate(ids)
    evaluator.evaluate(ids[100:])
    model(np.zeros((1, 5), np.int32))  # Keras's own state is not read
    assert evaluator.evaluate(ids) == first


def test_the_weights_are_those_at_each_call(checkpoint):
    model, record = load_model(checkpoint)
    ids = record.vocabulary.encode(TEXT[:300])
    evaluator = Evaluator(model, record.model)
    before = evaluator.evaluate(ids).nats_per_character
    model.set_weights([weight * 0 for weight in model.get_weights()])
    assert evaluator.evaluate(ids).nats_per_character == pytest.approx(math.log(record.model.vocab_size), abs=1e-6)
    assert before < math.log(record.model.vocab_size) - 0.3


@pytest.mark.slow
def test_dropout_is_off():
    config = ModelConfig(4, hidden_size=8, num_layers=2, dropout=0.9, init="wide")
    ids = np.arange(400) % 4
    with_dropout = Evaluator(build_model(config, 1, seed=2), config).evaluate(ids)
    config = dataclasses.replace(config, dropout=0.0)
    assert Evaluator(build_model(config, 1, seed=2), config).evaluate(ids) == with_dropout


# ---- parallel streams


@pytest.mark.slow
def test_parallel_streams_agree_with_a_single_pass(without_resets, monkeypatch):
    model, record = load_model(without_resets)
    ids = record.vocabulary.encode(make_text(4000, seed=4))
    evaluator = Evaluator(model, record.model, shards=3)
    single = evaluator.evaluate(ids, most_streams=1).nats_per_character
    assert evaluator.evaluate(ids).nats_per_character == single  # too short for two streams

    monkeypatch.setattr(evaluation, "CHARACTERS_PER_STREAM", 400)
    monkeypatch.setattr(evaluation, "WARM_UP", 0)
    cold = abs(evaluator.evaluate(ids).nats_per_character - single)
    monkeypatch.setattr(evaluation, "WARM_UP", 60)
    warm = abs(evaluator.evaluate(ids).nats_per_character - single)
    assert cold > 0.0001
    assert warm < 0.001
    assert warm < cold / 5  # the warm-up is what makes them agree
    assert evaluator.evaluate(ids).characters == 3999


@pytest.mark.slow
def test_parallel_streams_agree_with_a_single_pass_at_their_real_length(without_resets):
    model, record = load_model(without_resets)
    ids = record.vocabulary.encode(make_text(60_005, seed=5))
    evaluator = Evaluator(model, record.model)
    assert len(_streams(len(ids) - 1, EVALUATED_STREAMS)[0]) == 6
    parallel, single = evaluator.evaluate(ids), evaluator.evaluate(ids, most_streams=1)
    assert parallel.characters == single.characters == 60_004
    assert parallel.nats_per_character == pytest.approx(single.nats_per_character, abs=0.001)


@pytest.mark.slow
@pytest.mark.parametrize("shards", [1, 2, 3, 8])
def test_shards_change_nothing(checkpoint, monkeypatch, shards):
    monkeypatch.setattr(evaluation, "CHARACTERS_PER_STREAM", 300)
    monkeypatch.setattr(evaluation, "WARM_UP", 50)
    model, record = load_model(checkpoint)
    ids = record.vocabulary.encode(TEXT[:1501])  # 5 streams: not all parts of one size
    whole, parts = (Evaluator(model, record.model, count).evaluate(ids) for count in (1, shards))
    assert parts.nats_per_character == pytest.approx(whole.nats_per_character, abs=1e-6)
    assert parts.characters == whole.characters


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_on_a_gpu_keras_own_loops_give_the_same_figure(trained, monkeypatch, cell):
    model, record = load_model(latest_checkpoint(trained(cell)))
    ids = record.vocabulary.encode(TEXT[:250])
    ours = Evaluator(model, record.model).evaluate(ids)
    monkeypatch.setattr(evaluation, "gpus", lambda: 1)  # a stand-in: Keras's loops still compute on the CPU
    monkeypatch.setattr(type(model.get_layer(f"{cell}_0")), "scan", None)  # must not be called
    theirs = Evaluator(model, record.model).evaluate(ids)
    assert theirs.nats_per_character == pytest.approx(ours.nats_per_character, abs=1e-5)


@pytest.mark.slow
@given(targets=st.integers(1, 4_000_000), most=st.integers(1, 300))
@example(targets=2 * CHARACTERS_PER_STREAM - 1, most=EVALUATED_STREAMS)
@example(targets=2 * CHARACTERS_PER_STREAM, most=EVALUATED_STREAMS)
@example(targets=EVALUATED_STREAMS * CHARACTERS_PER_STREAM, most=EVALUATED_STREAMS)
def test_every_target_is_scored_exactly_once(targets, most):
    starts, scored, length = _streams(targets, most)
    assert len(starts) == len(scored) == max(1, min(most, targets // CHARACTERS_PER_STREAM))
    assert starts[0] == scored[0] == 0
    assert starts.min() >= 0
    assert (starts + length).max() == targets
    begins, ends = starts + scored, starts + length
    assert (begins[1:] == ends[:-1]).all()  # each part begins where the one before ends
    assert (scored[1:] >= WARM_UP).all()
    assert (begins < ends).all()


@pytest.mark.slow
@pytest.mark.parametrize("window", [1, 7, 100, 130, 499, 500, 1000])
def test_cold_windows_each_begin_from_a_zero_state(checkpoint, window, monkeypatch):
    monkeypatch.setattr(evaluation, "EVALUATED_STREAMS", 3)  # groups of full windows, and the rest
    model, record = load_model(checkpoint)
    evaluator = Evaluator(model, record.model)
    ids = record.vocabulary.encode(TEXT[:500])
    parts = [evaluator.evaluate(ids[begin : begin + window + 1]) for begin in range(0, len(ids) - 1, window)]
    expected = sum(part.nats_per_character * part.characters for part in parts) / 499
    found = evaluator.evaluate(ids, window=window)
    assert found.characters == 499
    assert found.nats_per_character == pytest.approx(expected, abs=1e-6)


# ---- what goes in and what comes out


@pytest.mark.parametrize("text", ["", "T"])
def test_fewer_than_two_characters_are_an_error(checkpoint, text):
    with pytest.raises(TextError, match="fewer than two characters"):
        evaluate(checkpoint, text)


def test_a_window_below_nothing_is_an_error(checkpoint):
    with pytest.raises(ConfigError, match="window must be at least 0, got -1"):
        evaluate(checkpoint, "The sea", window=-1)


def test_unknown_characters(checkpoint):
    with pytest.raises(TextError, match=r"'é' \(U\+00E9\)"):
        evaluate(checkpoint, "Thé sea")
    assert evaluate(checkpoint, "éThe 漢sea", unknown="skip") == evaluate(checkpoint, "The sea")
    with pytest.raises(TextError, match="fewer than two characters"):
        evaluate(checkpoint, "éTé", unknown="skip")
    with pytest.raises(ConfigError, match="unknown must be"):
        evaluate(checkpoint, "The sea", unknown="drop")


def test_the_units_of_the_figures():
    result = Evaluation(nats_per_character=math.log(8), characters=10)
    assert result.bits_per_character == pytest.approx(3)
    assert result.perplexity == pytest.approx(8)
    assert math.isfinite(Evaluation(1e9, 10).perplexity)


def test_as_dict_has_the_names_that_json_has(checkpoint):
    result = evaluate(checkpoint, TEXT[:200])
    figures = result.as_dict()
    assert list(figures) == ["nats_per_character", "bits_per_character", "perplexity", "characters"]
    assert figures["characters"] == 199
    assert figures["nats_per_character"] == result.nats_per_character
    assert figures["bits_per_character"] == pytest.approx(result.nats_per_character / math.log(2))
    assert figures["perplexity"] == pytest.approx(math.exp(result.nats_per_character))
