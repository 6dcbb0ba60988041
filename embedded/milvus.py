"""Milvus in two flavours: the small Python server of milvus-lite, and the real standalone server from its wheel."""

from __future__ import annotations

import importlib.util
import logging
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pymilvus import MilvusClient
from pymilvus.client.types import LoadState

from embedded import ports
from embedded.errors import EmbeddedError
from embedded.server import Launch, Report, Server

#: Prefix of the readiness check's collections; they are dropped afterwards.
PROBE = "mindstream_probe_"
#: Seconds for one request of the readiness check.
_STEP = 10.0
#: Seconds within which a running server answers even on a busy machine.
_PING = 5.0


class Milvus(Server):
    """What both flavours share: the protocol."""

    name = "milvus"
    #: Whether the readiness check makes a collection although there are some.
    makes_another = True

    @property
    def home(self) -> Path:
        return self.place.folder / "milvus" / self.flavour

    @property
    def log_name(self) -> str:
        return f"milvus-{self.flavour}"

    def uri(self, port: int) -> str:
        return f"http://{ports.HOST}:{port}"

    def client(self) -> dict[str, Any]:
        """Settings of a client that may do everything, besides the address."""
        return {}

    def probe(self, port: int) -> None:
        with _client(self.uri(port), _STEP, **self.client()) as client:
            names = client.list_collections()
            for stale in (name for name in names if name.startswith(PROBE)):
                client.drop_collection(stale)
            others = [name for name in names if not name.startswith(PROBE)]
            if others and not self.makes_another:
                _read(client, others)
            else:
                _try_out(client)

    def ping(self, port: int) -> None:
        with _client(self.uri(port), _PING, **self.client()) as client:
            client.list_collections()


class Lite(Milvus):
    flavour = "lite"
    title = "Milvus (lite)"

    def check(self) -> None:
        if importlib.util.find_spec("milvus_lite") is None:
            raise EmbeddedError(f"milvus-lite is not installed: {sys.executable} -m pip install -e '.[embedded]'")

    def install(self, report: Report) -> None:
        """It is one of our dependencies."""

    def launch(self, port: int, report: Report) -> Launch:  # noqa: ARG002 - this flavour has nothing to say
        self.home.mkdir(parents=True, exist_ok=True)
        # The server closes its files in good order on Ctrl-C only; SIGTERM shall do the same.
        program = (
            "import signal, sys; signal.signal(signal.SIGTERM, signal.default_int_handler); "
            "from milvus_lite.cmdline import main; sys.exit(main())"
        )
        arguments: list[str | Path] = [
            "server",
            "--data-dir",
            self.home / "data",
            "--host",
            ports.HOST,
            "--port",
            str(port),
        ]
        return Launch([sys.executable, "-c", program, *arguments], self.home)


def _try_out(client: MilvusClient) -> None:
    """Create a collection, insert two vectors, find the nearer one, drop the collection."""
    name = f"{PROBE}{uuid.uuid4().hex[:8]}"
    client.create_collection(name, dimension=4, metric_type="IP", consistency_level="Strong")
    try:
        vectors = {1: [1.0, 0.0, 0.0, 0.0], 2: [0.0, 1.0, 0.0, 0.0]}
        client.insert(name, [{"id": key, "vector": vector} for key, vector in vectors.items()])
        hits = client.search(name, [vectors[2]], limit=1)[0]
        # The standalone server of the wheel does not name the key field, hence `hit.id`.
        if [hit.id for hit in hits] != [2]:
            raise RuntimeError(f"an inserted vector was not found: {hits}")
    finally:
        client.drop_collection(name)


def _read(client: MilvusClient, collections: Sequence[str]) -> None:
    """Count the rows of those that were loaded when the server ended: it loads them again by itself."""
    for name in collections:
        if client.get_load_state(name)["state"] != LoadState.NotLoad:
            client.query(name, filter="", output_fields=["count(*)"], consistency_level="Strong")


@contextmanager
def _client(uri: str, timeout: float, **settings: Any) -> Iterator[MilvusClient]:
    """A client that prints nothing: while a server starts, failures are expected."""
    logger = logging.getLogger("pymilvus")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        client = MilvusClient(uri, timeout=timeout, **settings)
        try:
            yield client
        finally:
            client.close()
    finally:
        logger.setLevel(level)
