"""Workers meet before TensorFlow starts: all are there with the same settings, or all get the same error."""

import asyncio
import json
import socket
import subprocess
import sys
import threading
import time

import pytest

from charrnn_tf.distributed import cluster as module
from charrnn_tf.distributed.cluster import Cluster, host_and_port, meet
from charrnn_tf.errors import ConfigError, PeerError

FACTS = {"text": "abc", "hidden_size": "8"}


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture
def addresses():
    return tuple(f"127.0.0.1:{port}" for port in free_ports(3))


def meet_all(addresses, facts, ranks=None, seconds=5.0, delays=()):
    """Meet with several ranks at once -> for each rank None or the error's text."""
    results = {}

    def one(rank):
        time.sleep(dict(delays).get(rank, 0))
        try:
            waited = meet(Cluster(addresses, rank), facts.get(rank, FACTS), seconds)
            results[rank] = None if 0 <= waited < seconds else waited
        except PeerError as error:
            results[rank] = str(error)

    threads = [threading.Thread(target=one, args=(rank,)) for rank in (range(len(addresses)) if ranks is None else ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return results


@pytest.mark.parametrize("late", [(), [(0, 0.7)], [(2, 0.5)]])
def test_all_continue_once_all_are_there(addresses, late):
    assert meet_all(addresses, {}, delays=late) == {0: None, 1: None, 2: None}
    with socket.create_server(("", host_and_port(addresses[0])[1])):  # TensorFlow can take the port at once
        pass


def test_a_single_worker_does_not_wait():
    assert meet(Cluster(("127.0.0.1:1",), 0), FACTS) == pytest.approx(0, abs=0.1)


def test_the_time_spent_waiting_is_returned(addresses):
    late = threading.Thread(target=meet_all, args=(addresses, {}, (1, 2)), kwargs={"delays": [(2, 0.6)]})
    late.start()
    assert 0.5 < meet(Cluster(addresses, 0), FACTS, 5.0) < 4
    late.join()


def test_a_worker_in_a_notebook_whose_event_loop_runs_meets_the_others(addresses):
    others = threading.Thread(target=meet_all, args=(addresses, {}, (1, 2)))
    others.start()

    async def cell():
        return meet(Cluster(addresses, 0), FACTS, 5.0)

    assert asyncio.run(cell()) < 5
    others.join()


def test_a_worker_that_left_meanwhile_may_come_again(addresses):
    with socket.create_server(("", host_and_port(addresses[1])[1])):  # one that joins and is then killed
        chief = threading.Thread(target=lambda: results.update(meet_all(addresses, {}, ranks=(0,), seconds=20)))
        results = {}
        chief.start()
        time.sleep(0.3)
        with socket.create_connection(host_and_port(addresses[0]), timeout=5) as first:
            first.sendall(b'{"rank": 1, "facts": {}}\n')
            time.sleep(0.3)
    results.update(meet_all(addresses, {}, ranks=(1, 2), seconds=20, delays=[(2, 0.5)]))
    chief.join()
    assert results == {0: None, 1: None, 2: None}


def test_a_second_process_with_the_same_index_is_refused_and_the_others_continue(addresses):
    results = {}
    others = threading.Thread(target=lambda: results.update(meet_all(addresses, {}, ranks=(0, 1), seconds=20)))
    others.start()
    time.sleep(0.5)
    elsewhere = (addresses[0], f"127.0.0.1:{free_ports(1)[0]}", addresses[2])
    with pytest.raises(
        PeerError, match=r"^another process is worker 1 already\. Give each process its own index in TF_CONFIG\.$"
    ):
        meet(Cluster(elsewhere, 1), FACTS, 5.0)
    results.update(meet_all(addresses, {}, ranks=(2,), seconds=20))
    others.join()
    assert results == {0: None, 1: None, 2: None}


def test_all_are_told_of_a_worker_that_is_not_at_its_address(addresses, monkeypatch):
    wrong = (*addresses[:2], f"127.0.0.1:{free_ports(1)[0]}")
    listen = module._listen
    monkeypatch.setattr(module, "_listen", lambda address: listen(addresses[2] if address == wrong[2] else address))
    results = meet_all(wrong, {}, seconds=10)
    assert set(results.values()) == {
        f"worker 2 ({wrong[2]}) has connected, but can't be reached at this address: connection refused. Correct TF_CONFIG."
    }


def test_workers_of_another_cluster_are_refused(addresses):
    results = {}
    one = threading.Thread(target=lambda: results.update(meet_all(addresses[:2], {}, ranks=(0,), seconds=20)))
    one.start()
    results.update(meet_all(addresses, {}, ranks=(1,), seconds=20))
    one.join()
    assert {text.partition(". ")[0] for text in results.values()} == {
        f"worker 1 ({addresses[1]}) differs from the chief in: TF_CONFIG"
    }


def test_facts_may_be_long(addresses):
    facts = {"sample_prime": "x" * 200_000}
    assert set(meet_all(addresses, dict.fromkeys(range(3), facts)).values()) == {None}


def test_all_are_told_of_a_worker_with_another_text(addresses):
    results = meet_all(addresses, {2: {**FACTS, "text": "abd"}})
    (text,) = set(results.values())
    assert text.startswith(f"worker 2 ({addresses[2]}) differs from the chief in: text. Give all workers the same text")


def test_all_are_told_of_a_missing_worker_in_time(addresses):
    begin = time.monotonic()
    results = meet_all(addresses, {}, ranks=(0, 1), seconds=1.0)
    assert time.monotonic() - begin < 5
    assert set(results) == {0, 1}
    assert {text.partition(" did not connect.")[0] for text in results.values()} == {f"worker 2 ({addresses[2]})"}


def test_a_missing_chief_is_an_error(addresses):
    (text,) = meet_all(addresses, {}, ranks=(1,), seconds=0.5).values()
    assert text.startswith(f"the chief, {addresses[0]}, can't be reached: connection refused.")


def test_foreign_messages_are_ignored(addresses, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.3)
    said = [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff\n",
        b"[]\n",
        b"{}\n",
        b'{"rank": 0, "facts": {}}\n',
        b'{"rank": 1}\n',
        b'{"rank": [], "facts": {}}\n',
        b'{"rank": true, "facts": {}}\n',
        b"[" * 60_000 + b"\n",
        b"x" * 70_000,
    ]
    results = {}
    chief = threading.Thread(target=lambda: results.update(meet_all(addresses, {}, ranks=(0,), seconds=20)))
    chief.start()
    time.sleep(0.3)
    for data in said:
        with socket.create_connection(host_and_port(addresses[0]), timeout=5) as stranger:
            stranger.sendall(data)
    results.update(meet_all(addresses, {}, ranks=(1, 2), seconds=20))
    chief.join()
    assert results == {0: None, 1: None, 2: None}


@pytest.mark.parametrize("rank", [0, 1])
def test_an_address_in_use_is_an_error(addresses, rank):
    port = host_and_port(addresses[rank])[1]
    with socket.create_server(("", port)), pytest.raises(PeerError, match=r"^can't listen at .*: address already in use"):
        meet(Cluster(addresses, rank), FACTS, 1.0)


def test_a_block_that_holds_the_interpreter_too_long_ends_with_one_line():
    code = """
import ctypes, sys, time
from charrnn_tf.distributed.cluster import bounded
with bounded(30, "no line"):
    pass
print("went on", flush=True)
with bounded(0.5, "it took too long."):
    ctypes.PyDLL(None).sleep(20)  # holding the interpreter, as PyDLL does
"""
    begin = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert time.monotonic() - begin < 15
    assert (done.returncode, done.stdout, done.stderr) == (1, "went on\n", "Error: it took too long.\n")


def config(cluster, kind="worker", index=0):
    return json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})


