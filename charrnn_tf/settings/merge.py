"""The only place where settings are decided: flags win over the TOML file, the file over the preset.

Under the default preset, the recipe fills in settings that none of them gives; defaults fill in the rest.

`merge` combines the settings asked for, before the text is read. `resolve` (a new run) and `resolve_resumed` (a continued
one) return frozen settings that include budget, validation interval, shards and XLA.
"""

import dataclasses
import difflib
import inspect
import tomllib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ConfigError, Function, reason
from ..files import open_file
from .presets import DEFAULT, PRESETS, check_preset
from .recipe import BY_SPEED, FOR_ADAM, Choice, Machine, default_shards, recipe
from .schema import (
    BUDGETS,
    MODEL_OPTIONS,
    RESUMABLE,
    SETTINGS,
    TRAIN_OPTIONS,
    VALIDATION_LIMIT,
    ModelConfig,
    TrainConfig,
)

SECONDS_PER_MILLION_CHARACTERS = 600
LEAST_SECONDS, MOST_SECONDS = 60, 1620  # of the default budget
XLA_STREAMS = 8  # largest batch that XLA makes faster: its products are so small that other operations dominate
XLA_STEPS = 1000  # shortest run in which compiling with XLA pays


@dataclass(frozen=True)
class Asked:
    """The settings that a user asks for, before the text is known."""

    preset: str
    settings: Mapping[str, Any]  # of preset, file and flags, by name
    train: TrainConfig  # training settings, with defaults for those not given

    @property
    def budget(self) -> bool:
        """Whether the user gives a budget."""
        return any(self.settings.get(name) is not None for name in BUDGETS)


@dataclass(frozen=True)
class Resolved:
    """All settings of a run, decided."""

    model: ModelConfig
    train: TrainConfig
    chosen: Mapping[str, Choice] = field(default_factory=dict)  # by the recipe
    budget_given: bool = True

    @property
    def depends_on_speed(self) -> bool:
        """Whether the recipe chose a setting by the machine's speed."""
        return self.train.max_seconds is not None and any(name in self.chosen for name in BY_SPEED)


def merge(preset: str, file: Mapping[str, Any], flags: Mapping[str, Any], initial: TrainConfig | None = None) -> Asked:
    """Combine settings by name: flags win over the file, the file over the preset.

    A layer that gives a budget replaces all budgets of the layers below.
    initial: settings of the run that `init_from` names; its vocabulary is kept.
    Raises ConfigError for a value of the wrong type or out of range.
    """
    check_preset(preset)
    settings: dict[str, Any] = {}
    for layer in (PRESETS[preset], file, flags):
        if any(budget in layer for budget in BUDGETS):
            settings = {name: value for name, value in settings.items() if name not in BUDGETS}
        settings.update(layer)
    model_settings, train_settings = _split(settings)
    ModelConfig(vocab_size=1, **model_settings)  # checks the values
    train = TrainConfig(**train_settings)
    settings |= {name: train.encoding for name in ("encoding",) if name in settings}  # by its own name, not an alias
    if initial:
        for name in ("vocabulary", "min_count"):
            if getattr(train, name) not in (getattr(TrainConfig, name), getattr(initial, name)):
                raise ConfigError(f"`{name}` contradicts `init_from`, which brings its own vocabulary. Leave it out.")
        normalize = settings.get("normalize", initial.normalize)  # of the characters that the model knows
        train = dataclasses.replace(train, vocabulary=initial.vocabulary, normalize=normalize)
    if train.min_count > 1 and "unknown" not in settings:
        train = dataclasses.replace(train, unknown="skip")
    return Asked(preset, settings, train)


def initial_model(asked: Asked, model: ModelConfig, where: str) -> ModelConfig:
    """The model config of a run that starts from another model's weights: that model's, except for the dropout asked for.

    where: the other model's name in errors. Raises ConfigError if another shape is asked for.
    """
    given = _split(asked.settings)[0]
    for name, value in given.items():
        if name not in ("dropout", "init") and value != getattr(model, name):
            raise ConfigError(
                f"`{name}` {value} contradicts `init_from`: the model in {where} has {getattr(model, name)}. Leave the "
                "setting out, or the preset that contains it."
            )
    return dataclasses.replace(model, dropout=given.get("dropout", model.dropout))


def resolve(
    asked: Asked, characters: int, vocab_size: int, machine: Machine, initial: ModelConfig | None = None, replicas: int = 1
) -> Resolved:
    """Decide all settings of a new run. The default preset takes those not asked for from `recipe`.

    characters: length of the whole text. initial: see `initial_model`. replicas: number that a batch is split over.
    """
    model_settings, _ = _split(asked.settings)
    chosen: dict[str, Choice] = {}
    if asked.preset == DEFAULT:
        train = _with_budget(asked.train, characters)
        width = initial.hidden_size if initial else model_settings.get("hidden_size")
        chosen = recipe(
            train.training_characters(characters), machine, seconds=train.max_seconds, epochs=train.epochs,
            max_steps=train.max_steps, hidden_size=width, precision=asked.settings.get("precision"),
        )  # fmt: skip
        kept = {*asked.settings, *(MODEL_OPTIONS if initial else ()), *(() if train.optimizer == "adam" else FOR_ADAM)}
        chosen = {name: choice for name, choice in chosen.items() if name not in kept}
    for_model, for_training = _split({name: choice.value for name, choice in chosen.items()})
    model = initial or ModelConfig(vocab_size=vocab_size, **for_model | model_settings)
    train = complete(dataclasses.replace(asked.train, **for_training), characters, machine, replicas)
    return Resolved(model, train, chosen, asked.budget)


