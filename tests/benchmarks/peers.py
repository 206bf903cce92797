"""Measures one figure of another program, for `run.py`. Prints one number per line.

    python tests/benchmarks/peers.py PART [ARGUMENT]...

PyTorch parts need torch; `tf1-notebook` needs tf_keras.
"""

import os
import statistics
import string
import sys
import time

import numpy as np

from charrnn_tf.bench.peers import keras_step, torch_sample, torch_step

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


def torch_sherlock(path: str, characters: str = "10000", epochs: str = "1", seed: str = "0") -> None:
    """The Sherlock tutorial's training in PyTorch: characters per second in the last epoch, then each epoch's loss."""
    import torch
    from torch import nn

    torch.set_num_threads(2)
    torch.manual_seed(int(seed))
    size, T = len(string.printable), 25
    with open(path, encoding="utf-8") as file:
        text = [c for c in file.read() if c in string.printable][: int(characters)]
    ids = torch.tensor([string.printable.index(c) for c in text])
    embedding, gru, dense = nn.Embedding(size, size), nn.GRU(size, size), nn.Linear(size, size)
    parameters = [*embedding.parameters(), *gru.parameters(), *dense.parameters()]
    optimizer, loss_of = torch.optim.Adam(parameters, lr=0.005), nn.CrossEntropyLoss()
    begins, nats, speed = range(0, len(ids) - T, T), [], 0.0
    for _ in range(int(epochs)):
        begin, total = time.perf_counter(), 0.0
        for start in begins:
            state, loss = torch.zeros(1, 1, size), torch.zeros(())
            optimizer.zero_grad()
            for place in range(start, start + T):
                outputs, state = gru(embedding(ids[place].view(1, -1)).view(1, 1, -1), state)
                loss = loss + loss_of(dense(outputs.view(1, -1)), ids[place + 1].view(1))
            loss.backward()
            optimizer.step()
            total += loss.item()
        speed = len(begins) * T / (time.perf_counter() - begin)
        nats.append(total / (len(begins) * T))
    print(speed, *nats, sep="\n")


def keras_tutorial(path: str, epochs: str = "1", steps: str = "0", seed: str = "0") -> None:
    """TensorFlow's tutorial under Keras `fit`: seconds per step, then the mean loss of each epoch. steps: 0 for all."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(int(seed))
    with open(path, encoding="utf-8") as file:
        text = file.read()
    characters = sorted(set(text))
    ids = np.array([characters.index(c) for c in text], np.int32)
    model = keras.Sequential([
        keras.Input((100,), dtype="int32"),
        keras.layers.Embedding(len(characters) + 1, 256),
        keras.layers.GRU(1024, return_sequences=True),
        keras.layers.Dense(len(characters) + 1),
    ])  # fmt: skip
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    rows = ids[: len(ids) // 101 * 101].reshape(-1, 101)[: int(steps) * 64 or None]
    data = tf.data.Dataset.from_tensor_slices((rows[:, :-1], rows[:, 1:])).shuffle(10_000, seed=int(seed)).batch(64, True)
    ends: list[float] = []

    class Clock(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: object = None) -> None:
            ends.append(time.perf_counter())

    history = model.fit(data, epochs=int(epochs), verbose=0, callbacks=[Clock()])
    print(statistics.median(np.diff(ends)[1:]), *history.history["loss"], sep="\n")


def tf1_notebook(path: str, epochs: str = "1", seed: str = "1", targets: str = "wrapped") -> None:
    """The TensorFlow 1 notebook's graph on today's TensorFlow: seconds per step, then the mean loss of each epoch.

    targets: the last target of a window is its first character ("wrapped", as in the notebook) or the "next" character.
    """
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    import tensorflow as tf

    v1 = tf.compat.v1
    v1.disable_eager_execution()
    v1.set_random_seed(int(seed))
    H, B, T = 128, 10, 50
    with open(path, encoding="utf-8") as file:
        text = file.read()
    characters = sorted(set(text))
    ids = np.array([characters.index(c) for c in text], np.int32)
    rows = ids[: len(ids) // (B * T) * B * T].reshape(B, -1)
    x, y = v1.placeholder(tf.int32, (B, T)), v1.placeholder(tf.int32, (B, T))
    drop = [v1.nn.rnn_cell.DropoutWrapper(v1.nn.rnn_cell.BasicLSTMCell(H), output_keep_prob=0.5) for _ in range(2)]
    cell = v1.nn.rnn_cell.MultiRNNCell(drop)
    zero = cell.zero_state(B, tf.float32)
    outputs, last = v1.nn.dynamic_rnn(cell, tf.one_hot(x, len(characters)), initial_state=zero)
    kernel = v1.Variable(v1.truncated_normal((H, len(characters)), stddev=0.1))
    logits = tf.matmul(tf.reshape(outputs, (-1, H)), kernel) + v1.Variable(tf.zeros(len(characters)))
    labels = tf.reshape(tf.one_hot(y, len(characters)), (-1, len(characters)))
    loss = tf.reduce_mean(v1.nn.softmax_cross_entropy_with_logits_v2(labels=labels, logits=logits))
    gradients, _ = tf.clip_by_global_norm(tf.gradients(loss, v1.trainable_variables()), 5.0)
    update = v1.train.AdamOptimizer(0.01).apply_gradients(zip(gradients, v1.trainable_variables(), strict=True))
    means, seconds = [], 0.0
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        for _ in range(int(epochs)):
            state, losses, begin = session.run(zero), [], time.perf_counter()
            for start in range(0, rows.shape[1], T):
                window = rows[:, start : start + T]
                after = np.roll(window, -1, axis=1)  # its last target is its first character, as in the notebook
                if targets == "next" and start + T < rows.shape[1]:
                    after[:, -1] = rows[:, start + T]
                value, state, _ = session.run([loss, last, update], {x: window, y: after, zero: state})
                losses.append(value)
            seconds = (time.perf_counter() - begin) / len(losses)
            means.append(float(np.mean(losses)))
    print(seconds, *means, sep="\n")


PARTS = {
    part.__name__.replace("_", "-"): part
    for part in (torch_step, torch_sample, torch_sherlock, keras_step, keras_tutorial, tf1_notebook)
}

if __name__ == "__main__":
    PARTS[sys.argv[1]](*sys.argv[2:])
