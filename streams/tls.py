"""Servers that turn us away at the door, told apart from those that are away."""

from __future__ import annotations

import socket
import ssl

#: Seconds to wait for the server's half of the handshake, or for the answer of a broker that has just cut us off.
HANDSHAKE_TIMEOUT = 2.0


def speaks_tls(host: str, port: int) -> bool:
    """Whether a TLS server listens there: a client without TLS is only cut off, as by one that is away.

    Nothing is sent to it but the handshake: it does not matter who it is.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection((host, port), HANDSHAKE_TIMEOUT) as connection, context.wrap_socket(connection):
            return True
    except OSError:
        return False
