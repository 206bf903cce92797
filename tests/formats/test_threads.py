"""Four threads that use a model at once get what one thread gets."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import tensorflow as tf
from conftest import write_checkpoint

from charrnn_tf import Sampler, export_saved_model

PRIMES = ["a", "b c", "ca\nb", "cc"] * 2


def at_once(call):
    """What `call(prime, seed)` returns in four threads, and then in this one."""
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(call, PRIMES, range(len(PRIMES))))
    return together, [call(prime, seed) for seed, prime in enumerate(PRIMES)]


@pytest.fixture
def checkpoint(tmp_path):
    return write_checkpoint(tmp_path / "run", init="wide")


def test_four_threads_with_a_sampler_that_none_has_used_before(checkpoint):
    sampler = Sampler.from_checkpoint(checkpoint)

    def call(prime, seed):
        text = sampler.sample(prime, 60, seed=seed, top_n=0, chunk=7)
        return text, sampler.surprise(text)[1].tolist(), sampler.probabilities("a")[0].tolist()

    together, one_by_one = at_once(call)
    assert together == one_by_one
    assert len({text for text, *_ in together}) == len(PRIMES)


@pytest.mark.slow
def test_four_threads_with_a_saved_model(checkpoint, tmp_path):
    signatures = tf.saved_model.load(export_saved_model(checkpoint, tmp_path / "model")).signatures

    def call(prime, seed):
        drawing = {"top_n": 0, "top_p": 1.0, "temperature": 1.0, "length": 60}
        given = {name: tf.constant(value) for name, value in drawing.items()} | {"seed": tf.constant(seed, tf.int64)}
        text = signatures["generate"](prime=tf.constant([prime]), **given)["text"]
        return text.numpy().tolist(), signatures["score"](text=text)["nats"].numpy().tolist()

    together, one_by_one = at_once(call)
    assert together == one_by_one
    assert len({text for (text,), _ in together}) == len(PRIMES)
