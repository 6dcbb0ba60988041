"""Errors of pymilvus and gRPC in this project's terms."""

from __future__ import annotations

import grpc
import pytest
from pymilvus import MilvusException
from pymilvus.exceptions import DataNotMatchException, ParamError

import streams.milvus.client
from configs.errors import FatalError, TransientError
from streams.errors import RefusedData, RestartRequired
from streams.milvus.client import translated_errors

URI = "http://milvus:19530"


class _CallError(grpc.RpcError, grpc.Call):  # type: ignore[misc]  # grpc has no types
    """gRPC's error for a failed call."""

    def __init__(self, code: grpc.StatusCode, details: str | None) -> None:
        self._code, self._details = code, details

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str | None:
        return self._details

    initial_metadata = trailing_metadata = is_active = time_remaining = cancel = add_callback = lambda *_: None


def _raised(error: Exception, uri: str = URI) -> Exception:
    """Return what `translated_errors` makes of an error."""
    loads: list[None] = []
    with pytest.raises(Exception) as raised, translated_errors(uri, "items_m1", lambda: loads.append(None)):  # noqa: PT011
        raise error
    assert len(loads) == (isinstance(error, MilvusException) and error.code == 101)
    return raised.value


@pytest.mark.parametrize(
    ("code", "details", "kind", "text"),
    [
        (grpc.StatusCode.UNAUTHENTICATED, "auth check failure", FatalError, "check milvus.token"),
        (grpc.StatusCode.UNIMPLEMENTED, "unknown method", FatalError, "its version"),
        (grpc.StatusCode.UNAVAILABLE, "Ssl handshake failed: TSI_PROTOCOL_FAILURE", FatalError, "milvus.ca_file"),
        (grpc.StatusCode.UNAVAILABLE, "connection refused", TransientError, "connection refused (UNAVAILABLE)"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, None, TransientError, "DEADLINE_EXCEEDED"),
    ],
)
def test_grpc_codes(code: grpc.StatusCode, details: str | None, kind: type[Exception], text: str) -> None:
    found = _raised(_CallError(code, details))
    assert type(found) is kind
    assert text in str(found)
    assert "milvus:19530" in str(found)


def test_an_error_without_a_code_is_transient() -> None:
    assert isinstance(_raised(grpc.RpcError("channel closed")), TransientError)


def test_milvus_codes() -> None:
    dropped = _raised(MilvusException(100, "collection not found"))
    assert isinstance(dropped, RestartRequired)
    assert "items_m1" in str(dropped)
    assert "item worker creates it" in str(dropped)
    assert isinstance(_raised(MilvusException(101, "collection not loaded")), TransientError)
    assert isinstance(_raised(MilvusException(2, "out of memory")), TransientError)


@pytest.mark.parametrize(
    "error",
    [
        # Seen: Milvus 2.3.5.
        MilvusException(
            65535, "cannot parse expression: item_id in [-9223372036854775808], error: value out of range", 1
        ),
        MilvusException(65535, "failed to create expr plan, expr = item_id in [-9223372036854775808]", 1),
        MilvusException(65535, "value 'NaN' is not a number or infinity", 1),
        # Seen: milvus-lite 3.2.2.
        MilvusException(6, "vector field 'embedding' expected dim 4, got 5", 6),
        # From the source of Milvus 2.4 to 2.6.
        MilvusException(1100, "failed to create query plan: cannot parse expression: invalid parameter", 5),
        MilvusException(1102, "message size is too large", 1),
        MilvusException(2201, "cannot parse expression", 1, is_input_error=True),
    ],
)
def test_a_refusal_of_data_is_no_outage(error: MilvusException) -> None:
    found = _raised(error)
    assert isinstance(found, RefusedData)
    assert found.server == "Milvus"
    assert found.detail == error.message


@pytest.mark.parametrize(
    "error",
    [
        MilvusException(1, "service not ready"),
        MilvusException(3, "memory limit exceeded"),
        MilvusException(6, "cross cluster routing", 1),
        MilvusException(8, "rate limit exceeded"),
        MilvusException(503, "channel not available"),
        MilvusException(2000, "segcore error"),
        MilvusException(2201, "segcore Future was canceled", 1),
        MilvusException(65535, "failed to search/query delegator 4 for channel c: fail to Search, QueryNode ID=4", 1),
        MilvusException(65535, "show collections failed: context deadline exceeded", 1),
    ],
)
def test_an_outage_is_no_refusal_of_data(error: MilvusException) -> None:
    assert isinstance(_raised(error), TransientError)


def test_a_failed_load_leaves_the_error_transient() -> None:
    def load() -> None:
        raise MilvusException(101, "collection not loaded")

    with pytest.raises(TransientError), translated_errors(URI, "items_m1", load):
        raise MilvusException(101, "collection not loaded")


@pytest.mark.parametrize(
    "error", [ParamError(1, "limit must be positive"), DataNotMatchException(1, "Insert missed a field")]
)
def test_wrong_arguments_are_a_defect(error: MilvusException) -> None:
    assert _raised(error) is error


@pytest.mark.parametrize("tls", [True, False])
def test_while_connecting_the_reason_is_in_the_cause(monkeypatch: pytest.MonkeyPatch, tls: bool) -> None:
    monkeypatch.setattr(streams.milvus.client, "speaks_tls", lambda host, port: tls)
    error = MilvusException(2, "Fail connecting to server")
    error.__cause__ = _CallError(grpc.StatusCode.UNAVAILABLE, "socket closed")
    found = _raised(error)
    assert isinstance(found, FatalError) is tls
    assert ("write https://" if tls else "socket closed") in str(found)
