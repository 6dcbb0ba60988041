"""Histories from a copy of the changelog, with the real RocksDB."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from configs.schema import Partitioner
from streams.history import History
from streams.partitioning import KeyPartitions
from streams.service.histories import HistoryReplica, pack_history, stored_history_fence
from streams.state.follower import Follower
from streams.state.shared_store import SharedStores
from tests.site import wait_for
from tests.unit.changelog import MemoryChangelog, MemoryIdentities, record

DAY_S = 86_400.0


def _replica(folder: Path, topic: MemoryChangelog, partitioner: Partitioner = "murmur2") -> HistoryReplica:
    stores = SharedStores(folder, stored_history_fence, "service.data_dir")
    follower = Follower(topic, stores, MemoryIdentities(topic), pack_history, lambda _: None, DAY_S)
    made = HistoryReplica(follower, partitioner)
    wait_for(lambda: made.lag().caught_up, "the copy")
    return made


def test_histories_come_in_the_order_of_the_users_with_the_time_of_their_record(tmp_path: Path) -> None:
    topic, users = MemoryChangelog(4), [f"{n}" for n in range(20)]
    where = {user: next(iter(KeyPartitions("murmur2", 4).of(user.encode()))) for user in users}
    offsets: dict[str, int] = {}
    for number, user in enumerate(users):
        log = topic.log[where[user]]
        offsets[user] = len(log)
        log.append((user.encode(), History(where[user], number, np.array([7, number + 1])).to_bytes()))
    replica = _replica(tmp_path, topic)
    found = replica.get([*reversed(users), "new", "3"])
    assert [(h.partition, h.offset, h.items.tolist()) for h in found[:20] if h] == [
        (where[u], int(u), [7, int(u) + 1]) for u in reversed(users)
    ]
    assert [h.updated_at for h in found[:20] if h] == [topic.written_at + offsets[u] for u in reversed(users)]
    assert found[20] is None
    assert found[21] is not None
    assert found[21].offset == 3
    assert replica.get([]) == []
    replica.close()


def test_with_unknown_partitioners_the_newest_history_of_all_partitions_counts(tmp_path: Path) -> None:
    topic = MemoryChangelog(3)
    topic.log[0] = [(b"ada", record(900, 0)), (b"x", record(1, 0))]
    topic.log[2] = [(b"x", record(1, 2)), (b"x", record(2, 2)), (b"ada", record(5, 2))]
    replica = _replica(tmp_path, topic, "any")
    (ada,) = replica.get(["ada"])
    assert ada is not None
    assert (ada.partition, ada.offset) == (2, 5), "its record was written later"
    replica.close()


def test_what_is_no_record_has_no_fence() -> None:
    assert stored_history_fence(pack_history(b"ada", record(3, 1), 1.0), 1) == (1, 3)
    assert stored_history_fence(pack_history(b"ada", record(3, 1), 1.0), 2) is None
    assert stored_history_fence(pack_history(b"ada", b"hello", 1.0), 1) is None
    assert stored_history_fence(pack_history(b"ada", b"", 1.0), 1) is None
