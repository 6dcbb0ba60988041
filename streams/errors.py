"""The errors of the streaming side; the base and the exit statuses are in `configs.errors`.

MindstreamError
├── BadMessage      one message is invalid, permanently  → dead letter with its reason; the stream goes on
├── PartitionLost   another worker owns the partition    → the batch is abandoned; the new owner reads it again
├── TransientError  Milvus or Kafka is unavailable       → retried with back-off; nothing is committed meanwhile
└── FatalError      the configuration cannot work        → the start is refused; the message names the remedy
"""

from __future__ import annotations

from typing import Literal

from configs.errors import MindstreamError

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


class PartitionLost(MindstreamError):  # noqa: N818 - an event, not a failure
    """The partition was taken away from this process while its batch was in work."""
