"""The service as its clients see it: OpenAI's own package, curl, and clients that send nonsense or leave."""

import asyncio
import json
import logging
import re
import shutil
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import openai
import pytest
from conftest import TEXT, write_checkpoint

from charrnn_tf import Sampler, Vocabulary
from charrnn_tf.service import app as app_module
from charrnn_tf.service import server as server_module
from charrnn_tf.service.address import bind, url
from charrnn_tf.service.app import LARGEST_BODY, Limits, Service
from charrnn_tf.service.server import Server

LIMITS = Limits(max_length=20_000, queue=4, timeout=20)
ROWS = 2


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(
        tmp_path_factory.mktemp("run"), characters=Vocabulary.from_text(TEXT), hidden_size=16, num_layers=2, init="wide"
    )


@pytest.fixture(scope="module")
def sampler(checkpoint):
    return Sampler.from_checkpoint(checkpoint)


class Running:
    """A service on a thread of the tests."""

    def __init__(self, checkpoint, keys=()):
        self.service = Service(Sampler.from_checkpoint(checkpoint, ROWS), "i1_l16", LIMITS, keys)
        self.socket = bind("127.0.0.1", 0)
        self.url, self.port = url(self.socket), self.socket.getsockname()[1]
        ready = threading.Event()
        self.server = Server(self.service, ready.set)
        self.service.engine.start()
        self.thread = threading.Thread(target=lambda: asyncio.run(self.server.serve([self.socket])))
        self.thread.start()
        assert ready.wait(20)

    def close(self):
        self.server.should_exit = True
        self.thread.join(20)
        self.service.engine.close()
        assert not self.thread.is_alive()

    def idle(self):
        """Wait until no text is written, waits or is remembered, and each request is counted and logged."""
        engine, end = self.service.engine, time.monotonic() + 10

        def busy():
            return engine.active or engine.waiting or self.service._inboxes._of or self.server.server_state.tasks

        while busy() and time.monotonic() < end:
            time.sleep(0.005)
        return not busy()

    def connect(self, data=b""):
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        connection.sendall(data)
        return connection


@pytest.fixture(scope="module")
def running(checkpoint):
    with pytest.MonkeyPatch.context() as patch:  # seconds
        patch.setattr(app_module, "BODY_SECONDS", 0.5)
        patch.setattr(server_module, "IDLE_SECONDS", 1.0)
        patch.setattr(server_module, "STALLED_SECONDS", 0.5)
        running = Running(checkpoint)
        yield running
        running.close()


@pytest.fixture(autouse=True)
def without_a_traceback(request, caplog):
    """No request fails in the server, and none leaves a text behind."""
    caplog.set_level(logging.INFO)
    yield
    if "running" in request.fixturenames:
        assert request.getfixturevalue("running").idle()
    assert not [record for record in caplog.get_records("call") if record.exc_info or "Traceback" in record.getMessage()]


@pytest.fixture(scope="module")
def client(running):
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def post(running, **arguments):
    return httpx.post(f"{running.url}/v1/completions", json=arguments, timeout=20)


def request(body, *headers, length=None):
    """The bytes of a request."""
    fields = ["Host: x", "Connection: close", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join(["POST /v1/completions HTTP/1.1", *fields, "", ""]).encode() + body


def answer(connection):
    """The status and body of what a connection still sends."""
    data = b""
    try:
        while part := connection.recv(65536):
            data += part
    except ConnectionResetError:
        pass
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split()[1]) if head else None, body


# What clients get


def test_the_openai_client_gets_the_text_of_sample(client, sampler):
    done = client.completions.create(model="i1_l16", prompt="The ", max_tokens=50, seed=5, temperature=0.8)
    (choice,) = done.choices
    assert "The " + choice.text == sampler.sample("The ", 50, seed=5, temperature=0.8)
    assert (choice.finish_reason, choice.index, choice.logprobs) == ("length", 0, None)
    assert (done.usage.prompt_tokens, done.usage.completion_tokens, done.usage.total_tokens) == (4, 50, 54)
    assert (done.object, done.model, done.seed) == ("text_completion", "i1_l16", 5)
    assert done.id.startswith("cmpl-")


def test_the_openai_client_streams(client, sampler):
    arguments = {"model": "i1_l16", "prompt": "The ", "max_tokens": 50, "seed": 5, "echo": True}
    with client.completions.create(**arguments, stream=True, stream_options={"include_usage": True}) as stream:
        *events, last = stream
    assert "".join(event.choices[0].text for event in events) == sampler.sample("The ", 50, seed=5)
    assert len(events) == 4
    assert [event.choices[0].finish_reason for event in events] == [None, None, None, "length"]
    assert (last.choices, last.usage.completion_tokens) == ([], 50)


