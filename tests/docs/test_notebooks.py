"""The notebooks of docs/notebooks: each runs in a real kernel with a small text, and is stored with clean outputs."""

import ast
import re
import string

import nbclient
import nbformat
import numpy as np
import pytest
from conftest import make_text
from documents import PAGES, ROOT

import charrnn_tf as cr
from charrnn_tf.network.model import recurrent_layers

BOOKS = {path.stem: path for path in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))}
SMALL = {  # values for each notebook's cell of parameters
    "anna_karenina_pytorch": {
        "HIDDEN_SIZE": 8, "DROPOUT": 0.2, "BATCH_SIZE": 10, "NUM_STEPS": 8, "LEARNING_RATE": 0.01, "STEPS": 6, "SECONDS": 2,
        "LENGTH": 40,
    },
    "anna_karenina_tensorflow1": {
        "HIDDEN_SIZE": 8, "BATCH_SIZE": 10, "NUM_STEPS": 8, "STEPS": 6, "SECONDS": 2, "LENGTH": 40,
    },
    "look_inside": {
        "STEPS": 10, "BEGIN": 2500, "SHOWN": 80, "READ": 200,
        "SETTINGS": {"hidden_size": 8, "num_layers": 1, "batch_size": 10},
    },
    "sherlock_holmes": {"CHARACTERS": 500, "WINDOWS": (5, 10), "EPOCHS": 1, "LENGTH": 40},
    "text_generation": {
        "EMBEDDING_SIZE": 4, "HIDDEN_SIZE": 8, "BATCH_SIZE": 10, "NUM_STEPS": 8, "LEARNING_RATE": 0.01, "SECONDS": 2,
        "LENGTH": 40,
    },
}  # fmt: skip
NOISE = re.compile("tensorflow/|oneDNN|cuda|absl", re.IGNORECASE)
OF_A_MACHINE = re.compile(r"(?<![\w.])/(work|home|root|tmp|Users)\b|\w+@\w+")


def parameters(book):
    """The cell that a test replaces; it must be the first one with code."""
    first = next(cell for cell in book.cells if cell.cell_type == "code")
    assert first.metadata["tags"] == ["parameters"]
    return first


def outputs(book):
    return [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]


def printed(book):
    return "".join(output.text for output in outputs(book) if output.output_type == "stream")


def shown(book, kind):
    """The representations of one MIME type in a notebook's outputs."""
    return [output.data[kind] for output in outputs(book) if kind in output.get("data", {})]


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_a_notebook_runs_without_an_error_or_a_message_of_tensorflow(name, tmp_path, monkeypatch):
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL")  # which the tests set, and a newcomer does not
    monkeypatch.delenv("PYTEST_CURRENT_TEST")  # with which a kernel does not show what libraries print
    (tmp_path / "text.txt").write_text(make_text(3000, seed=1) + string.printable, encoding="utf-8")
    book = nbformat.read(BOOKS[name], as_version=4)
    small = {"TEXT": "text.txt", **SMALL[name]}
    cell = parameters(book)
    names = {each.id for each in ast.walk(ast.parse(cell.source)) if isinstance(each, ast.Name)}
    assert names == set(small)
    cell.source = "\n".join(f"{name} = {value!r}" for name, value in small.items())
    where = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(book, timeout=120, kernel_name="python3", resources=where).execute()
    assert not NOISE.search(printed(book))
    assert len(shown(book, "image/png")) == len(shown(nbformat.read(BOOKS[name], as_version=4), "image/png")) > 0


def test_every_notebook_is_run():
    assert set(SMALL) == set(BOOKS)


@pytest.mark.parametrize("name", BOOKS)
def test_a_notebook_is_stored_with_its_outputs_and_without_traces_of_a_machine(name):
    book = nbformat.read(BOOKS[name], as_version=4)
    nbformat.validate(book)
    numbers = [cell.execution_count for cell in book.cells if cell.cell_type == "code"]
    assert numbers == list(range(1, len(numbers) + 1))  # run once, from top to bottom
    assert not [output for output in outputs(book) if output.output_type == "error"]
    assert not NOISE.search(printed(book))
    assert shown(book, "image/png")
    texts = [printed(book), *shown(book, "text/plain"), *shown(book, "text/html")]
    assert not [found for text in texts if (found := OF_A_MACHINE.search(text))]
    assert all(set(cell.metadata) <= {"tags"} for cell in book.cells)
    assert BOOKS[name].stat().st_size < 300_000


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_the_loop_by_hand_has_the_losses_of_the_compiled_loop(cell, tmp_path):
    text = make_text(4 * 8 * 7 + 1, seed=1)  # seven steps per epoch
    vocabulary = cr.Vocabulary.from_text(text)
    ids = vocabulary.encode(text)
    model_config = cr.ModelConfig(len(vocabulary), cell=cell, hidden_size=16, num_layers=2, dropout=0.0)
    train_config = cr.TrainConfig(
        batch_size=4, num_steps=8, max_steps=14, learning_rate=0.01, warmup_steps=0, schedule="constant", clip_norm=0.5,
        state_reset=0.0, validation_fraction=0.0, log_every=1, seed=5,
    )  # fmt: skip
    model = cr.build_model(model_config, batch_size=4, seed=5)
    names = {"cr": cr, "model": model, "train_config": train_config}
    cells = (cell for path in BOOKS.values() for cell in nbformat.read(path, as_version=4).cells)
    (loop,) = {cell.source for cell in cells if cell.metadata.get("tags") == ["loop"]}  # the same in all notebooks
    exec(loop, names)
    by_hand = []
    for _ in range(2):
        by_hand += [float(names["train_step"](x, y)) for x, y in cr.windows(ids, 4, 8)]
        for layer in recurrent_layers(model):
            layer.reset_state()  # each epoch begins with a zero state
    trainer = cr.Trainer(model_config, train_config, vocabulary, ids, tmp_path / "run")
    np.testing.assert_allclose(by_hand, [row.train_loss for row in trainer.run()], rtol=0, atol=1e-5)
    assert len(by_hand) == 14


@pytest.mark.parametrize("name", BOOKS)
def test_tutorials_link_to_each_notebook(name):
    assert f"(notebooks/{name}.ipynb)" in PAGES["docs/tutorials.md"]
