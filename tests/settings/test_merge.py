"""Settings are decided in one place: what wins over what, what is filled in, and what a resumed run may change."""

import dataclasses
import math

import pytest

from charrnn_tf.errors import ConfigError
from charrnn_tf.settings.merge import (
    check_resumed,
    complete,
    default_shards,
    initial_model,
    merge,
    read_settings,
    resolve,
    resolve_resumed,
)
from charrnn_tf.settings.presets import PRESETS
from charrnn_tf.settings.recipe import Machine
from charrnn_tf.settings.schema import (
    BUDGETS,
    MODEL_OPTIONS,
    RESUMABLE,
    TRAIN_OPTIONS,
    VALIDATION_LIMIT,
    ModelConfig,
    TrainConfig,
    from_json,
)

V = 83
ANNA = 1_985_224  # characters
SHORT = 960
LAPTOP = Machine(cores=2, bfloat16=True)
MACHINES = {
    "one core": Machine(cores=1),
    "laptop": LAPTOP,
    "AVX2 only": Machine(cores=2, only_avx2=True),
    "64 cores": Machine(cores=64, bfloat16=True),
    "GPU": Machine(cores=8, gpus=1),
}
DECIDED = ("validate_every", "shards", "xla")


def ask(name="default", file=(), initial=None, **flags):
    return merge(name, dict(file), flags, initial)


def pick(settings, *names):
    """The values of some settings, of a config or a dict."""
    return [settings[name] if isinstance(settings, dict) else getattr(settings, name) for name in names]


# Which layer wins


def test_flags_win_over_the_file_and_the_file_over_the_preset():
    file = {"hidden_size": 2, "batch_size": 2}
    asked = ask("notebook", file, batch_size=3, seed=4)
    assert asked.settings == {**PRESETS["notebook"], "hidden_size": 2, "batch_size": 3, "seed": 4}
    assert pick(asked.train, "batch_size", "seed", "num_steps") == [3, 4, 100]
    assert PRESETS["notebook"]["hidden_size"] == 512  # neither argument is changed
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
    asked = ask("notebook", file, **flags)
    assert {name: asked.settings[name] for name in BUDGETS if name in asked.settings} == expected
    assert asked.settings["hidden_size"] == 512
    assert asked.budget


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"dropout": 2}, "`dropout` must be a number at least 0 and below 1, got 2"),
        ({"batch_size": "8"}, "`batch_size` must be a whole number of at least 1 and below 2**63, got '8'"),
        ({"min_count": "a"}, "`min_count` must be a whole number of at least 1 and below 2**63, got 'a'"),
    ],
)
def test_wrong_values_are_refused_before_the_text_is_read(setting, message):
    for layers in ({"file": setting}, setting):
        with pytest.raises(ConfigError) as caught:
            ask(**layers)
        assert str(caught.value) == message
    with pytest.raises(ConfigError, match=r"^`preset` must be one of"):
        ask("karpathy")


@pytest.mark.parametrize(
    ("flags", "unknown"),
    [
        ({}, "error"),
        ({"min_count": 1}, "error"),
        ({"min_count": 2}, "skip"),
        ({"min_count": 2, "unknown": "error"}, "error"),
    ],
)
def test_rare_characters_are_skipped_unless_asked_otherwise(flags, unknown):
    asked = ask(**flags)
    assert asked.train.unknown == resolve(asked, ANNA, V, LAPTOP).train.unknown == unknown


# Settings files


def test_a_settings_file_is_flat_toml(write):
    path = write('preset = "notebook"\nhidden_size = 64\nlearning_rate = 1e-3\nsample_prime = ["A", "é"]\n', "run.toml")
    read = read_settings(path)
    assert read == {"preset": "notebook", "hidden_size": 64, "learning_rate": 0.001, "sample_prime": ["A", "é"]}
    resolved = resolve(merge(read.pop("preset"), read, {}), ANNA, V, LAPTOP)
    assert resolved.model.hidden_size == 64
    assert resolved.train.sample_prime == ("A", "é")


