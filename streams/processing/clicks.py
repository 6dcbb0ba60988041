"""What happens to a batch of clicks, and the delivery guarantee.

The guarantee: every readable click ends in its user's history exactly once; every user's newest history has its
recommendation on the output topic, at least once; every unreadable message ends in `dead-letters`, at least once.
The steps are taken in this order, for one batch at a time:

    1. decode       unreadable messages become dead letters
    2. read         the users' histories from the local store; clicks at or below a fence are not applied again
    3. recall       one encoding and one search for all users of the batch; nothing has been changed so far
    4. send         dead letters, history records and recommendations; wait until all in-sync replicas have all of them
    5. store        write the records to the local store, with their offset in the changelog
    6. acknowledge  the caller (`streams.agents.agent`) marks the input offsets as done, and commits them later

Where the process dies, and why the result is right:

    before 4        nothing was changed: the batch is delivered again.
    during 4        some records may be in the changelog. The next owner restores them (`streams.state.restore`) before
                    it applies clicks; the fence in a restored record stops its clicks, the others are applied. All
                    recommendations and dead letters of the batch are sent again: each names its source, so repeats can
                    be dropped.
    between 4 and 5 the store is behind the changelog, never ahead of it: recovery reads the rest.
    between 5 and 6, or before the commit: as during 4, with all records in place.

Where the process is paused for so long that its partitions go to another worker, and wakes as a zombie:

    before 4        the check of ownership stops it, if it knows by then. If not, it sends as below.
    during 4        its records may come behind newer ones of the new owner. A record is a function of its user's clicks
                    up to its fence, so it is right for its fence, only older: the new owner keeps the newer one and
                    writes it again within seconds, before compaction may drop it (`streams.state.restore`). Its
                    recommendations are right for their source, which tells that they are older.
    after 4         its store stays behind the changelog wherever others wrote; it reads the rest before it owns the
                    partition again. Its commits are refused: they carry an older generation of the group.

Once a batch's search is answered, or earlier if a full batch waits behind it, steps 1 to 3 of the batch behind it are
begun on the histories that this one will leave: Milvus searches while answers are merged, packed and sent. Those steps
change nothing. What they found is thrown away unless the batch in front comes to its end and the next call is for just
these messages; and between the two nobody else may write histories (`streams.agents.agent` never repairs or takes over
there).

A click that the fence stops still gets its user's recommendation again, because nobody can know whether it went out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from configs.errors import TransientError
from model.serving.merge import Candidates
from streams.errors import BadMessage, PartitionLost
from streams.history import History, apply_clicks
from streams.messages.clicks import Click, decode_click
from streams.messages.dead_letters import dead_letter_output
from streams.messages.recommendations import Recommendation, encode_recommendation
from streams.metrics import ClickMetrics
from streams.ports import DeadLetter, HistoryStore, Message, Output, RecordProducer
from streams.recall.engine import Recall, RecallEngine


@dataclass(slots=True)
class _User:
    """One user's part of a batch."""

    partition: int
    key: bytes
    clicks: list[tuple[int, int]] = field(default_factory=list)  # (offset, item id)
    newest: Click | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Begun:
    """A batch after step 2, its search sent off: nothing has been changed by it.

    Attributes:
        updates: for each user the history with the batch's clicks, and how many of them were new.
        recall: candidates on their way.
    """

    messages: Sequence[Message]
    users: Sequence[_User]
    dead: Sequence[DeadLetter]
    updates: Sequence[tuple[History, int]]
    recall: Recall


