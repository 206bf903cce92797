"""Two hosts: network namespaces joined by a cable, each with its own address; skipped without root and iproute2."""

import fcntl
import os
import queue
import shutil
import struct
import subprocess
import threading
import time
from contextlib import suppress

import pytest
from conftest import make_text
from processes import Python, run
from test_replicas import FLAGS, assert_equal_rows, assert_lost, ends, environment, rows, wait_for

from charrnn_tf.runs.find import latest_checkpoint
from charrnn_tf.runs.record import read_record

ADDRESSES = ("10.77.0.1", "10.77.0.2")
PORT = 7000
IN_NAMESPACE = """
import ctypes, os, sys
name = os.open("/run/netns/" + sys.argv.pop(1), os.O_RDONLY)
assert ctypes.CDLL(None).setns(name, 0x40000000) == 0  # CLONE_NEWNET
from charrnn_tf.cli.main import main
main()
"""
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x1, 0x1000  # of Linux's if_tun.h


def ip(*arguments):
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


def can_make_hosts():
    if not shutil.which("ip") or not hasattr(os, "geteuid") or os.geteuid():
        return False
    name = f"charrnn-{os.getpid()}-try"  # each process of the suite asks, at the same time
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode == 0
    if made:
        ip("netns", "delete", name)
    return made


pytestmark = [pytest.mark.slow, pytest.mark.skipif(not can_make_hosts(), reason="makes network namespaces")]


class Hosts:
    """Two hosts, joined by a cable that can be cut, or by one that delays everything by `delay` seconds."""

    def __init__(self, folder, delay=0.0):
        self.folder = folder
        self.names = [f"charrnn-{os.getpid()}-{side}" for side in "ab"]
        for name in self.names:
            ip("netns", "add", name)
        if delay:
            slow_cable(self.names, delay)
        else:
            first, second = self.names
            ip("link", "add", "cable", "netns", first, "type", "veth", "peer", "name", "cable", "netns", second)
        for name, address in zip(self.names, ADDRESSES, strict=True):
            ip("-n", name, "address", "add", f"{address}/24", "dev", "cable")
            self.link("up", name)
            ip("-n", name, "link", "set", "lo", "up")

    def link(self, how, name=None):
        ip("-n", name or self.names[0], "link", "set", "cable", how)

    def train(self, *arguments, addresses=ADDRESSES):
        """A worker on each."""
        workers = [f"{address}:{PORT}" for address in addresses]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": self.folder}
        command = ["train", "--strategy", "multiworker", *arguments]
        return [
            Python(["-c", IN_NAMESPACE, name, *command], env=environment(workers, index), **pipes)
            for index, name in enumerate(self.names)
        ]

    def remove(self):
        for name in self.names:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def slow_cable(names, delay):
    """Create a network device in each namespace, and carry packets from one to the other after `delay` seconds."""
    ends = []
    for name in names:
        end = os.open("/dev/net/tun", os.O_RDWR)
        device = f"charrnn{end}"
        fcntl.ioctl(end, TUNSETIFF, struct.pack("16sH", device.encode(), IFF_TUN | IFF_NO_PI))
        ip("link", "set", device, "netns", name)
        ip("-n", name, "link", "set", device, "name", "cable")
        ends.append(end)

    def carry(source, target):
        waiting = queue.Queue()

        def deliver():
            for due, packet in iter(waiting.get, None):
                time.sleep(max(due - time.monotonic(), 0))
                with suppress(OSError):
                    os.write(target, packet)

        threading.Thread(target=deliver, daemon=True).start()
        with suppress(OSError):  # of a device that is there no more
            while packet := os.read(source, 65536):
                waiting.put((time.monotonic() + delay, packet))
        waiting.put(None)

    for source, target in (ends, ends[::-1]):
        threading.Thread(target=carry, args=(source, target), daemon=True).start()


@pytest.fixture
def hosts(tmp_path, request):
    (tmp_path / "text.txt").write_text(make_text(20_000, seed=5), encoding="utf-8")
    made = Hosts(tmp_path, getattr(request, "param", 0.0))
    yield made
    made.remove()


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The rows of a run of 1,000 steps on a single host."""
    folder = tmp_path_factory.mktemp("alone")
    (folder / "text.txt").write_text(make_text(20_000, seed=5), encoding="utf-8")
    command = ["-m", "charrnn_tf", "train", "text.txt", *FLAGS, "--max-steps", 1000, "--quiet", "--checkpoint-dir", "one"]
    run(command, check=True, capture_output=True, cwd=folder, env=environment())
    return rows(folder / "one")


def assert_rows_up_to(steps, folder, alone):
    """Compare a run's rows with those of the single host; steps must be a multiple of 50, where both validate."""
    assert_equal_rows(rows(folder), [row for row in alone if row[0] <= steps])


@pytest.mark.parametrize("hosts", [0.02], indirect=True)
def test_two_hosts_with_a_slow_cable_train_what_one_does(hosts, alone):
    for status, _, errors in ends(hosts.train("text.txt", *FLAGS, "--max-steps", 50, "--checkpoint-dir", "two")):
        assert status == 0, errors
    assert_rows_up_to(50, hosts.folder / "two", alone)


def test_a_cut_cable_ends_both_within_two_minutes_and_they_resume_from_the_last_checkpoint(hosts, alone):
    workers = hosts.train("text.txt", *FLAGS, "--max-steps", 100_000, "--checkpoint-dir", "two")
    wait_for(hosts.folder / "two", 50, workers)
    hosts.link("down")
    begin = time.monotonic()
    for status, _, errors in ends(workers, seconds=120):
        assert status == 1, errors
        assert_lost(errors)
    assert time.monotonic() - begin < 120
    steps = (read_record(latest_checkpoint(hosts.folder / "two")).step // 100 + 1) * 100
    hosts.link("up")
    for status, _, errors in ends(hosts.train("--resume", "--max-steps", steps, "--checkpoint-dir", "two")):
        assert status == 0, errors
    assert_rows_up_to(steps, hosts.folder / "two", alone)


def test_a_worker_whose_address_is_not_its_own_is_an_error_for_both(hosts):
    begin = time.monotonic()
    wrong = (ADDRESSES[0], "10.77.0.9")
    results = ends(hosts.train("text.txt", *FLAGS, "--max-steps", 60, addresses=wrong), seconds=120)
    assert time.monotonic() - begin < 120
    for status, _, errors in results:
        assert status == 1
        last = errors.strip().splitlines()[-1]
        assert last.startswith(f"Error: worker 1 ({wrong[1]}:{PORT}) has connected, but can't be reached at this address: ")
