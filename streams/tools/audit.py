"""The audit: recompute every history from the clicks, and compare it with what the worker wrote.

It shares no bookkeeping with the worker: it applies each readable click once, in the topic's order, and expects

1. a dead letter for every unreadable message, and for no other one;
2. every history record in the changelog, older ones included, to equal the recomputed history at that click, and the
   record written last to be the one of the user's newest click;
3. for every user a recommendation whose source is the user's newest click.

Older records count because a lost click leaves the window after `history.length` more: the newest record would not
show it. The record written last counts because compaction keeps that one.
"""

from __future__ import annotations

import dataclasses
import json
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from configs.errors import FatalError
from configs.schema import WorkerConfig
from model.arrays import IdVector
from streams.errors import BadMessage
from streams.history import History, newer_record
from streams.kafka.reading import read_to_end, watermarks
from streams.kafka.topics import changelog_topic
from streams.messages.clicks import decode_click
from streams.messages.dead_letters import read_dead_letter
from streams.messages.recommendations import decode_recommendation
from streams.ports import Message

ClickRef = tuple[int, int]  # partition and offset on the click topic
User = tuple[int, bytes]  # partition and key
ItemRows = Callable[[IdVector], IdVector]  # (n,) item ids → (n,) rows in the artifact, -1 for unknown items


@dataclass(frozen=True, slots=True)
class AuditReport:  # 15 attributes: the report, a figure each; their names are the keys of `audit --json`
    """Counts; those from `unaccounted` on must be 0.

    Attributes:
        clicks: messages on the click topic.
        dead_letters: of them, the unreadable ones that have a dead letter.
        users: users with at least one readable click.
        recommendations: messages on the recommendation topic.
        repeats: recommendations for a source that was answered before (at-least-once delivery).
        out_of_order: recommendations that follow one for a newer click of the same user.
        foreign: messages on the recommendation topic that are not recommendations: another program writes to it.
        without_candidates: users without a recommendation for their newest click whose items the artifact does not
            know. Not verified: such an item may have been published after training, either after the click, so that
            there was nothing to recommend, or before it, so that a recommendation was lost.
        histories_equal: users with changelog records, all of which equal the recomputed ones.
        unaccounted: clicks neither in a history nor among the dead letters.
        letters_unfounded: dead letters of clicks that are readable or do not exist.
        histories_missing, histories_different: users without a changelog record, or with one that is not as recomputed.
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
        clicks = self.unaccounted + self.letters_unfounded
        histories = self.histories_missing + self.histories_different + self.histories_overwritten
        return clicks + histories + self.users_stale == 0

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self) | {"ok": self.ok})

    def to_text(self) -> str:
        lines = [f"{name.replace('_', ' '):22} {count:>10,}" for name, count in dataclasses.asdict(self).items()]
        if self.without_candidates:
            lines.append("users without candidates are not verified: the artifact knows none of their items")
        verdict = "audit passed" if self.ok else "AUDIT FAILED: all counts from 'unaccounted' on must be 0"
        return "\n".join([*lines, verdict])


def audit_kafka(config: WorkerConfig, item_rows: ItemRows | None = None) -> AuditReport:
    """Audit the topics of a configuration.

    Args:
        config: names the cluster and the topics.
        item_rows: converts item ids to rows, -1 for unknown items; None = those of the configured artifact.

    Raises:
        TransientError: Kafka is unavailable.
        FatalError: a topic or the artifact is missing, or Kafka has deleted the oldest clicks.
    """
    if item_rows is None:
        from streams.recall.factory import load_artifact

        item_rows = load_artifact(config).rows
    topics = config.topics

    def messages(topic: str) -> Iterable[Message]:
        return (received.message for received in read_to_end(config.kafka, topic))

    for partition, (oldest, _) in watermarks(config.kafka, topics.clicks).items():
        _require_all(topics.clicks, partition, oldest)
    # Dead letters are read before the clicks, so that every click with a dead letter is among those read afterwards.
    received = read_to_end(config.kafka, topics.dead_letters, headers=True)
    found = (read_dead_letter(message, headers) for message, headers, _ in received)
    sources = [dead_letter.source for dead_letter in found if dead_letter is not None]
    return audit(
        clicks=messages(topics.clicks),
        dead_letters={(source.partition, source.offset) for source in sources if source.topic == topics.clicks},
        changelog=messages(changelog_topic(config.worker.group)),
        recommendations=messages(topics.recommendations),
        history_length=config.history.length,
        item_rows=item_rows,
    )


def audit(
    *,
    clicks: Iterable[Message],
    dead_letters: set[ClickRef],
    changelog: Iterable[Message],
    recommendations: Iterable[Message],
    history_length: int,
    item_rows: ItemRows,
) -> AuditReport:
    """Audit messages; each iterable is in order within its partitions.

    Args:
        clicks: messages of the click topic.
        dead_letters: the clicks that have a dead letter.
        changelog: messages of the histories' changelog.
        recommendations: messages of the recommendation topic.
        history_length: clicks kept for each user.
        item_rows: as in `audit_kafka`.

    Raises:
        FatalError: Kafka has deleted the oldest clicks.
    """
    expected = _Clicks.read(clicks)
    histories = _Histories.read(changelog, expected.by_user, history_length)
    answers = _Answers.read(recommendations)
    stale, without_candidates = answers.missing(expected.by_user, history_length, item_rows)
    return AuditReport(
        clicks=expected.count,
        dead_letters=len(dead_letters & expected.unreadable),
        users=len(expected.by_user),
        recommendations=answers.count,
        repeats=answers.repeats,
        out_of_order=answers.out_of_order,
        foreign=answers.foreign,
        without_candidates=without_candidates,
        histories_equal=len(histories.newest.keys() - histories.different),
        unaccounted=len(expected.unreadable - dead_letters),
        letters_unfounded=len(dead_letters - expected.unreadable),
        histories_missing=len(expected.by_user.keys() - histories.newest.keys()),
        histories_different=len(histories.different),
        histories_overwritten=sum(histories.last[user] != record for user, record in histories.newest.items()),
        users_stale=stale,
    )


_ClicksByUser = Mapping[User, Sequence[tuple[int, int]]]  # (offset, item id) of each click, in order


@dataclass(frozen=True, slots=True)
class _Clicks:
    """The click topic: number of messages, the unreadable ones, and each user's clicks."""

    count: int
    unreadable: set[ClickRef]
    by_user: _ClicksByUser

    @classmethod
    def read(cls, messages: Iterable[Message]) -> _Clicks:
        count, unreadable = 0, set[ClickRef]()
        by_user: dict[User, list[tuple[int, int]]] = {}
        partitions: set[int] = set()
        for message in messages:
            count += 1
            if message.partition not in partitions:
                _require_all(message.topic, message.partition, message.offset)
            partitions.add(message.partition)
            try:
                click = decode_click(message.key, message.value)
            except BadMessage:
                unreadable.add((message.partition, message.offset))
                continue
            assert message.key is not None  # the codec has compared it with the user id
            by_user.setdefault((message.partition, message.key), []).append((message.offset, click.item_id))
        return cls(count, unreadable, by_user)


