"""Workers meet before TensorFlow starts: all are there, and all mean the same run.

TensorFlow itself waits for a missing worker for ever and is deaf to signals meanwhile. So each worker first listens at its
own address, the others tell the chief what they are about to train, it sees whether they can be reached there, and answers
all at once.
"""

from __future__ import annotations

import faulthandler
import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from ..errors import ConfigError, PeerError, reason

SECONDS = 300.0  # that workers are waited for
MOST_BYTES = 1 << 16  # of what a worker says
STARTING = 60.0  # seconds that TensorFlow has to bring together workers that are there
PATIENCE = 5.0  # seconds, for one to be reached and for one that is connected to say something
JOBS = ("chief", "worker")
EXAMPLE = '{"cluster": {"worker": ["10.0.0.1:7000", "10.0.0.2:7000"]}, "task": {"type": "worker", "index": 0}}'
Facts = Mapping[str, str]  # what must be the same everywhere: name -> value


@dataclass(frozen=True)
class Cluster:
    """All workers by address, the chief first, and which of them this process is."""

    addresses: tuple[str, ...]  # host:port
    rank: int

    @classmethod
    def from_environment(cls) -> Cluster:
        """What TF_CONFIG says. Raises ConfigError where it is missing or says something else than TensorFlow's."""
        text = os.environ.get("TF_CONFIG", "")
        if not text:
            raise ConfigError(
                f"--strategy multiworker needs the environment variable TF_CONFIG, such as {EXAMPLE}. --strategy none "
                "trains in this process alone."
            )
        try:
            told = json.loads(text)
            jobs, task = told["cluster"], told["task"]
            ranks = [(job, index) for job in JOBS for index in range(len(jobs.get(job, ())))]
            addresses = tuple(jobs[job][index] for job, index in ranks)
            cluster = cls(addresses, ranks.index((task["type"], int(task["index"]))))
            for address in addresses:
                host_and_port(address)
        except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
            raise ConfigError(f"TF_CONFIG does not say which workers there are and which this is: {error}") from error
        if len(jobs.get("chief", ())) > 1:
            raise ConfigError("TF_CONFIG gives more than one chief")
        if strangers := sorted(set(jobs) - set(JOBS)):
            raise ConfigError(f"TF_CONFIG has jobs that --strategy multiworker has no use for: {', '.join(strangers)}")
        if len(set(addresses)) < len(addresses):
            raise ConfigError("TF_CONFIG gives two workers the same address")
        return cluster

    @property
    def count(self) -> int:
        """Workers in all."""
        return len(self.addresses)

    @property
    def is_chief(self) -> bool:
        """Whether this process writes checkpoints and answers the others."""
        return self.rank == 0


ONE_PROCESS = Cluster(("localhost:1",), 0)


