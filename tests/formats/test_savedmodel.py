"""The SavedModel, used as a program that has only TensorFlow uses it."""

import itertools
import json
import logging
import os
import re
import shutil

import numpy as np
import processes
import pytest
import tensorflow as tf
from conftest import TEXT, make_text, tree, write_checkpoint
from gpu import operations, stand_in
from hypothesis import example, given
from hypothesis import strategies as st
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from charrnn_tf import Sampler, export_saved_model, latest_checkpoint
from charrnn_tf.errors import CheckpointError, ConfigError
from charrnn_tf.formats import savedmodel
from charrnn_tf.inference.evaluation import Evaluator
from charrnn_tf.runs.checkpoint import load_model
from charrnn_tf.settings.schema import CELLS
from charrnn_tf.text.vocabulary import Vocabulary

H, V = 16, len(set(TEXT))  # of the models in `trained`
STATES = {"lstm": ["hidden_0", "cell_0", "hidden_1", "cell_1"], "gru": ["hidden_0", "hidden_1"]}
UNICODE = "\n\0 aéT한글漢😀👍\u200d\ufeff\ufffd\ufffe\U0010ffff"

# Runs where charrnn_tf can't be imported; prints JSON for each SavedModel.
OUTSIDE = """
import json, sys
assert "charrnn_tf" not in sys.modules
sys.modules["charrnn_tf"] = None
import numpy as np, tensorflow as tf

def described(specs):
    return {name: [spec.dtype.name, spec.shape.as_list()] for name, spec in specs.items()}

def attempt(name, **arguments):
    try:
        results = signatures[name](**{key: tf.constant(*value) for key, value in arguments.items()})
    except tf.errors.OpError as error:
        return type(error).__name__
    return {key: [list(value.shape), value.dtype.name] for key, value in results.items()}

def state(count):
    inputs = signatures["step"].structured_input_signature[1]
    return {key: (np.zeros((count, spec.shape[1])), tf.float32) for key, spec in inputs.items() if key != "ids"}

for path in sys.argv[1:]:
    signatures = tf.saved_model.load(path).signatures
    generate = {"prime": (["The "], tf.string), "length": (5, tf.int32), "top_n": (5, tf.int32), "top_p": (0.9, tf.float32),
                "temperature": (0.7, tf.float32), "seed": (1, tf.int64)}
    result = {"signatures": {}, "odd": {}}
    for name, function in signatures.items():
        inputs, outputs = function.structured_input_signature[1], function.structured_outputs
        result["signatures"][name] = [described(inputs), described(outputs)]
    written = signatures["generate"](**{key: tf.constant(*value) for key, value in generate.items()})
    result["text"] = written["text"][0].numpy().decode()
    for key, values in {"length": [-3, -2**31], "top_n": [-1, -2**31, 2**31 - 1], "seed": [-1, -2**63, 2**63 - 1],
                        "top_p": [0, -1, 2, "nan", "inf", 1e-45], "temperature": [-1, "nan", "inf", 1e-45, 3e38]}.items():
        for value in values:
            number = float(value) if isinstance(value, str) else value
            odd = generate | {key: (number, generate[key][1])}
            result["odd"][f"generate {key}={value}"] = attempt("generate", **odd)
    for batch in (-1, -2**31):
        result["odd"][f"initial_state {batch}"] = attempt("initial_state", batch=(batch, tf.int32))
    for ids in ([-1], [10**6], [0, -2**31], [2**31 - 1]):
        result["odd"][f"step {ids}"] = attempt("step", ids=(ids, tf.int32), **state(len(ids)))
        result["odd"][f"decode {ids}"] = attempt("decode", ids=([ids], tf.int32))
    result["odd"]["step with other states"] = attempt("step", ids=([1, 2], tf.int32), **state(3))
    print(json.dumps(result))
assert "charrnn_tf" not in {name.partition(".")[0] for name, module in sys.modules.items() if module}
"""


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    """cell -> a checkpoint and its SavedModel."""
    checkpoints = {cell: latest_checkpoint(trained(cell)) for cell in CELLS}
    return {
        cell: (checkpoint, export_saved_model(checkpoint, tmp_path_factory.mktemp("export") / cell))
        for cell, checkpoint in checkpoints.items()
    }