def _require_all(topic: str, partition: int, oldest: int) -> None:
    if oldest > 0:
        raise FatalError(
            f"{topic} [{partition}] begins at offset {oldest}: Kafka has deleted older clicks (topics.retention_days), "
            "so histories cannot be recomputed any more"
        )


@dataclass(frozen=True, slots=True)
class _Histories:
    """The changelog: each user's newest record and last record, and the users with a wrong one."""

    newest: dict[User, bytes]
    last: dict[User, bytes]
    different: set[User]

    @classmethod
    def read(cls, changelog: Iterable[Message], by_user: _ClicksByUser, history_length: int) -> _Histories:
        newest, last = dict[User, bytes](), dict[User, bytes]()
        different: set[User] = set()
        for message in changelog:
            if message.key is None:
                continue
            user = (message.partition, message.key)
            if message.value is None:  # it removes the user's history, so earlier records do not count
                last.pop(user, None)
                newest.pop(user, None)
            else:
                last[user] = message.value
                newest[user] = newer_record(newest.get(user, message.value), message.value)
                if not _equals(History.from_bytes(message.value), by_user.get(user, []), history_length):
                    different.add(user)
        for user in by_user.keys() & newest.keys():
            newest_click, _ = by_user[user][-1]
            if History.from_bytes(newest[user]).offset != newest_click:
                different.add(user)
        return cls(newest, last, different)


def _equals(history: History, clicks: Sequence[tuple[int, int]], history_length: int) -> bool:
    """Return whether a history equals the user's clicks up to its fence; `clicks` are (offset, item id), in order."""
    count = bisect_right(clicks, history.offset, key=lambda click: click[0])
    return (
        count > 0
        and clicks[count - 1][0] == history.offset
        and [item for _, item in clicks[max(0, count - history_length) : count]] == history.items.tolist()
    )


@dataclass(slots=True)
class _Answers:
    """The recommendation topic; `newest` has the highest source offset for each user."""

    newest: dict[User, int]
    count: int = 0
    repeats: int = 0
    out_of_order: int = 0
    foreign: int = 0

    @classmethod
    def read(cls, recommendations: Iterable[Message]) -> _Answers:
        answers = cls({})
        seen: set[tuple[User, int]] = set()
        for message in recommendations:
            try:
                r = decode_recommendation(message.value or b"")
            except BadMessage:
                r = None
            if r is None or message.key is None:
                answers.foreign += 1
                continue
            user = (r.source_partition, message.key)
            source = (user, r.source_offset)
            answers.count += 1
            answers.repeats += source in seen
            answers.out_of_order += r.source_offset < answers.newest.get(user, -1)
            answers.newest[user] = max(r.source_offset, answers.newest.get(user, -1))
            seen.add(source)
        return answers

    def missing(self, by_user: _ClicksByUser, history_length: int, item_rows: ItemRows) -> tuple[int, int]:
        """Count users whose newest click was not answered: (with, without) an item that the artifact knows."""
        stale = without_candidates = 0
        for user, clicks in by_user.items():
            newest_click, _ = clicks[-1]
            if self.newest.get(user, -1) < newest_click:
                ids = np.array([item for _, item in clicks[-history_length:]], dtype=np.int64)
                if (item_rows(ids) >= 0).any():
                    stale += 1
                else:
                    without_candidates += 1
        return stale, without_candidates
