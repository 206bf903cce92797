"""Traces a model through a text, character by character: surprise, activity of cells, influence of earlier characters."""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ..network.cells import State
from ..network.model import advance, input_table, recurrent_layers, zero_state
from ..network.products import Tensor
from ..settings.schema import ModelConfig
from ..text.vocabulary import Ids

LIKELIEST = 5  # next characters kept of each distribution
BACK = 64  # largest distance of an earlier character whose influence is computed
AT_ONCE = 1 << 24  # upper bound on the elements of one tensor in `influence`
OPENING, CLOSING = "([{<", ")]}>"
LINE = re.compile(r"[^\n]*\n|[^\n]+")
Floats = npt.NDArray[np.float32]
Progress = Callable[[int, int], None]  # called with the number of characters done and their total


@dataclass(frozen=True)
class Trace:
    """Record of a model reading a text: N characters, L layers of H cells."""

    ids: npt.NDArray[np.int64]  # [N]
    nats: Floats  # -log p(character | those before it), [N]; nan for the first
    likeliest: npt.NDArray[np.int64]  # ids of the model's top guesses for each character, [N, LIKELIEST]
    probabilities: Floats  # of these, [N, LIKELIEST]
    cells: Floats  # after each character, -1 to 1, [N, L * H]: tanh(c) of an LSTM (Karpathy et al. 2015), h of a GRU
    states: list[tuple[Floats, ...]]  # per layer, the state before each character, then the one after the last, [N + 1, H]


def read(model: keras.Model, config: ModelConfig, ids: Ids) -> Trace:
    """Read a text's ids [N] from a zero state, dropout off."""
    run = tf.function(
        lambda ids: _read(model, config, ids), autograph=False, input_signature=[tf.TensorSpec([None], tf.int32)]
    )
    nats, likeliest, probabilities, states = run(tf.constant(ids.astype(np.int32)))
    states = tf.nest.map_structure(lambda part: part.numpy(), states)
    cells = [np.tanh(layer[1]) if len(layer) > 1 else layer[0] for layer in states]
    unknown = np.full((1, likeliest.shape[1]), math.nan, np.float32)  # no distribution before the first character
    return Trace(
        ids.astype(np.int64),
        np.concatenate([[math.nan], nats.numpy()[:-1]]).astype(np.float32),
        np.concatenate([np.zeros_like(likeliest[:1]), likeliest[:-1]]).astype(np.int64),
        np.concatenate([unknown, probabilities[:-1]]),
        np.concatenate([each[1:] for each in cells], axis=1),
        states,
    )


def _read(model: keras.Model, config: ModelConfig, ids: Tensor) -> tuple[Tensor, Tensor, Tensor, list[Any]]:
    """Nats of each following character, the likeliest ones with their probabilities, and all states, the zero one first."""
    table = input_table(model)
    logits_layer = model.get_layer("logits")
    count = tf.shape(ids)[0]
    targets = tf.concat([ids[1:], ids[:1]], 0)  # the last is a placeholder; its loss is cut off
    best = min(LIKELIEST, config.vocab_size)

    def body(n: Tensor, state: Any, nats: Any, likeliest: Any, probabilities: Any, kept: Any) -> Any:
        outputs, state = advance(model, table, ids[n][None], state)
        logs = tf.nn.log_softmax(logits_layer(outputs))[0]
        top, places = tf.math.top_k(logs, best)
        nats, likeliest = nats.write(n, -logs[targets[n]]), likeliest.write(n, places)
        kept = tf.nest.map_structure(lambda array, part: array.write(n + 1, part[0]), kept, state)
        return n + 1, state, nats, likeliest, probabilities.write(n, tf.exp(top)), kept

    state = zero_state(config, 1)
    array = tf.TensorArray
    kept = tf.nest.map_structure(lambda part: array(tf.float32, count + 1).write(0, part[0]), state)
    arrays = array(tf.float32, count), array(tf.int32, count), array(tf.float32, count)
    _, _, *arrays, kept = tf.while_loop(lambda n, *_: n < count, body, (0, state, *arrays, kept), parallel_iterations=1)
    stacked = tf.nest.map_structure(lambda each: each.stack(), kept)
    return *(each.stack() for each in arrays), stacked


# Features of a text at each character: functions of the text that return numbers [N]


def inside_quotes(text: str) -> list[float]:
    """1 between quotation marks; a blank line ends an open quotation."""
    out, inside = [], False
    for n, character in enumerate(text):
        if character == '"':
            inside = not inside
        elif character in "“«":
            inside = True
        elif character in "”»" or text[n - 1 : n + 1] == "\n\n":
            inside = False
        out.append(float(inside))
    return out


def inside_brackets(text: str) -> list[float]:
    """Number of open brackets; a blank line closes all."""
    out, depth = [], 0
    for n, character in enumerate(text):
        if text[n - 1 : n + 1] == "\n\n":
            depth = 0
        depth = max(depth + (character in OPENING) - (character in CLOSING), 0)
        out.append(float(depth))
    return out


