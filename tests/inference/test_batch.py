"""Many texts from many primes: each is the text that its prime gives alone."""

import itertools
import math

import pytest
from conftest import write_checkpoint

from charrnn_tf import Sampler, latest_checkpoint
from charrnn_tf.errors import ConfigError, TextError
from charrnn_tf.inference.sampling import CHUNK
from charrnn_tf.settings.schema import CELLS
from charrnn_tf.text.vocabulary import ByteVocabulary

PRIMES = ["The ", "", "A", "The old sea was cold and the night long, ", "rain\nAnd "]


@pytest.fixture(scope="module")
def sampler(trained):
    return Sampler.from_checkpoint(latest_checkpoint(trained("lstm")))


def limit_rows(rows, monkeypatch):
    """Let so many texts be generated at once."""
    monkeypatch.setattr("charrnn_tf.inference.batch.rows_at_once", lambda model, length: rows)


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_primes_of_unequal_length_together_give_what_each_gives_alone(trained, cell):
    path = latest_checkpoint(trained(cell))
    three = Sampler.from_checkpoint(path, 3)
    settings = {"length": 130, "top_n": 0, "min_p": 0.02, "seed": 5}  # two compiled calls
    written = list(Sampler.from_checkpoint(path).sample_many(PRIMES, 3, **settings))
    alone = [("".join(column), prime) for prime in PRIMES for column in zip(*three.chunks(prime, **settings), strict=True)]
    assert [(each.text, each.prime) for each in written] == alone
    assert [each.sample for each in written] == [1, 2, 3] * len(PRIMES)
    assert {each.seed for each in written} == {5}
    assert len({each.text for each in written}) == len(written)


def test_what_fits_in_memory_changes_no_text(sampler, monkeypatch):
    expected = list(sampler.sample_many(PRIMES, 2, 40, seed=1))
    limit_rows(3, monkeypatch)
    some = list(sampler.sample_many(PRIMES, 2, 40, seed=1))
    assert [each[:4] for each in some] == [each[:4] for each in expected]
    assert [each[4] for each in some] == pytest.approx([each[4] for each in expected], abs=1e-6)


def test_primes_are_read_as_they_are_needed(sampler, monkeypatch):
    limit_rows(4, monkeypatch)
    written = sampler.sample_many(itertools.cycle(PRIMES), 2, 5)
    assert [each.prime for each in itertools.islice(written, 6)] == ["The ", "The ", "", "", "A", "A"]


def test_a_stop_text_across_two_compiled_calls_is_found(sampler):
    (whole,) = sampler.sample_many(["The "], 1, 3 * CHUNK, top_n=0, temperature=1.5, seed=4)
    for place in (CHUNK - 3, CHUNK - 1, 2 * CHUNK - 2):
        stop = whole.text[place : place + 4]
        (stopped,) = sampler.sample_many(["The "], 1, 3 * CHUNK, top_n=0, temperature=1.5, seed=4, stop=stop)
        assert stopped.text == whole.text[: whole.text.index(stop)]


@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_the_score_is_that_of_the_written_text_without_cuts(sampler, temperature):
    for each in sampler.sample_many(["The ", "A"], 1, 120, temperature=temperature, seed=2):
        _, bits = sampler.surprise(each.prime + each.text)
        assert each.nats_per_character == pytest.approx(bits[len(each.prime) :].mean() * math.log(2), abs=1e-5)


@pytest.mark.parametrize("stop", ["e", " t", "é"])
def test_a_text_ends_before_the_stop_text_and_only_its_characters_are_scored(sampler, stop, monkeypatch):
    monkeypatch.setattr("charrnn_tf.inference.batch.CHUNK", 7)
    settings = {"length": 60, "seed": 3, "top_n": 0}
    pairs = zip(*(sampler.sample_many(PRIMES, stop=each, **settings) for each in (None, stop)), strict=True)
    for whole, each in pairs:
        assert each.text == whole.text.partition(stop)[0]
        _, bits = sampler.surprise((each.prime or "\n") + each.text)
        shown = bits[len(each.prime or "\n") :]
        assert each.nats_per_character == pytest.approx(shown.mean() * math.log(2) if len(shown) else 0, abs=1e-5)


def test_a_text_that_stops_at_once_ends_the_work(sampler, monkeypatch):
    limit_rows(2, monkeypatch)
    written = sampler.sample_many(["The "], 1, 2**31 - 1, stop=" ", temperature=0.0)
    assert " " not in next(written).text


def test_bytes_are_decoded_and_stopped_as_text(tmp_path):
    sampler = Sampler.from_checkpoint(write_checkpoint(tmp_path, characters=ByteVocabulary(), init="wide"))
    (whole,), (raw,) = (list(sampler.sample_many(["é"], 1, 300, top_n=0, errors=e)) for e in ("replace", "surrogateescape"))
    assert len(raw.text.encode("utf-8", "surrogateescape")) == 300
    assert whole.text == raw.text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    (stopped,) = sampler.sample_many(["é"], 1, 300, top_n=0, stop=raw.text[100], errors="surrogateescape")
    assert stopped.text == raw.text.partition(raw.text[100])[0]


def test_unknown_characters_name_the_prime(sampler):
    with pytest.raises(TextError, match=r"^prime 2 has characters the model never saw: 'é'"):
        list(sampler.sample_many(["The ", "Thé "], length=5))
    (skipped,) = sampler.sample_many(["Thé "], length=20, unknown="skip")
    assert skipped.prime == "Th "
    assert skipped.text == next(sampler.sample_many(["Th "], length=20)).text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"primes": "The "}, "`primes` must be a list of texts"),
        ({"num_samples": 0}, "`num_samples` must be"),
        ({"length": 0}, "`length` must be"),
        ({"seed": 2**63}, "`seed` must be"),
        ({"min_p": 2.0}, "`min_p` must be"),
        ({"stop": ""}, "`stop` must be"),
    ],
)
def test_settings_out_of_range_are_refused_before_anything_is_read(sampler, settings, message):
    with pytest.raises(ConfigError, match=message):
        sampler.sample_many(**{"primes": ["The "]} | settings)
