"""Pages in a real browser: Chromium, driven by selenium. The fixture `browser` starts it."""

import json
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
