"""Generating texts with tiny models."""

import copy
import functools
import html
import itertools
import math
import pickle
import re

import numpy as np
import pytest
import tensorflow as tf
from conftest import TEXT, write_checkpoint
from gpu import stand_in

from charrnn_tf import ModelConfig, Sampler, Vocabulary, build_model, latest_checkpoint
from charrnn_tf.errors import ConfigError, TextError
from charrnn_tf.inference.cuts import Cuts, choose
from charrnn_tf.inference.evaluation import Evaluator
from charrnn_tf.inference.sampling import read_prime, start_id
from charrnn_tf.network.model import recurrent_layers, zero_state
from charrnn_tf.runs.checkpoint import load_model
from charrnn_tf.settings.schema import CELLS
from charrnn_tf.text.vocabulary import ByteVocabulary


@pytest.fixture(scope="module")
def sampler(trained):
    return Sampler.from_checkpoint(latest_checkpoint(trained("lstm")))


def all_texts(sampler, *arguments, **settings):
    return ["".join(pieces) for pieces in zip(*sampler.chunks(*arguments, **settings), strict=True)]


@functools.cache
def indifferent(batch_size, kind=Vocabulary.printable):
    """A sampler for which all characters are equally likely, so that its texts show the random numbers."""
    vocabulary = kind()
    sampler = Sampler(ModelConfig(len(vocabulary), hidden_size=4), vocabulary, batch_size)
    dense = sampler.model.get_layer("logits")
    dense.set_weights([np.zeros_like(weight) for weight in dense.get_weights()])
    return sampler


def test_a_sample_is_the_prime_and_length_characters(sampler):
    text = sampler.sample("The ", length=57, seed=1)
    assert text.startswith("The ")
    assert len(text) == 4 + 57
    assert set(text) <= set(TEXT)


@pytest.mark.parametrize("chunk", [1, 7, 53, 1000])
def test_a_seed_gives_the_same_text_with_any_chunk_size(sampler, chunk):
    settings = {"top_n": 0, "temperature": 1.2, "seed": 3}
    pieces = [pieces[0] for pieces in sampler.chunks("The ", 53, chunk=chunk, **settings)]
    assert [len(piece) for piece in pieces] == [chunk] * (53 // chunk) + ([53 % chunk] if 53 % chunk else [])
    assert "The " + "".join(pieces) == sampler.sample("The ", 53, **settings)


def test_the_bytes_that_begin_a_character_at_the_end_of_a_text_are_not_lost():
    sampler = indifferent(1, ByteVocabulary)
    texts = [sampler.sample("a", length=20, top_n=0, seed=seed, errors="surrogateescape") for seed in range(20)]
    assert all(len(text.encode("utf-8", "surrogateescape")) == 21 for text in texts)
    for chunk in (1, 5, 20):  # each divides the length
        again = [sampler.sample("a", 20, top_n=0, seed=seed, errors="surrogateescape", chunk=chunk) for seed in range(20)]
        assert again == texts


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_sampling_on_a_gpu_uses_no_operation_of_cudnn(trained, cell, monkeypatch):
    path = latest_checkpoint(trained(cell))

    def texts():
        sampler = Sampler.from_checkpoint(path)
        many = [completion.text for completion in sampler.sample_many(["The ", "A"], 2, length=9, seed=2)]
        return [sampler.sample("The ", length=20, seed=1), *many, sampler.surprise("The old sea")[0]]

    plain = texts()
    stand_in(monkeypatch, cudnn=True)  # no CPU can run those operations
    assert texts() == plain


def test_other_seeds_give_other_texts(sampler):
    assert len({sampler.sample("The ", 50, top_n=0, seed=seed) for seed in (0, 1, 2, 2**40, 2**63 - 1, -1)}) == 6


def test_every_position_and_row_has_its_own_random_number():
    texts = all_texts(indifferent(3), length=200, top_n=0, seed=5)
    assert len({text[place] for text in texts for place in range(200)}) > 90
    assert all(text[:100] != text[100:] for text in texts)
    for one, other in itertools.combinations(texts, 2):
        assert sum(a == b for a, b in zip(one, other, strict=True)) < 20  # 2 of 200 by chance


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [2, 3, 8])
def test_the_random_numbers_of_a_sample_do_not_depend_on_the_batch_size(batch_size):
    settings = {"length": 120, "top_n": 0, "seed": 9}
    few, many = all_texts(indifferent(batch_size), **settings), all_texts(indifferent(9), **settings)
    assert few == many[:batch_size]
    assert few[0] == indifferent(1).sample(**settings)


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_the_text_of_a_sample_does_not_depend_on_the_batch_size(trained, cell):
    path = latest_checkpoint(trained(cell))
    few, many = (all_texts(Sampler.from_checkpoint(path, size), "The ", 60, seed=4) for size in (2, 5))
    assert few == many[:2]
    assert few[0] == "".join(all_texts(Sampler.from_checkpoint(path), "The ", 60, seed=4))
    assert len(set(many)) == 5


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_reading_a_prime_equals_feeding_keras_character_by_character(trained, cell):
    model, record = load_model(latest_checkpoint(trained(cell)))
    ids = record.vocabulary.encode("The old sea").astype(np.int32)[None]
    state = read_prime(model, tf.constant(ids), zero_state(record.model, 1))
    for place in range(ids.shape[1]):
        model(ids[:, place : place + 1])
    for layer, ours in zip(recurrent_layers(model), state, strict=True):
        for theirs, part in zip(layer.states, ours, strict=True):
            assert np.abs(part).max() > 0.01
            np.testing.assert_allclose(part, theirs.numpy(), atol=1e-6)


