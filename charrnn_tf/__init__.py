"""Character-level recurrent language models with TensorFlow: train, sample, evaluate, export.

The names below are loaded when first used: importing the package does not import TensorFlow.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "1.0.0"

if TYPE_CHECKING:
    from .api.run import Run as Run
    from .api.run import open_run as open_run
    from .api.train import train as train
    from .errors import CharRNNError as CharRNNError
    from .formats.savedmodel import export_saved_model as export_saved_model
    from .inference.evaluation import evaluate as evaluate
    from .inference.line_scores import score_lines as score_lines
    from .inference.sampling import Sampler as Sampler
    from .machine.hardware import settings_for as settings_for
    from .network.model import build_model as build_model
    from .runs.find import latest_checkpoint as latest_checkpoint
    from .settings.merge import preset as preset
    from .settings.schema import ModelConfig as ModelConfig
    from .settings.schema import TrainConfig as TrainConfig
    from .text.catalog import fetch_corpus as fetch_corpus
    from .text.corpus import load_text as load_text
    from .text.vocabulary import Vocabulary as Vocabulary
    from .text.vocabulary import one_hot as one_hot
    from .text.windows import windows as windows
    from .training.trainer import Trainer as Trainer

_HOME = {
    "train": "api.train",
    "open_run": "api.run",
    "Run": "api.run",
    "CharRNNError": "errors",
    "Vocabulary": "text.vocabulary",
    "load_text": "text.corpus",
    "fetch_corpus": "text.catalog",
    "one_hot": "text.vocabulary",
    "windows": "text.windows",
    "ModelConfig": "settings.schema",
    "TrainConfig": "settings.schema",
    "preset": "settings.merge",
    "settings_for": "machine.hardware",
    "build_model": "network.model",
    "Trainer": "training.trainer",
    "latest_checkpoint": "runs.find",
    "Sampler": "inference.sampling",
    "evaluate": "inference.evaluation",
    "score_lines": "inference.line_scores",
    "export_saved_model": "formats.savedmodel",
}
__all__ = list(_HOME)
_HEAVY = ("network", "inference", "training", "formats")  # rooms that import TensorFlow


def __getattr__(name: str) -> Any:
    """PEP 562: import the module of a public name when it is first used, TensorFlow before it as the command does."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if _HOME[name].split(".")[0] in _HEAVY:
        import_module(".machine.startup", __name__).load()
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
