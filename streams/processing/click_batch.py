"""A batch of clicks as values: decoded, applied to its users' histories, and turned into messages.

The only I/O is reading the store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from model.serving.merge import Candidates
from streams.errors import BadMessage
from streams.history import History, apply_clicks
from streams.messages.clicks import Click, decode_click
from streams.messages.recommendations import Recommendation, encode_recommendation
from streams.partitioning import KeyPartitions
from streams.ports import DeadLetter, HistoryStore, Message, Output

#: (partition, message key): a user. All clicks of a user have the same key, and so are in one partition.
User = tuple[int, bytes]
#: Histories that replace those in the store: the ones that the pending batch will leave.
Overlay = Mapping[User, History]


@dataclass(slots=True)
class UserClicks:
    """The readable clicks of one user in a batch.

    Attributes:
        partition, key: the user.
        newest: the last of the clicks.
        clicks: (offset, item id) in the order of delivery, at least one.
    """

    partition: int
    key: bytes
    newest: Click
    clicks: list[tuple[int, int]] = field(default_factory=list)


@dataclass(slots=True, eq=False)  # not frozen: there is one for each user of a batch, and frozen ones take longer
class UserUpdate:
    """The effect of a batch on one user.

    Attributes:
        user: the user and the clicks.
        history: the user's history after the clicks.
        applied: number of the clicks that were new; the fence stopped the others.
    """

    user: UserClicks
    history: History
    applied: int


def decode(messages: Sequence[Message], partitions: KeyPartitions) -> tuple[list[UserClicks], list[DeadLetter]]:
    """Return the clicks of a batch by user, in the order of each user's first click, and the dead letters.

    These are the unreadable messages, and those in another partition than their user's.
    """
    users: dict[User, UserClicks] = {}
    dead_letters: list[DeadLetter] = []
    for message in messages:
        try:
            click = decode_click(message.key, message.value)
            assert message.key is not None  # the codec has compared it with the user id
            user = users.get((message.partition, message.key))
            if user is None:
                partitions.check(message.key, message.partition)
                user = users[message.partition, message.key] = UserClicks(message.partition, message.key, click)
        except BadMessage as error:
            dead_letters.append(DeadLetter(message, error.reason, error.detail))
            continue
        user.clicks.append((message.offset, click.item_id))
        user.newest = click
    return list(users.values()), dead_letters


def apply(users: Sequence[UserClicks], store: HistoryStore, overlay: Overlay, length: int) -> list[UserUpdate]:
    """Read the users' histories, from the overlay or else from the store, and append their clicks.

    Args:
        users: clicks by user.
        store: local histories.
        overlay: histories that replace those in the store.
        length: clicks to keep of each user.

    Raises:
        PartitionLost: another worker owns one of the partitions now.
    """
    found: dict[User, History | None] = dict(overlay)
    by_partition: dict[int, list[bytes]] = {}
    for user in users:
        if (user.partition, user.key) not in overlay:
            by_partition.setdefault(user.partition, []).append(user.key)
    for partition, keys in by_partition.items():
        for key, record in zip(keys, store.read(partition, keys), strict=True):
            found[partition, key] = None if record is None else History.from_bytes(record)
    return [
        UserUpdate(user, *apply_clicks(found[user.partition, user.key], user.partition, user.clicks, length))
        for user in users
    ]


@dataclass(frozen=True, slots=True, eq=False)
class ClickBatch:
    """A batch of clicks after steps 1 and 2: decoded and applied, nothing changed yet."""

    updates: Sequence[UserUpdate]
    dead_letters: Sequence[DeadLetter]

    @property
    def received(self) -> int:
        """The number of readable clicks."""
        return sum(len(update.user.clicks) for update in self.updates)

    @property
    def applied(self) -> int:
        """The number of clicks that no fence stopped."""
        return sum(update.applied for update in self.updates)

    def overlay(self) -> dict[User, History]:
        """Return the histories that this batch will leave, for the batch after it."""
        return {(update.user.partition, update.user.key): update.history for update in self.updates}

    def records(self, changelog: str) -> list[Output]:
        """Return the history records of all users, each for the partition of its user's clicks.

        Also those that the batch does not change: only a record that a zombie wrote shows the owner of the partition
        that the zombie has answered, too.
        """
        return [
            Output(changelog, update.user.key, update.history.to_bytes(), update.user.partition)
            for update in self.updates
        ]

    def recommendations(
        self, topic: str, candidates: Sequence[Candidates | None], top_k: int, model_version: str, now: float
    ) -> list[Output]:
        """Return one recommendation for each user with candidates; its source is the user's newest click.

        Users whose clicks were all stopped by the fence are answered again: whether the first answer was sent is
        unknown.
        """
        return [
            Output(
                topic, update.user.key, encode_recommendation(_recommendation(update, found, top_k, model_version, now))
            )
            for update, found in zip(self.updates, candidates, strict=True)
            if found is not None
        ]


def _recommendation(
    update: UserUpdate, found: Candidates, top_k: int, model_version: str, now: float
) -> Recommendation:
    click, history = update.user.newest, update.history
    return Recommendation(
        user_id=click.user_id,
        item_ids=found.item_ids,
        scores=found.scores,
        interests=found.interests,
        model_version=model_version,
        history_length=len(history.items),
        source_partition=history.partition,
        source_offset=history.offset,
        click_ts=click.ts,
        ts=now,
        top_k=top_k,
    )
