"""Texts in which every line is a text of its own, such as a list of names.

The model reads each line from a zero state, starting with the newline before it; a sample without a prime starts likewise.
For this, the state is set to zero before each newline, at any place in a window.
"""

import dataclasses

import numpy as np

from ..errors import TextError
from ..settings.schema import TrainConfig
from .vocabulary import Ids, Vocabulary
from .windows import Streams, hold_out


def line_start(vocabulary: Vocabulary, config: TrainConfig) -> int | None:
    """The id of the newline before each line of a run with `lines`; None for other runs.

    Raises TextError for a vocabulary without a newline.
    """
    if not config.lines:
        return None
    newline = vocabulary.characters.find("\n")
    if newline < 0:
        raise TextError(
            "`lines` needs a text of several lines, and the vocabulary of this one has no newline. Leave it out."
        )
    return newline


def arranged(ids: Ids, vocabulary: Vocabulary, config: TrainConfig) -> Ids:
    """The ids of a text as a run reads them: with `lines`, its lines in an order drawn from the seed, in memory.

    Each line follows its newline, so the first id is a newline too.
    """
    newline = line_start(vocabulary, config)
    if newline is None or not len(ids):
        return ids
    ids = np.asarray(ids)
    if ids[-1] != newline:
        ids = np.append(ids, ids.dtype.type(newline))
    ends = np.flatnonzero(ids == newline)
    begins = np.append(0, ends[:-1] + 1)
    out, place = np.empty_like(ids), 0
    for n in np.random.default_rng(config.seed).permutation(len(ends)).tolist():
        after = place + 1 + ends[n] - begins[n]
        out[place] = newline
        out[place + 1 : after] = ids[begins[n] : ends[n]]
        place = after
    return out


def parts(ids: Ids, vocabulary: Vocabulary, config: TrainConfig) -> tuple[Streams, Ids, Ids]:
    """Cut arranged ids: the streams to train on, the ids of the whole training part, and those that validations read.

    With `lines`, the streams and the validation part begin with the newline before a line, unless the line is too long.
    Raises TextError for a text that is too short.
    """
    training, validation = hold_out(ids, config.training_characters(len(ids)))
    streams = Streams.cut(training, config.batch_size, config.num_steps)
    newline = line_start(vocabulary, config)
    if newline is None:
        return streams, training, validation
    newlines = np.flatnonzero(training == newline)
    before = newlines[np.searchsorted(newlines, streams.starts, side="right") - 1]
    starts = np.where(before > streams.starts - streams.length, before, streams.starts)
    whole = np.flatnonzero(validation == newline)[:1]
    if len(whole) and len(validation) - whole[0] > 1:
        validation = validation[whole[0] :]
    return dataclasses.replace(streams, starts=starts), training, validation
