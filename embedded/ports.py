"""TCP ports of this machine's loopback interface."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterable
from contextlib import suppress

import psutil

from embedded.errors import EmbeddedError

HOST = "127.0.0.1"

#: Ports to choose from: below those that Linux (from 32768) and macOS (from 49152) give to outgoing connections. There,
#: a client that retries the port of a dead server can connect to itself, and so keep the server from restarting.
RANGE = range(20_000, 32_000)


def is_free(port: int) -> bool:
    """Return whether a server can listen on `port` of the loopback interface."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the servers do, so that connections in TIME_WAIT do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def pick(count: int, taken: Iterable[int] = ()) -> list[int]:
    """Return `count` different free ports, none of them in `taken`."""
    seen, found = set(taken), list[int]()
    for port in random.sample(RANGE, len(RANGE)):
        if port not in seen and is_free(port):
            found.append(port)
            if len(found) == count:
                return found
    raise EmbeddedError(f"No free TCP ports between {RANGE.start} and {RANGE.stop}: stop some servers, then retry.")


def require_free(port: int, server: str, option: str) -> None:
    """Raise `EmbeddedError` unless `port` is free; the message names its owner, if known."""
    if not 0 < port < 65_536:
        raise EmbeddedError(f"{port} is not a TCP port: give {option} a number from 1 to 65535.")
    if not is_free(port):
        raise EmbeddedError(
            f"Port {port} for {server} is taken{_owner(port)}. Stop that process, give another {option}, "
            f"or leave {option} out to use a free port."
        )


def listens(pid: int, port: int) -> bool:
    """Return whether the process `pid` listens on `port`."""
    with suppress(psutil.Error):
        return any(
            connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
            for connection in psutil.Process(pid).net_connections("tcp")
        )
    return False


def accepts(host: str, port: int, timeout_s: float = 3.0) -> bool:
    """Return whether a server accepts connections at `host`:`port` within `timeout_s`."""
    try:
        socket.create_connection((host, port), timeout_s).close()
    except OSError:
        return False
    return True


def _owner(port: int) -> str:
    # The ports of other users' processes, and on macOS of all processes, cannot be read: the owner stays unknown.
    with suppress(psutil.Error, PermissionError):
        for connection in psutil.net_connections("tcp"):
            here = connection.laddr and connection.laddr.port == port
            if here and connection.status == psutil.CONN_LISTEN and connection.pid:
                return f" by {psutil.Process(connection.pid).name()} (process {connection.pid})"
    return ""
