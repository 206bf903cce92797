"""The routes of the service: from HTTP requests to the engine's texts, and back."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive

from ..errors import TextError
from ..inference.sampling import Sampler
from .access import Access, answer
from .engine import Engine
from .prometheus import CONTENT_TYPE, Metrics
from .protocol import DONE, Completion, Reply, RequestError, event, parse, refusal, usage
from .request import Events, Inboxes, Record, Work, closing, unless_left
from .texts import Piece, Text

LARGEST_BODY = 1 << 20  # bytes
BODY_SECONDS = 15.0  # until a request's body must have arrived


@dataclass(frozen=True)
class Limits:
    """Upper bounds for requests; a request beyond them is refused."""

    max_length: int = 4096  # characters of a text
    queue: int = 256  # texts that wait
    timeout: float = 60.0  # seconds of a request


class Service:
    """A model behind HTTP. `app` is the ASGI application; start the engine before it, and close it after.

    name: of the model. keys: those that requests may show; none: any request is answered.
    """

    def __init__(self, sampler: Sampler, name: str, limits: Limits, keys: Sequence[bytes] = ()) -> None:
        self.name, self.limits = name, limits
        self.draining = False  # refuse new requests for texts
        self._inboxes = Inboxes()
        self.engine = Engine(sampler, limits.queue, self._inboxes.deliver)
        self.metrics = Metrics()
        self._created = int(time.time())
        routes = [
            Route("/v1/completions", self.complete, methods=["POST"]),
            Route("/v1/models", self.models),
            Route("/v1/models/{name}", self.model),
            Route("/healthz", self.health),
            Route("/metrics", self.show_metrics),
        ]
        handlers: dict[Any, Any] = {RequestError: _refuse, HTTPException: _refuse_route, Exception: _fail}
        app = Starlette(routes=routes, exception_handlers=handlers)
        app.router.redirect_slashes = False
        self.app: ASGIApp = Access(app, keys, self.metrics)

    async def complete(self, request: Request) -> Response:
        """POST /v1/completions."""
        record: Record = request.scope["record"]
        if self.draining:
            raise closing()
        most_texts = self.engine.rows + self.limits.queue
        wanted = parse(await _body(request), self.limits.max_length, most_texts)
        self._check_model(wanted.model)
        try:
            primes = [self.engine.read(prime, wanted.unknown) for prime in wanted.prompt]
        except TextError as error:
            raise refusal(error, "prompt") from None
        texts = [
            Text(
                self.engine.sampler.vocabulary, prime, ids, wanted.max_tokens, wanted.seed, number=number, cuts=wanted.cuts,
                stops=wanted.stop, echo=wanted.echo, scored=wanted.logprobs is not None,
            )
            for prime, ids in primes for number in range(wanted.n)
        ]  # fmt: skip
        reply = Reply(wanted, self.name, [prime for prime, _ in primes])
        work = Work(self.engine, self._inboxes, texts, record, self.limits.timeout)
        work.submit()
        record.id, record.read = reply.id, sum(len(prime) for prime, _ in primes)
        self.metrics.read += record.read
        headers = {"x-request-id": reply.id}
        if wanted.stream:
            usual = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # proxies hand events on at once
            return Events(self._events(work, wanted, reply), work, headers=headers | usual)
        try:
            return JSONResponse(await self._whole(work, reply, request.receive), headers=headers)
        finally:
            work.end()

    async def models(self, request: Request) -> Response:
        """GET /v1/models."""
        return JSONResponse({"object": "list", "data": [self._about()]})

    async def model(self, request: Request) -> Response:
        """GET /v1/models/NAME."""
        self._check_model(request.path_params["name"])
        return JSONResponse(self._about())

    async def health(self, request: Request) -> Response:
        """GET /healthz: 200 while the engine runs and takes requests, else 503."""
        well = self.engine.alive and not self.draining
        return JSONResponse({"status": "ok" if well else "down", "model": self.name}, 200 if well else 503)

    async def show_metrics(self, request: Request) -> Response:
        """GET /metrics."""
        gauges = {
            "rows": ("Texts that can be written at once.", self.engine.rows),
            "rows_active": ("Texts being written.", self.engine.active),
            "queue_waiting": ("Texts that wait for a row.", self.engine.waiting),
        }
        self.metrics.written = self.engine.written
        return Response(self.metrics.text(gauges), media_type=CONTENT_TYPE)

    def _about(self) -> dict[str, Any]:
        return {"id": self.name, "object": "model", "created": self._created, "owned_by": "charrnn_tf"}

    def _check_model(self, name: str) -> None:
        if name not in ("", self.name):
            message = f"no model {name[:100]!r} here; the model is {self.name!r}"
            raise RequestError(404, message, param="model", code="model_not_found")

    async def _whole(self, work: Work, reply: Reply, receive: Receive) -> dict[str, Any]:
        """The response to a request without `stream`. Raises ClientDisconnect when the client leaves."""
        collected: list[list[Piece]] = [[] for _ in work.texts]

        async def collect() -> None:
            async for index, piece in work.pieces():
                collected[index].append(piece)

        await unless_left(receive, collect())
        choices = [reply.choice(index, pieces) for index, pieces in enumerate(collected)]
        return reply.body(choices, usage(work.record.read, work.written))

    async def _events(self, work: Work, wanted: Completion, reply: Reply) -> AsyncIterator[bytes]:
        """The events of a request with `stream`: pieces of all texts as they come."""
        begun: set[int] = set()
        try:
            async for index, piece in work.pieces():
                first = index not in begun
                begun.add(index)
                choice = reply.choice(index, [piece], first)
                if choice["text"] or piece.tokens or piece.finish:
                    yield event(reply.body([choice]))
        except RequestError as error:
            work.record.status, work.record.refused = error.status, str(error)
            yield event(error.body())
            return
        if wanted.stream_options.get("include_usage"):
            yield event(reply.body([], usage(work.record.read, work.written)))
        yield DONE


async def _body(request: Request) -> bytes:
    """The whole body. Raises RequestError where it is too large or too slow, ClientDisconnect where it is cut."""
    too_large = RequestError(413, f"the body is larger than {LARGEST_BODY:,} bytes", code="body_too_large")
    length = request.headers.get("content-length", "0")
    if int(length) > LARGEST_BODY:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > LARGEST_BODY:
                    raise too_large
    except TimeoutError:
        raise RequestError(408, f"the body did not arrive within {BODY_SECONDS:g} seconds", code="timeout") from None
    return bytes(body)


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return answer(error, request.scope["record"])


async def _refuse_route(request: Request, error: Exception) -> Response:
    """Starlette's own refusals: no such path, or another method."""
    assert isinstance(error, HTTPException)
    about = f"no {request.method[:20]} {ascii(request.url.path[:100])[1:-1]} here; texts are at POST /v1/completions"
    refused = answer(RequestError(error.status_code, about, code="unknown_url"), request.scope["record"])
    refused.headers.update(error.headers or {})
    return refused


async def _fail(request: Request, error: Exception) -> Response:
    """A bug; the server logs its traceback."""
    failed = RequestError(500, "the server failed; its log says why", code="internal_error")
    return answer(failed, request.scope["record"])
