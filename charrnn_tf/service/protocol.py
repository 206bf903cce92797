"""OpenAI's completions interface: a request's body into a `Completion`, and texts into responses, events and errors."""

import dataclasses
import json
import re
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import CharRNNError
from ..settings.schema import UNKNOWN, check_cuts
from .texts import Piece, Token

MOST_STOPS = 4
MOST_LOGPROBS = 5
LONGEST_PRIME = 10_000  # characters; reading more would hold a row for a minute
CUTS = ("top_n", "top_p", "temperature", "min_p")
NEUTRAL = {  # arguments of OpenAI's that do nothing here, with the values that ask for nothing
    "suffix": ("",), "logit_bias": ({},), "frequency_penalty": (0,), "presence_penalty": (0,),
}  # fmt: skip
IGNORED = ("user",)
TYPES = {
    400: "invalid_request_error", 401: "authentication_error", 404: "invalid_request_error", 429: "rate_limit_error",
    500: "server_error", 503: "server_error",
}  # fmt: skip


class RequestError(Exception):
    """A request that is refused; the status and what goes into the error's body."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None, retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code, self.retry_after = status, param, code, retry_after

    def body(self) -> dict[str, Any]:
        """The error in the interface's form."""
        kind = TYPES.get(self.status, TYPES[400])
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}

    def headers(self) -> dict[str, str]:
        """Headers that belong to the status."""
        found = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return found | ({"WWW-Authenticate": "Bearer"} if self.status == 401 else {})


@dataclass(frozen=True)
class Completion:
    """A request for texts; the defaults are those of `charrnn-tf sample`, but for the length."""

    model: str = ""
    prompt: tuple[str, ...] = ("",)
    max_tokens: int = 200  # characters
    temperature: float = 1.0
    top_n: int = 5
    top_p: float = 1.0
    min_p: float = 0.0
    n: int = 1
    stop: tuple[str, ...] = ()
    seed: int = field(default_factory=lambda: secrets.randbelow(2**31))
    stream: bool = False
    stream_options: dict[str, Any] = field(default_factory=dict)
    echo: bool = False
    logprobs: int | None = None  # likeliest characters to list at each place
    unknown: str = "error"

    @property
    def cuts(self) -> dict[str, Any]:
        """The arguments of `Cuts.of`."""
        return {name: getattr(self, name) for name in CUTS}


FIELDS = {each.name: each for each in dataclasses.fields(Completion)}
BOUNDS = {  # of whole numbers
    "max_tokens": (0, None), "top_n": (0, None), "n": (1, None), "seed": (-(2**63), 2**63 - 1),
    "logprobs": (0, MOST_LOGPROBS),
}  # fmt: skip


def parse(body: bytes, longest: int, most_texts: int) -> Completion:
    """Read a request's body. longest: characters of a text. most_texts: of a request. Raises RequestError."""
    try:
        data = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:  # what json raises for anything that is not JSON, or too deep
        raise RequestError(400, f"the body is not JSON: {str(error)[:200]}") from None
    if not isinstance(data, dict):
        raise RequestError(400, "the body must be a JSON object")
    given = {name: value for name, value in data.items() if value is not None}
    _refuse_others(given)
    fields = {name: _checked(name, given[name]) for name in given if name in FIELDS}
    request = Completion(**fields)
    try:
        check_cuts(**request.cuts)
    except CharRNNError as error:
        raise refusal(error) from None
    if request.max_tokens > longest:
        raise RequestError(400, f"`max_tokens` must be at most {longest}, got {request.max_tokens}", param="max_tokens")
    if len(request.prompt) * request.n > most_texts:
        raise RequestError(
            400, f"a request may ask for at most {most_texts} texts: fewer of `prompt`, or a lower `n`", param="n"
        )
    if given.get("best_of", request.n) != request.n:
        raise RequestError(400, "`best_of` other than `n` is not supported", param="best_of")
    return request


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number of JSON")


def _refuse_others(given: dict[str, Any]) -> None:
    for name, value in given.items():
        if name in NEUTRAL and value not in NEUTRAL[name]:
            raise RequestError(400, f"`{name}` is not supported", param=name)
        if name not in {*FIELDS, *NEUTRAL, *IGNORED, "best_of"}:
            raise RequestError(400, f"unknown argument {name[:100]!r}", param=name[:100])


