"""Settings: their bounds, the presets' numbers, which source wins, and the ways through TOML and JSON."""

import dataclasses
import json
import math

import pytest

from charrnn_tf.errors import ConfigError
from charrnn_tf.settings.merge import preset, read_settings, resolve
from charrnn_tf.settings.presets import PRESETS
from charrnn_tf.settings.schema import (
    BUDGETS,
    MODEL_OPTIONS,
    RESUMABLE,
    TRAIN_OPTIONS,
    VALIDATION_LIMIT,
    ModelConfig,
    TrainConfig,
    from_json,
    split,
)

# The numbers the presets stand for, spelled out.
ADAM = {"optimizer": "adam", "schedule": "constant", "warmup_steps": 0}
PUBLISHED = {
    "notebook": {
        **ADAM, "cell": "lstm", "num_layers": 2, "hidden_size": 512, "dropout": 0.5, "embedding_size": 0, "init": "wide",
        "batch_size": 128, "num_steps": 100, "learning_rate": 0.001, "clip_norm": 5, "epochs": 20, "max_steps": None,
        "max_seconds": None, "validation_fraction": 0.1, "state_reset": 0, "vocabulary": "corpus", "unknown": "error",
        "limit_chars": None,
    },
    "notebook-tf1": {
        **ADAM, "cell": "lstm", "num_layers": 2, "hidden_size": 128, "dropout": 0.5, "embedding_size": 0, "init": "tf1",
        "batch_size": 10, "num_steps": 50, "learning_rate": 0.01, "clip_norm": 5, "epochs": 2, "max_steps": None,
        "max_seconds": None, "validation_fraction": 0, "state_reset": 0, "save_every": 200, "keep": 100, "sample_top_n": 5,
        "sample_prime": ("The ", "Far"), "vocabulary": "corpus", "unknown": "error", "limit_chars": None,
    },
    "sherlock": {
        **ADAM, "cell": "gru", "num_layers": 1, "hidden_size": 100, "dropout": 0, "embedding_size": 100,
        "batch_size": 1, "num_steps": 25, "learning_rate": 0.005, "clip_norm": 0, "epochs": 40, "max_steps": None,
        "max_seconds": None, "validation_fraction": 0, "state_reset": 1, "vocabulary": "printable", "unknown": "skip",
        "limit_chars": 10_000, "sample_prime": ("I",), "sample_length": 100, "sample_every": "epoch", "sample_top_n": 0,
        "sample_temperature": 1,
    },
    "tf-tutorial": {
        **ADAM, "cell": "gru", "num_layers": 1, "hidden_size": 1024, "dropout": 0, "embedding_size": 256,
        "batch_size": 64, "num_steps": 100, "learning_rate": 0.001, "clip_norm": 0, "epochs": 20, "max_steps": None,
        "max_seconds": None, "state_reset": 1, "sample_temperature": 1, "sample_top_n": 0, "vocabulary": "corpus",
        "unknown": "error", "limit_chars": None,
    },
}  # fmt: skip


def settings_of(name, **changes):
    """A preset's settings by name, from both of its configs."""
    model, train = preset(name, 83, **changes)
    return {**dataclasses.asdict(model), **dataclasses.asdict(train)}


@pytest.mark.parametrize(
    ("name", "setting", "value"), [(n, s, v) for n, table in PUBLISHED.items() for s, v in table.items()]
)
def test_a_preset_has_its_published_number(name, setting, value):
    assert settings_of(name)[setting] == value


def test_every_preset_builds_and_has_its_table():
    assert set(PRESETS) == {"default", *PUBLISHED}
    for name in PRESETS:
        model, train = preset(name, 83)
        assert model.vocab_size == 83
        assert set(PRESETS[name]) <= {*MODEL_OPTIONS, *TRAIN_OPTIONS}
        assert {**dataclasses.asdict(model), **dataclasses.asdict(train)}.items() >= PRESETS[name].items()


def test_the_default_preset_sets_no_budget_and_holds_out_a_tenth():
    default = settings_of("default")
    assert [default[budget] for budget in BUDGETS] == [None, None, None]
    assert (default["validation_fraction"], default["clip_norm"], default["keep"]) == (0.1, 5, 5)
    assert (default["precision"], default["shards"], default["xla"]) == ("float32", None, None)