@pytest.mark.parametrize("cell", CELLS)
def test_padding_on_the_left_of_a_prime_is_skipped(trained, cell):
    model, record = load_model(latest_checkpoint(trained(cell)), 3)
    ids = record.vocabulary.encode("rain").astype(np.int32)
    rows = np.full((3, 6), -1, np.int32)
    rows[0, 2:], rows[1, 3:] = ids, ids[1:]  # the third is all padding
    together = tf.nest.flatten(read_prime(model, tf.constant(rows), zero_state(record.model, 3)))
    for row, alone in enumerate((ids, ids[1:], ids[:0])):
        state = tf.nest.flatten(read_prime(model, tf.constant(alone[None]), zero_state(record.model, 1)))
        for part, whole in zip(state, together, strict=True):
            np.testing.assert_allclose(part[0], whole[row], atol=1e-6)


def test_without_a_prime_a_text_starts_from_a_newline(sampler):
    settings = {"length": 40, "seed": 2, "top_n": 0}
    assert "\n" + sampler.sample(**settings) == sampler.sample("\n", **settings)
    assert sampler.sample(**settings) != sampler.sample("a", **settings)[1:]


def test_without_a_newline_in_the_vocabulary_it_starts_from_the_first_character():
    vocabulary = Vocabulary("zyx")
    assert start_id(vocabulary) == 0
    assert start_id(Vocabulary("zy\nx")) == 2
    sampler = Sampler(ModelConfig(3, hidden_size=4, init="wide"), vocabulary)
    assert "z" + sampler.sample(length=40, top_n=0) == sampler.sample("z", length=40, top_n=0)


def test_unknown_characters_in_the_prime(sampler):
    with pytest.raises(TextError, match=r"'é' \(U\+00E9\)"):
        sampler.sample("Thé ", 5)
    skipped = all_texts(sampler, "éTh漢e ", 30, unknown="skip", seed=1)
    assert skipped == all_texts(sampler, "The ", 30, seed=1)
    assert all_texts(sampler, "漢", 30, unknown="skip", seed=1) == all_texts(sampler, "", 30, seed=1)
    with pytest.raises(ConfigError, match="unknown"):
        sampler.sample("The ", 5, unknown="ignore")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("length", value) for value in (0, -1, "long", 5.0)),
        *(("top_n", value) for value in (-1, 2.5, None)),
        *(("top_p", value) for value in (0.0, -0.1, 1.1, float("nan"), float("inf"))),
        *(("min_p", value) for value in (-0.1, 1.1, float("nan"))),
        *(("temperature", value) for value in (-0.5, float("nan"), float("inf"), "hot")),
        *(("seed", value) for value in (2**63, -(2**63) - 1, "one")),
        *(("chunk", value) for value in (0, -1)),
    ],
)
def test_settings_out_of_range(sampler, name, value):
    with pytest.raises(ConfigError, match=f"`{name}` must be"):
        list(sampler.chunks("The ", **{"length": 5, name: value}))