def host_and_port(address: str) -> tuple[str, int]:
    """The parts of `host:port`; an IPv6 host stands in brackets. Raises ValueError for anything else."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    if not host.encode("idna") or not 0 < int(port) < 1 << 16:
        raise ValueError(f"{address!r} is no host:port")
    return host, int(port)


def meet(
    cluster: Cluster, facts: Facts, seconds: float = SECONDS, waiting: Callable[[str], None] = lambda text: None
) -> float:
    """Return once all workers are there and have the chief's facts: the seconds that this took.

    waiting: told whom this process waits for. Raises PeerError where somebody does not come in time, means another run, or
    can't be reached at the address that TF_CONFIG gives.
    """
    begun = time.monotonic()
    if cluster.count > 1:
        told = {name: sha256(value.encode("utf-8", "surrogatepass")).hexdigest() for name, value in facts.items()}
        told |= {"TF_CONFIG": " ".join(cluster.addresses)}
        with _listen(cluster.addresses[cluster.rank]) as server:
            (_lead if cluster.is_chief else _follow)(cluster, told, server, seconds, waiting)
    return time.monotonic() - begun


@contextmanager
def bounded(seconds: float, line: str) -> Iterator[None]:
    """End this process with a line and status 1 once what follows takes longer, also while it holds the interpreter.

    TensorFlow does, waiting for a worker that has left since they met: no signal and no thread of Python's runs meanwhile.
    Faulthandler's timer does; what it writes makes a helper say the line.
    """
    say = "import sys\nif sys.stdin.buffer.read(1): sys.stderr.write(sys.argv[1])"
    with subprocess.Popen([sys.executable, "-c", say, f"Error: {line}\n"], stdin=subprocess.PIPE) as helper:
        assert helper.stdin
        faulthandler.dump_traceback_later(seconds, exit=True, file=helper.stdin)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()


def _lead(cluster: Cluster, facts: Facts, server: socket.socket, seconds: float, waiting: Callable[[str], None]) -> None:
    """Wait for all, compare, and answer all."""
    deadline = time.monotonic() + seconds
    others = set(range(1, cluster.count))
    joined: dict[int, tuple[socket.socket, Facts]] = {}
    waiting(f"Waiting for {_named(cluster, others)} ...")
    try:
        while True:
            while (missing := others - set(joined)) and (left := deadline - time.monotonic()) > 0:
                _wait_for_one(cluster, server, joined, left)
            if missing:
                late = f"{_named(cluster, missing)} did not come. Start all workers within {seconds:.0f} s of each other."
            problem = late if missing else _difference(cluster, facts, joined) or _silence(cluster)
            gone = [rank for rank, (connection, _) in joined.items() if _has_left(connection)]
            for rank in gone:
                joined.pop(rank)[0].close()
            if missing or not gone:
                break
        for connection, _ in joined.values():
            _send(connection, {"problem": problem})
        for connection, _ in joined.values():
            _receive(connection)  # its end: it closes first, so that the port is free at once
    finally:
        for connection, _ in joined.values():
            connection.close()
    if problem:
        raise PeerError(problem)


def _wait_for_one(
    cluster: Cluster, server: socket.socket, joined: dict[int, tuple[socket.socket, Facts]], seconds: float
) -> None:
    """Take in who comes next, or notice who leaves."""
    connections = {connection: rank for rank, (connection, _) in joined.items()}
    ready, _, _ = select.select([server, *connections], [], [], seconds)
    for connection in ready:
        if connection in connections:  # until it is answered it says nothing: it has left
            joined.pop(connections[connection])[0].close()
    if server not in ready:
        return
    connection, _ = server.accept()
    said = _receive(connection) or {}
    rank = said.get("rank")
    if type(rank) is not int or not 0 < rank < cluster.count or not isinstance(said.get("facts"), dict):
        connection.close()
    elif rank in joined:
        with connection:
            _send(connection, {"problem": f"another process is worker {rank} already. TF_CONFIG gives each its own index."})
    else:
        joined[rank] = connection, said["facts"]


def _follow(cluster: Cluster, facts: Facts, server: socket.socket, seconds: float, waiting: Callable[[str], None]) -> None:
    """Tell the chief, and wait for its answer."""
    deadline = time.monotonic() + seconds
    waiting(f"Waiting for {_named(cluster, {0})} ...")
    why = "it did not answer"
    while (left := deadline - time.monotonic()) > 0:
        answer = None
        try:
            with socket.create_connection(host_and_port(cluster.addresses[0]), timeout=min(left, PATIENCE)) as connection:
                _send(connection, {"rank": cluster.rank, "facts": dict(facts)})
                answer = _answer(connection, server, cluster.rank, seconds + PATIENCE)  # the chief's own time ends before
        except OSError as error:
            why = reason(error)
        if answer is not None:
            if answer.get("problem"):
                raise PeerError(str(answer["problem"]))
            return
        time.sleep(0.2)
    raise PeerError(f"the chief, {cluster.addresses[0]}, can't be reached: {why}. Start all workers within {seconds:.0f} s.")


def _answer(connection: socket.socket, server: socket.socket, rank: int, seconds: float) -> dict[str, Any] | None:
    """What the chief says; meanwhile whoever asks at this worker's own address is told which worker it is."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        ready, _, _ = select.select([connection, server], [], [], left)
        if server in ready:
            with server.accept()[0] as asking:
                _send(asking, {"rank": rank})
                _receive(asking)  # its end: it closes first
        if connection in ready:
            return _receive(connection)
    return None


def _difference(cluster: Cluster, facts: Facts, joined: Mapping[int, tuple[socket.socket, Facts]]) -> str | None:
    """In what a worker differs from the chief; None: in nothing."""
    for rank, (_, others) in sorted(joined.items()):
        differing = [name for name in facts if others.get(name) != facts[name]]
        if differing:
            return (
                f"worker {rank} ({cluster.addresses[rank]}) differs from the chief in: {', '.join(differing)}. Give all "
                "workers the same text, settings and checkpoints."
            )
    return None


def _silence(cluster: Cluster) -> str | None:
    """Which worker is not at the address that TF_CONFIG gives, as far as the chief can see; None: all are."""
    for rank in range(1, cluster.count):
        why = "something else answers there"
        try:
            with socket.create_connection(host_and_port(cluster.addresses[rank]), timeout=PATIENCE) as connection:
                if (_receive(connection) or {}).get("rank") == rank:
                    continue
        except OSError as error:
            why = reason(error)
        return f"{_named(cluster, {rank})} has come, but can't be reached at this address: {why}. Correct TF_CONFIG."
    return None


def _has_left(connection: socket.socket) -> bool:
    """Whether one that waits for an answer has closed its end."""
    return bool(select.select([connection], [], [], 0)[0])


def _named(cluster: Cluster, ranks: set[int]) -> str:
    names = (f"worker {rank}" if rank else "the chief" for rank in sorted(ranks))
    return ", ".join(f"{name} ({cluster.addresses[rank]})" for name, rank in zip(names, sorted(ranks), strict=True))


def _listen(address: str) -> socket.socket:
    """The port that TensorFlow will take afterwards, on all of the machine's own addresses, as TensorFlow takes it."""
    _, port = host_and_port(address)
    try:
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        return socket.create_server(("", port))
    except OSError as error:
        raise PeerError(f"can't listen at {address}: {reason(error)}") from error


def _send(connection: socket.socket, message: Mapping[str, Any]) -> None:
    connection.settimeout(PATIENCE)
    with suppress(OSError):  # it has left, and will not come to what follows
        connection.sendall(json.dumps(message).encode() + b"\n")


def _receive(connection: socket.socket) -> dict[str, Any] | None:
    """One message; None where the other side says nothing in time, or something else."""
    deadline = time.monotonic() + PATIENCE
    data = b""
    try:
        while not data.endswith(b"\n") and len(data) < MOST_BYTES:
            connection.settimeout(max(deadline - time.monotonic(), 0.001))
            part = connection.recv(4096)
            if not part:
                return None
            data += part
        message = json.loads(data)
    except (OSError, ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) else None
