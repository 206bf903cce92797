"""`charrnn-tf serve` as a process: its address, its keys, and its end."""

import json
import re
import signal
import socket
import subprocess
import threading
from contextlib import contextmanager

import httpx
import processes
import pytest
from commandline import refuse
from conftest import TEXT, write_checkpoint

from charrnn_tf import Vocabulary
from charrnn_tf.errors import ConfigError
from charrnn_tf.service.address import bind, is_loopback, read_keys, url


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    write_checkpoint(folder, characters=Vocabulary.from_text(TEXT), hidden_size=16, init="wide")
    return folder


@pytest.fixture(autouse=True)
def empty(tmp_path, monkeypatch):
    """Run in a folder of its own."""
    monkeypatch.chdir(tmp_path)


@contextmanager
def serving(folder, *options):
    """A server's process and its URL."""
    arguments = ["-m", "charrnn_tf", "serve", "--checkpoint-dir", folder, "--rows", 4, *options]
    process = processes.Python(arguments, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stderr.readline()
        found = re.fullmatch(r"Serving i1_l16 on (http://\S+:\d+)\n", line)
        assert found, line + process.stderr.read()
        yield process, found[1]
    finally:
        process.kill()
        process.communicate()


def port(address):
    return int(address.rsplit(":", 1)[1])


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_the_server_after_the_requests_it_has(folder, number, status):
    with serving(folder, "--port", 0, "--max-length", 3000) as (process, address):
        got, begun = [], threading.Event()

        def read():
            body = {"max_tokens": 3000, "stream": True, "seed": 1}
            with httpx.stream("POST", f"{address}/v1/completions", json=body, timeout=60) as response:
                for line in response.iter_lines():
                    got.append(line)
                    begun.set()

        reader = threading.Thread(target=read)
        reader.start()
        assert begun.wait(20)
        process.send_signal(number)
        reader.join(60)
        assert process.wait(20) == status
        rest = process.stderr.read()
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{address}/healthz")
    events = [line.removeprefix("data: ") for line in got if line]
    assert events[-1] == "[DONE]"
    assert sum(len(json.loads(event)["choices"][0]["text"]) for event in events[:-1]) == 3000
    assert "3000 written" in rest
    assert "Traceback" not in rest


@pytest.mark.slow
def test_a_killed_server_starts_again_on_its_port(folder, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("secret\n", encoding="utf-8")
    address = "http://127.0.0.1:0"
    for _ in range(2):
        with serving(folder, "--port", port(address), "--api-key-file", keys) as (process, address):
            body = {"max_tokens": 4000, "stream": True}
            headers = {"Authorization": "Bearer secret"}
            with httpx.stream("POST", f"{address}/v1/completions", json=body, headers=headers) as response:
                assert response.status_code == 200
                next(response.iter_lines())
                process.kill()
                process.wait(20)


# Arguments


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False),
     ("192.168.0.1", False), ("example.org", False), ("", False), ("localhost.example.org", False)],
)  # fmt: skip
def test_only_addresses_of_this_machine_need_no_key(host, loopback):
    assert is_loopback(host) == loopback


@pytest.mark.parametrize("content", [b"", b" \n\n", b"caf\xc3\xa9", b"a\x00b"])
def test_a_file_without_a_usable_key_is_refused(write, content):
    with pytest.raises(ConfigError, match="must hold a key of printable ASCII characters"):
        read_keys(write(content, "keys"))


def test_keys_are_the_words_of_a_file(write):
    assert read_keys(write(b"one\r\ntwo\n\nthree", "keys")) == (b"one", b"two", b"three")


def test_an_address_in_use_is_one_line(folder):
    with bind("127.0.0.1", 0) as taken:
        taken.listen()
        assert url(taken) == f"http://127.0.0.1:{taken.getsockname()[1]}"
        line = refuse("serve", "--checkpoint-dir", folder, "--port", taken.getsockname()[1])
    assert line.startswith("Error: can't listen on --host '127.0.0.1', --port ")
    assert "address already in use" in line


def test_an_address_of_ipv6_has_brackets():
    if not socket.has_ipv6:
        pytest.skip("no IPv6")
    try:
        with bind("::1", 0) as sock:
            assert url(sock) == f"http://[::1]:{sock.getsockname()[1]}"
    except ConfigError:
        pytest.skip("no IPv6")


def test_another_host_needs_keys(folder):
    line = refuse("serve", "--checkpoint-dir", folder, "--host", "0.0.0.0")
    assert line == "Error: others can reach --host '0.0.0.0': --api-key-file must name a file with keys\n"


def test_without_the_extra_one_line_says_what_to_install(folder, monkeypatch):
    monkeypatch.setattr("charrnn_tf.cli.service.find_spec", lambda name: None)
    assert "pip install 'charrnn-tf[serve]'" in refuse("serve", "--checkpoint-dir", folder, "--port", 0)