@pytest.mark.parametrize("name", sorted({*MODEL_OPTIONS, *TRAIN_OPTIONS} - {"shards", "xla"}))
def test_a_settings_file_may_name_every_option(write, name):
    assert read_settings(write(f"{name} = 1\n", "run.toml")) == {name: 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hiden_size = 8\n", "has an unknown setting 'hiden_size'; did you mean 'hidden_size'?"),
        (b"batch-size = 8\n", "has an unknown setting 'batch-size'; did you mean 'batch_size'?"),
        (b"zzz = 8\n", "has an unknown setting 'zzz'; known are: averaging, batch_size, cell, clip_norm, dropout, "),
        (b"vocab_size = 8\n", "has an unknown setting 'vocab_size'"),
        (b"shards = 2\n", "has an unknown setting 'shards'"),
        (b"xla = true\n", "has an unknown setting 'xla'"),
        (b"[model]\nhidden_size = 8\n", "has an unknown setting 'model'"),
        (b"hidden_size: 8\n", "can't read the settings in "),
        (b"hidden_size = '\xff'\n", "can't read the settings in "),
    ],
)
def test_a_wrong_settings_file_is_a_one_line_error(write, content, message):
    path = write(content, "run.toml")
    with pytest.raises(ConfigError) as caught:
        read_settings(path)
    assert message in str(caught.value)
    assert repr(str(path)) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_settings_file_is_named(tmp_path):
    with pytest.raises(ConfigError) as caught:
        read_settings(tmp_path / "no.toml")
    assert str(caught.value) == f"can't read the settings in {str(tmp_path / 'no.toml')!r}: no such file or directory"


# A new run


@pytest.mark.parametrize(
    ("machine", "dropout", "weight_dropout", "precision", "shards", "interval"),
    [
        ("one core", 0.2, 0.05, "float32", 1, 1000),
        ("laptop", 0.45, 0.35, "bfloat16", 2, 1000),
        ("AVX2 only", 0.05, 0.0, "float32", 2, 712),
        ("64 cores", 0.5, 0.5, "bfloat16", 4, 1000),
        ("GPU", 0.5, 0.5, "float32", 1, 1000),
    ],
)
def test_the_default_preset_depends_on_the_machine(machine, dropout, weight_dropout, precision, shards, interval):
    resolved = resolve(ask(), ANNA, V, MACHINES[machine])
    settings = dataclasses.asdict(resolved.model) | dataclasses.asdict(resolved.train)
    assert pick(settings, "vocab_size", "hidden_size", "dropout") == [V, 512, dropout]
    assert pick(settings, "weight_dropout", "precision", "batch_size") == [weight_dropout, precision, 32]
    assert pick(settings, "max_seconds", "validate_every", "shards", "xla") == [1191.0, interval, shards, False]
    assert resolved.budget_given is False
    assert settings.items() >= {name: choice.value for name, choice in resolved.chosen.items()}.items()
    assert len(resolved.chosen) == 11
    assert all(choice.why for choice in resolved.chosen.values())


@pytest.mark.parametrize(
    ("machine", "shards", "xla"),
    [
        ("one core", {"notebook": 1, "notebook-tf1": 1, "sherlock": 1, "tf-tutorial": 1}, True),
        ("laptop", {"notebook": 2, "notebook-tf1": 2, "sherlock": 1, "tf-tutorial": 2}, True),
        ("AVX2 only", {"notebook": 2, "notebook-tf1": 2, "sherlock": 1, "tf-tutorial": 2}, True),
        ("64 cores", {"notebook": 16, "notebook-tf1": 2, "sherlock": 1, "tf-tutorial": 8}, True),
        ("GPU", {"notebook": 1, "notebook-tf1": 1, "sherlock": 1, "tf-tutorial": 1}, False),
    ],
)
def test_other_presets_keep_their_numbers_on_every_machine(machine, shards, xla):
    intervals = {"notebook": 139, "notebook-tf1": 3970, "sherlock": 1562, "tf-tutorial": 310}
    for name, parts in shards.items():
        length = 39_051 if name == "sherlock" else ANNA  # XLA needs few streams and at least 1,000 steps
        resolved = resolve(ask(name), length, V, MACHINES[machine])
        assert resolved.chosen == {}
        assert resolved.budget_given
        settings = dataclasses.asdict(resolved.model) | dataclasses.asdict(resolved.train)
        assert settings.items() >= PRESETS[name].items()
        assert pick(settings, *DECIDED) == [intervals[name], parts, xla and name == "sherlock"]
        assert settings["precision"] == "float32"


