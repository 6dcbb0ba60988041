"""The protocols between the routes of the service and what they need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from model.arrays import IdVector
from streams.messages.recommendations import Recommendation
from streams.ports import ReplicaLag


@dataclass(frozen=True, slots=True, eq=False)
class UserHistory:
    """One user's newest clicks, as the workers keep them.

    Attributes:
        items: (n,) item ids, oldest first.
        partition, offset: the newest click that it counts.
        updated_at: time at which Kafka received the record, in seconds since 1970; None = unknown.
    """

    items: IdVector
    partition: int
    offset: int
    updated_at: float | None


class UserHistories(Protocol):
    """A copy of all users' histories. Thread-safe."""

    def get(self, user_ids: Sequence[str]) -> list[UserHistory | None]:
        """Return each user's history; None for unknown users.

        While `lag().caught_up` is false, None may also mean that the user has not been copied yet.

        Raises:
            TransientError: a part of the copy is damaged, and is being made again.
        """
        ...

    def lag(self) -> ReplicaLag:
        """Return how far the copy is behind."""
        ...


class NewestRecommendations(Protocol):
    """A copy of the newest recommendation of each user. Thread-safe."""

    def get(self, user_id: str) -> Recommendation | None:
        """Return the user's newest recommendation; None if there is none. See `UserHistories.get`."""
        ...

    def lag(self) -> ReplicaLag:
        """Return how far the copy is behind."""
        ...
