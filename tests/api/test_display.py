"""The display of a run: its lines in 80 columns, in terminals of ASCII, and where samples go."""

import functools
import io
import re
from types import SimpleNamespace

import pytest
from conftest import terminal_on
from rich.console import Console

from charrnn_tf.api import display as module
from charrnn_tf.api.eta import CALLS_TO_BELIEVE, Eta
from charrnn_tf.runs.metrics import Row


@pytest.fixture
def trainer():
    return SimpleNamespace(
        step=250, steps_per_epoch=100, seconds=60.0, total_steps=1000, state=SimpleNamespace(gradient_norm=0.5),
        config=SimpleNamespace(max_seconds=None, batch_size=4, num_steps=25, log_every=50),
    )  # fmt: skip


@pytest.fixture
def display(trainer, monkeypatch):
    """A display in a terminal of 80 columns; `written` is its standard error."""
    errors = io.StringIO()
    terminal_on(errors, monkeypatch)
    monkeypatch.setattr(module, "Console", functools.partial(Console, width=80, height=40, color_system=None))
    made = module.TrainDisplay(trainer, quiet=False)
    made.written = errors
    return made


@pytest.mark.parametrize(
    ("name", "value", "is_terminal"),
    [
        ("FORCE_COLOR", "1", False), ("TTY_COMPATIBLE", "1", False), ("TERM", "dumb", True), ("TERM", "unknown", True),
        ("TERM", "", True), ("CI", "true", True), ("JPY_PARENT_PID", "4711", True),
    ],
)  # fmt: skip
def test_what_does_not_move_its_cursor_gets_plain_lines(name, value, is_terminal, trainer, monkeypatch):
    errors = io.StringIO()
    terminal_on(errors, monkeypatch, is_terminal)
    for variable, its in (("FORCE_COLOR", "1"), (name, value)):  # as Jupyter's kernels have it
        monkeypatch.setenv(variable, its)
    with module.TrainDisplay(trainer, quiet=False) as display:
        feed(display)
        display.sample(250, "the end\n")
    assert "\x1b" not in errors.getvalue()
    words = [line.split()[0] for line in errors.getvalue().splitlines() if line]
    assert words == ["step"] * 4 + ["Expected", "---", "the", "---"]


def test_no_color_leaves_the_display_live_without_colors(trainer, monkeypatch):
    errors = io.StringIO()
    terminal_on(errors, monkeypatch)
    monkeypatch.setenv("NO_COLOR", "1")
    with module.TrainDisplay(trainer, quiet=False) as display:
        feed(display)
    assert "\x1b[" in errors.getvalue()
    assert not re.search(r"\x1b\[[\d;]*[34]\dm|\x1b\[[34]8;", errors.getvalue())


def test_a_process_without_standard_error_trains_in_silence(trainer, monkeypatch):
    monkeypatch.setattr("sys.stderr", None)
    with module.TrainDisplay(trainer, quiet=False) as display:
        feed(display)


def drawn(display, **terminal):
    page = io.StringIO()
    Console(file=page, width=80, force_terminal=True, color_system=None, **terminal).print(display._render())
    return page.getvalue()


def feed(display, losses=(3.0, 2.5, 2.0, 1.9), validation=2.2):
    for n, loss in enumerate(losses):
        last = validation if n == len(losses) - 1 else None
        display.row(Row(50 * (n + 1), 0.5 * (n + 1), 10.0, loss, last, 0.01, 1000.0))
    for _ in range(CALLS_TO_BELIEVE):
        display.progress(250, 1.875, 1000.0)


def test_the_display_shows_epoch_run_time_losses_and_speed_in_80_columns(display):
    feed(display)
    page = drawn(display)
    lines = page.splitlines()
    assert all(len(line.rstrip()) <= 80 for line in lines)
    assert len(lines) == 3
    assert lines[0].startswith("epoch 3 ")
    assert "50%" in lines[0]
    assert lines[1].lstrip().startswith("run ")
    assert lines[1].rstrip().endswith("25% 1 min 15 s left")
    assert lines[2].startswith("loss 1.875 █▄▁▁  validation 2.200  1,000 char/s  step 250")


def test_a_terminal_of_ascii_gets_ascii(display):
    ascii_file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    display._console = Console(file=ascii_file, width=80, force_terminal=True, color_system=None)
    feed(display)
    display.sample(250, "the end\n")
    display._console.print(display._render())
    ascii_file.flush()
    text = ascii_file.buffer.getvalue().decode("ascii")
    assert "loss 1.875  validation" in text
    assert "the end" in text


def test_a_run_is_expected_to_end_by_the_budget_that_ends_first(trainer):
    assert Eta(trainer).expected_seconds(1000.0) == 60 + 750 * 100 / 1000
    trainer.config.max_seconds = 100.0
    assert Eta(trainer).expected_seconds(1000.0) == 100.0
    assert Eta(trainer).expected_seconds(10_000.0) == 60 + 750 * 100 / 10_000


def test_the_loss_does_not_jump_where_a_row_begins(display):
    display._trainer.step, display._trainer.config.log_every = 100, 100
    display.row(Row(100, 1.0, 10.0, 2.0, None, 0.01, 1000.0))
    for step, mean, shown in [(101, 1.0, "1.990"), (150, 1.0, "1.500"), (200, 1.0, "1.000"), (250, 1.0, "1.000")]:
        display._trainer.step = step
        display.progress(step, mean, 1000.0)
        assert f"loss {shown}" in drawn(display)


def test_a_sample_is_printed_when_it_is_made_and_wraps_at_words(display):
    feed(display)
    text = " ".join(["first"] * 30) + "\n\nsecond"
    display.sample(100, text)
    display.row(Row(150, 1.5, 10.0, 2.0, None, 0.01, 1000.0))
    written = display.written.getvalue()
    assert " ".join(written.split()).index("--- sample at step 100 --- first") < " ".join(written.split()).rindex("step 150")
    assert re.search(r"first\n\nsecond\n---\n", re.sub(" +\n", "\n", written))
    assert all(len(line.rstrip()) <= 80 for line in written.splitlines())
    assert not re.search(r"fi$|fir$|firs$", written, re.M)
    assert "first" not in drawn(display)


def test_control_characters_of_a_sample_do_not_reach_the_terminal(display):
    display.sample(1, "a\x1b[2Jb\x07\tc\n[bold]d[/bold]")
    written = display.written.getvalue()
    assert "\x1b[2J" not in written
    assert "a␛[2Jb␇" in written
    assert "[bold]d[/bold]" in written


def test_rows_and_samples_are_also_passed_to_tensorboard(trainer, monkeypatch):
    passed = []
    events = SimpleNamespace(row=lambda *given: passed.append(given), sample=lambda *given: passed.append(given))
    display = module.TrainDisplay(trainer, quiet=True, events=events)
    row = Row(50, 0.5, 10.0, 2.0, None, 0.01, 1000.0)
    display.row(row)
    display.sample(50, "text")
    assert passed == [(row, 0.5), (50, "text")]