@pytest.fixture(scope="module")
def outside(exported, tmp_path_factory):
    """cell -> what a program without charrnn_tf finds in its SavedModel."""
    command = ["-c", OUTSIDE, *(output for _, output in exported.values())]
    done = processes.run(command, cwd=tmp_path_factory.mktemp("elsewhere"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(zip(exported, map(json.loads, done.stdout.splitlines()[-2:]), strict=True))


@pytest.fixture(scope="module")
def signatures(exported):
    return {cell: Functions(output) for cell, (_, output) in exported.items()}


@pytest.fixture(scope="module")
def samplers(exported):
    return {cell: Sampler.from_checkpoint(checkpoint) for cell, (checkpoint, _) in exported.items()}


class Functions:
    """The signatures of a SavedModel as functions of plain Python values."""

    def __init__(self, output):
        self.loaded = tf.saved_model.load(str(output))  # its variables live as long as this does

    def call(self, name, **arguments):
        return self.loaded.signatures[name](**arguments)

    def generate(self, primes, length=20, *, top_n=0, top_p=1.0, temperature=1.0, seed=1):
        texts = self.call(
            "generate", prime=strings(primes), length=tf.constant(length), top_n=tf.constant(top_n),
            top_p=tf.constant(top_p), temperature=tf.constant(temperature), seed=tf.constant(seed, tf.int64),
        )["text"]  # fmt: skip
        return [text.decode() for text in texts.numpy()]

    def score(self, texts):
        results = self.call("score", text=strings(texts))
        return results["nats"].numpy(), results["characters"].numpy().tolist()

    def step(self, ids, state):
        results = self.call("step", ids=tf.constant(ids, tf.int32), **state)
        return results.pop("logits").numpy(), results

    def initial_state(self, batch):
        return self.call("initial_state", batch=tf.constant(batch))

    def encode(self, texts):
        results = self.call("encode", text=strings(texts))
        return results["ids"].numpy().tolist(), results["lengths"].numpy().tolist()

    def decode(self, ids):
        return [text.decode() for text in self.call("decode", ids=tf.constant(ids, tf.int32))["text"].numpy()]


def strings(texts):
    return tf.constant(texts, tf.string, shape=[len(texts)])


# ---- without charrnn_tf


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_names_dtypes_and_shapes_of_the_signatures(outside, cell):
    states = {name: ["float32", [None, H]] for name in STATES[cell]}
    texts = ["string", [None]]
    assert outside[cell]["signatures"] == {
        "generate": [
            {
                "prime": texts, "length": ["int32", []], "top_n": ["int32", []], "top_p": ["float32", []],
                "temperature": ["float32", []], "seed": ["int64", []],
            },
            {"text": texts},
        ],
        "score": [{"text": texts}, {"nats": ["float32", [None]], "characters": ["int32", [None]]}],
        "step": [{"ids": ["int32", [None]], **states}, {"logits": ["float32", [None, V]], **states}],
        "initial_state": [{"batch": ["int32", []]}, states],
        "encode": [{"text": texts}, {"ids": ["int32", [None, None]], "lengths": ["int32", [None]]}],
        "decode": [{"ids": ["int32", [None, None]]}, {"text": texts}],
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_loading_gives_no_warning_of_unsaved_gradients(exported, cell):
    assert b"_gradient_op_type" not in (exported[cell][1] / "saved_model.pb").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_a_model_exported_on_a_gpu_has_the_operations_of_one_exported_on_a_cpu(exported, cell, tmp_path, monkeypatch):
    checkpoint, on_cpu = exported[cell]
    stand_in(monkeypatch, cudnn=True)
    plain, found = (
        operations(SavedModel.FromString((output / "saved_model.pb").read_bytes()).meta_graphs[0].graph_def)
        for output in (on_cpu, export_saved_model(checkpoint, tmp_path / "on-gpu"))
    )
    assert found == plain
    assert found["MatMul"] > 0
    assert not [name for name in found if "cudnn" in name.lower()]


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_a_program_without_the_package_generates_the_samplers_text(outside, samplers, cell):
    assert outside[cell]["text"] == samplers[cell].sample("The ", 5, top_n=5, top_p=0.9, temperature=0.7, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_odd_values_give_a_result_or_an_error_of_tensorflow(outside, cell):
    found = outside[cell]["odd"]
    texts, states = {"text": [[1], "string"]}, {name: [[1, H], "float32"] for name in STATES[cell]}
    for call, result in found.items():
        if call.startswith("decode"):
            assert result == texts
        elif call.startswith("generate"):
            assert result in (texts, "InvalidArgumentError"), call
        elif call.startswith("step"):
            assert result in ({"logits": [[1, V], "float32"], **states}, "InvalidArgumentError"), call
        else:
            assert result == "InvalidArgumentError", call
    for call in ("length=-3", "top_n=-1", "top_p=2", "temperature=1e-45", "temperature=3e+38", "seed=-1"):
        assert found[f"generate {call}"] == texts, call


# ---- generate


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("prime", ["", "T", "The old ", make_text(300, seed=2)])
def test_generate_writes_the_samplers_text(samplers, signatures, cell, prime):
    sampler = samplers[cell]
    settings = {"top_n": 6, "top_p": 0.95, "temperature": 1.1, "seed": 2**40}
    assert signatures[cell].generate([prime], 40, **settings) == [sampler.sample(prime, 40, **settings)]
    assert signatures[cell].generate([prime], 40, temperature=0.0) == [sampler.sample(prime, 40, temperature=0)]


@pytest.mark.slow
def test_generate_writes_all_texts_of_a_sampler_with_several(exported, signatures):
    sampler = Sampler.from_checkpoint(exported["lstm"][0], batch_size=3)
    texts = ["The " + "".join(pieces) for pieces in zip(*sampler.chunks("The ", 30, top_n=0, seed=1), strict=True)]
    assert len(set(texts)) == 3
    assert signatures["lstm"].generate(["The "] * 3, 30) == texts


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("primes", [["The ", "On the old sea"], ["On the old sea", "The "], ["", "a"], ["a", "", "The old"]])
def test_generate_reads_primes_of_different_lengths_side_by_side(signatures, cell, primes):
    together = signatures[cell].generate(primes, 30)
    assert together[0] == signatures[cell].generate(primes[:1], 30)[0]  # random numbers depend on the row
    likeliest = signatures[cell].generate(primes, 30, temperature=0.0)
    assert likeliest == [signatures[cell].generate([prime], 30, temperature=0.0)[0] for prime in primes]
    assert [len(text) for text in together] == [len(prime) + 30 for prime in primes]


@pytest.mark.slow
@pytest.mark.parametrize("batch", [0, 1, 5])
@pytest.mark.parametrize("length", [0, 1, 25])
def test_generate_takes_any_number_of_texts_of_any_length(signatures, batch, length):
    primes = ["The ", "", "a", "\n", "On the sea"][:batch]
    texts = signatures["lstm"].generate(primes, length)
    assert [text[: len(prime)] for text, prime in zip(texts, primes, strict=True)] == primes
    assert [len(text) - len(prime) for text, prime in zip(texts, primes, strict=True)] == [length] * batch


@pytest.mark.slow
def test_generate_with_a_negative_length_returns_the_prime(signatures):
    assert signatures["lstm"].generate(["The "], -3) == ["The "]


@pytest.mark.slow
def test_generate_returns_the_prime_without_invalid_bytes(signatures):
    odd = [b"T\xffh\xe2\x82e ", "Thé 漢".encode(), b"\xed\xa0\x80The \xf0\x9f"]
    read = ["The ", "Th ", "The "]
    texts = signatures["lstm"].generate(odd, 12)
    assert [text[: len(prime)] for text, prime in zip(texts, read, strict=True)] == read
    assert texts == signatures["lstm"].generate(read, 12)


@pytest.mark.slow
def test_generate_depends_on_the_seed(signatures):
    texts = [signatures["lstm"].generate(["The "], 40, seed=seed)[0] for seed in (0, 1, 2**31, 2**62, -1, 0)]
    assert len(set(texts)) == 5
    assert texts[0] == texts[-1]


# ---- score


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_score_is_the_evaluators_loss(exported, signatures, cell):
    model, record = load_model(exported[cell][0])
    texts = [make_text(count, seed=count) for count in (2, 100, 101, 102, 250, 30)]  # around multiples of a window
    nats, characters = signatures[cell].score(["", "T", *texts])
    assert characters == [0, 0, *(len(text) - 1 for text in texts)]
    assert list(nats[:2]) == [0, 0]
    evaluator = Evaluator(model, record.model)
    for text, figure in zip(texts, nats[2:], strict=True):
        expected = evaluator.evaluate(record.vocabulary.encode(text))
        assert figure == pytest.approx(expected.nats_per_character * expected.characters, rel=1e-3)
        assert signatures[cell].score([text])[0][0] == pytest.approx(figure, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_score_is_the_sum_of_the_steps(signatures, cell):
    text = make_text(220, seed=8)
    (ids,), _ = signatures[cell].encode([text])
    state, nats = signatures[cell].initial_state(1), 0.0
    for id, following in itertools.pairwise(ids):
        logits, state = signatures[cell].step([id], state)
        nats -= float(tf.nn.log_softmax(logits[0].astype(np.float64))[following])
    assert signatures[cell].score([text])[0][0] == pytest.approx(nats, abs=0.001 * 219)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [0, 1, 5])
def test_score_takes_any_number_of_texts(signatures, batch):
    nats, characters = signatures["lstm"].score(["The sea"] * batch)
    assert nats.shape == (batch,)
    assert characters == [6] * batch
    assert (nats > 0).all()


@pytest.mark.slow
def test_score_skips_unknown_characters(signatures):
    nats, characters = signatures["lstm"].score(["The sea", "éThe\0 漢sea", b"\xff\xfeThe \xc3sea\xe2\x82", "é漢", "aé"])
    assert characters == [6, 6, 6, 0, 0]
    assert list(nats) == [nats[0], nats[0], nats[0], 0, 0]


@pytest.mark.slow
def test_memory_does_not_grow_with_characters_times_vocabulary(tmp_path):
    characters = "\n" + "".join(map(chr, range(0xAC00, 0xAC00 + 4000)))
    output = export_saved_model(write_checkpoint(tmp_path, characters=characters), tmp_path / "model")
    program = """
import resource, sys
import tensorflow as tf
signatures = tf.saved_model.load(sys.argv[1]).signatures
def run(count):
    text = tf.constant(["가각" * (count // 2)])
    one, real = tf.constant(1), tf.constant(1.0)
    assert signatures["score"](text=text)["characters"][0] == count - 1
    signatures["generate"](prime=text, length=one, top_n=one, top_p=real, temperature=real, seed=tf.constant(1, tf.int64))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = run(2000)
print((run(12_000) - before) / 1024)
"""
    grown = float(processes.run(["-c", program, output], capture_output=True, text=True, check=True).stdout)
    assert grown < 40  # megabytes; all logits at once would be 190


# ---- step and initial_state


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_steps_from_the_initial_state_are_the_samplers(samplers, signatures, cell):
    sampler = samplers[cell]
    theirs, ours = signatures[cell].initial_state(2), None
    for character in "The wind":
        id = sampler.vocabulary.encode(character)[0]
        logits, theirs = signatures[cell].step([0, id], theirs)
        probabilities, ours = sampler.probabilities(character, ours)
        np.testing.assert_allclose(tf.nn.softmax(logits[1]), probabilities, atol=1e-6)
        for name, part in zip(STATES[cell], tf.nest.flatten(ours), strict=True):
            np.testing.assert_allclose(theirs[name][1], part[0], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [0, 1, 5])
@pytest.mark.parametrize("cell", CELLS)
def test_initial_states_are_zeros_and_steps_take_any_batch(signatures, cell, batch):
    state = signatures[cell].initial_state(batch)
    assert set(state) == set(STATES[cell])
    for part in state.values():
        np.testing.assert_array_equal(part, np.zeros((batch, H), np.float32))
    logits, after = signatures[cell].step(np.arange(batch), state)
    assert logits.shape == (batch, V)
    assert {name: part.shape for name, part in after.items()} == dict.fromkeys(STATES[cell], (batch, H))


# ---- encode and decode


@pytest.fixture(scope="module")
def unicode(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unicode")
    vocabulary = "".join(reversed(UNICODE))  # not in the order of code points
    return vocabulary, Functions(export_saved_model(write_checkpoint(folder, characters=vocabulary), folder / "model"))


@pytest.mark.slow
def test_unicode_is_encoded_and_decoded(unicode):
    vocabulary, functions = unicode
    texts = [UNICODE, "", "한글 é😀\n\0", "\0\0", "👍\u200d", "\ufeffa\ufeff", "\ufffd"]
    ids, lengths = functions.encode(texts)
    assert lengths == [len(text) for text in texts]
    assert ids == [[vocabulary.index(c) for c in text] + [-1] * (len(UNICODE) - len(text)) for text in texts]
    assert functions.decode(ids) == texts


def test_texts_with_unicode_are_generated_and_scored(unicode):
    _, functions = unicode
    (text,) = functions.generate(["한글😀\0"], 60)
    assert text.startswith("한글😀\0")
    assert len(text) == 64
    assert set(text) <= set(UNICODE)
    assert functions.score([text])[1] == [63]


@given(st.lists(st.binary(max_size=12) | st.text(UNICODE + "xé\x7f", max_size=12).map(str.encode), max_size=3))
@example([b"a\xffa", b"\xe2\x82", b"\xe2T", b"\xf0\x9f\x98a", b"\xed\xa0\x80a"])  # cut short, a surrogate
@example([b"\xc0\x80a", b"\xf4\x90\x80\x80a", b"\xf8\x88\x80\x80\x80a", b"\x80\xbfa"])  # too long, too high, out of place
@example([b"\xef\xbf\xbd", b"\xef\xbb\xbfa", b"\xef\xbf\xbea"])  # U+FFFD, U+FEFF, U+FFFE themselves
def test_bytes_that_are_not_utf_8_are_skipped(unicode, texts):
    vocabulary, functions = unicode
    read = ["".join(c for c in text.decode("utf-8", "ignore") if c in vocabulary) for text in texts]
    ids, lengths = functions.encode(texts)
    assert lengths == [len(text) for text in read]
    assert functions.decode(ids if texts else np.zeros((0, 0))) == read


@pytest.mark.slow
def test_the_replacement_character_never_appears(signatures):
    texts = [b"\xff\xfe", b"T\xe2\x82", "\ufffd".encode()]
    assert signatures["lstm"].encode(texts)[1] == [0, 1, 0]
    assert not any("\ufffd" in text for text in signatures["lstm"].generate(texts, 10))


@pytest.mark.slow
@pytest.mark.parametrize("batch", [0, 1, 5])
def test_any_number_of_texts_is_encoded_and_decoded(signatures, batch):
    ids, lengths = signatures["lstm"].encode(["sea"] * batch)
    assert lengths == [3] * batch
    assert signatures["lstm"].decode(np.reshape(ids, (batch, -1) if batch else (0, 0))) == ["sea"] * batch
    assert signatures["lstm"].encode([""] * batch)[1] == [0] * batch
    assert signatures["lstm"].decode(np.zeros((batch, 0))) == [""] * batch


@pytest.mark.slow
def test_decode_drops_invalid_ids(signatures):
    (ids,), _ = signatures["lstm"].encode(["sea"])
    s, e, a = ids
    rows = [[-1, s, V, e, 10**6, a, -(2**31)], [-1] * 7, [s, e, a, 2**31 - 1, V, V + 1, -2]]
    assert signatures["lstm"].decode(rows) == ["sea", "", "sea"]


@pytest.mark.slow
def test_a_vocabulary_keeps_its_own_order(tmp_path):
    vocabulary = Vocabulary.printable()
    checkpoint = write_checkpoint(tmp_path, characters=vocabulary.characters, cell="gru")
    functions = Functions(export_saved_model(checkpoint, tmp_path / "model"))
    text = "Zebra, 09\t~\r\x0b\x0c"
    assert functions.encode([text + "é"])[0] == [vocabulary.encode(text).tolist()]
    assert functions.decode([np.arange(100)]) == [vocabulary.characters]
    assert functions.generate(["I"], 30) == [Sampler.from_checkpoint(checkpoint).sample("I", 30, top_n=0, seed=1)]


@pytest.mark.slow
def test_a_vocabulary_of_one_character(tmp_path):
    functions = Functions(export_saved_model(write_checkpoint(tmp_path, characters="a"), tmp_path / "model"))
    assert functions.generate(["b", "a"], 3, top_n=5) == ["aaa", "aaaa"]
    assert functions.score(["aaa"])[0] == pytest.approx([0.0], abs=1e-6)


# ---- the output folder


@pytest.fixture
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("run"))


def test_anything_but_a_savedmodel_is_left_alone(tmp_path):
    folder, file = tmp_path / "notes", tmp_path / "file"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    file.write_text("mine too")
    for output in (folder, file):
        with pytest.raises(ConfigError, match=re.escape(f"{str(output)!r} exists and is not a SavedModel")):
            export_saved_model("unread", output)
    assert tree(tmp_path) == {"notes/notes.txt": b"mine", "file": b"mine too"}


@pytest.mark.parametrize("output", [".", "", "/", ".."])
def test_a_folder_without_a_name_is_left_alone(tmp_path, monkeypatch, output):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "notes.txt").write_text("mine")
    monkeypatch.chdir(tmp_path / "inner")
    with pytest.raises(ConfigError, match="is not a SavedModel"):
        export_saved_model("unread", output)
    assert tree(tmp_path) == {"inner/notes.txt": b"mine"}


@pytest.mark.slow
def test_an_earlier_savedmodel_is_replaced(exported, tmp_path):
    output = tmp_path / "models" / "model"
    shutil.copytree(exported["gru"][1], output)
    (output / "assets" / "old.txt").write_text("old")
    assert export_saved_model(exported["lstm"][0], str(output)) == output
    assert not (output / "assets" / "old.txt").exists()
    assert set(Functions(output).initial_state(1)) == set(STATES["lstm"])
    assert [path.name for path in output.parent.iterdir()] == ["model"]


def test_saving_leaves_the_root_logger_without_a_handler(tmp_path, monkeypatch):
    """A warning after the first save was "WARNING:charrnn_tf:Warning: ..."."""
    monkeypatch.setattr(logging.root, "handlers", [])
    path = write_checkpoint(tmp_path)
    assert logging.root.handlers == []
    export_saved_model(path, tmp_path / "model")
    assert logging.root.handlers == []
    logging.basicConfig()  # the user's own
    export_saved_model(path, tmp_path / "model")
    assert len(logging.root.handlers) == 1


DISK_FULL = [OSError(28, "No space left on device"), tf.errors.ResourceExhaustedError(None, None, "disk full")]


@pytest.mark.parametrize("error", DISK_FULL)
def test_a_failure_leaves_an_earlier_savedmodel_and_no_partial_one(checkpoint, tmp_path, monkeypatch, error):
    output = tmp_path / "model"
    output.mkdir()
    (output / "saved_model.pb").write_bytes(b"earlier")

    def fail(module, folder, **_):
        os.makedirs(folder)
        with open(os.path.join(folder, "saved_model.pb"), "wb") as file:
            file.write(b"half")
        raise error

    monkeypatch.setattr(savedmodel._Functions, "signatures", lambda self: {})
    monkeypatch.setattr(tf.saved_model, "save", fail)
    for place in (output, tmp_path / "other"):
        with pytest.raises(ConfigError, match=r"can't write '.*(no space left on device|disk full)"):
            export_saved_model(checkpoint, place)
    assert tree(tmp_path) == {"model/saved_model.pb": b"earlier"}


def test_an_output_that_can_not_be_written_is_an_error(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(savedmodel._Functions, "signatures", lambda self: {})
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match="can't write"):
        export_saved_model(checkpoint, tmp_path / "file" / "model")


def test_a_folder_that_is_not_a_checkpoint_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match="is not a checkpoint"):
        export_saved_model(tmp_path, tmp_path / "model")
    assert not (tmp_path / "model").exists()


# ---- saved_model_cli


CLI = """
import json, sys
from tensorflow.python.tools import saved_model_cli
for sys.argv in json.loads(sys.argv[1]):
    try:
        saved_model_cli.main()
    except SystemExit as done:
        assert not done.code
"""


@pytest.mark.slow
def test_saved_model_cli_shows_and_runs_it(exported, samplers):
    place = ("--dir", str(exported["lstm"][1]))
    run = ("saved_model_cli", "run", *place, "--tag_set", "serve", "--signature_def")
    prime = 'prime=[b"The "];length=40;top_n=5;top_p=1.0;temperature=1.0;seed=1'
    commands = [
        ("saved_model_cli", "show", *place, "--all"),
        (*run, "generate", "--input_exprs", prime),
        (*run, "score", "--input_exprs", 'text=["The sea"]'),
    ]
    shown = processes.run(["-c", CLI, json.dumps(commands)], capture_output=True, text=True, check=True).stdout
    for name in ("generate", "score", "step", "initial_state", "encode", "decode"):
        assert f"signature_def['{name}']" in shown
    assert str(samplers["lstm"].sample("The ", 40, seed=1).encode()) in shown
    assert "Result for output key characters:\n[6]" in shown
