"""Standard streams that are closed: the command works without them, or says which one it needs."""

import subprocess

import processes
import pytest
from commandline import TINY, assert_one_line


def run_with(streams, *arguments):
    """Run a command in its own process, as a shell starts it with `streams`."""
    command = ["sh", "-c", f'exec "$@" {streams}', "sh", *processes.command(*arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("streams", ["2>&-", "<&- >&- 2>&-"])
def test_a_run_without_standard_streams_trains_and_saves(streams, empty):
    done = run_with(streams, "train", "text.txt", *TINY, "--max-steps", 2)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == ("" if ">&- 2" in streams else "checkpoints/i2_l8\n")
    for file in (empty / "checkpoints").rglob("*"):
        assert file.is_dir() or b"step " not in file.read_bytes()  # no message went into it


@pytest.mark.parametrize(
    ("line", "streams", "which"),
    [
        ("sample --length 5", ">&-", "output"), ("evaluate text.txt", ">&-", "output"), ("checkpoints", ">&-", "output"),
        ("corpus list", ">&-", "output"), ("benchmark", ">&-", "output"), ("sample --interactive", "<&-", "input"),
        ("evaluate -", "<&-", "input"), ("train - --checkpoint-dir new", "<&-", "input"),
        ("sample --prime-file -", "<&-", "input"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("reading")
def test_a_closed_stream_that_a_command_needs_is_one_line(line, streams, which):
    done = run_with(streams, *line.split())
    assert_one_line(done.stderr)
    assert f"standard {which} is closed" in done.stderr
    assert (done.returncode, done.stdout) == (1, "")


@pytest.mark.usefixtures("reading")
def test_errors_of_a_command_without_standard_error_are_known_by_its_status():
    assert run_with("2>&-", "sample", "--checkpoint", "i9_l9").returncode == 1
    assert run_with("2>&-", "sample", "--top-n", "many").returncode == 2
