"""The command `charrnn-tf`: what each command prints and where, and every mistake as one line that says what to do."""

import json
import math
import os
import random
import re
import shutil
import subprocess
import sys
from importlib.metadata import entry_points, version
from pathlib import Path

import click
import processes
import pytest
from click.testing import CliRunner

from charrnn_tf.api import launch
from charrnn_tf.cli.main import cli, main
from charrnn_tf.cli.output import _Stopping
from charrnn_tf.runs.find import find, list_checkpoints, read_run
from charrnn_tf.runs.metrics import read_rows
from charrnn_tf.runs.record import read_record
from charrnn_tf.settings.presets import PRESETS
from charrnn_tf.settings.schema import MODEL_OPTIONS, RESUMABLE, SETTINGS, TRAIN_OPTIONS, ModelConfig, TrainConfig
from charrnn_tf.text.corpus import Source, TextRecord

WORDS = "the a cat dog house river runs sleeps over under quickly slowly and then by night"
draw = random.Random(1)
TEXT = "The " + "".join(draw.choice(WORDS.split()) + draw.choice(["  ", ".\n", " ", " "]) for _ in range(1000))
pytestmark = pytest.mark.usefixtures("one_process")

SMALL = ("--batch-size", 2, "--num-steps", 4, "--log-every", 2)
TINY = ("--hidden-size", 8, "--num-layers", 1, "--dropout", 0, *SMALL)
SAVED = (  # of the run that tests share
    "--validate-every", 2, "--save-every", 4, "--seed", 3, "--learning-rate", 0.002, "--precision", "float32",
)  # fmt: skip


def call(*arguments, stdin=None):
    """A command in this process."""
    return CliRunner().invoke(cli, [str(argument) for argument in arguments], input=stdin)


def succeed(*arguments, stdin=None):
    """A command that must exit 0 -> what it printed."""
    result = call(*arguments, stdin=stdin)
    assert result.exit_code == 0, (result.stderr, result.exception)
    return result.stdout


