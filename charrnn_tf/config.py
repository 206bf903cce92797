"""Settings: what a model is, how it is trained, the presets, and how the sources of settings win over each other."""

from __future__ import annotations

import dataclasses
import difflib
import math
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from .errors import ConfigError, reason
from .files import open_file


@dataclass(frozen=True)
class Cell:
    """What is to be known of a kind of recurrent layer without computing with it: `layers` does that, by the same name."""

    states: tuple[str, ...]  # names of the parts of its state, each [B, H]
    gates: int  # times H: the columns of its kernels
    bias_rows: int  # each of so many numbers


CELLS = {"lstm": Cell(("hidden", "cell"), gates=4, bias_rows=1), "gru": Cell(("hidden",), gates=3, bias_rows=2)}
INITS = ("keras", "pytorch", "wide", "tf1")
OPTIMIZERS = {"adam": 2, "sgd": 0, "rmsprop": 1}  # numbers that it keeps of each weight; `steps.build_optimizer` has them
SCHEDULES = ("constant", "cosine", "step")
VOCABULARIES = ("corpus", "printable", "bytes")
UNKNOWN = ("error", "skip")
PRECISIONS = ("float32", "bfloat16")
STRATEGIES = ("none", "mirrored", "multiworker")
BUDGETS = ("epochs", "max_steps", "max_seconds")
EPOCH = "epoch"  # an interval that follows the text instead of a number of steps
EVALUATED_STREAMS, EVALUATED_STEPS = 128, 100  # streams at most, and characters of each, in one call of an evaluation
VALIDATION_LIMIT = 1_000_000  # characters that a validation during training reads at most
SECONDS_PER_MILLION_CHARACTERS = 600
LARGEST_NUMBER = 1e300  # of any setting; above all not infinite
MOST_LAYERS = 100
LONGEST_SAMPLE = 1_000_000  # characters, of those written while training
LARGEST_RATE = 1e6  # of learning: in float32 its updates stay finite
LEAST_SECONDS, MOST_SECONDS = 60, 1620


def setting(default: Any, help: str = "", *, unset: str = "", choices: Collection[str] = (), **bounds: float) -> Any:
    """A field of the classes below: declared once, it is checked, saved, read from files, and an option of `train`.

    help: what `--help` says; without it there is no such option. unset: the default as `--help` shows it, where the run
    decides or None stands for something. bounds: least, above, most, below.
    """
    return field(default=default, metadata=_about(help, unset, choices, **bounds))


def _about(help: str = "", unset: str = "", choices: Collection[str] = (), **bounds: float) -> dict[str, Any]:
    return {"help": help, "unset": unset, "choices": tuple(choices), "bounds": bounds}


