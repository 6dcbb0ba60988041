"""The exit status after a crash of Faust's services, by what caused it."""

from __future__ import annotations

import socket

from aiokafka.errors import (  # type: ignore[import-untyped]
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    KafkaUnavailableError,
)

from configs.errors import EXIT_DEFECT, EXIT_TRANSIENT, MindstreamError

#: Errors of an unavailable broker; aiokafka marks only some of them as retriable.
_UNAVAILABLE = (KafkaConnectionError, KafkaTimeoutError, KafkaUnavailableError, ConnectionError, socket.gaierror)


def crash_status(error: BaseException | None) -> int:
    """Return the exit status after an exception that left a service: 75 if a broker was unavailable, else 70."""
    while error is not None:
        if isinstance(error, MindstreamError):
            return error.exit_status
        if isinstance(error, _UNAVAILABLE) or (isinstance(error, KafkaError) and error.retriable):
            return EXIT_TRANSIENT
        error = error.__cause__
    return EXIT_DEFECT
