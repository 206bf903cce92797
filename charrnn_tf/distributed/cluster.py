"""Workers of one run meet over plain sockets before TensorFlow starts.

TensorFlow waits for a missing worker without a time limit, and does not react to signals meanwhile. So each worker first
listens at its own address and sends the chief hashes of its text and settings. The chief compares them, connects back to
the worker, and answers all once all have connected.
"""

import asyncio
import faulthandler
import json
import os
import socket
import subprocess
import sys
import time
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Self

from ..errors import ConfigError, PeerError, reason

SECONDS = 300.0  # to wait for missing workers
STARTING = 60.0  # seconds for TensorFlow to connect workers that have met
PATIENCE = 5.0  # seconds to wait for a connection, or for a message on it
JOBS = ("chief", "worker")
EXAMPLE = '{"cluster": {"worker": ["10.0.0.1:7000", "10.0.0.2:7000"]}, "task": {"type": "worker", "index": 0}}'
Facts = Mapping[str, str]  # what must be equal everywhere: name -> value


@dataclass(frozen=True)
class Cluster:
    """The addresses of all workers, the chief's first, and the rank of this process among them."""

    addresses: tuple[str, ...]  # host:port
    rank: int

    @classmethod
    def from_environment(cls) -> Self:
        """Read TF_CONFIG. Raises ConfigError if it is missing or invalid."""
        text = os.environ.get("TF_CONFIG", "")
        if not text:
            raise ConfigError(
                f"`strategy` multiworker needs the environment variable TF_CONFIG, such as {EXAMPLE}. To train in this "
                "process alone, use `strategy` none."
            )
        try:
            config = json.loads(text)
            jobs, task = config["cluster"], config["task"]
            workers = {(job, index): address for job in JOBS for index, address in enumerate(jobs.get(job, ()))}
            cluster = cls(tuple(workers.values()), list(workers).index((task["type"], int(task["index"]))))
            for address in cluster.addresses:
                host_and_port(address)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ConfigError(f"TF_CONFIG must list the workers and this process's task among them: {error}") from error
        if ("chief", 1) in workers:
            raise ConfigError("TF_CONFIG lists more than one chief")
        if strangers := sorted(set(jobs) - set(JOBS)):
            raise ConfigError(f"TF_CONFIG has jobs that `strategy` multiworker does not use: {', '.join(strangers)}")
        if len(set(cluster.addresses)) < cluster.count:
            raise ConfigError("TF_CONFIG gives two workers the same address")
        return cluster

    @property
    def count(self) -> int:
        """Number of workers."""
        return len(self.addresses)

    @property
    def is_chief(self) -> bool:
        """Whether this process writes checkpoints and answers the others."""
        return self.rank == 0

    def named(self, ranks: Iterable[int]) -> str:
        """Workers as messages name them: `worker 1 (10.0.0.2:7000)`."""
        return ", ".join(f"{f'worker {rank}' if rank else 'the chief'} ({self.addresses[rank]})" for rank in sorted(ranks))


def host_and_port(address: str) -> tuple[str, int]:
    """Split `host:port`; an IPv6 host stands in brackets. Raises ValueError for anything else."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    if not host.encode("idna") or not 0 < int(port) < 1 << 16:
        raise ValueError(f"{address!r} is not host:port")
    return host, int(port)


def meet(
    cluster: Cluster, facts: Facts, seconds: float = SECONDS, waiting: Callable[[str], None] = lambda text: None
) -> float:
    """Wait until all workers have connected and have the same facts; return the seconds that this took.

    waiting: called with a line that names the awaited workers. Raises PeerError if a worker does not connect in time, has
    other facts than the chief, or can't be reached at its address.
    """
    started = time.monotonic()
    if cluster.count > 1:
        hashes = {name: sha256(value.encode("utf-8", "surrogatepass")).hexdigest() for name, value in facts.items()}
        hashes["TF_CONFIG"] = " ".join(cluster.addresses)
        with _listen(cluster.addresses[cluster.rank]) as server:
            waiting(f"Waiting for {cluster.named(range(1, cluster.count) if cluster.is_chief else [0])} ...")
            problem = _run((_lead if cluster.is_chief else _follow)(cluster, hashes, server, seconds))
        if problem:
            raise PeerError(problem)
    return time.monotonic() - started


def _run(meeting: Coroutine[Any, Any, str | None]) -> str | None:
    """`asyncio.run`, in a thread of its own where an event loop runs already, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(meeting)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, meeting).result()


@contextmanager
def bounded(seconds: float, line: str) -> Iterator[None]:
    """End this process with an error line and status 1 if the block takes longer than `seconds`.

    While TensorFlow waits for a worker that has left, it holds the interpreter: no signal handler and no Python thread runs.
    Faulthandler's timer does run: it makes a helper process print the line, and ends this process.
    """
    helper = "import sys\nif sys.stdin.buffer.read(1): sys.stderr.write(sys.argv[1])"
    with subprocess.Popen([sys.executable, "-c", helper, f"Error: {line}\n"], stdin=subprocess.PIPE) as process:
        assert process.stdin
        faulthandler.dump_traceback_later(seconds, exit=True, file=process.stdin)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()


