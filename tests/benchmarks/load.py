"""Loads a running `charrnn-tf serve` with many clients for a bounded time, and prints one JSON object.

    python tests/benchmarks/load.py http://127.0.0.1:8000 [--clients 64] [--seconds 300] [--requests N] [--length 200]
                                    [--whole] [--leave 0.1] [--bad 500] [--pid PID] [--key KEY]

Each client asks for a text, reads it, and asks again, until the time or the number of requests is over. --leave: share of
requests whose client leaves in the middle. --bad: requests of nonsense, sent meanwhile by one more client. --pid: the
server's process, whose memory is measured. Compare characters_per_second with `sample --num-samples 32` on the same
machine: `python tests/benchmarks/ours.py sample 32`, for a model of the notebook preset.
"""

import argparse
import asyncio
import json
import random
import statistics
import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

PATIENCE = 120.0  # seconds that a client waits for an answer


class Load:
    """What all clients have seen."""

    def __init__(self, options):
        address = urlsplit(options.url)
        self.address = address.hostname, address.port
        self.options = options
        self.end = time.monotonic() + options.seconds
        self.statuses, self.bad = Counter(), Counter()
        self.begun = self.left = self.characters = 0
        self.first, self.whole = [], []
        self.draw = random.Random(1)

    def goes_on(self):
        return time.monotonic() < self.end and (not self.options.requests or self.begun < self.options.requests)

    def head(self, method, path, length, more=()):
        key = [f"Authorization: Bearer {self.options.key}"] if self.options.key else []
        fields = [f"{method} {path} HTTP/1.1", "Host: load", f"Content-Length: {length}", "Connection: close", *key, *more]
        return "\r\n".join([*fields, "", ""]).encode()

    async def answer(self, data, leaves=False):
        """Send a request on a connection of its own -> status, body, seconds to the body's first and last bytes."""
        begin = time.monotonic()
        reader, writer = await asyncio.open_connection(*self.address, limit=1 << 22)
        try:
            writer.write(data)
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.read(1 << 16)
            first = time.monotonic() - begin
            if leaves:
                return None, b"", first, first
            body += await reader.read(-1)
            return int(head.split()[1]), body, first, time.monotonic() - begin
        finally:
            writer.close()

    async def client(self):
        while self.goes_on():
            self.begun += 1
            stream = not self.options.whole
            asked = {"prompt": "\n", "max_tokens": self.options.length, "stream": stream, "seed": self.begun}
            body = json.dumps(asked).encode()
            leaves = self.draw.random() < self.options.leave
            try:
                data = self.head("POST", "/v1/completions", len(body)) + body
                status, got, first, whole = await asyncio.wait_for(self.answer(data, leaves), PATIENCE)
            except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
                self.statuses[type(error).__name__] += 1
                await asyncio.sleep(0.1)
                continue
            if leaves:
                self.left += 1
                continue
            self.statuses[status] += 1
            if status != 200:
                await asyncio.sleep(0.2)
                continue
            self.first.append(first)
            self.whole.append(whole)
            self.characters += len(text(got, stream))

    async def nonsense(self):
        for n in range(self.options.bad):
            try:
                status, *_ = await asyncio.wait_for(self.answer(self.bad_request(n)), PATIENCE)
            except (OSError, asyncio.IncompleteReadError, TimeoutError, ValueError) as error:
                status = type(error).__name__
            self.bad[status] += 1

    def bad_request(self, n):
        """Wrong types, huge, deep, cut, slow (never complete), binary."""
        bodies = [
            b'{"prompt": 5}', b'{"temperature": "hot"}', b'{"max_tokens": 1e9}', b'{"n": -1}', b"[" * 50_000, b"\xff" * 100,
            b'{"prompt": "' + b"x" * 900_000 + b'"}', b'{"a":' * 20_000, b"", b"null", self.draw.randbytes(1000),
        ]  # fmt: skip
        kind = n % (len(bodies) + 3)
        if kind < len(bodies):
            return self.head("POST", "/v1/completions", len(bodies[kind])) + bodies[kind]
        if kind == len(bodies):
            return self.draw.randbytes(2000)
        if kind == len(bodies) + 1:
            return self.head("POST", "/v1/completions", 2 << 20) + b"{"
        return b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"

    async def metrics(self):
        _, body, *_ = await self.answer(self.head("GET", "/metrics", 0))
        return dict(line.rsplit(" ", 1) for line in body.decode().splitlines() if not line.startswith("#"))

    async def run(self):
        memory, begin = [resident(self.options.pid)], time.monotonic()
        nonsense = asyncio.create_task(self.nonsense())
        await asyncio.gather(*(self.client() for _ in range(self.options.clients)))
        seconds = time.monotonic() - begin
        await nonsense
        memory.append(resident(self.options.pid))
        await asyncio.sleep(1)
        after = await self.metrics()
        return {
            "clients": self.options.clients, "seconds": round(seconds, 2), "requests": self.begun,
            "statuses": dict(self.statuses), "left": self.left, "bad": dict(self.bad),
            "characters_per_second": round(self.characters / seconds),
            "first_characters": percentiles(self.first), "request": percentiles(self.whole),
            "memory_mb": memory, "rows_active": after["charrnn_rows_active"],
            "queue_waiting": after["charrnn_queue_waiting"],
        }  # fmt: skip


def text(body, stream):
    """The text of a response."""
    if not stream:
        return json.loads(body)["choices"][0]["text"]
    events = [line[6:] for line in body.decode().splitlines() if line.startswith("data: {")]
    return "".join(choice["text"] for event in events for choice in json.loads(event)["choices"])


def percentiles(seconds):
    """Median, 99th percentile and maximum."""
    if len(seconds) < 2:
        return {}
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return {"median": round(cuts[49], 3), "p99": round(cuts[98], 3), "max": round(max(seconds), 3)}


def resident(pid):
    """Memory of a process, in MB."""
    if not pid:
        return None
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) // 1000 for line in lines if line.startswith("VmRSS"))


def main():
    """The script."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    for name, default in (("clients", 64), ("seconds", 300), ("requests", 0), ("length", 200), ("bad", 0), ("pid", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--leave", type=float, default=0.0)
    parser.add_argument("--whole", action="store_true", help="without streaming")
    parser.add_argument("--key", default="")
    print(json.dumps(asyncio.run(Load(parser.parse_args()).run()), indent=2))


if __name__ == "__main__":
    main()