@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
@pytest.mark.parametrize("name", PRESETS)
def test_nothing_is_left_open_and_resolving_again_changes_nothing(name, machine):
    for flags in ({}, {"max_steps": 5}, {"epochs": 3, "batch_size": 4}, {"strategy": "mirrored"}):
        for characters in (SHORT, ANNA):
            asked = ask(name, **flags)
            resolved = resolve(asked, characters, V, machine)
            train = resolved.train
            assert None not in pick(train, *DECIDED)
            assert pick(train, *BUDGETS) != [None, None, None]
            assert resolve(asked, characters, V, machine) == resolved
            assert complete(train, characters, machine) == train
            assert resolve_resumed(ask(), resolved.model, train, characters, machine).train == train


def test_options_and_files_override_the_recipe():
    asked = ask(file={"dropout": 0.25}, hidden_size=8, batch_size=2, precision="float32", max_steps=1, validate_every=5,
                weight_dropout=0.1, learning_rate=0.001, clip_norm=2, final_rate=0, averaging=0, weight_decay=0)  # fmt: skip
    resolved = resolve(asked, SHORT, V, LAPTOP)
    assert resolved.chosen == {}
    assert pick(resolved.model, "hidden_size", "dropout") == [8, 0.25]
    names = ("batch_size", "precision", "validate_every", "weight_dropout", "learning_rate", "clip_norm")
    assert pick(resolved.train, *names) == [2, "float32", 5, 0.1, 0.001, 2.0]


def test_the_recipe_follows_a_given_width_and_budget():
    wide = resolve(ask(hidden_size=1024, max_seconds=400), ANNA, V, LAPTOP)
    narrow = resolve(ask(hidden_size=128, max_seconds=400), ANNA, V, LAPTOP)
    assert pick(wide.train, "learning_rate", "max_seconds") == [0.01, 400.0]
    assert narrow.model.dropout > wide.model.dropout
    assert "hidden_size" not in {**wide.chosen, **narrow.chosen}


def test_the_speed_matters_where_time_decides_on_a_setting_that_is_open():
    given = {"hidden_size": 256, "dropout": 0.1, "weight_dropout": 0.1}
    for matters, asked in [
        (True, ask()), (True, ask(max_seconds=60)), (True, ask(max_seconds=60, epochs=3)), (False, ask(epochs=3)),
        (False, ask(max_steps=3)), (False, ask(**given)), (False, ask("notebook", max_seconds=60)),
        *((True, ask(**{name: value for name, value in given.items() if name != left_out})) for left_out in given),
    ]:  # fmt: skip
        assert resolve(asked, ANNA, V, LAPTOP).depends_on_speed is matters, asked.settings


def test_the_recipe_follows_a_given_precision():
    chosen = [
        resolve(ask(precision=name, hidden_size=512), ANNA, V, LAPTOP).model.dropout for name in ("bfloat16", "float32")
    ]
    assert chosen[0] > chosen[1]


def test_rate_clipping_averaging_and_decay_are_chosen_for_adam_only():
    names = ("learning_rate", "clip_norm", "final_rate", "averaging", "weight_decay")
    plain = [0.004, 5.0, 0.0, 0.0, 0.0]
    for optimizer, values in [("adam", [0.014, 0.1, 0.4, 0.3, 0.05]), ("sgd", plain), ("rmsprop", plain)]:
        resolved = resolve(ask(optimizer=optimizer), ANNA, V, LAPTOP)
        assert pick(resolved.train, *names) == values
        assert {*names} & set(resolved.chosen) == ({*names} if optimizer == "adam" else {*()})


