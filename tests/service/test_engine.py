"""Texts of many requests in one loop: each is the sampler's own text, whatever else is written beside it."""

import queue
import threading
import time

import numpy as np
import pytest
from conftest import TEXT, write_checkpoint

from charrnn_tf import Sampler, Vocabulary
from charrnn_tf.inference.evaluation import Evaluator
from charrnn_tf.runs.checkpoint import load_model
from charrnn_tf.service.engine import ClosingError, Engine, FullError
from charrnn_tf.service.texts import CHUNK, Text
from charrnn_tf.text.vocabulary import ByteVocabulary

SETTINGS = {"top_n": 5, "top_p": 1.0, "temperature": 1.0, "min_p": 0.0}


class Running:
    """An engine of 3 rows, and what it has handed out."""

    def __init__(self, checkpoint, rows=3, waiting=20, loops=1):
        self.sampler = Sampler.from_checkpoint(checkpoint, rows)
        self.pieces, self.finished = {}, queue.Queue()
        self.step, self.held = threading.Semaphore(0), False  # while held, a chunk is handed out for each step
        self.engine = Engine(self.sampler, waiting, self.deliver, loops)
        self.engine.start()

    def deliver(self, pieces):
        for piece in pieces:
            self.pieces.setdefault(piece.text, []).append(piece)
            if piece.finish:
                self.finished.put(piece.text)
        if self.held:
            assert self.step.acquire(timeout=20)

    def text(self, prime="", length=40, seed=1, **settings):
        cuts = {name: settings.pop(name, value) for name, value in SETTINGS.items()}
        return Text(self.sampler.vocabulary, *self.engine.read(prime), length, seed, cuts=cuts, **settings)

    def write(self, *texts):
        self.engine.submit(texts)
        return self.wait(*texts)

    def wait(self, *texts):
        left = set(texts)
        while left:
            left.discard(self.finished.get(timeout=20))
        return [self.result(text) for text in texts]

    def result(self, text):
        return "".join(piece.written for piece in self.pieces[text])

    def tokens(self, text):
        return [token for piece in self.pieces[text] for token in piece.tokens]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(
        tmp_path_factory.mktemp("run"), characters=Vocabulary.from_text(TEXT), hidden_size=16, num_layers=2, init="wide"
    )


@pytest.fixture(scope="module")
def alone(checkpoint):
    """One text of a sampler without a server, without its prime."""
    sampler = Sampler.from_checkpoint(checkpoint)
    return lambda prime="", length=40, seed=1, **settings: sampler.sample(prime, length, seed=seed, **settings)[len(prime) :]


@pytest.fixture(scope="module")
def running(checkpoint):
    running = Running(checkpoint)
    yield running
    running.engine.close()
    assert not running.engine.alive


@pytest.fixture(scope="module")
def many(checkpoint):
    """An engine with two loops, of one and of two rows."""
    running = Running(checkpoint, loops=2)
    yield running
    running.engine.close()
    assert not running.engine.alive


@pytest.fixture
def held(running):
    """The engine, a chunk at a time."""
    running.step, running.held = threading.Semaphore(0), True
    yield running
    running.held = False
    running.step.release()
    assert eventually(lambda: running.engine.active == running.engine.waiting == 0)


@pytest.mark.parametrize("loops", ["running", "many"])
def test_every_text_is_that_of_sample_whatever_else_is_written(loops, request, alone):
    running = request.getfixturevalue(loops)
    draw = np.random.default_rng(0)
    asked = [
        {
            "prime": TEXT[n : n + draw.integers(0, 40)], "length": int(draw.integers(1, 90)),
            "seed": int(draw.integers(2**62)),
            "top_n": int(draw.choice([0, 1, 5, 99])), "top_p": float(draw.choice([0.5, 1.0])),
            "temperature": float(draw.choice([0.0, 0.5, 1.0, 2.0])), "min_p": float(draw.choice([0.0, 0.2])),
        }
        for n in range(20)
    ]  # fmt: skip
    texts = [running.text(**each, scored=n % 7 == 0) for n, each in enumerate(asked)]
    assert running.write(*texts) == [alone(**each) for each in asked]
    assert [text.characters for text in texts] == [each["length"] for each in asked]


def test_samples_of_one_seed_are_those_of_sample_with_several(running, checkpoint):
    sampler = Sampler.from_checkpoint(checkpoint, 4)
    expected = ["".join(pieces) for pieces in zip(*sampler.chunks("The ", 40, seed=9), strict=True)]
    assert running.write(*(running.text("The ", seed=9, number=n) for n in range(4))) == expected


def test_a_text_joins_and_leaves_while_another_goes_on(held, alone):
    long = held.text(length=400)
    held.engine.submit([long])
    held.step.release()
    short = held.text("The ", length=20, seed=2)
    held.engine.submit([short])
    for _ in range(4):
        held.step.release()
    assert held.wait(short) == [alone("The ", 20, seed=2)]
    assert 0 < len(held.result(long)) <= 6 * CHUNK
    held.held = False
    held.step.release()
    assert held.wait(long) == [alone(length=400)]


