"""The random numbers of `inference.sampling.generate`, for rows that each have their own seed and position.

Philox 4x32-10 (Salmon et al. 2011) with the key and counter that TensorFlow's `stateless_uniform` derives from a seed.
Calling that operation for each row would take longer than the model itself.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

ROUNDS = 10
FACTORS = 0xD2511F53, 0xCD9E8D57
INCREMENTS = 0x9E3779B9, 0xBB67AE85  # of the key, each round
SCRAMBLE = 0x3EC8F720, 0x02461E29  # key with which TensorFlow turns a seed into a key and a counter
LOW = 0xFFFFFFFF

Words = tuple[Any, ...]  # arrays of 32-bit words, as uint64


def uniforms(seeds: npt.ArrayLike, positions: npt.ArrayLike, numbers: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """The uniform number in [0, 1) of each seed, position and sample number (from 0); the arrays are broadcast.

    Equals element `number` of `tf.random.stateless_uniform([...], [seed, position], alg="philox")`.
    """
    seed, position, number = (_unsigned(each) for each in np.broadcast_arrays(seeds, positions, numbers))
    mixed = _philox(_words(seed) + _words(position), SCRAMBLE)
    zero = np.zeros_like(number)
    drawn = np.stack(_philox((number >> 2, zero, mixed[2], mixed[3]), mixed[:2]))
    bits = np.take_along_axis(drawn, (number & 3)[None].astype(np.int64), 0)[0]
    return (bits & 0x7FFFFF).astype(np.float32) / np.float32(2**23)


def _unsigned(numbers: npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
    return numbers.astype(np.int64).astype(np.uint64)


def _words(numbers: npt.NDArray[np.uint64]) -> Words:
    return numbers & LOW, numbers >> 32


def _philox(counter: Words, key: Any) -> Words:
    a, b, c, d = counter
    low, high = (np.uint64(word) for word in key) if isinstance(key[0], int) else key
    for _ in range(ROUNDS):
        first, second = a * FACTORS[0], c * FACTORS[1]
        a, b, c, d = (second >> 32) ^ b ^ low, second & LOW, (first >> 32) ^ d ^ high, first & LOW
        low, high = (low + INCREMENTS[0]) & LOW, (high + INCREMENTS[1]) & LOW
    return a, b, c, d
