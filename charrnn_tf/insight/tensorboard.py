"""`--tensorboard DIR`: writes metrics and samples as events that TensorBoard reads."""

import errno
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

from ..errors import ConfigError, reason, warn
from ..runs.metrics import Row


def check(folder: str | Path) -> None:
    """Make the folder. Raises ConfigError if it can't be written, or if the package tensorboard is not installed."""
    if importlib.util.find_spec("tensorboard") is None:
        raise ConfigError("`tensorboard` needs the package tensorboard: pip install 'charrnn-tf[tensorboard]'")
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "permission denied")
    except OSError as error:
        raise ConfigError(f"can't write events to {str(folder)!r}: {reason(error)}") from error


class EventFile:
    """Writes events into a folder that was checked, row by row; if that fails, the run continues with a warning."""

    def __init__(self, folder: str | Path) -> None:
        import tensorflow as tf

        self._folder = folder
        self._summary, self._failure = tf.summary, tf.errors.OpError
        self._writer = tf.summary.create_file_writer(str(folder))

    def row(self, row: Row, gradient_norm: float) -> None:
        """Write a row of metrics.csv and the latest gradient's norm before clipping."""
        values = {
            "loss/training": row.train_loss,
            "loss/validation": row.validation_loss,
            "learning rate": row.learning_rate,
            "gradient norm": gradient_norm,
            "characters per second": row.chars_per_second,
        }

        def scalars() -> None:
            for name, value in values.items():
                if value is not None:
                    self._summary.scalar(name, value)

        self._write(row.step, scalars)

    def sample(self, step: int, text: str) -> None:
        """Write a generated text, indented, so that TensorBoard's Markdown shows it verbatim."""
        indented = "\n".join("    " + line for line in text.split("\n"))
        self._write(step, lambda: self._summary.text("sample", indented))

    def _write(self, step: int, events: Callable[[], object]) -> None:
        try:
            with self._writer.as_default(step=step):
                events()
            self._writer.flush()
        except (OSError, self._failure):
            warn(f"can't write events to {str(self._folder)!r} any more; the run continues.")