def test_several_texts_have_their_own_places(client, sampler, checkpoint):
    arguments = {"model": "i1_l16", "prompt": ["The ", "A"], "n": 2, "max_tokens": 30, "seed": 3, "extra_body": {"top_n": 0}}
    choices = client.completions.create(**arguments).choices
    both = Sampler.from_checkpoint(checkpoint, 2)
    expected = [
        "".join(pieces) for prime in ("The ", "A") for pieces in zip(*both.chunks(prime, 30, seed=3, top_n=0), strict=True)
    ]
    assert [choice.text for choice in choices] == expected
    assert [choice.index for choice in choices] == [0, 1, 2, 3]
    streamed = [""] * 4
    for event in client.completions.create(**arguments, stream=True):
        streamed[event.choices[0].index] += event.choices[0].text
    assert streamed == expected


def test_a_text_ends_before_a_stop_text(client, sampler):
    text = sampler.sample("", 200, seed=5)
    stop = text[40:43]
    arguments = {"model": "i1_l16", "prompt": "", "max_tokens": 200, "seed": 5, "stop": ["never", stop]}
    done = client.completions.create(**arguments)
    assert done.choices[0].text == text[: text.index(stop)]
    assert done.choices[0].finish_reason == "stop"
    assert done.usage.completion_tokens == text.index(stop)
    assert (
        "".join(event.choices[0].text for event in client.completions.create(**arguments, stream=True))
        == text[: text.index(stop)]
    )


@pytest.mark.parametrize("stream", [False, True])
def test_log_probabilities_come_with_every_character(client, stream):
    arguments = {"model": "i1_l16", "prompt": "The ", "max_tokens": 20, "seed": 5, "logprobs": 2, "echo": True}
    done = client.completions.create(**arguments, stream=stream)
    choices = [event.choices[0] for event in done] if stream else done.choices
    text = "".join(choice.text for choice in choices)
    every = {name: [each for choice in choices for each in getattr(choice.logprobs, name)] for name in (
        "tokens", "token_logprobs", "top_logprobs", "text_offset"
    )}  # fmt: skip
    assert every["tokens"] == list(text)
    assert every["text_offset"] == list(range(24))
    assert every["token_logprobs"][0] is every["top_logprobs"][0] is None
    for character, logprob, likeliest in list(zip(*list(every.values())[:3], strict=True))[1:]:
        assert likeliest[character] == logprob <= 0
        assert len(likeliest) in (2, 3)


def test_curl_gets_the_text_of_sample(running, sampler):
    if not shutil.which("curl"):
        pytest.skip("no curl")
    command = ["curl", "-sS", "--max-time", "20", f"{running.url}/v1/completions", "-d"]
    body = {"prompt": "The ", "max_tokens": 40, "seed": 7}
    done = subprocess.run([*command, json.dumps(body)], capture_output=True, text=True, check=True)
    assert "The " + json.loads(done.stdout)["choices"][0]["text"] == sampler.sample("The ", 40, seed=7)
    done = subprocess.run([*command, json.dumps(body | {"stream": True}), "-N"], capture_output=True, text=True, check=True)
    *events, end, rest = done.stdout.split("\n\n")
    assert (end, rest) == ("data: [DONE]", "")
    pieces = [json.loads(event.removeprefix("data: "))["choices"][0]["text"] for event in events]
    assert "The " + "".join(pieces) == sampler.sample("The ", 40, seed=7)


