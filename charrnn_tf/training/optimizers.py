"""The optimizers by name: Keras's, with a faster Adam."""

from typing import Any

import keras
import tensorflow as tf

from ..network.products import Tensor
from ..settings.schema import TrainConfig


class Adam(keras.optimizers.Adam):
    """Keras's Adam, with each update fused into `ResourceApplyAdam`."""

    def update_step(self, gradient: Tensor, variable: Any, learning_rate: Tensor) -> None:
        """Update one variable."""
        place = self._get_variable_index(variable)
        step = tf.cast(self.iterations.value + 1, tf.float32)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle, m=self._momentums[place].value.handle, v=self._velocities[place].value.handle,
            beta1_power=self.beta_1**step, beta2_power=self.beta_2**step, lr=learning_rate, beta1=self.beta_1,
            beta2=self.beta_2, epsilon=self.epsilon, grad=gradient,
        )  # fmt: skip


def build_optimizer(config: TrainConfig) -> keras.optimizers.Optimizer:
    """The optimizer named in the settings; Adam's epsilon is 1e-8, as in its paper, TensorFlow 1 and PyTorch.

    `step.train_step` calls only its `update_step`, so Keras's weight decay and weight averaging do not apply. Its variables
    are float32 whatever Keras's default is. The name is the same in every run: TensorFlow caches an operation for each name
    of a variable.
    """
    kind, epsilon = {
        "adam": (Adam, {"epsilon": 1e-8}),
        "rmsprop": (keras.optimizers.RMSprop, {"epsilon": 1e-7}),
        "sgd": (keras.optimizers.SGD, {}),
    }[config.optimizer]
    default = keras.config.floatx()
    keras.config.set_floatx("float32")  # of the variable for the learning rate; slots have their weight's dtype
    try:
        return kind(config.learning_rate, name=config.optimizer, **epsilon)
    finally:
        keras.config.set_floatx(default)
