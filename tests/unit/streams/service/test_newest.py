"""The newest recommendation of each user from a copy of the topic, with the real RocksDB."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.messages.recommendations import Recommendation, encode_recommendation
from streams.service.newest import RecommendationReplica, pack_recommendation, stored_recommendation_fence
from streams.state.follower import Follower
from streams.state.shared_store import SharedStores
from tests.site import wait_for
from tests.unit.changelog import MemoryChangelog, MemoryIdentities

DAY_S = 86_400.0
Start = Callable[[], RecommendationReplica]


def recommendation(user: int | str, source: int, item: int = 1, partition: int = 0) -> bytes:
    return encode_recommendation(
        Recommendation(user, [item], [0.5], [0], "m", 1, partition, source, 1_767_225_600.0, 1_767_225_601.0)
    )


@pytest.fixture
def topic() -> MemoryChangelog:
    return MemoryChangelog(2)


@pytest.fixture
def foreign() -> list[int]:
    return []


@pytest.fixture
def start(topic: MemoryChangelog, tmp_path: Path, foreign: list[int]) -> Iterator[Start]:
    """Return a function that copies the topic; a week after its first message."""
    made: list[RecommendationReplica] = []

    def started() -> RecommendationReplica:
        for each in made:
            each.close()
        stores = SharedStores(tmp_path / "copy", stored_recommendation_fence, "service.data_dir")
        identities = MemoryIdentities(topic)
        follower = Follower(topic, stores, identities, pack_recommendation, lambda _: None, DAY_S, foreign.append)
        made.append(RecommendationReplica(follower, 8 * DAY_S, lambda: topic.written_at + 7 * DAY_S))
        wait_for(lambda: made[-1].lag().caught_up, "the copy")
        return made[-1]

    yield started
    for each in made:
        each.close()


def _items(replica: RecommendationReplica, user: str) -> list[int] | None:
    found = replica.get(user)
    return None if found is None else list(found.item_ids)


def test_the_list_that_is_written_last_counts(topic: MemoryChangelog, start: Start) -> None:
    topic.log[0] = [
        (b"42", recommendation(42, 5, item=1)),
        (b"42", recommendation(42, 9, item=2)),
        (b"42", recommendation(42, 9, item=3)),  # answered again, with a vector that has arrived
    ]
    assert _items(start(), "42") == [3]
    topic.log[0].append((b"42", recommendation(42, 7, item=4)))  # a zombie's, until the owner answers the user again
    assert _items(start(), "42") == [4]
    topic.log[0].append((b"42", recommendation(42, 9, item=5)))
    replica = start()
    assert _items(replica, "42") == [5]
    assert replica.get("43") is None


def test_lists_of_a_click_topic_that_was_created_again_replace_those_of_the_former_one(
    topic: MemoryChangelog, start: Start
) -> None:
    """Offsets begin at 0 again, and have passed those of some former lists when the copy is made."""
    topic.log[0] = [(b"42", recommendation(42, 900, item=1)), (b"43", recommendation(43, 3, item=1))]
    assert _items(start(), "42") == [1]
    topic.log[0] += [(b"42", recommendation(42, 0, item=2)), (b"43", recommendation(43, 1000, item=2))]
    replica = start()
    assert (_items(replica, "42"), _items(replica, "43")) == ([2], [2])


def test_a_removal_is_final_and_messages_after_it_count(topic: MemoryChangelog, start: Start) -> None:
    topic.log[0] = [(b"42", recommendation(42, 9)), (b"42", None)]
    assert start().get("42") is None
    topic.log[0].append((b"42", recommendation(42, 3, item=2)))
    assert _items(start(), "42") == [2]


def test_sources_of_another_partition_are_newer_if_they_are_written_later(topic: MemoryChangelog, start: Start) -> None:
    """The click topic got more partitions, and a user moved."""
    topic.log[0] = [(b"42", recommendation(42, 900, 1, partition=7)), (b"42", recommendation(42, 3, 2, partition=0))]
    topic.log[1] = [(b"ada", recommendation("ada", 1, 3)), (b"x", None), (b"ada", recommendation("ada", 1, 3))]
    topic.log[0].append((b"ada", recommendation("ada", 9, 4)))
    topic.log[0].append((b"ada", recommendation("ada", 10, 5)))
    replica = start()
    assert _items(replica, "42") == [2]
    assert _items(replica, "ada") == [5], "the topic itself got more partitions"


def test_messages_that_are_no_recommendations_are_counted_and_skipped(
    topic: MemoryChangelog, start: Start, foreign: list[int]
) -> None:
    good = recommendation(42, 9)
    topic.log[0] = [
        (b"42", good),
        (b"42", b"hello"),
        (b"42", good[:-30]),
        (b"42", recommendation(43, 99)),  # the list of another user
        (None, good),
        (b"", good),
    ]
    assert _items(start(), "42") == [1]
    assert sum(foreign) == 5


def test_what_kafka_would_have_deleted_is_not_returned(topic: MemoryChangelog, start: Start) -> None:
    topic.log[0] = [(b"42", recommendation(42, 9))]
    replica = start()
    assert _items(replica, "42") == [1]
    replica._clock = lambda: topic.written_at + 9 * DAY_S
    assert replica.get("42") is None


@given(st.binary(max_size=200), st.floats(0, 4e9))
def test_any_bytes_are_packed(value: bytes, at: float) -> None:
    assert stored_recommendation_fence(pack_recommendation(b"42", value, at), 0) is None


@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**63 - 1), st.integers(0, 2**31 - 1))
def test_any_source_is_packed(user: int, source: int, partition: int) -> None:
    value = recommendation(user, source, partition=partition)
    packed = pack_recommendation(str(user).encode(), value, 1.0)
    assert stored_recommendation_fence(packed, 0) is not None
    assert packed.endswith(value)