def test_the_example_of_the_documentation_works(running, capsys):
    page = Path(__file__).parents[2] / "docs" / "service.md"
    (block,) = re.findall(r"^```py\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert "http://127.0.0.1:8000" in block
    exec(compile(block.replace("http://127.0.0.1:8000", running.url), str(page), "exec"), names := {})
    names["client"].close()
    assert len(capsys.readouterr().out) == 401


def test_many_clients_at_once_get_their_own_texts(running, sampler):
    with ThreadPoolExecutor(6) as pool:
        done = list(pool.map(lambda n: post(running, prompt="The ", max_tokens=30 + n, seed=n), range(24)))
    texts = ["The " + each.json()["choices"][0]["text"] for each in done]
    assert texts == [sampler.sample("The ", 30 + n, seed=n) for n in range(24)]


def test_models_and_health_and_metrics(running, client):
    assert [model.id for model in client.models.list()] == ["i1_l16"]
    assert client.models.retrieve("i1_l16").owned_by == "charrnn_tf"
    assert httpx.get(f"{running.url}/healthz").json() == {"status": "ok", "model": "i1_l16"}
    post(running, prompt="The ", max_tokens=20)
    shown = httpx.get(f"{running.url}/metrics")
    assert shown.headers["content-type"].startswith("text/plain; version=0.0.4")
    values = dict(line.rsplit(" ", 1) for line in shown.text.splitlines() if not line.startswith("#"))
    assert all(re.fullmatch(r'charrnn_\w+(\{\w+="[\w.+]+"\})?', name) for name in values)
    assert float(values["charrnn_rows"]) == ROWS
    assert float(values["charrnn_generated_characters_total"]) >= 20
    assert float(values['charrnn_requests_total{status="200"}']) >= 1
    assert values['charrnn_request_seconds_bucket{le="+Inf"}'] == values["charrnn_request_seconds_count"]


def test_a_request_is_one_line_of_the_log(running, caplog):
    post(running, prompt="The ", max_tokens=20)
    httpx.get(f"{running.url}/a%0Ab")
    assert running.idle()
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("charrnn_tf.service")]
    assert len(lines) == 2
    assert re.fullmatch(
        r"127\.0\.0\.1 POST /v1/completions 200 \d+\.\d{3} s, 4 characters read, 20 written, cmpl-\w+", lines[0]
    )
    assert "GET /a\\nb 404" in lines[1]
    assert lines[1].endswith("0 written, no GET /ab here; texts are at POST /v1/completions")
    caplog.clear()
    httpx.post(f"{running.url}/v1/completions", json={"prompt": "☃", "a\nb": 1})
    deadline = time.monotonic() + 10  # the answer may arrive before its line is written
    while not (found := [each for each in caplog.records if each.name.startswith("charrnn_tf.service")]):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    line = found[0].getMessage()
    assert re.search(r" 400 .*, 0 written, unknown argument 'a\\\\nb'$", line)


# What is refused


@pytest.mark.parametrize(
    ("arguments", "error", "param"),
    [
        ({"model": "gpt-4"}, openai.NotFoundError, "model"),
        ({"temperature": -1}, openai.BadRequestError, "temperature"),
        ({"max_tokens": 20_001}, openai.BadRequestError, "max_tokens"),
        ({"prompt": "The ☃"}, openai.BadRequestError, "prompt"),
        ({"prompt": [1, 2]}, openai.BadRequestError, "prompt"),
        ({"n": 7}, openai.BadRequestError, "n"),
    ],
)
def test_the_openai_client_raises_its_own_errors(client, arguments, error, param):
    with pytest.raises(error) as caught:
        client.completions.create(**{"model": "i1_l16", "prompt": "The "} | arguments)
    assert caught.value.param == param
    assert caught.value.type == "invalid_request_error"


def test_echo_returns_each_text_after_its_own_prompt(running, sampler):
    done = post(running, prompt=["The ", "A "], n=3, max_tokens=10, seed=1, echo=True).json()
    texts = sampler.sample_many(["The ", "A "], 3, 10, seed=1)
    assert [each["text"] for each in done["choices"]] == [each.prime + each.text for each in texts]


def test_unknown_characters_can_be_skipped(running, sampler):
    done = post(running, prompt="The ☃", unknown="skip", max_tokens=20, seed=1, echo=True).json()
    assert done["choices"][0]["text"] == sampler.sample("The ", 20, seed=1)


@pytest.mark.parametrize(("path", "method", "status"), [
    ("/", "GET", 404), ("/v1/chat/completions", "POST", 404), ("/v1/models/other", "GET", 404),
    ("/v1/completions", "GET", 405), ("/v1/completions/", "POST", 404), ("/healthz", "DELETE", 405),
])  # fmt: skip
def test_another_path_or_method_is_refused(running, path, method, status):
    refused = httpx.request(method, running.url + path, json={})
    assert refused.status_code == status
    assert set(refused.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (request(b"x" * 100), 400),
        (request(b"[" * 100_000), 400),
        (request(bytes(range(256))), 400),
        (request(b"", length=LARGEST_BODY + 1), 413),
        (request(b'{"prompt"', length=500), 408),  # the rest never comes
        (request(b"5\r\n{\"a\":\r\nzz\r\n", "Transfer-Encoding: chunked").replace(b"Content-Length: 14\r\n", b""), 400),
        (bytes(range(256)) * 20, 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), 400),  # TLS
        (b"GET / HTTP/1.1\r\n\r\n", 400),  # no host
        (b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n", 400),
    ],
    ids=range(10),
)  # fmt: skip
def test_nonsense_is_refused_in_the_interfaces_form(running, data, status):
    with running.connect(data) as connection:
        got, body = answer(connection)
    assert got == status
    assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}


