"""The PyTorch and Keras programs that `charrnn-tf benchmark --compare` measures. Each part prints one number.

python -m charrnn_tf.bench.peers torch-step|torch-best|torch-sample|keras-step [ARGUMENT]...

Each part imports its own framework, so that no other framework's threads run beside it.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ..machine.hardware import ONEDNN, available_cores

V = 83  # distinct characters of Anna Karenina
WAYS = ("plain", "compiled", "one thread", "without oneDNN")  # to run PyTorch's step; compiled: `torch.compile`


def median_seconds(work: Callable[[], object], runs: int, warm_up: int = 2) -> float:
    """Median time of some calls of `work`, after warm-up calls."""
    times = []
    for _ in range(runs + warm_up):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return statistics.median(times[warm_up:])


def torch_network(cell: str, hidden: int, layers: int = 2) -> Any:
    """The PyTorch notebooks' network: recurrent layers with dropout, another dropout, dense layer."""
    from torch import nn

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            recurrent = nn.LSTM if cell == "lstm" else nn.GRU
            self.recurrent = recurrent(V, hidden, layers, dropout=0.5 if layers > 1 else 0.0, batch_first=True)
            self.dropout = nn.Dropout(0.5)
            self.dense = nn.Linear(hidden, V)

        def forward(self, x: Any, state: Any) -> Any:
            outputs, state = self.recurrent(x, state)
            return self.dense(self.dropout(outputs).reshape(-1, hidden)), state

    return Network()


def torch_step(
    cell: str = "lstm",
    precision: str = "float32",
    hidden: str = "512",
    layers: str = "2",
    batch: str = "128",
    window: str = "100",
    way: str = "plain",
) -> None:
    """Print seconds per training step in PyTorch as in the notebooks: one-hot input, clipping at 5, Adam.

    way: one of WAYS.
    """
    import torch
    from torch import nn

    torch.set_num_threads(1 if way == "one thread" else available_cores())
    torch.backends.mkldnn.enabled = way != "without oneDNN"
    H, L, B, T = int(hidden), int(layers), int(batch), int(window)
    network = torch_network(cell, H, L)
    forward = torch.compile(network) if way == "compiled" else network
    optimizer, loss_of = torch.optim.Adam(network.parameters(), lr=0.001), nn.CrossEntropyLoss()
    ids = torch.randint(0, V, (B, T + 1))
    zero = torch.zeros(L, B, H)
    state: Any = [zero if cell == "gru" else (zero, zero.clone())]

    def step() -> None:
        x = nn.functional.one_hot(ids[:, :-1], V).float()
        before = state[0].detach() if cell == "gru" else tuple(part.detach() for part in state[0])
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            logits, after = forward(x, before)
        state[0] = after.float() if cell == "gru" else tuple(part.float() for part in after)
        loss_of(logits.float(), ids[:, 1:].reshape(-1)).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5)
        optimizer.step()

    print(median_seconds(step, 5))


def torch_best(*arguments: str) -> None:
    """Print the fewest seconds of `torch_step` of all WAYS, and those of each on standard error.

    arguments: those of `torch_step`, without the way.
    """
    seconds = {}
    *defaults, _ = torch_step.__defaults__ or ()
    filled = [*arguments, *defaults[len(arguments) :]]
    for way in WAYS:
        command = [sys.executable, "-m", "charrnn_tf.bench.peers", "torch-step", *filled, way]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode == 0:
            seconds[way] = float(result.stdout)
        print(f"{way}: {seconds.get(way, 'failed')}", file=sys.stderr, flush=True)
    print(min(seconds.values()))


def torch_sample(length: str = "1000") -> None:
    """Print characters per second of the notebooks' `predict`, called in a Python loop, top-n 5."""
    import torch
    from torch import nn

    torch.set_num_threads(available_cores())
    network = torch_network("lstm", 512).eval()

    def predict(character: int, state: Any) -> tuple[int, Any]:
        x = np.zeros((1, 1, V), np.float32)
        x[0, 0, character] = 1
        logits, state = network(torch.from_numpy(x), tuple(part.data for part in state))
        chances, ids = nn.functional.softmax(logits, dim=1).data.topk(5)
        odds = chances.numpy().squeeze()
        return int(np.random.choice(ids.numpy().squeeze(), p=odds / odds.sum())), state

    character, state = 0, (torch.zeros(2, 1, 512), torch.zeros(2, 1, 512))
    for count in (100, int(length)):
        begin = time.perf_counter()
        for _ in range(count):
            character, state = predict(character, state)
    print(count / (time.perf_counter() - begin))


def keras_step(cell: str = "lstm") -> None:
    """Print seconds per step of the same model with plain Keras layers in a `tf.function`, clipping at 5, Adam."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault(ONEDNN, "1")
    import keras
    import tensorflow as tf

    ids = keras.Input(batch_shape=(128, 100), dtype="int32")
    x = keras.ops.one_hot(ids, V)
    for _ in range(2):
        layer = keras.layers.LSTM if cell == "lstm" else keras.layers.GRU
        x = keras.layers.Dropout(0.5)(layer(512, return_sequences=True, stateful=True)(x))
    model = keras.Model(ids, keras.layers.Dense(V)(x))
    optimizer = keras.optimizers.Adam(0.001)
    window = tf.constant(np.random.randint(0, V, (128, 101)), tf.int32)

    @tf.function
    def step() -> tf.Tensor:
        with tf.GradientTape() as tape:
            logits = model(window[:, :-1], training=True)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(window[:, 1:], logits))
        gradients, _ = tf.clip_by_global_norm(tape.gradient(loss, model.trainable_variables), 5.0)
        optimizer.apply(gradients, model.trainable_variables)
        return loss

    print(median_seconds(lambda: step().numpy(), 5))


PARTS = {part.__name__.replace("_", "-"): part for part in (torch_step, torch_best, torch_sample, keras_step)}

if __name__ == "__main__":
    PARTS[sys.argv[1]](*sys.argv[2:])
