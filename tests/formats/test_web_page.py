"""The report and the model's page in a real browser: what they show, that they are usable, that nothing leaves the page."""

import base64
import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf
from conftest import logits_after, make_text

from charrnn_tf import pages
from charrnn_tf.formats import web_page as web
from charrnn_tf.formats.weights import put, take
from charrnn_tf.insight.report import _some, report
from charrnn_tf.network.model import build_model
from charrnn_tf.runs.checkpoint import load_model
from charrnn_tf.runs.find import latest_checkpoint
from charrnn_tf.runs.metrics import Row
from charrnn_tf.settings.schema import CELLS, ModelConfig, TrainConfig
from charrnn_tf.text.vocabulary import ByteVocabulary, Vocabulary
from charrnn_tf.training.trainer import Trainer

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.slow
needs_browser = pytest.mark.skipif(not (BROWSER and DRIVER), reason="needs Debian's chromium and chromium-driver")

# Text that would be markup, a script, an attribute, a template or an end of the page's data if it were not kept as text
NASTY = (
    "<script>document.title='hacked'</script> <img src=x onerror=alert(1)> </pre><b>bold</b> &amp; &lt; \"q\" 'a' {{ 7*7 }} "
    "{% raw %} ${x} `b` </script><!-- --> ]]> \\u003c \u202eright\u202c \u200b\u2028\u2029 é ß 日本 👍 \ufeff \x7f \t end.\n"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A small run on such text, and its text."""
    text = NASTY * 12 + make_text(2000, seed=3)
    vocabulary = Vocabulary.from_text(text)
    config = ModelConfig(len(vocabulary), hidden_size=12, num_layers=2, dropout=0.0)
    train = TrainConfig(batch_size=4, num_steps=8, max_steps=60, log_every=10, learning_rate=0.02)
    directory = tmp_path_factory.mktemp("nasty")
    list(Trainer(config, train, vocabulary, vocabulary.encode(text), directory).run())
    return latest_checkpoint(directory), vocabulary, text


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    flags = (
        "headless=new", "no-sandbox", "disable-gpu", "no-first-run", "disable-background-networking", "disable-sync",
        "disable-component-update", "window-size=1000,900", f"user-data-dir={tmp_path_factory.mktemp('browser')}",
    )  # fmt: skip
    for flag in flags:
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.set_script_timeout(60)
    yield driver
    driver.quit()


def quiet(browser, path):
    """No error in the console, and no request but for the page itself and what it holds."""
    assert browser.get_log("browser") == []
    asked = []
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            asked.append(message["params"]["request"]["url"])
    assert {url for url in asked if not url.startswith("data:")} <= {path.as_uri()}


def opened(browser, path):
    browser.get_log("performance")
    browser.get(path.as_uri())
    return lambda selector: browser.find_element("css selector", selector)


def waited(browser):
    """What waits, for at most 20 seconds, until something holds of a page."""
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, 20)


# The report


@pytest.fixture(scope="module")
def report_page(run, tmp_path_factory):
    checkpoint, vocabulary, text = run
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(report(checkpoint, vocabulary.encode(text[:1500]), "<i>nasty</i>.txt"), encoding="utf-8")
    return path


@needs_browser
def test_a_report_shows_the_text_as_text(browser, report_page, run):
    find = opened(browser, report_page)
    shown = browser.execute_script(
        "return Array.from(document.querySelectorAll('#text span'), (s) => s.textContent).join('')"
    )
    assert shown == run[2][:1500]
    assert browser.title.endswith("reads <i>nasty</i>.txt")
    assert not browser.find_elements("css selector", "h1 i, #text b, #text img, pre b")
    assert "bits each" in find("main").text
    quiet(browser, report_page)


@needs_browser
def test_hover_keys_and_choices_change_what_a_report_tells(browser, report_page, run):
    from selenium.webdriver import ActionChains, Keys

    find = opened(browser, report_page)
    told = find("#told")
    assert told.text.startswith("Character 1, <: the first, which nothing came before.")
    span = browser.find_elements("css selector", "#text span")[2]
    ActionChains(browser).move_to_element(span).perform()
    assert re.match(
        r"Character 3, c: \d+\.\d\d bits; expected: (\S+ \d+\.\d%, ){4}\S+ \d+\.\d%\. The cell: -?\d\.\d\d\.", told.text
    )
    text = find("#text")
    text.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT)
    assert told.text.startswith("Character 4, r: ")
    text.send_keys(Keys.END)
    assert told.text.startswith("Character 1500, ")
    text.send_keys(Keys.ARROW_UP)
    up = int(re.match(r"Character (\d+)", told.text)[1])
    assert up < 1500
    text.send_keys(Keys.ARROW_DOWN, Keys.HOME)
    assert told.text.startswith("Character 1, ")

    def grounds():
        return browser.execute_script(
            "return Array.from(document.querySelectorAll('#text span'), (s) => s.style.backgroundColor)"
        )

    surprise = grounds()
    assert len(set(surprise)) > 20
    find("#cell").send_keys(Keys.ARROW_DOWN)  # the second clearest, by the keyboard
    assert find("input[value=cell]").is_selected()
    second = grounds()
    assert second != surprise
    assert any("0, 114, 178" in ground for ground in second)
    find("input[value=back]").click()
    text.send_keys(*[Keys.ARROW_RIGHT] * 9)
    back = grounds()
    assert sum("rgba(0, 158, 115, 0)" not in ground for ground in back) <= 9
    assert any(re.match(r"rgba\(0, 158, 115, 0\.85\)", ground) for ground in back[:9])
    assert all(ground == "rgba(0, 158, 115, 0)" for ground in back[9:])
    assert re.search(r"It hung most on .+ \(\d back\), .+ \(\d back\), .+ \(\d back\)\.$", told.text)
    quiet(browser, report_page)


@needs_browser
def test_a_report_is_usable_by_keyboard_alone_and_has_its_numbers_as_tables(browser, report_page):
    from selenium.webdriver import ActionChains, Keys

    find = opened(browser, report_page)
    focused = []
    for _ in range(5):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        active = browser.switch_to.active_element
        focused.append(active.get_attribute("id") or active.tag_name)
    assert focused == ["summary", "input", "cell", "text", "summary"]
    ActionChains(browser).send_keys(Keys.ENTER).perform()
    # The table is made by an event that a browser sends when it comes to it, after the key
    rows = waited(browser).until(lambda _: browser.find_elements("css selector", "#numbers tbody tr"))
    assert len(rows) == 1500
    assert rows[1].text.startswith("2 s ")
    cells = browser.find_elements("css selector", "[aria-label='Correlations of cells'] tbody tr")
    assert len(cells) == 24
    assert all(len(row.find_elements("css selector", "td")) == 7 for row in cells[:3])
    assert find("img").get_attribute("alt")
    quiet(browser, report_page)


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_report_is_readable_in_light_and_dark(browser, report_page, scheme):
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    find = opened(browser, report_page)
    body = find("body")
    ink, ground = (
        sum(map(int, re.findall(r"\d+", body.value_of_css_property(name))[:3])) / 3 for name in ("color", "background-color")
    )
    dark, bright = (ground, ink) if scheme == "dark" else (ink, ground)
    assert dark < 60
    assert bright > 200
    chosen = browser.execute_script("return document.querySelector('picture img').currentSrc")
    selector, name = ("picture source", "srcset") if scheme == "dark" else ("picture img", "src")
    assert chosen == find(selector).get_attribute(name)
    assert browser.execute_script("return document.querySelector('picture img').naturalWidth") > 300
    assert find("#text").is_displayed()
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_nothing_but_our_own_scripts_may_run_in_a_page(report_page):
    html = report_page.read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)[1]
    assert policy.startswith("default-src &#39;none&#39;; img-src data:; script-src &#39;sha256-")
    assert "unsafe" not in policy
    assert html.count("<script>") == 1
    assert not re.search(r"""\s(on\w+|style)=["']""", html)
    assert not re.search(r"""(src|href|srcset)=["'](?!data:)""", html)


@pytest.mark.parametrize(("count", "shown"), [(3, 3), (500, 500), (501, 251), (1999, 500)])
def test_a_table_of_losses_has_no_more_rows_than_it_can_hold_but_every_validation(count, shown):
    rows = [Row(step, 0.0, 0.0, 1.0, None, 0.1, 1.0) for step in range(count)]
    assert len(_some(rows)) == shown
    rows[1] = dataclasses.replace(rows[1], validation_loss=2.0)
    assert rows[1] in _some(rows)


def test_a_page_of_5000_characters_is_under_3_megabytes(tmp_path):
    size = 5000
    config = ModelConfig(60, hidden_size=128, num_layers=2)  # 256 cells: as many as a page shows
    vocabulary = Vocabulary(map(chr, range(40, 100)))
    ids = np.random.default_rng(0).integers(0, 60, size)
    trainer = Trainer(config, TrainConfig(batch_size=2, num_steps=4, max_steps=1), vocabulary, ids, tmp_path / "run")
    list(trainer.run())
    assert len(report(latest_checkpoint(tmp_path / "run"), ids, "random").encode()) < 3e6


def test_a_page_of_two_layers_of_512_is_under_5_or_10_megabytes(tmp_path):
    config = ModelConfig(83, hidden_size=512, num_layers=2)
    vocabulary = Vocabulary(map(chr, range(40, 123)))
    ids = np.random.default_rng(0).integers(0, 83, 100)
    list(Trainer(config, TrainConfig(batch_size=2, num_steps=4, max_steps=1), vocabulary, ids, tmp_path).run())
    small, large = (web.web_page(latest_checkpoint(tmp_path), known) for known in (ids, None))
    assert (small.bits, large.bits) == (8, 16)
    assert len(small.html.encode()) < 5e6
    assert len(large.html.encode()) < 10e6


def test_a_report_of_bytes_shows_them(tmp_path):
    vocabulary = ByteVocabulary()
    data = ("é\x00ab\n" * 40).encode()
    ids = np.frombuffer(data, np.uint8)
    config = ModelConfig(256, hidden_size=8, num_layers=1)
    list(
        Trainer(
            config, TrainConfig(batch_size=2, num_steps=4, max_steps=2, vocabulary="bytes"), vocabulary, ids, tmp_path
        ).run()
    )
    html = report(latest_checkpoint(tmp_path), ids, "bytes")
    labels = json.loads(re.search(r'id="data" type="application/json">(.*?)</script>', html)[1])["labels"]
    assert (labels[0xC3], labels[0], labels[97], labels[10]) == ("\\xc3", "\\x00", "a", "\n")


# The model's page


@pytest.fixture(scope="module")
def web_page(run, tmp_path_factory):
    checkpoint, vocabulary, text = run
    path = tmp_path_factory.mktemp("web") / "model.html"
    page = web.web_page(checkpoint, vocabulary.encode(text[-600:]))
    assert page.cost < web.MOST_COST or page.bits == 16
    path.write_text(page.html, encoding="utf-8")
    return path


@needs_browser
def test_a_page_writes_stops_and_colours_what_is_typed(browser, web_page):
    find = opened(browser, web_page)
    wait = waited(browser)
    prime = find("#prime")
    prime.clear()
    prime.send_keys("<b>The 日\u0416")
    wait.until(lambda _: find("#told").text.startswith("8 characters"))
    expected = r"8 characters, \d+\.\d\d bits each\. The last, 日: \d+\.\d\d\. 1 that the model never saw left out\."
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
    assert len(first) - len("<b>The 日\u0416") in (80, 81, 82, 83)  # characters beyond the plane count as two here
    assert write(length="80", seed="7") == first
    assert write(length="80", seed="8") != first
    cold = write(temperature="0", seed="1")
    assert write(temperature="0", seed="2") == cold
    assert re.fullmatch(r"80 characters in \d+\.\d s, \d+ a second\.", find("#speed").text)
    browser.execute_script("document.getElementById('length').value = '100000000'")
    find("#write").click()
    wait.until(lambda _: len(find("#written").get_property("textContent")) > 300)
    find("#stop").click()  # the page answers while it writes
    wait.until(lambda _: find("#write").is_enabled())
    quiet(browser, web_page)


@needs_browser
@pytest.mark.parametrize("held_out", [True, False])
@pytest.mark.parametrize("embedding", [0, 7])
@pytest.mark.parametrize("cell", CELLS)
def test_a_pages_logits_are_the_models(browser, tmp_path, cell, embedding, held_out):
    vocabulary = Vocabulary("\n abcdefghij")
    config = ModelConfig(len(vocabulary), cell=cell, hidden_size=10, num_layers=2, embedding_size=embedding, init="pytorch")
    ids = np.random.default_rng(0).integers(0, len(vocabulary), 600)
    list(Trainer(config, TrainConfig(batch_size=2, num_steps=4, max_steps=3), vocabulary, ids, tmp_path).run())
    checkpoint = latest_checkpoint(tmp_path)
    page = web.web_page(checkpoint, ids if held_out else None)
    assert page.bits == (8 if held_out else 16)
    path = tmp_path / "model.html"
    path.write_text(page.html, encoding="utf-8")
    opened(browser, path)
    script = """const state = network.zeroState();
    return arguments[0].map((id) => Array.from(network.step(id, state)));"""
    found = np.array(browser.execute_script(script, ids[:500].tolist()))
    model, _ = load_model(checkpoint)
    exact = logits_after(model, config, ids[:500])
    rounding = web.as_int8 if held_out else web.as_float16
    found_weights = take(model, config, vocabulary)
    stored = {name: web.restored(rounding(each)) for name, each in web.weights_of(found_weights).items()}
    rounded = build_model(config, 1)
    put(rounded, web.with_weights(found_weights, stored))
    np.testing.assert_allclose(found, logits_after(rounded, config, ids[:500]), atol=2e-4)
    assert 0 < np.abs(found - exact).max() < (0.1 if held_out else 0.005)


@needs_browser
def test_a_page_of_bytes_writes_text(browser, tmp_path):
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


@needs_browser
def test_a_draw_keeps_to_the_same_cuts_as_the_package(browser, web_page):
    from charrnn_tf.inference.sampling import Cuts, choose

    opened(browser, web_page)
    draw = np.random.default_rng(5)
    for top_n, top_p, temperature in [
        (0, 1.0, 1.0),
        (3, 1.0, 0.7),
        (0, 0.6, 1.0),
        (4, 0.5, 2.0),
        (0, 1.0, 0.0),
        (2, 0.01, 1.0),
    ]:
        logits = np.round(draw.normal(size=8) * 2, 1).astype(np.float32)  # ties may happen
        uniform = draw.random(40, dtype=np.float32) * 0.999
        cuts = {"topN": top_n, "topP": top_p, "temperature": temperature}
        script = "return arguments[1].map((u) => choose(Float32Array.from(arguments[0]), u, arguments[2]))"
        found = browser.execute_script(script, logits.tolist(), uniform.tolist(), cuts)
        expected = choose(tf.tile(logits[None], (40, 1)), tf.constant(uniform), Cuts.of(top_n, top_p, temperature))
        assert found == expected.numpy().tolist()


def test_weights_are_stored_as_what_computes_says():
    matrix = np.random.default_rng(0).normal(size=(5, 300)).astype(np.float32)
    matrix[2] = 0
    stored = web.as_int8(matrix)
    assert stored["numbers"].dtype == np.int8
    error = np.abs(web.restored(stored) - matrix)
    assert (error <= np.abs(matrix).max(axis=1, keepdims=True) / 254 * 1.001).all()
    np.testing.assert_allclose(web.restored(web.as_float16(matrix)), matrix, rtol=1e-3, atol=1e-6)
    assert base64.b64decode(pages.packed(np.array([1, 256], np.uint16))) == b"\x01\x00\x00\x01"


@pytest.mark.parametrize("init", ["keras", "wide"])
@pytest.mark.parametrize(("cell", "embedding"), [("lstm", 0), ("gru", 6)])
def test_weights_go_into_a_page_and_back(cell, embedding, init):
    config = ModelConfig(8, cell=cell, hidden_size=4, num_layers=2, embedding_size=embedding, init=init)
    first, second = build_model(config, 1, seed=1), build_model(config, 1, seed=2)
    found = take(first, config, Vocabulary("abcdefgh"))
    put(second, web.with_weights(found, web.weights_of(found)))
    for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