def test_the_cluster_is_read_from_tf_config(monkeypatch):
    workers = ["a:1", "b:2"]
    for text, ranks in [
        (config({"worker": workers}, index=1), (("a:1", "b:2"), 1)),
        (config({"chief": ["c:3"], "worker": workers}, "worker", 0), (("c:3", "a:1", "b:2"), 1)),
        (config({"worker": workers, "chief": ["c:3"]}, "chief", 0), (("c:3", "a:1", "b:2"), 0)),
        (config({"worker": ["[::1]:5"]}), (("[::1]:5",), 0)),
    ]:
        monkeypatch.setenv("TF_CONFIG", text)
        cluster = Cluster.from_environment()
        assert (cluster.addresses, cluster.rank) == ranks
        assert cluster.is_chief is (ranks[1] == 0)


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "{}", '"x"', config([]), config({"worker": []}), config({"worker": ["a:1"]}, index=1),
        config({"worker": ["a:1"]}, index=-1), config({"worker": ["a:1"]}, kind="ps"), config({"worker": ["a"]}),
        config({"worker": ["a:0"]}), config({"worker": ["a:99999"]}), config({"worker": ["a:x"]}), config({"worker": [7]}),
        config({"worker": "a:1"}), config({"worker": ["a:1", "a:1"]}), config({"worker": ["a:1"], "ps": ["b:1"]}),
        config({"worker": ["a:1"]}, index="zero"), config({"worker": ["a:1"]}, index=None),
        config({"worker": ["a:1", "10..0.1:7"]}), config({"worker": [":7"]}),
        config({"chief": ["a:1", "b:1"]}, kind="chief"),
    ],
)  # fmt: skip
def test_an_invalid_tf_config_is_one_line(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ConfigError, match="TF_CONFIG") as caught:
        Cluster.from_environment()
    assert "\n" not in str(caught.value)