def test_a_cancelled_text_frees_its_row_within_a_chunk(held):
    texts = [held.text(length=10_000, seed=n) for n in range(5)]
    held.engine.submit(texts)
    assert eventually(lambda: texts[0] in held.pieces)
    assert held.engine.active == 3
    held.engine.cancel(texts[:1])
    held.engine.cancel(texts[4:])
    assert held.engine.waiting == 1
    held.step.release()
    assert eventually(lambda: held.engine.waiting == 0)
    held.step.release()
    assert eventually(lambda: texts[3] in held.pieces)
    held.engine.cancel(texts)
    held.held = False
    held.step.release()
    assert eventually(lambda: held.engine.active == 0)
    assert texts[4] not in held.pieces
    assert len(held.pieces[texts[0]]) == 1


def test_more_texts_than_may_wait_are_refused_all_together(held):
    texts = [held.text(length=10_000, seed=n) for n in range(22)]
    held.engine.submit(texts)
    with pytest.raises(FullError):
        held.engine.submit([held.text(), held.text()])
    assert held.engine.active + held.engine.waiting == 22
    assert held.engine.seconds_to_wait() >= 1
    held.engine.submit([held.text(length=1)])
    held.engine.cancel([*texts])


def test_texts_wait_for_the_rows_of_all_loops(many):
    texts = [many.text(length=10_000, seed=n) for n in range(5)]
    many.engine.submit(texts)
    assert eventually(lambda: many.engine.active == 3)
    assert many.engine.waiting == 2
    many.engine.cancel(texts[:2])
    assert eventually(lambda: many.engine.active == 3 and many.engine.waiting == 0)
    many.engine.cancel(texts)
    assert eventually(lambda: many.engine.active == 0)
    assert many.write(many.text("The ")) == many.write(many.text("The "))


def test_a_text_ends_before_its_stop_text(running, alone):
    text = alone("The ", 200)
    stop = text[50:54]
    place = text.index(stop)
    stopped = running.text("The ", 200, stops=[stop, "never"])
    assert running.write(stopped) == [text[:place]]
    assert running.pieces[stopped][-1].finish == "stop"
    assert stopped.characters == place
    assert len(running.pieces[stopped]) <= 5


def test_scores_are_the_models_log_probabilities(running, checkpoint, alone):
    text = running.text("The old ", 30, echo=True, scored=True)
    (written,) = running.write(text)
    assert written == alone("The old ", 30)
    tokens = running.tokens(text)
    assert "".join(token.character for token in tokens) == "The old " + written
    assert [token.offset for token in tokens] == list(range(38))
    assert (tokens[0].logprob, tokens[0].likeliest) == (None, {})
    model, record = load_model(checkpoint)
    score = Evaluator(model, record.model).evaluate(record.vocabulary.encode("The old " + written))
    assert -sum(token.logprob for token in tokens[1:]) == pytest.approx(score.nats_per_character * 37, rel=1e-4)
    for token in tokens[1:]:
        ordered = list(token.likeliest.values())
        assert ordered == sorted(ordered, reverse=True)
        assert len(ordered) == 5
        assert token.likeliest.get(token.character, token.logprob) == token.logprob


def test_scores_end_with_the_text(running, alone):
    text = alone("The ", 60)
    stop = text[20:24]
    place = text.index(stop)
    for echo in (False, True):
        stopped = running.text("The ", 60, stops=[stop], scored=True, echo=echo)
        running.write(stopped)
        assert "".join(token.character for token in running.tokens(stopped)) == ("The " if echo else "") + text[:place]


@pytest.mark.parametrize(("prime", "count"), [("The ", 4), ("T", 1), ("", 0)])
def test_a_prime_alone_is_scored(running, prime, count):
    text = running.text(prime, 0, echo=True, scored=True)
    assert running.write(text) == [""]
    assert [token.character for token in running.tokens(text)] == list(prime)
    assert running.pieces[text][-1].finish == "length"
    assert count == len(running.tokens(text))


def test_a_failing_chunk_ends_its_texts_and_no_others(running, alone, monkeypatch, caplog):
    def fail(*arguments):
        raise MemoryError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(running.engine._loops[0], "_advance_rows", {False: fail, True: fail})
        broken = running.text()
        assert running.write(broken) == [""]
    assert running.pieces[broken][-1].finish == "error"
    assert "no room" in caplog.text
    assert running.write(running.text("The ")) == [alone("The ")]


@pytest.mark.slow
def test_bytes_are_characters_only_when_they_are_whole(tmp_path):
    checkpoint = write_checkpoint(tmp_path, characters=ByteVocabulary(), init="wide")
    running = Running(checkpoint, rows=2)
    settings = {"top_n": 0, "temperature": 3.0, "seed": 4}
    expected = Sampler.from_checkpoint(checkpoint).sample("é", 300, **settings)
    plain, scored = (running.text("é", 300, echo=True, scored=scored, **settings) for scored in (False, True))
    assert ["é" + written for written in running.write(plain, scored)] == [expected, expected]
    tokens = running.tokens(scored)
    assert len(tokens) == 302
    assert [token.offset for token in tokens[:3]] == [0, 0, 1]
    assert tokens[-1].offset < len(expected)
    running.engine.close()


def test_a_closed_engine_takes_nothing_and_drops_nothing(checkpoint):
    running = Running(checkpoint, rows=1)
    texts = [running.text(length=60, seed=n) for n in range(3)]
    running.engine.submit(texts)
    running.engine.close()
    assert [len(running.result(text)) for text in texts] == [60] * 3
    with pytest.raises(ClosingError):
        running.engine.submit([running.text()])


def eventually(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return condition()
