"""Acquiring partitions: names must stand for what histories and offsets were made with."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import pytest

from configs.errors import FatalError, TransientError
from streams.history import History
from streams.kafka.offsets import TopicOffsets
from streams.kafka.topics import TopicIdentities, TopicIdentity
from streams.messages.clicks import Click, encode_click
from streams.ports import Message, Position
from streams.worker import preconditions
from streams.worker.preconditions import CommitMetadata, Preconditions, check_group_topics
from tests.unit.changelog import MemoryChangelog, record


class Clicks(TopicOffsets):
    """A click topic in memory; the item of a click is its offset, as in `tests.unit.changelog.record`.

    Attributes:
        users: partition → user of each click, from offset 0 on.
        begins: partition → offset of the oldest click that Kafka still has.
        commits: what the group has committed.
        read: offsets at which clicks were read.
    """

    def __init__(self, *users: str) -> None:
        self.topic = "clicks"
        self.users = dict(enumerate(users))
        self.begins = dict.fromkeys(self.users, 0)
        self.commits: dict[int, Position] = {}
        self.read: dict[int, int] = {}

    def end_offsets(self, partitions: Collection[int]) -> dict[int, int]:
        return {p: len(self.users[p]) for p in partitions}

    def beginning_offsets(self, partitions: Collection[int]) -> dict[int, int]:
        return {p: self.begins[p] for p in partitions}

    def positions(self, partitions: Collection[int]) -> dict[int, Position | None]:
        return {p: self.commits.get(p) for p in partitions}

    def first(self, starts: Mapping[int, int]) -> dict[int, Message]:
        self.read |= starts
        return {p: _click(p, offset, self.users[p][offset]) for p, offset in starts.items()}


def _click(partition: int, offset: int, user: str) -> Message:
    return Message("clicks", partition, offset, user.encode(), encode_click(Click(user, offset, 1.7e9)))


class Identities(TopicIdentities):
    """Identities of the topics now."""

    def __init__(self, partitions: int) -> None:
        self.topics = {"clicks": TopicIdentity("c1", partitions), "changelog": TopicIdentity("h1", partitions)}
        self.asked = 0

    def now(self) -> dict[str, TopicIdentity]:
        self.asked += 1
        return dict(self.topics)


class World:
    """Topics with two partitions. Users a and b clicked in the first one; their clicks are committed."""

    def __init__(self) -> None:
        self.clicks = Clicks("abab", "c")
        self.changelog = MemoryChangelog(partitions=2)
        self.changelog.log[0] = [(b"a", record(0)), (b"b", record(3)), (b"a", record(2))]
        self.identities = Identities(partitions=2)
        self.time = 0.0
        self.preconditions = self.start()
        self.commit(0, 4, reached=3)

    def start(self) -> Preconditions:
        """Start another worker."""
        return Preconditions(self.identities, self.clicks, self.changelog, self.clicks.first, lambda: self.time)

    def commit(self, partition: int, offset: int, reached: int) -> None:
        self.clicks.commits[partition] = Position(offset, self.preconditions.commit_metadata(reached, [2]))


@pytest.fixture
def world() -> World:
    return World()


def _reached(preconditions: Preconditions, partitions: list[int]) -> dict[int, int]:
    return {p: metadata.reached for p, metadata in preconditions.check(partitions).items()}


def test_metadata_survives_its_text() -> None:
    metadata = CommitMetadata("c1", 8, "h1", 2**62, (5, 7))
    text = metadata.to_text()
    assert CommitMetadata.from_text(text) == CommitMetadata.from_text(text + "rest of the memory") == metadata
    json = text.rstrip("\0")
    assert CommitMetadata.from_text(json[:-1] + ',"more":[1,2]}') == metadata, "later versions may add fields"
    largest = CommitMetadata("c" * 22, 10**6, "h" * 22, 2**62, range(2**62, 2**62 + 10_000)).to_text()
    assert len(largest) < 4096, "Kafka takes as many bytes"
    newest = CommitMetadata.from_text(largest)
    assert newest is not None and newest.awaiting[-1] == 2**62 + 9_999, "the newest ones are kept"
    for other in ("", "of another program", "[1]", '{"format":2}', '{"format":1}', "null"):
        assert CommitMetadata.from_text(other) is None


def test_the_next_owner_knows_how_far_the_changelog_reached(world: World) -> None:
    assert _reached(world.preconditions, [0, 1]) == {0: 3}
    assert world.clicks.read == {0: 3}, "the highest fence of the last records"
    assert world.preconditions.check([0])[0].awaiting == (2,)
    assert world.preconditions.check([1]) == {}
    assert world.preconditions.check([]) == {}


def test_a_topic_that_was_created_again_is_refused(world: World) -> None:
    world.identities.topics["clicks"] = TopicIdentity("c2", 2)
    with pytest.raises(FatalError, match=r"while this worker ran.*another worker\.group"):
        world.preconditions.check([0])
    with pytest.raises(FatalError, match=r"its id is not .*another worker\.group"):
        world.start().check([1])
    world.identities.topics = {"clicks": TopicIdentity("c1", 2), "changelog": TopicIdentity("h2", 2)}
    with pytest.raises(FatalError, match=r"histories of committed clicks are gone.*another worker\.group"):
        world.start().check([1])


def test_partitions_that_were_added_are_refused_whatever_partition_is_acquired(world: World) -> None:
    world.identities.topics = {"clicks": TopicIdentity("c1", 3), "changelog": TopicIdentity("h1", 3)}
    world.clicks.users[2] = ""
    world.changelog.log[2] = []
    with pytest.raises(FatalError, match=r"3 partitions.* when it had 2: .*worker\.group.*deadletters replay"):
        world.start().check([2])


def test_topics_are_watched_while_a_worker_runs(world: World) -> None:
    asked = world.identities.asked
    world.preconditions.watch()
    assert world.identities.asked == asked, "it was just asked"
    world.time += 10
    world.preconditions.watch()
    world.preconditions.watch()
    assert world.identities.asked == asked + 1
    world.identities.topics["clicks"] = TopicIdentity("c1", 6)
    world.time += 10
    with pytest.raises(FatalError, match=r"has 6 now, and had 2.*set topics\.partitions .*another worker\.group"):
        world.preconditions.watch()
    world.identities.topics = {"clicks": TopicIdentity("c1", 2), "changelog": TopicIdentity("h1", 6)}
    with pytest.raises(FatalError, match="added to topic changelog"):
        world.preconditions.watch()
    world.identities.topics["changelog"] = TopicIdentity("h1", 1)
    world.preconditions.watch()  # a broker that is not up to date


def test_a_click_topic_that_ends_before_the_committed_offset_is_waited_for(world: World) -> None:
    world.clicks.users[0] = "aba"
    del world.changelog.log[0][1]  # the last message became a dead letter: no history counts it
    with pytest.raises(TransientError, match=r"ends at offset 3 of partition 0.*another worker\.group"):
        world.preconditions.check([0])
    assert world.preconditions.check([1]) == {}
    world.clicks.users[0] = "abab"
    assert _reached(world.preconditions, [0]) == {0: 3}
    world.commit(0, 3, reached=3)
    world.changelog.log[0].append((b"b", record(3)))
    world.clicks.users[0] = "aba"
    with pytest.raises(TransientError, match="ends at offset 3 of partition 0"):
        world.preconditions.check([0])  # a history counts a click that was not committed


@pytest.mark.parametrize("committed", [True, False])
def test_other_clicks_at_the_same_offsets_are_refused(world: World, committed: bool) -> None:
    """The topic was created again, or lost its end; or the group has read another topic."""
    if not committed:
        world.clicks.commits.clear()
    world.clicks.users[0] = "abaacbc"
    with pytest.raises(FatalError, match=r"offset 3 of partition 0 is not the click .*another worker\.group"):
        world.preconditions.check([0, 1])


def test_without_a_commit_the_content_decides(world: World) -> None:
    world.clicks.commits.clear()
    assert world.preconditions.check([0, 1]) == {}
    world.clicks.users[0] = "aba"
    with pytest.raises(FatalError, match=r"ends at offset 3, and a history counts 3"):
        world.preconditions.check([0, 1])
    world.clicks.commits[0] = Position(3)
    with pytest.raises(FatalError, match=r"ends at offset 3, and a history counts 3"):
        world.preconditions.check([0, 1])
    world.clicks.users[0], world.clicks.begins[0] = "xxxxxxx", 4
    assert world.preconditions.check([0, 1]) == {}, "retention has removed the click"


def test_what_cannot_be_compared_is_not(world: World) -> None:
    world.clicks.commits.clear()
    world.changelog.log[0] = [(b"x", record(900, partition=5)), (b"x", b"hello"), (b"a", None)]
    assert world.preconditions.check([0, 1]) == {}
    assert world.clicks.read == {}


def test_a_last_click_that_this_version_cannot_read_is_known_by_its_user(world: World) -> None:
    message = Message("clicks", 0, 3, b"b", b"{}")
    assert preconditions._is_last_click(message, b"b", History.from_bytes(record(3)))
    assert not preconditions._is_last_click(message, b"a", History.from_bytes(record(3)))


def test_another_item_of_the_same_user_is_another_click(world: World) -> None:
    assert not preconditions._is_last_click(_click(0, 4, "a"), b"a", History.from_bytes(record(3)))


def test_a_group_that_has_read_another_topic_is_refused() -> None:
    check_group_topics({"clicks"}, "shop-clicks", "clicks")
    check_group_topics(set(), "shop-clicks", "clicks")
    with pytest.raises(FatalError, match=r"shop-clicks has read clicks-a, but topics\.clicks is clicks.*worker\.group"):
        check_group_topics({"clicks-a", "clicks"}, "shop-clicks", "clicks")
