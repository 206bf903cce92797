"""Wrong input of every kind, for every option: the cases are generated from the commands, so new options are covered too.

A case either succeeds, if its input is valid after all, or ends with exit status 1 or 2, one line that names the option, the
value or the file, and no traceback; then it leaves nothing behind.
"""

import functools
import os
import re
import shutil
import signal
import subprocess
from contextlib import contextmanager
from pathlib import Path

import click
import processes
import pytest
from click.testing import CliRunner
from commandline import every_command
from conftest import make_text

from charrnn_tf.cli.main import cli
from charrnn_tf.cli.options import WholeNumber

pytestmark = pytest.mark.usefixtures("one_process")

TEXT = make_text(3000, seed=2)
TINY = (
    "--hidden-size", "4", "--num-layers", "1", "--batch-size", "2", "--num-steps", "4", "--max-steps", "2", "--dropout", "0",
    "--weight-dropout", "0",
)  # fmt: skip
# Validation and samples take two thirds of a run's compilation: they are off, except for options that concern them.
WITHOUT = ("--quiet", "--validation-fraction", "0")
ABOUT_WITHOUT = ("--sample-", "--valid", "--patience", "--max-steps", "--epochs")
ENDS_SOON = ("--learning-rate", "1e-30", "--patience", "1", "--validate-every", "9")  # at the second validation
NOT_COMPUTED = ("Run", "Text", "Samples and display")  # groups of options of `train` that do not change its steps
UNREACHABLE = "http://127.0.0.1:9/anna.txt"
# Quick commands that work (except `corpus fetch` and `serve`, which fail at once). The tried option is appended: the last
# one counts.
BASE = {
    "train": ["train", "text.txt", *TINY, *WITHOUT],
    "sample": ["sample", "--checkpoint-dir", "run", "--length", "3", "--seed", "1"],
    "evaluate": ["evaluate", "text.txt", "--checkpoint-dir", "run"],
    "export": ["export", "--checkpoint-dir", "run", "--output", "model"],
    "import": ["import", "old.keras", "--vocabulary-file", "old.vocabulary.json", "--checkpoint-dir", "imported"],
    "report": ["report", "--checkpoint-dir", "run", "--text", "text.txt", "--limit-chars", "20", "--output", "page.html"],
    "plot": ["plot", "run", "--output", "loss.png"],
    "checkpoints": ["checkpoints", "--checkpoint-dir", "run"],
    "corpus list": ["corpus", "list"],
    "serve": ["serve", "--checkpoint-dir", "run", "--host", UNREACHABLE],
    "corpus fetch": ["corpus", "fetch", "anna", "--url", UNREACHABLE],
}
SLOW = {"benchmark"}  # takes minutes

TEXTS = (
    "", " ", "\n", "\t", "x" * 5000, "\x1b[31mred\x1b[0m", "\x00", "\udcff", "ä\u0301☃😀", "-", "--", "../..", "/",
    "/dev/null",
)  # fmt: skip
TEXTS_AS_PATHS = [text for text in TEXTS if text not in ("/", "../..")]  # root could start a run there
NUMBERS = (
    "", "one", "-1", "0", "1.5", "1e3", "nan", "inf", "-inf", "0x10", "9" * 30, "-" + "9" * 30, str(2**31), "\x1b1",
)  # fmt: skip
SPELLINGS = ("1_0", "٣")  # of whole numbers that are accepted; tried with the first option of each type
REALS = (
    "", "one", "-1", "-0.0", "nan", "inf", "-inf", "1e400", "-1e400", "1e300", "1e-320", "9" * 400, "1,5", "\x00",
)  # fmt: skip
FILES = (
    "missing", "empty", "one", "nul", "latin", "utf16", "utf16be", "bom", "line", "binary", "surrogate", "folder", "loop",
    "pipe", "zero", "null", "new\nline", "café", "bad\udcff", "deep/" * 60 + "file", "d" * 300, "checkpoint",
)  # fmt: skip


