"""A run with `lines`: every line is learned, scored and sampled from a zero state, and the run resumes exactly."""

import dataclasses
import random

import numpy as np
import pytest
import tensorflow as tf
from conftest import forward
from test_trainer import assert_same_tensors, stripped

from charrnn_tf.errors import TextError
from charrnn_tf.formats.savedmodel import export_saved_model
from charrnn_tf.inference.evaluation import Evaluator, evaluate
from charrnn_tf.inference.sampling import Sampler
from charrnn_tf.network.cells import Engine
from charrnn_tf.network.model import build_model, character_losses, zero_state
from charrnn_tf.runs.checkpoint import load_model
from charrnn_tf.runs.metrics import read_rows
from charrnn_tf.settings.schema import ModelConfig, TrainConfig
from charrnn_tf.text.vocabulary import Vocabulary
from charrnn_tf.training.randomness import zero_states
from charrnn_tf.training.trainer import Trainer

DRAW = random.Random(1)
LINES = ["".join(DRAW.choice("ab cd") for _ in range(DRAW.randint(1, 9))) for _ in range(150)]
TEXT = "\n".join(LINES) + "\n"
VOCABULARY = Vocabulary.from_text(TEXT)
IDS = VOCABULARY.encode(TEXT)
CONFIG = TrainConfig(
    lines=True, batch_size=4, num_steps=8, max_steps=34, log_every=5, validate_every=9, save_every=7, keep=99, seed=3,
    learning_rate=0.02, warmup_steps=0, schedule="constant",
)  # fmt: skip


def model_of(cell):
    return ModelConfig(len(VOCABULARY), cell=cell, hidden_size=8, num_layers=1, dropout=0.2)


def trainer(folder, cell, resume=False):
    return Trainer(model_of(cell), CONFIG, VOCABULARY, IDS, folder, resume=resume)


@pytest.fixture(scope="module", params=["lstm", "gru"])
def run(request, tmp_path_factory):
    """Cell and folder of a run of 34 steps, 24 an epoch."""
    folder = tmp_path_factory.mktemp("lines")
    assert len(list(trainer(folder, request.param).run())) == 11
    return request.param, folder


def nats_line_by_line(path, lines):
    """The summed nats of lines and their newlines, each read by itself."""
    model, record = load_model(path)
    model.line_start = None
    total = 0.0
    for line in lines:
        ids = tf.constant(VOCABULARY.encode(f"\n{line}\n")[None].astype(np.int32))
        total += float(tf.reduce_sum(character_losses(model, ids, zero_state(record.model, 1))[0]))
    return total


@pytest.mark.slow
def test_the_score_of_a_text_is_that_of_its_lines_one_by_one(run):
    path = run[1] / "i34_l8"
    text = "\n".join(LINES[:30]) + "\n"
    found, ids = evaluate(path, text), VOCABULARY.encode(text)
    assert found.characters == len(text)
    expected = nats_line_by_line(path, LINES[:30]) / len(text)
    assert found.nats_per_character == pytest.approx(expected, rel=1e-5)
    model, record = load_model(path)
    for how in ({"most_streams": 1}, {"window": 10_000}):
        parallel = Evaluator(model, record.model).evaluate(ids, **how)
        assert parallel.nats_per_character == pytest.approx(expected, rel=1e-5)
    model.line_start = None
    assert Evaluator(model, record.model).evaluate(ids).nats_per_character != pytest.approx(expected, rel=1e-3)


@pytest.mark.slow
def test_a_run_of_lines_that_is_stopped_and_resumed_is_the_same_bit_for_bit(run, tmp_path):
    cell, whole = run
    stopped = trainer(tmp_path, cell)
    for row in stopped.run():
        if row.step == 15:
            stopped.stop()
    assert 15 <= stopped.step < 34
    assert len(list(trainer(tmp_path, cell, resume=True).run())) > 1
    assert stripped(read_rows(tmp_path / "metrics.csv")) == stripped(read_rows(whole / "metrics.csv"))
    assert_same_tensors(tmp_path / "i34_l8", whole / "i34_l8")


@pytest.mark.slow
def test_every_line_is_sampled_as_the_first_is(run, tmp_path):
    path = run[1] / "i34_l8"
    sampler = Sampler.from_checkpoint(path)
    states = [None, None]
    for character in "\nab cd":
        known, states[0] = sampler.probabilities(character, states[0])
    for character in "cdba\nab cd":
        now, states[1] = sampler.probabilities(character, states[1])
    np.testing.assert_array_equal(now, known)
    draw = {"length": 200, "top_n": 0, "temperature": 3.0, "seed": 1}
    texts = {sampler.sample(prime, **draw).removeprefix("\n") for prime in ("ab", "\nab")}
    assert len(texts) == 1
    assert len(sampler.surprise("ab")[1]) == 2
    assert (sampler.surprise("ab")[1] > 0).all()
    signatures = tf.saved_model.load(export_saved_model(path, tmp_path / "model")).signatures
    arguments = {
        "prime": tf.constant(["ab", "", "dcba"]), "length": 200, "top_n": 0, "top_p": 1.0, "temperature": 3.0, "seed": 1,
    }  # fmt: skip
    given = {name: tf.constant(value, tf.int64 if name == "seed" else None) for name, value in arguments.items()}
    assert signatures["generate"](**given)["text"][0].numpy().decode() == sampler.sample("ab", **draw)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_line_start_has_no_memory_under_any_engine(cell):
    model, ids = build_model(model_of(cell), 2), tf.constant(np.resize(IDS, (2, 30)).astype(np.int32))
    model.line_start = VOCABULARY.characters.index("\n")
    state = [tuple(tf.ones((2, 8)) for _ in layer) for layer in zero_state(model_of(cell), 2)]
    place = int(tf.where(ids[0] == model.line_start)[0, 0])
    for engine in (Engine.FLOAT32, Engine.CUDNN):
        whole, _ = forward(model, ids, state, None, engine)
        alone, _ = forward(model, ids[:, place:], zero_state(model_of(cell), 2), None, engine)
        rows = slice(0, None, 2)  # of the first stream
        np.testing.assert_allclose(whole[2 * place :][rows], alone[rows], rtol=1e-5, atol=1e-6)


def test_no_line_is_cut_by_a_random_reset():
    state = [(tf.ones((4, 2)),)]
    config = dataclasses.replace(CONFIG, state_reset=1.0)
    for step, lines, left in ((1, True, 1.0), (1, False, 0.0), (24, True, 0.0)):
        after = zero_states(dataclasses.replace(config, lines=lines), 24, tf.constant(step, tf.int64), state)
        assert (after[0][0].numpy() == left).all()


def test_a_text_of_one_line_is_refused(tmp_path):
    vocabulary = Vocabulary("ab")
    with pytest.raises(TextError, match="`lines` needs a text of several lines"):
        Trainer(ModelConfig(2, hidden_size=8), CONFIG, vocabulary, np.resize([0, 1], 99), tmp_path / "run")
    assert not (tmp_path / "run").exists()