def test_an_endless_head_is_cut(running):
    def send():
        for _ in range(100):
            connection.sendall(b"GET /" + b"a" * 100_000)
            time.sleep(0.01)

    with running.connect() as connection, pytest.raises(ConnectionError):
        send()


def test_a_body_without_a_length_that_is_too_large_is_refused(running):
    def parts():
        for _ in range(40):
            yield b" " * 50_000

    refused = httpx.post(f"{running.url}/v1/completions", content=parts(), timeout=20)
    assert refused.status_code == 413


def test_garbage_after_an_early_refusal_is_no_error_of_the_server(running):
    head = b"POST /nowhere HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    with running.connect(head) as connection:
        assert b"404" in connection.recv(1000)
        connection.sendall(b"zz\r\n\xff\xff")
        with suppress(ConnectionError):
            while connection.recv(1000):
                pass


@pytest.mark.parametrize("data", [b"", b"POST /v1/comp", b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /"])
def test_a_connection_that_sends_no_whole_request_is_cut(running, data):
    with running.connect(data) as connection:
        begin = time.monotonic()
        answer(connection)
        assert time.monotonic() - begin < 4


def test_too_many_texts_are_told_when_to_come_again(running):
    streams = []
    try:
        for n in range(3):
            body = json.dumps({"max_tokens": 20_000, "n": 2, "stream": True, "seed": n}).encode()
            streams.append(running.connect(request(body)))
            assert b"200" in streams[-1].recv(20)
        refused = post(running, max_tokens=5)
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json()["error"]["type"] == "rate_limit_error"
    finally:
        for stream in streams:
            stream.close()
    assert running.idle()
    assert post(running, max_tokens=5).status_code == 200


def test_a_request_ends_after_the_time_limit(running, monkeypatch):
    monkeypatch.setattr(running.service, "limits", Limits(20_000, 4, timeout=0.2))
    late = post(running, max_tokens=20_000)
    assert late.status_code == 503
    assert late.json()["error"]["code"] == "timeout"
    streamed = post(running, max_tokens=20_000, stream=True).text.split("\n\n")
    assert json.loads(streamed[-2].removeprefix("data: "))["error"]["code"] == "timeout"
    assert len(streamed) > 2


# Clients that leave


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_its_rows(running, stream, caplog):
    body = json.dumps({"max_tokens": 20_000, "n": 4, "stream": stream}).encode()
    connection = running.connect(request(body))
    while running.service.engine.active < ROWS:
        time.sleep(0.005)
    begin, before = time.monotonic(), running.service.engine.written
    connection.close()
    assert running.idle()
    assert time.monotonic() - begin < 2
    assert running.service.engine.written - before < 10_000
    assert any(" 499 " in record.getMessage() for record in caplog.records)


@pytest.mark.slow
def test_a_client_that_reads_nothing_is_cut(running):
    before = running.service.engine.written
    body = json.dumps({"max_tokens": 20_000, "n": 6, "stream": True, "logprobs": 5}).encode()
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", running.port))
    connection.sendall(request(body))
    end = time.monotonic() + 20
    while running.service.engine.written == before or not running.idle():
        assert time.monotonic() < end
    assert running.service.engine.written - before < 120_000
    connection.close()


# Keys and the end


def test_a_request_without_the_key_is_refused(checkpoint):
    guarded = Running(checkpoint, keys=(b"one", b"two"))
    try:
        for key in ("three", "on", "one two", "é"):
            headers = [(b"authorization", f"Bearer {key}".encode())]
            refused = httpx.post(f"{guarded.url}/v1/completions", json={}, headers=headers)
            assert refused.status_code == 401
            assert refused.json()["error"]["code"] == "invalid_api_key"
        assert httpx.get(f"{guarded.url}/metrics").status_code == 401
        assert httpx.get(f"{guarded.url}/healthz").status_code == 200
        for key in ("one", "two"):
            with openai.OpenAI(base_url=f"{guarded.url}/v1", api_key=key) as client:
                assert client.completions.create(model="i1_l16", prompt="", max_tokens=3).choices[0].text
        guarded.service.draining = True
        refused = httpx.post(f"{guarded.url}/v1/completions", json={}, headers={"authorization": "Bearer one"})
        assert refused.status_code == 503
        assert httpx.get(f"{guarded.url}/healthz").status_code == 503
    finally:
        guarded.close()


def test_more_connections_than_allowed_are_refused(checkpoint, monkeypatch):
    monkeypatch.setattr(server_module, "MORE_CONNECTIONS", -ROWS - LIMITS.queue + 1)
    small = Running(checkpoint)
    try:
        with small.connect(), small.connect() as second:
            status, body = answer(second)
            assert status == 503
            assert json.loads(body)["error"]["code"] == "connections"
    finally:
        small.close()
