"""The exit status after a crash, by what caused it."""

from __future__ import annotations

import socket

import pytest
from aiokafka.errors import (  # type: ignore[import-untyped]
    IllegalStateError,
    KafkaConnectionError,
    KafkaError,
    NodeNotReadyError,
    RequestTimedOutError,
)

from configs.errors import TransientError
from streams.agents.crashes import crash_status
from streams.errors import RestartRequired


def _caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        KafkaConnectionError("Unable to bootstrap"),
        NodeNotReadyError(),
        RequestTimedOutError(),
        ConnectionRefusedError(),
        socket.gaierror(),
        TransientError("Kafka", "unavailable"),
        RestartRequired("it"),
        _caused(KafkaError("Unexpected error during coordination"), NodeNotReadyError()),
    ],
)
def test_an_unavailable_broker_is_no_defect(error: Exception) -> None:
    assert crash_status(error) == 75


@pytest.mark.parametrize(
    "error", [None, RuntimeError(), OSError("disk full"), IllegalStateError(), _caused(KafkaError(), AssertionError())]
)
def test_everything_else_is(error: Exception | None) -> None:
    assert crash_status(error) == 70
