"""Find out whether a server speaks TLS: to a client without TLS, it looks like one that is unavailable."""

from __future__ import annotations

import socket
import ssl

#: Seconds to wait for the server's part of the handshake, or for the answer of a broker that has just cut off a client.
HANDSHAKE_TIMEOUT_S = 2.0


def speaks_tls(host: str, port: int) -> bool:
    """Return whether a TLS server listens at this address. A client without TLS is only cut off by it.

    The certificate is not verified, because nothing but the handshake is sent.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection((host, port), HANDSHAKE_TIMEOUT_S) as connection, context.wrap_socket(connection):
            return True
    except OSError:
        return False