@dataclass(frozen=True)
class ModelConfig:
    """Shape of a character model; saved beside every checkpoint."""

    vocab_size: int = field(metadata=_about(least=1))  # V, distinct characters
    cell: str = setting("lstm", "Kind of recurrent layers.", choices=CELLS)
    hidden_size: int = setting(  # H
        256, "Units in each recurrent layer.", unset="256 to 512, by text and budget", least=1
    )
    num_layers: int = setting(2, "Recurrent layers.", least=1, most=MOST_LAYERS)  # L
    dropout: float = setting(
        0.2, "Share of each recurrent layer's outputs dropped while training, 0 to below 1.",
        unset="0 to 0.5, by text and budget", least=0, below=1,
    )  # fmt: skip
    embedding_size: int = setting(  # E
        0, "Size of a learnt embedding of the characters; 0: one-hot input.", least=0
    )
    init: str = setting(  # `model.initialize` tells what each name means
        "wide", "How weights begin: as in Keras, PyTorch, the PyTorch notebooks (wide), TensorFlow 1.", choices=INITS
    )

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained; saved beside every checkpoint."""

    vocabulary: str = setting(
        "corpus", "The text's own characters, Python's string.printable, or bytes.", choices=VOCABULARIES
    )
    min_count: int = setting(1, "Leave characters seen fewer times out of the vocabulary and the text.", least=1)
    unknown: str = setting("error", "Characters outside the vocabulary.", choices=UNKNOWN)
    separator: str | None = setting(
        None, "What stands between two files.", unset="a newline after files that don't end with one"
    )
    limit_chars: int | None = setting(None, "Read only the text's first characters.", unset="all", least=1)

    batch_size: int = setting(32, "Streams read side by side.", unset="32, less for short texts", least=1)  # B
    num_steps: int = setting(64, "Characters in a window: how far gradients reach back.", least=1)  # T
    epochs: int | None = setting(None, "Budget: passes over the text.", unset="none", least=1)
    max_steps: int | None = setting(None, "Budget: windows, one update each.", unset="none", least=1)
    max_seconds: float | None = setting(
        None, "Budget: wall time of the whole command, in seconds.", unset="10 minutes a million characters, 1 to 27",
        above=0,
    )  # fmt: skip

    optimizer: str = setting("adam", "What updates the weights.", choices=OPTIMIZERS)
    learning_rate: float = setting(
        0.004, "The optimizer's rate, or its peak under a schedule.", unset="0.02 for Adam, less for wide networks",
        above=0, most=LARGEST_RATE,
    )  # fmt: skip
    warmup_steps: int = setting(100, "First steps, over which the rate rises from zero.", least=0)
    schedule: str = setting("cosine", "The rate over time; cosine: to zero at the budget's end.", choices=SCHEDULES)
    step_epochs: int = setting(10, "Schedule step: epochs between two changes.", least=1)
    gamma: float = setting(0.2, "Schedule step: what the rate is multiplied by, above 0.", above=0)
    clip_norm: float = setting(5.0, "Largest norm of all gradients together; 0: off.", unset="0.1 for Adam", least=0)
    weight_dropout: float = setting(
        0.0, "Share of the recurrent weights that each step of training does without, 0 to below 1.",
        unset="0 to 0.5, by text and budget", least=0, below=1,
    )  # fmt: skip
    state_reset: float = setting(0.05, "Chance, 0 to 1, that a stream begins a window from a zero state.", least=0, most=1)
    validation_fraction: float = setting(
        0.1, "Share of the text, its last part, that is held out; 0: none.", least=0, below=1
    )
    seed: int = setting(0, "Seed of everything random.", least=0)
    precision: str = setting(
        "float32", "Precision of products in training; bfloat16: quicker, on processors that have it.",
        unset="bfloat16 where the processor has it", choices=PRECISIONS,
    )  # fmt: skip
    strategy: str = setting(
        "none", "tf.distribute: over this machine's GPUs, or the machines in TF_CONFIG.", choices=STRATEGIES
    )
    shards: int | None = setting(None, least=1)  # parts of a batch computed side by side; None: `runtime.shards_for`
    xla: bool | None = setting(None)  # whether XLA compiles the steps; None: `runtime.default_xla`

    save_every: int | None = setting(None, "Steps between checkpoints.", unset="about once a minute", least=1)
    keep: int = setting(5, "Checkpoints to keep, besides the best.", least=1)
    log_every: int = setting(100, "Steps between rows of metrics.csv.", least=1)
    validate_every: int | None = setting(
        None, "Steps between validations.", unset="an epoch or 1,000, less for long texts", least=1
    )
    patience: int = setting(10, "Validations in a row, none better than the best, that end a run; 0: any number.", least=0)
    sample_every: int | str | None = setting(None, "Steps between samples shown, or the word epoch.", unset="never", least=1)
    sample_prime: tuple[str, ...] = setting(("The ",), "What samples begin with; may be repeated.", unset="'The '")
    sample_length: int = setting(200, "Characters in a sample.", least=1, most=LONGEST_SAMPLE)
    sample_top_n: int = setting(5, "Top-n of samples; 0: no cut.", least=0)
    sample_temperature: float = setting(1.0, "Temperature of samples, at least 0.", least=0)

    def __post_init__(self) -> None:
        _check(self)
        if self.shards and self.batch_size % self.shards:
            raise ConfigError(f"shards must divide batch_size, but {self.batch_size} / {self.shards} is not whole")

    def training_characters(self, characters: int) -> int:
        """How many of so many characters, the first ones, are trained on; the rest is held out."""
        return characters - int(characters * self.validation_fraction)

    def most_steps(self, steps_per_epoch: int) -> int | None:
        """Where the budgets in steps and epochs end a run; None where only time does."""
        limits = [self.max_steps, self.epochs and self.epochs * steps_per_epoch]
        return min((limit for limit in limits if limit), default=None)

    def with_budget(self, characters: int) -> TrainConfig:
        """The same settings with a budget: where none is given, 10 minutes for a million characters.

        At least 1 and at most 27 minutes, by the characters of the whole text.
        """
        if any(getattr(self, budget) is not None for budget in BUDGETS):
            return self
        seconds = SECONDS_PER_MILLION_CHARACTERS * characters / 1e6
        return dataclasses.replace(self, max_seconds=float(round(min(max(seconds, LEAST_SECONDS), MOST_SECONDS))))

    def validation_interval(self, steps_per_epoch: int) -> int:
        """Steps between validations where none are given: an epoch, or ten times what a validation can read at most."""
        if self.validate_every is not None:
            return self.validate_every
        return min(steps_per_epoch, max(1, 10 * VALIDATION_LIMIT // (self.batch_size * self.num_steps)))


# What each preset sets beyond the defaults above.
PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "notebook": {
        "hidden_size": 512, "num_layers": 2, "dropout": 0.5, "init": "wide", "batch_size": 128, "num_steps": 100,
        "learning_rate": 0.001, "warmup_steps": 0, "schedule": "constant", "state_reset": 0.0, "epochs": 20,
    },
    "notebook-tf1": {
        "hidden_size": 128, "num_layers": 2, "dropout": 0.5, "init": "tf1", "batch_size": 10, "num_steps": 50,
        "learning_rate": 0.01, "warmup_steps": 0, "schedule": "constant", "state_reset": 0.0, "epochs": 2,
        "validation_fraction": 0.0, "save_every": 200, "keep": 100, "sample_every": EPOCH, "sample_prime": ("The ", "Far"),
    },
    "sherlock": {
        "vocabulary": "printable", "unknown": "skip", "limit_chars": 10_000, "cell": "gru", "hidden_size": 100,
        "num_layers": 1, "dropout": 0.0, "embedding_size": 100, "init": "pytorch", "batch_size": 1, "num_steps": 25,
        "learning_rate": 0.005, "warmup_steps": 0, "schedule": "constant", "clip_norm": 0.0, "state_reset": 1.0,
        "epochs": 40, "validation_fraction": 0.0, "sample_every": EPOCH, "sample_prime": ("I",), "sample_length": 100,
        "sample_top_n": 0,
    },
    "tf-tutorial": {
        "cell": "gru", "hidden_size": 1024, "num_layers": 1, "dropout": 0.0, "embedding_size": 256, "init": "keras",
        "batch_size": 64, "num_steps": 100, "learning_rate": 0.001, "warmup_steps": 0, "schedule": "constant",
        "clip_norm": 0.0, "state_reset": 1.0, "epochs": 20, "validation_fraction": 0.0, "sample_top_n": 0,
    },
}  # fmt: skip

# What --resume may change: budgets, reporting, and on how many devices or machines the same steps are computed.
RESUMABLE = frozenset(
    {*BUDGETS, "patience", "strategy", "log_every", "save_every", "keep"}
    | {each.name for each in dataclasses.fields(TrainConfig) if each.name.startswith("sample_")}
)
MODEL_OPTIONS = tuple(each.name for each in dataclasses.fields(ModelConfig) if each.name != "vocab_size")
TRAIN_OPTIONS = tuple(each.name for each in dataclasses.fields(TrainConfig))
# By name those that the command and settings files give.
SETTINGS = {
    each.name: each for kind in (ModelConfig, TrainConfig) for each in dataclasses.fields(kind) if each.metadata["help"]
}


def resolve(preset: str, file: Mapping[str, Any], flags: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by name: flags win over the file, the file over the preset.

    Budgets go together: where the file or the flags give one, those of the layers below no longer count.
    """
    settings: dict[str, Any] = {}
    for layer in (PRESETS[preset], file, flags):
        if any(budget in layer for budget in BUDGETS):
            settings = {name: value for name, value in settings.items() if name not in BUDGETS}
        settings.update(layer)
    return settings


