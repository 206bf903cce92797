"""`charrnn-tf train`: texts, settings from options, files and presets, resuming, fine-tuning, and what it prints."""

import json
import math
import os
import re
from pathlib import Path

import pytest
from commandline import RUN, SPENT, TEXT, TINY, call, refuse, snapshot, succeed

from charrnn_tf.api import launch
from charrnn_tf.runs.find import find, list_checkpoints
from charrnn_tf.runs.metrics import read_rows
from charrnn_tf.runs.record import read_record
from charrnn_tf.settings.presets import PRESETS
from charrnn_tf.settings.schema import MODEL_OPTIONS, RESUMABLE, SETTINGS, TRAIN_OPTIONS
from charrnn_tf.text.corpus import Source, TextRecord

pytestmark = pytest.mark.usefixtures("one_process")


def options(settings):
    """The options that give these settings; a tuple: its only item; True: a flag."""
    for name, value in settings.items():
        yield "--" + name.replace("_", "-")
        if value is not True:
            yield value[0] if isinstance(value, tuple) else value


# What it prints


@pytest.mark.slow
def test_train_prints_the_last_checkpoint_and_shows_progress_on_standard_error(empty):
    result = call("train", "text.txt", *TINY, "--max-steps", 6)
    assert (result.exit_code, result.stdout) == (0, "checkpoints/i6_l8\n")
    assert (
        f"Text: text.txt, {len(TEXT):,} characters, {len(set(TEXT))} distinct; the last {int(len(TEXT) * 0.1):,} are held "
        "out for validation.\n"
    ) in result.stderr
    for word in ("Model: ", "Device: ", "Steps: ", "6 in all", "Checkpoints: ", "MB", "Expected to end after"):
        assert word in result.stderr
    assert re.findall(r"^step +(\d+)  epoch .*  loss \d\.\d{4}", result.stderr, re.M) == ["2", "4", "6"]
    assert re.search(r"^step +6 .* validation \d\.\d{4} ", result.stderr, re.M)
    assert [row.step for row in read_rows("checkpoints/metrics.csv")] == [2, 4, 6]


@pytest.mark.usefixtures("instant")
def test_train_says_how_much_of_a_long_held_out_part_is_read(empty, monkeypatch):
    monkeypatch.setattr("charrnn_tf.text.windows.VALIDATION_LIMIT", 10)
    result = call("train", "text.txt", *TINY, "--max-steps", 1)
    assert f"the last {int(len(TEXT) * 0.1):,} are held out for validation (10 of them are read).\n" in result.stderr


@pytest.mark.usefixtures("instant")
def test_train_quiet_shows_nothing(empty):
    result = call("train", "text.txt", *TINY, "--max-steps", 2, "--quiet", "--sample-every", 1)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "checkpoints/i2_l8\n", "")


def test_train_without_a_budget_prints_the_budget_it_chose(empty, monkeypatch):
    monkeypatch.setattr("charrnn_tf.training.trainer.Trainer.run", lambda self, display: iter(()))
    result = call("train", "text.txt", *TINY)
    assert result.exit_code == 0
    budget = "Budget: 1 min 0 s, by the length of the text. Change it with --max-seconds, --epochs or --max-steps."
    assert budget in result.stderr


@pytest.mark.usefixtures("instant")
def test_train_shows_samples(empty):
    samples = ("--sample-every", 2, "--sample-prime", "The ", "--sample-prime", "cat", "--sample-length", 7)
    result = call("train", "text.txt", *TINY, "--max-steps", 2, *samples)
    assert re.findall(r"--- sample at step 2 ---\n(The |cat)(?:.|\n){7}\n---\n", result.stderr) == ["The ", "cat"]


@pytest.mark.usefixtures("instant")
def test_train_ends_with_a_sample_and_the_last_and_best_validation(empty, monkeypatch):
    losses = iter([2.0, 1.5, 3.0])
    monkeypatch.setattr("charrnn_tf.training.trainer.Trainer._validate", lambda self, display: next(losses))
    result = call("train", "text.txt", *TINY, "--max-steps", 6, "--validate-every", 2)
    assert re.search(
        r"--- sample at step 6 ---\nThe (?:.|\n){200}\n---\n"
        r"Last validation: 3\.0000 nats per character \(4\.3281 bits\)\.\n"
        r"Best validation: 1\.5000 nats per character \(2\.1640 bits\), in i4_l8\.\n$",
        result.stderr,
    )


