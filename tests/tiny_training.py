"""Training steps of tiny models on random windows, without a `Trainer`: H=8, V=11, B=2, T=4, seven steps per epoch."""

import numpy as np

from charrnn_tf.settings.schema import ModelConfig, TrainConfig
from charrnn_tf.text.windows import Streams
from charrnn_tf.training.compiled import compile_steps
from charrnn_tf.training.state import RunState

V, STEPS_PER_EPOCH = 11, 7


def model_config(**changes):
    return ModelConfig(**{"vocab_size": V, "hidden_size": 8, "num_layers": 1, "dropout": 0.0, **changes})


def train_config(**changes):
    plain = {"batch_size": 2, "num_steps": 4, "max_steps": 50, "schedule": "constant", "state_reset": 0.0, "shards": 1}
    return TrainConfig(**{**plain, "warmup_steps": 0, **changes})


def random_windows(config, count, seed=0):
    """Consecutive windows, as of a text: each begins with the last character of the one before, [count, B, T + 1]."""
    length = config.batch_size * count * config.num_steps + 1
    ids = np.random.default_rng(seed).integers(V, size=length)
    return Streams.cut(ids.astype(np.uint8), config.batch_size, config.num_steps).read(0, count)


class Training:
    """A run and its compiled loop; `train` returns the sum of the losses of each call."""

    def __init__(self, model, config, steps_per_epoch=STEPS_PER_EPOCH):
        self.run = RunState(model, config)
        self._run_steps = compile_steps(self.run, model, config, steps_per_epoch)
        self.initial = self.values()

    def train(self, windows, calls):
        """Train on windows in calls of these numbers of steps."""
        sums = []
        for part in np.split(windows, np.cumsum(calls)[:-1]):
            before = float(self.run.loss_sum)
            self._run_steps(part, 0.0)
            sums.append(float(self.run.loss_sum) - before)
        return np.array(sums)

    def run_at(self, windows, time_fraction):
        """Train on windows at a used fraction of `max_seconds`."""
        self._run_steps(windows, time_fraction)

    def values(self):
        """All saved variables as arrays, by group and name."""
        named = self.run.variables().items()
        return {f"{group}/{name}": variable.numpy() for group, variables in named for name, variable in variables.items()}

    def restart(self):
        """Go back to the initial values, without compiling again."""
        for group, variables in self.run.variables().items():
            for name, variable in variables.items():
                variable.assign(self.initial[f"{group}/{name}"])


def assert_equal(ours, theirs):
    """Compare `values` bit for bit."""
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        np.testing.assert_array_equal(value, theirs[name], err_msg=name)
