"""Downloads well-known texts by name; none is part of the package."""

import http.client
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .. import __version__
from ..errors import ConfigError, TextError, concise, reason
from ..files import sha256, write_file

BLOCK_BYTES = 1 << 16
TIMEOUT = 30.0  # seconds without data
GITHUB = "https://raw.githubusercontent.com"


@dataclass(frozen=True)
class Named:
    """A text that can be downloaded."""

    about: str
    url: str
    size: int  # bytes of the download
    sha256: str  # of the text
    cr_sha256: str = ""  # of the download, if `with_newlines` converts it


CORPORA = {
    "anna": Named(
        "Leo Tolstoy, Anna Karenina, as the notebooks have it",
        f"{GITHUB}/udacity/deep-learning-v2-pytorch/master/recurrent-neural-networks/char-rnn/data/anna.txt",
        1_985_224,
        "8b9eb602223c4b88dbd1d7b610428b419095a2f6cc15429b55083f91adb07b45",
    ),
    "tinyshakespeare": Named(
        "Parts of William Shakespeare's plays, as char-rnn has them",
        f"{GITHUB}/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
        1_115_394,
        "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    ),
    "warpeace": Named(
        "Leo Tolstoy, War and Peace, as in Karpathy, Johnson and Fei-Fei (2015)",
        f"{GITHUB}/ThingsOfBeam/Corpus/master/warpeace_input.txt",
        3_196_234,
        "fb66ba999dafe24017cdd59e04c56d385a9c8466993d374fd4c6f08b2142985e",
        "0139dcd32c37853541e8710281c32d823bb8ea86a86578916305bad06e3da0ea",
    ),
}


@concise
def fetch_corpus(
    name: str,
    directory: str | Path = "data",
    *,
    url: str | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Download a named text to `directory/NAME.txt`, unless it is there already, and return its path.

    The file appears once its checksum is verified; an interrupted download continues from the bytes already received.

    url: another address of the same text. progress: called with the bytes received so far and in total.
    Raises TextError for an unknown name, an address that can't be reached, a folder that can't be written, or another text.
    """
    if name not in CORPORA:
        raise TextError(f"there is no corpus {name!r}; known are: {', '.join(CORPORA)}")
    corpus = CORPORA[name]
    target = Path(directory) / f"{name}.txt"
    partial = target.with_name(f".{target.name}.partial")
    url = corpus.url if url is None else url
    try:
        if target.exists():
            if sha256(target) == corpus.sha256:
                return target
            raise TextError(f"{str(target)!r} exists and is another text. Move it away, or choose another folder.")
        _download(url, partial, corpus.size, progress)
        if sha256(partial) != (corpus.cr_sha256 or corpus.sha256):
            partial.unlink()
            raise TextError(f"{url} has another text than {name}: the checksum differs. Use `url` for another address.")
        if corpus.cr_sha256:
            write_file(target, with_newlines(partial.read_bytes()))  # through the same partial file
        else:
            partial.replace(target)
    except (OSError, ConfigError) as error:
        raise TextError(f"can't save {name} as {str(target)!r}: {reason(error)}") from error
    return target


def with_newlines(text: bytes) -> bytes:
    """Replace a text's carriage returns by CR LF, and drop those at its end."""
    return text.rstrip(b"\r").replace(b"\r", b"\r\n")


def _download(url: str, partial: Path, size: int, progress: Callable[[int, int], None]) -> None:
    """Append to a file the rest of the text at a URL; reads at most one block beyond `size` bytes."""
    if not url.startswith(("http://", "https://")):
        raise TextError(f"{url!r} is not an address that begins with http:// or https://")
    have = _size(partial)
    if have == size:
        return
    if have > size:
        have = 0
    headers = {"User-Agent": f"charrnn-tf/{__version__}"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT) as response:
            partial.parent.mkdir(parents=True, exist_ok=True)
            continues = response.status == http.client.PARTIAL_CONTENT
            if not (continues and str(response.headers["Content-Range"]).startswith(f"bytes {have}-")):
                have = 0  # the server sends the whole text
            with open(partial, "ab") as file:
                file.truncate(have)
                while have <= size and (data := response.read(BLOCK_BYTES)):
                    file.write(data)
                    have += len(data)
                    progress(have, size)
    except urllib.error.HTTPError as error:
        raise TextError(f"can't fetch {url}: {error.code} {error.reason}. Use `url` for another address.") from error
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        why = error.reason if isinstance(error, urllib.error.URLError) else error
        raise TextError(f"can't fetch {url}: {why or 'the connection was lost'}. {_advice(partial)}") from error
    except ValueError as error:
        raise TextError(f"can't fetch {url!r}: {error}") from error
    if have < size:
        raise TextError(f"{url} ended after {have:,} of {size:,} bytes. {_advice(partial)}")


def _size(partial: Path) -> int:
    return partial.stat().st_size if partial.exists() else 0


def _advice(partial: Path) -> str:
    have = _size(partial)
    return f"{have:,} bytes are kept: run the command again to continue." if have else "Is there a network?"
