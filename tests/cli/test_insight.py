"""`charrnn-tf report` and `charrnn-tf plot`."""

from pathlib import Path

import pytest
from commandline import refuse, succeed

pytestmark = pytest.mark.usefixtures("one_process")


@pytest.mark.slow
def test_report_writes_a_page_and_prints_its_path(copy):
    arguments = ("--text", "text.txt", "--limit-chars", 40, "--seed", 1)
    assert succeed("report", "--checkpoint", "best", *arguments, "--output", "page.html") == "page.html\n"
    assert Path("page.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


@pytest.mark.parametrize("name", ["loss.png", "loss.svg"])
def test_plot_draws_runs_and_prints_the_path(copy, name):
    chosen = ("--against", "characters", "--smoothing", 0, "--output", name)
    assert succeed("plot", "checkpoints", "checkpoints", *chosen) == f"{name}\n"
    assert Path(name).stat().st_size > 1000


def test_plot_writes_loss_png_by_default(copy):
    assert succeed("plot", "checkpoints") == "loss.png\n"
    assert Path("loss.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("report --text text.txt -o page.html", "no checkpoints in 'checkpoints'"),
        ("report --checkpoint-dir RUN --text missing.txt -o page.html", "can't read 'missing.txt'"),
        ("report --checkpoint-dir RUN --text snow.txt -o page.html", "'☃' (U+2603)"),
        ("report --checkpoint-dir RUN --text one.txt -o page.html", "fewer than two characters"),
        ("report --checkpoint-dir RUN --text text.txt --limit-chars 9 -o missing/a.html", "can't write 'missing/a.html'"),
        ("plot missing", "missing"),
        ("plot folder", "folder"),
        ("plot RUN --output loss.bmp", "loss.bmp"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing_behind(odd_files, home, command, message):
    assert message in refuse(*command.replace("RUN", str(home / "checkpoints")).split())
