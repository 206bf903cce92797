"""Weights for further characters, in a model that has learned without them."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

SHARE = 5e-4  # upper bound on the probability, relative to that of all old characters, that the new ones get together


def grown(old: npt.NDArray[Any], shape: Sequence[int]) -> npt.NDArray[Any]:
    """A weight with rows or columns for K more characters behind those of V old ones; any other weight as it is.

    shape: of the new weight. It differs from the old one along the characters: input kernel or embedding [V, ...], output
    kernel [H, V], output bias [V].

    Each new row or column is the mean of the old ones, and the new biases are lower than the mean by log(V SHARE / K)
    where that is negative. A new logit is then the mean of the old logits plus at most log(V SHARE / K). Since exp of a
    mean is at most the mean of exp, K new characters add at most SHARE to the sum of exp over the old ones, whatever was
    read: the old characters lose at most log(1 + SHARE) < 0.0005 nats each. Equal logits alone would cost log(1 + K / V).
    """
    axes = [axis for axis, sizes in enumerate(zip(old.shape, shape, strict=True)) if sizes[0] != sizes[1]]
    if not axes:
        return old
    (axis,) = axes
    count, added = old.shape[axis], shape[axis] - old.shape[axis]
    mean = old.mean(axis, dtype=np.float64, keepdims=True)
    if old.ndim == 1:
        mean += min(math.log(SHARE * count / added), 0.0)
    return np.concatenate([old, np.repeat(mean, added, axis).astype(old.dtype)], axis)
