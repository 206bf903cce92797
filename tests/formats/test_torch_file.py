"""The PyTorch notebooks' files: read without executing anything in them, and written."""

import pickle
from pathlib import Path

import pytest
from models import CHARACTERS, IDS, LAYERS, VOCABULARY, Evil, H, V, assert_same_distributions, logits_of

from charrnn_tf.errors import ConfigError
from charrnn_tf.formats import torch_file
from charrnn_tf.formats.importing import import_model
from charrnn_tf.runs.record import read_record
from charrnn_tf.settings.schema import CELLS
from charrnn_tf.text.vocabulary import Vocabulary


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


def notebook(torch, cell="lstm"):
    """A model in the notebook's manner, and the content of its file."""
    torch.manual_seed(3)
    kind = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[cell]

    class CharRNN(torch.nn.Module):
        def __init__(self):
            super().__init__()
            setattr(self, cell, kind(V, H, LAYERS, dropout=0.5, batch_first=True))
            self.dropout = torch.nn.Dropout(0.5)
            self.fc = torch.nn.Linear(H, V)

        def forward(self, x):
            out, _ = getattr(self, cell)(x)
            return self.fc(self.dropout(out))

    net = CharRNN().eval()
    return net, {"n_hidden": H, "n_layers": LAYERS, "state_dict": net.state_dict(), "tokens": tuple(CHARACTERS)}


def logits(torch, net):
    with torch.no_grad():
        return net(torch.nn.functional.one_hot(torch.tensor(IDS[None]), V).float())[0].numpy()


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_a_file_is_read_and_written(torch, tmp_path, cell):
    net, saved = notebook(torch, cell)
    path = tmp_path / "rnn_20_epoch.net"
    torch.save(saved, path)
    checkpoint = import_model(path, tmp_path / "run")
    assert checkpoint.name == f"i0_l{H}"
    assert read_record(checkpoint).vocabulary == VOCABULARY
    expected = logits(torch, net)
    assert_same_distributions(logits_of(checkpoint), expected)
    assert torch_file.export_checkpoint(checkpoint, tmp_path / "back.net") == ""
    back = torch.load(tmp_path / "back.net", weights_only=True)
    assert (back["n_hidden"], back["n_layers"], back["tokens"]) == (H, LAYERS, tuple(CHARACTERS))
    for parameter in net.parameters():
        torch.nn.init.zeros_(parameter)
    net.load_state_dict(back["state_dict"])
    assert_same_distributions(logits(torch, net), expected)


@pytest.mark.slow
def test_an_embedding_is_multiplied_into_the_first_kernel(torch, tmp_path):
    from conftest import write_checkpoint

    checkpoint = write_checkpoint(tmp_path, characters=CHARACTERS, hidden_size=H, num_layers=LAYERS, embedding_size=5)
    torch_file.export_checkpoint(checkpoint, tmp_path / "a.net")
    net, _ = notebook(torch)
    net.load_state_dict(torch.load(tmp_path / "a.net", weights_only=True)["state_dict"])
    assert_same_distributions(logits(torch, net), logits_of(checkpoint))


def test_characters_in_the_file_are_not_replaced_by_others(torch, tmp_path):
    _, saved = notebook(torch)
    torch.save(saved, tmp_path / "a.net")
    with pytest.raises(ConfigError, match="the file contains its own, different characters"):
        import_model(tmp_path / "a.net", tmp_path / "run", Vocabulary(CHARACTERS[::-1]))
    assert import_model(tmp_path / "a.net", tmp_path / "run", VOCABULARY).is_dir()


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_code_in_a_file_is_not_executed(torch, tmp_path, monkeypatch, writer):
    monkeypatch.chdir(tmp_path)
    if writer == "torch":
        torch.save({**notebook(torch)[1], "extra": Evil()}, "a.net")
    else:
        Path("a.net").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ConfigError, match=r"not a file of weights from torch\.save"):
        import_model("a.net", "run")
    assert not Path("run-by-the-file").exists()
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda saved: saved.pop("tokens"), "not a notebook's file, which has n_layers, state_dict and tokens"),
        (lambda saved: saved["state_dict"].pop("fc.bias"), "fc.bias is missing"),
        (lambda saved: saved["state_dict"].pop("lstm.bias_hh_l1"), "lstm.bias_hh_l1 is missing"),
        (lambda saved: saved.update(tokens=tuple("abc")), f"the model has {V} characters, the vocabulary 3"),
        (lambda saved: saved.update(tokens=(1, 2)), "tokens are not single characters"),
        (lambda saved: saved.update(n_layers=1), "more layers than its n_layers, 1"),
        (lambda saved: saved.update(n_layers=10**9), "weight_ih_l2, .* is missing"),
        (lambda saved: saved.update(state_dict=saved["state_dict"]["fc.bias"]), "not a notebook's file"),
        (
            lambda saved: saved["state_dict"].update({"fc.bias": saved["state_dict"]["fc.bias"][:3]}),
            f"the output has a kernel of {H} x {V} and a bias of 3",
        ),
        (lambda saved: saved["state_dict"].update({"lstm.bias_ih_l0": saved["state_dict"]["fc.bias"]}), r"a\.net': "),
        (
            lambda saved: saved["state_dict"].update({"lstm.weight_hh_l0": saved["state_dict"]["fc.weight"]}),
            "fit neither an LSTM nor a GRU",
        ),
    ],
)
def test_an_incomplete_file_is_an_error(torch, tmp_path, change, message):
    _, saved = notebook(torch)
    change(saved)
    torch.save(saved, tmp_path / "a.net")
    with pytest.raises(ConfigError, match=message):
        import_model(tmp_path / "a.net", tmp_path / "run")
