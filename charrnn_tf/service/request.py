"""The texts of one request: their pieces as they come, the time limit, and the end when the client leaves."""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from .engine import ClosingError, Engine, FullError
from .protocol import RequestError
from .texts import Piece, Text

LEFT = 499  # status in log and metrics where the client left first, as nginx has it


@dataclass
class Record:
    """Facts about a request, for the log and the metrics."""

    begin: float  # seconds of `time.monotonic`
    status: int = 0
    id: str = "-"
    read: int = 0  # characters
    written: int = 0
    first: float = 0.0  # seconds until the first characters
    refused: str = ""  # the reason


class Inboxes:
    """Where the pieces of texts go, by text. `deliver` is for the engine's thread, all else for the event loop's."""

    def __init__(self) -> None:
        self._of: dict[Text, asyncio.Queue[Piece | None]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def open(self, texts: Sequence[Text]) -> "asyncio.Queue[Piece | None]":
        """One inbox for the pieces of these texts."""
        self._loop = asyncio.get_running_loop()
        inbox: asyncio.Queue[Piece | None] = asyncio.Queue()
        self._of.update(dict.fromkeys(texts, inbox))
        return inbox

    def close(self, texts: Sequence[Text]) -> None:
        """Drop what still comes for these texts."""
        for text in texts:
            self._of.pop(text, None)

    def deliver(self, pieces: Sequence[Piece]) -> None:
        """Put pieces into the inboxes."""
        if self._loop:
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._put, pieces)

    def _put(self, pieces: Sequence[Piece]) -> None:
        for piece in pieces:
            if inbox := self._of.get(piece.text):
                inbox.put_nowait(piece)


class Work:
    """The texts of a request, from `submit` to `end`. timeout: seconds from the request's begin."""

    def __init__(self, engine: Engine, inboxes: Inboxes, texts: Sequence[Text], record: Record, timeout: float) -> None:
        self.texts, self.record = texts, record
        self._engine, self._inboxes, self._timeout = engine, inboxes, timeout
        self._inbox = inboxes.open(texts)
        left = record.begin + timeout - time.monotonic()
        self._timer = asyncio.get_running_loop().call_later(left, self._inbox.put_nowait, None)

    def submit(self) -> None:
        """Hand the texts to the engine. Raises RequestError where it can't take them."""
        try:
            self._engine.submit(self.texts)
        except FullError:
            self.end()
            wait = self._engine.seconds_to_wait()
            raise RequestError(429, "too many texts wait; try again later", code="queue_full", retry_after=wait) from None
        except ClosingError:
            self.end()
            raise closing() from None

    @property
    def written(self) -> int:
        """Number of characters written."""
        return sum(text.characters for text in self.texts)

    async def pieces(self) -> AsyncIterator[tuple[int, Piece]]:
        """The number of a text and its next piece, until all are complete. Raises RequestError after the time limit."""
        numbers = {text: number for number, text in enumerate(self.texts)}
        left = len(numbers)
        while left:
            piece = await self._inbox.get()
            if piece is None:
                about = f"the texts were not complete after {self._timeout:g} seconds"
                raise RequestError(503, about, code="timeout", retry_after=self._engine.seconds_to_wait())
            if piece.finish == "error":
                raise RequestError(500, "the text could not be computed; the server's log says why", code="engine")
            if piece.written and not self.record.first:
                self.record.first = time.monotonic() - self.record.begin
            left -= piece.finish is not None
            yield numbers[piece.text], piece

    def end(self) -> None:
        """Free the rows of texts that are not complete, and forget all."""
        self._timer.cancel()
        self._engine.cancel(self.texts)
        self._inboxes.close(self.texts)
        self.record.written = self.written


class Events(Response):
    """Server-sent events; its work ends with it, whether they were all sent or the client left.

    Starlette's own StreamingResponse starts a group of tasks for each response, which takes as long as the events.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[bytes], work: Work, headers: dict[str, str]) -> None:
        self.status_code, self.background = 200, None
        self.init_headers(headers)
        self._events, self._work = events, work

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        try:
            await unless_left(receive, self._send(send))
        finally:
            self._work.end()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for event in self._events:
            await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def unless_left(receive: Receive, answering: Coroutine[Any, Any, None]) -> None:
    """Finish a coroutine. Cancels it and raises ClientDisconnect when the client leaves before."""
    tasks = [asyncio.ensure_future(each) for each in (answering, _left(receive))]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not tasks[0].done():
            raise ClientDisconnect
        tasks[0].result()
    finally:
        for task in tasks:
            task.cancel()


async def _left(receive: Receive) -> None:
    """Wait until the client leaves."""
    while (await receive())["type"] != "http.disconnect":
        pass


def closing() -> RequestError:
    """The refusal while the server ends."""
    return RequestError(503, "the server is shutting down", code="shutting_down", retry_after=1)