@pytest.mark.usefixtures("instant")
def test_train_says_that_it_ended_early(empty, monkeypatch):
    monkeypatch.setattr("charrnn_tf.training.trainer.Trainer._validate", lambda self, display: float(self.step))
    result = call("train", "text.txt", *TINY, "--max-steps", 60, "--validate-every", 2, "--patience", 3)
    assert result.stdout == "checkpoints/i8_l8\n"
    assert "Ended early: 3 validations in a row without improvement.\n" in result.stderr
    assert "in i2_l8." in result.stderr
    assert "Ended early" not in call("train", "text.txt", *TINY, "--max-steps", 6, "--overwrite").stderr


@pytest.mark.usefixtures("instant")
def test_without_validation_no_validation_loss_is_printed(empty):
    result = call("train", "text.txt", *TINY, "--max-steps", 2, "--validation-fraction", 0)
    assert result.exit_code == 0
    assert "validation:" not in result.stderr
    assert result.stdout == "checkpoints/i2_l8\n"


# Texts


@pytest.mark.usefixtures("instant")
def test_train_without_a_text_takes_the_built_in_one(empty):
    assert succeed("train", *TINY, "--max-steps", 1, "--checkpoint-dir", "run", "--quiet") == "run/i1_l8\n"
    record = read_record("run/i1_l8")
    assert record.text.sources == ()
    assert record.text.characters > 200_000


@pytest.mark.usefixtures("instant")
def test_train_reads_several_texts_and_standard_input(empty):
    Path("more.txt").write_text("no newline at its end", encoding="utf-8")
    short = (*TINY, "--max-steps", 1, "--quiet")
    succeed("train", "more.txt", "text.txt", *short, "--checkpoint-dir", "files")
    succeed("train", "-", *short, "--checkpoint-dir", "stdin", stdin="no newline at its end\n" + TEXT)
    files, stdin = (read_record(find("latest", folder)) for folder in ("files", "stdin"))
    assert files.text.sha256 == stdin.text.sha256
    assert [source.path for source in files.text.sources] == [str(empty / "more.txt"), str(empty / "text.txt")]
    assert [source.path for source in stdin.text.sources] == ["-"]


@pytest.mark.slow
def test_a_text_of_one_character_repeated_trains(empty):
    Path("same.txt").write_text("a" * 200, encoding="utf-8")
    assert succeed("train", "same.txt", *TINY, "--max-steps", 2) == "checkpoints/i2_l8\n"
    assert succeed("sample", "--length", 5, "--prime", "a", "--seed", 1) == "a" * 6 + "\n"


# The folder of the run


@pytest.mark.usefixtures("instant")
def test_a_second_run_into_the_folder_is_refused_and_overwrite_replaces_it(copy):
    assert "already holds a run" in refuse("train", "text.txt", *TINY, "--max-steps", 2)
    Path("checkpoints/mine.txt").write_text("mine", encoding="utf-8")
    assert succeed("train", "text.txt", *TINY, "--max-steps", 2, "--overwrite", "--quiet") == "checkpoints/i2_l8\n"
    assert [path.name for path in list_checkpoints("checkpoints")] == ["i2_l8"]
    assert Path("checkpoints/mine.txt").exists()


@pytest.mark.usefixtures("copy")
def test_a_folder_in_use_is_told_before_the_text_is_read():
    assert "'checkpoints' already holds a run" in call("train", "missing.txt").stderr


def test_overwrite_with_a_text_that_cannot_be_read_leaves_the_run(copy):
    before = snapshot()
    assert call("train", "missing.txt", "--overwrite").exit_code == 1
    assert call("train", "text.txt", "--overwrite", "--batch-size", 5000).exit_code == 1
    assert snapshot() == before


# Presets, settings files, options

