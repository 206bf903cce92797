"""Settings: what a model is, how it is trained, the presets, and how the sources of settings win over each other."""

from __future__ import annotations

import dataclasses
import difflib
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from .errors import ConfigError, reason
from .files import open_file

CELLS = ("lstm", "gru")
INITS = ("keras", "pytorch", "wide", "tf1")
OPTIMIZERS = ("adam", "sgd", "rmsprop")
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


@dataclass(frozen=True)
class ModelConfig:
    """Shape of a character model; saved beside every checkpoint."""

    vocab_size: int  # V, distinct characters
    cell: str = "lstm"  # "lstm" or "gru"
    hidden_size: int = 256  # H, units in each recurrent layer
    num_layers: int = 2  # L
    dropout: float = 0.2  # after each recurrent layer, training only
    embedding_size: int = 0  # E; 0: characters enter as one-hot rows
    init: str = "wide"  # how weights begin; `model.initialize` tells what each name means

    def __post_init__(self) -> None:
        check_whole(self, "vocab_size", "hidden_size", "num_layers", least=1)
        check_whole(self, "embedding_size", least=0)
        if self.num_layers > MOST_LAYERS:
            raise ConfigError(f"num_layers must be at most {MOST_LAYERS}, got {self.num_layers:,}")
        check_number(self, "dropout", least=0, below=1)
        _choice(self, cell=CELLS, init=INITS)


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained; saved beside every checkpoint."""

    vocabulary: str = "corpus"  # the text's own characters, "printable" or "bytes"
    min_count: int = 1  # characters of the text that are rarer are left out of its vocabulary
    unknown: str = "error"  # characters outside the vocabulary: "error" or "skip"
    separator: str | None = None  # between files; None: a newline after those that don't end with one
    limit_chars: int | None = None  # read only the text's first characters

    batch_size: int = 32  # B, streams read side by side
    num_steps: int = 64  # T, characters a window: how far gradients reach back
    epochs: int | None = None  # the first budget reached ends the run
    max_steps: int | None = None
    max_seconds: float | None = None  # wall time of the whole command, over all resumes

    optimizer: str = "adam"
    learning_rate: float = 0.004
    warmup_steps: int = 100  # first steps, over which the rate rises from zero
    schedule: str = "cosine"  # constant; cosine: to zero at the budget's end; step: times gamma every step_epochs
    step_epochs: int = 10
    gamma: float = 0.2
    clip_norm: float = 5.0  # of all gradients together; 0: off
    weight_dropout: float = 0.0  # share of the recurrent weights that a step does without
    state_reset: float = 0.05  # chance that a stream begins a window from a zero state
    validation_fraction: float = 0.1  # the text's last part, never trained on
    seed: int = 0
    precision: str = "float32"  # of products while training; bfloat16 where the processor has it
    strategy: str = "none"  # of tf.distribute: "mirrored" over this machine's GPUs, "multiworker" over several machines
    shards: int | None = None  # parts of a batch computed side by side; None: one for each core, as the batch divides
    xla: bool | None = None  # whether XLA compiles the steps; None: where streams are few and steps many

    save_every: int | None = None  # steps; None: about once a minute
    keep: int = 5  # checkpoints, besides the best
    log_every: int = 100  # steps a row in metrics.csv
    validate_every: int | None = None  # steps; None: `validation_interval`
    patience: int = 10  # validations in a row, none better than the best, that end a run; 0: any number
    sample_every: int | str | None = None  # steps, or "epoch"
    sample_prime: tuple[str, ...] = ("The ",)
    sample_length: int = 200
    sample_top_n: int = 5
    sample_temperature: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "sample_prime", _strings("sample_prime", self.sample_prime))
        check_whole(
            self, "batch_size", "num_steps", "step_epochs", "keep", "log_every", "sample_length", "min_count", least=1
        )
        check_whole(self, "seed", "patience", "warmup_steps", "sample_top_n", least=0)
        check_whole(self, *BUDGETS[:2], "limit_chars", "shards", "save_every", "validate_every", least=1, optional=True)
        if self.sample_every != EPOCH:
            check_whole(self, "sample_every", least=1, optional=True)
        if self.sample_length > LONGEST_SAMPLE:
            raise ConfigError(f"sample_length must be at most {LONGEST_SAMPLE:,}, got {self.sample_length:,}")
        check_number(self, "max_seconds", above=0, optional=True)
        check_number(self, "learning_rate", above=0, most=LARGEST_RATE)
        check_number(self, "gamma", above=0)
        check_number(self, "clip_norm", "sample_temperature", least=0)
        check_number(self, "state_reset", least=0, most=1)
        check_number(self, "validation_fraction", "weight_dropout", least=0, below=1)
        _choice(self, vocabulary=VOCABULARIES, unknown=UNKNOWN, optimizer=OPTIMIZERS, schedule=SCHEDULES)
        _choice(self, precision=PRECISIONS, strategy=STRATEGIES)
        if not (self.separator is None or isinstance(self.separator, str)):
            raise ConfigError(f"separator must be a text, got {self.separator!r}")
        if not (self.xla is None or isinstance(self.xla, bool)):
            raise ConfigError(f"xla must be true, false or left out, got {self.xla!r}")
        if self.shards and self.batch_size % self.shards:
            raise ConfigError(f"shards must divide batch_size, but {self.batch_size} / {self.shards} is not whole")

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
    | {field.name for field in dataclasses.fields(TrainConfig) if field.name.startswith("sample_")}
)
MODEL_OPTIONS = tuple(field.name for field in dataclasses.fields(ModelConfig) if field.name != "vocab_size")
TRAIN_OPTIONS = tuple(field.name for field in dataclasses.fields(TrainConfig))


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


def preset(name: str, vocab_size: int, **changes: Any) -> tuple[ModelConfig, TrainConfig]:
    """The settings of a preset for a vocabulary of a size, with some of them changed.

    >>> model_config, train_config = preset("notebook", 83, epochs=5)
    >>> model_config.hidden_size, train_config.batch_size, train_config.epochs
    (512, 128, 5)
    """
    if name not in PRESETS:
        raise ConfigError(f"preset must be one of {', '.join(PRESETS)}, got {name!r}")
    for change in changes:
        if change not in (*MODEL_OPTIONS, *TRAIN_OPTIONS):
            raise ConfigError(f"there is no setting {change!r}")
    model, train = split(resolve(name, {}, changes))
    return ModelConfig(vocab_size=vocab_size, **model), TrainConfig(**train)


def split(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings by name -> those of ModelConfig and those of TrainConfig."""
    model = {name: settings[name] for name in MODEL_OPTIONS if name in settings}
    train = {name: settings[name] for name in TRAIN_OPTIONS if name in settings}
    return model, train


