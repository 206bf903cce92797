"""Pages in a real browser: Chromium, driven by selenium. The fixture `browser` starts it."""

import json
import re
import shutil

import pytest

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


def start(profile):
    """Start Chromium with its profile in a folder; skips the test where it is not installed."""
    if not (BROWSER and DRIVER):
        pytest.skip("needs Debian's chromium and chromium-driver")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    flags = (
        "headless=new", "no-sandbox", "disable-gpu", "no-first-run", "disable-background-networking", "disable-sync",
        "disable-component-update", "window-size=1000,900", f"user-data-dir={profile}",
    )  # fmt: skip
    for flag in flags:
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.set_script_timeout(60)
    return driver


def opened(browser, path):
    """Open a page; returns a function that finds an element by its CSS selector."""
    browser.get_log("performance")
    browser.get(path.as_uri())
    return lambda selector: browser.find_element("css selector", selector)


def assert_quiet(browser, path):
    """The console has no error, and nothing was requested but the page and its inlined images."""
    assert browser.get_log("browser") == []
    asked = []
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            asked.append(message["params"]["request"]["url"])
    assert {url for url in asked if not url.startswith("data:")} <= {path.as_uri()}


def waited(browser):
    """Waits up to 20 seconds: `waited(browser).until(condition)`."""
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, 20)


# Text that would be markup, a script, an attribute, a template or an end of the page's data if it were not kept as text
NASTY = (
    "<script>document.title='hacked'</script> <img src=x onerror=alert(1)> </pre><b>bold</b> &amp; &lt; \"q\" 'a' {{ 7*7 }} "
    "{% raw %} ${x} `b` </script><!-- --> ]]> \\u003c \u202eright\u202c \u200b\u2028\u2029 é ß 日本 👍 \ufeff \x7f \t end.\n"
)


def assert_self_contained(path):
    """A page has one script, no event handlers or styles in attributes, and refers to nothing outside itself."""
    html = path.read_text(encoding="utf-8")
    assert "default-src &#39;none&#39;; img-src data:; script-src &#39;sha256-" in html
    assert html.count("<script>") == 1
    assert not re.search(r"""\s(on\w+|style)=["']""", html)
    assert not re.search(r"""(src|href|srcset)=["'](?!data:)""", html)
