"""The rule for the default preset: what it chooses for which text, budget and machine, and what overrides it."""

import re

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from charrnn_tf.api.launch import begin
from charrnn_tf.api.progress import Reading
from charrnn_tf.cli.main import cli
from charrnn_tf.machine import startup as runtime
from charrnn_tf.machine.hardware import settings_for
from charrnn_tf.runs.record import read_record
from charrnn_tf.settings.merge import preset
from charrnn_tf.settings.presets import PRESETS
from charrnn_tf.settings.recipe import LEAST_UPDATES, SPEEDS
from charrnn_tf.text.windows import Streams

LAPTOP = {"cores": 2, "bfloat16": True}


@pytest.fixture
def folder(one_process, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("The cat sat on the mat. " * 40, encoding="utf-8")


def train(*arguments):
    result = CliRunner().invoke(cli, ["train", "text.txt", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return read_record(result.stdout.strip()), result.stderr


# The rule


@pytest.mark.parametrize(
    ("budget", "width"),
    [
        ({"seconds": 10}, 256), ({"seconds": 74}, 256), ({"seconds": 139}, 384), ({"seconds": 278}, 512),
        ({"seconds": 10**6}, 512), ({}, 512), ({"epochs": 1}, 256), ({"epochs": 3}, 512),
        ({"max_steps": LEAST_UPDATES - 1}, 256), ({"max_steps": LEAST_UPDATES}, 512),
        ({"seconds": 10**6, "epochs": 1}, 256), ({"seconds": 74, "epochs": 100}, 256),
    ],
)  # fmt: skip
def test_the_widest_that_the_shortest_budget_gives_enough_updates(budget, width):
    assert settings_for(1_800_000, **budget, **LAPTOP)["hidden_size"] == width


def test_more_cores_and_bfloat16_afford_more():
    widths = [
        settings_for(1_800_000, seconds=100, cores=cores, bfloat16=fast)["hidden_size"]
        for cores, fast in [(1, False), (2, False), (2, True), (4, False), (4, True), (8, True)]
    ]
    assert widths == sorted(widths)
    assert (widths[0], widths[-1]) == (256, 512)


def test_a_processor_with_avx2_alone_affords_less(monkeypatch):
    widths = []
    for only_avx2 in (False, True):
        monkeypatch.setattr("charrnn_tf.settings.recipe.only_avx2", lambda only_avx2=only_avx2: only_avx2)
        widths.append(settings_for(1_800_000, seconds=400, cores=2, bfloat16=False)["hidden_size"])
    assert widths == [512, 256]


def test_dropout_grows_with_the_passes_over_the_text():
    chosen = [settings_for(1_000_000, epochs=epochs, **LAPTOP)["dropout"] for epochs in (1, 2, 5, 10, 20, 40, 80, 1000)]
    assert chosen == [0, 0, 0.15, 0.3, 0.45, 0.5, 0.5, 0.5]


def test_weight_dropout_follows_where_the_passes_are_many():
    chosen = [settings_for(10**6, epochs=epochs, **LAPTOP)["weight_dropout"] for epochs in (1, 5, 6, 10, 20, 29, 1000)]
    assert chosen == [0, 0, 0.05, 0.2, 0.4, 0.5, 0.5]


@pytest.mark.parametrize(("width", "rate"), [(8, 0.02), (256, 0.02), (384, 0.016), (512, 0.014), (1024, 0.01)])
def test_the_rate_falls_with_the_width(width, rate):
    assert settings_for(10**6, hidden_size=width, **LAPTOP)["learning_rate"] == rate


def test_a_given_width_sets_how_many_passes_there_are():
    chosen = [settings_for(10**6, seconds=600, hidden_size=width, **LAPTOP) for width in (128, 256, 512, 1024)]
    assert [each["hidden_size"] for each in chosen] == [128, 256, 512, 1024]
    assert sorted((each["dropout"] for each in chosen), reverse=True) == [each["dropout"] for each in chosen]
    assert chosen[0]["weight_dropout"] > chosen[3]["weight_dropout"]


@pytest.mark.parametrize(
    ("characters", "batch_size"),
    [(65, 1), (500, 1), (1023, 1), (1024, 2), (8_191, 8), (8_192, 16), (16_384, 32), (10**9, 32)],
)
def test_short_texts_are_read_as_fewer_streams(characters, batch_size):
    assert settings_for(characters, epochs=1, **LAPTOP)["batch_size"] == batch_size


def test_validations_are_a_thousand_updates_apart_where_an_epoch_has_fewer():
    for characters, steps in [(2_047_999, 1000), (2_048_000, None), (10_000, 1000)]:
        assert settings_for(characters, epochs=1, **LAPTOP).get("validate_every") == steps


def test_precision_is_the_machines(monkeypatch):
    for has in (True, False):
        monkeypatch.setattr("charrnn_tf.settings.recipe.has_bfloat16", lambda has=has: has)
        assert settings_for(10**6)["precision"] == ("bfloat16" if has else "float32")


@given(
    characters=st.integers(66, 10**10),
    seconds=st.none() | st.floats(1e-3, 1e7),
    epochs=st.none() | st.integers(1, 10**4),
    max_steps=st.none() | st.integers(1, 10**9),
    cores=st.integers(1, 128),
    bfloat16=st.booleans(),
)
def test_what_is_chosen_can_be_trained(characters, seconds, epochs, max_steps, cores, bfloat16):
    chosen = settings_for(characters, seconds=seconds, epochs=epochs, max_steps=max_steps, cores=cores, bfloat16=bfloat16)
    model, config = preset("default", 83, **chosen)
    assert model.hidden_size in SPEEDS
    assert Streams(np.zeros(min(characters, 20_000), np.uint8), config.batch_size, config.num_steps).steps_per_epoch >= 1


# The command


@pytest.mark.slow
def test_the_choice_is_printed_and_saved(folder):
    record, shown = train("--max-steps", 1)
    chosen = settings_for(960 - 96, max_steps=1)
    saved = {**vars(record.model), **vars(record.train)}
    assert {name: saved[name] for name in chosen} == chosen
    assert chosen["batch_size"] == 1
    line = re.search("^Chosen by the text's length, the budget and the machine: (.*). Options override it.$", shown, re.M)
    assert line[1].startswith(
        "hidden size 256, dropout 0.0, weight dropout 0.0, learning rate 0.02, clip norm 0.1, batch size 1, precision "
    )
    assert line[1].endswith(f"{chosen['precision']}, validate every 1000")


@pytest.mark.slow
def test_options_and_files_override_the_choice(folder, tmp_path):
    (tmp_path / "run.toml").write_text("dropout = 0.25\n", encoding="utf-8")
    flags = ("--hidden-size", 8, "--batch-size", 2, "--precision", "float32", "--max-steps", 1)
    flags += ("--validate-every", 5, "--weight-dropout", 0.1, "--learning-rate", 0.001, "--clip-norm", 2)
    record, shown = train("--config", "run.toml", *flags)
    assert (record.model.hidden_size, record.model.dropout) == (8, 0.25)
    assert (record.train.batch_size, record.train.precision) == (2, "float32")
    assert "Chosen" not in shown


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(PRESETS.keys() - {"default"}))
def test_other_presets_keep_their_numbers(folder, name, monkeypatch):
    monkeypatch.setattr("charrnn_tf.settings.recipe.settings_for", None)
    monkeypatch.setattr("charrnn_tf.api.launch.settings_for", None)
    record, shown = train("--preset", name, "--max-steps", 1, "--batch-size", 1, "--hidden-size", 8)
    assert record.train.precision == "float32"
    assert "Chosen" not in shown


@pytest.mark.slow
def test_a_model_that_there_is_keeps_its_shape_and_dropout(folder):
    train("--max-steps", 1, "--hidden-size", 8, "--dropout", 0.35, "--checkpoint-dir", "old")
    record, shown = train("--max-steps", 1, "--init-from", "old", "--checkpoint-dir", "new")
    assert (record.model.hidden_size, record.model.dropout, record.train.batch_size) == (8, 0.35, 1)
    assert "the machine: weight dropout 0.0, learning rate 0.02, clip norm 0.1, batch size 1, precision" in shown


@pytest.mark.slow
def test_rate_and_clipping_are_chosen_for_adam_only(folder):
    record, shown = train("--max-steps", 1, "--hidden-size", 8, "--optimizer", "sgd")
    assert (record.train.learning_rate, record.train.clip_norm) == (0.004, 5.0)
    assert "learning rate" not in shown


@pytest.mark.slow
def test_a_run_goes_on_with_what_was_chosen(folder, monkeypatch):
    first, _ = train("--max-steps", 1, "--hidden-size", 8)
    monkeypatch.setattr("charrnn_tf.api.launch.settings_for", None)
    second, _ = train("--max-steps", 2, "--resume")
    assert second.model == first.model
    assert second.train.batch_size == first.train.batch_size


def test_without_a_budget_the_default_one_counts(folder, monkeypatch):
    seen = {}
    monkeypatch.setattr(
        "charrnn_tf.api.launch.settings_for", lambda characters, **budget: seen.update(budget) or {"batch_size": 1}
    )
    monkeypatch.setattr(runtime, "start", lambda *_: None)
    begin(("text.txt",), "run", {"hidden_size": 8}, None, False, 0.0, True, Reading())
    assert seen == {"seconds": 60, "epochs": None, "max_steps": None, "hidden_size": 8}