def start(*arguments, **settings):
    """A command in a process of its own, as a user has it: nothing set for TensorFlow."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **settings}
    return subprocess.run(processes.command(*arguments), env=environment, check=False, **pipes)


def assert_one_line(stderr):
    assert re.fullmatch(r"Error: [^\n]+\n", stderr), stderr


def snapshot(folder="."):
    """Everything in a folder: names and contents."""
    return {path: path.is_file() and path.read_bytes() for path in Path(folder).rglob("*")}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with text.txt and the run `checkpoints`, which tests only read."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "text.txt").write_text(TEXT, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TF_NUM_INTRAOP_THREADS", "1")
        patch.setenv("TF_NUM_INTEROP_THREADS", "1")
        patch.chdir(folder)
        succeed("train", "text.txt", *TINY, "--max-steps", 8, *SAVED)
    return folder


@pytest.fixture
def reading(home, monkeypatch):
    """In the folder of the run, for commands that write nothing."""
    monkeypatch.chdir(home)
    before = snapshot()
    yield home
    assert snapshot() == before


@pytest.fixture
def copy(home, tmp_path, monkeypatch):
    """In a copy of that folder."""
    shutil.copytree(home, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """In a folder that holds text.txt only."""
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


# Help


@pytest.mark.parametrize("group", [(), ("corpus",)])
def test_a_command_without_its_argument_shows_the_help(group):
    result = call(*group)
    assert isinstance(result.exception, SystemExit | None)
    assert "Commands:" in result.output
    assert "Usage: " in result.output


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_help_shows_every_option_with_its_default(name):
    shown = succeed(name, "--help")
    options = [each for each in cli.commands[name].params if isinstance(each, click.Option) and each.name != "help"]
    described = " ".join(shown.partition("Options:")[2].split())
    for option in options:
        text = re.search(rf"{option.opts[-1] if len(option.opts[0]) == 2 else option.opts[0]}\b.*?(?= --|$)", described)
        assert text, option.opts
        assert re.search(r"\[.*(default: .+|required).*\]", text[0]), text[0]


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_help_has_an_example(name):
    assert f"charrnn-tf {name}" in succeed(name, "--help").partition("Example:")[2]


def test_the_defaults_shown_are_those_that_count():
    shown = " ".join(succeed("train", "--help").partition("Options:")[2].split())
    for name in [name for name, each in SETTINGS.items() if not each.metadata["unset"]]:
        (default,) = (getattr(kind, name) for kind in (ModelConfig, TrainConfig) if hasattr(kind, name))
        own = shown.partition(f"--{name.replace('_', '-')} ")[2].partition(" --")[0]
        assert re.search(rf"\[default: \(?{re.escape(str(default))}\b", own), own
    shown = " ".join(succeed("sample", "--help").split())
    for option, default in [("checkpoint", "latest"), ("checkpoint-dir", "checkpoints"), ("length", 1000), ("top-n", 5)]:
        assert re.search(rf"--{option} [^[]*\[default: {default}\b", shown), option


@pytest.mark.slow
def test_help_and_listing_load_no_tensorflow(home):
    program = (
        "import sys\n"
        "from click.testing import CliRunner\n"
        "from charrnn_tf.cli.main import cli\n"
        "calls = [['--help'], ['--version'], ['checkpoints'], ['train', 'missing']]\n"
        "calls += [[name, '--help'] for name in cli.commands]\n"
        "codes = [CliRunner().invoke(cli, call).exit_code for call in calls]\n"
        "print(codes[:4], set(codes[4:]), {'tensorflow', 'keras', 'rich'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=home, capture_output=True, text=True, check=True)
    assert done.stdout == "[0, 0, 0, 1] {0} set()\n"


def test_version():
    assert succeed("--version") == f"charrnn-tf, version {version('charrnn-tf')}\n"


def test_the_console_script_is_this_command():
    (script,) = entry_points(group="console_scripts", name="charrnn-tf")
    assert script.load() is main


# train


@pytest.mark.slow
def test_of_a_long_held_out_part_train_says_how_much_is_read(empty, monkeypatch):
    monkeypatch.setattr("charrnn_tf.training.trainer.VALIDATION_LIMIT", 10)
    result = call("train", "text.txt", *TINY, "--max-steps", 1)
    assert f"the last {int(len(TEXT) * 0.1):,} are for validation, which reads 10 of them.\n" in result.stderr


@pytest.mark.slow
def test_train_prints_the_last_checkpoint_and_shows_progress_on_standard_error(empty):
    result = call("train", "text.txt", *TINY, "--max-steps", 6)
    assert (result.exit_code, result.stdout) == (0, "checkpoints/i6_l8\n")
    held_out = int(len(TEXT) * 0.1)
    assert (
        f"Text: {len(TEXT):,} characters, {len(set(TEXT))} in the vocabulary; the last {held_out:,} are for validation.\n"
    ) in result.stderr
    for word in ("Model: ", "Device: ", "Steps: ", "6 in all", "Checkpoints: ", "MB", "Expected to end after"):
        assert word in result.stderr
    assert re.findall(r"^step +(\d+)  epoch .*  loss \d\.\d{4}", result.stderr, re.M) == ["2", "4", "6"]
    assert re.search(r"^step +6 .* validation \d\.\d{4} ", result.stderr, re.M)
    assert [row.step for row in read_rows("checkpoints/metrics.csv")] == [2, 4, 6]


@pytest.mark.slow
def test_train_quiet_shows_nothing(empty):
    result = call("train", "text.txt", *TINY, "--max-steps", 2, "--quiet", "--sample-every", 1)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "checkpoints/i2_l8\n", "")


@pytest.mark.slow
def test_train_without_a_text_takes_the_built_in_one(empty):
    assert succeed("train", *TINY, "--max-steps", 1, "--checkpoint-dir", "run") == "run/i1_l8\n"
    record = read_record("run/i1_l8")
    assert record.text.sources == ()
    assert record.text.characters > 200_000


def test_train_without_a_budget_says_which_one_it_takes(empty, monkeypatch):
    monkeypatch.setattr("charrnn_tf.training.trainer.Trainer.run", lambda self, display: iter(()))
    result = call("train", "text.txt", *TINY)
    assert result.exit_code == 0
    assert "Budget: 1 min 0 s, by the text's length. Change it with --epochs, --max-steps or --max-seconds." in result.stderr


@pytest.mark.slow
def test_train_reads_several_texts_and_standard_input(empty):
    Path("more.txt").write_text("no newline at its end", encoding="utf-8")
    succeed("train", "more.txt", "text.txt", *TINY, "--max-steps", 1, "--checkpoint-dir", "files")
    joined = "no newline at its end\n" + TEXT
    succeed("train", "-", *TINY, "--max-steps", 1, "--checkpoint-dir", "stdin", stdin=joined)
    files, stdin = (read_record(find("latest", folder)) for folder in ("files", "stdin"))
    assert files.text.sha256 == stdin.text.sha256
    assert [source.path for source in files.text.sources] == [str(empty / "more.txt"), str(empty / "text.txt")]
    assert [source.path for source in stdin.text.sources] == ["-"]


@pytest.mark.slow
def test_train_shows_samples(empty):
    arguments = (
        "--max-steps",
        2,
        "--sample-every",
        2,
        "--sample-prime",
        "The ",
        "--sample-prime",
        "cat",
        "--sample-length",
        7,
    )
    result = call("train", "text.txt", *TINY, *arguments)
    assert re.findall(r"--- sample at step 2 ---\n(The |cat)(?:.|\n){7}\n---\n", result.stderr) == ["The ", "cat"]


@pytest.mark.slow
def test_train_ends_with_a_sample_and_with_the_last_and_the_best_validation(empty, monkeypatch):
    losses = iter([2.0, 1.5, 3.0])
    monkeypatch.setattr("charrnn_tf.training.trainer.Trainer._validate", lambda self, pace: next(losses))
    result = call("train", "text.txt", *TINY, "--max-steps", 6, "--validate-every", 2)
    assert re.search(
        r"--- sample at step 6 ---\nThe (?:.|\n){200}\n---\n"
        r"Last validation: 3\.0000 nats a character \(4\.3281 bits\)\.\n"
        r"Best validation: 1\.5000 nats a character \(2\.1640 bits\), in i4_l8\.\n$",
        result.stderr,
    )


@pytest.mark.slow
def test_train_says_that_it_ended_early(empty, monkeypatch):
    monkeypatch.setattr("charrnn_tf.training.trainer.Trainer._validate", lambda self, pace: float(self.step))
    result = call("train", "text.txt", *TINY, "--max-steps", 60, "--validate-every", 2, "--patience", 3)
    assert result.stdout == "checkpoints/i8_l8\n"
    assert "Ended early: 3 validations in a row were no better than the best.\n" in result.stderr
    assert "in i2_l8." in result.stderr
    assert "Ended early" not in call("train", "text.txt", *TINY, "--max-steps", 6, "--overwrite").stderr


@pytest.mark.slow
def test_without_validation_none_is_concluded(empty):
    result = call("train", "text.txt", *TINY, "--max-steps", 2, "--validation-fraction", 0)
    assert result.exit_code == 0
    assert "validation:" not in result.stderr
    assert result.stdout == "checkpoints/i2_l8\n"


@pytest.mark.slow
def test_train_options_reach_the_settings(empty):
    given = {
        "cell": "gru", "hidden_size": 6, "num_layers": 2, "dropout": 0.25, "embedding_size": 3, "init": "tf1",
        "vocabulary": "corpus", "min_count": 2, "unknown": "skip", "separator": "-", "limit_chars": 500, "batch_size": 3,
        "num_steps": 5, "epochs": 7,
        "max_steps": 2, "max_seconds": 1e6, "optimizer": "sgd", "learning_rate": 0.5, "warmup_steps": 7, "schedule": "step",
        "step_epochs": 3, "gamma": 0.5, "clip_norm": 1.5, "weight_dropout": 0.1, "state_reset": 0.5,
        "validation_fraction": 0.2, "seed": 9, "precision": "bfloat16", "strategy": "mirrored", "save_every": 11, "keep": 3,
        "log_every": 12, "validate_every": 13, "patience": 4, "sample_every": "epoch", "sample_prime": ("x",),
        "sample_length": 14, "sample_top_n": 2, "sample_temperature": 0.5,
    }  # fmt: skip
    assert given.keys() == SETTINGS.keys()
    flags = [part for name, value in given.items() for part in ("--" + name.replace("_", "-"), value)]
    succeed("train", "text.txt", *[flag[0] if isinstance(flag, tuple) else flag for flag in flags])
    record = read_record("checkpoints/i2_l6")
    for name, value in given.items():
        assert getattr(record.model if hasattr(record.model, name) else record.train, name) == value, name
    assert len(record.vocabulary) == record.model.vocab_size


@pytest.mark.slow
def test_a_second_run_into_the_folder_is_refused_and_overwrite_replaces_it(copy):
    before = snapshot()
    refused = call("train", "text.txt", *TINY, "--max-steps", 2)
    assert refused.exit_code == 1
    assert_one_line(refused.stderr)
    assert "holds a run already" in refused.stderr
    assert snapshot() == before
    Path("checkpoints/mine.txt").write_text("mine", encoding="utf-8")
    assert succeed("train", "text.txt", *TINY, "--max-steps", 2, "--overwrite") == "checkpoints/i2_l8\n"
    assert [path.name for path in list_checkpoints("checkpoints")] == ["i2_l8"]
    assert Path("checkpoints/mine.txt").exists()


def test_overwrite_with_a_text_that_cannot_be_read_leaves_the_run(copy):
    before = snapshot()
    assert call("train", "missing.txt", "--overwrite").exit_code == 1
    assert call("train", "text.txt", "--overwrite", "--batch-size", 5000).exit_code == 1
    assert snapshot() == before


# Presets and settings files


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
def test_presets_train(empty, preset):
    text = Path("long.txt")
    text.write_text("I " + TEXT * 8, encoding="utf-8")
    shrunk = () if preset == "sherlock" else ("--hidden-size", 8)
    printed = succeed("train", text, "--preset", preset, "--max-steps", 3, *shrunk)
    record = read_record(printed.strip())
    saved = {**vars(record.model), **vars(record.train)}
    expected = {**PRESETS[preset], **({"hidden_size": 8} if shrunk else {}), "max_steps": 3, "epochs": None}
    assert {name: saved[name] for name in expected} == expected
    assert read_rows("checkpoints/metrics.csv")[-1].step == 3


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["notebook", "tf-tutorial"])
def test_large_presets_train_as_they_are(empty, preset):
    Path("long.txt").write_text(TEXT * 8, encoding="utf-8")
    printed = succeed("train", "long.txt", "--preset", preset, "--max-steps", 3)
    assert printed == f"checkpoints/i3_l{PRESETS[preset]['hidden_size']}\n"
    rows = read_rows("checkpoints/metrics.csv")
    assert rows[-1].train_loss < math.log(len(set(TEXT))) + 1


@pytest.mark.slow
def test_flags_win_over_the_file_and_the_file_over_the_preset(empty):
    Path("run.toml").write_text('preset = "notebook"\nhidden_size = 7\nnum_steps = 5\nbatch_size = 3\nepochs = 2\n')
    succeed("train", "text.txt", "--config", "run.toml", "--batch-size", 2, "--max-steps", 1)
    record = read_record("checkpoints/i1_l7")
    assert (record.model.num_layers, record.model.init, record.model.dropout) == (2, "wide", 0.5)  # the preset's
    assert (record.model.hidden_size, record.train.num_steps) == (7, 5)  # the file's
    assert (record.train.batch_size, record.train.max_steps, record.train.epochs) == (2, 1, None)  # the flags'


@pytest.mark.slow
def test_a_preset_on_the_command_line_wins_over_the_files(empty):
    Path("run.toml").write_text('preset = "notebook"\nhidden_size = 7\nmax_steps = 1\n')
    succeed("train", "text.txt", "--config", "run.toml", "--preset", "notebook-tf1")
    assert read_record("checkpoints/i1_l7").model.init == "tf1"


@pytest.mark.slow
def test_a_file_takes_every_setting_by_its_options_name(empty):
    settings = {
        "cell": "gru", "hidden_size": 5, "num_layers": 2, "dropout": 0.1, "embedding_size": 3, "init": "keras",
        "vocabulary": "printable", "min_count": 1, "unknown": "skip", "separator": "\n", "limit_chars": 300, "batch_size": 2,
        "num_steps": 4, "epochs": 9,
        "max_steps": 1, "max_seconds": 1e6, "optimizer": "rmsprop", "learning_rate": 0.1, "warmup_steps": 2,
        "schedule": "step", "step_epochs": 2, "gamma": 0.5, "clip_norm": 0, "weight_dropout": 0.2, "state_reset": 0.5,
        "validation_fraction": 0, "seed": 4, "precision": "bfloat16", "strategy": "mirrored", "save_every": 3,
        "keep": 2, "log_every": 3, "validate_every": 4, "patience": 0,
        "sample_every": "epoch", "sample_prime": ["x"], "sample_length": 5, "sample_top_n": 0, "sample_temperature": 0,
    }  # fmt: skip
    assert settings.keys() == SETTINGS.keys()
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]  # as TOML has these
    Path("run.toml").write_text("\n".join(lines), encoding="utf-8")
    succeed("train", "text.txt", "--config", "run.toml")
    train = read_record("checkpoints/i1_l5").train
    assert (train.optimizer, train.sample_every, train.sample_prime) == ("rmsprop", "epoch", ("x",))
    assert train.precision == "bfloat16"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("hidden_sise = 8", "'hidden_sise', which there is not; did you mean 'hidden_size'?"),
        ("zzz = 8", "'zzz', which there is not; they are: batch_size, cell,"),
        ("shards = 2", "'shards', which there is not"),
        ("xla = true", "'xla', which there is not"),
        ("hidden_size 8", "can't read the settings in 'run.toml': Expected '='"),
        ('hidden_size = "8"', "hidden_size must be a whole number"),
        ("hidden_size = true", "hidden_size must be a whole number"),
        ("dropout = 1", "dropout must be a number at least 0 and below 1, got 1"),
        ("learning_rate = nan", "learning_rate must be a number above 0 and at most 1e+06, got nan"),
        ('cell = "rnn"', "cell must be one of lstm, gru, got 'rnn'"),
        ("cell = []", "cell must be one of lstm, gru, got []"),
        ('precision = "float16"', "precision must be one of float32, bfloat16, got 'float16'"),
        ('sample_prime = "The"', "sample_prime must be a list of texts"),
        ("sample_prime = [1]", "sample_prime must be a list of texts"),
        ("sample_prime = 5", "sample_prime must be a list of texts"),
        ('preset = "zzz"', "preset must be one of default, notebook,"),
        ('preset = ["notebook"]', "preset must be one of default, notebook,"),
        ("[train]\nseed = 1", "'train', which there is not"),
        ("seed = -1", "seed must be a whole number of at least 0"),
        (f"seed = {2**63}", "seed must be"),
    ],
)
def test_a_wrong_settings_file_is_told_in_a_line(empty, content, message):
    Path("run.toml").write_text(content, encoding="utf-8")
    result = call("train", "text.txt", "--config", "run.toml", "--max-steps", 1)
    assert_one_line(result.stderr)
    assert message in result.stderr
    assert (result.exit_code, result.stdout) == (1, "")
    assert not Path("checkpoints").exists()


# Going on with a run


@pytest.mark.slow
def test_resume_takes_all_saved_settings_and_the_saved_text(copy):
    assert succeed("train", "--resume", "--max-steps", 10) == "checkpoints/i10_l8\n"
    before, after = (read_record(f"checkpoints/{name}") for name in ("i8_l8", "i10_l8"))
    assert after.model == before.model
    assert vars(after.train) == {**vars(before.train), "max_steps": 10}
    assert after.text == before.text
    assert [row.step for row in read_rows("checkpoints/metrics.csv")] == [2, 4, 6, 8, 10]


@pytest.mark.slow
def test_resume_accepts_saved_options_repeated(copy):
    Path("run.toml").write_text("dropout = 0\nseed = 3\n", encoding="utf-8")
    repeated = (*SAVED, "--cell", "lstm")
    assert succeed("train", "text.txt", *TINY, *repeated, "--config", "run.toml", "--resume", "--max-steps", 9) == (
        "checkpoints/i9_l8\n"
    )


@pytest.mark.slow
def test_resume_accepts_the_preset_repeated(empty):
    arguments = ("--preset", "notebook-tf1", "--hidden-size", 8, "--batch-size", 2)
    succeed("train", "text.txt", *arguments, "--max-steps", 2)
    assert succeed("train", "text.txt", *arguments, "--max-steps", 3, "--resume") == "checkpoints/i3_l8\n"


@pytest.mark.slow
def test_a_budget_among_the_flags_replaces_the_file_s_on_resume(copy):
    Path("run.toml").write_text("epochs = 50\n", encoding="utf-8")
    assert succeed("train", "--resume", "--config", "run.toml", "--max-steps", 9) == "checkpoints/i9_l8\n"
    train = read_record("checkpoints/i9_l8").train
    assert (train.max_steps, train.epochs, train.max_seconds) == (9, None, None)


@pytest.mark.slow
def test_resume_may_change_budgets_and_reporting(copy):
    given = {
        "max_steps": 9, "log_every": 3, "save_every": 2, "keep": 1, "sample_every": 9, "sample_prime": "cat",
        "sample_length": 3, "sample_top_n": 1, "sample_temperature": 0.5, "epochs": 50, "max_seconds": 1e6, "patience": 7,
        "strategy": "mirrored",
    }  # fmt: skip
    assert given.keys() == RESUMABLE
    flags = [part for name, value in given.items() for part in ("--" + name.replace("_", "-"), value)]
    result = call("train", "--resume", *flags)
    assert result.stdout == "checkpoints/i9_l8\n"
    assert "--- sample at step 9 ---\ncat" in result.stderr
    train = read_record("checkpoints/i9_l8").train
    assert {name: getattr(train, name) for name in given} == {**given, "sample_prime": ("cat",)}


@pytest.mark.slow
def test_a_budget_on_resume_replaces_the_saved_one(empty):
    succeed("train", "text.txt", *TINY, "--max-steps", 3, "--limit-chars", 100)
    succeed("train", "--resume", "--epochs", 1)
    record = read_record(find("latest", "checkpoints"))
    assert (record.train.epochs, record.train.max_steps, record.epoch) == (1, None, 1.0)


CHANGES = {
    "cell": "gru", "hidden_size": 16, "num_layers": 2, "dropout": 0.5, "embedding_size": 4, "init": "tf1",
    "vocabulary": "printable", "min_count": 2, "unknown": "skip", "separator": "-", "limit_chars": 100, "batch_size": 4,
    "num_steps": 8, "optimizer": "sgd",
    "learning_rate": 0.5, "warmup_steps": 3, "schedule": "step", "step_epochs": 5, "gamma": 0.5, "clip_norm": 1.0,
    "state_reset": 0.5, "weight_dropout": 0.5, "validation_fraction": 0.2, "seed": 4, "precision": "bfloat16",
    "validate_every": 3,
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.usefixtures("copy")
def test_resume_refuses_a_changed_setting_by_name(name):
    option = "--" + name.replace("_", "-")
    result = call("train", "text.txt", "--resume", option, CHANGES[name], "--max-steps", 20)
    assert_one_line(result.stderr)
    assert result.stderr.startswith(
        f"Error: {option} {CHANGES[name]} can't change on --resume: the run in 'checkpoints' has "
    )
    assert (result.exit_code, result.stdout) == (1, "")


def test_what_follows_from_the_machine_has_no_option():
    assert {*MODEL_OPTIONS, *TRAIN_OPTIONS} - SETTINGS.keys() == {"shards", "xla"}


def test_all_settings_are_either_changeable_or_refused():
    assert CHANGES.keys() | RESUMABLE == SETTINGS.keys()
    assert not CHANGES.keys() & RESUMABLE


@pytest.mark.slow
def test_resume_with_the_budget_spent_prints_the_path(copy):
    before = snapshot()
    assert succeed("train", "--resume") == "checkpoints/i8_l8\n"
    result = call("train", "text.txt", *TINY, "--resume", "--max-steps", 5)
    assert (result.exit_code, result.stdout) == (0, "checkpoints/i8_l8\n")
    assert "All steps of this run are done. To go on, give a larger --max-steps or --epochs.\n" in result.stderr
    assert snapshot() == before


@pytest.mark.usefixtures("reading")
def test_a_runs_folder_means_its_latest_checkpoint():
    texts = {succeed("sample", "--checkpoint", which, "--length", 9, "--seed", 1) for which in ("latest", "./checkpoints")}
    assert len(texts) == 1


@pytest.mark.usefixtures("copy")
def test_a_folder_in_use_is_told_before_the_text_is_read():
    assert "'checkpoints' holds a run already" in call("train", "missing.txt").stderr


@pytest.mark.usefixtures("copy")
def test_resume_checks_options_before_the_budget():
    result = call("train", "--resume", "--max-steps", 5, "--hidden-size", 9)
    assert result.exit_code == 1
    assert "--hidden-size 9 can't change" in result.stderr


@pytest.mark.slow
def test_resume_refuses_another_text(empty):
    succeed("train", "text.txt", *TINY, "--max-steps", 2)
    for text in (TEXT + "the cat", TEXT.replace("cat", "act")):
        Path("text.txt").write_text(text, encoding="utf-8")
        result = call("train", "--resume", "--max-steps", 9)
        assert_one_line(result.stderr)
        assert "the text is not the one this run learns from" in result.stderr
        assert result.exit_code == 1
    Path("moved.txt").write_text(TEXT, encoding="utf-8")
    Path("text.txt").unlink()
    missing = call("train", "--resume", "--max-steps", 9)
    assert_one_line(missing.stderr)
    assert "text.txt': no such file or directory" in missing.stderr
    assert succeed("train", "moved.txt", "--resume", "--max-steps", 9) == "checkpoints/i9_l8\n"


@pytest.mark.slow
def test_a_run_on_standard_input_needs_its_text_again(empty):
    succeed("train", "-", *TINY, "--max-steps", 2, stdin=TEXT)
    refused = call("train", "--resume", "--max-steps", 4, stdin="")
    assert_one_line(refused.stderr)
    assert "charrnn-tf train - --resume" in refused.stderr
    assert refused.exit_code == 1
    assert call("train", "-", "--resume", "--max-steps", 4, stdin=TEXT + "x").exit_code == 1
    assert succeed("train", "-", "--resume", "--max-steps", 4, stdin=TEXT) == "checkpoints/i4_l8\n"


# Fine-tuning


@pytest.mark.slow
def test_init_from_keeps_the_old_vocabulary_and_shape(reading, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text(("The cat … and the dog. " * 30), encoding="utf-8")
    tiny = ("--batch-size", 2, "--num-steps", 4, "--max-steps", 2, "--quiet", "--checkpoint-dir", tmp_path / "tuned")
    strangers = call("train", other, "--init-from", "checkpoints", *tiny)
    assert_one_line(strangers.stderr)
    assert "'…' (U+2026)" in strangers.stderr
    assert not (tmp_path / "tuned").exists()
    printed = succeed("train", other, "--init-from", "checkpoints", "--unknown", "skip", "--dropout", 0.5, *tiny)
    old, new = read_record("checkpoints/i8_l8"), read_record(printed.strip())
    assert new.vocabulary == old.vocabulary
    assert new.model.hidden_size == old.model.hidden_size == 8
    assert new.model.dropout == 0.5
    assert (new.step, new.init_from) == (2, str(Path("checkpoints/i8_l8").resolve()))


@pytest.mark.parametrize("option", [("--hidden-size", 16), ("--cell", "gru"), ("--num-layers", 3), ("--embedding-size", 4)])
@pytest.mark.usefixtures("reading")
def test_init_from_refuses_another_shape(option, tmp_path):
    result = call("train", "text.txt", "--init-from", "checkpoints", *option, "--checkpoint-dir", tmp_path / "tuned")
    assert_one_line(result.stderr)
    assert result.stderr.startswith(f"Error: {option[0]} {option[1]} contradicts --init-from: the model in ")
    assert result.exit_code == 1


@pytest.mark.usefixtures("reading")
def test_init_from_refuses_another_vocabulary(tmp_path):
    result = call(
        "train", "text.txt", "--init-from", "checkpoints", "--vocabulary", "printable", "--checkpoint-dir", tmp_path
    )
    assert result.stderr.startswith("Error: --vocabulary contradicts --init-from")
    assert result.exit_code == 1


@pytest.mark.slow
def test_a_tuned_run_resumes_with_its_options_repeated(copy):
    arguments = (
        "train",
        "text.txt",
        "--init-from",
        "checkpoints",
        "--batch-size",
        2,
        "--num-steps",
        4,
        "--checkpoint-dir",
        "b",
    )
    succeed(*arguments, "--max-steps", 2)
    assert succeed("train", "--checkpoint-dir", "b", "--resume", "--max-steps", 3) == "b/i3_l8\n"
    assert succeed(*arguments, "--max-steps", 4, "--resume") == "b/i4_l8\n"


def test_a_run_may_not_be_overwritten_by_its_own_tuning(copy):
    arguments = ("train", "text.txt", "--init-from", "checkpoints", "--overwrite", *SMALL, "--max-steps", 2)
    result = call(*arguments)  # trained, or refused with the run still there: never a run that is lost
    assert (result.exit_code, result.stdout) == (0, "checkpoints/i2_l8\n") or Path("checkpoints/i8_l8").exists()


# sample


@pytest.mark.usefixtures("reading")
def test_sample_prints_the_prime_then_so_many_characters():
    result = call("sample", "--prime", "The cat", "--length", 230, "--seed", 1)
    assert result.exit_code == 0
    assert result.stderr == ""
    assert result.stdout.startswith("The cat")
    assert len(result.stdout) == len("The cat") + 230 + 1
    assert result.stdout.endswith("\n")
    assert set(result.stdout) <= set(TEXT)


@pytest.mark.usefixtures("reading")
def test_sample_without_a_prime_prints_the_text_only():
    assert len(succeed("sample", "--length", 30, "--seed", 1)) == 31


@pytest.mark.slow
@pytest.mark.usefixtures("reading")
def test_the_same_seed_gives_the_same_text():
    first, again, other = (succeed("sample", "--length", 150, "--seed", seed, "--top-n", 0) for seed in (7, 7, 8))
    assert first == again
    assert first != other


@pytest.mark.slow
@pytest.mark.usefixtures("reading")
def test_without_a_seed_a_fresh_one_is_shown():
    results = [call("sample", "--length", 50) for _ in range(2)]
    seeds = [re.fullmatch(r"Seed: (\d+)\n", result.stderr)[1] for result in results]
    assert seeds[0] != seeds[1]
    assert succeed("sample", "--length", 50, "--seed", seeds[0]) == results[0].stdout


@pytest.mark.slow
@pytest.mark.usefixtures("reading")
def test_sample_reads_the_checkpoint_asked_for():
    arguments = ("--length", 100, "--seed", 1, "--top-n", 0)
    latest = succeed("sample", *arguments)
    assert succeed("sample", "--checkpoint", "latest", *arguments) == latest
    assert succeed("sample", "--checkpoint", "i8_l8", *arguments) == latest
    assert succeed("sample", "--checkpoint", Path("checkpoints/i8_l8").resolve(), *arguments) == latest
    best = succeed("sample", "--checkpoint", find("best", "checkpoints").name, *arguments)
    assert succeed("sample", "--checkpoint", "best", *arguments) == best
    assert succeed("sample", "--checkpoint", "i4_l8", *arguments) != latest


@pytest.mark.usefixtures("reading")
def test_temperature_zero_is_the_likeliest_whatever_the_seed():
    assert succeed("sample", "--length", 40, "--temperature", 0, "--seed", 1) == succeed(
        "sample", "--length", 40, "--top-n", 1, "--seed", 2
    )


@pytest.mark.usefixtures("reading")
def test_several_samples_each_under_a_line_of_its_own():
    arguments = ("--prime", "The ", "--length", 120, "--seed", 1)
    printed = succeed("sample", *arguments, "--num-samples", 3)
    head, *parts = re.split(r"^(--- sample \d+ ---)\n", printed, flags=re.M)
    assert head == ""
    assert parts[0::2] == [f"--- sample {k} ---" for k in (1, 2, 3)]
    texts = parts[1::2]
    assert all(text.startswith("The ") and len(text) == 4 + 120 + 1 for text in texts)
    assert len(set(texts)) == 3
    assert texts[0] == succeed("sample", *arguments)


@pytest.mark.slow
@pytest.mark.parametrize("place", [(20, 23), (97, 103)])  # the second lies in two of the chunks that come
@pytest.mark.usefixtures("reading")
def test_stop_ends_the_text_before_the_word(place):
    arguments = ("--prime", "The ", "--length", 250, "--seed", 5, "--top-n", 0)
    text = succeed("sample", *arguments)[4:-1]
    word = text[slice(*place)]
    assert succeed("sample", *arguments, "--stop", word) == "The " + text.partition(word)[0] + "\n"
    assert succeed("sample", *arguments, "--stop", "never there") == f"The {text}\n"


@pytest.mark.usefixtures("reading")
def test_every_sample_stops_on_its_own():
    arguments = ("--length", 150, "--seed", 5, "--num-samples", 2)
    _, first, second = re.split(r"--- sample \d ---\n", succeed("sample", *arguments))
    word = first[60:64]
    stopped = succeed("sample", *arguments, "--stop", word)
    assert stopped == "".join(f"--- sample {k} ---\n{t[:-1].partition(word)[0]}\n" for k, t in ((1, first), (2, second)))


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
@pytest.mark.parametrize(
    ("text", "stop", "expected"),
    [
        ("one two three", "two", "one "),
        ("one two three", "one", ""),
        ("one two three", "three", "one two "),
        ("one two three", "x", "one two three"),
        ("one two thr", "three", "one two thr"),
        ("aaab ab", "aab", "a"),
        ("nananas", "nas", "nana"),
        ("one two two", "two", "one "),
        ("one two", None, "one two"),
    ],
)
def test_stopping_holds_back_what_may_be_the_word(text, stop, expected, size):
    stopping, shown = _Stopping(stop), ""
    for begin in range(0, len(text), size):
        stopping.add(text[begin : begin + size])
        shown += stopping.take()
        assert expected.startswith(shown)
    assert stopping.ended == (len(expected) < len(text))
    assert shown + stopping.take(last=True) == expected


def test_stopping_shows_all_but_the_words_length():
    stopping = _Stopping("stop")
    stopping.add("0123456789")
    assert stopping.take() == "0123456"


@pytest.mark.slow
def test_sample_output_writes_the_file_and_prints_nothing(copy):
    arguments = ("--prime", "The ", "--length", 120, "--seed", 1, "--num-samples", 2)
    expected = succeed("sample", *arguments)
    Path("out.txt").write_text("an older text", encoding="utf-8")
    for option in ("--output", "-o"):
        before = set(snapshot())
        assert succeed("sample", *arguments, option, "out.txt") == ""
        assert Path("out.txt").read_bytes().decode() == expected
        assert set(snapshot()) == before


@pytest.mark.slow
@pytest.mark.usefixtures("reading")
def test_the_prime_may_come_from_a_file_or_standard_input(tmp_path):
    prime = tmp_path / "prime.txt"
    prime.write_text("The cat\nand the ", encoding="utf-8")
    expected = succeed("sample", "--prime", "The cat\nand the ", "--length", 20, "--seed", 1)
    assert succeed("sample", "--prime-file", prime, "--length", 20, "--seed", 1) == expected
    assert succeed("sample", "--prime-file", "-", "--length", 20, "--seed", 1, stdin="The cat\nand the ") == expected


@pytest.mark.usefixtures("reading")
def test_unknown_characters_of_the_prime_are_refused_or_skipped():
    refused = call("sample", "--prime", "The é…", "--seed", 1)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr == (
        "Error: --prime has characters the model never saw: 'é' (U+00E9), '…' (U+2026). Leave them out, or use --unknown "
        "skip.\n"
    )
    arguments = ("--length", 20, "--seed", 1)
    skipped = succeed("sample", "--prime", "The é…", "--unknown", "skip", *arguments)
    assert skipped == succeed("sample", "--prime", "The ", *arguments)


@pytest.mark.slow
@pytest.mark.usefixtures("reading")
def test_interactive_answers_line_by_line():
    result = call("sample", "--interactive", "--length", 20, "--seed", 5, stdin="The \n☃\nand the\n\n")
    expected = [
        succeed("sample", "--prime", prime, "--length", 20, "--seed", seed)
        for prime, seed in [("The ", 5), ("and the", 6), ("", 7)]
    ]
    assert (result.exit_code, result.stdout) == (0, "".join(expected))
    assert result.stderr.count("Prime (end with Ctrl-D): ") == 5
    assert "Error: characters the model never saw: '☃' (U+2603)" in result.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("reading")
def test_interactive_says_of_bytes_that_are_no_utf8_that_they_are_unknown():
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run(
        [sys.executable, "-m", "charrnn_tf", "sample", "--interactive", "--length", "5", "--seed", "5"],
        input=b"\xff\nThe\n", capture_output=True, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert b"Error: characters the model never saw: " in done.stderr
    assert done.stdout.startswith(b"The")


@pytest.mark.usefixtures("reading")
def test_interactive_takes_a_last_line_without_a_newline():
    expected = succeed("sample", "--prime", "and", "--length", 20, "--seed", 5)
    assert succeed("sample", "--interactive", "--length", 20, "--seed", 5, stdin="and") == expected


# evaluate, export, checkpoints


@pytest.mark.slow
@pytest.mark.usefixtures("reading")
def test_evaluate_prints_a_line_or_json():
    plain = succeed("evaluate", "text.txt")
    numbers = json.loads(succeed("evaluate", "text.txt", "--json"))
    assert list(numbers) == ["nats_per_character", "bits_per_character", "perplexity", "characters"]
    nats = numbers["nats_per_character"]
    assert numbers["characters"] == len(TEXT) - 1
    assert numbers["bits_per_character"] == pytest.approx(nats / math.log(2))
    assert numbers["perplexity"] == pytest.approx(math.exp(nats))
    assert plain == (
        f"{nats:.4f} nats a character ({nats / math.log(2):.4f} bits, perplexity {math.exp(nats):.3f}) over "
        f"{len(TEXT) - 1:,} characters\n"
    )


@pytest.mark.slow
@pytest.mark.usefixtures("reading")
def test_evaluate_in_cold_windows():
    whole, alike, cold = (
        json.loads(succeed("evaluate", "text.txt", "--json", *more)) for more in ((), ("--window", 10**6), ("--window", 5))
    )
    assert alike["nats_per_character"] == pytest.approx(whole["nats_per_character"], abs=1e-6)
    assert cold["characters"] == whole["characters"]
    assert cold["nats_per_character"] != pytest.approx(whole["nats_per_character"], abs=1e-3)


@pytest.mark.usefixtures("reading")
def test_evaluate_reads_standard_input_and_skips_the_unknown(tmp_path):
    expected = succeed("evaluate", "-", "--json", stdin="The cat and the dog")
    other = tmp_path / "other.txt"
    other.write_text("The c☃at and the… dog", encoding="utf-8")
    assert call("evaluate", other).exit_code == 1
    assert succeed("evaluate", other, "--unknown", "skip", "--json") == expected
    assert json.loads(expected)["characters"] == len("The cat and the dog") - 1
    assert succeed("evaluate", "-", "--json", "--checkpoint", "i4_l8", stdin="The cat and the dog") != expected


@pytest.mark.slow
def test_export_prints_the_path_and_replaces_an_older_one(copy):
    assert succeed("export", "--output", "model") == "model\n"
    assert Path("model/saved_model.pb").is_file()
    (Path("model") / "old").write_text("old", encoding="utf-8")
    assert succeed("export", "-o", "model", "--checkpoint", "i4_l8") == "model\n"
    assert not Path("model/old").exists()
    assert not list(Path().glob(".*"))


@pytest.mark.slow
@pytest.mark.parametrize("text", [(), ("--text", "text.txt")])
def test_export_of_a_page_says_what_rounding_costs(copy, text):
    result = call("export", "--format", "web", "-o", "model.html", *text)
    assert (result.exit_code, result.stdout) == (0, "model.html\n")
    characters = len(TEXT) if text else len(TEXT) // 10  # what the run held out
    told = rf"Weights of (8|16) bits cost [+-]0\.\d{{4}} nats a character, on {characters:,}; 0\.\d MB\.\n"
    assert re.fullmatch(told, result.stderr), result.stderr
    assert Path("model.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


@pytest.mark.slow
def test_export_of_a_page_without_a_text_takes_16_bits(empty):
    succeed("train", "-", *TINY, "--max-steps", 2, "--quiet", stdin=TEXT)
    result = call("export", "--format", "web", "-o", "model.html")
    assert result.stderr.startswith("Weights of 16 bits (what rounding costs is not known without --text); ")


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "output"), [("keras", "model.keras"), ("torch", "model.net")])
def test_formats_of_characters_refuse_bytes(empty, kind, output):
    succeed("train", "text.txt", *TINY, "--vocabulary", "bytes", "--max-steps", 2, "--quiet")
    result = call("export", "--format", kind, "-o", output)
    assert result.stderr == (
        f"Error: the format {kind} knows characters only, and this model reads bytes. Use savedmodel or web.\n"
    )
    assert not Path(output).exists()


@pytest.mark.parametrize(("kind", "name"), [("keras", "model.keras"), ("web", "model.html")])
def test_export_to_a_folder_that_is_not_there_is_one_line(copy, kind, name):
    result = call("export", "--format", kind, "-o", f"missing/{name}")
    assert (result.exit_code, result.stderr) == (1, f"Error: can't write 'missing/{name}': no such file or directory\n")


@pytest.mark.parametrize(
    ("folder", "sources", "command"),
    [
        ("checkpoints", ["a.txt"], "charrnn-tf train --resume"),
        ("my run", [], "charrnn-tf train --resume --checkpoint-dir 'my run'"),
        ("checkpoints", ["-"], "charrnn-tf train - --resume"),
        ("checkpoints", ["/my a.txt", "-"], "charrnn-tf train '/my a.txt' - --resume"),
    ],
)
def test_what_goes_on_with_a_run(folder, sources, command):
    text = TextRecord(tuple(Source(path, "", 1) for path in sources), "", 1)
    assert launch.resuming(folder, text) == command


@pytest.mark.usefixtures("reading")
def test_checkpoints_lists_them():
    rows = json.loads(succeed("checkpoints", "--json"))
    assert [row["name"] for row in rows] == [path.name for path in list_checkpoints("checkpoints")]
    assert list(rows[0]) == ["name", "epoch", "train_loss", "validation_loss", "date", "size", "best"]
    record = read_record("checkpoints/i8_l8")
    assert (rows[-1]["train_loss"], rows[-1]["validation_loss"]) == (record.train_loss, record.validation_loss)
    assert [row["name"] for row in rows if row["best"]] == [find("best", "checkpoints").name]
    assert all(row["size"] == sum(f.stat().st_size for f in Path("checkpoints", row["name"]).iterdir()) for row in rows)
    header, *lines = succeed("checkpoints").splitlines()
    assert header.split() == ["name", "epoch", "train", "validation", "date", "size"]
    for line, row in zip(lines, rows, strict=True):
        assert line.split()[:3] == [row["name"], f"{row['epoch']:.2f}", f"{row['train_loss']:.4f}"]
        assert f"{row['validation_loss']:.4f}" in line
        assert ("*" in line) == row["best"]


def test_checkpoints_leaves_out_what_a_run_removes_meanwhile(copy, monkeypatch):
    def read(directory):
        records = read_run(directory)
        shutil.rmtree(min(records))
        return records

    names = [row["name"] for row in json.loads(succeed("checkpoints", "--json"))]
    monkeypatch.setattr("charrnn_tf.cli.main.read_run", read)
    assert len(names) - 1 == len(json.loads(succeed("checkpoints", "--json")))


def test_checkpoints_of_an_empty_folder_are_none(empty):
    Path("nothing").mkdir()
    assert json.loads(succeed("checkpoints", "--checkpoint-dir", "nothing", "--json")) == []


# Mistakes


MISTAKES = [
    ("train missing.txt", "can't read 'missing.txt': no such file or directory"),
    ("train text.txt missing.txt", "can't read 'missing.txt': no such file or directory"),
    ("train empty.txt", "'empty.txt' is empty"),
    ("train -", "'-' is empty"),
    ("train - -", "standard input (-) can be read only once"),
    ("train one.txt --validation-fraction 0", "too short: 1 characters to train on"),
    ("train short.txt --validation-fraction 0", "Use a longer text, or a smaller --batch-size or --num-steps"),
    ("train text.txt --batch-size 4000", "too short"),
    ("train text.txt --limit-chars 18 --batch-size 1 --num-steps 2", "the validation part is a single character"),
    ("train latin.txt", "'latin.txt' is not UTF-8: byte 3 is 0xE9. Convert it first"),
    ("train folder", "can't read 'folder': the folder holds no files"),
    ("train text.txt --vocabulary printable --unknown error --preset sherlock --limit-chars 9", "too short"),
    ("train text.txt --config missing.toml", "can't read the settings in 'missing.toml': no such file or directory"),
    ("train text.txt --config folder", "can't read the settings in 'folder': is a directory"),
    ("train text.txt --dropout 1", "dropout must be a number at least 0 and below 1, got 1.0"),
    ("train text.txt --learning-rate 0", "learning_rate must be a number above 0"),
    ("train text.txt --learning-rate nan", "learning_rate must be a number above 0 and at most 1e+06, got nan"),
    ("train text.txt --max-seconds 0", "max_seconds must be a number above 0"),
    ("train text.txt --validation-fraction 1", "validation_fraction must be"),
    ("train text.txt --state-reset 1.5", "state_reset must be"),
    ("train text.txt --weight-dropout 1", "weight_dropout must be a number at least 0 and below 1, got 1.0"),
    (f"train text.txt --seed {2**63}", "seed must be"),
    (
        "train text.txt --batch-size 2 --hidden-size 8 --checkpoint-dir text.txt",
        "can't use the folder 'text.txt': file exists",
    ),
    (
        "train text.txt --batch-size 2 --hidden-size 8 --checkpoint-dir text.txt/run",
        "can't use the folder 'text.txt/run': not a directory",
    ),
    ("train text.txt --init-from missing", "no checkpoints in 'missing': no such file or directory"),
    ("train text.txt --init-from folder", "no checkpoints in 'folder'"),
    ("train text.txt --resume", "no checkpoints in 'checkpoints': no such file or directory"),
    ("train text.txt --resume --checkpoint-dir folder", "no checkpoints in 'folder'. Train one with: charrnn-tf train FILE"),
    ("sample", "no checkpoints in 'checkpoints': no such file or directory. Train one with: charrnn-tf train FILE"),
    ("sample --checkpoint-dir folder", "no checkpoints in 'folder'"),
    ("sample --checkpoint-dir text.txt", "no checkpoints in 'text.txt': not a directory"),
    ("sample --checkpoint-dir RUN --checkpoint i300_l8", "no checkpoint 'i300_l8' in 'RUN'; found: i"),
    ("sample --checkpoint-dir RUN --checkpoint text.txt", "no checkpoint 'text.txt'"),
    ("sample --checkpoint-dir RUN --checkpoint folder", "no checkpoint 'folder'"),
    ("sample --checkpoint-dir RUN/i8_l8", "'RUN/i8_l8' is a checkpoint, not a run's folder, which is 'RUN'"),
    ("sample --checkpoint-dir RUN --checkpoint " + "x" * 300, "no checkpoint 'xxx"),
    ("sample --checkpoint-dir RUN --prime ☃", "'☃' (U+2603)"),
    ("sample --checkpoint-dir RUN --prime-file missing.txt", "Error: can't read 'missing.txt'"),
    ("sample --checkpoint-dir RUN --prime-file latin.txt", "is not UTF-8"),
    ("sample --checkpoint-dir RUN --prime The --top-p 0", "top_p must be"),
    ("sample --checkpoint-dir RUN --prime The --temperature -1", "temperature must be"),
    ("sample --checkpoint-dir RUN --prime The --temperature nan", "temperature must be"),
    ("sample --checkpoint-dir RUN --output missing/out.txt", "can't write 'missing/out.txt': no such file or directory"),
    ("sample --checkpoint-dir RUN --output folder", "can't write 'folder': is a directory"),
    ("sample --checkpoint-dir RUN --output text.txt/out.txt", "can't write 'text.txt/out.txt': not a directory"),
    ("sample --checkpoint-dir RUN --output .", "can't write '.': is a directory"),
    ("sample --checkpoint-dir RUN --output full", "can't write 'full': no space left on device"),
    ("sample --checkpoint-dir RUN --output out.txt --temperature -1", "temperature must be"),
    ("evaluate text.txt", "no checkpoints in 'checkpoints'"),
    ("evaluate missing.txt --checkpoint-dir RUN", "can't read 'missing.txt'"),
    ("evaluate empty.txt --checkpoint-dir RUN", "'empty.txt' is empty"),
    ("evaluate one.txt --checkpoint-dir RUN", "fewer than two characters"),
    ("evaluate folder --checkpoint-dir RUN", "can't read 'folder': the folder holds no files"),
    ("evaluate latin.txt --checkpoint-dir RUN", "is not UTF-8"),
    ("evaluate snow.txt --checkpoint-dir RUN", "'☃' (U+2603)"),
    ("evaluate snow.txt --checkpoint-dir RUN --unknown skip", "has no character of the vocabulary"),
    ("export --output model", "no checkpoints in 'checkpoints'"),
    ("export --checkpoint-dir RUN --output folder", "'folder' is there already and is no SavedModel"),
    ("export --checkpoint-dir RUN --output text.txt", "'text.txt' is there already and is no SavedModel"),
    ("export --checkpoint-dir RUN --output text.txt/model", "can't write 'text.txt/model'"),
    ("export --checkpoint-dir RUN --output .", "'.' is there already and is no SavedModel"),
    ("checkpoints", "no checkpoints in 'checkpoints': no such file or directory"),
    ("checkpoints --checkpoint-dir text.txt", "no checkpoints in 'text.txt': not a directory"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("command", "message"), MISTAKES, ids=[command[:70] for command, _ in MISTAKES])
def test_a_mistake_is_one_line_and_leaves_nothing_behind(empty, home, command, message):
    contents = {
        "empty.txt": b"",
        "one.txt": b"a",
        "short.txt": b"the cat",
        "latin.txt": b"caf\xe9",
        "snow.txt": "☃".encode(),
    }
    for name, content in contents.items():
        Path(name).write_bytes(content)
    Path("folder").mkdir()
    Path("full").symlink_to("/dev/full")
    run = str(home / "checkpoints")
    before = set(snapshot())
    seed = ("--seed", 1) if command.startswith("sample") else ()
    result = call(*command.replace("RUN", run).split(), *seed, stdin="")
    assert_one_line(result.stderr)
    assert message.replace("RUN", run) in result.stderr
    assert (result.exit_code, result.stdout) == (1, "")
    assert set(snapshot()) == before
    assert Path("full").is_symlink()


@pytest.mark.parametrize(
    "command",
    [
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
        "sample --prime a --interactive",
        "sample --prime a --prime-file text.txt",
        "sample --prime-file text.txt --interactive",
        "sample --unknown guess",
        "sample more",
        "evaluate",
        "evaluate text.txt text.txt",
        "export",
        "checkpoints more",
        "nothing",
        "--nothing",
    ],
)
def test_wrong_usage_exits_2(empty, command):
    before = snapshot()
    result = call(*command.split())
    assert_one_line(result.stderr)
    assert (result.exit_code, result.stdout) == (2, "")
    assert snapshot() == before


@pytest.mark.usefixtures("reading")
def test_an_empty_stop_is_wrong_usage():
    result = call("sample", "--stop", "")
    assert_one_line(result.stderr)
    assert result.exit_code == 2


def test_a_text_that_may_not_be_read(empty):
    Path("text.txt").chmod(0)
    if os.access("text.txt", os.R_OK):
        pytest.skip("this user reads every file")
    result = call("train", "text.txt", *TINY)
    assert_one_line(result.stderr)
    assert "can't read 'text.txt': permission denied" in result.stderr


@pytest.mark.slow
def test_a_text_of_one_character_repeated_trains(empty):
    Path("same.txt").write_text("a" * 200, encoding="utf-8")
    assert succeed("train", "same.txt", *TINY, "--max-steps", 2) == "checkpoints/i2_l8\n"
    assert succeed("sample", "--length", 5, "--prime", "a", "--seed", 1) == "a" * 6 + "\n"


def test_a_damaged_checkpoint_is_told(copy):
    for data in Path("checkpoints").glob("i*/variables.data*"):
        content = bytearray(data.read_bytes())
        content[100] ^= 1
        data.write_bytes(content)
    for command in (["sample"], ["evaluate", "text.txt"], ["export", "-o", "model"], ["checkpoints"], ["train", "--resume"]):
        result = call(*command)
        assert_one_line(result.stderr)
        assert "is damaged" in result.stderr
        assert result.exit_code == 1
    assert not Path("model").exists()


@pytest.mark.slow
def test_the_largest_seed_works_everywhere(empty):
    seed = 2**63 - 1
    succeed("train", "text.txt", *TINY, "--max-steps", 2, "--seed", seed, "--sample-every", 2, "--sample-length", 5)
    assert len(succeed("sample", "--length", 5, "--seed", seed)) == 6
    assert len(succeed("sample", "--length", 5, "--seed", seed, "--interactive", stdin="The\nThe\n")) == 2 * (3 + 5 + 1)


def test_a_bug_keeps_its_traceback(reading, monkeypatch):
    def broken(*arguments, **settings):
        raise RuntimeError("a bug")

    for module in (launch, sys.modules["charrnn_tf.cli.main"]):
        monkeypatch.setattr(module, "load_corpus", broken)
    monkeypatch.setattr("charrnn_tf.inference.sampling.Sampler.from_checkpoint", broken)
    for command in ("train text.txt --checkpoint-dir new", "train --resume", "evaluate text.txt", "sample --seed 1"):
        result = call(*command.split())
        assert isinstance(result.exception, RuntimeError)
        assert result.stderr == ""


# Processes of their own


def test_a_bug_shows_its_traceback_to_the_user():
    program = (
        "import sys, charrnn_tf.cli.main as c\nc.load_corpus = c.find_record = lambda *a: 1 / 0\n"
        "sys.argv = ['x', 'sample']\nc.main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback (most recent call last):")
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n")


@pytest.mark.slow
def test_a_process_of_its_own_shows_our_lines_only(empty):
    trained = start("train", "text.txt", *TINY, "--max-steps", 4)
    assert (trained.returncode, trained.stdout) == (0, "checkpoints/i4_l8\n")
    ours = r"Text: |Chosen by |  [\w-]+ |Model: |Device: |Steps: |Checkpoints: |Expected to end |step +\d|\w+ validation: "
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
def test_standard_output_that_is_full_is_told_in_a_line(command):
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = start(*command.split(), stdout=full)
    assert_one_line(done.stderr)
    assert done.returncode == 1


@pytest.mark.slow
def test_a_disk_that_is_full_is_told_in_a_line(empty):
    resource = pytest.importorskip("resource")

    def little_room():
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))

    done = start("train", "text.txt", *TINY, "--max-steps", 2, "--quiet", preexec_fn=little_room)
    assert_one_line(done.stderr)
    assert "can't save 'checkpoints/i2_l8'" in done.stderr
    assert (done.returncode, done.stdout) == (1, "")
    assert [path.name for path in Path("checkpoints").iterdir()] == ["metrics.csv"]


@pytest.mark.slow
def test_a_reader_that_leaves_is_no_error_worth_a_traceback(reading):
    process = processes.Python(
        ["-m", "charrnn_tf", "sample", "--length", 100_000, "--seed", 1], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.read(10)
    process.stdout.close()
    assert b"Traceback" not in process.stderr.read()
    process.stderr.close()
    assert process.wait() != 0