def is_whole(parameter):
    return isinstance(parameter.type, WholeNumber)


def kinds(parameter, first):
    """Values to try with an option, by its type. first: of this type in its command; paths are then tried with texts too."""
    kind = parameter.type
    if isinstance(parameter, click.Option) and parameter.is_flag:
        return []
    if is_whole(parameter):
        return NUMBERS
    if isinstance(kind, click.types.FloatParamType):
        return REALS
    if isinstance(kind, click.Choice):
        return ["", kind.choices[0].upper(), kind.choices[0] + " ", "other", "x" * 5000, "\x1b[2J", "\udcff"]
    return [*(TEXTS_AS_PATHS if first else ()), *FILES] if isinstance(kind, click.Path) else TEXTS


def cases():
    """(command line, names of which its error must contain one, group of the option) for every option and value."""
    for name, command in every_command():
        assert name in {*BASE, *SLOW}, f"give {name} a base command above"
        base = BASE.get(name, [name])
        place = len(name.split())  # of the command's argument
        first_of_type = {parameter.type.name: parameter for parameter in reversed(command.params)}.values()
        for parameter in command.params:
            if not isinstance(parameter, click.Option):
                continue
            flag = parameter.opts[0]
            line = [*base[: -len(WITHOUT)], *ENDS_SOON] if flag.startswith(ABOUT_WITHOUT) else base
            if parameter.is_flag:
                yield [*line, f"{flag}=yes"], [flag], parameter.group
                continue
            if name not in SLOW:
                yield [*line, flag], [flag], parameter.group  # without its value
            first = parameter in first_of_type
            for value in (*kinds(parameter, first), *(SPELLINGS if first and is_whole(parameter) else ())):
                yield [*line, f"{flag}={value}"], [flag, value, UNREACHABLE], parameter.group
        for argument in command.params:
            if isinstance(argument, click.Argument) and name not in SLOW:
                for value in FILES if isinstance(argument.type, click.Path) else TEXTS:
                    yield [*base[:place], value, *base[place + 1 :]], [value], "Text"
        yield [*base, "--no-such-option"], ["--no-such-option"], ""


CASES = [case for case in cases() if case[0][0] not in SLOW or len(case[0]) > 1]
PASSABLE = [line for line, _, _ in CASES if "\0" not in "".join(line)]  # to a process


def _short(line):
    return re.sub(r"[^ -~]", "?", f"{line[0]} {' '.join(line[1:])[-50:]}")


CONTENTS = {
    "text.txt": TEXT.encode(), "empty": b"", "one": b"a", "nul": b"a\0b" * 500, "latin": b"caf\xe9 " * 500,
    "utf16": TEXT.encode("utf-16"), "utf16be": b"\xfe\xff" + TEXT.encode("utf-16-be"),
    "bom": b"\xef\xbb\xbf" + TEXT.encode(),
    "line": b"the cat and the dog " * 100_000, "binary": bytes(range(256)) * 20, "surrogate": b"a\xed\xa0\x80b" * 300,
    "new\nline": TEXT.encode(), "café": TEXT.encode(), os.fsencode("bad\udcff"): TEXT.encode(),
    "checkpoint": b'model_checkpoint_path: "../../etc/passwd"\n',
}  # fmt: skip


