"""Faults, sorted by what must happen next.

MindstreamError
├── BadMessage      permanent, this message only  → dead letter with its reason; the stream goes on
├── TransientError  Milvus or Kafka is away       → retried with back-off; the partition waits, nothing is committed
└── FatalError      the configuration cannot work → the start is refused; the message names the remedy

Exit statuses of all programs, worker, tools and producers alike; supervisors may restart after 69, 70 and 75:

0    done, or stopped as it was told to (worker)
1    what was given or found is not in order: bad lines, messages that were not delivered, books that do not balance
2    the command line is wrong
69   stood still although messages wait (EX_UNAVAILABLE)
70   a defect of this software (EX_SOFTWARE); the log has the traceback
75   Kafka or Milvus is away, or was for longer than the retry budget (EX_TEMPFAIL)
78   the configuration cannot work, or Kafka or Milvus refuses us (EX_CONFIG); the message says what mends it
130, 143   stopped by SIGINT, SIGTERM (tools and producers)
"""

from __future__ import annotations

from typing import Literal

EXIT_UNSOUND = 1
EXIT_STALLED = 69
EXIT_DEFECT = 70
EXIT_TRANSIENT = 75
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
