"""The main path under odd paths, environments, streams and file systems: the same text everywhere.

train 20 steps, resume to 25, sample, evaluate and export, all in one process, which prints what the commands print.
"""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import processes
import pytest
from commandline import TEXT, TINY

pytestmark = pytest.mark.slow
PATH = """
import contextlib, io, json, sys
{before}
from charrnn_tf.cli.main import cli
folder, text, output = sys.argv[1:]
there = ["--checkpoint-dir", folder]
train = ["train", text, *{tiny!r}, "--precision", "float32", "--save-every", "10", "--quiet"]
said = []
for line in (
    [*train, "--max-steps", "20", *there], ["train", "--resume", "--max-steps", "25", "--quiet", *there],
    ["sample", "--length", "40", "--seed", "1", *there], ["evaluate", text, "--json", *there],
    ["checkpoints", *there], ["export", "--format", "{kind}", "-o", output, *there],
):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="surrogateescape")
    with contextlib.redirect_stdout(stream):
        try:
            cli.main(line, prog_name="charrnn-tf", standalone_mode=False)
        except SystemExit as end:
            assert not end.code, end.code
    stream.flush()
    said.append(stream.buffer.getvalue().decode("utf-8", "surrogateescape"))
with open("said.json", "w", encoding="utf-8") as file:
    json.dump(said, file)
"""
PATHS = ["run[1]*? %s{}", "a\\b'c\"$HOME", "zażółć\nline ", "-dash", "x" * 200]
ENVIRONMENTS = {
    "another backend of Keras": {"KERAS_BACKEND": "jax", "CUDA_VISIBLE_DEVICES": "-1"},
    "no home": {"HOME": None, "XDG_CACHE_HOME": None},
    "a home that does not exist": {"HOME": "/nowhere/at/all", "XDG_CACHE_HOME": "relative"},
    "an ASCII locale": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"},
    "no assertions": {"PYTHONOPTIMIZE": "2", "PYTHONWARNINGS": "error::UserWarning:charrnn_tf"},
    "a dumb terminal": {"TERM": "dumb", "COLUMNS": "20", "FORCE_COLOR": "1", "TF_CPP_MIN_LOG_LEVEL": "0"},
}
FULL = "lambda *given, **named: (_ for _ in ()).throw(OSError(errno.{code}, os.strerror(errno.{code})))"
FILE_SYSTEMS = {
    "folders can't be flushed": (
        "fsync = os.fsync\n"
        "def flush(number):\n"
        "    if stat.S_ISDIR(os.fstat(number).st_mode):\n"
        "        raise OSError(errno.EINVAL, 'Invalid argument')\n"
        "    fsync(number)\n"
        "os.fsync = flush"
    ),
    "no locks": f"import fcntl; fcntl.flock = {FULL.format(code='ENOLCK')}",
    "no links, modes and times": f"os.symlink = os.link = os.chmod = os.fchmod = os.utime = {FULL.format(code='EPERM')}",
    "no memory maps": f"import mmap, numpy; numpy.memmap.__new__ = staticmethod({FULL.format(code='ENODEV')})",
}


def main_path(place, folder="run", *, before="", kind="keras", environment=None, streams="", true=False):
    """Run the main path in `place` -> what the commands print, without paths."""
    place.mkdir(parents=True, exist_ok=True)
    (place / "text.txt").write_text(TEXT, encoding="utf-8")
    code = PATH.format(before=f"import errno, os, stat\n{before}", tiny=tuple(map(str, TINY)), kind=kind)
    output = "model" if kind == "savedmodel" else f"model.{kind}"
    changed = {**os.environ, **(environment or {})}
    how = {"cwd": place, "env": {name: value for name, value in changed.items() if value is not None}}
    arguments = ["-c", code, f"./{folder}" if folder.startswith("-") else folder, "text.txt", output]
    if streams:
        line = ["sh", "-c", f'exec "$@" {streams}', "sh", sys.executable, *arguments]
        done = subprocess.run(line, check=False, **how)
        error = ""
    elif true:
        done = subprocess.run([sys.executable, *arguments], capture_output=True, check=False, **how)
        error = done.stderr.decode(errors="replace")
    else:
        done = processes.run(arguments, capture_output=True, **how)
        error = done.stderr.decode(errors="replace")
    assert done.returncode == 0, error
    assert "Traceback" not in error
    assert (place / output).exists()
    trained, resumed, sample, evaluation, *_ = json.loads((place / "said.json").read_text(encoding="utf-8"))
    assert [Path(line.rstrip("\n")).name for line in (trained, resumed)] == ["i20_l8", "i25_l8"]
    return sample, json.loads(evaluation), error


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """What the main path gives where nothing is odd."""
    sample, evaluation, error = main_path(tmp_path_factory.mktemp("plain"))
    assert error == ""
    return sample, evaluation


ODD = [  # each environment with one of the others
    pytest.param(environment, folder, file_system, id=f"{environment}; {file_system}")
    for environment, folder, file_system in zip(ENVIRONMENTS, itertools.cycle(PATHS), itertools.cycle(FILE_SYSTEMS))
]


@pytest.mark.parametrize(("environment", "folder", "file_system"), ODD)
def test_odd_environments_names_of_folders_and_file_systems(plain, tmp_path, environment, folder, file_system):
    how = {"before": FILE_SYSTEMS[file_system], "environment": ENVIRONMENTS[environment], "true": True}
    assert main_path(tmp_path, folder, **how)[:2] == plain


@pytest.mark.parametrize(
    ("settings", "place", "kind"),
    [({"epsilon": 1}, "run[1]", "web"), ({"floatx": "float16", "backend": "torch"}, "line\nbreak", "savedmodel")],
)
def test_keras_has_settings_of_the_user_and_the_working_directory_an_odd_name(plain, tmp_path, settings, place, kind):
    (tmp_path / "keras.json").write_text(json.dumps(settings))
    *results, error = main_path(tmp_path / place, kind=kind, environment={"KERAS_HOME": str(tmp_path)}, true=True)
    assert tuple(results) == plain
    assert error.count("Warning: charrnn-tf ignores") == 1


@pytest.mark.parametrize("streams", ["<&- 2>&-", ">&-", "2>/dev/full"])
def test_streams_that_are_closed_or_full(plain, tmp_path, streams):
    assert main_path(tmp_path, streams=streams)[:2] == plain