GIVEN = {
    "cell": "gru", "hidden_size": 6, "num_layers": 2, "dropout": 0.25, "embedding_size": 3, "init": "tf1",
    "vocabulary": "corpus", "min_count": 2, "unknown": "skip", "separator": "-", "lines": True,
    "encoding": "cp1252", "normalize": "nfc", "limit_chars": 500, "batch_size": 3,
    "num_steps": 5, "epochs": 7,
    "max_steps": 2, "max_seconds": 1e6, "optimizer": "sgd", "learning_rate": 0.5, "warmup_steps": 7, "schedule": "step",
    "step_epochs": 3, "gamma": 0.5, "clip_norm": 1.5, "weight_dropout": 0.1, "state_reset": 0.5,
    "final_rate": 0.1, "averaging": 0.3, "weight_decay": 0.2,
    "validation_fraction": 0.2, "seed": 9, "precision": "bfloat16", "strategy": "mirrored", "save_every": 11, "keep": 3,
    "log_every": 12, "validate_every": 13, "patience": 4, "sample_every": "epoch", "sample_prime": ("x",),
    "sample_length": 14, "sample_top_n": 2, "sample_temperature": 0.5,
}  # fmt: skip


def assert_saved(record, settings):
    for name, value in settings.items():
        assert getattr(record.model if hasattr(record.model, name) else record.train, name) == value, name


@pytest.mark.usefixtures("instant")
def test_train_options_reach_the_settings(empty):
    assert GIVEN.keys() == SETTINGS.keys()
    succeed("train", "text.txt", *options(GIVEN))
    record = read_record("checkpoints/i2_l6")
    assert_saved(record, GIVEN)
    assert len(record.vocabulary) == record.model.vocab_size


@pytest.mark.usefixtures("instant")
def test_a_settings_file_takes_every_setting_by_its_options_name(empty):
    lines = [f"{name} = {json.dumps(value)}" for name, value in GIVEN.items()]  # JSON is TOML for these values
    Path("run.toml").write_text("\n".join(lines), encoding="utf-8")
    succeed("train", "text.txt", "--config", "run.toml")
    assert_saved(read_record("checkpoints/i2_l6"), GIVEN)


def test_settings_that_follow_from_the_machine_have_no_option():
    assert {*MODEL_OPTIONS, *TRAIN_OPTIONS} - SETTINGS.keys() == {"shards", "xla"}


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
def test_presets_train(empty, preset):
    Path("long.txt").write_text("I " + TEXT * 8, encoding="utf-8")
    shrunk = () if preset == "sherlock" else ("--hidden-size", 8)
    printed = succeed("train", "long.txt", "--preset", preset, "--max-steps", 3, *shrunk)
    record = read_record(printed.strip())
    saved = {**vars(record.model), **vars(record.train)}
    expected = {**PRESETS[preset], **({"hidden_size": 8} if shrunk else {}), "max_steps": 3, "epochs": None}
    assert {name: saved[name] for name in expected} == expected
    assert read_rows("checkpoints/metrics.csv")[-1].step == 3


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["notebook", "tf-tutorial"])
def test_large_presets_train_as_they_are(empty, preset):
    Path("long.txt").write_text(TEXT * 8, encoding="utf-8")
    printed = succeed("train", "long.txt", "--preset", preset, "--max-steps", 2, "--validation-fraction", 0, "--quiet")
    assert printed == f"checkpoints/i2_l{PRESETS[preset]['hidden_size']}\n"
    rows = read_rows("checkpoints/metrics.csv")
    assert rows[-1].train_loss < math.log(len(set(TEXT))) + 1


@pytest.mark.usefixtures("instant")
def test_options_win_over_the_file_and_the_file_over_the_preset(empty):
    Path("run.toml").write_text('preset = "notebook"\nhidden_size = 7\nnum_steps = 5\nbatch_size = 3\nepochs = 2\n')
    succeed("train", "text.txt", "--config", "run.toml", "--batch-size", 2, "--max-steps", 1)
    record = read_record("checkpoints/i1_l7")
    assert (record.model.num_layers, record.model.init, record.model.dropout) == (2, "wide", 0.5)  # of the preset
    assert (record.model.hidden_size, record.train.num_steps) == (7, 5)  # of the file
    assert (record.train.batch_size, record.train.max_steps, record.train.epochs) == (2, 1, None)  # of the options