def read_settings(path: str | Path) -> dict[str, Any]:
    """The settings of a flat TOML file, the options' names with underscores: `hidden_size = 256`.

    Raises ConfigError for a file that can't be read, is no TOML or names an option that does not exist.
    """
    try:
        with open_file(path) as file:
            settings = tomllib.load(file)
    except (OSError, ValueError) as error:
        why = reason(error) if isinstance(error, OSError) else error
        raise ConfigError(f"can't read the settings in {str(path)!r}: {why}") from error
    names = {*MODEL_OPTIONS, *TRAIN_OPTIONS, "preset"} - {"shards", "xla"}
    for name in settings:
        if name not in names:
            close = difflib.get_close_matches(name, names, 1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; they are: {', '.join(sorted(names))}"
            raise ConfigError(f"{str(path)!r} has a setting {name!r}, which there is not{hint}")
    return settings


Config = TypeVar("Config", ModelConfig, TrainConfig)


def from_json(kind: type[Config], data: Any, where: str) -> Config:
    """A config from what `dataclasses.asdict` and JSON made of it; `where` names the file in errors."""
    names = {field.name for field in dataclasses.fields(kind)}
    if not isinstance(data, dict) or set(data) != names:
        odd = sorted(names.symmetric_difference(data)) if isinstance(data, dict) else "no settings"
        raise ConfigError(f"{where} does not hold the settings this version knows: {odd}")
    try:
        return kind(**data)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def check_whole(config: object, *names: str, least: int, optional: bool = False) -> None:
    """Raise ConfigError unless these attributes are whole numbers of at least `least` (or None, where optional)."""
    for name in names:
        value = getattr(config, name)
        if optional and value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 2**63:
            raise ConfigError(f"{name} must be a whole number of at least {least} and below 2**63, got {value!r}")


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
            raise ConfigError(f"{name} must be a number {wanted}, got {value!r}")
        object.__setattr__(config, name, float(value))


def _choice(config: object, **choices: tuple[str, ...]) -> None:
    for name, allowed in choices.items():
        if getattr(config, name) not in allowed:
            raise ConfigError(f"{name} must be one of {', '.join(allowed)}, got {getattr(config, name)!r}")


def _strings(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise ConfigError(f"{name} must be a list of texts, got {value!r}")
    return tuple(value)
