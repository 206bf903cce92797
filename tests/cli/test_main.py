"""The command as a whole: version, exit status, errors as one line, bugs with their traceback, and processes of its own."""

import json
import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path

import processes
import pytest
from commandline import TINY, assert_one_line, call, refuse, start, succeed
from conftest import write_checkpoint

import charrnn_tf
from charrnn_tf.cli.main import main

pytestmark = pytest.mark.usefixtures("one_process")


def test_version():
    assert succeed("--version") == f"charrnn-tf, version {version('charrnn-tf')}\n"


def test_a_package_without_metadata_of_its_own_has_a_version_and_saves(monkeypatch, tmp_path):
    def missing(name):
        raise PackageNotFoundError(name)

    for name in ("version", "distribution"):
        monkeypatch.setattr(f"importlib.metadata.{name}", missing)
    assert succeed("--version") == f"charrnn-tf, version {charrnn_tf.__version__}\n"
    path = write_checkpoint(tmp_path)
    versions = json.loads((path / "config.json").read_text(encoding="utf-8"))["versions"]
    assert versions["charrnn-tf"] == charrnn_tf.__version__
    assert versions["tensorflow"].startswith("2.")


def test_the_console_script_is_this_command():
    (script,) = entry_points(group="console_scripts", name="charrnn-tf")
    assert script.load() is main


@pytest.mark.parametrize(
    "command",
    [
        "nothing",
        "--nothing",
        "train --no-such-option",
        "train text.txt --cell rnn",
        "train text.txt --precision float16",
        "train text.txt --xla",
        "train text.txt --hidden-size 0",
        "train text.txt --hidden-size many",
        "train text.txt --epochs 0",
        "train text.txt --sample-every sometimes",
        "train text.txt --sample-every 0",
        "train text.txt --preset nothing",
        "train text.txt --resume --overwrite",
        "sample --length 0",
        "sample --top-n -1",
        "sample --num-samples 0",
        "sample --seed -1",
        f"sample --seed {2**63}",
        "sample --prime a --interactive",
        "sample --prime a --prime-file text.txt",
        "sample --prime-file text.txt --interactive",
        "sample --primes text.txt --prime a",
        "sample --json --interactive",
        "sample --unknown guess",
        "sample --stop=",
        "sample more",
        "evaluate",
        "evaluate text.txt text.txt",
        "evaluate text.txt --with-newline",
        "evaluate text.txt --lines --window 5",
        "export",
        "export -o model --text text.txt",
        "import old.keras --text text.txt --vocabulary-file old.json",
        "checkpoints more",
    ],
)
def test_wrong_usage_exits_2(empty, command):
    refuse(*command.split(), status=2)


def test_a_damaged_checkpoint_is_refused_by_every_command(copy):
    for data in Path("checkpoints").glob("i*/variables.data*"):
        content = bytearray(data.read_bytes())
        content[100] ^= 1
        data.write_bytes(content)
    for command in ("sample", "evaluate text.txt", "export -o model", "checkpoints", "train --resume"):
        assert "is damaged" in refuse(*command.split())


def broken(*arguments, **settings):
    raise RuntimeError("a bug")


@pytest.mark.parametrize(
    "command", ["train text.txt --checkpoint-dir new", "train --resume", "evaluate text.txt", "sample --seed 1"]
)
def test_a_bug_keeps_its_traceback(reading, monkeypatch, command):
    for place in ("api.launch.load_corpus", "cli.inference.load_corpus", "inference.sampling.Sampler.from_checkpoint"):
        monkeypatch.setattr(f"charrnn_tf.{place}", broken)
    result = call(*command.split())
    assert isinstance(result.exception, RuntimeError)
    assert result.stderr == ""


def test_a_bug_shows_its_traceback_to_the_user():
    program = (
        "import sys, charrnn_tf.cli.inference as c, charrnn_tf.cli.main as m\nc.find_record = lambda *a: 1 / 0\n"
        "sys.argv = ['x', 'sample']\nm.main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback (most recent call last):")
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n")


@pytest.mark.slow
def test_a_process_of_its_own_shows_no_lines_of_tensorflow(empty):
    trained = start("train", "text.txt", *TINY, "--max-steps", 4)
    assert (trained.returncode, trained.stdout) == (0, "checkpoints/i4_l8\n")
    ours = r"Text: |Chosen for |  [\w-]+ |Model: |Device: |Steps: |Checkpoints: |Expected to end |step +\d|\w+ validation: "
    shown = re.sub(r"--- sample at step 4 ---\n(.|\n)*\n---\n", "", trained.stderr)
    assert [line for line in shown.splitlines() if not re.match(ours, line)] == []
    sampled = start("sample", "--length", 20, "--seed", 1)
    assert (sampled.returncode, len(sampled.stdout), sampled.stderr) == (0, 21, "")
    scored = start("evaluate", "text.txt")
    assert (scored.returncode, scored.stdout.count("\n"), scored.stderr) == (0, 1, "")
    exported = start("export", "--output", "model")
    assert (exported.returncode, exported.stdout, exported.stderr) == (0, "model\n", "")


@pytest.mark.parametrize(
    "command",
    [
        "checkpoints",
        pytest.param("sample --length 5 --seed 1", marks=pytest.mark.slow),
        pytest.param("evaluate text.txt", marks=pytest.mark.slow),
    ],
)
@pytest.mark.usefixtures("reading")
def test_a_full_standard_output_is_one_line(command):
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = start(*command.split(), stdout=full)
    assert_one_line(done.stderr)
    assert done.returncode == 1


@pytest.mark.slow
def test_a_full_disk_is_one_line(empty):
    resource = pytest.importorskip("resource")

    def little_room():
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))

    done = start("train", "text.txt", *TINY, "--max-steps", 2, "--quiet", preexec_fn=little_room)
    assert_one_line(done.stderr)
    assert "can't save 'checkpoints/.trial/i0_l8': file too large" in done.stderr  # before the first step
    assert (done.returncode, done.stdout) == (1, "")
    assert [path.name for path in Path("checkpoints").iterdir()] == ["metrics.csv"]


@pytest.mark.slow
def test_a_reader_that_leaves_causes_no_traceback(reading):
    process = processes.Python(
        ["-m", "charrnn_tf", "sample", "--length", 100_000, "--seed", 1], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.read(10)
    process.stdout.close()
    assert b"Traceback" not in process.stderr.read()
    process.stderr.close()
    assert process.wait() != 0


@pytest.mark.slow
def test_interactive_reads_utf8_in_any_locale_and_other_bytes_as_unknown(reading):
    environment = {**os.environ, "PYTHONIOENCODING": "ascii:strict"}
    done = subprocess.run(
        processes.command("sample", "--interactive", "--length", 5, "--seed", 5),
        input=b"\xff\ncaf\xc3\xa9\nThe\n", capture_output=True, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert b"Error: characters the model never saw: " in done.stderr
    assert "'é' (U+00E9)".encode() in done.stderr
    assert done.stdout.startswith(b"The")
