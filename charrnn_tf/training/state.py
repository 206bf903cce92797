"""The variables of a run: weights, optimizer, recurrent state and counters, under the names that checkpoints use."""

import threading
from typing import Any

import keras
import tensorflow as tf

from ..machine.hardware import gpus, has_bfloat16
from ..network.cells import Engine
from ..network.model import build_model, state_names, weights, zero_state
from ..network.products import Tensor
from ..settings.schema import ModelConfig, TrainConfig
from .optimizers import build_optimizer
from .replicas import ALONE, Replicas

HOST = "CPU:0"  # of counters, seeds and the learning rate
COUNTERS = ("step", "loss_sum", "loss_steps", "skipped", "skipped_in_a_row")


class RunState:
    """Everything that a step reads and writes, as variables; checkpoints save them."""

    def __init__(
        self, model_config: ModelConfig, config: TrainConfig, replicas: Replicas = ALONE, line_start: int | None = None
    ) -> None:
        self.replicas = replicas
        self.engine = choose_engine(config)
        self.copies = [self._copy(model_config, config, device) for device in replicas.devices]
        for model, _ in self.copies:
            model.line_start = line_start
        model, self.optimizer = self.copies[0]
        # With averaging, by name: the averaged weights while the model holds the trained ones, else the trained weights
        averaged = weights(model) if config.averaging else {}
        self._others = {name: tf.Variable(each, trainable=False) for name, each in averaged.items()}
        self._trains = False  # whether the model has the trained weights
        self.lock = threading.RLock()  # held while steps run: another thread may ask for the model
        zeros = zero_state(model_config, config.batch_size)
        self.recurrent = [tuple(tf.Variable(zero, trainable=False) for zero in layer) for layer in zeros]
        self.state_names = state_names(model_config)
        with tf.device(HOST):  # a step on a GPU does not wait for them
            self.step = tf.Variable(0, dtype=tf.int64, trainable=False)  # steps done
            # Since the last row of metrics.csv:
            self.loss_sum = tf.Variable(0.0, dtype=tf.float64, trainable=False)
            self.loss_steps = tf.Variable(0, dtype=tf.int64, trainable=False)
            self.skipped = tf.Variable(0, dtype=tf.int64, trainable=False)  # steps whose loss or gradient was not finite
            self.skipped_in_a_row = tf.Variable(0, dtype=tf.int64, trainable=False)
            self.averaged = tf.Variable(0, dtype=tf.int64, trainable=False)  # steps in the averages of the weights
            self.gradient_norm = tf.Variable(0.0, trainable=False)  # of the latest step, before clipping; shown, not saved

    @staticmethod
    def _copy(model_config: ModelConfig, config: TrainConfig, device: str) -> tuple[keras.Model, keras.optimizers.Optimizer]:
        """Weights and optimizer of one replica of this process."""
        with tf.device(device):
            model = build_model(model_config, config.batch_size, seed=config.seed)
            optimizer = build_optimizer(config)
            optimizer.build(model.trainable_variables)
        return model, optimizer

    @property
    def model(self) -> keras.Model:
        """The model with the weights to use."""
        self.to_use()
        return self.copies[0][0]

    def to_train(self) -> None:
        """Give the model the trained weights, for steps."""
        self._exchange(trains=True)

    def to_use(self) -> None:
        """Give the model the weights to evaluate, sample and save: the averages, once averaging has begun."""
        self._exchange(trains=False)

    def _exchange(self, trains: bool) -> None:
        with self.lock:
            if trains != self._trains and int(self.averaged):
                for name, variable in weights(self.copies[0][0]).items():
                    value = variable.numpy()
                    variable.assign(self._others[name].value())
                    self._others[name].assign(value)
            self._trains = trains

    def forget_averages(self) -> Tensor:
        """Start the averages anew, as in a run that goes on with a larger budget; called in a graph."""
        self.averaged.assign(0)
        return tf.constant(False)

    def average(self) -> Tensor:
        """Update the running mean of the weights (Polyak and Juditsky 1992) with this step's; called in a graph."""
        self.averaged.assign_add(1)
        share = 1 / tf.cast(self.averaged, tf.float32)
        for name, variable in weights(self.copies[0][0]).items():
            mean = self._others[name]
            mean.assign_add(share * (variable - mean))
        return tf.constant(True)

    def spread(self) -> None:
        """Copy weights and optimizer of this process's first replica to its others."""
        if len(self.copies) > 1:
            self.to_train()
        for model, optimizer in self.copies[1:]:
            for own, first in [(model, self.copies[0][0]), (optimizer, self.optimizer)]:
                for variable, value in zip(own.variables, first.variables, strict=True):
                    variable.assign(value)

    def mean_loss(self) -> float | None:
        """Mean loss of the steps since the last row, skipped ones excluded; None if all were skipped."""
        made = int(self.loss_steps) - int(self.skipped)
        return float(self.loss_sum) / made if made else None

    def reset_losses(self) -> None:
        """Start the mean of the next row."""
        for counter in (self.loss_sum, self.loss_steps, self.skipped):
            counter.assign(tf.zeros_like(counter))

    def variables(self) -> dict[str, dict[str, Any]]:
        """All saved variables by group and name."""
        recurrent = [part for layer in self.recurrent for part in layer]
        averaging = {"trained": self._others | {"averaged": self.averaged}} if self._others else {}
        return {
            "weights": weights(self.model),
            **averaging,
            "optimizer": {f"{n:03d}.{each.name}": each.value for n, each in enumerate(self.optimizer.variables)},
            "state": dict(zip(self.state_names, recurrent, strict=True)),
            "counters": {name: getattr(self, name) for name in COUNTERS},
        }


def choose_engine(config: TrainConfig) -> Engine:
    """cuDNN on a GPU; otherwise `precision`, but float32 on a CPU without bfloat16 instructions."""
    if gpus():
        return Engine.CUDNN
    return Engine.BFLOAT16 if config.precision == "bfloat16" and has_bfloat16() else Engine.FLOAT32
