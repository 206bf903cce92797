"""Python processes that begin with TensorFlow loaded, because they are forked from one that has loaded it.

Loading takes more than half the time of a short command, and tests start hundreds. `Python(["-m", "charrnn_tf", ...])` is a
`subprocess.Popen` in all that a test can see: pid, pipes, signals, exit status, folder, environment. What a process does
while it loads TensorFlow, and what it takes from the environment by then, only a true one shows:
`subprocess.Popen(command(...))`.

A process of tests keeps one parent of such processes, which is this file run as a script. It forks twice, so that what it
forked becomes a child of the tests (Linux: PR_SET_CHILD_SUBREAPER of prctl(2)), who can wait for it.
"""

import atexit
import ctypes
import functools
import inspect
import io
import json
import os
import runpy
import socket
import subprocess
import sys
import types

PR_SET_CHILD_SUBREAPER = 36  # of Linux's prctl.h
LARGEST = 1 << 17  # bytes of a request: arguments and environment


def command(*arguments):
    """What starts the command in a true process."""
    return [sys.executable, "-m", "charrnn_tf", *map(str, arguments)]


class Python(subprocess.Popen):
    """`python -m MODULE ...` or `python -c CODE ...`, begun with TensorFlow loaded (on Linux; elsewhere a true process)."""

    def __init__(self, arguments, **how):
        super().__init__([sys.executable, *map(str, arguments)], **how)

    def _execute_child(self, *arguments):
        if sys.platform != "linux":
            super()._execute_child(*arguments)
            return
        given = inspect.signature(super()._execute_child).bind(*arguments).arguments
        ends = [given[name] for name in ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")]
        streams = [number if end == -1 else end for number, end in enumerate((ends[0], ends[3], ends[5]))]
        request = {
            "arguments": given["args"][1:],
            "folder": os.path.abspath(given["cwd"] or "."),
            "environment": dict(os.environ) if given["env"] is None else given["env"],
        }
        parent, _ = _parent()
        socket.send_fds(parent, [json.dumps(request).encode()], streams)
        self.pid = int(parent.recv(LARGEST))
        self._child_created = True
        self._close_pipe_fds(*ends)


def run(arguments, *, check=False, timeout=None, capture_output=False, **how):
    """`subprocess.run` of such a process."""
    if capture_output:
        how |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with Python(arguments, **how) as process:
        try:
            done = subprocess.CompletedProcess(process.args, None, *process.communicate(timeout=timeout))
        except BaseException:
            process.kill()
            raise
    done.returncode = process.returncode
    if check:
        done.check_returncode()
    return done


@functools.cache
def _parent():
    """What forks, and its socket; it ends when that is closed, with the tests at the latest."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "1"}
    with theirs:
        script = [sys.executable, __file__, str(theirs.fileno())]
        parent = subprocess.Popen(script, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env=environment)
    atexit.register(parent.wait)
    atexit.register(ours.close)  # before the wait: it ends the parent
    return ours, parent


def _fork(requests):
    """Answer requests; returns in what was forked, with the request, and never in the parent."""
    while True:
        text, streams, *_ = socket.recv_fds(requests, LARGEST, 3)
        if not text:
            os._exit(0)
        reading, writing = os.pipe()
        middle = os.fork()
        if middle == 0:
            forked = os.fork()
            if forked:
                os.write(writing, str(forked).encode())
                os._exit(0)
            requests.close()
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
            for end in (reading, writing, *streams):
                os.close(end)
            return json.loads(text)
        os.waitpid(middle, 0)  # only then what it forked is the tests' child
        requests.send(os.read(reading, 32))
        for end in (reading, writing, *streams):
            os.close(end)


def _become(request):
    """Be what the request asks for."""
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    for name, number, mode, errors in (("stdin", 0, "rb", "strict"), ("stdout", 1, "wb", "strict"),
                                       ("stderr", 2, "wb", "backslashreplace")):  # fmt: skip
        stream = open(number, mode, closefd=False)  # noqa: SIM115  (as long as the process lives)
        lines = name == "stderr" or stream.isatty()
        text = io.TextIOWrapper(stream, encoding="utf-8", errors=errors, line_buffering=lines)
        setattr(sys, name, text)
        setattr(sys, f"__{name}__", text)
    how, what, *arguments = request["arguments"]
    sys.argv[:], sys.path[0] = [how, *arguments], ""
    if how == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(what, "<string>", "exec"), main.__dict__)


if __name__ == "__main__":
    listening = socket.socket(fileno=int(sys.argv[1]))
    import tensorflow as tf

    tf.keras  # noqa: B018  (loaded when it is first named)
    _become(_fork(listening))
