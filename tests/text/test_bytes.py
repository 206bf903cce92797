"""Byte models: any file can be learned, sampled, scored and exported, and no byte is lost."""

import json

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner
from conftest import make_text

from charrnn_tf.cli.main import cli
from charrnn_tf.errors import ConfigError
from charrnn_tf.formats.savedmodel import export_saved_model
from charrnn_tf.inference.evaluation import Evaluator, evaluate
from charrnn_tf.inference.sampling import Sampler
from charrnn_tf.runs.checkpoint import load_model
from charrnn_tf.runs.find import latest_checkpoint
from charrnn_tf.runs.record import read_record
from charrnn_tf.text.vocabulary import ByteVocabulary, Vocabulary

DATA = np.random.default_rng(0).integers(0, 256, 2000, dtype=np.uint8).tobytes() + make_text(1000, 3).encode()
TINY = ("--hidden-size", "8", "--num-layers", "1", "--batch-size", "2", "--num-steps", "5", "--quiet")


def command(*arguments, code=0, **how):
    result = CliRunner().invoke(cli, list(map(str, arguments)), **how)
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a file of bytes and a run trained on it."""
    folder = tmp_path_factory.mktemp("bytes")
    (folder / "data.bin").write_bytes(DATA)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
            patch.setenv(name, "1")
        how = ("--vocabulary", "bytes", "--max-steps", 20, "--checkpoint-dir", folder / "run")
        command("train", folder / "data.bin", *TINY, *how)
    return folder


@pytest.fixture
def run(home, one_process, monkeypatch):
    monkeypatch.chdir(home)
    return home / "run"


@pytest.mark.slow
def test_a_run_on_bytes_records_its_vocabulary(run):
    record = read_record(latest_checkpoint(run))
    assert record.vocabulary == ByteVocabulary() != Vocabulary(map(chr, range(256)))
    assert (record.train.vocabulary, record.model.vocab_size, record.text.characters) == ("bytes", 256, len(DATA))


@pytest.mark.slow
def test_resuming_and_fine_tuning_keep_to_bytes(run, tmp_path):
    (tmp_path / "text.txt").write_bytes("né\xff".encode() * 200)
    fine = ("--checkpoint-dir", tmp_path / "fine", "--quiet")
    command("train", tmp_path / "text.txt", "--init-from", run, "--max-steps", 3, "--batch-size", 2, "--num-steps", 5, *fine)
    command("train", "--resume", "--max-steps", 5, *fine)
    assert read_record(latest_checkpoint(tmp_path / "fine")).vocabulary == ByteVocabulary()


def test_raw_bytes_are_written_to_a_file_and_readable_text_to_the_terminal(run, tmp_path):
    draw = ("--checkpoint-dir", run, "--length", 300, "--seed", 1, "--top-n", 0, "--temperature", 2)
    command("sample", *draw, "-o", tmp_path / "raw")
    raw = (tmp_path / "raw").read_bytes()
    with pytest.raises(UnicodeDecodeError):
        raw.decode()
    shown = command("sample", *draw).stdout_bytes
    assert len(raw) == 300
    assert shown.decode() == raw.decode("utf-8", "replace") + "\n"


def test_a_prime_may_be_any_bytes(run, tmp_path):
    (tmp_path / "prime").write_bytes(b"\xff\xfe\x00\xc3")
    draw = ("--checkpoint-dir", run, "--length", 5, "--seed", 1)
    command("sample", *draw, "--prime-file", tmp_path / "prime", "-o", tmp_path / "raw")
    assert (tmp_path / "raw").read_bytes().startswith(b"\xff\xfe\x00\xc3")
    assert len((tmp_path / "raw").read_bytes()) == 9
    assert command("sample", *draw, "--prime", "é").stdout.startswith("é")


def test_characters_split_over_two_chunks_are_written_whole(run):
    sampler = Sampler.from_checkpoint(latest_checkpoint(run))
    bias = np.full(256, -100.0, np.float32)
    bias[list("é".encode())] = 100, 100
    sampler.model.get_layer("logits").set_weights([np.zeros((8, 256), np.float32), bias])
    pieces = [piece for (piece,) in sampler.chunks("", 40, top_n=0, seed=3, chunk=1, errors="surrogateescape")]
    whole = "".join(pieces).encode("utf-8", "surrogateescape")
    assert set(whole) == set("é".encode())
    assert len(whole) == 40
    assert "é" in "".join(pieces)
    assert sampler.sample("", 40, top_n=0, seed=3) == whole.decode("utf-8", "replace")


def test_a_single_step_takes_one_byte(run):
    sampler = Sampler.from_checkpoint(latest_checkpoint(run))
    character, state = "a", None
    for _ in range(20):
        character, state = sampler.predict(character, state, generator=np.random.default_rng(5))
        assert len(sampler.vocabulary.encode(character)) == 1
    with pytest.raises(ConfigError, match="one byte for a byte model"):
        sampler.predict("é")


def test_evaluating_scores_every_byte(run):
    scored = json.loads(command("evaluate", "data.bin", "--checkpoint-dir", run, "--json").stdout)
    assert scored["characters"] == len(DATA) - 1
    path = latest_checkpoint(run)
    model, record = load_model(path)
    ids = np.frombuffer("naïve\n".encode(), np.uint8)
    assert evaluate(path, "naïve\n") == Evaluator(model, record.model).evaluate(ids)


@pytest.mark.slow
def test_the_exported_signatures_take_and_give_bytes(run, tmp_path):
    path = latest_checkpoint(run)
    model = tf.saved_model.load(str(export_saved_model(path, tmp_path / "model"))).signatures
    texts = [b"", b"\xff\x00\xc3", "né".encode(), bytes(range(256))]
    encoded = model["encode"](text=tf.constant(texts))
    assert encoded["lengths"].numpy().tolist() == list(map(len, texts))
    for row, text in zip(encoded["ids"].numpy(), texts, strict=True):
        assert row.tolist() == [*text, *[-1] * (256 - len(text))]
    assert model["decode"](ids=encoded["ids"])["text"].numpy().tolist() == texts
    assert model["decode"](ids=tf.constant([[300, 65, -5, 256]]))["text"].numpy().tolist() == [b"A"]
    for nothing in (model["encode"](text=tf.zeros([0], tf.string))["ids"], tf.zeros([2, 0], tf.int32)):
        assert set(model["decode"](ids=nothing)["text"].numpy().tolist()) <= {b""}
    scored = model["score"](text=tf.constant(texts))
    loaded, record = load_model(path)
    whole = Evaluator(loaded, record.model).evaluate(np.frombuffer(texts[3], np.uint8))
    assert scored["characters"].numpy().tolist() == [0, 2, 2, 255]
    assert float(scored["nats"][3]) == pytest.approx(whole.nats_per_character * 255, rel=1e-5)
    written = model["generate"](
        prime=tf.constant([b"\xff\x00"]), length=tf.constant(50), top_n=tf.constant(0), top_p=tf.constant(1.0),
        temperature=tf.constant(1.0), seed=tf.constant(4, tf.int64),
    )["text"].numpy()[0]  # fmt: skip
    sampler = Sampler.from_checkpoint(path)
    pieces = "".join(piece for (piece,) in sampler.chunks("\udcff\0", 50, top_n=0, seed=4, errors="surrogateescape"))
    assert written == b"\xff\x00" + pieces.encode("utf-8", "surrogateescape")
