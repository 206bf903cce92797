"""`charrnn-tf import`: models of other tools as checkpoints of this package.

torch_file    the PyTorch notebooks' `rnn_*_epoch.net`
tf1_file      the TensorFlow 1 notebook's `i200_l512.ckpt`
keras_file    `.keras` and `.weights.h5` of a stacked LSTM or GRU with a dense layer
"""

from __future__ import annotations

import json
from pathlib import Path

from ..errors import CharRNNError, CheckpointError, ConfigError, reason, warn
from ..files import open_file
from ..runs.directory import RunDirectory
from ..runs.find import holds_run
from ..runs.record import Record
from ..settings.schema import TrainConfig
from ..text.corpus import TextRecord
from ..text.vocabulary import Vocabulary
from ..training.state import RunState
from . import keras_file, tf1_file, torch_file
from .weights import Foreign, put

READERS = (torch_file, tf1_file, keras_file)


def import_model(path: str | Path, directory: str | Path, vocabulary: Vocabulary | None = None) -> Path:
    """Write what another tool saved as the first checkpoint of a run's folder and return its path.

    vocabulary: of files that don't hold one. Raises ConfigError for a file of no known kind, without a vocabulary, or whose
    weights don't fit it, CheckpointError for a folder that holds a run.
    """
    if holds_run(directory):
        raise CheckpointError(f"{str(directory)!r} holds a run already. Use another --checkpoint-dir.")
    if not tf1_file.can_read(path):  # its prefix is no file
        try:
            open_file(path).close()
        except OSError as error:
            raise ConfigError(f"can't read {str(path)!r}: {reason(error)}") from error
    for kind in READERS:
        if kind.can_read(path):
            found = kind.read(path)
            break
    else:
        raise ConfigError(
            f"{str(path)!r} is none of: a PyTorch notebook's .net, a TensorFlow 1 checkpoint, a .keras or .weights.h5 file"
        )
    try:
        return _write(found, directory, vocabulary)
    except ConfigError as error:
        raise ConfigError(f"{str(path)!r}: {error}") from error


def read_vocabulary(path: str | Path) -> Vocabulary:
    """The characters of a JSON file such as `export --format keras` writes. Raises ConfigError for another file."""
    try:
        with open_file(path) as file:
            characters = json.loads(file.read())["characters"]
        if not all(isinstance(character, str) and len(character) == 1 for character in characters):
            raise ValueError("not a list of single characters")
        return Vocabulary(characters)
    except OSError as error:
        raise ConfigError(f"can't read {str(path)!r}: {reason(error)}") from error
    except (ValueError, KeyError, TypeError, CharRNNError) as error:
        raise ConfigError(f'{str(path)!r} holds no vocabulary, which looks like {{"characters": ["a", "b"]}}') from error


def _write(found: Foreign, directory: str | Path, vocabulary: Vocabulary | None) -> Path:
    config = found.config()
    own = None if found.characters is None else Vocabulary(found.characters)
    if own and vocabulary and own != vocabulary:
        raise ConfigError("its characters are in the file, and others are given. Leave out --text and --vocabulary-file.")
    known = own or vocabulary
    if known is None:
        raise ConfigError(
            "its characters are not in the file. Give the text it learnt from with --text, or --vocabulary-file."
        )
    if config.vocab_size == len(known) + 1 and config.embedding_size and not own:
        warn("the model has one character more than the vocabulary: its id 0 is taken for [UNK] and left out.")
        found = found.without_first()
        config = found.config()
    if config.vocab_size != len(known):
        raise ConfigError(f"the model has {config.vocab_size} characters, the vocabulary {len(known)}")
    train = TrainConfig()
    run = RunState(config, train)
    run.step.assign(found.step)
    put(run.model, found)
    record = Record(config, train, known, TextRecord((), "", 0), found.step, 0.0, 0.0, None, None)
    return RunDirectory(directory, train.keep, resume=False, overwrite=False).save(record, run.variables())
