"""Every setting of a model and of its training: default, bounds, help text and option group, each declared once."""

import codecs
import dataclasses
import math
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any, TypeVar

from ..errors import ConfigError


@dataclass(frozen=True)
class Cell:
    """Static facts about a cell type; `network.cells` implements it under the same name."""

    states: tuple[str, ...]  # names of the parts of its state, each [B, H]
    gates: int  # columns of its kernels, in units of H
    bias_rows: int  # bias vectors, each [gates * H]


CELLS = {"lstm": Cell(("hidden", "cell"), gates=4, bias_rows=1), "gru": Cell(("hidden",), gates=3, bias_rows=2)}
INITS = ("default", "keras", "pytorch", "wide", "tf1")
OPTIMIZERS = {"adam": 2, "sgd": 0, "rmsprop": 1}  # optimizer slots per weight; `training.optimizers` builds them
SCHEDULES = ("constant", "cosine", "step")
NORMAL_FORMS = ("none", "nfc", "nfd")
VOCABULARIES = ("corpus", "printable", "bytes")
UNKNOWN = ("error", "skip")
ADD = "add"  # of `unknown`, for a run that starts from another model's weights
PRECISIONS = ("float32", "bfloat16")  # `network.cells.Engine` and `training.state.choose_engine` implement them
STRATEGIES = ("none", "mirrored", "multiworker")
BUDGETS = ("epochs", "max_steps", "max_seconds")
EPOCH = "epoch"  # an interval of one pass over the text
EVALUATED_STREAMS = 128  # upper bound on streams of an evaluation
EVALUATED_STEPS = 100  # its window length
VALIDATION_LIMIT = 1_000_000  # upper bound on the characters that a validation during training reads
LARGEST_NUMBER = 1e300  # of any float setting
MOST_LAYERS = 100
LONGEST_SAMPLE = 1_000_000  # characters, of samples during training
LARGEST_RATE = 1e6  # keeps float32 updates finite
# Headings of `train --help`, in its order
GROUPS = BUDGET, TEXT, MODEL, OPTIMIZER, REGULARIZATION, SAVING, DISPLAY, MACHINE = (
    "Budget", "Text", "Model", "Optimizer", "Regularization", "Validation and checkpoints", "Samples and display", "Machine",
)  # fmt: skip


class Interval:
    """Type of a setting that is a number of steps or the word "epoch"."""


@dataclass(frozen=True)
class Setting:
    """Checks and documentation of a field, kept in the dataclass field's metadata."""

    kind: type  # int, float, str, bool, tuple (of texts) or Interval
    help: str = ""  # empty: neither an option nor a setting in a TOML file
    group: str = ""  # one of GROUPS
    default_help: str = ""  # the default as `--help` shows it, if not `default` itself
    choices: tuple[str, ...] = ()
    bounds: dict[str, Any] = field(default_factory=dict)  # least, above, most, below
    optional: bool = False  # None is allowed: not given, or decided by `merge.resolve`

    def check(self, name: str, value: Any) -> Any:
        """Return the value as its type. Raises ConfigError for a wrong type or a value out of bounds."""
        if value is None and self.optional:
            return None
        if self.choices and value not in self.choices:
            raise ConfigError(f"`{name}` must be one of {', '.join(self.choices)}, got {value!r}")
        if self.kind is int:
            return whole_number(name, value, **self.bounds)
        if self.kind is Interval:
            return value if value == EPOCH else whole_number(name, value, also=f" or {EPOCH!r}", **self.bounds)
        if self.kind is float:
            return finite_number(name, value, **self.bounds)
        items = value if self.kind is tuple and not isinstance(value, str) else [value]
        item_type = bool if self.kind is bool else str
        if not isinstance(items, list | tuple) or not all(isinstance(item, item_type) for item in items):
            wanted = (
                "true or false" if self.kind is bool else "a text or a list of texts" if self.kind is tuple else "a text"
            )
            raise ConfigError(f"`{name}` must be {wanted}, got {value!r}")
        return tuple(items) if self.kind is tuple else value