def test_a_presets_settings_can_be_changed():
    changed = settings_of("notebook", hidden_size=8, max_steps=3, init="pytorch")
    assert (changed["hidden_size"], changed["init"], changed["num_layers"]) == (8, "pytorch", 2)
    assert [changed[budget] for budget in BUDGETS] == [None, 3, None]


def test_a_preset_or_a_change_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match=r"preset must be one of default, notebook, .*got 'karpathy'"):
        preset("karpathy", 83)
    with pytest.raises(ConfigError, match=r"there is no setting 'hiden_size'; did you mean 'hidden_size'\?"):
        preset("notebook", 83, hiden_size=8)


def test_flags_win_over_the_file_and_the_file_over_the_preset():
    file = {"hidden_size": 2, "batch_size": 2}
    merged = resolve("notebook", file, {"batch_size": 3, "seed": 4})
    assert merged == {**PRESETS["notebook"], "hidden_size": 2, "batch_size": 3, "seed": 4}
    assert PRESETS["notebook"]["hidden_size"] == 512  # the preset itself stays
    assert file == {"hidden_size": 2, "batch_size": 2}


@pytest.mark.parametrize(
    ("file", "flags", "expected"),
    [
        ({}, {}, {"epochs": 20}),
        ({"seed": 1}, {"seed": 2}, {"epochs": 20}),
        ({"max_steps": 7}, {}, {"max_steps": 7}),
        ({"max_steps": 7, "epochs": 3}, {"seed": 1}, {"max_steps": 7, "epochs": 3}),
        ({"max_steps": 7, "epochs": 3}, {"max_seconds": 9}, {"max_seconds": 9}),
        ({}, {"epochs": 1, "max_seconds": 9}, {"epochs": 1, "max_seconds": 9}),
    ],
)
def test_budgets_are_replaced_together(file, flags, expected):
    merged = resolve("notebook", file, flags)
    assert {name: merged[name] for name in BUDGETS if name in merged} == expected
    assert merged["hidden_size"] == 512


def test_split_gives_each_setting_to_the_config_that_has_it():
    model, train = split({"cell": "gru", "seed": 3, "preset": "notebook"})
    assert (model, train) == ({"cell": "gru"}, {"seed": 3})


def test_only_budgets_and_reporting_may_change_on_resume():
    reporting = {"log_every", "save_every", "keep", "patience", "strategy"} | {
        name for name in TRAIN_OPTIONS if name.startswith("sample_")
    }
    assert reporting | set(BUDGETS) == RESUMABLE
    assert {"sample_every", "sample_prime", "sample_length", "sample_top_n", "sample_temperature"} <= RESUMABLE


def test_a_settings_file_is_flat_toml(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(
        'preset = "notebook"\nhidden_size = 64\nlearning_rate = 1e-3\nsample_prime = ["A", "é"]\n', encoding="utf-8"
    )
    read = read_settings(path)
    assert read == {"preset": "notebook", "hidden_size": 64, "learning_rate": 0.001, "sample_prime": ["A", "é"]}
    model, train = split(resolve("notebook", read, {}))
    assert ModelConfig(vocab_size=5, **model).hidden_size == 64
    assert TrainConfig(**train).sample_prime == ("A", "é")


@pytest.mark.parametrize("name", sorted({*MODEL_OPTIONS, *TRAIN_OPTIONS} - {"shards", "xla"}))
def test_a_settings_file_may_name_every_option(tmp_path, name):
    (tmp_path / "run.toml").write_text(f"{name} = 1\n", encoding="utf-8")
    assert read_settings(tmp_path / "run.toml") == {name: 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hiden_size = 8\n", "has a setting 'hiden_size', which there is not; did you mean 'hidden_size'?"),
        (b"batch-size = 8\n", "has a setting 'batch-size', which there is not; did you mean 'batch_size'?"),
        (b"zzz = 8\n", "has a setting 'zzz', which there is not; they are: batch_size, cell, clip_norm, dropout, "),
        (b"vocab_size = 8\n", "has a setting 'vocab_size', which there is not"),
        (b"shards = 2\n", "has a setting 'shards', which there is not"),
        (b"xla = true\n", "has a setting 'xla', which there is not"),
        (b"[model]\nhidden_size = 8\n", "has a setting 'model', which there is not"),
        (b"hidden_size: 8\n", "can't read the settings in "),
        (b"hidden_size = '\xff'\n", "can't read the settings in "),
    ],
)
def test_a_settings_file_that_is_wrong_is_told_in_one_line(tmp_path, content, message):
    path = tmp_path / "run.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_settings(path)
    assert message in str(caught.value)
    assert repr(str(path)) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_settings_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(ConfigError) as caught:
        read_settings(tmp_path / "no.toml")
    assert str(caught.value) == f"can't read the settings in {str(tmp_path / 'no.toml')!r}: no such file or directory"


