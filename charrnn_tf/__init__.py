"""Character-level recurrent language models with TensorFlow: train, sample, evaluate, export.

The names below are loaded when first used: importing the package does not import TensorFlow.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .batches import windows as windows
    from .config import ModelConfig as ModelConfig
    from .config import TrainConfig as TrainConfig
    from .config import preset as preset
    from .corpus import load_text as load_text
    from .errors import CharRNNError as CharRNNError
    from .evaluation import evaluate as evaluate
    from .export import export_saved_model as export_saved_model
    from .model import build_model as build_model
    from .recipe import settings_for as settings_for
    from .record import latest_checkpoint as latest_checkpoint
    from .sampling import Sampler as Sampler
    from .training import Trainer as Trainer
    from .vocabulary import Vocabulary as Vocabulary
    from .vocabulary import one_hot as one_hot

_HOME = {
    "CharRNNError": "errors",
    "Vocabulary": "vocabulary",
    "load_text": "corpus",
    "one_hot": "vocabulary",
    "windows": "batches",
    "ModelConfig": "config",
    "TrainConfig": "config",
    "preset": "config",
    "settings_for": "recipe",
    "build_model": "model",
    "Trainer": "training",
    "latest_checkpoint": "record",
    "Sampler": "sampling",
    "evaluate": "evaluation",
    "export_saved_model": "export",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    """PEP 562: import the module that holds a public name when it is first asked for."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
