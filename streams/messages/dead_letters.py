"""Dead letters: messages that can never be processed, kept with their original bytes and the reason.

A letter that is sent back to its source topic (`streams.tools.dead_letters`) keeps its own headers and gets two more:
`replay-attempt`, how often it has been sent back, and `replay-of`, the place it came from. When that fails too, its
new letter has them, so attempts are counted however often a message comes round. That a letter was sent back is
remembered in the dead-letter topic itself, by a *receipt*: a message without value, whose only header is `replayed`.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from streams.ports import DeadLetter, Message, Output

#: Characters of the error text in the header; the value has all the rest.
_MAX_ERROR = 500
#: Bytes of the message's own headers in the letter. The dead-letter topic takes 1 MiB beyond the largest message.
_MAX_HEADERS = 262_144
_ATTEMPT, _OF, _REPLAYED = "replay-attempt", "replay-of", "replayed"

Headers = Sequence[tuple[str, bytes | None]]


class MessageRef(NamedTuple):
    """Where a message is; as text `topic/partition/offset`."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"

    @classmethod
    def parse(cls, text: str) -> MessageRef:
        """The inverse of `str`.

        Raises:
            ValueError: the text names no place.
        """
        topic, partition, offset = text.split("/")  # names of topics have no slash
        return cls(topic, int(partition), int(offset))


@dataclass(frozen=True, slots=True)
class StoredDeadLetter:
    """A dead letter as the topic keeps it.

    Attributes:
        message: the original: its place, key, value and own headers.
        reason, error: what was wrong with it.
        time: when it became a dead letter, in seconds since 1970.
        attempt: how often it had been sent back before.
        omitted: bytes of key and value that were too large to keep; 0 = they are here.
        kept_at: its place on the dead-letter topic.
    """

    message: Message
    reason: str
    error: str
    time: float
    attempt: int
    omitted: int
    kept_at: MessageRef

    @property
    def source(self) -> MessageRef:
        return MessageRef(self.message.topic, self.message.partition, self.message.offset)


def dead_letter_output(topic: str, letter: DeadLetter, now: float, largest: int) -> Output:
    """The message for the dead-letter topic: key and value as received, everything else in the headers.

    Headers, all UTF-8 text: `reason` (one of `streams.errors.Reason`), `error` (for a person), `topic`, `partition`
    and `offset` (where it came from; repeats of one message have the same), `time` (seconds since 1970), `attempt`
    (how often it had been sent back before), and `headers`, if it had any: a JSON list of [name, value], a value that
    is no text as {"base64": …}. Headers too large to keep are left out, and `headers-omitted` tells how many.

    A compressed batch of a few kilobytes may hold a message of many megabytes, which the dead-letter topic would
    refuse: of one with more than `largest` bytes in key and value, both are left out, and `omitted` tells how many.
    """
    source = letter.message
    key, value = source.key, source.value
    size = len(key or b"") + len(value or b"")
    headers = {
        "reason": letter.reason,
        "error": letter.detail[:_MAX_ERROR],
        "topic": source.topic,
        "partition": str(source.partition),
        "offset": str(source.offset),
        "time": f"{now:.3f}",
        "attempt": str(_attempt(source.headers)),
    }
    if size > largest:
        headers["omitted"] = str(size)
        key = value = None
    encoded = [(name, text.encode("utf-8", "backslashreplace")) for name, text in headers.items()]
    if source.headers:
        own = _headers_to_json(source.headers)
        fits = len(own) <= _MAX_HEADERS
        encoded.append(("headers", own) if fits else ("headers-omitted", str(len(source.headers)).encode()))
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
    """The inverse of `dead_letter_output`; None for what it did not write: receipts, and messages of others."""
    try:
        place = MessageRef(headers["topic"].decode(), int(headers["partition"]), int(headers["offset"]))
        own = _headers_from_json(headers["headers"]) if "headers" in headers else []
        return StoredDeadLetter(
            Message(*place, kept.key, kept.value, own),
            reason=headers["reason"].decode(),
            error=headers["error"].decode(),
            time=float(headers["time"]),
            attempt=int(headers.get("attempt", b"0")),
            omitted=int(headers.get("omitted", b"0")),
            kept_at=MessageRef(kept.topic, kept.partition, kept.offset),
        )
    except (KeyError, ValueError, TypeError, AttributeError):
        return None


def replay_output(letter: StoredDeadLetter) -> Output:
    """The message that goes back to the source topic: its partition follows from the key, as for any producer."""
    # Any: a null value goes back as null, although nothing that we write ourselves has one.
    own: list[tuple[str, Any]] = [header for header in letter.message.headers if header[0] not in (_ATTEMPT, _OF)]
    added = [(_ATTEMPT, str(letter.attempt + 1).encode()), (_OF, str(letter.source).encode())]
    message = letter.message
    return Output(message.topic, message.key, message.value, headers=[*own, *added])


def receipt_output(topic: str, letter: StoredDeadLetter) -> Output:
    """The message for the dead-letter topic that remembers that the letter was sent back."""
    return Output(topic, letter.message.key, None, headers=[(_REPLAYED, str(letter.source).encode())])


def read_receipt(headers: Mapping[str, bytes]) -> str | None:
    """The source of the letter that was sent back, as text; None if this is no receipt."""
    return headers[_REPLAYED].decode("utf-8", "replace") if _REPLAYED in headers else None


def json_value(value: bytes | None) -> str | dict[str, str] | None:
    """Bytes as JSON can hold them: text if they are UTF-8, {"base64": …} if not."""
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": b64encode(value).decode()}


def _headers_to_json(headers: Headers) -> bytes:
    return orjson.dumps([[name, json_value(value)] for name, value in headers])


def _headers_from_json(value: bytes) -> Headers:
    found: list[tuple[str, bytes | None]] = []
    for name, text in orjson.loads(value):
        if text is None:
            found.append((name, None))
        else:
            found.append((name, b64decode(text["base64"]) if isinstance(text, dict) else text.encode()))
    return found


def _attempt(headers: Headers) -> int:
    """Other programs may write what they like into a header: what is no number counts as none."""
    texts = [value for name, value in headers if name == _ATTEMPT and value is not None]
    return int(texts[-1]) if texts and texts[-1].isdigit() and len(texts[-1]) < 10 else 0
