"""The PyTorch notebooks' files: read without executing anything in them, and written."""

import pickle
from pathlib import Path

import numpy as np
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


def renamed(saved, **names):
    """A file's content with other names of modules."""
    state = {
        f"{names.get(name.split('.')[0], '')}{name.partition('.')[2]}": each for name, each in saved["state_dict"].items()
    }
    return {**saved, "state_dict": state}


@pytest.mark.parametrize(
    "change",
    [
        lambda saved: renamed(saved, lstm="module.lstm.", fc="module.fc."),
        lambda saved: renamed(saved, lstm="_orig_mod.module.lstm.", fc="_orig_mod.module.fc."),
        lambda saved: renamed(saved, lstm="rnn._orig_mod.", fc="decoder."),
        lambda saved: {"model_state_dict": saved["state_dict"], "tokens": saved["tokens"], "epoch": 3},
        lambda saved: {**saved, "tokens": list(CHARACTERS)},
        lambda saved: {**saved, "tokens": CHARACTERS},
        lambda saved: {**saved, "tokens": np.array(list(CHARACTERS))},
        lambda saved: {**saved, "tokens": np.array(list(CHARACTERS), object)},
        lambda saved: {**saved, "tokens": list(np.array(list(CHARACTERS)))},
        lambda saved: {**saved, "tokens": dict(enumerate(np.array(list(CHARACTERS))))},
        lambda saved: {**saved, "tokens": {character: n for n, character in enumerate(CHARACTERS)}},
        lambda saved: {"state_dict": saved["state_dict"], "chars": list(CHARACTERS)},
        lambda saved: {"state_dict": saved["state_dict"], "int2char": dict(enumerate(CHARACTERS))},
        lambda saved: {"state_dict": saved["state_dict"], "stoi": {c: n for n, c in enumerate(CHARACTERS)}},
        lambda saved: {**saved, "n_layers": np.int64(LAYERS)},
    ],
)  # fmt: skip
@pytest.mark.parametrize("zipped", [True, False])
def test_other_names_and_tokens_are_the_same_model(torch, tmp_path, change, zipped):
    _, saved = notebook(torch)
    torch.save(saved, tmp_path / "a.net")
    torch.save(change(saved), tmp_path / "b.any", _use_new_zipfile_serialization=zipped)
    expected, found = (torch_file.read(tmp_path / name) for name in ("a.net", "b.any"))
    assert list(found.characters) == list(expected.characters)
    for a, b in zip(found.arrays(), expected.arrays(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_arrays_of_numpy_1_are_known(torch, tmp_path):
    _, saved = notebook(torch)
    torch.save({**saved, "tokens": np.array(list(CHARACTERS))}, tmp_path / "a.net", _use_new_zipfile_serialization=False)
    data = (tmp_path / "a.net").read_bytes()
    assert b"numpy._core.multiarray" in data
    (tmp_path / "a.net").write_bytes(data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert "".join(torch_file.read(tmp_path / "a.net").characters) == CHARACTERS


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_a_state_dict_alone_needs_a_vocabulary_only(torch, tmp_path, cell):
    torch.manual_seed(5)
    kind = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[cell]
    encoder, layers, decoder = torch.nn.Embedding(V, 6), kind(6, H, LAYERS, batch_first=True), torch.nn.Linear(H, V)
    model = torch.nn.ModuleDict({"decoder": decoder, "encoder": encoder, "rnn": layers})
    torch.save(model.state_dict(), tmp_path / "caf\udce9[1].pth")
    with pytest.raises(ConfigError, match=r"the file contains no characters\. Pass the `text` it was trained on, or"):
        import_model(tmp_path / "caf\udce9[1].pth", tmp_path / "run")
    checkpoint = import_model(tmp_path / "caf\udce9[1].pth", tmp_path / "run", VOCABULARY)
    with torch.no_grad():
        expected = decoder(layers(encoder(torch.tensor(IDS[None])))[0])[0].numpy()
    assert_same_distributions(logits_of(checkpoint), expected)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda torch: {"transformer.h.0.attn.c_attn.weight": torch.ones(2, 2)}, "a transformer such as nanoGPT's"),
        (
            lambda torch: {"model": {"_orig_mod.transformer.h.0.attn.bias": torch.ones(2)}, "model_args": {"n_layer": 1}},
            "no LSTM or GRU layers, but those of a transformer such as nanoGPT's. Train again",
        ),
        (lambda torch: {"fc.weight": torch.ones(2, 2)}, "it has no LSTM or GRU layers. Train again"),
        (lambda torch: torch.nn.RNN(3, 4).state_dict(), "4 gate rows for 4 units fit neither an LSTM nor a GRU"),
        (lambda torch: torch.nn.LSTM(3, 4).state_dict(), "beside its recurrent layers it has nothing, where"),
        (lambda torch: torch.nn.LSTM(3, 4, bidirectional=True).state_dict(), "weight_ih_l0_reverse"),
        (lambda torch: {"epoch": 3, "loss": 1.5}, r"no state_dict. Store one there: torch\.save"),
        (lambda torch: torch.ones(3), "no state_dict"),
        (lambda torch: {}, "no state_dict"),
        (lambda torch: {1: torch.ones(3)}, r"a\.pt': "),
        (lambda torch: torch.nn.LSTM(3, 4), "such as a whole module. Store the weights alone"),
    ],
)
def test_another_model_of_pytorch_is_named(torch, tmp_path, content, message):
    torch.save(content(torch), tmp_path / "a.pt")
    with pytest.raises(ConfigError, match=message):
        import_model(tmp_path / "a.pt", tmp_path / "run", VOCABULARY)


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_code_in_a_file_is_not_executed(torch, tmp_path, monkeypatch, writer):
    monkeypatch.chdir(tmp_path)
    if writer == "torch":
        torch.save({**notebook(torch)[1], "extra": Evil()}, "a.net")
    else:
        Path("a.net").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ConfigError, match=r"Store the weights alone: torch\.save\(model\.state_dict\(\), FILE\)"):
        import_model("a.net", "run")
    assert not Path("run-by-the-file").exists()
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda saved: saved.pop("tokens"), "the file contains no characters"),
        (
            lambda saved: saved["state_dict"].pop("fc.bias"),
            "beside its recurrent layers it has fc.weight, where weight and bias",
        ),
        (lambda saved: saved["state_dict"].pop("lstm.bias_hh_l1"), "lstm.bias_hh_l1 is missing"),
        (lambda saved: saved.update(tokens=tuple("abc")), f"the model has {V} characters, the vocabulary 3"),
        (lambda saved: saved.update(tokens=(1, 2)), "not all of the vocabulary's entries are single characters"),
        (lambda saved: saved.update(n_layers=1), "it has 2 layers, and its n_layers is 1"),
        (lambda saved: saved.update(n_layers=10**9), "it has 2 layers, and its n_layers is 1000000000"),
        (lambda saved: saved.update(state_dict=saved["state_dict"]["fc.bias"]), "it has no state_dict"),
        (lambda saved: saved.update(tokens=set(CHARACTERS)), "a set of characters has no order, so their ids are lost"),
        (lambda saved: saved.update(tokens={"a": 1}), "a dictionary with the ids 0 to V - 1"),
        (lambda saved: saved.update(tokens=5), "characters must be a list by id"),
        (
            lambda saved: saved.update(
                state_dict={name: tensor * float("nan") for name, tensor in saved["state_dict"].items()}
            ),
            "its weights are not all finite numbers",
        ),
        (
            lambda saved: saved["state_dict"].update(more=saved["state_dict"]["fc.bias"]),
            "has fc.weight, fc.bias, more, where",
        ),
        (
            lambda saved: saved["state_dict"].update({"b.weight_ih_l0": saved["state_dict"]["lstm.weight_ih_l0"]}),
            r"several stacks of recurrent layers: lstm\., b\.; only one",
        ),
        (lambda saved: saved["state_dict"].update({"lstm.weight_hr_l0": saved["state_dict"]["fc.weight"]}), "weight_hr_l0"),
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