async def _lead(cluster: Cluster, facts: Facts, server: socket.socket, seconds: float) -> str | None:
    """Wait for all workers, then send all the same answer: the first problem, or None."""
    joined: dict[int, tuple[Facts, StreamWriter]] = {}  # by rank, each while its connection is open

    async def join(reader: StreamReader, writer: StreamWriter) -> None:
        with closing(writer), suppress(asyncio.CancelledError):  # asyncio would log it
            message = await _receive(reader)
            rank, theirs = message.get("rank"), message.get("facts")
            if type(rank) is not int or rank not in range(1, cluster.count) or not isinstance(theirs, dict):
                return
            if rank in joined:
                line = f"another process is worker {rank} already. Give each process its own index in TF_CONFIG."
                _send(writer, problem=line)
                return
            joined[rank] = theirs, writer
            await _receive(reader, seconds + PATIENCE)  # returns when the worker leaves
            del joined[rank]

    await asyncio.start_server(join, sock=server)
    deadline = time.monotonic() + seconds
    problem: str | None = None
    while True:
        while (missing := set(range(1, cluster.count)) - joined.keys()) and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        if missing:
            problem = f"{cluster.named(missing)} did not connect. Start all workers within {seconds:.0f} s of each other."
            break
        checks = (_problem(cluster, rank, facts, theirs) for rank, (theirs, _) in sorted(joined.items()))
        problem = next(filter(None, await asyncio.gather(*checks)), None)
        if len(joined) == cluster.count - 1:  # nobody has left meanwhile
            break
    for _, writer in joined.values():
        _send(writer, problem=problem)
    return problem


async def _problem(cluster: Cluster, rank: int, facts: Facts, theirs: Facts) -> str | None:
    """Compare a worker's facts with the chief's, and connect to its address -> the problem, or None."""
    name = cluster.named([rank])
    if differing := ", ".join(fact for fact in facts if theirs.get(fact) != facts[fact]):
        return f"{name} differs from the chief in: {differing}. Give all workers the same text, settings and checkpoints."
    answer, why = await _ask(cluster.addresses[rank])
    if answer.get("rank") == rank:
        return None
    why = why or "something else answers there"
    return f"{name} has connected, but can't be reached at this address: {why}. Correct TF_CONFIG."


async def _follow(cluster: Cluster, facts: Facts, server: socket.socket, seconds: float) -> str | None:
    """Send this worker's facts to the chief, until it answers -> the problem, or None."""

    async def identify(reader: StreamReader, writer: StreamWriter) -> None:
        with closing(writer), suppress(asyncio.CancelledError):
            await _receive(reader)
            _send(writer, rank=cluster.rank)

    await asyncio.start_server(identify, sock=server)
    chief, why, deadline = cluster.addresses[0], "", time.monotonic() + seconds
    while time.monotonic() < deadline:
        answer, why = await _ask(chief, seconds + PATIENCE, rank=cluster.rank, facts=facts)  # longer than the chief waits
        if answer:
            return answer.get("problem")
        await asyncio.sleep(0.2)
    return f"the chief, {chief}, can't be reached: {why or 'it did not answer'}. Start all workers within {seconds:.0f} s."


async def _ask(address: str, seconds: float | None = None, **message: Any) -> tuple[dict[str, Any], str]:
    """Send a message to an address; returns (answer or {}, reason of a failed connection or "")."""
    try:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection(*host_and_port(address))
    except OSError as error:  # asyncio hides the system's text, so it is rebuilt from errno
        return {}, os.strerror(error.errno).lower() if error.errno and error.errno > 0 else reason(error) or "timed out"
    with closing(writer):
        _send(writer, **message)
        return await _receive(reader, seconds), ""


def _listen(address: str) -> socket.socket:
    """Listen at an address's port on all interfaces, as TensorFlow will."""
    family, both = (socket.AF_INET6, True) if socket.has_dualstack_ipv6() else (socket.AF_INET, False)
    try:
        return socket.create_server(("", host_and_port(address)[1]), family=family, dualstack_ipv6=both)
    except OSError as error:
        raise PeerError(f"can't listen at {address}: {reason(error)}") from error


def _send(writer: StreamWriter, **message: Any) -> None:
    writer.write(json.dumps(message).encode() + b"\n")


async def _receive(reader: StreamReader, seconds: float | None = None) -> dict[str, Any]:
    """Read a message; {} if none comes within `seconds` (default PATIENCE), or if it is not a JSON object."""
    with suppress(OSError, ValueError, RecursionError):
        async with asyncio.timeout(seconds or PATIENCE):
            message = json.loads(await reader.readline())
        if isinstance(message, dict):
            return message
    return {}
