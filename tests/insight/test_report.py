"""The report in a real browser: its content, its use by mouse and keyboard, and that nothing leaves the page."""

import dataclasses
import json
import re

import numpy as np
import pytest
from browser import NASTY, assert_quiet, assert_self_contained, opened, waited
from conftest import make_text, write_checkpoint

from charrnn_tf.insight import report as reports
from charrnn_tf.insight import trace
from charrnn_tf.insight.report import report
from charrnn_tf.runs.metrics import MetricsFile, Row
from charrnn_tf.text.vocabulary import ByteVocabulary, Vocabulary

TEXT = (NASTY * 12 + make_text(2000, seed=3))[:1500]


@pytest.fixture(autouse=True, scope="module")
def short_samples():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reports, "SAMPLED", 40)
        yield


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The report of a small model with two rows of losses."""
    folder = tmp_path_factory.mktemp("run")
    vocabulary = Vocabulary.from_text(TEXT)
    checkpoint = write_checkpoint(folder, characters=vocabulary, hidden_size=12, num_layers=2, init="wide")
    metrics = MetricsFile(folder / "metrics.csv", 0)
    for step, validation in (10, None), (20, 2.5):
        metrics.append(Row(step, 0.5, 1.0, 3.0, validation, 0.01, 1000.0))
    metrics.close()
    path = folder / "report.html"
    path.write_text(report(checkpoint, vocabulary.encode(TEXT), "<i>nasty</i>.txt"), encoding="utf-8")
    return path


@pytest.mark.slow
def test_the_text_is_shown_as_text(browser, page):
    find = opened(browser, page)
    shown = browser.execute_script(
        "return Array.from(document.querySelectorAll('#text span'), (s) => s.textContent).join('')"
    )
    assert shown == TEXT
    assert browser.title.endswith("reads <i>nasty</i>.txt")
    assert not browser.find_elements("css selector", "h1 i, #text b, #text img, pre b")
    assert re.search(r"1,500 characters read once from a zero state, \d\.\d{3} bits per character", find("main").text)
    assert_quiet(browser, page)


@pytest.mark.slow
def test_mouse_and_keys_select_characters_and_what_colours_show(browser, page):
    from selenium.webdriver import ActionChains, Keys

    find = opened(browser, page)
    told = find("#told")
    assert told.text.startswith("Character 1, <: nothing to predict it from.")
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

    def colours():
        return browser.execute_script(
            "return Array.from(document.querySelectorAll('#text span'), (s) => s.style.backgroundColor)"
        )

    surprise = colours()
    assert len(set(surprise)) > 20
    find("#cell").send_keys(Keys.ARROW_DOWN)  # the second clearest, by the keyboard
    assert find("input[value=cell]").is_selected()
    second = colours()
    assert second != surprise
    assert any("0, 114, 178" in colour for colour in second)
    find("input[value=back]").click()
    text.send_keys(*[Keys.ARROW_RIGHT] * 9)
    influence = colours()
    assert sum("rgba(0, 158, 115, 0)" not in colour for colour in influence) <= 9
    assert any(re.match(r"rgba\(0, 158, 115, 0\.85\)", colour) for colour in influence[:9])
    assert all(colour == "rgba(0, 158, 115, 0)" for colour in influence[9:])
    assert re.search(r"Most influence: .+ \(\d back\), .+ \(\d back\), .+ \(\d back\)\.$", told.text)
    assert_quiet(browser, page)


@pytest.mark.slow
def test_it_is_usable_by_keyboard_alone_and_has_its_numbers_as_tables(browser, page):
    from selenium.webdriver import ActionChains, Keys

    find = opened(browser, page)
    focused = []
    for _ in range(5):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        active = browser.switch_to.active_element
        focused.append(active.get_attribute("id") or active.tag_name)
    assert focused == ["summary", "input", "cell", "text", "summary"]
    ActionChains(browser).send_keys(Keys.ENTER).perform()
    # An event after the key press builds the table
    rows = waited(browser).until(lambda _: browser.find_elements("css selector", "#numbers tbody tr"))
    assert len(rows) == 1500
    assert rows[1].text.startswith("2 s ")
    cells = browser.find_elements("css selector", "[aria-label='Correlations of cells'] tbody tr")
    assert len(cells) == 24
    assert all(len(row.find_elements("css selector", "td")) == 7 for row in cells[:3])
    assert find("img").get_attribute("alt")
    losses = browser.find_elements("css selector", "[aria-label='Losses'] tbody tr")
    assert [row.get_property("textContent") for row in losses] == ["103.0000", "203.00002.5000"]
    assert_quiet(browser, page)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_readable_in_light_and_dark(browser, page, scheme):
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    find = opened(browser, page)
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


@pytest.mark.slow
def test_it_is_self_contained(page):
    assert_self_contained(page)


@pytest.mark.slow
def test_a_report_on_5000_characters_has_less_than_3_megabytes(tmp_path, monkeypatch):
    influence = np.random.default_rng(0).random((4999, trace.BACK), np.float32)
    monkeypatch.setattr(trace, "influence", lambda *arguments, **named: influence)
    characters = "".join(map(chr, range(40, 100)))
    checkpoint = write_checkpoint(
        tmp_path, characters=characters, hidden_size=128, num_layers=2
    )  # as many cells as are shown
    ids = np.random.default_rng(0).integers(0, 60, 5000)
    assert 2e6 < len(report(checkpoint, ids, "random").encode()) < 3e6


@pytest.mark.slow
def test_a_byte_model_shows_bytes(tmp_path):
    checkpoint = write_checkpoint(tmp_path, characters=ByteVocabulary())
    html = report(checkpoint, np.frombuffer(("é\x00ab\n" * 3).encode(), np.uint8), "bytes")
    labels = json.loads(re.search(r'id="data" type="application/json">(.*?)</script>', html)[1])["labels"]
    assert (labels[0xC3], labels[0], labels[97], labels[10]) == ("\\xc3", "\\x00", "a", "\n")


@pytest.mark.parametrize(("count", "shown"), [(3, 3), (500, 500), (501, 251), (1999, 500)])
def test_the_table_of_losses_has_a_limit_but_every_validation(count, shown):
    rows = [Row(step, 0.0, 0.0, 1.0, None, 0.1, 1.0) for step in range(count)]
    assert len(reports._some(rows)) == shown
    rows[1] = dataclasses.replace(rows[1], validation_loss=2.0)
    assert rows[1] in reports._some(rows)


def test_mean_influence_at_a_distance_counts_only_characters_with_an_earlier_one_there():
    influence = np.array([[1.0, 0.0, 0.0], [3.0, 2.0, 0.0]], np.float32)  # characters 1 and 2, the nearest first
    assert reports._by_distance(influence).tolist() == [2.0, 2.0, 0.0]
    assert reports._as_bytes(influence).tolist() == [[255, 0, 0], [255, 170, 0]]