@pytest.mark.parametrize("name", PRESETS)
def test_settings_survive_json(name):
    for config in preset(name, 83, sample_prime=["The ", "한"], seed=7):
        data = json.loads(json.dumps(dataclasses.asdict(config)))
        assert from_json(type(config), data, "config.json") == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.pop("vocab_size"), r"config\.json lacks vocab_size"),
        (lambda data: data.update(colour=1), r"config\.json has settings that this version does not know: colour"),
        (lambda data: data.update(dropout=2), r"config\.json: dropout must be a number at least 0 and below 1, got 2"),
        (lambda data: data.update(cell=None), r"config\.json: cell must be one of lstm, gru, got None"),
    ],
)
def test_json_of_another_shape_is_refused_by_file_and_name(change, message):
    data = dataclasses.asdict(ModelConfig(vocab_size=3))
    change(data)
    with pytest.raises(ConfigError, match=message):
        from_json(ModelConfig, data, "config.json")


def test_a_setting_that_an_older_version_did_not_have_has_its_default():
    data = dataclasses.asdict(TrainConfig(batch_size=3))
    del data["min_count"], data["patience"]
    assert from_json(TrainConfig, data, "config.json") == TrainConfig(batch_size=3)


@pytest.mark.parametrize("data", [None, [], "settings", 3])
def test_json_that_is_no_object_is_refused(data):
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
    assert str(caught.value).startswith(f"{name} must be ")
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
        ("sample_prime", "The "), ("sample_prime", ["The ", 3]), ("sample_prime", 5), ("sample_length", 0),
        ("sample_top_n", -1), ("sample_temperature", -1), ("sample_length", 1_000_001), ("min_count", 0),
        ("warmup_steps", -1), ("patience", -1), ("weight_dropout", -0.1), ("weight_dropout", 1), ("learning_rate", 2e6),
        ("separator", 5), ("strategy", "horovod"),
    ],
)  # fmt: skip
def test_a_train_setting_out_of_range_is_named(name, value):
    with pytest.raises(ConfigError) as caught:
        TrainConfig(**{name: value})
    assert str(caught.value).startswith(f"{name} must be ")


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
    assert settings_of("default", **settings).items() >= settings.items()


def test_shards_that_do_not_divide_the_batch_are_refused():
    with pytest.raises(ConfigError, match="shards must divide batch_size, but 10 / 4 is not whole"):
        TrainConfig(batch_size=10, shards=4)


def test_numbers_become_floats_so_that_equal_settings_are_written_alike():
    config = TrainConfig(learning_rate=1, clip_norm=5)
    assert json.dumps([config.learning_rate, config.clip_norm]) == "[1.0, 5.0]"


def test_configs_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainConfig().seed = 3
    with pytest.raises(dataclasses.FrozenInstanceError):
        ModelConfig(vocab_size=3).hidden_size = 3


@pytest.mark.parametrize(
    ("characters", "seconds"),
    [(1, 60), (100_000, 60), (340_000, 204), (1_000_000, 600), (1_985_224, 1191), (2_700_000, 1620), (10**9, 1620)],
)
def test_without_a_budget_it_is_ten_minutes_a_million_characters_within_bounds(characters, seconds):
    config = TrainConfig(seed=3).with_budget(characters)
    assert config == TrainConfig(seed=3, max_seconds=seconds)


@pytest.mark.parametrize("budget", [{"epochs": 1}, {"max_steps": 1}, {"max_seconds": 1}])
def test_a_budget_that_is_given_stays(budget):
    config = TrainConfig(**budget)
    assert config.with_budget(10**9) == config


def test_validation_comes_each_epoch_but_reads_a_tenth_of_what_training_reads_at_most():
    config = TrainConfig(batch_size=10, num_steps=100)
    most = 10 * VALIDATION_LIMIT // 1000
    assert config.validation_interval(most - 1) == most - 1
    assert config.validation_interval(most + 1) == most == 10_000
    assert TrainConfig(batch_size=10**5, num_steps=10**5).validation_interval(3) == 1
    assert TrainConfig(batch_size=10, num_steps=100, validate_every=7).validation_interval(3) == 7
