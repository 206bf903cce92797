"""Whoever watches a run, and the samples that it shows while it trains."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import keras

from ..inference.sampling import Sampler
from ..settings.schema import ModelConfig, TrainConfig
from ..text.vocabulary import Vocabulary


class Display(Protocol):
    """Whoever watches a run: told of more than the rows that `Trainer.run` yields."""

    def progress(self, step: int, loss: float | None, chars_per_second: float) -> None:
        """After each compiled call: steps done, and the mean loss since the last row (None: every step was skipped)."""

    def sample(self, step: int, text: str) -> None:
        """A text generated with the weights of this step."""


class Samples:
    """Generates a text for each `sample_prime` with the weights of the moment, by a sampling model of its own."""

    def __init__(self, model_config: ModelConfig, config: TrainConfig, vocabulary: Vocabulary) -> None:
        self._model_config, self._config, self._vocabulary = model_config, config, vocabulary
        self._sampler: Sampler | None = None  # built for the first sample

    def write(self, model: keras.Model, step: int) -> Iterator[str]:
        """The texts of a step: the same seed, step and weights give the same texts."""
        config = self._config
        if self._sampler is None:
            self._sampler = Sampler(self._model_config, self._vocabulary)
        self._sampler.model.set_weights(model.get_weights())
        for prime in config.sample_prime:
            yield self._sampler.sample(
                prime, config.sample_length, top_n=config.sample_top_n, temperature=config.sample_temperature,
                seed=(config.seed + step) % 2**63, unknown="skip",
            )  # fmt: skip
