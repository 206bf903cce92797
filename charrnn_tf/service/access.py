"""ASGI middleware: checks API keys, logs each request and counts it in the metrics."""

import hmac
import logging
import time
from collections.abc import Sequence

from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .prometheus import Metrics
from .protocol import RequestError
from .request import LEFT, Record

OPEN = ("/healthz",)  # needs no key
log = logging.getLogger(__name__)


def check_key(keys: Sequence[bytes], headers: Sequence[tuple[bytes, bytes]]) -> None:
    """Raise RequestError if there are keys and the headers show none of them; constant time for equal lengths."""
    shown = next((value for name, value in headers if name == b"authorization"), b"")
    scheme, _, key = shown.partition(b" ")
    matches = [hmac.compare_digest(key.strip(), known) for known in keys]
    if keys and not (scheme.lower() == b"bearer" and any(matches)):
        about = "no API key: send the header 'Authorization: Bearer KEY'" if not shown else "this API key is not valid"
        raise RequestError(401, about, code="invalid_api_key")


def answer(error: RequestError, record: Record) -> Response:
    """The response that refuses; the log has the reason too."""
    record.refused = str(error)
    return JSONResponse(error.body(), error.status, headers=error.headers())


class Access:
    """ASGI middleware. keys: those that a request may show; none: any request is let in."""

    def __init__(self, app: ASGIApp, keys: Sequence[bytes], metrics: Metrics) -> None:
        self._app, self._keys, self._metrics = app, keys, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            return
        record = scope["record"] = Record(time.monotonic())

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start" and not record.status:
                record.status = message["status"]
            await send(message)

        try:
            if scope["path"] not in OPEN:
                check_key(self._keys, scope["headers"])
            await self._app(scope, receive, sending)
        except RequestError as error:
            await answer(error, record)(scope, receive, sending)
        except ClientDisconnect:
            record.status = LEFT
        finally:
            self._close(scope, record)

    def _close(self, scope: Scope, record: Record) -> None:
        seconds, metrics = time.monotonic() - record.begin, self._metrics
        metrics.requests[record.status or 500] += 1
        if record.id != "-":
            metrics.duration.observe(seconds)
        if record.first:
            metrics.first_characters.observe(record.first)
        client = (scope.get("client") or ("-",))[0]
        path = ascii(scope["path"][:100])[1:-1]
        log.info(
            "%s %s %s %d %.3f s, %d characters read, %d written, %s",
            client, scope["method"][:20], path, record.status or 500, seconds, record.read, record.written,
            ascii(record.refused[:200])[1:-1] or record.id,
        )  # fmt: skip
