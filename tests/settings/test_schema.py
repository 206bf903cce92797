"""The settings' fields: types, bounds, JSON, and the option that documents each."""

import dataclasses
import json
import math

import pytest

from charrnn_tf.errors import ConfigError
from charrnn_tf.settings.merge import preset
from charrnn_tf.settings.presets import PRESETS
from charrnn_tf.settings.schema import (
    BUDGETS,
    GROUPS,
    RESUMABLE,
    SETTINGS,
    TRAIN_OPTIONS,
    ModelConfig,
    TrainConfig,
    check_cuts,
    from_json,
)


def test_only_budgets_and_reporting_may_change_on_resume():
    reporting = {"log_every", "save_every", "keep", "patience", "strategy"} | {
        name for name in TRAIN_OPTIONS if name.startswith("sample_")
    }
    assert reporting | set(BUDGETS) == RESUMABLE
    assert {"sample_every", "sample_prime", "sample_length", "sample_top_n", "sample_temperature"} <= RESUMABLE


@pytest.mark.parametrize("name", PRESETS)
def test_settings_survive_json(name):
    assert preset(name, 83, sample_prime="한")[1].sample_prime == ("한",)
    for config in preset(name, 83, sample_prime=["The ", "한"], seed=7):
        data = json.loads(json.dumps(dataclasses.asdict(config)))
        assert from_json(type(config), data, "config.json") == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.pop("vocab_size"), r"config\.json lacks vocab_size"),
        (lambda data: data.update(colour=1), r"config\.json has settings that this version does not know: colour"),
        (lambda data: data.update(dropout=2), r"config\.json: `dropout` must be a number at least 0 and below 1, got 2"),
        (lambda data: data.update(cell=None), r"config\.json: `cell` must be one of lstm, gru, got None"),
    ],
)
def test_json_of_another_shape_is_refused_by_file_and_name(change, message):
    data = dataclasses.asdict(ModelConfig(vocab_size=3))
    change(data)
    with pytest.raises(ConfigError, match=message):
        from_json(ModelConfig, data, "config.json")


def test_a_setting_missing_from_an_older_file_takes_its_default():
    data = dataclasses.asdict(TrainConfig(batch_size=3))
    del data["min_count"], data["patience"]
    assert from_json(TrainConfig, data, "config.json") == TrainConfig(batch_size=3)


@pytest.mark.parametrize("data", [None, [], "settings", 3])
def test_json_that_is_not_an_object_is_refused(data):
    with pytest.raises(ConfigError, match=r"config\.json holds no settings"):
        from_json(TrainConfig, data, "config.json")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("vocab_size", 0), ("vocab_size", 2.0), ("cell", "rnn"), ("cell", ["lstm"]), ("hidden_size", 0),
        ("hidden_size", True), ("hidden_size", "8"), ("num_layers", 0), ("dropout", 1), ("dropout", -0.1),
        ("dropout", math.nan), ("dropout", None), ("embedding_size", -1), ("init", "xavier"), ("num_layers", 101),
    ],
)  # fmt: skip
def test_a_model_setting_out_of_range_is_named(name, value):
    with pytest.raises(ConfigError) as caught:
        ModelConfig(**{"vocab_size": 3, name: value})
    assert str(caught.value).startswith(f"`{name}` must be ")
    assert str(caught.value).endswith(f"got {value!r}")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("vocabulary", "ascii"), ("unknown", "ignore"), ("limit_chars", 0), ("batch_size", 0), ("batch_size", 2.5),
        ("num_steps", 0), ("num_steps", None), ("epochs", 0), ("epochs", 1.5), ("max_steps", 0), ("max_seconds", 0),
        ("max_seconds", math.inf), ("max_seconds", "60"), ("optimizer", "adamw"), ("learning_rate", 0),
        ("learning_rate", math.nan), ("learning_rate", True), ("schedule", "linear"), ("step_epochs", 0), ("gamma", 0),
        ("clip_norm", -1), ("clip_norm", math.inf), ("state_reset", 1.01), ("state_reset", -0.01),
        ("validation_fraction", 1), ("validation_fraction", -0.1), ("seed", -1), ("seed", 2**63), ("seed", None),
        ("precision", "float16"), ("precision", None), ("xla", "yes"), ("xla", 2), ("shards", 0), ("save_every", 0),
        ("keep", 0), ("keep", None), ("log_every", 0), ("validate_every", 0), ("sample_every", 0), ("sample_every", "step"),
        ("sample_prime", ["The ", 3]), ("sample_prime", 5), ("sample_length", 0),
        ("sample_top_n", -1), ("sample_temperature", -1), ("sample_length", 1_000_001), ("min_count", 0),
        ("warmup_steps", -1), ("patience", -1), ("weight_dropout", -0.1), ("weight_dropout", 1), ("learning_rate", 2e6),
        ("separator", 5), ("strategy", "horovod"),
    ],
)  # fmt: skip
def test_a_train_setting_out_of_range_is_named(name, value):
    with pytest.raises(ConfigError) as caught:
        TrainConfig(**{name: value})
    assert str(caught.value).startswith(f"`{name}` must be ")


