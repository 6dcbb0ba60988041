"""Conditions under which the click agent may acquire partitions: names stand for what they stood for before.

Fences, offsets and the changelog's records mean something only together with the topics that they are of. So every
commit says which topics those are, and how far the partition's changelog reached (`CommitMetadata`). The next owner of
the partition requires the same topics, and a changelog that reaches as far. Besides, it compares contents: the last
click of a history must be where its fence says. Without metadata (at the first start, after a version that wrote none,
when offsets expired or were reset) only the contents decide.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import orjson

from configs.errors import FatalError, TransientError
from streams.errors import BadMessage
from streams.history import CorruptHistoryError, History
from streams.kafka.offsets import TopicOffsets
from streams.kafka.topics import CHANGELOG_PARTITIONS_REMEDY, CLICK_PARTITIONS_REMEDY, TopicIdentities
from streams.messages.clicks import decode_click
from streams.ports import Message
from streams.state.changelog import Changelog

_LOG = logging.getLogger("mindstream.preconditions")

#: Seconds between two checks whether topics are still the same, while a worker runs.
_WATCH_INTERVAL_S = 8.0
#: Last records of a changelog partition that are read. The one with the highest fence is compared: the last one may be
#: a tombstone, a zombie's record, or another program's.
_LAST_RECORDS = 100
#: Most offsets of clicks that wait for vectors in a commit's metadata, of which Kafka takes 4,096 bytes.
MAX_AWAITING = 100
_FORMAT = 1
#: Ends the text. librdkafka hands out committed texts without their end: other bytes of its memory may follow.
_END = "\0"
_REMEDY = "Begin with empty histories under another worker.group (python -m streams topics create)"


@dataclass(frozen=True, slots=True)
class CommitMetadata:
    """Text that is committed with an offset of the click topic.

    Attributes:
        clicks, partitions: id of the click topic, and its number of partitions.
        changelog: id of the changelog topic.
        reached: the records of all clicks before the committed offset are below this offset of the changelog.
        awaiting: offsets of clicks that are to be answered again when the vectors of their items have arrived.
    """

    clicks: str
    partitions: int
    changelog: str
    reached: int
    awaiting: Sequence[int] = ()

    def to_text(self) -> str:
        fields = {
            "format": _FORMAT,
            "clicks": self.clicks,
            "partitions": self.partitions,
            "changelog": self.changelog,
            "reached": self.reached,
            "awaiting": list(self.awaiting[-MAX_AWAITING:]),
        }
        return orjson.dumps(fields).decode() + _END

    @classmethod
    def from_text(cls, text: str) -> CommitMetadata | None:
        """Return what `to_text` wrote; None for any other text, as of another version. Fields may be added."""
        try:
            fields = orjson.loads(text.partition(_END)[0])
            if fields["format"] != _FORMAT:
                return None
            names = ("clicks", "partitions", "changelog", "reached")
            return cls(**{name: fields[name] for name in names}, awaiting=tuple(fields.get("awaiting", ())))
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return None


class Preconditions:
    """Checks topics and offsets before partitions are acquired, and the topics while they are owned.

    For the batch thread, except `commit_metadata`. It is created at the start, when the topics are as configured.

    Args:
        identities: what the names of the click topic and of the changelog stand for.
        offsets: offsets of the click topic, and what the group of the click agents has committed.
        changelog: the changelog of the histories.
        first_clicks: returns partition → the first message of the click topic at or after the given offset, if any.
        clock: monotonic seconds.

    Raises:
        As `check`.
    """

    def __init__(
        self,
        identities: TopicIdentities,
        offsets: TopicOffsets,
        changelog: Changelog,
        first_clicks: Callable[[Mapping[int, int]], Mapping[int, Message]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._identities = identities
        self._offsets = offsets
        self._changelog = changelog
        self._first_clicks = first_clicks
        self._clock = clock
        now = identities.now()
        self._click_topic, self._changelog_topic = now[offsets.topic], now[changelog.topic]
        self._watched_at = clock()

    @property
    def changelog_id(self) -> str:
        """The id of the changelog topic."""
        return self._changelog_topic.id

    def commit_metadata(self, reached: int, awaiting: Sequence[int]) -> str:
        """Return the text to commit, for a partition whose changelog reached this offset when its batch was done."""
        clicks, partitions = self._click_topic
        return CommitMetadata(clicks, partitions, self.changelog_id, reached, awaiting).to_text()

    def watch(self) -> None:
        """Check every few seconds that the topics are the same as at the start. Raises as `check`."""
        if self._clock() - self._watched_at >= _WATCH_INTERVAL_S:
            self._check_topics()
            self._watched_at = self._clock()

    def check(self, partitions: Collection[int]) -> Mapping[int, CommitMetadata]:
        """Check topics, commits and contents before partitions are acquired.

        Returns:
            Partition → metadata of its commit, where there is any.

        Raises:
            TransientError: Kafka is unavailable, or a broker is not up to date.
            FatalError: a name stands for something else than histories and offsets were made with.
        """
        self._check_topics()
        if not partitions:
            return {}
        # Of all partitions: for those that were added, nothing is committed.
        positions = self._offsets.positions(range(self._click_topic.partitions))
        committed = {p: position for p, position in positions.items() if position is not None}
        known = {p: found for p, c in committed.items() if (found := CommitMetadata.from_text(c.metadata)) is not None}
        for metadata in known.values():
            self._require_same(metadata)
        ends = self._offsets.end_offsets(partitions)
        for partition in known.keys() & ends.keys():
            if ends[partition] < committed[partition].offset:
                raise self._lost_clicks(partition, ends[partition], committed[partition].offset)
        self._check_contents(partitions, known)
        return {p: known[p] for p in partitions if p in known}

    def _check_topics(self) -> None:
        now = self._identities.now()
        clicks, records = now[self._offsets.topic], now[self._changelog.topic]
        if clicks.id != self._click_topic.id:
            raise self._recreated("it was deleted and created again while this worker ran")
        if records.id != self._changelog_topic.id:
            raise self._lost_histories()
        # Fewer than before: the broker is not up to date.
        if clicks.partitions > self._click_topic.partitions:
            raise FatalError(
                f"partitions were added to topic {self._offsets.topic}: it has {clicks.partitions} now, and had "
                f"{self._click_topic.partitions}. Stop all click workers and {CLICK_PARTITIONS_REMEDY}"
            )
        if records.partitions > self._changelog_topic.partitions:
            topic, remedy = self._changelog.topic, CHANGELOG_PARTITIONS_REMEDY
            raise FatalError(f"partitions were added to topic {topic}: {remedy}")

    def _require_same(self, metadata: CommitMetadata) -> None:
        if metadata.clicks != self._click_topic.id:
            raise self._recreated("its id is not the one that histories were made with")
        if metadata.changelog != self._changelog_topic.id:
            raise self._lost_histories()
        if metadata.partitions != self._click_topic.partitions:
            raise FatalError(
                f"topic {self._offsets.topic} has {self._click_topic.partitions} partitions, but histories were made "
                f"when it had {metadata.partitions}: {CLICK_PARTITIONS_REMEDY}"
            )

    def _check_contents(self, partitions: Collection[int], known: Collection[int]) -> None:
        """Compare histories with the clicks that they name as their last ones; `known` partitions have metadata."""
        last = self._last_records(partitions)
        # Queried after the records were read: a click is on its topic before a fence names it.
        ends, begins = self._offsets.end_offsets(last), self._offsets.beginning_offsets(last)
        for partition, (_, history) in last.items():
            if history.offset >= ends[partition]:
                if partition in known:
                    raise self._lost_clicks(partition, ends[partition], history.offset + 1)
                raise self._recreated(
                    f"partition {partition} ends at offset {ends[partition]}, and a history counts {history.offset}"
                )
        fences = {p: history.offset for p, (_, history) in last.items() if history.offset >= begins[p]}
        for partition, message in self._first_clicks(fences).items():
            key, history = last[partition]
            if message.offset == history.offset and not _is_last_click(message, key, history):
                raise self._recreated(
                    f"offset {history.offset} of partition {partition} is not the click that a history counts there"
                )

    def _last_records(self, partitions: Collection[int]) -> dict[int, tuple[bytes, History]]:
        """Return partition → user key and history with the highest fence among the last records of the changelog."""
        ends = self._changelog.end_offsets(partitions)
        starts = {p: max(0, end - _LAST_RECORDS) for p, end in ends.items() if end > 0}
        last: dict[int, tuple[bytes, History]] = {}
        for partition, chunk in self._changelog.read(starts, ends):
            for key, record in chunk.messages:
                history = _history(record)
                # The fence of another partition says nothing about this one.
                if key is None or history is None or history.partition != partition or not len(history.items):
                    continue
                if partition not in last or history.offset > last[partition][1].offset:
                    last[partition] = key, history
        return last

    def _recreated(self, why: str) -> FatalError:
        return FatalError(
            f"topic {self._offsets.topic} is not as the histories of this worker.group know it: {why}. The topic was "
            "deleted and created again, or lost its end, or the group has read another topic; new clicks would be "
            f"taken for clicks that are counted already. {_REMEDY}"
        )

    def _lost_histories(self) -> FatalError:
        return FatalError(
            f"topic {self._changelog.topic} was deleted and created again: the histories of committed clicks are gone. "
            f"{_REMEDY}: they are made again from the clicks that Kafka retains"
        )

    def _lost_clicks(self, partition: int, end: int, known: int) -> TransientError:
        return TransientError(
            "Kafka",
            f"topic {self._offsets.topic} ends at offset {end} of partition {partition}, but was read up to {known}: "
            "the broker is not up to date, or Kafka has lost the end of the topic. If this lasts, clicks are lost, and "
            f"new ones get their offsets. {_REMEDY}",
        )


def check_group_topics(kafka_topics: Collection[str], group: str, topic: str) -> None:
    """Check the topics on which the group of the click agents has committed offsets.

    Args:
        kafka_topics: those topics.
        group: name of the consumer group.
        topic: the click topic.

    Raises:
        FatalError: there is another one.
    """
    others = sorted(set(kafka_topics) - {topic})
    if others:
        raise FatalError(
            f"consumer group {group} has read {', '.join(others)}, but topics.clicks is {topic}: histories count "
            "clicks by their offsets in one topic. Set topics.clicks to that topic, or set another worker.group"
        )


def _history(record: bytes | None) -> History | None:
    try:
        return None if record is None else History.from_bytes(record)
    except CorruptHistoryError:
        return None  # restoring the histories reports it


def _is_last_click(message: Message, key: bytes, history: History) -> bool:
    """Return whether a message can be the last click of a history."""
    if message.key != key:
        return False
    try:
        return decode_click(message.key, message.value).item_id == int(history.items[-1])
    except BadMessage:
        return True  # an older version accepted more