@pytest.mark.usefixtures("instant")
def test_a_preset_on_the_command_line_wins_over_the_files(empty):
    Path("run.toml").write_text('preset = "notebook"\nhidden_size = 7\nmax_steps = 1\n')
    succeed("train", "text.txt", "--config", "run.toml", "--preset", "notebook-tf1")
    assert read_record("checkpoints/i1_l7").model.init == "tf1"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("hidden_sise = 8", "unknown setting 'hidden_sise'; did you mean 'hidden_size'?"),
        ("zzz = 8", "unknown setting 'zzz'; known are: averaging, batch_size, cell,"),
        ("shards = 2", "unknown setting 'shards'"),
        ("xla = true", "unknown setting 'xla'"),
        ("hidden_size 8", "can't read the settings in 'run.toml': Expected '='"),
        ('hidden_size = "8"', "--hidden-size must be a whole number"),
        ("hidden_size = true", "--hidden-size must be a whole number"),
        ("dropout = 1", "--dropout must be a number at least 0 and below 1, got 1"),
        ("learning_rate = nan", "--learning-rate must be a number above 0 and at most 1e+06, got nan"),
        ('cell = "rnn"', "--cell must be one of lstm, gru, got 'rnn'"),
        ("cell = []", "--cell must be one of lstm, gru, got []"),
        ('precision = "float16"', "--precision must be one of float32, bfloat16, got 'float16'"),
        ("sample_prime = [1]", "--sample-prime must be a text or a list of texts"),
        ("sample_prime = 5", "--sample-prime must be a text or a list of texts"),
        ('preset = "zzz"', "--preset must be one of default, notebook,"),
        ('preset = ["notebook"]', "--preset must be one of default, notebook,"),
        ("[train]\nseed = 1", "unknown setting 'train'"),
        ("seed = -1", "--seed must be a whole number of at least 0"),
        (f"seed = {2**63}", "--seed must be"),
    ],
)
def test_a_wrong_settings_file_is_told_in_a_line(empty, content, message):
    Path("run.toml").write_text(content, encoding="utf-8")
    assert message in refuse("train", "text.txt", "--config", "run.toml", "--max-steps", 1)


# Resuming


@pytest.mark.slow
def test_resume_takes_all_saved_settings_and_the_saved_text(copy):
    assert succeed("train", "--resume", "--max-steps", 10) == "checkpoints/i10_l8\n"
    before, after = (read_record(f"checkpoints/{name}") for name in ("i8_l8", "i10_l8"))
    assert after.model == before.model
    assert vars(after.train) == {**vars(before.train), "max_steps": 10}
    assert after.text == before.text
    assert [row.step for row in read_rows("checkpoints/metrics.csv")] == [2, 4, 6, 8, 10]


@pytest.mark.usefixtures("instant")
def test_resume_accepts_saved_options_repeated(copy):
    Path("run.toml").write_text("dropout = 0\nseed = 3\n", encoding="utf-8")
    repeated = (*TINY, *RUN, "--cell", "lstm", "--config", "run.toml")
    assert succeed("train", "text.txt", *repeated, "--resume", "--max-steps", 9) == "checkpoints/i9_l8\n"


@pytest.mark.usefixtures("instant")
def test_resume_accepts_the_preset_repeated(empty):
    arguments = ("--preset", "notebook-tf1", "--hidden-size", 8, "--batch-size", 2, "--quiet")
    succeed("train", "text.txt", *arguments, "--max-steps", 2)
    assert succeed("train", "text.txt", *arguments, "--max-steps", 3, "--resume") == "checkpoints/i3_l8\n"


@pytest.mark.usefixtures("instant")
def test_a_budget_among_the_options_replaces_that_of_the_file_on_resume(copy):
    Path("run.toml").write_text("epochs = 50\n", encoding="utf-8")
    assert succeed("train", "--resume", "--config", "run.toml", "--max-steps", 9) == "checkpoints/i9_l8\n"
    train = read_record("checkpoints/i9_l8").train
    assert (train.max_steps, train.epochs, train.max_seconds) == (9, None, None)


