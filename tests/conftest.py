"""What the tests share: a made-up text, tiny trained models, and checkpoints without training.

`make_text`, `logits_after` and `write_checkpoint` are plain functions (`from conftest import make_text`), `trained` is a
fixture. TensorFlow is imported where it is needed only, so that tests of modules without it stay quick.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported; commands run by tests inherit it

import functools
import random
import signal

import pytest
from hypothesis import HealthCheck, settings

from charrnn_tf.runs.record import Record
from charrnn_tf.settings.schema import ModelConfig, TrainConfig
from charrnn_tf.text.corpus import Source, TextRecord
from charrnn_tf.text.vocabulary import Vocabulary

# The same examples at every run, and no limit on the time of one: the first call of a TensorFlow function is slow.
settings.register_profile(
    "tests", deadline=None, derandomize=True, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.load_profile("tests")

WORDS = (
    "a and boat by came cold down far from gray gulls harbor he her in it lamp light long moon night no not of old on over "
    "rain rope sail saw sea she slept stone story that the then tide to told under was water wind with"
)


def make_text(characters, seed):
    """Made-up sentences, a line each, exactly so many characters: the same for the same seed, ASCII only.

    Lines begin with each word in turn, so that 3,000 characters hold all the characters that any text can have.
    """
    draw, known = random.Random(seed), WORDS.split()
    lines, length = [], 0
    while length < characters:
        words = [known[len(lines) % len(known)], *(draw.choice(known) for _ in range(draw.randint(3, 8)))]
        line = " ".join(words[:3]) + ", " + " ".join(words[3:])
        lines.append(line[0].upper() + line[1:] + draw.choice("...?!") + "\n")
        length += len(lines[-1])
    return "".join(lines)[:characters]


TEXT = make_text(3000, seed=1)  # what `trained` learns from


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory):
    """Encoded texts are kept in a folder of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def one_process(monkeypatch):
    """TensorFlow takes its threads once a process; `train` turns signals to itself."""
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "1")
    monkeypatch.setenv("TF_NUM_INTEROP_THREADS", "1")
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A function: `trained("lstm")` or `trained("gru")` -> the folder of a finished run on TEXT.

    H=16, L=2, dropout 0.1; B=4, T=8, 600 steps (of 84 an epoch), a cosine schedule, a validation and a checkpoint every 300
    steps, a row every 100. That is enough for what was read before to matter (1.8 nats a character; single characters'
    frequencies give 2.9). Further arguments change fields of TrainConfig. About two seconds for each different call; the
    folders are shared by all tests, so copy one before changing anything in it.
    """

    @functools.cache
    def train(cell="lstm", **changes):
        from charrnn_tf.training.trainer import Trainer

        vocabulary = Vocabulary.from_text(TEXT)
        model_config = ModelConfig(len(vocabulary), cell=cell, hidden_size=16, num_layers=2, dropout=0.1)
        settings = {
            "batch_size": 4, "num_steps": 8, "max_steps": 600, "learning_rate": 0.02, "schedule": "cosine",
            "validation_fraction": 0.1, "save_every": 300, "validate_every": 300, "log_every": 100,
        }  # fmt: skip
        directory = tmp_path_factory.mktemp(cell)
        trainer = Trainer(model_config, TrainConfig(**settings | changes), vocabulary, vocabulary.encode(TEXT), directory)
        assert [row.step for row in trainer.run()][-1] == trainer.total_steps
        return directory

    return train


def forward(model, ids, state):
    """A model's logits over windows, from its own parts: ids [B, T] and states -> [T * B, V], time-major, and states."""
    from charrnn_tf.network.model import dense_weights, recurrent_outputs
    from charrnn_tf.network.products import linear

    outputs, after = recurrent_outputs(model, ids, state)
    return linear(outputs, *dense_weights(model)), after


def logits_after(model, config, ids):
    """A model's logits after each id, read from a zero state in a graph: [characters, V]."""
    import tensorflow as tf

    from charrnn_tf.network.model import zero_state

    read = tf.function(lambda ids: forward(model, ids, zero_state(config, 1))[0], autograph=False)
    return read(tf.constant(ids[None].astype("int32"))).numpy()


def write_checkpoint(directory, *, step=1, characters="\n abc", cell="lstm", num_layers=1, init="keras", seed=0, **record):
    """A checkpoint of a model as it begins, H=8, with a vocabulary of these characters -> its path.

    seed: of the weights. record: other fields of `Record`, such as validation_loss.
    """
    from charrnn_tf.runs import checkpoint
    from charrnn_tf.training.state import RunState

    model = ModelConfig(len(characters), cell=cell, hidden_size=8, num_layers=num_layers, init=init)
    train = TrainConfig(batch_size=2, num_steps=4, max_steps=step, seed=seed)
    fields = {"epoch": 0.5, "seconds": 1.25, "train_loss": 3.5, "validation_loss": None} | record
    saved = Record(
        model, train, Vocabulary(characters), TextRecord((Source("-", "0" * 64, 100),), "0" * 64, 100), step, **fields
    )
    run = RunState(model, train)
    run.step.assign(step)
    return checkpoint.write(directory, saved, run.variables())
