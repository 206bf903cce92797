"""What the tests share: a made-up text, tiny trained models, and checkpoints without training.

`make_text`, `logits_after` and `write_checkpoint` are plain functions (`from conftest import make_text`), `trained` is a
fixture. TensorFlow is imported where it is needed only, so that tests of modules without it stay quick.
"""

import os

# Before TensorFlow is imported; commands run by tests inherit it
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "2")
os.environ.setdefault("CHARRNN_TF_SPEED", "1")  # nothing is measured

import functools
import hashlib
import io
import json
import random
import shutil
import signal
import sys
from pathlib import Path

import commandline
import pytest
from hypothesis import HealthCheck, settings

from charrnn_tf.errors import TextError
from charrnn_tf.runs.record import Record
from charrnn_tf.settings.schema import ModelConfig, TrainConfig
from charrnn_tf.text.corpus import Source, TextRecord, load_corpus
from charrnn_tf.text.vocabulary import ByteVocabulary, Vocabulary

# A shell that starts the tests in the background has this signal ignored, and so would all processes that tests start
signal.signal(signal.SIGINT, signal.default_int_handler)

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
def write(tmp_path):
    """A function that writes a file of bytes, or of text as UTF-8, and returns its path."""

    def write_file(content, name="text.txt"):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write_file


@pytest.fixture
def feed(monkeypatch):
    """A function that makes bytes the standard input, which can be read once."""
    return lambda content: monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding="ascii"))


def text_error(*names, **how):
    """The message with which `load_corpus` refuses a text; one line."""
    with pytest.raises(TextError) as caught:
        load_corpus(*names, **how)
    assert "\n" not in str(caught.value)
    return str(caught.value)


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
def home(tmp_path_factory):
    """A folder with text.txt (`commandline.TEXT`) and a run in checkpoints: i4_l8 and i8_l8; for reading only."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "text.txt").write_text(commandline.TEXT, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TF_NUM_INTRAOP_THREADS", "1")
        patch.setenv("TF_NUM_INTEROP_THREADS", "1")
        patch.chdir(folder)
        commandline.succeed("train", "text.txt", *commandline.TINY, "--max-steps", 8, *commandline.RUN)
    return folder


@pytest.fixture
def reading(home, monkeypatch):
    """Work in `home` with commands that write nothing."""
    monkeypatch.chdir(home)
    before = commandline.snapshot()
    yield home
    assert commandline.snapshot() == before


@pytest.fixture
def copy(home, tmp_path, monkeypatch):
    """Work in a copy of `home`."""
    shutil.copytree(home, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """Work in a folder that holds only text.txt."""
    (tmp_path / "text.txt").write_text(commandline.TEXT, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def odd_files(empty):
    """Work in a folder with files that commands refuse, beside text.txt."""
    contents = {
        "empty.txt": b"", "one.txt": b"a", "short.txt": b"the cat", "latin.txt": b"caf\xe9", "snow.txt": "☃".encode()
    }  # fmt: skip
    for name, content in contents.items():
        (empty / name).write_bytes(content)
    (empty / "folder").mkdir()
    (empty / "full").symlink_to("/dev/full")
    return empty


@pytest.fixture
def instant(monkeypatch):
    """Training without computing: each step has a loss of 2, each validation 2.5, and weights stay as they are.

    For tests of everything around the steps: compiling them takes most of a short run's time.
    """

    def compile_steps(run, model_config, config, steps_per_epoch):
        def call(windows, time_fraction):
            run.step.assign_add(len(windows))
            run.loss_steps.assign_add(len(windows))
            run.loss_sum.assign_add(2.0 * len(windows))

        return call

    monkeypatch.setattr("charrnn_tf.training.trainer.compile_steps", compile_steps)
    monkeypatch.setattr("charrnn_tf.training.trainer.Trainer._validate", lambda self, display: 2.5)
    monkeypatch.setattr("charrnn_tf.training.validation.Validator.seconds", lambda self: 0.0)


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A function: `trained("lstm")` or `trained("gru")` -> the folder of a finished run on TEXT.

    H=16, L=2, dropout 0.1; B=4, T=8, 600 steps (84 per epoch), a cosine schedule, a validation and a checkpoint every 300
    steps, a row every 100. After that the model depends on earlier characters: 1.8 nats per character, where single
    characters' frequencies give 2.9. Further arguments change fields of TrainConfig. About two seconds for each different
    call; all tests share the folders, so copy one before changing anything in it.
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


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """A headless Chromium, for the functions of `browser.py`."""
    import browser

    driver = browser.start(tmp_path_factory.mktemp("browser"))
    yield driver
    driver.quit()


def terminal_on(stream, monkeypatch, is_terminal=True):
    """Make a StringIO standard error, on a terminal that moves its cursor."""
    monkeypatch.setattr(stream, "isatty", lambda: is_terminal)
    monkeypatch.setattr("sys.stderr", stream)
    for name in ("CI", "JPY_PARENT_PID", "FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def forward(model, ids, state, *arguments):
    """A model's logits over windows, from its own parts: ids [B, T] and states -> [T * B, V], time-major, and states.

    Further arguments are those of `recurrent_outputs`: dropout, engine, kernels.
    """
    from charrnn_tf.network.model import dense_weights, recurrent_outputs
    from charrnn_tf.network.products import linear

    outputs, after = recurrent_outputs(model, ids, state, *arguments)
    return linear(outputs, *dense_weights(model)), after


def logits_after(model, config, ids):
    """A model's logits after each id, read from a zero state in a graph: [characters, V]."""
    import tensorflow as tf

    from charrnn_tf.network.model import zero_state

    read = tf.function(lambda ids: forward(model, ids, zero_state(config, 1))[0], autograph=False)
    return read(tf.constant(ids[None].astype("int32"))).numpy()