class ClickProcessor:
    """Runs steps 1 to 5 for one batch. Not thread-safe: one batch at a time.

    Args:
        engine: recalls candidates.
        store: local histories.
        producer: sends to Kafka.
        recommendations, changelog, dead_letters: topic names.
        max_letter_bytes: most bytes of key and value that a dead letter keeps.
        model_version: stands in every recommendation.
        history_length: clicks kept for each user.
        metrics: counters.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        engine: RecallEngine,
        store: HistoryStore,
        producer: RecordProducer,
        *,
        recommendations: str,
        changelog: str,
        dead_letters: str,
        max_letter_bytes: int,
        model_version: str,
        history_length: int,
        metrics: ClickMetrics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._engine = engine
        self._store = store
        self._producer = producer
        self._recommendations = recommendations
        self._changelog = changelog
        self._dead_letters = dead_letters
        self._max_letter_bytes = max_letter_bytes
        self._model_version = model_version
        self._history_length = history_length
        self._metrics = metrics
        self._clock = clock
        self._searched: tuple[_Begun, _Begun | None] | None = None  # a batch, and the one behind it
        self._next: _Begun | None = None  # behind a batch that came to its end

    def search(self, messages: Sequence[Message], following: Sequence[Message] = ()) -> None:
        """Steps 1 to 3 up to Milvus' answer, for `process` to go on from if it is called next, with the same arguments.

        Args:
            messages: the batch.
            following: begun before the answer is waited for; see `process`.

        Raises:
            TransientError, PartitionLost: as `process`.
        """
        begun = self._next
        self._searched = self._next = None
        if begun is None or begun.messages is not messages:
            begun = self._begin(messages, {})
        ahead = self._begin_ahead(following, begun) if following else None
        begun.recall.wait(self._metrics.stopwatch())
        self._searched = begun, ahead

    def process(self, messages: Sequence[Message], following: Sequence[Message] = ()) -> None:
        """Steps 1 to 5.

        Args:
            messages: the batch.
            following: the next batch, where it is known; the call for it must get this very object. Empty: unknown.

        Raises:
            TransientError: Milvus or Kafka did not answer; call again with the same messages.
            PartitionLost: another worker owns a partition of the batch now; forget the batch.
        """
        begun, ahead = self._searched or (self._next, None)
        self._searched = self._next = None
        if begun is None or begun.messages is not messages:
            begun, ahead = self._begin(messages, {}), None
        if ahead is None or ahead.messages is not following:
            ahead = self._begin_ahead(following, begun) if following else None
        self._finish(begun)
        self._next = ahead

    def _begin_ahead(self, following: Sequence[Message], begun: _Begun) -> _Begun | None:
        left = {(u.partition, u.key): history for u, (history, _) in zip(begun.users, begun.updates, strict=True)}
        with suppress(TransientError, PartitionLost):  # it has its own turn to fail in
            return self._begin(following, left)
        return None

    def _begin(self, messages: Sequence[Message], newer: Mapping[tuple[int, bytes], History]) -> _Begun:
        """Steps 1 and 2, and the first half of 3; `newer` histories take the place of those in the store."""
        lap = self._metrics.stopwatch()
        users, dead = self._decode(messages)  # 1
        lap("decode")
        old = self._read(users, newer)  # 2
        updates = [
            apply_clicks(history, user.partition, user.clicks, self._history_length)
            for user, history in zip(users, old, strict=True)
        ]
        lap("read")
        recall = self._engine.begin([history.items for history, _ in updates], lap)  # 3
        return _Begun(messages, users, dead, updates, recall)

    def _finish(self, begun: _Begun) -> None:
        """The second half of step 3, 4 and 5."""
        lap = self._metrics.stopwatch()
        users, dead, updates = begun.users, begun.dead, begun.updates
        candidates = begun.recall.finish(lap)

        changed = [(user, history) for user, (history, applied) in zip(users, updates, strict=True) if applied]
        records = [Output(self._changelog, u.key, h.to_bytes(), u.partition) for u, h in changed]
        answers = self._answers(users, [history for history, _ in updates], candidates)
        letters = [
            dead_letter_output(self._dead_letters, letter, self._clock(), self._max_letter_bytes) for letter in dead
        ]
        self._store.check({user.partition for user in users})  # the search may have taken long
        lap("pack")
        offsets = self._producer.send([*records, *answers, *letters], lambda: lap("produce"))  # 4
        lap("acknowledge")
        self._write(records, offsets[: len(records)])  # 5
        lap("store")
        self._count(dead, updates, users, candidates)

    def _decode(self, messages: Sequence[Message]) -> tuple[list[_User], list[DeadLetter]]:
        users: dict[tuple[int, bytes], _User] = {}
        dead: list[DeadLetter] = []
        for message in messages:
            try:
                click = decode_click(message.key, message.value)
            except BadMessage as error:
                dead.append(DeadLetter(message, error.reason, error.detail))
                continue
            assert message.key is not None  # the codec has compared it with the user id
            place = (message.partition, message.key)
            user = users.setdefault(place, _User(*place))
            user.clicks.append((message.offset, click.item_id))
            user.newest = click
        return list(users.values()), dead

    def _read(self, users: Sequence[_User], newer: Mapping[tuple[int, bytes], History]) -> list[History | None]:
        by_partition: dict[int, list[bytes]] = {}
        for user in users:
            if (user.partition, user.key) not in newer:
                by_partition.setdefault(user.partition, []).append(user.key)
        found: dict[tuple[int, bytes], History | None] = dict(newer)
        for partition, keys in by_partition.items():
            for key, record in zip(keys, self._store.read(partition, keys), strict=True):
                found[partition, key] = None if record is None else History.from_bytes(record)
        return [found[user.partition, user.key] for user in users]

    def _answers(
        self, users: Sequence[_User], histories: Sequence[History], candidates: Sequence[Candidates | None]
    ) -> list[Output]:
        now = self._clock()
        outputs = []
        for user, history, found in zip(users, histories, candidates, strict=True):
            if found is None:
                continue
            assert user.newest is not None  # a user of the batch has at least one click
            value = encode_recommendation(
                Recommendation(
                    user_id=user.newest.user_id,
                    item_ids=found.item_ids,
                    scores=found.scores,
                    interests=found.interests,
                    model_version=self._model_version,
                    history_length=len(history.items),
                    source_partition=history.partition,
                    source_offset=history.offset,
                    click_ts=user.newest.ts,
                    ts=now,
                )
            )
            outputs.append(Output(self._recommendations, user.key, value))
        return outputs

    def _write(self, records: Sequence[Output], offsets: Sequence[int]) -> None:
        by_partition: dict[int, tuple[dict[bytes, bytes], list[int]]] = {}
        for record, offset in zip(records, offsets, strict=True):
            assert record.partition is not None and record.key is not None and record.value is not None
            new, sent_at = by_partition.setdefault(record.partition, ({}, []))
            new[record.key] = record.value
            sent_at.append(offset)
        for partition, (new, sent_at) in by_partition.items():
            self._store.write(partition, new, sent_at)

    def _count(
        self,
        dead: Sequence[DeadLetter],
        updates: Sequence[tuple[History, int]],
        users: Sequence[_User],
        candidates: Sequence[Candidates | None],
    ) -> None:
        received = sum(len(user.clicks) for user in users)
        applied = sum(n for _, n in updates)
        now = self._clock()
        self._metrics.clicks.inc(received)
        self._metrics.repeats.inc(received - applied)
        for letter in dead:
            self._metrics.dead_letters.labels(letter.reason).inc()
        for user, found in zip(users, candidates, strict=True):
            if found is None:
                self._metrics.unusable.inc()
            elif user.newest is not None:
                self._metrics.recommendations.inc()
                self._metrics.latency.observe(max(0.0, now - user.newest.ts))
