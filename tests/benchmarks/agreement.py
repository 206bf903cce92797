"""Compares three ways to score a text: `evaluate`, the exported `score`, and a plain loop over the exported `step`.

    python tests/benchmarks/agreement.py CHECKPOINT TEXT [CHARACTERS]

Prints nats per character of each, over the text's first CHARACTERS characters (default 20,000). They must agree.
"""

import sys
import tempfile
from itertools import pairwise

import numpy as np

from charrnn_tf.machine import startup
from charrnn_tf.runs.record import read_record
from charrnn_tf.text.corpus import load_text


def main() -> None:
    """Score the text in three ways."""
    checkpoint, path, *count = sys.argv[1:]
    text = load_text(path, limit_chars=int(count[0]) if count else 20_000)
    startup.start()
    import tensorflow as tf

    from charrnn_tf import evaluate, export_saved_model

    with tempfile.TemporaryDirectory() as directory:
        signatures = tf.saved_model.load(str(export_saved_model(checkpoint, f"{directory}/model"))).signatures
    scored = signatures["score"](text=tf.constant([text]))
    ids = read_record(checkpoint).vocabulary.encode(text, "skip").astype(np.int32)
    state = signatures["initial_state"](batch=tf.constant(1))
    nats = 0.0
    for character, following in pairwise(ids):
        state = dict(signatures["step"](ids=tf.constant([character]), **state))
        nats -= float(tf.nn.log_softmax(state.pop("logits")[0])[following])
    figures = {
        "evaluate": evaluate(checkpoint, text, unknown="skip").nats_per_character,
        "score": float(scored["nats"][0]) / int(scored["characters"][0]),
        "step": nats / (len(ids) - 1),
    }
    for name, value in figures.items():
        print(f"{name:<9} {value:.6f} nats per character")


if __name__ == "__main__":
    main()
