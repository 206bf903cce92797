"""The presets: their published numbers, and changes to them."""

import dataclasses

import pytest

from charrnn_tf.errors import ConfigError
from charrnn_tf.settings.merge import preset
from charrnn_tf.settings.presets import PRESETS
from charrnn_tf.settings.schema import BUDGETS, MODEL_OPTIONS, TRAIN_OPTIONS

# The numbers that the presets stand for, written out
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


def test_an_unknown_preset_or_setting_is_refused():
    for unknown in ("karpathy", ["notebook"]):
        with pytest.raises(ConfigError) as caught:
            preset(unknown, 83)
        assert str(caught.value).startswith("`preset` must be one of default, notebook, ")
        assert str(caught.value).endswith(f"got {unknown!r}")
    with pytest.raises(ConfigError, match=r"there is no setting 'hiden_size'; did you mean 'hidden_size'\?"):
        preset("notebook", 83, hiden_size=8)
