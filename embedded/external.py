"""Servers that are already there, named in the environment: looked at, never started, stopped or written to."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from embedded import ports
from embedded.errors import EmbeddedError

#: Server name → the variable that names its address; the same as the worker and the tools read.
VARIABLES = {"kafka": "MINDSTREAM_KAFKA", "milvus": "MINDSTREAM_MILVUS"}

#: Ports of addresses without one.
_DEFAULT_PORTS = {"kafka": 9092, "http": 19530, "https": 443}


@dataclass(frozen=True)
class External:
    """One server that somebody else runs.

    Attributes:
        name: "kafka" or "milvus".
        address: as given: bootstrap servers, or a URI.
    """

    name: str
    address: str

    @property
    def variable(self) -> str:
        return VARIABLES[self.name]

    def endpoints(self) -> list[tuple[str, int]]:
        """Hosts and ports in `address`; any one that accepts connections will do."""
        try:
            if self.name == "kafka":
                parts = [urlsplit(f"kafka://{server.strip()}") for server in self.address.split(",")]
            else:
                parts = [urlsplit(self.address if "://" in self.address else f"http://{self.address}")]
            found = [(part.hostname, part.port or _DEFAULT_PORTS.get(part.scheme, 0)) for part in parts]
        except ValueError:  # a port that is no number
            found = []
        usable = [(host, port) for host, port in found if host and port]
        if not usable:
            example = "host:9092" if self.name == "kafka" else "http://host:19530"
            raise EmbeddedError(f"{self.variable}={self.address} names no server: it should look like {example}.")
        return usable

    def reachable(self) -> bool:
        """Whether it accepts connections. More can't be asked: it may want credentials that only its clients have."""
        return any(ports.accepts(host, port) for host, port in self.endpoints())

    def require(self) -> str:
        """Its address; raises `EmbeddedError` if nobody answers there."""
        if not self.reachable():
            raise EmbeddedError(
                f"Nobody answers at {self.address} ({self.variable}). Start that server, correct the variable, "
                f"or unset {self.variable} to have a server started here."
            )
        return self.address


def from_environment(name: str, environ: Mapping[str, str] = os.environ) -> External | None:
    """The server that the environment names, or None."""
    address = environ.get(VARIABLES[name], "").strip()
    return External(name, address) if address else None
