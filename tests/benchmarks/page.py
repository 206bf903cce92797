"""Measures a model's web page in headless Chromium: a table of docs/performance.md.

    python tests/benchmarks/page.py MODEL.html [--characters 2000] [--append FILE]

MODEL.html is written by `charrnn-tf export --format web`. The page generates a text three times with its settings. Prints
the median speed, the time to load the page, and the longest task that blocked the page. Needs Debian's chromium and
chromium-driver, and selenium.
"""

import argparse
import re
import shutil
import statistics
from pathlib import Path

from run import append
from selenium import webdriver

WRITE = """const [characters, done] = arguments;
const longest = { task: 0 };
new PerformanceObserver((list) => {
  for (const { duration } of list.getEntries()) longest.task = Math.max(longest.task, duration);
}).observe({ type: "longtask" });
document.getElementById("length").value = characters;
write().then(() => setTimeout(() => done([document.getElementById("speed").textContent, longest.task]), 100));"""


def main() -> None:
    """Measure one page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("--characters", type=int, default=2000)
    parser.add_argument("--append")
    asked = parser.parse_args()
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or "chromium"
    for flag in ("headless=new", "no-sandbox", "disable-gpu"):
        options.add_argument(f"--{flag}")
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        driver.set_script_timeout(600)
        speeds, tasks = [], []
        for _ in range(3):
            driver.get(asked.page.resolve().as_uri())
            shown, longest = driver.execute_async_script(WRITE, asked.characters)
            speeds.append(int(re.search(r"(\d+) per second", shown)[1]))
            tasks.append(longest)
        loading = driver.execute_script("return performance.getEntriesByType('navigation')[0].duration")
    finally:
        driver.quit()
    append(
        {
            "row": "page", "characters_per_second": statistics.median(speeds), "longest_task_ms": max(tasks),
            "loading_ms": loading, "megabytes": asked.page.stat().st_size / 1e6,
        },
        asked.append,
    )  # fmt: skip


if __name__ == "__main__":
    main()