def setting(
    default: Any, help: str = "", group: str = "", *, kind: type | None = None, shown: str = "",
    choices: Collection[str] = (), **bounds: float,
) -> Any:  # fmt: skip
    """Declare a field of the config classes, with its check, its name in TOML files and its option of `train`.

    kind: its type, needed where the default is None and the type not int. shown: the default as `--help` shows it.
    bounds: least, above, most, below.
    """
    kind = kind or (int if default is None else type(default))
    about = Setting(kind, help, group, shown, tuple(choices), bounds, default is None)
    return field(default=default, metadata={"setting": about})


class _Checked:
    """Base of the two config classes: checks every field when the object is made."""

    def __post_init__(self) -> None:
        for each in dataclasses.fields(self):  # type: ignore[arg-type]
            value = each.metadata["setting"].check(each.name, getattr(self, each.name))
            object.__setattr__(self, each.name, value)


@dataclass(frozen=True)
class ModelConfig(_Checked):
    """Shape of a character model; saved with every checkpoint."""

    vocab_size: int = field(metadata={"setting": Setting(int, bounds={"least": 1})})  # V, distinct characters
    cell: str = setting("lstm", "Type of the recurrent layers.", MODEL, choices=CELLS)
    hidden_size: int = setting(  # H
        256, "Units in each recurrent layer.", MODEL, shown="256 to 512, by text and budget", least=1
    )
    num_layers: int = setting(2, "Number of recurrent layers.", MODEL, least=1, most=MOST_LAYERS)  # L
    embedding_size: int = setting(0, "Size of a learned character embedding (0: one-hot input).", MODEL, least=0)  # E
    init: str = setting(
        "default",
        "Initial weights: ours, or as in Keras, PyTorch, the PyTorch notebooks (wide) or TensorFlow 1.",
        MODEL,
        choices=INITS,
    )
    dropout: float = setting(
        0.2, "Dropout rate on the outputs of each recurrent layer.", REGULARIZATION,
        shown="0 to 0.5, by text and budget", least=0, below=1,
    )  # fmt: skip


