"""Tests whether the end of a text differs from the rest, as in a sorted text or one with an appendix."""

import numpy as np
import numpy.typing as npt

from .vocabulary import Ids

PAIRS = 1 << 20  # counters of pairs of characters; rarer pairs of a large vocabulary share one
BLOCK = 200  # characters that are held out together where the whole text is held out evenly
MOST = 4_000_000  # characters that are compared
MARGIN = 0.3  # nats per pair


def unlike(training: Ids, held_out: Ids) -> bool:
    """Whether character pairs of the held-out part are harder to predict than those of blocks spread over the text.

    Compares two cross-entropies in nats per pair: of the held-out part under the counts of the rest, and of as many
    blocks, spread evenly over the whole text, under the counts of the blocks between them.
    """
    every = max((len(training) + len(held_out)) // max(len(held_out), 1), 2)
    pairs = np.concatenate([_pairs(training), _pairs(held_out)])[-MOST:]
    last = np.arange(len(pairs)) >= len(pairs) - len(held_out)
    spread = np.arange(len(pairs)) // BLOCK % every == every - 1
    if not (spread.any() and last.any() and (~last).any()):
        return False
    return _cross_entropy(pairs, last) > _cross_entropy(pairs, spread) + MARGIN


def _pairs(ids: Ids) -> npt.NDArray[np.int64]:
    """A number for each pair of neighbours, [characters - 1]."""
    ids = ids[-MOST:].astype(np.int64)
    return (ids[:-1] * 1_000_003 + ids[1:]) % PAIRS


def _cross_entropy(pairs: npt.NDArray[np.int64], held_out: npt.NDArray[np.bool_]) -> float:
    """Of the pairs that are held out, under the smoothed counts of the others."""
    counts, others = (np.bincount(pairs[which], minlength=PAIRS) for which in (~held_out, held_out))
    kinds = np.count_nonzero(counts + others)
    expected = (counts + 1) / (counts.sum() + kinds)
    return float(-(others @ np.log(expected)) / others.sum())
