"""A model's page in a real browser: it generates and scores text with the model's rounded weights."""

import re

import numpy as np
import pytest
import tensorflow as tf
from browser import NASTY, assert_quiet, assert_self_contained, opened, waited
from conftest import forward, write_checkpoint

from charrnn_tf.formats import web_page as web
from charrnn_tf.formats.weights import plain
from charrnn_tf.network.model import build_model, zero_state
from charrnn_tf.runs.checkpoint import load_model
from charrnn_tf.runs.find import latest_checkpoint
from charrnn_tf.settings.schema import CELLS, ModelConfig, TrainConfig
from charrnn_tf.text.vocabulary import ByteVocabulary, Vocabulary
from charrnn_tf.training.trainer import Trainer


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of a small model that knows the characters of NASTY."""
    folder = tmp_path_factory.mktemp("web")
    vocabulary = Vocabulary.from_text(NASTY + "The ")
    made = web.web_page(write_checkpoint(folder, characters=vocabulary, init="wide"), vocabulary.encode(NASTY))
    assert made.added < web.MOST_ADDED or made.bits == 16
    assert made.characters == len(NASTY)
    path = folder / "model.html"
    path.write_text(made.html, encoding="utf-8")
    return path


@pytest.mark.slow
def test_a_page_generates_stops_and_colours_typed_text(browser, page):
    find = opened(browser, page)
    wait = waited(browser)
    prime = find("#prime")
    prime.clear()
    prime.send_keys("<b>The 日\u0416")
    wait.until(lambda _: find("#told").text.startswith("8 characters"))
    expected = r"8 characters, \d+\.\d\d bits per character\. Last, 日: \d+\.\d\d bits\. 1 skipped: not in the vocabulary\."
    assert re.fullmatch(expected, find("#told").text)
    spans = browser.find_elements("css selector", "#typed span")
    assert "".join(span.get_property("textContent") for span in spans) == "<b>The 日"
    assert not browser.find_elements("css selector", "#typed b, #written b")

    def write(**settings):
        for name, value in settings.items():
            browser.execute_script("document.getElementById(arguments[0]).value = arguments[1]", name, value)
        find("#write").click()
        wait.until(lambda _: find("#write").is_enabled())
        return find("#written").get_property("textContent")

    first = write(length="80", seed="7")
    assert first.startswith("<b>The 日\u0416")
    assert len(first) - len("<b>The 日\u0416") in (80, 81, 82, 83)  # JavaScript counts a character beyond the BMP as two
    assert write(length="80", seed="7") == first
    assert write(length="80", seed="8") != first
    cold = write(temperature="0", seed="1")
    assert write(temperature="0", seed="2") == cold
    assert re.fullmatch(r"80 characters in \d+\.\d s, \d+ per second\.", find("#speed").text)
    browser.execute_script("document.getElementById('length').value = '100000000'")
    find("#write").click()
    wait.until(lambda _: len(find("#written").get_property("textContent")) > 300)
    find("#stop").click()  # the page responds while it generates
    wait.until(lambda _: find("#write").is_enabled())
    assert_quiet(browser, page)


@pytest.mark.slow
def test_a_page_is_self_contained(page):
    assert_self_contained(page)


@pytest.mark.slow
@pytest.mark.parametrize("embedding", [0, 7])
@pytest.mark.parametrize("cell", CELLS)
def test_a_pages_logits_are_those_of_the_rounded_model(browser, tmp_path, cell, embedding):
    checkpoint = write_checkpoint(
        tmp_path,
        characters="\n abcdefghij",
        cell=cell,
        hidden_size=10,
        num_layers=2,
        embedding_size=embedding,
        init="pytorch",
        lines=bool(embedding),
    )
    model, record = load_model(checkpoint)
    read = tf.function(lambda ids: forward(model, ids, zero_state(record.model, 1))[0], autograph=False)
    ids = np.random.default_rng(0).integers(0, len(record.vocabulary), 500)
    given = tf.constant(ids[None], tf.int32)
    exact, weights = read(given).numpy(), plain(model, record.model, record.vocabulary)
    for held_out, rounding, bits, most in (ids, web.as_int8, 8, 0.1), (None, web.as_float16, 16, 0.005):
        page = web.web_page(checkpoint, held_out)
        assert page.bits == bits
        path = tmp_path / f"{bits}.html"
        path.write_text(page.html, encoding="utf-8")
        opened(browser, path)
        script = """const state = network.zeroState();
        return arguments[0].map((id) => Array.from(network.step(id, state)));"""
        logits = np.array(browser.execute_script(script, ids.tolist()))
        rounded = {name: web.restored(rounding(each)) for name, each in web.weights_of(weights).items()}
        model.set_weights(web.with_weights(weights, rounded).arrays())
        np.testing.assert_allclose(logits, read(given), atol=2e-4)
        assert 0 < np.abs(logits - exact).max() < most


@pytest.mark.slow
def test_a_page_of_a_byte_model_writes_whole_characters(browser, tmp_path):
    ids = np.frombuffer(("naïve café\n" * 60).encode(), np.uint8)
    config = ModelConfig(256, hidden_size=24, num_layers=1, dropout=0.0)
    train = TrainConfig(batch_size=4, num_steps=10, max_steps=300, learning_rate=0.02, clip_norm=1.0, vocabulary="bytes")
    list(Trainer(config, train, ByteVocabulary(), ids, tmp_path / "run").run())
    path = tmp_path / "model.html"
    path.write_text(web.web_page(latest_checkpoint(tmp_path / "run"), ids).html, encoding="utf-8")
    find = opened(browser, path)
    script = """document.getElementById("prime").value = "naï"; document.getElementById("length").value = "40";
    write().then(() => arguments[0](document.getElementById("written").textContent));"""
    assert "café\nnaïve" in browser.execute_async_script(script)
    assert find("#told").text.startswith("4 characters")


@pytest.mark.slow
def test_a_page_draws_with_the_same_cuts_as_the_package(browser, page):
    from charrnn_tf.inference.cuts import Cuts, choose

    opened(browser, page)
    draw = np.random.default_rng(5)
    for top_n, top_p, temperature in [
        (0, 1.0, 1.0), (3, 1.0, 0.7), (0, 0.6, 1.0), (4, 0.5, 2.0), (0, 1.0, 0.0), (2, 0.01, 1.0),
    ]:  # fmt: skip
        logits = np.round(draw.normal(size=8) * 2, 1).astype(np.float32)  # some are equal
        uniform = draw.random(40, dtype=np.float32) * 0.999
        cuts = {"topN": top_n, "topP": top_p, "temperature": temperature}
        script = "return arguments[1].map((u) => choose(Float32Array.from(arguments[0]), u, arguments[2]))"
        found = browser.execute_script(script, logits.tolist(), uniform.tolist(), cuts)
        expected = choose(tf.tile(logits[None], (40, 1)), tf.constant(uniform), Cuts.of(top_n, top_p, temperature))
        assert found == expected.numpy().tolist()


@pytest.mark.slow
def test_a_page_of_two_layers_of_512_has_less_than_5_or_10_megabytes(tmp_path):
    checkpoint = write_checkpoint(tmp_path, characters="".join(map(chr, range(40, 123))), hidden_size=512, num_layers=2)
    ids = np.random.default_rng(0).integers(0, 83, 100)
    small, large = (web.web_page(checkpoint, known) for known in (ids, None))
    assert (small.bits, large.bits) == (8, 16)
    assert len(small.html.encode()) < 5e6
    assert len(large.html.encode()) < 10e6


def test_rounding_keeps_within_half_a_step():
    matrix = np.random.default_rng(0).normal(size=(5, 300)).astype(np.float32)
    matrix[2] = 0
    stored = web.as_int8(matrix)
    assert stored["numbers"].dtype == np.int8
    error = np.abs(web.restored(stored) - matrix)
    assert (error <= np.abs(matrix).max(axis=1, keepdims=True) / 254 * 1.001).all()
    np.testing.assert_allclose(web.restored(web.as_float16(matrix)), matrix, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("init", ["keras", "wide"])
@pytest.mark.parametrize(("cell", "embedding"), [("lstm", 0), ("gru", 6)])
def test_weights_go_into_a_page_and_back(cell, embedding, init):
    config = ModelConfig(8, cell=cell, hidden_size=4, num_layers=2, embedding_size=embedding, init=init)
    first, second = build_model(config, 1, seed=1), build_model(config, 1, seed=2)
    found = plain(first, config, Vocabulary("abcdefgh"))
    assert found.config() == ModelConfig(8, cell=cell, hidden_size=4, num_layers=2, embedding_size=embedding, dropout=0.0)
    second.set_weights(web.with_weights(found, web.weights_of(found)).arrays())
    for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