def write_checkpoint(
    directory, *, step=1, characters="\n abc", cell="lstm", hidden_size=8, num_layers=1, embedding_size=0, init="keras",
    seed=0, lines=False, **record,
):  # fmt: skip
    """A checkpoint of an untrained model whose vocabulary has these characters (or is a `Vocabulary`) -> its path.

    seed: of the weights. record: other fields of `Record`, such as validation_loss.
    """
    from charrnn_tf.runs import checkpoint
    from charrnn_tf.training.state import RunState

    vocabulary = characters if isinstance(characters, Vocabulary) else Vocabulary(characters)
    kind = "bytes" if isinstance(vocabulary, ByteVocabulary) else "corpus"
    model = ModelConfig(
        len(vocabulary), cell=cell, hidden_size=hidden_size, num_layers=num_layers, embedding_size=embedding_size, init=init
    )
    train = TrainConfig(batch_size=2, num_steps=4, max_steps=step, seed=seed, vocabulary=kind, lines=lines)
    fields = {"epoch": 0.5, "seconds": 1.25, "train_loss": 3.5, "validation_loss": None} | record
    saved = Record(model, train, vocabulary, TextRecord((Source("-", "0" * 64, 100),), "0" * 64, 100), step, **fields)
    run = RunState(model, train)
    run.step.assign(step)
    return checkpoint.write(directory, saved, run.variables())


CHECKPOINT_FILES = ["SHA256SUMS", "config.json", "variables.data-00000-of-00001", "variables.index"]


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A checkpoint to read; `duplicate` is one to damage."""
    return write_checkpoint(tmp_path_factory.mktemp("made"), step=7)


@pytest.fixture
def duplicate(made, tmp_path):
    """A checkpoint to damage, alone in the folder of a run."""
    return shutil.copytree(made, tmp_path / "run" / made.name)


def names(folder):
    """The names in a folder, hidden ones included."""
    return sorted(path.name for path in Path(folder).iterdir())


def tree(folder):
    """The bytes of all files below a folder, by path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def flip(file, byte=None, bit=2):
    """Flip a bit of a file, of its middle byte unless another is given; twice restores it."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2 if byte is None else byte] ^= 1 << bit
    file.write_bytes(data)


def rewrite(path, change):
    """Replace a checkpoint's config.json, by a text or by its own data changed by a function, and adapt SHA256SUMS."""
    text = (path / "config.json").read_text(encoding="utf-8")
    if callable(change):
        data = json.loads(text)
        change(data)
        change = json.dumps(data)
    sums = (path / "SHA256SUMS").read_text()
    (path / "config.json").write_text(change, encoding="utf-8")
    before, after = (hashlib.sha256(each.encode()).hexdigest() for each in (text, change))
    assert before in sums
    (path / "SHA256SUMS").write_text(sums.replace(before, after))