def resolve_resumed(
    asked: Asked, model: ModelConfig, train: TrainConfig, characters: int, machine: Machine, *, replicas: int = 1
) -> Resolved:
    """Decide the settings of a continued run: the saved ones, with the changes that `check_resumed` allows."""
    return Resolved(model, complete(resumed(asked, train), characters, machine, replicas))


def resumed(asked: Asked, train: TrainConfig) -> TrainConfig:
    """The saved training settings, with the changes asked for among RESUMABLE; a new budget replaces all saved ones."""
    changes = {name: value for name, value in asked.settings.items() if name in RESUMABLE}
    if asked.budget:
        changes = {**dict.fromkeys(BUDGETS), **changes}
    return dataclasses.replace(train, **changes)


def check_resumed(asked: Asked, model: ModelConfig, train: TrainConfig, where: str) -> None:
    """Raise ConfigError if a setting that may not change is asked for with another value than the saved one.

    where: the run's folder, as errors name it.
    """
    saved = dataclasses.asdict(model) | dataclasses.asdict(train)
    for name, value in asked.settings.items():
        if name not in RESUMABLE and value != saved[name]:
            raise ConfigError(
                f"`{name}` {value} can't change on `resume`: the run in {where} has {saved[name]}. Leave it out, or the "
                "preset that contains it, or start another run in another `checkpoint_dir`."
            )


def complete(train: TrainConfig, characters: int, machine: Machine, replicas: int = 1) -> TrainConfig:
    """Decide the training settings that are still None: budget, validation interval, shards and XLA.

    A resumed run keeps its saved shards if they divide evenly over the replicas.
    """
    check_share(train.batch_size, replicas)
    train = _with_budget(train, characters)
    steps_per_epoch = train.steps_per_epoch(characters)
    xla, shards = train.xla, train.shards
    if machine.gpus:
        xla, shards = False, shards or 1  # XLA can't compile cuDNN's kernels
    else:
        most_steps = train.most_steps(steps_per_epoch)
        if xla is None:
            xla = train.batch_size <= XLA_STREAMS and (most_steps is None or most_steps >= XLA_STEPS)
        if not shards or shards % replicas:
            shards = replicas * default_shards(train.batch_size // replicas, machine.cores)
    return dataclasses.replace(
        train,
        shards=shards,
        xla=xla and train.strategy == "none",
        validate_every=train.validate_every or _validation_interval(train, steps_per_epoch),
    )


def check_share(batch_size: int, replicas: int) -> None:
    """Raise ConfigError if the batch does not split evenly over the replicas."""
    if batch_size % replicas:
        raise ConfigError(f"`batch_size` {batch_size} must be a multiple of the number of replicas, {replicas}")


def _with_budget(train: TrainConfig, characters: int) -> TrainConfig:
    """Add the default budget to settings without one: 10 minutes per million characters, 1 to 27 minutes."""
    if any(getattr(train, budget) is not None for budget in BUDGETS):
        return train
    seconds = min(max(SECONDS_PER_MILLION_CHARACTERS * characters / 1e6, LEAST_SECONDS), MOST_SECONDS)
    return dataclasses.replace(train, max_seconds=float(round(seconds)))


def _validation_interval(train: TrainConfig, steps_per_epoch: int) -> int:
    """Steps between validations: one epoch, but at most 10 * VALIDATION_LIMIT characters."""
    return max(1, min(steps_per_epoch, 10 * VALIDATION_LIMIT // (train.batch_size * train.num_steps)))


def preset(name: str, vocab_size: int, **changes: Any) -> tuple[ModelConfig, TrainConfig]:
    """A preset's settings for a vocabulary of this size, with changes. Raises ConfigError for an unknown name or setting.

    >>> model_config, train_config = preset("notebook", 83, epochs=5)
    >>> model_config.hidden_size, train_config.batch_size, train_config.epochs
    (512, 128, 5)
    """
    known = {*MODEL_OPTIONS, *TRAIN_OPTIONS}
    for change in changes:
        if change not in known:
            raise ConfigError(f"there is no setting {change!r}{hint(change, known)}")
    model, train = _split(merge(name, {}, changes).settings)
    return ModelConfig(vocab_size=vocab_size, **model), TrainConfig(**train)


def _split(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split settings by name into those of ModelConfig and those of TrainConfig."""
    model = {name: settings[name] for name in MODEL_OPTIONS if name in settings}
    train = {name: settings[name] for name in TRAIN_OPTIONS if name in settings}
    return model, train


def read_settings(path: str | Path) -> dict[str, Any]:
    """Read a flat TOML file of settings, named like the options but with underscores: `hidden_size = 256`.

    Raises ConfigError for a file that can't be read, is not TOML or names an unknown setting.
    """
    try:
        with open_file(path) as file:
            settings = tomllib.load(file)
    except (OSError, ValueError) as error:
        raise ConfigError(f"can't read the settings in {str(path)!r}: {reason(error)}") from error
    names = {*SETTINGS, "preset"}
    for name in settings:
        if name not in names:
            raise ConfigError(f"{str(path)!r} has an unknown setting {name!r}{hint(name, names)}")
    return settings


def with_options(defaults: Mapping[str, Any]) -> Callable[[Function], Function]:
    """Decorate a function that takes options as `**named`: `help` and tab completion show each with its default."""

    def decorate(function: Function) -> Function:
        signature = inspect.signature(function)
        own = [each for each in signature.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
        more = (inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=value) for name, value in defaults.items())
        function.__signature__ = signature.replace(parameters=[*own, *more])  # type: ignore[attr-defined]
        return function

    return decorate


def hint(name: str, names: Collection[str]) -> str:
    """End of an error message about an unknown name: the closest known name, or all known names."""
    close = difflib.get_close_matches(name, names, 1)
    return f"; did you mean {close[0]!r}?" if close else f"; known are: {', '.join(sorted(names))}"
