"""Listens, with uvicorn: connections with time limits, and a shutdown that finishes what was begun."""

import asyncio
import json
import logging
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from .app import BODY_SECONDS, Service
from .protocol import RequestError

IDLE_SECONDS = 15.0  # until the head of a connection's next request must have arrived
STALLED_SECONDS = 30.0  # that a client may leave full buffers unread
MORE_CONNECTIONS = 128  # beyond the number of texts, for refused requests and those without texts


def log_to_stderr() -> None:
    """One line for each request, and for uvicorn's warnings."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    for name, level in (("charrnn_tf.service", logging.INFO), ("uvicorn.error", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.setLevel(level)
        logger.propagate = False


class Server(uvicorn.Server):
    """Serves until SIGTERM or SIGINT, then finishes the requests it has. ready: called when it listens."""

    def __init__(self, service: Service, ready: Callable[[], object] = lambda: None) -> None:
        self._service, self._ready = service, ready
        most = service.engine.rows + service.limits.queue + MORE_CONNECTIONS
        super().__init__(
            uvicorn.Config(
                service.app, http=type("Connection", (_Connection,), {"most": most}), ws="none", loop="asyncio",
                lifespan="off", log_config=None, access_log=False, server_header=False,
                timeout_graceful_shutdown=int(service.limits.timeout + BODY_SECONDS + STALLED_SECONDS),
            )
        )  # fmt: skip

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until a signal: return after SIGTERM, raise KeyboardInterrupt after SIGINT."""
        signal.signal(signal.SIGTERM, self.handle_exit)  # uvicorn raises the signals that it got again at the end
        self._service.engine.start()
        try:
            super().run(sockets)
        finally:
            self._service.engine.close()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        await super().startup(sockets)
        self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Refuse new requests, and wait for the others."""
        self._service.draining = True
        await super().shutdown(sockets)


class _Connection(H11Protocol):
    """uvicorn's connection, with limits on number and time, and refusals in the interface's form."""

    most = 0  # connections at once
    _idle: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._expect_request(None)
        if len(self.connections) > self.most:
            busy = RequestError(503, "too many connections; try again later", code="connections", retry_after=1)
            transport.write(_raw(busy, "Service Unavailable"))
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._idle, self._stalled):
            if timer:
                timer.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        answered = self.cycle
        super().on_response_complete()
        self._expect_request(answered)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = self.loop.call_later(STALLED_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stalled:
            self._stalled.cancel()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP, unless a response is on its way already."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.write(_raw(RequestError(400, "this is not a valid HTTP request", code="http"), "Bad Request"))
        self.transport.close()

    def _expect_request(self, answered: Any) -> None:
        """Close the connection unless the head of the next request arrives within IDLE_SECONDS."""

        def cut() -> None:
            if self.cycle is answered:
                self.transport.abort()

        if self._idle:
            self._idle.cancel()
        self._idle = self.loop.call_later(IDLE_SECONDS, cut)


def _raw(error: RequestError, phrase: str) -> bytes:
    body = json.dumps(error.body()).encode()
    fields: Sequence[tuple[str, Any]] = [
        ("Content-Type", "application/json"), ("Content-Length", len(body)), ("Connection", "close"),
        *error.headers().items(),
    ]  # fmt: skip
    head = "".join(f"{name}: {value}\r\n" for name, value in fields)
    return f"HTTP/1.1 {error.status} {phrase}\r\n{head}\r\n".encode() + body