@dataclass(frozen=True)
class TrainConfig(_Checked):
    """Settings of a training run; saved with every checkpoint.

    None means: no limit (`limit_chars`), no second budget, no samples (`sample_every`), a newline (`separator`), saves by
    the clock (`save_every`). `settings.merge.resolve` replaces None in `validate_every`, `shards`, `xla` and the budget.
    """

    limit_chars: int | None = setting(None, "Read only the first N characters of the text.", TEXT, shown="all", least=1)
    encoding: str = setting("utf-8", "Encoding of the text: utf-8, cp1251, utf-16 or any other text codec of Python.", TEXT)
    normalize: str = setting(
        "none", "Unicode normalization form for the text: composed (nfc) or decomposed (nfd).", TEXT,
        choices=NORMAL_FORMS,
    )  # fmt: skip
    separator: str | None = setting(
        None,
        r"Text to put between two files, with escapes such as \n.",
        TEXT,
        kind=str,
        shown="a newline after files that lack one",
    )
    vocabulary: str = setting(
        "corpus", "Characters to learn: the text's own, Python's string.printable, or single bytes.", TEXT,
        choices=VOCABULARIES,
    )  # fmt: skip
    min_count: int = setting(1, "Drop characters that occur fewer than N times.", TEXT, least=1)
    unknown: str = setting(
        "error", "Characters outside the vocabulary: stop with an error, skip them, or add them (with --init-from).", TEXT,
        choices=(*UNKNOWN, ADD),
    )  # fmt: skip
    lines: bool = setting(
        False, "Take every line as a text of its own: start each from a zero state, and shuffle them.", TEXT, shown="off"
    )

    max_seconds: float | None = setting(
        None, "Stop after this wall time of the whole command, summed over resumes, in seconds.", BUDGET, kind=float,
        shown="600 per million characters, 60 to 1,620", above=0,
    )  # fmt: skip
    epochs: int | None = setting(None, "Stop after N passes over the text.", BUDGET, shown="none", least=1)
    max_steps: int | None = setting(None, "Stop after N optimizer steps.", BUDGET, shown="none", least=1)

    batch_size: int = setting(32, "Streams read in parallel.", OPTIMIZER, shown="32, fewer for short texts", least=1)  # B
    num_steps: int = setting(
        64, "Window length: characters read per step, and how far back gradients reach.", OPTIMIZER, least=1
    )  # T
    optimizer: str = setting("adam", "Optimizer.", OPTIMIZER, choices=OPTIMIZERS)
    learning_rate: float = setting(
        0.004, "Learning rate, or its peak under a schedule.", OPTIMIZER, shown="0.02 for Adam, less for wide layers",
        above=0, most=LARGEST_RATE,
    )  # fmt: skip
    schedule: str = setting(
        "cosine", "Learning-rate schedule; cosine falls from the peak to --final-rate.", OPTIMIZER, choices=SCHEDULES
    )
    final_rate: float = setting(
        0.0, "With --schedule cosine: learning rate at the end, as a fraction of the peak.", OPTIMIZER,
        shown="0.4 for Adam", least=0, most=1,
    )  # fmt: skip
    averaging: float = setting(
        0.0, "Average the weights over the last part of the budget; this is its fraction (0: off).", OPTIMIZER,
        shown="0.3 for Adam", least=0, most=1,
    )  # fmt: skip
    warmup_steps: int = setting(100, "Steps over which the learning rate rises from zero.", OPTIMIZER, least=0)
    step_epochs: int = setting(10, "With --schedule step: epochs between two drops of the rate.", OPTIMIZER, least=1)
    gamma: float = setting(0.2, "With --schedule step: factor of each drop.", OPTIMIZER, above=0)
    clip_norm: float = setting(5.0, "Clip gradients to this global norm (0: off).", OPTIMIZER, shown="0.1 for Adam", least=0)
    seed: int = setting(0, "Seed of everything random.", OPTIMIZER, least=0)

    weight_dropout: float = setting(
        0.0, "Dropout rate on the recurrent weights.", REGULARIZATION, shown="0 to 0.5, by text and budget", least=0, below=1
    )
    weight_decay: float = setting(
        0.0, "Shrink kernels and embedding by this times the learning rate in each step, as AdamW does (0: off).",
        REGULARIZATION, shown="0.05 for Adam", least=0,
    )  # fmt: skip
    state_reset: float = setting(
        0.05, "Probability that a stream starts a window from a zero state.", REGULARIZATION, least=0, most=1
    )

    validation_fraction: float = setting(
        0.1, "Fraction of the text held out for validation, from its end (0: none).", SAVING, least=0, below=1
    )
    validate_every: int | None = setting(
        None, "Steps between validations.", SAVING, shown="an epoch, or 10 short ones: 100 to 1,000 steps", least=1
    )
    patience: int = setting(10, "Stop after N validations without improvement (0: never).", SAVING, least=0)
    save_every: int | None = setting(None, "Steps between checkpoints.", SAVING, shown="about once a minute", least=1)
    keep: int = setting(5, "Checkpoints to keep, besides the best.", SAVING, least=1)

    log_every: int = setting(100, "Steps between rows of metrics.csv.", DISPLAY, least=1)
    sample_every: int | str | None = setting(
        None, "Steps between samples, or the word epoch.", DISPLAY, kind=Interval, shown="never", least=1
    )
    sample_prime: tuple[str, ...] = setting(
        ("The ",),
        r"Beginning of a sample, with escapes such as \n; repeat the option for several.",
        DISPLAY,
        shown="'The ', or the text's first word",
    )
    sample_length: int = setting(200, "Characters in a sample.", DISPLAY, least=1, most=LONGEST_SAMPLE)
    sample_top_n: int = setting(5, "Top-n (top-k) of samples; 0: no cut.", DISPLAY, least=0)
    sample_temperature: float = setting(1.0, "Temperature of samples.", DISPLAY, least=0)

    precision: str = setting(
        "float32", "Precision of matrix products in training; bfloat16 is faster on CPUs with hardware bfloat16.", MACHINE,
        shown="bfloat16 where the CPU has it", choices=PRECISIONS,
    )  # fmt: skip
    strategy: str = setting(
        "none", "Train on all GPUs of this machine (mirrored) or on the machines in TF_CONFIG (multiworker).", MACHINE,
        choices=STRATEGIES,
    )  # fmt: skip
    shards: int | None = setting(None, least=1)  # parts of a batch, computed in parallel
    xla: bool | None = setting(None, kind=bool)  # whether XLA compiles the training steps

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "encoding", text_encoding("encoding", self.encoding))
        if self.shards and self.batch_size % self.shards:
            raise ConfigError(f"`shards` must divide `batch_size`, but {self.batch_size} / {self.shards} is not whole")

    def training_characters(self, characters: int) -> int:
        """Length of the part to train on, in characters, of a text of this length; the rest is held out."""
        return characters - int(characters * self.validation_fraction)

    def steps_per_epoch(self, characters: int) -> int:
        """Windows in one pass over the training part of a text of this length."""
        return max(self.training_characters(characters) - 1, 0) // (self.batch_size * self.num_steps)

    def most_steps(self, steps_per_epoch: int) -> int | None:
        """Number of steps after which `max_steps` or `epochs` ends a run; None without either."""
        limits = [self.max_steps, self.epochs and self.epochs * steps_per_epoch]
        return min((limit for limit in limits if limit), default=None)


