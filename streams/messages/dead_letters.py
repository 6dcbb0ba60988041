"""Dead letters: messages that can never be processed, kept on a topic with their original bytes and the reason.

`streams.ports.DeadLetter`   an invalid message and its reason, on the way to the topic
`DeadLetterTopic`            converts them to messages of the topic
`StoredDeadLetter`           a dead letter as read back from the topic
`MessageRef`                 topic, partition and offset of a message: of the invalid one, or of its dead letter

A dead letter can be replayed, that is sent back to its source topic (`streams.tools.dead_letters_replay`). The message
then has its original headers and two more: `replay-attempt`, the number of times that it has been sent back, and
`replay-of`, the `MessageRef` of the original. If it fails again, its new dead letter has these headers too, so attempts
add up. A replay is recorded on the dead-letter topic by a *receipt*: a message without value, with the one header
`replayed`.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from streams.ports import DeadLetter, Message, Output

#: Longer error texts are cut; they describe the value, which is kept.
_MAX_ERROR_CHARACTERS = 500
#: Larger headers of the original message are left out. The dead-letter topic accepts 1 MiB beyond the largest message.
_MAX_HEADER_BYTES = 262_144
_REPLAY_ATTEMPT, _REPLAY_OF, _REPLAYED = "replay-attempt", "replay-of", "replayed"

#: Numbers and times in headers, as in `schemas/dead_letter.json`.
_DIGITS, _SECONDS = re.compile(rb"0|[1-9][0-9]{0,18}"), re.compile(rb"[0-9]{1,11}\.[0-9]{3}")

Headers = Sequence[tuple[str, bytes | None]]


class MessageRef(NamedTuple):
    """Topic, partition and offset of a message; as text `topic/partition/offset`."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"

    @classmethod
    def from_message(cls, message: Message) -> MessageRef:
        return cls(message.topic, message.partition, message.offset)

    @classmethod
    def parse(cls, text: str) -> MessageRef:
        """Parse what `str` returns.

        Raises:
            ValueError: the text is not of the form topic/partition/offset.
        """
        topic, partition, offset = text.split("/")  # topic names cannot contain a slash
        return cls(topic, int(partition), int(offset))


@dataclass(frozen=True, slots=True)
class StoredDeadLetter:
    """A dead letter as the dead-letter topic keeps it.

    Attributes:
        message: the original message: its topic, partition, offset, key, value and headers.
        reason: one of `streams.errors.Reason`.
        error: human-readable text: what was expected, and what was found.
        time: when it became a dead letter, in seconds since 1970.
        attempt: number of times that it had been replayed before.
        omitted_bytes: size of key and value where they were too large to keep; 0 if they were kept.
        kept_at: the dead letter on its topic.
    """

    message: Message
    reason: str
    error: str
    time: float
    attempt: int
    omitted_bytes: int
    kept_at: MessageRef

    @property
    def source(self) -> MessageRef:
        """The original message on its topic."""
        return MessageRef.from_message(self.message)


def dead_letter_output(topic: str, dead_letter: DeadLetter, now: float, max_bytes: int) -> Output:
    """Return the message for the dead-letter topic: key and value as received, everything else in the headers.

    The headers, all UTF-8 text, are `reason` (one of `streams.errors.Reason`), `error` (human-readable), `topic`,
    `partition` and `offset` of the original (the same in all repeats of one dead letter), `time` (seconds since 1970),
    `attempt` (number of earlier replays), and, if the original had headers, `headers`: a JSON list of [name, value],
    where a value that is not UTF-8 is {"base64": …}. Headers too large to keep are left out; `headers-omitted` is
    their number.

    A compressed batch of a few kilobytes may contain a message of many megabytes, which the dead-letter topic would
    refuse. If key and value together exceed `max_bytes`, both are left out; `omitted` is their size in bytes.
    """
    source = dead_letter.message
    key, value = source.key, source.value
    size_bytes = len(key or b"") + len(value or b"")
    headers = {
        "reason": dead_letter.reason,
        "error": dead_letter.detail[:_MAX_ERROR_CHARACTERS],
        "topic": source.topic,
        "partition": str(source.partition),
        "offset": str(source.offset),
        "time": f"{now:.3f}",
        "attempt": str(_attempt(source.headers)),
    }
    if size_bytes > max_bytes:
        headers["omitted"] = str(size_bytes)
        key = value = None
    encoded = [(name, text.encode("utf-8", "backslashreplace")) for name, text in headers.items()]
    if source.headers:
        original = _headers_to_json(source.headers)
        fits = len(original) <= _MAX_HEADER_BYTES
        encoded.append(("headers", original) if fits else ("headers-omitted", str(len(source.headers)).encode()))
    return Output(topic, key, value, headers=encoded)


