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
from embedded.instance import Reporter
from embedded.server import Launch, Server

#: Prefix of the readiness check's collections; they are dropped afterwards.
PROBE = "mindstream_probe_"
#: Seconds for one request of the readiness check.
_STEP_TIMEOUT_S = 10.0
#: Seconds within which a running server answers even on a busy machine.
_PING_TIMEOUT_S = 5.0


class Milvus(Server):
    """The common base of both flavours, which have the same protocol."""

    name = "milvus"
    #: Whether the readiness check creates a collection although there are others.
    probe_creates_collection = True

    @property
    def home(self) -> Path:
        return self.instance.folder / "milvus" / self.flavour

    @property
    def log_name(self) -> str:
        return f"milvus-{self.flavour}"

    def uri(self, port: int) -> str:
        return f"http://{ports.HOST}:{port}"

    def client(self) -> dict[str, Any]:
        """Return the settings of a client that has all rights, except the address."""
        return {}

    def probe(self, port: int) -> None:
        with _client(self.uri(port), _STEP_TIMEOUT_S, **self.client()) as client:
            names = client.list_collections()
            for stale in (name for name in names if name.startswith(PROBE)):
                client.drop_collection(stale)
            others = [name for name in names if not name.startswith(PROBE)]
            if others and not self.probe_creates_collection:
                _count_rows(client, others)
            else:
                _search_inserted(client)

    def ping(self, port: int) -> None:
        with _client(self.uri(port), _PING_TIMEOUT_S, **self.client()) as client:
            client.list_collections()


class Lite(Milvus):
    flavour = "lite"
    title = "Milvus (lite)"

    def check(self) -> None:
        if importlib.util.find_spec("milvus_lite") is None:
            raise EmbeddedError(f"milvus-lite is not installed: {sys.executable} -m pip install -e '.[embedded]'")

    def install(self, report: Reporter) -> None:
        """Do nothing: it is one of our dependencies."""

    def launch(self, port: int, report: Reporter) -> Launch:  # noqa: ARG002 - of the base class
        self.home.mkdir(parents=True, exist_ok=True)
        # The server closes its files properly on SIGINT only; make SIGTERM do the same.
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


def _search_inserted(client: MilvusClient) -> None:
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


def _count_rows(client: MilvusClient, collections: Sequence[str]) -> None:
    """Count the rows of the collections that were loaded when the server ended; it loads them again by itself."""
    for name in collections:
        if client.get_load_state(name)["state"] != LoadState.NotLoad:
            client.query(name, filter="", output_fields=["count(*)"], consistency_level="Strong")


@contextmanager
def _client(uri: str, timeout: float, **settings: Any) -> Iterator[MilvusClient]:
    """Connect a client that logs nothing: while a server starts, failures are expected."""
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
