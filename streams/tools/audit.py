"""The audit: recompute every history from the clicks alone, and compare it with what the worker wrote.

Independent of the worker's own bookkeeping: it reads the input topic in order, applies each readable click once, and
expects (1) every unreadable message in `dead-letters` and no other click there, (2) every history record in the
changelog, older ones included, equal to its own at that click, and the one written last to be of the user's newest
click, and (3) for every user a recommendation whose source is the user's newest click. Older records count because a
lost click leaves the window after `history.length` more: the newest record alone would not show it. The one written
last counts because it is the one that compaction keeps.
"""

from __future__ import annotations

import dataclasses
import json
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from configs.errors import FatalError
from configs.schema import WorkerConfig
from streams.errors import BadMessage
from streams.history import History, IdVector, newer_record
from streams.kafka.reading import read_to_end, watermarks
from streams.kafka.topics import changelog_topic
from streams.messages.clicks import decode_click
from streams.messages.dead_letters import read_dead_letter
from streams.messages.recommendations import decode_recommendation
from streams.ports import Message

Place = tuple[int, int]  # partition, offset
User = tuple[int, bytes]  # partition, key


@dataclass(frozen=True, slots=True)
class AuditReport:
    """Counts; those from `unaccounted` on must be 0.

    Attributes:
        clicks: messages on the click topic.
        dead_letters: of them, the unreadable ones found among the dead letters.
        users: users with at least one readable click.
        recommendations: messages on the recommendation topic.
        repeats: recommendations whose source was recommended for already (at-least-once delivery).
        out_of_order: recommendations that come after one for a newer click of the same user.
        foreign: messages on the recommendation topic that are no recommendations: something else writes there.
        without_candidates: users without a recommendation for their newest click whose items the artifact does not
            know. Not verified: one of these items may have been published after training, and then too late for the
            user's click or, if a recommendation was lost, in time.
        histories_equal: users with a changelog record whose records are all the recomputed ones.
        unaccounted: clicks neither in a history nor among the dead letters.
        letters_unfounded: dead letters of clicks that are readable or were never there.
        histories_missing, histories_different: users without a changelog record, or with one that is not the
            recomputed one.
        histories_overwritten: users whose newest changelog record is followed by an older one.
        users_stale: users without a recommendation for their newest click.
    """

    clicks: int
    dead_letters: int
    users: int
    recommendations: int
    repeats: int
    out_of_order: int
    foreign: int
    without_candidates: int
    histories_equal: int
    unaccounted: int
    letters_unfounded: int
    histories_missing: int
    histories_different: int
    histories_overwritten: int
    users_stale: int

    @property
    def ok(self) -> bool:
        return not (
            self.unaccounted
            or self.letters_unfounded
            or self.histories_missing
            or self.histories_different
            or self.histories_overwritten
            or self.users_stale
        )

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self) | {"ok": self.ok})

    def to_text(self) -> str:
        names = {name: name.replace("_", " ") for name in dataclasses.asdict(self)}
        lines = [f"{names[name]:22} {count:>10,}" for name, count in dataclasses.asdict(self).items()]
        if self.without_candidates:
            lines.append("users without candidates are not verified: the artifact knows none of their items")
        return "\n".join([*lines, "the books balance" if self.ok else "THE BOOKS DO NOT BALANCE"])


def audit_kafka(config: WorkerConfig, known: Callable[[IdVector], IdVector] | None = None) -> AuditReport:
    """Audit the topics of a configuration.

    Args:
        config: names the cluster and the topics.
        known: (n,) item ids → (n,) rows, -1 for unknown; None = the rows of the configured artifact.

    Raises:
        TransientError: Kafka is away.
        FatalError: a topic or the artifact is missing, or the oldest clicks are gone.
    """
    if known is None:
        from streams.recall.factory import load_artifact

        known = load_artifact(config).rows
    topics = config.topics

    def messages(topic: str) -> Iterable[Message]:
        return (record.message for record in read_to_end(config.kafka, topic))

    for partition, (oldest, _) in watermarks(config.kafka, topics.clicks).items():
        _require_all(topics.clicks, partition, oldest)
    # Before the clicks: every letter is of a click that is read afterwards.
    dead_letters = read_to_end(config.kafka, topics.dead_letters, headers=True)
    letters = (read_dead_letter(record.message, record.headers) for record in dead_letters)
    dead = {(x.source.partition, x.source.offset) for x in letters if x is not None and x.source.topic == topics.clicks}
    return audit(
        clicks=messages(topics.clicks),
        dead_letters=dead,
        changelog=messages(changelog_topic(config.worker.group)),
        recommendations=messages(topics.recommendations),
        length=config.history.length,
        known=known,
    )


