"""Input of every wrong kind, made by rule from the command's own tree, so that later commands are covered too.

Each case either does what it says, where the input is valid after all, or ends in exit status 1 or 2 with one line that
names the option, the value or the file, without a traceback, leaving nothing behind.
"""

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
# Without these a run compiles a third of what it does with them; options that are about them are tried with them.
WITHOUT = ("--quiet", "--validation-fraction", "0")
ABOUT_WITHOUT = ("--sample-", "--valid", "--patience", "--max-steps", "--epochs")
UNREACHABLE = "http://127.0.0.1:9/anna.txt"
# A command that works and is quick (one that would fetch: fails at once); what is tried comes after it, and the last of an
# option given twice counts.
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
    "corpus fetch": ["corpus", "fetch", "anna", "--url", UNREACHABLE],
}
SLOW = {"benchmark"}  # minutes, whatever it is given

TEXTS = (
    "", " ", "\n", "\t", "x" * 5000, "\x1b[31mred\x1b[0m", "\x00", "\udcff", "ä\u0301☃😀", "-", "--", "../..", "/",
    "/dev/null",
)  # fmt: skip
TEXTS_AS_PATHS = [text for text in TEXTS if text not in ("/", "../..")]  # as root a run could begin there
NUMBERS = (
    "", "one", "-1", "0", "1.5", "1e3", "nan", "inf", "-inf", "0x10", "9" * 30, "-" + "9" * 30, str(2**31), "\x1b1",
)  # fmt: skip
SPELLINGS = ("1_0", "٣")  # of whole numbers, which click takes: tried with the first option of each type
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
    """Values of every kind that an option of this type may be given; of paths, texts too where it is a command's first."""
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
    """(command line, what its error must name one of) of every option of every command, with every kind of value."""
    for name, command in every_command():
        assert name in {*BASE, *SLOW}, f"give {name} a base command above"
        base = BASE.get(name, [name])
        place = len(name.split())  # of the command's argument
        first_of_type = {parameter.type.name: parameter for parameter in reversed(command.params)}.values()
        for parameter in command.params:
            if not isinstance(parameter, click.Option):
                continue
            flag = parameter.opts[0]
            line = base[: -len(WITHOUT)] if flag.startswith(ABOUT_WITHOUT) else base
            if parameter.is_flag:
                yield [*line, f"{flag}=yes"], [flag]
                continue
            if name not in SLOW:
                yield [*line, flag], [flag]  # no value at all
            first = parameter in first_of_type
            for value in (*kinds(parameter, first), *(SPELLINGS if first and is_whole(parameter) else ())):
                yield [*line, f"{flag}={value}"], [flag, value, UNREACHABLE]
        for argument in command.params:
            if isinstance(argument, click.Argument) and name not in SLOW:
                for value in FILES if isinstance(argument.type, click.Path) else TEXTS:
                    yield [*base[:place], value, *base[place + 1 :]], [value]
        yield [*base, "--no-such-option"], ["--no-such-option"]


CASES = [(line, names) for line, names in cases() if line[0] not in SLOW or len(line) > 1]


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
    """One file of every odd kind that a name above stands for."""
    for name, content in CONTENTS.items():
        (folder / os.fsdecode(name)).write_bytes(content)
    (folder / "folder").mkdir()
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "pipe")
    (folder / "zero").symlink_to("/dev/zero")
    (folder / "null").symlink_to("/dev/null")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with every odd file, and a run."""
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
    """Every path below a folder, with what would show that it was changed."""
    return {
        path: (path.lstat().st_mode, path.lstat().st_size, path.lstat().st_mtime_ns if path.is_file() else 0)
        for path in Path(folder).rglob("*")
        if path.name != ".lock"
    }


def restore(home, before):
    """Remove what a command that worked has written, and give files that it wrote over their contents again."""
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
    """A name as an error may show it: escaped, or cut short."""
    return {text, repr(text)[1:-1], text.encode("utf-8", "backslashreplace").decode(), text[:100] or "''"}


@pytest.mark.parametrize(
    ("line", "names"),
    [pytest.param(*case, id=_short(case[0]), marks=pytest.mark.slow if n % 40 else ()) for n, case in enumerate(CASES)],
)
def test_every_option_with_every_kind_of_value(home, monkeypatch, line, names):
    monkeypatch.chdir(home)
    if line[0] == "report" and not any(part.startswith("--seed") for part in line):
        from charrnn_tf.insight import report

        monkeypatch.setattr(report, "TEMPERATURES", ())  # samples take most of the time, and no other option changes them
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
@pytest.mark.parametrize("line", [line for line, _ in CASES][:: len(CASES) // 25], ids=_short)
def test_a_process_of_its_own_says_the_same(home, line):
    """What a user sees: where it is an error, that line and nothing of TensorFlow's."""
    if any("\0" in part for part in line):
        return  # no process can be given that
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
