"""The audit of the click topic and its dead letters."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from streams.errors import BadMessage, Reason
from streams.messages.clicks import decode_click
from streams.partitioning import KeyPartitions
from streams.ports import Message

ClickRef = tuple[int, int]  # partition and offset on the click topic
#: Reasons of dead letters that only the server which refused them, or the settings of that time, can tell.
BEYOND_THE_CODEC: tuple[Reason, ...] = ("refused", "wrong_partition")
User = tuple[int, bytes]  # partition and key
ClicksByUser = Mapping[User, Sequence[tuple[int, int]]]  # (offset, item id) of each click, in order


class KeptDeadLetter(NamedTuple):
    """A dead letter on its topic.

    Attributes:
        reason: one of `streams.errors.Reason`.
        content: hash of key and value; None if they were too large to keep.
    """

    reason: str
    content: int | None


def content_hash(key: bytes | None, value: bytes | None) -> int:
    """Return a hash of a message's key and value, valid in this process."""
    return hash((key, value))


@dataclass(frozen=True, slots=True)
class AuditedClicks:
    """The click topic.

    Attributes:
        count: number of messages.
        begins: partition → offset of its oldest message.
        lag: messages that the worker has not committed.
        removed_unread: messages that retention has deleted before the worker committed them.
        unreadable: the messages that must have a dead letter.
        misplaced, letters_unfounded, letters_different: see `streams.tools.audit_report.AuditReport`.
        by_user: the clicks that must be in histories.
        verifiable_from: partition → offset of the oldest click whose dead letter or answer Kafka must still have.
    """

    count: int
    begins: Mapping[int, int]
    lag: int
    removed_unread: int
    unreadable: Collection[ClickRef]
    misplaced: int
    letters_unfounded: int
    letters_different: int
    by_user: ClicksByUser
    verifiable_from: Mapping[int, int]

    @property
    def users_split(self) -> int:
        """The number of keys that have clicks in several partitions."""
        return len(self.by_user) - len({key for _, key in self.by_user})

    def complete(self, partition: int) -> bool:
        """Return whether Kafka still has the partition's first click."""
        return self.begins.get(partition, 0) == 0

    def verifiable(self, partition: int, offset: int) -> bool:
        """Return whether Kafka must still have the dead letter or the answer of this click."""
        return partition in self.verifiable_from and offset >= self.verifiable_from[partition]


def audit_clicks(
    messages: Iterable[Message],
    dead_letters: Mapping[ClickRef, KeptDeadLetter],
    begins: Mapping[int, int],
    committed: Mapping[int, int | None],
    partitions: KeyPartitions,
    retained_since: float = 0.0,
) -> AuditedClicks:
    """Audit the click topic.

    Args:
        messages: its messages, in order within their partitions.
        dead_letters: the clicks that have a dead letter.
        begins: partition → offset of its oldest message.
        committed: partition → offset that the worker has committed; None = none.
        partitions: the partitions that keys belong to.
        retained_since: see `streams.tools.audit.audit`.
    """
    count = lag = different = misplaced = 0
    founded, unreadable = set[ClickRef](), set[ClickRef]()
    by_user: dict[User, list[tuple[int, int]]] = {}
    verifiable_from: dict[int, int] = {}
    for message in messages:
        count += 1
        if message.timestamp >= retained_since:
            verifiable_from.setdefault(message.partition, message.offset)
        lag += message.offset >= (committed.get(message.partition) or 0)
        ref = message.partition, message.offset
        dead_letter = dead_letters.get(ref)
        if dead_letter is not None and dead_letter.content is not None:
            different += dead_letter.content != content_hash(message.key, message.value)
        try:
            click = decode_click(message.key, message.value)
        except BadMessage:
            unreadable.add(ref)
            continue
        assert message.key is not None  # the codec has compared it with the user id
        wrong_partition = _misplaced(message.key, message.partition, partitions)
        if dead_letter is not None and (wrong_partition or dead_letter.reason in BEYOND_THE_CODEC):
            founded.add(ref)
            continue
        if wrong_partition and message.partition not in verifiable_from:
            unreadable.add(ref)  # its dead letter may have been deleted
            continue
        misplaced += wrong_partition
        by_user.setdefault((message.partition, message.key), []).append((message.offset, click.item_id))
    unfounded = [ref for ref in dead_letters if ref not in unreadable | founded and ref[1] >= begins.get(ref[0], 0)]
    # Without a commit, the first worker reads from the oldest message on: nothing is removed unread.
    read_from = {p: begin if committed.get(p) is None else committed[p] or 0 for p, begin in begins.items()}
    removed = sum(max(0, begin - read_from[p]) for p, begin in begins.items())
    return AuditedClicks(
        count=count,
        begins=begins,
        lag=lag,
        removed_unread=removed,
        unreadable=unreadable | founded,
        misplaced=misplaced,
        letters_unfounded=len(unfounded),
        letters_different=different,
        by_user=by_user,
        verifiable_from=verifiable_from,
    )


def _misplaced(key: bytes, partition: int, partitions: KeyPartitions) -> bool:
    try:
        partitions.check(key, partition)
    except BadMessage:
        return True
    return False