@pytest.mark.parametrize(
    ("characters", "seconds"),
    [(1, 60), (100_000, 60), (340_000, 204), (1_000_000, 600), (1_985_224, 1191), (2_700_000, 1620), (10**9, 1620)],
)
def test_without_a_budget_it_is_ten_minutes_per_million_characters_within_bounds(characters, seconds):
    train = complete(TrainConfig(seed=3), characters, LAPTOP)
    assert pick(train, *BUDGETS, "seed") == [None, None, seconds, 3]


@pytest.mark.parametrize("budget", [{"epochs": 1}, {"max_steps": 1}, {"max_seconds": 1}])
def test_a_given_budget_stays(budget):
    assert pick(complete(TrainConfig(**budget), 10**9, LAPTOP), *BUDGETS) == [budget.get(name) for name in BUDGETS]


def test_validations_come_each_epoch_or_after_ten_times_the_text_they_read():
    def interval(steps_per_epoch, **settings):
        config = TrainConfig(**{"batch_size": 10, "num_steps": 100, "validation_fraction": 0} | settings)
        return complete(config, steps_per_epoch * config.batch_size * config.num_steps + 1, LAPTOP).validate_every

    most = 10 * VALIDATION_LIMIT // 1000
    assert interval(most - 1) == most - 1
    assert interval(most + 1) == most == 10_000
    assert interval(3, batch_size=10**5, num_steps=10**5) == 1
    assert interval(3, validate_every=7) == 7


@pytest.mark.parametrize(
    ("cores", "batch_size", "shards"),
    [
        (1, 128, 1), (2, 10, 2), (2, 9, 1), (2, 8, 1), (2, 128, 2), (4, 32, 4), (4, 18, 3), (4, 16, 2), (8, 128, 8),
        (64, 128, 16), (64, 1, 1),
    ],
)  # fmt: skip
def test_a_batch_has_a_shard_per_core_that_divides_it_into_at_least_five_streams(cores, batch_size, shards):
    assert default_shards(batch_size, cores) == shards
    assert complete(TrainConfig(batch_size=batch_size), ANNA, Machine(cores=cores)).shards == shards


@pytest.mark.parametrize(
    ("batch_size", "budget", "xla"),
    [
        (1, {"max_seconds": 5}, True), (8, {}, True), (8, {"max_steps": 1000}, True), (8, {"max_steps": 999}, False),
        (9, {}, False), (9, {"max_steps": 10**6}, False), (8, {"epochs": 10}, True), (8, {"epochs": 9}, False),
        (8, {"epochs": 10, "max_steps": 999}, False),
    ],
)  # fmt: skip
def test_xla_is_for_few_streams_and_many_steps(batch_size, budget, xla):
    config = TrainConfig(batch_size=batch_size, num_steps=10, validation_fraction=0, **budget)
    characters = 100 * batch_size * 10 + 1  # 100 steps per epoch
    assert complete(config, characters, LAPTOP).xla is xla
    assert complete(config, characters, MACHINES["GPU"]).xla is False
    for strategy in ("mirrored", "multiworker"):
        assert complete(dataclasses.replace(config, strategy=strategy), characters, LAPTOP).xla is False


@pytest.mark.parametrize(
    ("replicas", "set", "cores", "shards"),
    [(2, None, 2, 4), (3, None, 2, 3), (2, None, 1, 2), (2, 4, 1, 4), (2, 3, 2, 4), (4, 2, 1, 4), (1, 3, 64, 3)],
)
def test_each_replica_has_the_same_number_of_shards(replicas, set, cores, shards):
    config = TrainConfig(batch_size=24, shards=set)
    assert complete(config, ANNA, Machine(cores=cores), replicas).shards == shards
    assert (
        resolve(ask("notebook", batch_size=24), ANNA, V, Machine(cores=cores), replicas=replicas).train.shards % replicas
        == 0
    )


