"""Training in a real Jupyter kernel: one output, updated in place, and nothing of TensorFlow's."""

import nbclient
import nbformat
import pytest

CELLS = (
    "import charrnn_tf as cr\ntext = cr.load_text()[:20_000]",
    "run = cr.train(text=text, max_steps=30, hidden_size=16, batch_size=8, log_every=10, checkpoint_dir='run')\nrun",
    "run.sample('The ', 50, seed=1)",
    "cr.train(text=text, resume=True, max_steps=40, checkpoint_dir='run').history[-1].step",
    "cr.train(text=text, hiden_size=8)",
)


@pytest.mark.slow
def test_a_notebook_shows_a_run_in_one_output(tmp_path):
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    client = nbclient.NotebookClient(
        book, timeout=300, kernel_name="python3", allow_errors=True, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    imported, trained, sampled, resumed, wrong = (cell.outputs for cell in book.cells)
    assert not imported
    display, shown = (output["data"]["text/html"] for output in trained)
    for part in ("<progress", "step 30", "<svg", "<circle", "sample at step 30", "Text, model and settings", "in i30_l16."):
        assert part in display
    assert "i30_l16" in shown
    assert "bits" in sampled[0]["data"]["text/html"]
    assert resumed[1]["data"]["text/plain"] == "40"
    assert resumed[0]["data"]["text/html"].count("<circle") == 2  # the losses before it was resumed are there
    assert wrong[0]["evalue"] == "train has no argument 'hiden_size'; did you mean 'hidden_size'?"