@dataclass(frozen=True, slots=True)
class DeadLetterTopic:
    """The topic that keeps dead letters: its name, and the most bytes of key and value that one keeps."""

    name: str
    max_bytes: int

    def outputs(self, dead_letters: Iterable[DeadLetter], now: float) -> list[Output]:
        """Return the messages that keep these dead letters; `now` in seconds since 1970."""
        return [dead_letter_output(self.name, dead_letter, now, self.max_bytes) for dead_letter in dead_letters]


def read_dead_letter(kept: Message, headers: Mapping[str, bytes]) -> StoredDeadLetter | None:
    """Decode a message of the dead-letter topic; None for receipts and for messages that other programs wrote."""
    try:
        source = MessageRef(headers["topic"].decode(), _number(headers["partition"]), _number(headers["offset"]))
        original = _headers_from_json(headers["headers"]) if "headers" in headers else []
        return StoredDeadLetter(
            Message(*source, kept.key, kept.value, original),
            reason=headers["reason"].decode(),
            error=headers["error"].decode(),
            time=_seconds(headers["time"]),
            attempt=_number(headers.get("attempt", b"0")),
            omitted_bytes=_number(headers.get("omitted", b"0")),
            kept_at=MessageRef.from_message(kept),
        )
    except (KeyError, ValueError, TypeError, AttributeError):
        return None


def replay_output(dead_letter: StoredDeadLetter, partition: int | None) -> Output:
    """Return the message for a partition of the source topic; None = the key decides, as for any producer."""
    message = dead_letter.message
    # Any, because a null value of a header is sent back as null, although `Output` has no null values.
    original: list[tuple[str, Any]] = [
        header for header in message.headers if header[0] not in (_REPLAY_ATTEMPT, _REPLAY_OF)
    ]
    added = [
        (_REPLAY_ATTEMPT, str(dead_letter.attempt + 1).encode()),
        (_REPLAY_OF, str(dead_letter.source).encode()),
    ]
    return Output(message.topic, message.key, message.value, partition, [*original, *added])


def receipt_output(topic: str, dead_letter: StoredDeadLetter) -> Output:
    """Return the message for the dead-letter topic that records the replay of a dead letter."""
    return Output(topic, dead_letter.message.key, None, headers=[(_REPLAYED, str(dead_letter.source).encode())])


def read_receipt(headers: Mapping[str, bytes]) -> str | None:
    """Return the source of the replayed dead letter, as text; None if the message is not a receipt."""
    return headers[_REPLAYED].decode("utf-8", "replace") if _REPLAYED in headers else None


def json_value(value: bytes | None) -> str | dict[str, str] | None:
    """Convert bytes to a JSON value: a string if they are UTF-8, {"base64": …} if not."""
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": b64encode(value).decode()}


def _number(text: bytes) -> int:
    """Parse a number as `dead_letter_output` writes it: Python's `int` also reads spaces, signs and underscores."""
    if not _DIGITS.fullmatch(text):
        raise ValueError(f"no number: {text[:20]!r}")
    return int(text)


def _seconds(text: bytes) -> float:
    if not _SECONDS.fullmatch(text):
        raise ValueError(f"no time: {text[:20]!r}")
    return float(text)


def _headers_to_json(headers: Headers) -> bytes:
    return orjson.dumps([[name, json_value(value)] for name, value in headers])


def _headers_from_json(value: bytes) -> Headers:
    headers: list[tuple[str, bytes | None]] = []
    for name, text in orjson.loads(value):
        if text is None:
            headers.append((name, None))
        else:
            headers.append((name, b64decode(text["base64"]) if isinstance(text, dict) else text.encode()))
    return headers


def _attempt(headers: Headers) -> int:
    """Read the last `replay-attempt`; 0 if it is not a number: other programs may write anything into a header."""
    texts = [value for name, value in headers if name == _REPLAY_ATTEMPT and value is not None]
    return int(texts[-1]) if texts and texts[-1].isdigit() and len(texts[-1]) < 10 else 0