def since_newline(text: str) -> list[float]:
    """Characters since the last newline."""
    return [0.0 if character == "\n" else n + 1.0 for line in LINE.findall(text) for n, character in enumerate(line)]


def position_in_line(text: str) -> list[float]:
    """Fraction of the line read so far, 0 to 1."""
    return [(n + 1) / len(line) for line in LINE.findall(text) for n in range(len(line))]


def inside_word(text: str) -> list[float]:
    """1 at a letter or digit that is followed by another."""
    return [float(a.isalnum() and b.isalnum()) for a, b in zip(text, text[1:] + " ", strict=True)]


def capital_next(text: str) -> list[float]:
    """1 before a capital letter."""
    return [float(character.isupper()) for character in text[1:] + " "]


def indentation(text: str) -> list[float]:
    """Spaces read at the beginning of the line (a tab counts 4)."""
    out, width, begun = [], 0.0, False
    for character in text:
        if character == "\n":
            width, begun = 0.0, False
        elif not begun and character in " \t":
            width += 4 if character == "\t" else 1
        else:
            begun = True
        out.append(width)
    return out


FEATURES: dict[str, Callable[[str], list[float]]] = {
    "inside quotes": inside_quotes,
    "inside brackets": inside_brackets,
    "since the last newline": since_newline,
    "position in the line": position_in_line,
    "inside a word": inside_word,
    "capital next": capital_next,
    "indentation": indentation,
}


def correlations(cells: Floats, text: str) -> Floats:
    """Pearson correlation of each cell [N, C] with each of FEATURES -> [C, F]; 0 where either is constant."""
    features = np.array([measure(text) for measure in FEATURES.values()]).T
    a, b = (each - each.mean(axis=0) for each in (cells.astype(np.float64), features))
    spread = np.sqrt((a**2).sum(axis=0))[:, None] * np.sqrt((b**2).sum(axis=0))
    return np.where(spread > 1e-9, (a.T @ b) / np.maximum(spread, 1e-9), 0.0).astype(np.float32)


def clearest(found: Floats, most: int) -> Iterator[tuple[int, int]]:
    """Cells by their strongest correlation with a feature, strongest first: (cell, number of the feature)."""
    strongest = np.abs(found).max(axis=1)
    for cell in np.argsort(-strongest, kind="stable")[:most]:
        yield int(cell), int(np.abs(found[cell]).argmax())


def influence(model: keras.Model, trace: Trace, back: int = BACK, progress: Progress = lambda done, total: None) -> Floats:
    """Influence of earlier characters on each prediction, [N - 1, back].

    Entry [n, d] measures how strongly input n - d affects the prediction of character n + 1. It is the norm of the gradient
    of log p(character n + 1) with respect to that input's one-hot row or embedding; 0 before the text begins. After Madsen,
    "Visualizing memorization in RNNs", Distill 2019.
    """
    count = len(trace.ids) - 1
    back = min(back, max(count, 1))
    size = max(1, AT_ONCE // (back * max(recurrent_layers(model)[0].cell.kernel.shape)))
    gradient = tf.function(lambda *given: _gradients(model, *given), autograph=False, reduce_retracing=True)
    out = np.zeros((count, back), np.float32)
    for begin in range(0, count, size):
        ends = np.arange(begin, min(begin + size, count))
        starts = np.maximum(ends - back + 1, 0)
        window = trace.ids[starts[:, None] + np.arange(back)].astype(np.int32)
        before = [tuple(tf.constant(part[starts]) for part in layer) for layer in trace.states]
        lengths = gradient(
            tf.constant(window), before, tf.constant(ends - starts), tf.constant(trace.ids[ends + 1])
        ).numpy()  # [windows, back]
        for end, start, row in zip(ends, starts, lengths, strict=True):
            out[end, : end - start + 1] = row[: end - start + 1][::-1]
        progress(int(ends[-1]) + 1, count)
    return out


def _gradients(model: keras.Model, window: Tensor, state: list[State], ends: Tensor, targets: Tensor) -> Tensor:
    """Norms of the gradients of windows, [P, W]: window p predicts targets[p] after its position ends[p]."""
    inputs = tf.gather(input_table(model), tf.transpose(window))
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = inputs
        for n, (layer, before) in enumerate(zip(recurrent_layers(model), state, strict=True)):
            outputs, _ = layer.scan(layer.project(outputs) if n else outputs, before)
        last = tf.gather(tf.transpose(outputs, (1, 0, 2)), ends, batch_dims=1)
        logs = tf.nn.log_softmax(model.get_layer("logits")(last))
        total = tf.reduce_sum(tf.gather(logs, targets, batch_dims=1))
    gates = tape.gradient(total, inputs)
    by_input = tf.tensordot(gates, tf.convert_to_tensor(recurrent_layers(model)[0].cell.kernel), [[2], [1]])
    return tf.transpose(tf.norm(by_input, axis=2))