@pytest.mark.parametrize(
    "settings",
    [
        {"dropout": 0}, {"dropout": 0.999}, {"embedding_size": 0}, {"clip_norm": 0}, {"state_reset": 0}, {"state_reset": 1},
        {"validation_fraction": 0}, {"seed": 2**63 - 1}, {"sample_top_n": 0}, {"sample_temperature": 0}, {"keep": 1},
        {"sample_every": "epoch"}, {"sample_every": 1}, {"sample_prime": ()}, {"max_seconds": 0.5}, {"batch_size": 1},
        {"batch_size": 6, "shards": 3}, {"precision": "float32"}, {"precision": "bfloat16"}, {"xla": None}, {"xla": False},
        {"xla": True},
    ],
)  # fmt: skip
def test_the_ends_of_each_range_are_allowed(settings):
    model, train = preset("default", 83, **settings)
    assert {**dataclasses.asdict(model), **dataclasses.asdict(train)}.items() >= settings.items()


def test_shards_that_do_not_divide_the_batch_are_refused():
    with pytest.raises(ConfigError, match="`shards` must divide `batch_size`, but 10 / 4 is not whole"):
        TrainConfig(batch_size=10, shards=4)


def test_numbers_become_floats_so_that_equal_settings_are_written_alike():
    config = TrainConfig(learning_rate=1, clip_norm=5)
    assert json.dumps([config.learning_rate, config.clip_norm]) == "[1.0, 5.0]"


def test_configs_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainConfig().seed = 3
    with pytest.raises(dataclasses.FrozenInstanceError):
        ModelConfig(vocab_size=3).hidden_size = 3


def test_the_kind_of_every_setting_matches_its_annotation_and_default():
    for each in SETTINGS.values():
        about = each.metadata["setting"]
        name = {"Interval": "int | str", "tuple": "tuple[str, ...]"}.get(about.kind.__name__, about.kind.__name__)
        annotation = each.type.__name__ if isinstance(each.type, type) and about.kind is not tuple else str(each.type)
        assert annotation == name + (" | None" if about.optional else ""), each.name
        assert about.check(each.name, each.default) == each.default
        assert about.help.endswith(".")
        assert about.group in GROUPS


@pytest.mark.parametrize(
    ("cuts", "message"),
    [
        ((-1, 1.0, 1.0), "`top_n` must be a whole number of at least 0 (no cut), got -1"),
        ((0, 0.0, 1.0), "`top_p` must be a number above 0 and at most 1 (no cut), got 0.0"),
        ((0, 1.0, 1.0, -0.1), "`min_p` must be a number from 0 (no cut) to 1, got -0.1"),
        ((0, 1.1, 1.0), "`top_p` must be a number above 0 and at most 1 (no cut), got 1.1"),
        ((0, 1.0, -0.1), "`temperature` must be a number of at least 0 (always the likeliest), got -0.1"),
        ((0, 1.0, math.nan), "`temperature` must be a number of at least 0 (always the likeliest), got nan"),
        ((0, 1.0, "hot"), "`temperature` must be a number of at least 0 (always the likeliest), got 'hot'"),
        ((1.5, 1.0, 1.0), "`top_n` must be a whole number of at least 0 (no cut), got 1.5"),
        ((0, 1.0, math.inf), "`temperature` must be a number of at least 0 (always the likeliest), got inf"),
    ],
)
def test_cuts_out_of_range_are_named(cuts, message):
    with pytest.raises(ConfigError) as caught:
        check_cuts(*cuts)
    assert str(caught.value) == message
    check_cuts(0, 1.0, 0.0)
