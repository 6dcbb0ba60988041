"""External servers, named in the environment: they are checked, never started, stopped or written to."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from embedded import ports
from embedded.errors import EmbeddedError

#: Server name → the variable with its address, which the worker and the tools read, too.
VARIABLES = {"kafka": "MINDSTREAM_KAFKA", "milvus": "MINDSTREAM_MILVUS"}

#: Ports of addresses without one.
_DEFAULT_PORTS = {"kafka": 9092, "http": 19530, "https": 443}


@dataclass(frozen=True)
class ExternalServer:
    """A server that was not started here.

    Attributes:
        name: "kafka" or "milvus".
        address: bootstrap servers, or a URI, as in the variable.
    """

    name: str
    address: str

    @property
    def variable(self) -> str:
        return VARIABLES[self.name]

    def endpoints(self) -> list[tuple[str, int]]:
        """Return the hosts and ports in `address`.

        Raises:
            EmbeddedError: it has none.
        """
        try:
            if self.name == "kafka":
                parts = [urlsplit(f"kafka://{server.strip()}") for server in self.address.split(",")]
            else:
                parts = [urlsplit(self.address if "://" in self.address else f"http://{self.address}")]
            found = [(part.hostname, part.port or _DEFAULT_PORTS.get(part.scheme, 0)) for part in parts]
        except ValueError:  # the port is not a number
            found = []
        usable = [(host, port) for host, port in found if host and port]
        if not usable:
            example = "host:9092" if self.name == "kafka" else "http://host:19530"
            raise EmbeddedError(f"{self.variable}={self.address} names no server; it should look like {example}.")
        return usable

    def reachable(self) -> bool:
        """Return whether one of its hosts accepts connections. Requests may need credentials that only clients have."""
        return any(ports.accepts(host, port) for host, port in self.endpoints())

    def require_reachable(self) -> str:
        """Return its address; raise `EmbeddedError` if it is unreachable."""
        if not self.reachable():
            raise EmbeddedError(
                f"No server answers at {self.address} ({self.variable}). Start that server, correct the variable, "
                f"or unset {self.variable} to have a server started here."
            )
        return self.address


def from_environment(name: str, environ: Mapping[str, str] = os.environ) -> ExternalServer | None:
    """Return the server that the environment names; None if it names none."""
    address = environ.get(VARIABLES[name], "").strip()
    return ExternalServer(name, address) if address else None
