"""The errors of the streaming side; the base and the exit statuses are in `configs.errors`.

MindstreamError
├── BadMessage       one message is invalid, permanently   → it becomes a dead letter; the others are processed
├── RefusedData      a server refuses a request's data     → the batch is divided; one message becomes a dead letter
├── PartitionLost    another worker owns the partition     → the batch is abandoned; the new owner reads it again
├── TransientError   Milvus or Kafka is unavailable        → retried with back-off; nothing is committed meanwhile
├── RestartRequired  only a new process can continue       → exit with status 75, without commit, to be restarted
└── FatalError       the configuration cannot work         → the process exits; the message names the remedy
"""

from __future__ import annotations

from typing import Literal

from configs.errors import EXIT_CONFIG, EXIT_TRANSIENT, MindstreamError

Reason = Literal[
    "null_value",  # a click without a value
    "too_large",  # a click larger than any click can be
    "not_json",  # not UTF-8, not JSON (NaN and Infinity are not JSON), or not a JSON object
    "missing_field",
    "wrong_type",
    "out_of_range",  # an item id or a time beyond `model.data.limits`, a user id that is empty or too long
    "bad_key",  # missing, or not the text of the user or item id
    "wrong_partition",  # another partition than the key belongs to
    "bad_embedding",  # not a list of finite numbers, or all zero
    "wrong_dimension",  # the embedding has not as many numbers as the model has dimensions
    "wrong_norm",  # the norm of the embedding is not 1, or is far above those of the model's items
    "refused",  # Milvus refuses the message's data
]


class BadMessage(MindstreamError):  # noqa: N818 - a fault of the input, not of the program
    """A message that can never be processed.

    Attributes:
        reason: one of `Reason`; used in headers, counters and filters.
        detail: human-readable text: what was expected, and what was found.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class RefusedData(MindstreamError):  # noqa: N818 - a fault of the input, not of the program
    """A server refused a request because of the data in it: a retry with the same data fails again.

    Where the data is not that of messages, but of the configuration, the process cannot work.

    Attributes:
        server: name of the server.
        detail: human-readable text: what it said.
    """

    exit_status = EXIT_CONFIG

    def __init__(self, server: str, detail: str) -> None:
        super().__init__(f"{server} refuses the data: {detail}")
        self.server = server
        self.detail = detail


class RestartRequired(MindstreamError):  # noqa: N818 - what has to happen
    """This process cannot continue, but a process that starts now can; the message says why."""

    exit_status = EXIT_TRANSIENT


class PartitionLost(MindstreamError):  # noqa: N818 - an event, not a failure
    """The partition was revoked from this process while it processed a batch."""
