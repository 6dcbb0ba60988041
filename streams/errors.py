"""Faults, sorted by what must happen next.

MindstreamError
├── BadMessage      permanent, this message only  → dead letter with its reason; the stream goes on
├── TransientError  Milvus or Kafka is away       → retried with back-off; the partition waits, nothing is committed
└── FatalError      the configuration cannot work → the start is refused; the message names the remedy
"""

from __future__ import annotations

from typing import Literal

#: Exit status: a transient fault outlasted its budget (EX_TEMPFAIL); restart the process.
EXIT_TRANSIENT = 75
#: Exit status: a defect of this software (EX_SOFTWARE); the log has the traceback.
EXIT_DEFECT = 70
#: Exit status: the process stood still although messages wait (EX_UNAVAILABLE); restart it.
EXIT_STALLED = 69
#: Exit status: the configuration cannot work (EX_CONFIG); the message says what mends it.
EXIT_CONFIG = 78

Reason = Literal[
    "null_value",  # a click without a value
    "too_large",  # more bytes than a message of its kind can have
    "not_json",  # not UTF-8, not JSON (NaN and Infinity are not JSON), or not a JSON object
    "missing_field",
    "wrong_type",
    "out_of_range",  # item id 0 (padding) or beyond int64, time that is no number of seconds, an overlong user id
    "bad_key",  # missing, or not the text of the user or item id
    "bad_embedding",  # not a list of finite numbers, or all zero
    "wrong_dimension",  # an embedding of another length than the model's
]


class MindstreamError(Exception):
    """Base of all faults that this project raises on purpose."""


class BadMessage(MindstreamError):  # noqa: N818 - a value with a destination, not a failure of ours
    """One message that can never be processed.

    Attributes:
        reason: one of `Reason`, for headers, counters and filters.
        detail: for a person: what was found, what was expected.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class TransientError(MindstreamError):
    """An outside system did not answer properly; the same call may succeed later."""

    def __init__(self, system: str, detail: str) -> None:
        super().__init__(f"{system}: {detail}")
        self.system = system


class PartitionLost(MindstreamError):  # noqa: N818 - an event, not a failure
    """The partition was taken away from this process while its batch was in work."""


class FatalError(MindstreamError):
    """The process cannot work as configured. The message says which command or setting mends it."""
