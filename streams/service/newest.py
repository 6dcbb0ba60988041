"""The newest recommendation of each user, from a local copy of the topic of recommendations."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable

from streams.errors import BadMessage
from streams.history import Fence
from streams.messages.clicks import user_key
from streams.messages.recommendations import Recommendation, decode_recommendation
from streams.ports import ReplicaLag
from streams.state.follower import Follower

#: Time at which Kafka received the recommendation, in seconds since 1970, and 16 bytes that are not used. The message's
#: value follows.
_HEADER = struct.Struct("<d16x")
#: The fence of every recommendation: none is older than another one, so the one that is written last is kept.
_FENCE = (0, 0)


def pack_recommendation(user: bytes | None, value: bytes, received_at: float) -> bytes:
    """Return the bytes to store for a recommendation, which Kafka received at this time.

    Empty, if the value is no recommendation, or is one for another user.
    """
    try:
        recommendation = decode_recommendation(value)
    except BadMessage:
        return b""
    if user_key(recommendation.user_id) != user:
        return b""
    return _HEADER.pack(received_at) + value


def stored_recommendation_fence(stored: bytes, _partition: int) -> Fence | None:
    """Return the fence of a stored recommendation, which is that of all; None if the message was invalid.

    Sources are no fence: if the click topic is deleted and created again, the newer recommendations have the lower
    ones. A zombie's older recommendation is followed by a newer one (`streams/DELIVERY.md`, *Answers without a click*).
    """
    return _FENCE if stored else None


class RecommendationReplica:
    """`streams.service.ports.NewestRecommendations` from a copy of the topic. Thread-safe.

    Args:
        follower: follows the topic, with the two functions above.
        retention_s: seconds after which a recommendation is not returned any more. Kafka deletes it then, and a service
            that copies the topic later does not have it.
        clock: seconds since 1970.
    """

    def __init__(self, follower: Follower, retention_s: float, clock: Callable[[], float] = time.time) -> None:
        self._follower = follower
        self._retention_s = retention_s
        self._clock = clock

    def get(self, user_id: str) -> Recommendation | None:
        """See `streams.service.ports.NewestRecommendations.get`."""
        newest, received_at = None, self._clock() - self._retention_s
        # In all partitions: the topic may have got more, and then the user's older ones are in another one.
        for partition in self._follower.partitions:
            (stored,) = self._follower.read(partition, [user_id.encode()])
            if stored is not None and (at := _HEADER.unpack_from(stored)[0]) > received_at:
                newest, received_at = stored, at
        return None if newest is None else decode_recommendation(newest[_HEADER.size :])

    def lag(self) -> ReplicaLag:
        """See `streams.service.ports.NewestRecommendations.lag`."""
        return self._follower.lag()

    def close(self) -> None:
        """Stop following, and close the copy."""
        self._follower.close()
