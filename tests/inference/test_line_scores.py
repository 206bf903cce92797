"""A score for each line, against the evaluator and the exported `score`."""

import itertools
import math

import pytest
import tensorflow as tf
from conftest import make_text, write_checkpoint
from gpu import OPERATION, operations, stand_in

from charrnn_tf import export_saved_model, latest_checkpoint, score_lines
from charrnn_tf.errors import ConfigError, TextError
from charrnn_tf.inference import line_scores as module
from charrnn_tf.inference.evaluation import Evaluator
from charrnn_tf.inference.line_scores import LineScorer
from charrnn_tf.runs.checkpoint import load_model
from charrnn_tf.settings.schema import CELLS
from charrnn_tf.text.vocabulary import ByteVocabulary

TEXT = make_text(2500, seed=8)
LINES = ["", "A", *TEXT.split("\n"), TEXT.replace("\n", " ")[:430], "", "rain"]  # one longer than several windows


@pytest.fixture(scope="module")
def checkpoint(trained):
    return latest_checkpoint(trained("lstm"))


@pytest.fixture(scope="module")
def scorer(checkpoint):
    """Compiled once for all tests."""
    return LineScorer(*load_model(checkpoint))


@pytest.fixture
def compiled_once(scorer, monkeypatch):
    monkeypatch.setattr(module, "LineScorer", lambda model, record: scorer)


def nats_of(scores):
    return [score.nats for score in scores]


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_the_sum_over_lines_is_that_of_the_exported_score(trained, tmp_path, cell):
    path = latest_checkpoint(trained(cell))
    score = tf.saved_model.load(str(export_saved_model(path, tmp_path / "model"))).signatures["score"]
    for end in ("", "\n"):
        exported = score(text=tf.constant(["\n" + line + end for line in LINES]))  # the first character is not scored
        scores = list(score_lines(path, LINES, with_newline=bool(end)))
        assert nats_of(scores) == pytest.approx(exported["nats"].numpy(), rel=1e-5, abs=1e-5)
        assert [each.characters for each in scores] == list(exported["characters"].numpy())
        assert sum(nats_of(scores)) == pytest.approx(exported["nats"].numpy().sum(), rel=1e-6)
        assert [each.text for each in scores] == LINES


@pytest.mark.usefixtures("compiled_once")
def test_a_line_is_scored_as_if_it_were_alone_after_a_newline(checkpoint, scorer):
    model, record = load_model(checkpoint)
    evaluator, encode = Evaluator(model, record.model), record.vocabulary.encode
    for each in itertools.islice(score_lines(checkpoint, LINES), 1, 5):
        alone = evaluator.evaluate(encode("\n" + each.text))
        assert each.characters == alone.characters == len(each.text)
        assert each.nats == pytest.approx(alone.nats_per_character * alone.characters, abs=1e-4)
        assert each.perplexity == pytest.approx(alone.perplexity, rel=1e-5)


def test_an_empty_line_has_nothing_to_score(scorer):
    assert list(scorer.score(["", "\n"])) == [(0.0, 0, 1.0, "")] * 2
    (newline,) = scorer.score([""], with_newline=True)
    assert newline.characters == 1
    assert newline.perplexity == pytest.approx(math.exp(newline.nats))
    assert newline.nats > 0


def test_without_a_newline_in_the_vocabulary_lines_begin_as_samples_do(tmp_path):
    path = write_checkpoint(tmp_path, characters="zyx", init="wide")
    model, record = load_model(path)
    evaluator = Evaluator(model, record.model)
    for each in score_lines(path, ["xyz", "y"]):
        alone = evaluator.evaluate(record.vocabulary.encode("z" + each.text))
        assert each.nats == pytest.approx(alone.nats_per_character * len(each.text), abs=1e-5)
    with pytest.raises(TextError, match=r"^line 1 of the text has characters the model never saw: '\\n'"):
        list(score_lines(path, ["xyz"], with_newline=True))


def test_neighbours_blocks_and_batches_change_no_score(scorer, monkeypatch):
    expected = nats_of(scorer.score(LINES))
    for name, value in (("BLOCK", 900), ("EVALUATED_STREAMS", 1), ("EVALUATED_STEPS", 9)):
        monkeypatch.setattr(module, name, value)
        assert nats_of(scorer.score(LINES)) == pytest.approx(expected, abs=1e-4)


def test_lines_are_read_in_bounded_blocks(scorer, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 100)
    read = itertools.count()
    endless = ((next(read) and "The rain\n") or "" for _ in itertools.repeat(None))
    scores = list(itertools.islice(scorer.score(endless), 5))
    assert [each.text for each in scores] == ["", *["The rain"] * 4]
    assert next(read) < 15


def test_unknown_characters_name_the_line_or_are_skipped(scorer, caplog):
    lines = ["The rain", "Thé ☃rain", "rain"]
    scores = scorer.score(lines, title="'other.txt'")
    with pytest.raises(TextError, match=r"^line 2 of 'other.txt' has characters the model never saw: 'é' \(U\+00E9\), '☃'"):
        list(scores)
    skipped = list(scorer.score(lines, unknown="skip", title="'other.txt'"))
    assert [(each.characters, each.text) for each in skipped] == [(8, "The rain"), (7, "Thé ☃rain"), (4, "rain")]
    assert skipped[1].nats == pytest.approx(next(scorer.score(["Th rain"])).nats, abs=1e-5)
    assert (scorer.left_out.count, scorer.left_out.characters) == (2, 21)
    assert "'other.txt': 2 of 21 characters (9.5%) are left out, 'é' (U+00E9) 1 time, '☃' (U+2603) 1 time." in caplog.text


def test_lines_are_brought_into_the_form_of_the_runs_text(tmp_path):
    composed, decomposed = "é", "e\u0301"
    path = write_checkpoint(tmp_path, characters=f"\n {composed}", init="wide")
    (alone,) = score_lines(path, [composed])
    assert next(score_lines(path, [decomposed], normalize="nfc")) == alone
    with pytest.raises(TextError):
        list(score_lines(path, [decomposed]))


def test_bytes_are_characters_of_a_byte_model(tmp_path):
    path = write_checkpoint(tmp_path, characters=ByteVocabulary(), init="wide")
    assert [each.characters for each in score_lines(path, ["é", "\udcff", "a"])] == [2, 1, 1]


def test_one_text_instead_of_lines_is_refused(checkpoint):
    with pytest.raises(ConfigError, match="`lines` must be a list of lines"):
        score_lines(checkpoint, "The rain")


@pytest.mark.parametrize("cell", CELLS)
def test_on_a_gpu_lines_are_one_shard_with_cudnns_operation_for_every_layer(trained, cell, monkeypatch):
    model, record = load_model(latest_checkpoint(trained(cell)))
    stand_in(monkeypatch, cudnn=True)
    scorer = LineScorer(model, record)
    assert scorer._shards == 1
    traced = scorer._compile(scorer._shards).get_concrete_function()
    assert operations(traced.graph.as_graph_def())[OPERATION] == 2
