"""Recognises model files by their content, and says what to do with those that can't be imported."""

import codecs
import os
import re
import zipfile
from pathlib import Path

from ..errors import ConfigError, reason
from ..files import open_file
from ..runs.find import list_checkpoints
from ..runs.record import CONFIG, SUMS, VARIABLES
from .keras_file import HDF5, SETTINGS, WEIGHTS
from .tf1_file import PART

HEAD = 4096  # bytes that tell the kind of a file
ZIP, TORCH, PICKLE = b"PK\x03\x04", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", rb"\x80[\x02-\x05]"  # TORCH: before 1.6
SAVED_MODEL = "saved_model.pb"
AGAIN = "Train again on its text: charrnn-tf train FILE"
READABLE = "what torch.save wrote (.net, .pt, .pth), a TensorFlow 1 checkpoint, or a Keras file (.keras, .h5, .weights.h5)"
REFUSED = (  # how the file begins, and the rest of the sentence that refuses it
    (rb"\Z", "is empty. Copy or download it again"),
    (rb"[\x03\x04]\0\0\0\x01\0\0\0|[34]\r?\n1\r?\n", f"is a Torch 7 file (.t7) of char-rnn or torch-rnn. {AGAIN}"),
    (rb"GGUF|tjgg|lmgg", "is a GGUF file, made for transformers. This package has LSTM and GRU layers only"),
    (
        rb"(?s).{6}\0\0\{\s*\"",
        "is a safetensors file. Load it with safetensors.torch.load_file, and store the result with torch.save",
    ),
    (PICKLE, "is a Python pickle, which could execute code. Store the weights alone: torch.save(model.state_dict(), FILE)"),
    (rb"version https://git-lfs", "is a pointer to a file in Git LFS. Fetch that with: git lfs pull"),
    (rb"(?i)\s*<(!doctype html|html)", "is a web page. Download the file itself (on GitHub: the raw file)"),
    (rb"model_checkpoint_path:", "is TensorFlow's list of checkpoints. Give one of those, such as i200_l512.ckpt"),
    (rb"\x93NUMPY", "is a NumPy array, without the rest of a model"),
    (rb"(?s)\x08[\x01-\x20]\x12|.{4}TFL3", "is an ONNX or TensorFlow Lite file, an export. Give what it was made from"),
    (rb"(?s)PK\x05\x06|\x1f\x8b|BZh|\xfd7zXZ|7z\xbc\xaf|Rar!|.{257}ustar", "is an archive. Unpack it first"),
    (rb"\s*(\{\s*\"|\[\s*[\[{\"])", "is a JSON file: settings or characters. Give the file of the weights"),
)  # fmt: skip


def kind_of(path: str | Path) -> str:
    """The module of this folder that reads a file: "keras_file", "tf1_file" or "torch_file".

    Raises ConfigError for everything else, with what it is and what to do instead.
    """
    path = Path(path)
    _check_place(path)
    prefix = PART.sub("", str(path))
    if os.path.isfile(f"{prefix}.index"):
        return "tf1_file"
    try:
        with open_file(path) as file:
            head = file.read(HEAD)
    except OSError as error:
        raise ConfigError(f"can't read {str(path)!r}: {reason(error)}") from error
    if prefix != str(path):
        raise ConfigError(f"{str(path)!r} is a part of a TensorFlow checkpoint, whose {prefix + '.index'!r} is missing")
    names = _names(path) if head.startswith(ZIP) else []
    if head.startswith(HDF5) or {SETTINGS, WEIGHTS} <= set(names):
        return "keras_file"
    if head.startswith(TORCH) or any(name.endswith("/data.pkl") for name in names):
        return "torch_file"
    raise ConfigError(f"{str(path)!r} {_refusal(head, bool(names))}.")


def _check_place(path: Path) -> None:
    """Raise ConfigError for a folder, and for a file of a run or SavedModel."""
    is_folder = os.path.isdir(path)
    folder = path if is_folder else path.parent
    ours = all(os.path.isfile(folder / name) for name in (CONFIG, SUMS, f"{VARIABLES}.index"))
    if (is_folder and list_checkpoints(path)) or (ours and (is_folder or path.name.startswith((CONFIG, SUMS, VARIABLES)))):
        raise ConfigError(
            f"{str(path)!r} is from a run of this package and needs no import. Pass it as `checkpoint`, or as `init_from` "
            "to train on."
        )
    inside = path.suffix == ".pb" or folder.name == "variables"
    root = folder.parent if folder.name == "variables" else folder
    if (is_folder or inside) and os.path.isfile(root / SAVED_MODEL):
        raise ConfigError(
            f"{str(root)!r} is a SavedModel, an export. Use what it was exported from: for one of this package, "
            "its run's folder, which needs no import; for another, its model saved as .keras or .weights.h5."
        )
    if is_folder:
        found = next(iter(sorted(path.glob("*.index"))), None)
        example = f", such as {PART.sub('', str(found))!r}" if found else ""
        raise ConfigError(f"{str(path)!r} is a folder. Give a model's file in it{example}.")


def _names(path: Path) -> list[str]:
    try:
        with open_file(path) as file, zipfile.ZipFile(file) as archive:
            return archive.namelist()
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        raise ConfigError(
            f"{str(path)!r} is damaged or incomplete: {str(error).lower()}. Copy or download it again."
        ) from error


def _refusal(head: bytes, is_archive: bool) -> str:
    if is_archive:
        return f"is a zip archive, but none of Keras or PyTorch. Unpack it first, if it holds {READABLE}"
    for begin, refusal in REFUSED:
        if re.match(begin, head):
            return refusal
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # the last character may be cut
    except UnicodeDecodeError:
        text = "\0"
    return f"is not {READABLE}" if "\0" in text else "is a text, not a model. To train on it: charrnn-tf train FILE"
