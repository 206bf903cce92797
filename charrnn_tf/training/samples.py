"""The display of a run, and the samples shown on it during training."""

import functools
from typing import Protocol

import keras

from ..inference.sampling import Sampler
from ..network.model import line_start
from ..settings.schema import ModelConfig, TrainConfig
from ..text.vocabulary import Vocabulary


class Display(Protocol):
    """Shows a run's progress between the rows that `Trainer.run` yields."""

    def progress(self, step: int, loss: float | None, chars_per_second: float) -> None:
        """Show the state after a compiled call: steps done, mean loss since the last row (None: every step was skipped)."""

    def activity(self, doing: str) -> None:
        """Show the current activity other than training, such as "validating"."""

    def sample(self, step: int, text: str) -> None:
        """Show a text generated with the weights of this step."""


class Samples:
    """Generates a text for each `sample_prime` with the current weights, by a sampling model of its own."""

    def __init__(self, model_config: ModelConfig, config: TrainConfig, vocabulary: Vocabulary) -> None:
        self._config = config
        self._sampler = functools.cache(lambda: Sampler(model_config, vocabulary))  # built for the first sample

    def show(self, model: keras.Model, step: int, display: Display) -> None:
        """Show the texts of a step: the same seed, step and weights give the same texts."""
        config, sampler = self._config, self._sampler()
        sampler.normalize, sampler.model.line_start = config.normalize, line_start(model)
        sampler.model.set_weights(model.get_weights())
        for prime in config.sample_prime:
            text = sampler.sample(
                prime, config.sample_length, top_n=config.sample_top_n, temperature=config.sample_temperature,
                seed=(config.seed + step) % 2**63, unknown="skip",
            )  # fmt: skip
            display.sample(step, text)
