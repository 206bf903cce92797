"""Help that a reader can scan: every option under a heading, with its default, in lines that fit; and types of options."""

import re
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner
from commandline import call, every_command, succeed

from charrnn_tf.cli.main import cli
from charrnn_tf.cli.options import Grouped, WholeNumber, in_options
from charrnn_tf.errors import warn
from charrnn_tf.settings.schema import GROUPS, SETTINGS, ModelConfig, TrainConfig

COMMANDS = dict(every_command())


def help_of(name, width=80):
    """A command's help in a terminal of that width."""
    return CliRunner().invoke(cli, [*name.split(), "--help"], terminal_width=width).stdout


def options_of(name):
    return [each for each in COMMANDS[name].params if isinstance(each, click.Option)]


def sections(text):
    """{heading: the lines below it, as one line}."""
    found = re.findall(r"^(\w[\w ]*):\n((?:  .*\n|\n(?=  ))+)", text, re.MULTILINE)
    return {heading: " ".join(lines.split()) for heading, lines in found}


def described(name):
    """{option: its names and help, as one line} of a command's help."""
    found = re.findall(r"^  (-.*\n(?: {8}.*\n)*)", help_of(name), re.MULTILINE)
    return {re.search(r"--[\w-]+", record)[0]: " ".join(record.split()) for record in found}


@pytest.mark.parametrize("group", [(), ("corpus",)])
def test_a_group_alone_shows_its_help(group):
    result = call(*group)
    assert isinstance(result.exception, SystemExit | None)
    assert "Commands:" in result.output
    assert "Usage: " in result.output


def test_commands_are_listed_in_the_order_of_use_each_in_a_line():
    lines = help_of("", 80).partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in lines] == list(cli.commands)
    assert list(cli.commands)[:2] == ["train", "sample"]
    assert all(line.endswith(".") and not line.endswith("...") for line in lines)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_every_option_with_its_default(name):
    records = described(name)
    for option in options_of(name):
        record = records.pop(max(option.opts, key=len))
        assert re.search(r"\[(default: .+|required)\]", record), record
    assert list(records) == ["--help"]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_under_a_heading(name):
    groups = sections(help_of(name))
    for option in options_of(name):
        assert option.opts[0] in groups[option.group]
    assert list(groups)[-1] == "Other"
    assert groups["Other"] == "-h, --help Show this message and exit."


def test_the_headings_of_train_are_those_of_the_settings():
    headings = [heading for heading in sections(help_of("train")) if heading not in ("Example", "Other")]
    assert headings == ["Run", *GROUPS]


@pytest.mark.parametrize("width", [80, 110])
@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_the_terminal(name, width):
    for line in help_of(name, width).partition("Other:")[0].splitlines():
        assert len(line) <= width or "charrnn-tf" in line  # an example is one line, to be copied
        assert not line.rstrip().endswith("[default:")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example(name):
    described = succeed(*name.split(), "--help").partition("Example:")[2]
    assert f"charrnn-tf {name}" in described


def test_the_defaults_shown_are_those_that_count():
    records = described("train")
    for name in [name for name, each in SETTINGS.items() if not each.metadata["setting"].default_help]:
        (default,) = (getattr(kind, name) for kind in (ModelConfig, TrainConfig) if hasattr(kind, name))
        assert f"[default: {default}]" in records[f"--{name.replace('_', '-')}"]
    records = described("sample")
    for option, default in [("checkpoint", "latest"), ("checkpoint-dir", "checkpoints"), ("length", 1000), ("top-n", 5)]:
        assert f"[default: {default}]" in records[f"--{option}"]


@pytest.mark.slow
def test_help_and_listing_load_no_tensorflow(home):
    program = (
        "import sys\n"
        "from click.testing import CliRunner\n"
        "from charrnn_tf.cli.main import cli\n"
        "calls = [['--help'], ['--version'], ['checkpoints'], ['train', 'missing']]\n"
        "calls += [[name, '--help'] for name in cli.commands]\n"
        "codes = [CliRunner().invoke(cli, call).exit_code for call in calls]\n"
        "print(codes[:4], set(codes[4:]), {'tensorflow', 'keras', 'rich', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=home, capture_output=True, text=True, check=True)
    assert done.stdout == "[0, 0, 0, 1] {0} set()\n"


@pytest.mark.parametrize(
    ("value", "expected"),
    [("3", 3), ("10", 10), (7, 7), ("1_0", 10), ("٣", 3), (" 5 ", 5), ("epoch", "epoch")],
)
def test_whole_numbers_in_any_spelling_of_pythons(value, expected):
    assert WholeNumber(3, 10, word="epoch").convert(value, None, None) == expected


@pytest.mark.parametrize("value", ["2", "11", "-3", "3.0", "many", "", "Epoch", "9" * 5000])
def test_other_whole_numbers_are_refused_with_the_bounds(value):
    with pytest.raises(click.BadParameter) as error:
        WholeNumber(3, 10, word="epoch").convert(value, None, None)
    assert error.value.message == f"{value!r} is not a whole number of at least 3 and at most 10 or the word epoch"


def test_messages_name_options():
    message = "`hidden_size` must be a whole number; `resume` keeps `x`, but not ` this`"
    assert in_options(message) == "--hidden-size must be a whole number; --resume keeps --x, but not ` this`"


def test_a_warning_names_options_in_a_command_and_arguments_elsewhere(caplog):
    warn.cache_clear()
    CliRunner().invoke(Grouped("x", callback=lambda: warn("try `max_steps`")))
    warn.cache_clear()
    warn("try `max_steps`")
    assert caplog.messages == ["Warning: try --max-steps", "Warning: try `max_steps`"]