def make_files(folder):
    """Create the files of CONTENTS and other odd ones that FILES names."""
    for name, content in CONTENTS.items():
        (folder / os.fsdecode(name)).write_bytes(content)
    (folder / "folder").mkdir()
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "pipe")
    (folder / "zero").symlink_to("/dev/zero")
    (folder / "null").symlink_to("/dev/null")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with all odd files, a run and a Keras model."""
    folder = tmp_path_factory.mktemp("home")
    make_files(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TF_NUM_INTRAOP_THREADS", "1")
        patch.setenv("TF_NUM_INTEROP_THREADS", "1")
        patch.chdir(folder)
        for line in (
            [*BASE["train"], "--checkpoint-dir", "run"],
            [*BASE["export"][:-1], "old.keras", "--format", "keras"],
        ):
            result = CliRunner().invoke(cli, line)
            assert result.exit_code == 0, result.stderr
    return folder


def there(folder):
    """Every path below a folder, with its mode, size and time of modification."""
    return {
        path: (path.lstat().st_mode, path.lstat().st_size, path.lstat().st_mtime_ns if path.is_file() else 0)
        for path in Path(folder).rglob("*")
        if path.name != ".lock"
    }


def restore(home, before):
    """Remove the files that a command has written, and restore the ones that it replaced."""
    after = there(home)
    for path in sorted(set(after) - set(before), reverse=True):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name, content in CONTENTS.items():
        path = home / os.fsdecode(name)
        if after.get(path) != before[path]:
            path.write_bytes(content)


@contextmanager
def time_limit(seconds):
    def late(number, frame):
        raise AssertionError(f"still going on after {seconds} seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def shown(text):
    """Forms in which an error may show a name: escaped, or shortened."""
    return {text, repr(text)[1:-1], text.encode("utf-8", "backslashreplace").decode(), text[:100] or "''"}


@pytest.fixture(scope="module")
def once():
    """`Sampler.from_checkpoint` and `report`, which compile and compute the same thing once for all cases."""
    from charrnn_tf.inference.sampling import Sampler
    from charrnn_tf.insight import report as module

    report, pages = module.report, {}

    def report_once(checkpoint, ids, title, *, seed, progress):
        key = checkpoint, ids.tobytes(), title, seed, module.TEMPERATURES
        if key not in pages:
            pages[key] = report(checkpoint, ids, title, seed=seed, progress=progress)
        return pages[key]

    return functools.cache(Sampler.from_checkpoint), report_once


@pytest.mark.parametrize(
    ("line", "names", "group"),
    [pytest.param(*case, id=_short(case[0]), marks=pytest.mark.slow if n % 40 else ()) for n, case in enumerate(CASES)],
)
def test_every_option_with_every_kind_of_value(home, once, monkeypatch, request, line, names, group):
    monkeypatch.chdir(home)
    monkeypatch.setattr("charrnn_tf.inference.sampling.Sampler.from_checkpoint", once[0])
    monkeypatch.setattr("charrnn_tf.insight.report.report", once[1])
    if line[0] == "train" and group in NOT_COMPUTED:
        request.getfixturevalue("instant")
    if line[0] == "report" and not any(part.startswith("--seed") for part in line):
        monkeypatch.setattr("charrnn_tf.insight.report.TEMPERATURES", ())  # most of its time; only --seed concerns them
    before = there(home)
    with time_limit(60):
        result = CliRunner().invoke(cli, line, input="")
    assert result.exception is None or isinstance(result.exception, SystemExit), line
    assert result.exit_code in (0, 1, 2)
    if result.exit_code == 0:
        restore(home, before)
        return
    assert re.fullmatch(r"Error: [^\n\x00-\x08\x0b-\x1f\x7f]+\n", result.stderr), result.stderr
    assert "Traceback" not in result.stderr
    words = {name.lstrip("-") for name in names} | {name.lstrip("-").replace("-", "_") for name in names}
    assert any(form in result.stderr for word in words for form in shown(word)), (names, result.stderr)
    assert there(home) == before


def test_there_are_many_cases():
    assert len(CASES) >= 500


@pytest.mark.slow
@pytest.mark.parametrize("line", PASSABLE[:: len(CASES) // 8], ids=_short)
def test_a_process_of_its_own_shows_the_same(home, line):
    """A user sees that line, and none of TensorFlow's."""
    before = there(home)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    process = subprocess.run(
        processes.command(*line), cwd=home, env=environment, stdin=subprocess.DEVNULL,
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert process.returncode in (0, 1, 2)
    if process.returncode == 0:
        restore(home, before)
        return
    assert re.fullmatch(rb"Error: [^\n]+\n", process.stderr), process.stderr
    assert process.stdout == b""
    assert there(home) == before
