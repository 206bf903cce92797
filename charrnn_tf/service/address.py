"""Where to listen, and the keys for those who come from elsewhere. Needs no TensorFlow."""

import ipaddress
import os
import socket
from pathlib import Path

from ..errors import ConfigError, reason
from ..files import open_file


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a host's address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def bind(host: str, port: int) -> socket.socket:
    """A socket that does not listen yet. Raises ConfigError where the address can't be had."""
    sock = None
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        sock = socket.socket(family, socket.SOCK_STREAM)
        if os.name == "posix":  # elsewhere it would let two servers have one port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except (OSError, ValueError) as error:
        if sock:
            sock.close()
        raise ConfigError(f"can't listen on `host` {host!r}, `port` {port}: {reason(error)}") from error
    return sock


def url(sock: socket.socket) -> str:
    """The address of a bound socket."""
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def read_keys(path: str | Path) -> tuple[bytes, ...]:
    """The keys in a file, one a line. Raises ConfigError for a file that can't be read or has none."""
    try:
        with open_file(path) as file:
            keys = file.read().split()
    except OSError as error:
        raise ConfigError(f"can't read {str(path)!r}: {reason(error)}") from error
    if not keys or not all(key.isascii() and key.decode("ascii").isprintable() for key in keys):
        raise ConfigError(f"{str(path)!r} must hold a key of printable ASCII characters, or several, one a line")
    return tuple(keys)