def _checked(name: str, value: Any) -> Any:
    """A field's value as its type."""
    if name == "prompt":
        return tuple(_text(name, each) for each in _listed(name, value))
    if name == "stop":
        stops = tuple(_text(name, each) for each in _listed(name, value, least=0))
        if len(stops) > MOST_STOPS or "" in stops:
            raise RequestError(400, f"`stop` must be a text or up to {MOST_STOPS} texts, none of them empty", param=name)
        return stops
    if name == "stream_options":
        if not isinstance(value, dict):
            raise RequestError(400, "`stream_options` must be an object", param=name)
        return value
    if name in BOUNDS:
        return _whole_number(name, value, *BOUNDS[name])
    kind = FIELDS[name].type
    if kind is float:
        return _number(name, value)
    if kind is bool and not isinstance(value, bool):
        raise RequestError(400, f"`{name}` must be true or false", param=name)
    if kind is str:
        value = _text(name, value)
    if name == "unknown" and value not in UNKNOWN:
        raise RequestError(400, f"`unknown` must be one of {', '.join(UNKNOWN)}", param=name)
    return value


def _listed(name: str, value: Any, least: int = 1) -> list[Any]:
    values = value if isinstance(value, list) else [value]
    if len(values) < least or not all(isinstance(each, str) for each in values):
        raise RequestError(400, f"`{name}` must be a text or a list of texts", param=name)
    return values


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise RequestError(400, f"`{name}` must be a text", param=name)
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise RequestError(400, f"`{name}` has half of a surrogate pair, which is no character", param=name)
    if len(value) > LONGEST_PRIME:
        message = f"`{name}` has {len(value):,} characters; at most {LONGEST_PRIME:,} are read"
        raise RequestError(400, message, param=name, code="context_length_exceeded" if name == "prompt" else None)
    return value


def _whole_number(name: str, value: Any, least: int, most: int | None) -> int:
    if type(value) is not int or value < least or (most is not None and value > most):
        bound = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise RequestError(400, f"`{name}` must be a whole number {bound}", param=name)
    return value


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e300:
        raise RequestError(400, f"`{name}` must be a number", param=name)
    return float(value)


def refusal(error: CharRNNError, param: str | None = None) -> RequestError:
    """The package's own errors as a refusal; the argument is the first that the message names."""
    named = re.search(r"`(\w+)`", str(error))
    return RequestError(400, str(error), param=param or (named[1] if named else None))


class Reply:
    """The form of a request's responses: one object, or an event for each part of it."""

    def __init__(self, request: Completion, model: str, primes: Sequence[str]) -> None:
        self.id = f"cmpl-{secrets.token_hex(12)}"
        self._request = request
        self._head = {"id": self.id, "object": "text_completion", "created": int(time.time()), "model": model}
        self._primes = primes

    def choice(self, index: int, pieces: Sequence[Piece], first: bool = True) -> dict[str, Any]:
        """Pieces of one text, in order. first: they begin with its first one."""
        prime = self._primes[index // self._request.n] if first and self._request.echo else ""
        tokens = [token for piece in pieces for token in piece.tokens]
        return {
            "index": index,
            "text": prime + "".join(piece.written for piece in pieces),
            "logprobs": None if self._request.logprobs is None else _logprobs(tokens, self._request.logprobs),
            "finish_reason": pieces[-1].finish if pieces else "length",
        }

    def body(self, choices: Sequence[dict[str, Any]], usage: dict[str, int] | None = None) -> dict[str, Any]:
        """The object around choices."""
        return self._head | {"choices": choices, "seed": self._request.seed} | ({"usage": usage} if usage else {})


def event(data: Any) -> bytes:
    """A server-sent event."""
    return f"data: {data if isinstance(data, str) else json.dumps(data)}\n\n".encode()


DONE = event("[DONE]")


def usage(read: int, written: int) -> dict[str, int]:
    """Characters read and written, under the interface's names."""
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def _logprobs(tokens: Sequence[Token], most: int) -> dict[str, Any]:
    return {
        "tokens": [token.character for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [_likeliest(token, most) for token in tokens],
        "text_offset": [token.offset for token in tokens],
    }


def _likeliest(token: Token, most: int) -> dict[str, float] | None:
    """The likeliest characters, and the one that was drawn."""
    if token.logprob is None:
        return None
    return dict(list(token.likeliest.items())[:most]) | {token.character: token.logprob}