# A run that starts from another model


MODEL = ModelConfig(70, cell="gru", hidden_size=384, num_layers=1, dropout=0.35)


def test_an_initial_model_keeps_its_shape_and_dropout():
    asked = ask(max_steps=1)
    model = initial_model(asked, MODEL, "'old'")
    resolved = resolve(asked, SHORT, V, LAPTOP, model)
    assert resolved.model == model == MODEL
    assert pick(resolved.train, "learning_rate", "batch_size") == [0.016, 1]  # for its width, and for the text
    assert not set(MODEL_OPTIONS) & set(resolved.chosen)
    asked = ask(dropout=0.1, init="tf1", cell="gru", num_layers=1)
    assert initial_model(asked, MODEL, "'old'") == dataclasses.replace(MODEL, dropout=0.1)


@pytest.mark.parametrize("change", [{"cell": "lstm"}, {"hidden_size": 8}, {"num_layers": 2}, {"embedding_size": 1}])
def test_another_shape_than_the_initial_models_is_refused(change):
    ((name, value),) = change.items()
    with pytest.raises(ConfigError) as caught:
        initial_model(ask(**change), MODEL, "'old'")
    assert str(caught.value) == (
        f"`{name}` {value} contradicts `init_from`: the model in 'old' has {getattr(MODEL, name)}. Leave the setting out, "
        "or the preset that contains it."
    )


def test_an_initial_model_brings_its_vocabulary():
    initial = TrainConfig(vocabulary="printable", min_count=3)
    assert ask(initial=initial).train.vocabulary == "printable"
    assert ask(initial=initial, vocabulary="printable", min_count=3).train.vocabulary == "printable"
    for name, value in [("vocabulary", "bytes"), ("min_count", 2)]:
        with pytest.raises(ConfigError, match=f"^`{name}` contradicts `init_from`, which brings its own vocabulary"):
            ask(initial=initial, **{name: value})


# A resumed run


def saved(**changes):
    """The configs of a run that `resolve` decided, with changes."""
    resolved = resolve(ask(epochs=3, hidden_size=8), SHORT, V, LAPTOP)
    return resolved.model, dataclasses.replace(resolved.train, **changes)


@pytest.mark.parametrize(
    ("flags", "changes"),
    [
        ({}, {}),
        (
            {"keep": 9, "log_every": 7, "save_every": 3, "patience": 0},
            {"keep": 9, "log_every": 7, "save_every": 3, "patience": 0},
        ),
        ({"sample_prime": ("A",), "sample_every": "epoch"}, {"sample_prime": ("A",), "sample_every": "epoch"}),
        ({"epochs": 9}, {"epochs": 9}),
        ({"max_steps": 5}, {"epochs": None, "max_steps": 5}),
        ({"max_steps": 5, "max_seconds": 7}, {"epochs": None, "max_steps": 5, "max_seconds": 7.0}),
    ],
)
def test_a_resumed_run_keeps_its_settings_except_those_it_may_change(flags, changes):
    model, train = saved()
    asked = ask(**flags)
    check_resumed(asked, model, train, "'run'")
    for machine in MACHINES.values():
        resolved = resolve_resumed(asked, model, train, SHORT, machine)
        expected = changes | ({"xla": False} if machine.gpus else {})
        assert (resolved.model, resolved.train) == (model, dataclasses.replace(train, **expected))
        assert resolved.chosen == {}


@pytest.mark.parametrize("preset_name", ["default", "notebook"])
def test_repeated_settings_are_accepted_on_resume(preset_name):
    flags = {"min_count": 2, "batch_size": 4, "learning_rate": 1, "hidden_size": 8}
    resolved = resolve(ask(preset_name, **flags), ANNA, V, LAPTOP)
    check_resumed(ask(preset_name, **flags), resolved.model, resolved.train, "'run'")
    explicit = resolve(ask(preset_name, **flags, unknown="error"), ANNA, V, LAPTOP)
    check_resumed(ask(preset_name, **flags), explicit.model, explicit.train, "'run'")  # `unknown` is not asked for


