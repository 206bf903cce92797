"""The Python blocks of each page run, one after another, in an empty folder; a client of a model runs alone."""

import functools
import subprocess
import sys

import numpy as np
import pytest
from conftest import TEXT, logits_after, write_checkpoint
from documents import PAGES, blocks

import charrnn_tf as cr

CLIENT = "docs/other-tools.md"  # its block is a program of its own


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python") and page != CLIENT])
def test_the_python_blocks_of_a_page_run(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if page == "README.md":  # its text is downloaded, and trains for minutes
        (tmp_path / "anna.txt").write_text(cr.load_text()[:20_000], encoding="utf-8")
        monkeypatch.setattr(cr, "fetch_corpus", lambda name: f"{name}.txt")
        monkeypatch.setattr(cr, "train", functools.partial(cr.train, max_steps=50, hidden_size=64))
    names = {}
    for block in blocks(page, "python"):
        exec(compile(block, page, "exec"), names)
    printed = capsys.readouterr().out
    assert "The " in printed or page == "README.md"  # where a cell shows it
    assert (tmp_path / "report.html").is_file() or page != "README.md"
    assert (tmp_path / "my-run" / "metrics.csv").is_file()
    assert (tmp_path / "my-model" / "saved_model.pb").is_file()
    if page == "docs/python.md":
        assert "512 128 5" in printed
    if page == "docs/savedmodel.md":
        assert names["written"]["text"][0].numpy().decode().startswith("The ")


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_the_onnx_client_writes_with_onnxruntime_and_numpy_alone(tmp_path, cell):
    pytest.importorskip("onnxruntime")
    from charrnn_tf.formats.onnx_file import export_checkpoint
    from charrnn_tf.runs.checkpoint import load_model

    (client,) = blocks(CLIENT, "python")
    assert len([line for line in client.splitlines() if line]) <= 15
    checkpoint = write_checkpoint(
        tmp_path, characters=sorted(set(TEXT)), cell=cell, hidden_size=16, num_layers=2, init="wide"
    )
    export_checkpoint(checkpoint, tmp_path / "model.onnx")
    alone = "import sys; sys.modules |= dict.fromkeys(('charrnn_tf', 'tensorflow', 'keras', 'onnx')); exec(sys.stdin.read())"
    command = [sys.executable, "-c", alone]
    written = subprocess.run(command, input=client, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)
    text = written.stdout.removesuffix("\n")
    assert text.startswith("The ")
    assert len(text) == 204
    model, record = load_model(checkpoint)
    ids = record.vocabulary.encode(text)
    logits = logits_after(model, record.model, ids)
    likelier = (logits[3:-1] > np.take_along_axis(logits[3:-1], ids[4:, None].astype(int), axis=1) + 1e-4).sum(axis=1)
    assert set(likelier) == {0, 1, 2, 3, 4}
