"""A TCP proxy that can stop forwarding, as a network does when a cable is cut."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

from embedded.ports import HOST, pick


class Proxy:
    """Forwards connections from `port` to the port `target` of this machine, unless it is cut."""

    def __init__(self) -> None:
        (self.port,) = pick(1)
        self.target = 0
        self._flowing = threading.Event()
        self._flowing.set()
        self._listener = socket.create_server((HOST, self.port), backlog=128)
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Stop forwarding. Connections stay open, so that neither side notices."""
        self._flowing.clear()

    def reconnect(self) -> None:
        """Forward again, first the bytes received since `cut`, which TCP would retransmit."""
        self._flowing.set()

    def close(self) -> None:
        self._flowing.set()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        self._flowing.wait()
        try:
            server = socket.create_connection((HOST, self.target))
        except OSError:
            client.close()
            return
        for source, sink in ((client, server), (server, client)):
            threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while chunk := source.recv(65_536):
                self._flowing.wait()
                sink.sendall(chunk)
        self._flowing.wait()
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
