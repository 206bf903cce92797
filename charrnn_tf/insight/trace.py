"""What a model does with a text, character by character: surprise, what single cells follow, how far back it looks."""

from __future__ import annotations

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

LIKELIEST = 5  # next characters that are kept of each distribution
BACK = 64  # characters that looking back goes
AT_ONCE = 1 << 24  # numbers in one tensor of a batch
OPENING, CLOSING = "([{<", ")]}>"
Floats = npt.NDArray[np.float32]
Progress = Callable[[int, int], None]  # told how many characters of how many are done


@dataclass(frozen=True)
class Trace:
    """What a model's reading of a text left: N characters, L layers of H cells."""

    ids: npt.NDArray[np.int64]  # [N]
    nats: Floats  # -log p(character | those before it), [N]; the first has none: nan
    likeliest: npt.NDArray[np.int64]  # ids of the likeliest characters before each was read, [N, LIKELIEST]
    probabilities: Floats  # of these, [N, LIKELIEST]
    cells: Floats  # after each character, -1 to 1, [N, L * H]: tanh(c) of an LSTM (Karpathy et al. 2015), h of a GRU
    states: list[tuple[Floats, ...]]  # of each layer before each character, [N + 1, H] each


def trace(model: keras.Model, config: ModelConfig, ids: Ids) -> Trace:
    """Read a text's ids [N] from a zero state, dropout off."""
    run = tf.function(
        lambda ids: _read(model, config, ids), autograph=False, input_signature=[tf.TensorSpec([None], tf.int32)]
    )
    nats, likeliest, probabilities, states = run(tf.constant(ids.astype(np.int32)))
    states = tf.nest.map_structure(lambda part: part.numpy(), states)
    cells = [np.tanh(layer[1]) if len(layer) > 1 else layer[0] for layer in states]
    unknown = np.full((1, likeliest.shape[1]), math.nan, np.float32)  # nothing was expected before the first character
    return Trace(
        ids.astype(np.int64),
        np.concatenate([[math.nan], nats.numpy()[:-1]]).astype(np.float32),
        np.concatenate([np.zeros_like(likeliest[:1]), likeliest[:-1]]).astype(np.int64),
        np.concatenate([unknown, probabilities[:-1]]),
        np.concatenate([each[1:] for each in cells], axis=1),
        states,
    )


def _read(model: keras.Model, config: ModelConfig, ids: Tensor) -> tuple[Tensor, Tensor, Tensor, list[Any]]:
    """Nats of the character after each, the likeliest and their probabilities, and all states: the zero one, then [N]."""
    table = input_table(model)
    logits_layer = model.get_layer("logits")
    count = tf.shape(ids)[0]
    targets = tf.concat([ids[1:], ids[:1]], 0)  # the last one's is no use and cut off
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


# What can be known from the text at each character: name -> function of the text, numbers [N]


def inside_quotes(text: str) -> list[float]:
    """1 between quotation marks; a blank line ends a quotation that was left open."""
    out, inside = [], False
    for n, character in enumerate(text):
        if character in "“«":
            inside = True
        elif character in "”»":
            inside = False
        elif character == '"':
            inside = not inside
        elif character == "\n" and text[n - 1 : n] == "\n":
            inside = False
        out.append(float(inside))
    return out


def inside_brackets(text: str) -> list[float]:
    """How many brackets are open; a blank line closes all."""
    out, depth = [], 0
    for n, character in enumerate(text):
        if character in OPENING:
            depth += 1
        elif character in CLOSING or (character == "\n" and text[n - 1 : n] == "\n"):
            depth = max(depth - 1, 0) if character in CLOSING else 0
        out.append(float(depth))
    return out


def since_newline(text: str) -> list[float]:
    """Characters since the last newline."""
    out, count = [], 0.0
    for character in text:
        count = 0.0 if character == "\n" else count + 1
        out.append(count)
    return out


def place_in_line(text: str) -> list[float]:
    """How much of its line is over, 0 to 1."""
    out: list[float] = []
    for line in re.findall(r"[^\n]*\n|[^\n]+", text):
        out += [(n + 1) / len(line) for n in range(len(line))]
    return out


def inside_word(text: str) -> list[float]:
    """1 at a letter or digit that another one follows."""
    return [float(a.isalnum() and b.isalnum()) for a, b in zip(text, text[1:] + " ", strict=True)]


def capital_next(text: str) -> list[float]:
    """1 where the next character is a capital."""
    return [float(character.isupper()) for character in text[1:] + " "]


def indentation(text: str) -> list[float]:
    """Spaces at the line's beginning (a tab as 4) that were read so far."""
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
    "place in the line": place_in_line,
    "inside a word": inside_word,
    "capital coming": capital_next,
    "indentation": indentation,
}


def correlations(cells: Floats, text: str) -> Floats:
    """Pearson's correlation of each cell [N, C] with each of FEATURES -> [C, F]; 0 where one of both never changes."""
    features = np.array([measure(text) for measure in FEATURES.values()]).T
    a, b = (each - each.mean(axis=0) for each in (cells.astype(np.float64), features))
    spread = np.sqrt((a**2).sum(axis=0))[:, None] * np.sqrt((b**2).sum(axis=0))
    return np.where(spread > 1e-9, (a.T @ b) / np.maximum(spread, 1e-9), 0.0).astype(np.float32)


def looks_back(model: keras.Model, read: Trace, back: int = BACK, progress: Progress = lambda done, total: None) -> Floats:
    """How much each character's prediction hung on those before it, [N - 1, back].

    Row n tells of the prediction of character n + 1, column d of character n - d: the length of the gradient of the
    logarithm of what was then predicted for the character that came, by the input (a one-hot row or an embedding). 0 before
    the text's beginning. In the manner of Madsen, "Visualizing memorization in RNNs", Distill 2019.
    """
    count = len(read.ids) - 1
    back = min(back, max(count, 1))
    size = max(1, AT_ONCE // (back * max(recurrent_layers(model)[0].cell.kernel.shape)))
    gradient = tf.function(lambda *given: _gradients(model, *given), autograph=False, reduce_retracing=True)
    rows = []
    for begin in range(0, count, size):
        ends = np.arange(begin, min(begin + size, count))
        starts = np.maximum(ends - back + 1, 0)
        window = read.ids[starts[:, None] + np.arange(back)].astype(np.int32)
        before = [tuple(tf.constant(part[starts]) for part in layer) for layer in read.states]
        lengths = gradient(
            tf.constant(window), before, tf.constant(ends - starts), tf.constant(read.ids[ends + 1])
        ).numpy()  # [windows, back]
        for n, end, start in zip(range(len(ends)), ends, starts, strict=True):
            row = np.zeros(back, np.float32)
            row[: end - start + 1] = lengths[n, : end - start + 1][::-1]
            rows.append(row)
        progress(int(ends[-1]) + 1, count)
    return np.array(rows, np.float32).reshape(count, back)


def _gradients(model: keras.Model, window: Tensor, state: list[State], ends: Tensor, targets: Tensor) -> Tensor:
    """Windows [P, W] and the states before them, where each one's prediction is made and of what [P] -> lengths [P, W]."""
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


def clearest(found: Floats, most: int) -> Iterator[tuple[int, int]]:
    """Cells by how clearly they follow one feature, the clearest first: (cell, the feature's number)."""
    strongest = np.abs(found).max(axis=1)
    for cell in np.argsort(-strongest, kind="stable")[:most]:
        yield int(cell), int(np.abs(found[cell]).argmax())
