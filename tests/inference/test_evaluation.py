"""Nats per character, against a plain loop over Keras and against a single pass."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import tensorflow as tf
from conftest import TEXT, make_text
from gpu import OPERATION, operations, stand_in
from hypothesis import example, given
from hypothesis import strategies as st

from charrnn_tf import ModelConfig, build_model, evaluate, latest_checkpoint
from charrnn_tf.errors import ConfigError, TextError
from charrnn_tf.inference import evaluation
from charrnn_tf.inference.evaluation import (
    CHARACTERS_PER_STREAM,
    WARM_UP,
    Evaluation,
    Evaluator,
    StoppedError,
    _warm_streams,
)
from charrnn_tf.runs.checkpoint import load_model
from charrnn_tf.settings.schema import CELLS, EVALUATED_STREAMS


@pytest.fixture(scope="module")
def checkpoint(trained):
    return latest_checkpoint(trained("lstm"))


def evaluator_of(path):
    """An evaluator of a saved model, and its function from text to ids."""
    model, record = load_model(path)
    return Evaluator(model, record.model), record.vocabulary.encode


@pytest.fixture(scope="module")
def scorer(checkpoint):
    """`evaluator_of` the checkpoint, compiled once for all tests; leave its weights alone."""
    return evaluator_of(checkpoint)


@pytest.fixture(scope="module")
def carrying(trained):
    """`evaluator_of` a model trained to carry its state on, with resets only at the ends of epochs."""
    return evaluator_of(latest_checkpoint(trained("lstm", state_reset=0.0)))


@pytest.fixture(scope="module")
def indifferent():
    """An evaluator for which all of five characters are equally likely."""
    config = ModelConfig(5, hidden_size=4)
    model = build_model(config, 1)
    model.get_layer("logits").set_weights([np.zeros((4, 5)), np.zeros(5)])
    return Evaluator(model, config)


def nats_by_keras(path, text):
    """Sum of -log p(character) over all characters but the first, fed to the stateful model one by one."""
    model, record = load_model(path)
    read = tf.function(model)
    ids = record.vocabulary.encode(text).astype(np.int32)
    return sum(-math.log(read(tf.constant([[id]]))[0, 0, following]) for id, following in itertools.pairwise(ids))


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_the_mean_equals_that_of_a_plain_loop_over_keras(trained, cell):
    path = latest_checkpoint(trained(cell))
    text = make_text(150, seed=3)  # two compiled calls
    result = evaluate(path, text)
    assert result.nats_per_character == pytest.approx(nats_by_keras(path, text) / 149, abs=1e-5)
    assert result.nats_per_character < 2.2  # the model has learned something


@pytest.mark.slow
@pytest.mark.parametrize("characters", [2, 3, 100, 101, 102, 201, 202])
def test_every_character_but_the_first_is_scored(characters, indifferent):
    result = indifferent.evaluate(np.zeros(characters, np.uint8))
    assert result.characters == characters - 1
    assert result.nats_per_character == pytest.approx(math.log(5), abs=1e-6)


@pytest.mark.parametrize("window", [0, 300])
def test_progress_goes_from_zero_to_all_characters(indifferent, window):
    calls = []
    indifferent.evaluate(np.zeros(1001, np.uint8), window=window, progress=lambda *arguments: calls.append(arguments))
    done = [read for _, read, _ in calls]
    assert (done[0], done[-1]) == (0, 1000)
    assert done == sorted(done)
    assert {(doing, total) for doing, _, total in calls} == {("Scoring", 1000)}


def test_an_evaluation_that_is_stopped_raises(indifferent):
    asked = iter([False, False, True])
    with pytest.raises(StoppedError):
        indifferent.evaluate(np.zeros(1001, np.uint8), stopped=lambda: next(asked))


def test_the_order_of_earlier_characters_matters(scorer):
    evaluator, encode = scorer
    assert len({evaluator.evaluate(encode(text)).nats_per_character for text in ("The sea", "ehT sea", "eaT seh")}) == 3


def test_each_evaluation_begins_from_a_zero_state(scorer):
    evaluator, encode = scorer
    first = evaluator.evaluate(encode(TEXT[:300]))
    evaluator.evaluate(encode(TEXT[100:300]))
    evaluator.model(np.zeros((1, 5), np.int32))  # Keras's own state is not read
    assert evaluator.evaluate(encode(TEXT[:300])) == first


def test_each_evaluation_uses_the_current_weights(checkpoint):
    evaluator, encode = evaluator_of(checkpoint)
    ids, uniform = encode(TEXT[:300]), math.log(evaluator.config.vocab_size)
    assert evaluator.evaluate(ids).nats_per_character < uniform - 0.3
    evaluator.model.set_weights([weight * 0 for weight in evaluator.model.get_weights()])
    assert evaluator.evaluate(ids).nats_per_character == pytest.approx(uniform, abs=1e-6)


@pytest.mark.slow
def test_dropout_is_off():
    config = ModelConfig(4, hidden_size=8, num_layers=2, dropout=0.9, init="wide")
    ids = np.arange(400) % 4
    with_dropout = Evaluator(build_model(config, 1, seed=2), config).evaluate(ids)
    config = dataclasses.replace(config, dropout=0.0)
    assert Evaluator(build_model(config, 1, seed=2), config).evaluate(ids) == with_dropout


# ---- parallel streams


@pytest.mark.slow
def test_parallel_streams_agree_with_a_single_pass(carrying, monkeypatch):
    evaluator, encode = carrying
    ids = encode(make_text(4000, seed=4))
    single = evaluator.evaluate(ids, most_streams=1).nats_per_character
    assert evaluator.evaluate(ids).nats_per_character == single  # too short for two streams

    monkeypatch.setattr(evaluation, "CHARACTERS_PER_STREAM", 400)
    monkeypatch.setattr(evaluation, "WARM_UP", 0)
    cold = abs(evaluator.evaluate(ids).nats_per_character - single)
    monkeypatch.setattr(evaluation, "WARM_UP", 60)
    warm = abs(evaluator.evaluate(ids).nats_per_character - single)
    assert cold > 0.0001
    assert warm < 0.001
    assert warm < cold / 5  # thanks to the warm-up
    assert evaluator.evaluate(ids).characters == 3999


@pytest.mark.slow
def test_parallel_streams_agree_with_a_single_pass_at_their_real_length(carrying):
    evaluator, encode = carrying
    ids = encode(make_text(40_005, seed=5))
    assert len(_warm_streams(ids, EVALUATED_STREAMS).scored) == 4
    parallel, single = evaluator.evaluate(ids), evaluator.evaluate(ids, most_streams=1)
    assert parallel.characters == single.characters == 40_004
    assert parallel.nats_per_character == pytest.approx(single.nats_per_character, abs=0.001)


@pytest.mark.slow
def test_the_number_of_shards_changes_only_roundings(scorer, monkeypatch):
    monkeypatch.setattr(evaluation, "CHARACTERS_PER_STREAM", 300)
    monkeypatch.setattr(evaluation, "WARM_UP", 50)
    evaluator, encode = scorer
    ids, found = encode(TEXT[:1501]), []  # 5 streams: shards of different sizes
    for shards in (1, 2, 8):
        monkeypatch.setattr(evaluator, "shards", shards)
        found.append(evaluator.evaluate(ids))
    assert {result.characters for result in found} == {1500}
    assert [result.nats_per_character for result in found] == pytest.approx([found[0].nats_per_character] * 3, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_on_a_gpu_keras_own_loops_give_the_same_mean(trained, monkeypatch, cell):
    evaluator, encode = evaluator_of(latest_checkpoint(trained(cell)))
    ours = evaluator.evaluate(encode(TEXT[:250]))
    stand_in(monkeypatch)
    monkeypatch.setattr(type(evaluator.model.get_layer(f"{cell}_0")), "scan", None)  # must not be called
    theirs = Evaluator(evaluator.model, evaluator.config).evaluate(encode(TEXT[:250]))
    assert theirs.nats_per_character == pytest.approx(ours.nats_per_character, abs=1e-5)


@pytest.mark.parametrize("cell", CELLS)
def test_on_a_gpu_a_window_is_one_shard_with_cudnns_operation_for_every_layer(cell, monkeypatch):
    config, traced = ModelConfig(5, cell=cell, hidden_size=4, num_layers=2), []
    stand_in(monkeypatch, cudnn=True)
    evaluator = Evaluator(build_model(config, 1), config, shards=8)

    def trace(*arguments):  # what `evaluate` computes; no CPU can
        traced.append(score.get_concrete_function(*arguments))
        return tf.constant(0.0), arguments[2]

    score = evaluator._score
    monkeypatch.setattr(evaluator, "_score", trace)
    evaluator.evaluate(np.zeros(2 * CHARACTERS_PER_STREAM + 1, np.uint8))
    assert evaluator.shards == 1
    assert {operations(each.graph.as_graph_def())[OPERATION] for each in traced} == {2}


@given(targets=st.integers(1, 4_000_000), most=st.integers(1, 300))
@example(targets=2 * CHARACTERS_PER_STREAM - 1, most=EVALUATED_STREAMS)
@example(targets=2 * CHARACTERS_PER_STREAM, most=EVALUATED_STREAMS)
@example(targets=EVALUATED_STREAMS * CHARACTERS_PER_STREAM, most=EVALUATED_STREAMS)
def test_every_target_is_scored_exactly_once(targets, most):
    streams, scored = _warm_streams(np.broadcast_to(np.uint8(0), targets + 1), most)
    starts, length = streams.starts, streams.length
    assert len(starts) == len(scored) == max(1, min(most, targets // CHARACTERS_PER_STREAM))
    assert starts[0] == scored[0] == 0
    assert starts.min() >= 0
    assert (starts + length).max() == targets
    begins, ends = starts + scored, starts + length
    assert (begins[1:] == ends[:-1]).all()  # each part begins at the end of the previous one
    assert (scored[1:] >= WARM_UP).all()
    assert (begins < ends).all()


@pytest.mark.slow
@pytest.mark.parametrize("window", [1, 7, 100, 130, 499, 500, 1000])
def test_cold_windows_each_begin_from_a_zero_state(scorer, window, monkeypatch):
    monkeypatch.setattr(evaluation, "EVALUATED_STREAMS", 3)  # groups of full windows, and the rest
    evaluator, encode = scorer
    ids = encode(TEXT[:500])
    parts = [evaluator.evaluate(ids[begin : begin + window + 1]) for begin in range(0, len(ids) - 1, window)]
    expected = sum(part.nats_per_character * part.characters for part in parts) / 499
    found = evaluator.evaluate(ids, window=window)
    assert found.characters == 499
    assert found.nats_per_character == pytest.approx(expected, abs=1e-6)


# ---- arguments and results


@pytest.mark.parametrize("text", ["", "T"])
def test_fewer_than_two_characters_are_an_error(checkpoint, text):
    with pytest.raises(TextError, match="fewer than two characters"):
        evaluate(checkpoint, text)


def test_a_negative_window_is_an_error(checkpoint):
    with pytest.raises(ConfigError, match="`window` must be at least 0, got -1"):
        evaluate(checkpoint, "The sea", window=-1)


def test_unknown_characters(checkpoint):
    with pytest.raises(TextError, match=r"'é' \(U\+00E9\)"):
        evaluate(checkpoint, "Thé sea")
    assert evaluate(checkpoint, "éThe 漢sea", unknown="skip") == evaluate(checkpoint, "The sea")
    with pytest.raises(TextError, match="fewer than two characters"):
        evaluate(checkpoint, "éTé", unknown="skip")
    with pytest.raises(ConfigError, match="`unknown` must be"):
        evaluate(checkpoint, "The sea", unknown="drop")


def test_units():
    result = Evaluation(nats_per_character=math.log(8), characters=10)
    assert result.bits_per_character == pytest.approx(3)
    assert result.perplexity == pytest.approx(8)
    assert math.isfinite(Evaluation(1e9, 10).perplexity)


def test_as_dict_is_the_object_that_json_prints():
    values = Evaluation(nats_per_character=1.5, characters=199).as_dict()
    assert list(values) == ["nats_per_character", "bits_per_character", "perplexity", "characters"]
    assert list(values.values()) == [1.5, pytest.approx(1.5 / math.log(2)), pytest.approx(math.exp(1.5)), 199]


def test_the_time_of_an_evaluation_is_that_of_its_windows(made, monkeypatch):
    model, record = load_model(made)
    evaluator = Evaluator(model, record.model)
    ids = np.zeros(2_501, np.uint8)  # one stream, in windows of EVALUATED_STEPS
    now = iter([0.0, 9.0, 10.0, 12.0, 20.0, 21.0])  # the first window compiles
    monkeypatch.setattr("charrnn_tf.inference.evaluation.time.perf_counter", lambda: next(now))
    assert evaluator.seconds(ids) == 1.0 * -(-2_500 // evaluation.EVALUATED_STEPS)