@pytest.mark.usefixtures("instant")
def test_a_budget_on_resume_replaces_the_saved_one(empty):
    succeed("train", "text.txt", *TINY, "--max-steps", 3, "--limit-chars", 100, "--quiet")
    succeed("train", "--resume", "--epochs", 1, "--quiet")
    record = read_record(find("latest", "checkpoints"))
    assert (record.train.epochs, record.train.max_steps, record.epoch) == (1, None, 1.0)


@pytest.mark.usefixtures("instant")
def test_resume_may_change_budgets_and_reporting(copy):
    given = {
        "max_steps": 9, "log_every": 3, "save_every": 2, "keep": 1, "sample_every": 9, "sample_prime": ("cat",),
        "sample_length": 3, "sample_top_n": 1, "sample_temperature": 0.5, "epochs": 50, "max_seconds": 1e6, "patience": 7,
        "strategy": "mirrored",
    }  # fmt: skip
    assert given.keys() == RESUMABLE
    result = call("train", "--resume", *options(given))
    assert result.stdout == "checkpoints/i9_l8\n"
    assert "--- sample at step 9 ---\ncat" in result.stderr
    assert_saved(read_record("checkpoints/i9_l8"), given)


CHANGES = {
    "cell": "gru", "hidden_size": 16, "num_layers": 2, "dropout": 0.5, "embedding_size": 4, "init": "tf1",
    "vocabulary": "printable", "min_count": 2, "unknown": "skip", "separator": "-", "lines": True,
    "encoding": "cp1252", "normalize": "nfc", "limit_chars": 100, "batch_size": 4,
    "num_steps": 8, "optimizer": "sgd",
    "learning_rate": 0.5, "warmup_steps": 3, "schedule": "step", "step_epochs": 5, "gamma": 0.5, "clip_norm": 1.0,
    "final_rate": 0.1, "averaging": 0.4, "state_reset": 0.5, "weight_dropout": 0.5, "weight_decay": 0.1,
    "validation_fraction": 0.2, "seed": 4, "precision": "bfloat16",
    "validate_every": 3,
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.usefixtures("reading")
def test_resume_refuses_a_changed_setting_by_name(name):
    option = "--" + name.replace("_", "-")
    error = refuse("train", "text.txt", "--resume", *options({name: CHANGES[name]}), "--max-steps", 20)
    assert error.startswith(f"Error: {option} {CHANGES[name]} can't change on --resume: the run in 'checkpoints' has ")


def test_all_settings_are_either_changeable_or_refused():
    assert CHANGES.keys() | RESUMABLE == SETTINGS.keys()
    assert not CHANGES.keys() & RESUMABLE


@pytest.mark.usefixtures("reading")
def test_resume_checks_options_before_the_budget():
    assert "--hidden-size 9 can't change" in refuse("train", "--resume", "--max-steps", 5, "--hidden-size", 9)


@pytest.mark.usefixtures("reading")
def test_resume_with_the_budget_spent_prints_the_path(instant):
    assert succeed("train", "--resume") == "checkpoints/i8_l8\n"
    result = call("train", "text.txt", *TINY, "--resume", "--max-steps", 5)
    assert (result.exit_code, result.stdout) == (0, "checkpoints/i8_l8\n")
    assert SPENT in result.stderr


@pytest.mark.usefixtures("instant")
def test_resume_refuses_another_text(empty):
    succeed("train", "text.txt", *TINY, "--max-steps", 2, "--quiet")
    for text in (TEXT + "the cat", TEXT.replace("cat", "act")):
        Path("text.txt").write_text(text, encoding="utf-8")
        assert "this is not the text that the run was trained on" in refuse("train", "--resume", "--max-steps", 9)
    Path("moved.txt").write_text(TEXT, encoding="utf-8")
    Path("text.txt").unlink()
    assert "text.txt': no such file or directory" in refuse("train", "--resume", "--max-steps", 9)
    assert succeed("train", "moved.txt", "--resume", "--max-steps", 9) == "checkpoints/i9_l8\n"


@pytest.mark.usefixtures("instant")
def test_a_run_on_standard_input_needs_its_text_again(empty):
    succeed("train", "-", *TINY, "--max-steps", 2, "--quiet", stdin=TEXT)
    assert "charrnn-tf train - --resume" in refuse("train", "--resume", "--max-steps", 4, stdin="")
    refuse("train", "-", "--resume", "--max-steps", 4, stdin=TEXT + "x")
    assert succeed("train", "-", "--resume", "--max-steps", 4, stdin=TEXT) == "checkpoints/i4_l8\n"


@pytest.mark.parametrize(
    ("folder", "sources", "command"),
    [
        ("checkpoints", ["a.txt"], "charrnn-tf train --resume"),
        ("my run", [], "charrnn-tf train --resume --checkpoint-dir 'my run'"),
        ("checkpoints", ["-"], "charrnn-tf train - --resume"),
        ("checkpoints", ["/my a.txt", "-"], "charrnn-tf train '/my a.txt' - --resume"),
    ],
)
def test_the_command_that_continues_a_run(folder, sources, command):
    text = TextRecord(tuple(Source(path, "", 1) for path in sources), "", 1)
    assert launch.resuming(folder, text) == command


# Fine-tuning

TUNING = ("--batch-size", 2, "--num-steps", 4, "--quiet")


@pytest.mark.usefixtures("instant")
def test_init_from_keeps_the_old_vocabulary_and_shape(reading, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text(("The cat … and the dog. " * 30), encoding="utf-8")
    tiny = (*TUNING, "--max-steps", 2, "--checkpoint-dir", tmp_path / "tuned")
    assert "'…' (U+2026)" in refuse("train", other, "--init-from", "checkpoints", *tiny)
    assert not (tmp_path / "tuned").exists()
    printed = succeed("train", other, "--init-from", "checkpoints", "--unknown", "skip", "--dropout", 0.5, *tiny)
    old, new = read_record("checkpoints/i8_l8"), read_record(printed.strip())
    assert new.vocabulary == old.vocabulary
    assert new.model.hidden_size == old.model.hidden_size == 8
    assert new.model.dropout == 0.5
    assert (new.step, new.init_from) == (2, str(Path("checkpoints/i8_l8").resolve()))


@pytest.mark.usefixtures("instant")
def test_init_from_adds_the_new_characters_to_the_old_vocabulary(reading, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("The cat … and 漢 the dog … é. " * 10, encoding="utf-8")
    tiny = ("--batch-size", 2, "--num-steps", 4, "--checkpoint-dir", tmp_path / "tuned", "--unknown", "add")
    refused = "Error: --unknown add extends the vocabulary of another model: pass one with --init-from\n"
    assert refuse("train", other, *tiny) == refused
    result = call("train", other, "--init-from", "checkpoints", *tiny, "--max-steps", 2)
    assert result.exit_code == 0, result.stderr
    assert (
        "3 characters that the model did not know are added to its vocabulary, '…' (U+2026) 20 times, 'é' (U+00E9) 10 "
        "times, '漢' (U+6F22) 10 times.\n"
    ) in result.stderr
    old, new = read_record("checkpoints/i8_l8"), read_record(result.stdout.strip())
    assert new.vocabulary.characters == old.vocabulary.characters + "é…漢"
    assert new.model.vocab_size == old.model.vocab_size + 3
    again = call("train", "--resume", *tiny[4:], "--max-steps", 3)
    assert (again.exit_code, "are added" in again.stderr) == (0, False), again.stderr
    assert "--unknown skip can't change on --resume" in refuse("train", "--resume", *tiny[4:6], "--unknown", "skip")


@pytest.mark.parametrize("option", [("--hidden-size", 16), ("--cell", "gru"), ("--num-layers", 3), ("--embedding-size", 4)])
@pytest.mark.usefixtures("reading")
def test_init_from_refuses_another_shape(option, tmp_path):
    error = refuse("train", "text.txt", "--init-from", "checkpoints", *option, "--checkpoint-dir", tmp_path / "tuned")
    assert error.startswith(f"Error: {option[0]} {option[1]} contradicts --init-from: the model in ")


@pytest.mark.usefixtures("reading")
def test_init_from_refuses_another_vocabulary(tmp_path):
    arguments = ("--init-from", "checkpoints", "--vocabulary", "printable", "--checkpoint-dir", tmp_path)
    assert refuse("train", "text.txt", *arguments).startswith("Error: --vocabulary contradicts --init-from")


@pytest.mark.usefixtures("instant")
def test_a_tuned_run_resumes_with_its_options_repeated(copy):
    arguments = ("train", "text.txt", "--init-from", "checkpoints", *TUNING, "--checkpoint-dir", "b")
    succeed(*arguments, "--max-steps", 2)
    assert succeed("train", "--checkpoint-dir", "b", "--resume", "--max-steps", 3) == "b/i3_l8\n"
    assert succeed(*arguments, "--max-steps", 4, "--resume") == "b/i4_l8\n"


def test_a_run_may_not_be_overwritten_by_its_own_tuning(copy):
    refuse("train", "text.txt", "--init-from", "checkpoints", "--overwrite", *TUNING, "--max-steps", 2)


# Mistakes


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("missing.txt", "can't read 'missing.txt': no such file or directory"),
        ("text.txt missing.txt", "can't read 'missing.txt': no such file or directory"),
        ("empty.txt", "'empty.txt' is empty"),
        ("-", "'-' is empty"),
        ("- -", "standard input (-) can be read only once"),
        ("one.txt --validation-fraction 0", "too short: 1 characters to train on"),
        (
            "short.txt --validation-fraction 0",
            "but --batch-size 1 with windows of --num-steps 64 needs 65.",
        ),
        ("text.txt --batch-size 4000", "too short"),
        ("text.txt --limit-chars 18 --batch-size 1 --num-steps 2", "the validation part is a single character"),
        ("latin.txt", "'latin.txt' is not UTF-8: byte 3 is 0xE9. It looks like cp1252: pass --encoding cp1252"),
        ("folder", "can't read 'folder': the folder holds no files"),
        ("text.txt --vocabulary printable --unknown error --preset sherlock --limit-chars 9", "too short"),
        ("text.txt --config missing.toml", "can't read the settings in 'missing.toml': no such file or directory"),
        ("text.txt --config folder", "can't read the settings in 'folder': is a directory"),
        ("text.txt --dropout 1", "--dropout must be a number at least 0 and below 1, got 1.0"),
        ("text.txt --learning-rate 0", "--learning-rate must be a number above 0"),
        ("text.txt --learning-rate nan", "--learning-rate must be a number above 0 and at most 1e+06, got nan"),
        ("text.txt --max-seconds 0", "--max-seconds must be a number above 0"),
        ("text.txt --validation-fraction 1", "--validation-fraction must be"),
        ("text.txt --state-reset 1.5", "--state-reset must be"),
        ("text.txt --weight-dropout 1", "--weight-dropout must be a number at least 0 and below 1, got 1.0"),
        (f"text.txt --seed {2**63}", "--seed must be"),
        ("text.txt --hidden-size 8 --checkpoint-dir text.txt", "can't use the folder 'text.txt': file exists"),
        ("text.txt --hidden-size 8 --checkpoint-dir text.txt/run", "can't use the folder 'text.txt/run': not a directory"),
        ("text.txt --init-from missing", "no checkpoints in 'missing': no such file or directory"),
        ("text.txt --init-from folder", "no checkpoints in 'folder'"),
        ("text.txt --resume", "no checkpoints in 'checkpoints': no such file or directory"),
        ("text.txt --resume --checkpoint-dir folder", "no checkpoints in 'folder'. Train one with: charrnn-tf train FILE"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing_behind(odd_files, command, message):
    assert message in refuse("train", *command.split(), stdin="")


def test_a_text_that_may_not_be_read(empty):
    Path("text.txt").chmod(0)
    if os.access("text.txt", os.R_OK):
        pytest.skip("this user reads every file")
    assert "can't read 'text.txt': permission denied" in refuse("train", "text.txt", *TINY)
