"""Bodies of requests: what is accepted, and how everything else is refused."""

import json

import pytest

from charrnn_tf.service.protocol import Completion, RequestError, parse


def read(**arguments):
    return parse(json.dumps(arguments).encode(), longest=1000, most_texts=10)


def refused(body):
    with pytest.raises(RequestError) as caught:
        parse(body if isinstance(body, bytes) else json.dumps(body).encode(), longest=1000, most_texts=10)
    assert caught.value.status == 400
    assert "\n" not in str(caught.value)
    error = caught.value.body()["error"]
    assert list(error) == ["message", "type", "param", "code"]
    assert error["type"] == "invalid_request_error"
    return error


def test_defaults_are_those_of_sample():
    request = read()
    assert request == Completion(seed=request.seed)
    assert (request.prompt, request.max_tokens) == (("",), 200)
    assert request.cuts == {"temperature": 1.0, "top_n": 5, "top_p": 1.0, "min_p": 0.0}
    assert read().seed != request.seed


def test_null_means_the_default():
    names = ("model", "prompt", "max_tokens", "temperature", "top_p", "n", "stop", "stream", "logprobs", "suffix", "best_of")
    assert read(**dict.fromkeys(names), seed=1) == read(seed=1)


def test_texts_may_stand_alone_or_in_a_list():
    assert (read(prompt="a").prompt, read(prompt=["a", "b"]).prompt) == (("a",), ("a", "b"))
    assert (read(stop="a").stop, read(stop=["a", "b"]).stop, read(stop=[]).stop) == (("a",), ("a", "b"), ())


def test_arguments_that_ask_for_nothing_are_accepted():
    read(best_of=2, n=2, frequency_penalty=0, presence_penalty=0.0, logit_bias={}, suffix="", user="me", echo=False)


@pytest.mark.parametrize(
    ("arguments", "param"),
    [
        *(({"prompt": value}, "prompt") for value in (5, True, {}, [], [1, 2], [[1]], ["a", 5], "\ud800", "x" * 10_001)),
        *(({"max_tokens": value}, "max_tokens") for value in ("5", 5.0, -1, 1001, True, [], 10**400)),
        *(({"temperature": value}, "temperature") for value in ("1", -1, True, [], 10**400)),
        *(({"top_p": value}, "top_p") for value in (0, 1.1, "1")),
        *(({"min_p": value}, "min_p") for value in (-0.1, 1.1, "0")),
        *(({"top_n": value}, "top_n") for value in (-1, 1.5, "1")),
        *(({"n": value}, "n") for value in (0, 11, 1.0, "1")),
        *(({"seed": value}, "seed") for value in (2**63, -(2**63) - 1, 1.0, "1")),
        *(({"stop": value}, "stop") for value in (5, "", ["a", ""], ["a"] * 5, [5], {})),
        *(({"logprobs": value}, "logprobs") for value in (6, -1, True)),
        *(({name: value}, name) for name in ("stream", "echo") for value in (1, "true")),
        ({"model": 5}, "model"),
        ({"unknown": "keep"}, "unknown"),
        ({"stream_options": True}, "stream_options"),
        ({"best_of": 3}, "best_of"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"suffix": "end"}, "suffix"),
        ({"tempreature": 1}, "tempreature"),
        ({"messages": []}, "messages"),
        ({"prompt": ["a"] * 6, "n": 2}, "n"),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_refused_by_name(arguments, param):
    error = refused(arguments)
    assert error["param"] == param
    assert param in error["message"]


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"null", b"5", b"[]", b'"a"', b"\xff\xfe\x00", bytes(range(256)), b'{"a" 1}', b'{"temperature": NaN}',
        b'{"temperature": -Infinity}', b"[" * 100_000, b'{"a":' * 100_000, b'{"seed": ' + b"9" * 10_000 + b"}",
        b'{"prompt": "\xc3"}', b'{"prompt": "a\nb"}', b"{}{}",
    ],
    ids=range(17),
)  # fmt: skip
def test_a_body_that_is_no_json_object_is_refused(body):
    assert "JSON" in refused(body)["message"]


def test_a_long_name_is_not_repeated_whole():
    assert len(refused({"x" * 100_000: 1})["message"]) < 200
