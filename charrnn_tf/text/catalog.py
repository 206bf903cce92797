"""Well-known texts by name: where they are, and how to get them whole. None is part of the package."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import BinaryIO

from ..errors import TextError, reason
from ..files import sha256

BLOCK_BYTES = 1 << 16
TIMEOUT = 30.0  # seconds without a byte
GITHUB = "https://raw.githubusercontent.com"


@dataclass(frozen=True)
class Named:
    """A text that can be fetched."""

    about: str
    url: str
    size: int  # bytes
    sha256: str


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
}


def fetch(
    name: str,
    directory: str | Path = "data",
    *,
    url: str | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Download a named text as `directory/NAME.txt`, unless it is there, and return its path.

    It appears under its name once its sum is right; what a download that was cut has left is gone on with.

    url: another place that has it. progress: told how many bytes of how many are there.
    Raises TextError for a name that is not known, a place that can't be reached or written, and another text.
    """
    if name not in CORPORA:
        raise TextError(f"there is no corpus {name!r}; they are: {', '.join(CORPORA)}")
    corpus = CORPORA[name]
    target = Path(directory) / f"{name}.txt"
    partial = target.with_name(f".{target.name}.partial")
    place = corpus.url if url is None else url
    try:
        if target.exists():
            if sha256(target) == corpus.sha256:
                return target
            raise TextError(f"{str(target)!r} is there already and is another text. Move it away, or choose another folder.")
        _download(place, partial, corpus.size, progress)
        if sha256(partial) != corpus.sha256:
            partial.unlink()
            raise TextError(f"{place} has another text than {name}: its sum is not the one known. Use --url.")
        partial.replace(target)
    except OSError as error:
        raise TextError(f"can't keep {name} as {str(target)!r}: {reason(error)}") from error
    return target


def _download(url: str, partial: Path, size: int, progress: Callable[[int, int], None]) -> None:
    """Write what is at a URL to a file, after what the file holds already; at most one block more than `size` bytes."""
    if not url.startswith(("http://", "https://")):
        raise TextError(f"{url!r} is no address that begins with http:// or https://")
    have = _size(partial)
    if have > size:
        partial.unlink()
        have = 0
    if have == size:
        return
    headers = {"User-Agent": f"charrnn-tf/{version('charrnn-tf')}"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        with (
            urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT) as response,
            _opened(partial) as file,
        ):
            goes_on = response.status == http.client.PARTIAL_CONTENT
            if not (goes_on and str(response.headers["Content-Range"]).startswith(f"bytes {have}-")):
                file.truncate(0)  # the whole text comes
                have = 0
            while have <= size and (data := response.read(BLOCK_BYTES)):
                file.write(data)
                have += len(data)
                progress(have, size)
    except urllib.error.HTTPError as error:
        raise TextError(
            f"can't fetch {url}: {error.code} {error.reason}. Use --url for another place that has it."
        ) from error
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        why = error.reason if isinstance(error, urllib.error.URLError) else error
        raise TextError(f"can't fetch {url}: {why or 'the connection was cut'}. {_again(partial)}") from error
    except ValueError as error:
        raise TextError(f"can't fetch {url!r}: {error}") from error
    if have < size:
        raise TextError(f"{url} ended after {have:,} of {size:,} bytes. {_again(partial)}")


def _opened(partial: Path) -> BinaryIO:
    partial.parent.mkdir(parents=True, exist_ok=True)
    return open(partial, "ab")


def _size(partial: Path) -> int:
    return partial.stat().st_size if partial.exists() else 0


def _again(partial: Path) -> str:
    have = _size(partial)
    return f"{have:,} bytes are kept: give the command again to go on." if have else "Is there a network?"