MODEL_OPTIONS = tuple(each.name for each in dataclasses.fields(ModelConfig) if each.name != "vocab_size")
TRAIN_OPTIONS = tuple(each.name for each in dataclasses.fields(TrainConfig))
# Settings that the command and TOML files can give, by name, in the order of GROUPS
SETTINGS: dict[str, dataclasses.Field[Any]] = {
    each.name: each
    for group in GROUPS
    for kind in (ModelConfig, TrainConfig)
    for each in dataclasses.fields(kind)
    if each.metadata["setting"].group == group
}
# Settings that --resume may change: budgets, reporting, and the devices or machines that compute the same steps
RESUMABLE = frozenset(
    {*BUDGETS, "patience", "strategy", "log_every", "save_every", "keep"}
    | {name for name in TRAIN_OPTIONS if name.startswith("sample_")}
)
Config = TypeVar("Config", ModelConfig, TrainConfig)


def from_json(kind: type[Config], data: Any, where: str) -> Config:
    """A config from its JSON form; `where` names the file in errors.

    A setting that is missing, because an older version wrote the file, takes its default.
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


def text_encoding(name: str, value: Any) -> str:
    """Python's own name of a text encoding: `utf-8` for "UTF8". Raises ConfigError for one that Python does not know."""
    try:
        with suppress(UnicodeError):
            b" ".decode(value)  # refuses codecs that turn bytes into bytes
        return codecs.lookup(value).name
    except (LookupError, TypeError, ValueError):
        raise ConfigError(
            f"`{name}` must be a text encoding that Python knows, such as utf-8, cp1251 or utf-16, got {value!r}"
        ) from None


def whole_number(name: str, value: Any, *, least: float, most: float = 2**63 - 1, also: str = "") -> int:
    """Return the value if it is an int within the bounds, else raise ConfigError.

    also: an alternative to name in the error.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        end = "below 2**63" if most == 2**63 - 1 else f"at most {most:,}"
        raise ConfigError(f"`{name}` must be a whole number of at least {least} and {end}{also}, got {value!r}")
    return value


def finite_number(
    name: str, value: Any, *, least: float = -math.inf, above: float = -math.inf, most: float = math.inf,
    below: float = math.inf,
) -> float:  # fmt: skip
    """Return the value as a float if it is a finite number within the bounds, else raise ConfigError."""
    bounds = {"at least": least, "above": above, "at most": most, "below": below}
    wanted = " and ".join(f"{word} {bound:g}" for word, bound in bounds.items() if math.isfinite(bound))
    number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST_NUMBER
    if not (number and least <= value <= most and above < value < below):
        raise ConfigError(f"`{name}` must be a number{wanted and ' ' + wanted}, got {value!r}")
    return float(value)


def check_cuts(top_n: int, top_p: float, temperature: float, min_p: float = 0.0) -> None:
    """Raise ConfigError for sampling settings that are out of range."""

    def within(name: str, value: Any, bounds: str, inside: Callable[[Any], bool], kind: Any = Real) -> None:
        if not isinstance(value, kind) or not inside(value):
            raise ConfigError(f"`{name}` must be {bounds}, got {value!r}")

    within("top_n", top_n, "a whole number of at least 0 (no cut)", lambda n: n >= 0, Integral)
    within("top_p", top_p, "a number above 0 and at most 1 (no cut)", lambda p: 0 < p <= 1)
    within("min_p", min_p, "a number from 0 (no cut) to 1", lambda p: 0 <= p <= 1)
    within("temperature", temperature, "a number of at least 0 (always the likeliest)", lambda t: 0 <= t < math.inf)
