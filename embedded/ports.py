"""TCP ports of this machine's loopback interface."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterable
from contextlib import suppress

import psutil

from embedded.errors import EmbeddedError

HOST = "127.0.0.1"

#: Where free ports are looked for: below the ports that Linux (32768) and macOS (49152) give to outgoing connections.
#: A client that retries on a dead server's port within that range can connect to itself and so block the restart.
RANGE = range(20_000, 32_000)


def is_free(port: int) -> bool:
    """Whether a server can listen on `port` of the loopback interface."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the servers do: connections that linger in TIME_WAIT don't count, listeners do.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def pick(count: int, taken: Iterable[int] = ()) -> list[int]:
    """`count` different free ports, none of them in `taken`."""
    seen, found = set(taken), list[int]()
    for port in random.sample(RANGE, len(RANGE)):
        if port not in seen and is_free(port):
            found.append(port)
            if len(found) == count:
                return found
    raise EmbeddedError(f"No free TCP ports between {RANGE.start} and {RANGE.stop}: stop some servers and try again.")


def require_free(port: int, server: str, option: str) -> None:
    """Raise `EmbeddedError`, naming the owner if that can be told, unless `port` is free."""
    if not 0 < port < 65_536:
        raise EmbeddedError(f"{port} is no TCP port: give {option} a number from 1 to 65535.")
    if not is_free(port):
        raise EmbeddedError(
            f"Port {port} for {server} is taken{_owner(port)}. Stop that process, give another {option}, "
            f"or leave {option} out: a free port is found then."
        )


def listens(pid: int, port: int) -> bool:
    """Whether the process `pid` itself (not just anyone) accepts connections on `port`."""
    with suppress(psutil.Error):
        return any(
            connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
            for connection in psutil.Process(pid).net_connections("tcp")
        )
    return False


def accepts(host: str, port: int, timeout: float = 3.0) -> bool:
    """Whether anyone accepts connections at `host`:`port` within `timeout` seconds."""
    try:
        socket.create_connection((host, port), timeout).close()
    except OSError:
        return False
    return True


def _owner(port: int) -> str:
    # Other users' processes, and on macOS all processes, hide their ports from us: then there is no owner to name.
    with suppress(psutil.Error, PermissionError):
        for connection in psutil.net_connections("tcp"):
            here = connection.laddr and connection.laddr.port == port
            if here and connection.status == psutil.CONN_LISTEN and connection.pid:
                return f" by {psutil.Process(connection.pid).name()} (process {connection.pid})"
    return ""