@pytest.mark.parametrize("settings", [{"top_p": 1e-50}, {"temperature": 1e-50}, {"temperature": 1e39}])
def test_settings_outside_the_range_of_float32(sampler, settings):
    text = sampler.sample("The ", 20, **settings)
    if settings != {"temperature": 1e39}:
        assert text == sampler.sample("The ", 20, temperature=0)


def test_integers_serve_as_floats(sampler):
    assert sampler.sample("The ", 20, top_p=1, temperature=1) == sampler.sample("The ", 20)
    generators = [np.random.default_rng(1) for _ in range(2)]
    whole, _ = sampler.predict("T", top_p=1, temperature=1, generator=generators[0])
    real, _ = sampler.predict("T", top_p=1.0, temperature=1.0, generator=generators[1])
    assert whole == real


# ---- one step


@pytest.mark.parametrize("cell", CELLS)
def test_probabilities_are_those_of_keras(trained, cell):
    path = latest_checkpoint(trained(cell))
    sampler, (model, record) = Sampler.from_checkpoint(path), load_model(path)
    state = None
    for character in "The wind":
        probabilities, state = sampler.probabilities(character, state)
        assert probabilities.sum() == pytest.approx(1, abs=1e-6)
        ids = record.vocabulary.encode(character).astype(np.int32)[None]
        np.testing.assert_allclose(probabilities, model(ids)[0, 0], atol=1e-6)


def test_a_chain_of_single_steps_generates_the_same_text(sampler):
    seed, cuts = 6, Cuts.of(5, 1.0, 0.8)
    character, state, text = "T", None, "T"
    for place in range(40):
        probabilities, state = sampler.probabilities(character, state)
        uniform = tf.random.stateless_uniform([1], tf.constant([seed, place], tf.int64), alg="philox")
        character = sampler.vocabulary.decode(choose(tf.math.log(probabilities[None]), uniform, cuts).numpy())
        text += character
    assert text == sampler.sample("T", 40, top_n=5, temperature=0.8, seed=seed)


def test_predict_at_temperature_zero_generates_the_likeliest_text(sampler):
    character, state, text = "T", None, "T"
    for _ in range(20):
        character, state = sampler.predict(character, state, temperature=0.0)
        text += character
    assert text == sampler.sample("T", 20, temperature=0)


def test_predict_draws_with_its_generator_and_cuts(sampler):
    probabilities, _ = sampler.probabilities("e")
    generator = np.random.default_rng(0)
    drawn = [sampler.predict("e", generator=generator)[0] for _ in range(40)]
    uniform = np.random.default_rng(0).random(40, dtype=np.float32)
    expected = choose(tf.constant(np.tile(np.log(probabilities), (40, 1))), tf.constant(uniform), Cuts.of()).numpy()
    assert "".join(drawn) == sampler.vocabulary.decode(expected)
    assert len(set(drawn)) > 3
    three = set(sampler.vocabulary.decode(np.argsort(-probabilities)[:3]))
    assert {sampler.predict("e", top_n=3)[0] for _ in range(20)} <= three
    assert sampler.predict("e", top_p=1e-6)[0] == sampler.vocabulary.decode([probabilities.argmax()])
    with pytest.raises(ConfigError, match="temperature"):
        sampler.predict("e", temperature=-1.0)


def test_a_single_step_takes_one_known_character_and_batch_1(sampler):
    for characters in ("", "Th"):
        with pytest.raises(ConfigError, match="one character"):
            sampler.probabilities(characters)
    with pytest.raises(TextError, match="never saw"):
        sampler.predict("é")
    with pytest.raises(ConfigError, match="batch_size=1"):
        indifferent(2).predict("a")


