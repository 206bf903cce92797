"""Imports models of other tools as checkpoints; one module of this folder per kind of file."""

import json
from importlib import import_module
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
from .detection import kind_of
from .weights import PlainModel, characters_by_id


def import_model(path: str | Path, directory: str | Path, vocabulary: Vocabulary | None = None) -> Path:
    """Write another tool's model as the first checkpoint of a run's folder, and return its path.

    vocabulary: needed for files that contain none.
    Raises ConfigError for a file of an unknown kind, a missing vocabulary, or weights that don't fit the vocabulary, and
    CheckpointError for a folder that already holds a run.
    """
    if holds_run(directory):
        raise CheckpointError(f"{str(directory)!r} already holds a run. Use another `checkpoint_dir`.")
    found = import_module(f".{kind_of(path)}", __package__).read(path)
    try:
        return _write(found, directory, vocabulary)
    except ConfigError as error:
        raise ConfigError(f"{str(path)!r}: {error}") from error


def read_vocabulary(path: str | Path) -> Vocabulary:
    """Read the characters by id of a JSON file: a list, or an object as `export --format keras` writes it.

    An object may also map characters to ids or ids to characters. Raises ConfigError for any other file.
    """
    try:
        with open_file(path) as file:
            found = json.loads(file.read())
        listed = isinstance(found, dict) and "characters" in found
        return Vocabulary(characters_by_id(found["characters"] if listed else found))
    except OSError as error:
        raise ConfigError(f"can't read {str(path)!r}: {reason(error)}") from error
    except (ValueError, CharRNNError) as error:
        why = f": {error}" if isinstance(error, CharRNNError) else ". A text goes to `text`"
        raise ConfigError(f'{str(path)!r} is not a vocabulary file such as ["a", "b"]{why}') from error


def _write(found: PlainModel, directory: str | Path, vocabulary: Vocabulary | None) -> Path:
    config = found.config()
    own = None if found.characters is None else Vocabulary(found.characters)
    if own and vocabulary and own != vocabulary:
        raise ConfigError("the file contains its own, different characters. Leave out `text` and `vocabulary_file`.")
    known = own or vocabulary
    if known is None:
        raise ConfigError("the file contains no characters. Pass the `text` it was trained on, or a `vocabulary_file`.")
    if config.vocab_size == len(known) + 1 and config.embedding_size and not own:
        warn("the model has one character more than the vocabulary: its id 0 is taken as [UNK] and removed.")
        found = found.without_unknown()
        config = found.config()
    if config.vocab_size != len(known):
        raise ConfigError(f"the model has {config.vocab_size} characters, the vocabulary {len(known)}")
    train = TrainConfig()
    run = RunState(config, train)
    run.step.assign(found.step)
    run.model.set_weights(found.arrays())
    record = Record(config, train, known, TextRecord((), "", 0), found.step, 0.0, 0.0, None, None)
    return RunDirectory(directory, train.keep).save(record, run.variables())