def audit(
    *,
    clicks: Iterable[Message],
    dead_letters: set[Place],
    changelog: Iterable[Message],
    recommendations: Iterable[Message],
    length: int,
    known: Callable[[IdVector], IdVector],
) -> AuditReport:
    """Audit messages; each iterable is in order within its partitions.

    Args:
        clicks: the click topic.
        dead_letters: (partition, offset) of the clicks found among the dead letters.
        changelog: the histories' changelog.
        recommendations: the output topic.
        length: clicks kept for each user.
        known: as in `audit_kafka`.

    Raises:
        FatalError: the oldest clicks are gone.
    """
    total, unreadable, expected = _recompute(clicks)
    newest: dict[User, bytes] = {}
    last: dict[User, bytes] = {}
    wrong: set[User] = set()
    for message in changelog:
        if message.key is None:
            continue
        user = (message.partition, message.key)
        if message.value is None:  # removes the user, and what stands before it
            last.pop(user, None)
            newest.pop(user, None)
        else:
            last[user] = message.value
            newest[user] = newer_record(newest.get(user, message.value), message.value)
            if not _is_right(History.from_bytes(message.value), expected.get(user, []), length):
                wrong.add(user)
    answers = _Answers.count(recommendations)

    missing = stale = without = 0
    for user, history in expected.items():
        offset = history[-1][0]
        if user not in newest:
            missing += 1
        elif History.from_bytes(newest[user]).offset != offset:
            wrong.add(user)
        if answers.newest.get(user, -1) < offset:
            ids = np.array([item for _, item in history[-length:]], dtype=np.int64)
            if (known(ids) >= 0).any():
                stale += 1
            else:
                without += 1
    return AuditReport(
        clicks=total,
        dead_letters=len(dead_letters & unreadable),
        users=len(expected),
        recommendations=answers.sent,
        repeats=answers.repeats,
        out_of_order=answers.out_of_order,
        foreign=answers.foreign,
        without_candidates=without,
        histories_equal=len(newest.keys() - wrong),
        unaccounted=len(unreadable - dead_letters),
        letters_unfounded=len(dead_letters - unreadable),
        histories_missing=missing,
        histories_different=len(wrong),
        histories_overwritten=sum(last[user] != record for user, record in newest.items()),
        users_stale=stale,
    )


def _recompute(clicks: Iterable[Message]) -> tuple[int, set[Place], dict[User, list[tuple[int, int]]]]:
    """Number of messages, places of the unreadable ones, and every user's clicks as (offset, item) in order."""
    total = 0
    unreadable: set[Place] = set()
    expected: dict[User, list[tuple[int, int]]] = {}
    begun: set[int] = set()
    for message in clicks:
        total += 1
        if message.partition not in begun:
            _require_all(message.topic, message.partition, message.offset)
        begun.add(message.partition)
        try:
            click = decode_click(message.key, message.value)
        except BadMessage:
            unreadable.add((message.partition, message.offset))
            continue
        assert message.key is not None  # the codec has compared it with the user id
        expected.setdefault((message.partition, message.key), []).append((message.offset, click.item_id))
    return total, unreadable, expected


def _require_all(topic: str, partition: int, oldest: int) -> None:
    if oldest > 0:
        raise FatalError(
            f"{topic} [{partition}] begins at offset {oldest}: Kafka has deleted older clicks (topics.retention_days), "
            "so histories cannot be recomputed any more"
        )


def _is_right(history: History, clicks: Sequence[tuple[int, int]], length: int) -> bool:
    """Whether a record is what the user's clicks, (offset, item) in order, make up to its fence."""
    upto = bisect_right(clicks, history.offset, key=lambda click: click[0])
    return (
        upto > 0
        and clicks[upto - 1][0] == history.offset
        and [item for _, item in clicks[max(0, upto - length) : upto]] == history.items.tolist()
    )


@dataclass(slots=True)
class _Answers:
    """What the recommendation topic holds; `newest` is each user's newest source offset."""

    newest: dict[User, int]
    sent: int = 0
    repeats: int = 0
    out_of_order: int = 0
    foreign: int = 0

    @classmethod
    def count(cls, recommendations: Iterable[Message]) -> _Answers:
        answers = cls({})
        seen: set[tuple[Place, bytes]] = set()
        for message in recommendations:
            try:
                r = decode_recommendation(message.value or b"")
            except BadMessage:
                r = None
            if r is None or message.key is None:
                answers.foreign += 1
                continue
            user, source = (r.source_partition, message.key), ((r.source_partition, r.source_offset), message.key)
            answers.sent += 1
            answers.repeats += source in seen
            answers.out_of_order += r.source_offset < answers.newest.get(user, -1)
            answers.newest[user] = max(r.source_offset, answers.newest.get(user, -1))
            seen.add(source)
        return answers
