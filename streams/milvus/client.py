"""A connection to Milvus, and its errors in this project's terms."""

from __future__ import annotations

from typing import Any

from pymilvus import MilvusClient

from configs.errors import FatalError
from configs.schema import Milvus

#: Seconds for requests that wait for Milvus' disk and its coordinators: create, load, flush.
SLOW_TIMEOUT = 60.0


def connect(settings: Milvus) -> MilvusClient:
    # A connection of its own, because pymilvus shares them by address, whatever the options; and without its pings of
    # idle connections, for which servers with gRPC's usual limits, milvus-lite among them, close the connection.
    options: dict[str, Any] = {"dedicated": True, "grpc_options": {"grpc.keepalive_permit_without_calls": 0}}
    if settings.token is not None:
        options["token"] = settings.token.get_secret_value()
    if settings.ca_file is not None:
        options["server_pem_path"] = str(settings.ca_file)
    try:
        return MilvusClient(uri=settings.uri, timeout=settings.timeout, **options)
    except OSError as error:
        raise FatalError(f"milvus.ca_file {settings.ca_file} cannot be read: {error.strerror}") from None