def check_preset(name: Any) -> None:
    """Raise ConfigError where there is no preset of that name."""
    if not isinstance(name, str) or name not in PRESETS:
        raise ConfigError(f"preset must be one of {', '.join(PRESETS)}, got {name!r}")


def preset(name: str, vocab_size: int, **changes: Any) -> tuple[ModelConfig, TrainConfig]:
    """The settings of a preset for a vocabulary of a size, with some of them changed.

    What the command chooses for the default preset by the text and the time stands in `recipe.settings_for`.

    >>> model_config, train_config = preset("notebook", 83, epochs=5)
    >>> model_config.hidden_size, train_config.batch_size, train_config.epochs
    (512, 128, 5)
    """
    check_preset(name)
    for change in changes:
        if change not in (*MODEL_OPTIONS, *TRAIN_OPTIONS):
            raise ConfigError(f"there is no setting {change!r}{_hint(change, {*MODEL_OPTIONS, *TRAIN_OPTIONS})}")
    model, train = split(resolve(name, {}, changes))
    return ModelConfig(vocab_size=vocab_size, **model), TrainConfig(**train)


def split(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings by name -> those of ModelConfig and those of TrainConfig."""
    model = {name: settings[name] for name in MODEL_OPTIONS if name in settings}
    train = {name: settings[name] for name in TRAIN_OPTIONS if name in settings}
    return model, train


def check_cuts(top_n: int, top_p: float, temperature: float) -> None:
    """Raise ConfigError for settings of sampling that make no sense."""
    if top_n < 0:
        raise ConfigError(f"top_n must be at least 0 (no cut), got {top_n}")
    if not 0 < top_p <= 1:
        raise ConfigError(f"top_p must be above 0 and at most 1 (no cut), got {top_p}")
    if not 0 <= temperature < float("inf"):
        raise ConfigError(f"temperature must be a number of at least 0 (the likeliest), got {temperature}")


def read_settings(path: str | Path) -> dict[str, Any]:
    """The settings of a flat TOML file, the options' names with underscores: `hidden_size = 256`.

    Raises ConfigError for a file that can't be read, is no TOML or names an option that does not exist.
    """
    try:
        with open_file(path) as file:
            settings = tomllib.load(file)
    except (OSError, ValueError) as error:
        raise ConfigError(f"can't read the settings in {str(path)!r}: {reason(error)}") from error
    names = {*SETTINGS, "preset"}
    for name in settings:
        if name not in names:
            raise ConfigError(f"{str(path)!r} has a setting {name!r}, which there is not{_hint(name, names)}")
    return settings


def _hint(name: str, names: Collection[str]) -> str:
    close = difflib.get_close_matches(name, names, 1)
    return f"; did you mean {close[0]!r}?" if close else f"; they are: {', '.join(sorted(names))}"


Config = TypeVar("Config", ModelConfig, TrainConfig)


def from_json(kind: type[Config], data: Any, where: str) -> Config:
    """A config from what `dataclasses.asdict` and JSON made of it; `where` names the file in errors.

    A setting that the version which wrote it did not have yet has its default.
    """
    if not isinstance(data, dict):
        raise ConfigError(f"{where} holds no settings")
    if strange := sorted(set(data) - {each.name for each in dataclasses.fields(kind)}):
        raise ConfigError(f"{where} has settings that this version does not know: {', '.join(strange)}")
    needed = [each.name for each in dataclasses.fields(kind) if each.default is dataclasses.MISSING]
    if missing := [name for name in needed if name not in data]:
        raise ConfigError(f"{where} lacks {', '.join(missing)}")
    try:
        return kind(**data)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def _check(config: ModelConfig | TrainConfig) -> None:
    """Raise ConfigError unless every setting is of its type and within its bounds; make numbers floats where they are."""
    for each in dataclasses.fields(config):
        name, value, kind = each.name, getattr(config, each.name), str(each.type)
        choices, bounds = each.metadata["choices"], each.metadata["bounds"]
        if (value is None and kind.endswith("| None")) or (value == EPOCH and kind == "int | str | None"):
            continue
        if choices:
            if value not in choices:
                raise ConfigError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
        elif kind.startswith("int"):
            check_whole(config, name, **bounds, also=f" or {EPOCH!r}" if kind == "int | str | None" else "")
        elif kind.startswith("float"):
            check_number(config, name, **bounds)
        elif kind.startswith("tuple"):
            object.__setattr__(config, name, _strings(name, value))
        elif not isinstance(value, bool if kind.startswith("bool") else str):
            wanted = "true, false or left out" if kind.startswith("bool") else "a text"
            raise ConfigError(f"{name} must be {wanted}, got {value!r}")


def check_whole(
    config: object, *names: str, least: int, most: int = 2**63 - 1, optional: bool = False, also: str = ""
) -> None:
    """Raise ConfigError unless these attributes are whole numbers within the bounds (or None, where optional).

    also: what else would be right, in the words of the error.
    """
    for name in names:
        value = getattr(config, name)
        if optional and value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            end = "below 2**63" if most == 2**63 - 1 else f"at most {most:,}"
            raise ConfigError(f"{name} must be a whole number of at least {least} and {end}{also}, got {value!r}")


def check_number(
    config: object,
    *names: str,
    least: float = -math.inf,
    above: float = -math.inf,
    most: float = math.inf,
    below: float = math.inf,
    optional: bool = False,
) -> None:
    """Raise ConfigError unless these attributes are finite numbers within the bounds (or None); make them floats."""
    bounds = {"at least": least, "above": above, "at most": most, "below": below}
    wanted = " and ".join(f"{word} {bound:g}" for word, bound in bounds.items() if math.isfinite(bound))
    for name in names:
        value = getattr(config, name)
        if optional and value is None:
            continue
        number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST_NUMBER
        if not (number and least <= value <= most and above < value < below):
            raise ConfigError(f"{name} must be a number{wanted and ' ' + wanted}, got {value!r}")
        object.__setattr__(config, name, float(value))


def _strings(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise ConfigError(f"{name} must be a list of texts, got {value!r}")
    return tuple(value)
