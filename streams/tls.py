"""Whether somebody speaks TLS: a client without it is only cut off, and cannot tell that from a server that is away."""

from __future__ import annotations

import socket
import ssl

#: Seconds to wait for the server's half of the handshake.
_TIMEOUT = 2.0


def speaks_tls(host: str, port: int) -> bool:
    """Whether a TLS server listens there. Nothing is sent to it but the handshake: it does not matter who it is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection((host, port), _TIMEOUT) as connection, context.wrap_socket(connection):
            return True
    except OSError:
        return False