@pytest.mark.slow
def test_a_notebook_colours_a_sample_by_surprise(sampler):
    sample = sampler.sample("The old ", length=30, seed=1)
    text = f"{sample}<script>"
    shown_text = type(sample)(text)
    shown_text.sampler = sampler
    page = shown_text._repr_html_()
    shown, bits = sampler.surprise(text)
    spans = re.findall(
        r'<span title="(.*?) bits" style="background-color: rgb\(213 94 0 / (.*?)\)">(.*?)</span>', page, re.DOTALL
    )
    assert [html.unescape(character) for _, _, character in spans] == shown
    assert [float(title) for title, _, _ in spans] == pytest.approx(bits.tolist(), abs=0.006)
    assert [float(opacity) for _, opacity, _ in spans] == pytest.approx(np.minimum(bits / 8, 1) * 0.8, abs=0.001)
    assert bits[0] == 0
    assert "<script" not in page
    for copied in (copy.deepcopy(sample), pickle.loads(pickle.dumps(sample))):
        assert type(copied) is str
        assert copied == sample


def test_a_notebook_shows_the_line_ends_of_windows_as_one():
    sampler = Sampler(ModelConfig(5, hidden_size=4), Vocabulary("ab\r\n "))
    page = sampler.shown("a\r\nb\r\n\r\n")._repr_html_()
    assert page.split("</pre>")[0].count("\n") == 3
    assert "\r" not in page
    assert page.count('bits"') == 8


def test_a_sample_has_the_seed_that_repeats_it(sampler):
    text = sampler.sample("The ", length=20, seed=5)
    assert text.seed == 5
    assert "seed 5" in text._repr_html_()
    assert sampler.sample("The ", length=20, seed=text.seed) == text
    assert sampler.shown("The ").seed is None


@pytest.mark.parametrize("chunk", [1, 7, 100])
def test_a_sample_ends_before_the_stop_text(sampler, chunk):
    whole = sampler.sample("The ", length=100, seed=1)
    stop = whole[40:43]
    end = whole.index(stop, 4)
    assert sampler.sample("The ", length=100, seed=1, stop=stop, chunk=chunk) == whole[:end]
    assert sampler.sample("The ", length=100, seed=1, stop="never there") == whole
    for wrong in ("", 5):
        with pytest.raises(ConfigError, match="`stop` must be a text that is not empty"):
            sampler.sample("The ", stop=wrong)


@pytest.mark.parametrize("prime", [5, ["The ", "A "], None])
def test_a_prime_is_one_text(sampler, prime):
    with pytest.raises(ConfigError, match=r"a prime must be a string, got .*; for several, use `sample_many`"):
        sampler.sample(prime)


def test_surprise_is_compiled_once_for_all_lengths(sampler):
    """Step by step, 4,000 characters of an LSTM 2x512 took 8.6 s instead of 1.0 s."""
    for length in (3, 5, 8):
        sampler.surprise("The old house"[:length])
    assert sampler._losses.experimental_get_tracing_count() == 1


def test_surprise_agrees_with_the_evaluator(sampler):
    text = "The old sea was cold"
    _, bits = sampler.surprise(text)
    nats = Evaluator(sampler.model, sampler.config).evaluate(sampler.vocabulary.encode(text)).nats_per_character
    assert bits[1:].mean() * math.log(2) == pytest.approx(nats, abs=1e-5)


def test_a_sampler_has_the_weights_of_its_checkpoint(tmp_path):
    sampler = Sampler.from_checkpoint(write_checkpoint(tmp_path, characters="\n abc", num_layers=2, init="wide", seed=5))
    assert sampler.model.input_shape == (1, None)
    assert sampler.vocabulary == Vocabulary("\n abc")
    for ours, saved in zip(sampler.model.get_weights(), build_model(sampler.config, 2, seed=5).get_weights(), strict=True):
        np.testing.assert_array_equal(ours, saved)
    assert (sampler.model.get_weights()[0] != build_model(sampler.config, 2).get_weights()[0]).any()
