"""A connection to Milvus, and its errors in this project's terms."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import grpc
from pymilvus import MilvusClient, MilvusException
from pymilvus.exceptions import DataNotMatchException, ParamError

from configs.errors import FatalError, TransientError
from configs.schema import Milvus
from streams.errors import RefusedData, RestartRequired
from streams.tls import speaks_tls

#: Seconds for requests that wait for Milvus' disk and its coordinators: create, load.
SLOW_TIMEOUT_S = 60.0
#: Milvus' error code for a request to a collection that does not exist.
_COLLECTION_NOT_FOUND = 100
#: Milvus' error code for a request to a collection that is not loaded.
_COLLECTION_NOT_LOADED = 101
#: Milvus' error codes for a request that is invalid, from 2.4 on: an invalid parameter, one that is too large.
_INVALID = (1100, 1102)
#: The same for an invalid expression, where the server classifies its errors; before, the code had another meaning.
_INVALID_EXPRESSION = 2201
#: milvus-lite's error code for an illegal argument, in both fields of its answer.
_LITE_ILLEGAL_ARGUMENT = 6
#: Milvus' error code for whatever has none. Servers before 2.4 use it for invalid requests, too, with these texts.
_UNEXPECTED = 65535
_INVALID_TEXTS = ("cannot parse expression", "failed to create expr plan", "is not a number or infinity")
#: Errors that pymilvus raises without a request: it rejects the arguments.
_DEFECTS = (ParamError, DataNotMatchException)
#: gRPC codes after which a retry cannot succeed.
_REFUSED = (
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.INVALID_ARGUMENT,
)
#: Texts of gRPC's errors, with the code for "unavailable", when the TLS handshake fails and a retry cannot succeed.
_TLS_FAILURES = ("TSI_PROTOCOL_FAILURE", "security handshaker", "peer certificate")

# pymilvus logs each failed call as an error before it raises; the code that handles the exception reports it once.
logging.getLogger("pymilvus").setLevel(logging.CRITICAL)


def connect(settings: Milvus) -> MilvusClient:
    """Return a client with a connection of its own.

    Raises:
        FatalError: milvus.ca_file cannot be read.
        MilvusException: Milvus is unavailable or refuses this client; `translated_errors` converts it.
    """
    # A connection of its own, because pymilvus shares connections by address, whatever their options. No gRPC pings
    # while it is idle, because servers with gRPC's usual limits, milvus-lite among them, then close the connection.
    options: dict[str, Any] = {"dedicated": True, "grpc_options": {"grpc.keepalive_permit_without_calls": 0}}
    if settings.token is not None:
        options["token"] = settings.token.get_secret_value()
    if settings.ca_file is not None:
        options["server_pem_path"] = str(settings.ca_file)
    try:
        return MilvusClient(uri=settings.uri, timeout=settings.timeout, **options)
    except OSError as error:
        raise FatalError(f"milvus.ca_file {settings.ca_file} cannot be read: {error.strerror}") from None


@contextmanager
def translated_errors(uri: str, collection: str, load: Callable[[], object]) -> Iterator[None]:
    """Convert the errors of pymilvus and gRPC to this project's.

    Args:
        uri: address of the server.
        collection: name of the collection that the calls are about.
        load: loads the collection; called if a restarted Milvus has not loaded it again, so that a retry succeeds.

    Raises:
        TransientError: Milvus is unavailable, or cannot answer now.
        RefusedData: it refuses the values in the request.
        FatalError: it refuses this client; the message names the remedy.
        RestartRequired: the collection does not exist any more.
    """
    try:
        yield
    except grpc.RpcError as error:
        raise _from_grpc(error, uri) from None
    except _DEFECTS:
        raise
    except MilvusException as error:
        if error.code == _COLLECTION_NOT_FOUND:
            raise RestartRequired(
                f"Milvus at {uri} has no collection {collection} any more: it was dropped. The item worker creates it "
                "when it starts again, and fills it from the topic of items"
            ) from None
        if error.code == _COLLECTION_NOT_LOADED:  # milvus-lite does not load collections again when it restarts
            with suppress(MilvusException, grpc.RpcError):
                load()
        if isinstance(error.__cause__, grpc.RpcError):  # while connecting: pymilvus' own text omits the reason
            url = urlsplit(uri)
            if url.scheme == "http" and speaks_tls(url.hostname or "", url.port or 80):
                raise FatalError(f"Milvus at {uri} speaks TLS; write https:// in milvus.uri") from None
            raise _from_grpc(error.__cause__, uri) from None
        if _is_refusal(error):
            raise RefusedData("Milvus", error.message) from None
        # Everything else may be transient: servers start, elect coordinators, run out of memory.
        raise TransientError("Milvus", f"{uri}: {error.message}") from None


@contextmanager
def refused_settings(uri: str) -> Iterator[None]:
    """Convert the refusal of a search: its queries are our own, so it is for its settings."""
    try:
        yield
    except RefusedData as error:
        raise FatalError(
            f"Milvus at {uri} refuses the search: {error.detail}; check milvus.hnsw_ef and recall.top_k"
        ) from None


@contextmanager
def without_data(uri: str) -> Iterator[None]:
    """Convert the refusal of a request without data of messages: it is a fault of the server, and blames no message."""
    try:
        yield
    except RefusedData as error:
        raise TransientError("Milvus", f"{uri}: {error.detail}") from None


def _is_refusal(error: MilvusException) -> bool:
    """Return whether a retry of the same request must fail again, because the server calls its values invalid."""
    if error.code == _UNEXPECTED:
        return any(text in error.message for text in _INVALID_TEXTS)
    if error.code == _LITE_ILLEGAL_ARGUMENT:  # from 2.4 on, servers use this number for a fault of theirs
        return bool(error.compatible_code == _LITE_ILLEGAL_ARGUMENT)
    return error.code in _INVALID or (error.code == _INVALID_EXPRESSION and error.is_input_error)


def _from_grpc(error: grpc.RpcError, uri: str) -> FatalError | TransientError:
    if not isinstance(error, grpc.Call):
        return TransientError("Milvus", f"{uri}: {error}")
    code, detail = error.code(), error.details() or ""
    if code in _REFUSED:
        return FatalError(f"Milvus at {uri} refuses: {detail} ({code.name}); check milvus.token and its version")
    if any(text in detail for text in _TLS_FAILURES):
        return FatalError(f"Milvus at {uri}: {detail}; check milvus.ca_file, and that the server speaks TLS")
    return TransientError("Milvus", f"{uri}: {detail} ({code.name})")
