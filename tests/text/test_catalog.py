"""Downloading named texts from a local server: whole, interrupted, continued, refused."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from click.testing import CliRunner

from charrnn_tf.cli.main import cli
from charrnn_tf.errors import ConfigError, TextError
from charrnn_tf.text import catalog
from charrnn_tf.text.catalog import CORPORA, Named, fetch_corpus

TEXT = bytes(range(256)) * 1000


class Server(ThreadingHTTPServer):
    """Serves one text. cut: upper bound on the bytes of an answer; ranges: whether an answer may begin in the middle."""

    content, cut, ranges, status = TEXT, None, True, None

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked = []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/text.txt"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        wanted = self.headers.get("Range")
        server.asked.append(wanted)
        if server.status:
            return self.send_error(server.status)
        begin = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and server.ranges else 0
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(server.content) - 1}/{len(server.content)}")
        self.send_header("Content-Length", str(len(server.content) - begin))
        self.end_headers()
        self.wfile.write(server.content[begin:][: server.cut])
        self.close_connection = True
        return None

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch):
    server = Server()
    known = Named("Made up", server.url, len(TEXT), hashlib.sha256(TEXT).hexdigest())
    monkeypatch.setitem(CORPORA, "made-up", known)
    monkeypatch.setenv("no_proxy", "*")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_text_is_fetched_whole_and_once(server, tmp_path):
    told = []
    path = fetch_corpus("made-up", tmp_path / "new" / "data", progress=lambda *what: told.append(what))
    assert path == tmp_path / "new" / "data" / "made-up.txt"
    assert path.read_bytes() == TEXT
    assert told[-1] == (len(TEXT), len(TEXT))
    assert list(path.parent.iterdir()) == [path]
    assert fetch_corpus("made-up", tmp_path / "new" / "data") == path
    assert server.asked == [None]


def test_a_text_with_carriage_returns_alone_gets_newlines(server, tmp_path, monkeypatch):
    server.content = b"War\rand\r\rPeace\r\r"
    text = b"War\r\nand\r\n\r\nPeace"
    sums = (hashlib.sha256(each).hexdigest() for each in (text, server.content))
    monkeypatch.setitem(CORPORA, "made-up", Named("Made up", server.url, len(server.content), *sums))
    path = fetch_corpus("made-up", tmp_path)
    assert path.read_bytes() == text
    assert list(tmp_path.iterdir()) == [path]
    assert fetch_corpus("made-up", tmp_path) == path
    assert len(server.asked) == 1
    server.content = text + b"....."
    path.unlink()
    monkeypatch.setitem(CORPORA, "made-up", Named("Made up", server.url, len(server.content), *2 * ["0" * 64]))
    with pytest.raises(TextError, match="the checksum differs"):
        fetch_corpus("made-up", tmp_path)


def test_a_full_disk_is_an_error_of_the_text(server, tmp_path, monkeypatch):
    def full(path, content):
        raise ConfigError("no space left on device")

    whole = TEXT.replace(b"\r", b"\r\n")
    sums = (hashlib.sha256(each).hexdigest() for each in (whole, TEXT))
    monkeypatch.setitem(CORPORA, "made-up", Named("Made up", server.url, len(TEXT), *sums))
    monkeypatch.setattr(catalog, "write_file", full)
    with pytest.raises(TextError, match=r"can't save made-up as .*no space left"):
        fetch_corpus("made-up", tmp_path)


def test_an_interrupted_download_continues(server, tmp_path):
    server.cut = 100_000
    for have in (100_000, 200_000):
        with pytest.raises(TextError, match=rf"{have:,} bytes are kept: run the command again to continue\.$"):
            fetch_corpus("made-up", tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == [".made-up.txt.partial"]
    assert fetch_corpus("made-up", tmp_path).read_bytes() == TEXT
    assert server.asked == [None, "bytes=100000-", "bytes=200000-"]


def test_a_server_without_ranges_sends_the_whole_text_again(server, tmp_path):
    (tmp_path / ".made-up.txt.partial").write_bytes(b"something else")
    server.ranges = False
    assert fetch_corpus("made-up", tmp_path).read_bytes() == TEXT
    assert server.asked == ["bytes=14-"]


@pytest.mark.parametrize("content", [TEXT[:-1] + b"x", TEXT + b"x" * 100_000])
def test_another_text_never_appears_under_the_name(server, tmp_path, content):
    server.content = content
    received = [0]
    with pytest.raises(TextError, match="has another text than made-up: the checksum differs"):
        fetch_corpus("made-up", tmp_path, progress=lambda done, total: received.append(done))
    assert list(tmp_path.iterdir()) == []
    assert max(received) <= len(TEXT) + catalog.BLOCK_BYTES  # an endless one is not read on


def test_a_wrong_beginning_is_replaced_by_the_next_download(server, tmp_path):
    partial = tmp_path / ".made-up.txt.partial"
    for wrong in (b"wrong", b"x" * len(TEXT), b"x" * (len(TEXT) + 5)):
        partial.write_bytes(wrong)
        if len(wrong) <= len(TEXT):
            with pytest.raises(TextError, match="the checksum differs"):
                fetch_corpus("made-up", tmp_path)
            assert not partial.exists()
        assert fetch_corpus("made-up", tmp_path).read_bytes() == TEXT
        (tmp_path / "made-up.txt").unlink()


def test_a_text_that_ends_too_early_is_an_error(server, tmp_path):
    server.content = TEXT[:1000]
    with pytest.raises(TextError, match=r"ended after 1,000 of 256,000 bytes\. 1,000 bytes are kept"):
        fetch_corpus("made-up", tmp_path)


def test_another_file_of_that_name_is_kept(server, tmp_path):
    (tmp_path / "made-up.txt").write_text("mine")
    with pytest.raises(TextError, match="exists and is another text"):
        fetch_corpus("made-up", tmp_path)
    assert (tmp_path / "made-up.txt").read_text() == "mine"


@pytest.mark.parametrize("status", [404, 500])
def test_a_servers_refusal_is_a_one_line_error(server, tmp_path, status):
    server.status = status
    with pytest.raises(TextError, match=rf"^can't fetch {server.url}: {status} .*Use `url` for another address\.$"):
        fetch_corpus("made-up", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://127.0.0.1:9/x", "connection refused"), ("ftp://127.0.0.1/x", "not an address that begins with"),
        ("", "not an address that begins with"), ("http://", "can't fetch"), ("http://a b/", "can't fetch"),
        ("http://127.0.0.1:port/", "can't fetch"), ("http://\udcff/", "can't fetch"),
        ("file:///etc/passwd", "not an address that begins with"),
    ],
)  # fmt: skip
def test_an_address_that_cannot_be_reached_is_a_one_line_error(tmp_path, monkeypatch, url, why):
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(TextError) as caught:
        fetch_corpus("anna", tmp_path, url=url)
    assert why in str(caught.value).lower()
    assert "\n" not in str(caught.value)


def test_a_server_that_stops_answering_is_given_up(server, tmp_path, monkeypatch):
    silence = threading.Event()
    monkeypatch.setattr(catalog, "TIMEOUT", 0.2)
    monkeypatch.setattr(Handler, "do_GET", lambda self: silence.wait(5))
    with pytest.raises(TextError, match=r"timed out\. Is there a network\?$"):
        fetch_corpus("made-up", tmp_path)
    silence.set()


def test_an_unknown_name_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(TextError, match="there is no corpus 'annie'; known are: anna, tinyshakespeare"):
        fetch_corpus("annie", tmp_path)


def test_the_command_prints_the_path(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli, ["corpus", "fetch", "made-up"])
    assert (result.exit_code, result.stdout) == (0, "data/made-up.txt\n")
    assert (tmp_path / "data" / "made-up.txt").read_bytes() == TEXT
    listed = CliRunner().invoke(cli, ["corpus", "list"]).stdout
    assert "anna " in listed
    assert CORPORA["tinyshakespeare"].url in listed
    rows = json.loads(CliRunner().invoke(cli, ["corpus", "list", "--json"]).stdout)
    assert [row["name"] for row in rows] == list(CORPORA)
    assert rows[0]["sha256"] == CORPORA["anna"].sha256