@pytest.mark.parametrize("name", sorted({*MODEL_OPTIONS, *TRAIN_OPTIONS} - RESUMABLE - {"shards", "xla"}))
def test_any_other_setting_is_refused_on_resume(name):
    model, train = saved()
    old = {**dataclasses.asdict(model), **dataclasses.asdict(train)}[name]
    other = {
        "cell": "gru", "init": "tf1", "vocabulary": "bytes", "unknown": "skip", "optimizer": "sgd", "schedule": "step",
        "precision": "float32", "separator": "-", "encoding": "cp1251", "normalize": "nfc",
        "lines": True,
    }.get(name)  # fmt: skip
    if other is None:
        other = (old or 0) / 2 + 0.125 if isinstance(old, float) else (old or 0) + 1
    with pytest.raises(ConfigError) as caught:
        check_resumed(ask(**{name: other}), model, train, "'run'")
    assert str(caught.value) == (
        f"`{name}` {other} can't change on `resume`: the run in 'run' has {old}. Leave it out, or the preset that contains "
        "it, or start another run in another `checkpoint_dir`."
    )
    if old is not None:
        check_resumed(ask(**{name: old}), model, train, "'run'")


@pytest.mark.parametrize(
    ("machine", "decided"),
    [
        ("one core", [139, 1, False]), ("laptop", [139, 2, False]), ("64 cores", [139, 16, False]), ("GPU", [139, 1, False]),
    ],
)  # fmt: skip
def test_settings_saved_without_decisions_are_completed_on_resume(machine, decided):
    data = dataclasses.asdict(TrainConfig(batch_size=128, num_steps=100, epochs=20))
    for name in DECIDED:  # as the first checkpoints of format 3 have them: null, or missing
        assert data[name] is None
        for saved_data in ({**data}, {key: value for key, value in data.items() if key != name}):
            train = from_json(TrainConfig, saved_data, "config.json")
            resolved = resolve_resumed(ask(), MODEL, train, ANNA, MACHINES[machine])
            assert pick(resolved.train, *DECIDED) == decided
            assert pick(resolved.train, *BUDGETS) == [20, None, None]


def test_saved_shards_and_xla_outlive_a_change_of_machine_and_budget():
    train = TrainConfig(batch_size=6, max_steps=1000, shards=3, xla=True)
    for machine in MACHINES.values():
        resumed = resolve_resumed(ask(max_steps=5), MODEL, train, ANNA, machine).train
        assert pick(resumed, "shards", "xla", "max_steps") == [3, not machine.gpus, 5]


def test_a_resumed_run_may_change_its_strategy():
    model, train = saved(xla=True, shards=1)
    several = resolve_resumed(ask(strategy="mirrored"), model, train, SHORT, LAPTOP).train
    assert pick(several, "strategy", "xla", "shards") == ["mirrored", False, 1]
    assert resolve_resumed(ask(strategy="none"), model, several, SHORT, LAPTOP).train.xla is False  # as saved


def test_a_resumed_run_keeps_its_default_budget():
    train = complete(TrainConfig(batch_size=4), ANNA, LAPTOP)
    assert math.isfinite(train.max_seconds)
    assert resolve_resumed(ask(), MODEL, train, ANNA, LAPTOP).train.max_seconds == train.max_seconds


def test_a_batch_that_replicas_cannot_share_is_refused():
    for batch_size, replicas in ((7, 2), (32, 3)):
        with pytest.raises(ConfigError, match=f"`batch_size` {batch_size} must be a multiple of .* replicas, {replicas}"):
            complete(TrainConfig(batch_size=batch_size, max_steps=1), 10_000, Machine(cores=2), replicas)
