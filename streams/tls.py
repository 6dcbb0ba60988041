"""Find out whether a server speaks TLS: to a client without TLS, such a server looks unavailable."""

from __future__ import annotations

import socket
import ssl

#: Seconds to wait for the server's part of the TLS handshake, or for a broker's answer to a client without TLS.
HANDSHAKE_TIMEOUT_S = 2.0


def speaks_tls(host: str, port: int) -> bool:
    """Return whether a TLS server listens at this address.

    Its certificate is not verified, because nothing but the handshake is sent.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection((host, port), HANDSHAKE_TIMEOUT_S) as connection, context.wrap_socket(connection):
            return True
    except OSError:
        return False
