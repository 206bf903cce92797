"""Arguments of a Trainer that do not fit each other or the run: one line at construction, and nothing is written."""

import dataclasses
import re

import numpy as np
import pytest
from conftest import tree
from test_trainer import IDS, TEXT, VOCABULARY, trainer

from charrnn_tf.errors import ConfigError
from charrnn_tf.inference.sampling import Sampler
from charrnn_tf.settings.schema import ModelConfig, TrainConfig
from charrnn_tf.text.vocabulary import Vocabulary
from charrnn_tf.training.trainer import Trainer

V = len(VOCABULARY)
SMALL = TrainConfig(batch_size=2, num_steps=4, max_steps=3)
TURNED = Vocabulary(VOCABULARY.characters[::-1])
OTHER = Vocabulary("é" + VOCABULARY.characters[1:])
SMALLER = Vocabulary(VOCABULARY.characters[:-1])


@pytest.mark.parametrize(
    ("vocabulary", "ids", "size", "message"),
    [
        (VOCABULARY, IDS, V + 1, f"`vocab_size` of the model is {V + 1}, but the vocabulary has {V} characters"),
        (sorted(set(TEXT)), IDS, V, "`vocabulary` must be a charrnn_tf.Vocabulary, got list"),
        (VOCABULARY.characters, IDS, V, "`vocabulary` must be a charrnn_tf.Vocabulary, got str"),
        (VOCABULARY, [*IDS[:12].tolist(), V, *IDS[12:].tolist()], V, f"`ids` must be from 0 to {V - 1}, .*12 there is {V}"),
        (VOCABULARY, np.where(np.arange(len(IDS)) == 7, -1, IDS.astype(int)), V, "at position 7 there is -1"),
        (
            VOCABULARY,
            IDS.reshape(1, -1),
            V,
            r"`ids` must be a one-dimensional array .*, got uint8 with shape \(1, 63\)",
        ),
        (VOCABULARY, IDS / 2, V, "`ids` must be a one-dimensional array of integers, got float"),
        (VOCABULARY, TEXT, V, r"`ids` must be .*, got <U63 with shape \(\)"),
    ],
)
def test_what_does_not_fit_the_vocabulary_is_refused_at_once(tmp_path, vocabulary, ids, size, message):
    with pytest.raises(ConfigError, match=message):
        Trainer(ModelConfig(size, hidden_size=8), SMALL, vocabulary, ids, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.fixture
def run(tmp_path, instant):
    folder = tmp_path / "run"
    list(trainer(folder, max_steps=3).run())
    return folder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"vocabulary": TURNED},
            "the vocabulary can't change on `resume`: that of '.*run' has the same characters in",
        ),
        ({"vocabulary": OTHER}, "in that of '.*run' the id 0 is ' ', in this 'é'"),
        ({"vocabulary": SMALLER, "ids": IDS[IDS < V - 1]}, f"has {V} characters, this {V - 1}"),
        ({"learning_rate": 0.5}, "`learning_rate` 0.5 can't change on `resume`: the run in '.*run' has 0.02"),
        ({"num_steps": 5}, "`num_steps` 5 can't change on `resume`"),
        ({"cell": "gru"}, "`cell` gru can't change on `resume`"),
        ({"ids": IDS[:-1]}, "the text can't change on `resume`: .* was trained on 63 characters; this text has 62"),
        ({"ids": IDS[::-1]}, "the text can't change on `resume`: .* was trained on 63 characters; this text differs"),
        ({"overwrite": True}, "`resume` continues a run and `overwrite` replaces it"),
    ],
)
def test_a_run_that_continues_keeps_vocabulary_settings_and_text(run, changes, message):
    before = tree(run)
    with pytest.raises(ConfigError, match=message):
        trainer(run, resume=True, **{"max_steps": 5, **changes})
    assert tree(run) == before
    assert trainer(run, resume=True, max_steps=5).step == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocabulary": TURNED}, "the vocabulary contradicts `init_from`: .* has the same characters in another order"),
        (
            {"vocabulary": SMALLER, "ids": IDS[IDS < V - 1]},
            f"contradicts `init_from`: that of .* has {V} characters, this {V - 1}",
        ),
        ({"cell": "gru"}, "`cell` gru contradicts `init_from`: the model in '.*i3_l8' has lstm"),
    ],
)
def test_weights_of_another_shape_or_alphabet_are_refused(run, tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        trainer(tmp_path / "new", init_from=run / "i3_l8", max_steps=3, **changes)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("vocabulary", "ids", "message"),
    [
        (TURNED, IDS, "contradicts `init_from`: .* has the same characters in another order"),
        (SMALLER, IDS[IDS < V - 1], f"contradicts `init_from`: that of .* has {V} characters, this {V - 1}"),
        (Vocabulary(VOCABULARY.characters + "éß"), IDS, "has the same characters in another order"),
    ],
)
def test_characters_can_only_be_added_behind_those_of_the_model(run, tmp_path, vocabulary, ids, message):
    with pytest.raises(ConfigError, match=message):
        trainer(tmp_path / "new", init_from=run / "i3_l8", unknown="add", vocabulary=vocabulary, ids=ids, max_steps=3)
    with pytest.raises(ConfigError, match="`unknown` add extends the vocabulary of another model"):
        trainer(tmp_path / "new", unknown="add", max_steps=3)
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("cell", "embedding_size"), [("lstm", 0), ("gru", 5)])
def test_characters_are_added_without_changing_what_is_predicted_of_the_others(trained_on, tmp_path, cell, embedding_size):
    old = trained_on(cell, embedding_size)
    vocabulary = VOCABULARY.extended("éß")
    model = ModelConfig(V + 2, cell=cell, hidden_size=8, num_layers=1, embedding_size=embedding_size)
    config = dataclasses.replace(SMALL, unknown="add", optimizer="sgd", learning_rate=1e-30, max_steps=1)
    rows = Trainer(model, config, vocabulary, IDS, tmp_path, init_from=old).run()
    assert len(list(rows)) == 1
    before, after = Sampler.from_checkpoint(old), Sampler.from_checkpoint(tmp_path / "i1_l8")
    states = [None, None]
    for character in TEXT[:30]:
        known, states[0] = before.probabilities(character, states[0])
        now, states[1] = after.probabilities(character, states[1])
        np.testing.assert_allclose(np.log(now[:V]), np.log(known), rtol=0, atol=1e-3)
    assert after.probabilities("é")[0].shape == (V + 2,)


@pytest.fixture
def trained_on(tmp_path):
    """A function that trains a model for some steps: cell and embedding size -> its checkpoint."""

    def train(cell, embedding_size):
        model = ModelConfig(V, cell=cell, hidden_size=8, num_layers=1, embedding_size=embedding_size)
        config = dataclasses.replace(SMALL, max_steps=30, learning_rate=0.05)
        list(Trainer(model, config, VOCABULARY, IDS, tmp_path / "old").run())
        return tmp_path / "old" / "i30_l8"

    return train


def test_a_runs_folder_in_place_of_a_checkpoint_is_named(run, tmp_path):
    named = re.escape(f"`init_from` {str(run)!r} is a run's folder; pass one of its checkpoints: {str(run / 'i3_l8')!r}")
    with pytest.raises(ConfigError, match=named):
        trainer(tmp_path / "new", init_from=run, max_steps=3)
