"""The presets: the default, and the settings of four well-known tutorials."""

from typing import Any

from ..errors import ConfigError
from .schema import EPOCH

DEFAULT = "default"
# Settings of each preset that differ from the defaults in `schema`
PRESETS: dict[str, dict[str, Any]] = {
    DEFAULT: {},
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


def check_preset(name: Any) -> None:
    """Raise ConfigError for an unknown preset."""
    if not isinstance(name, str) or name not in PRESETS:
        raise ConfigError(f"`preset` must be one of {', '.join(PRESETS)}, got {name!r}")
