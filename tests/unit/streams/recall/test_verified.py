"""A verified index passes on complete answers only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from configs.errors import TransientError
from model.arrays import FloatArray, IdArray
from model.serving.merge import PADDING
from streams.milvus.observed import ObservedIndex
from streams.recall.memory import MemoryIndex
from streams.recall.ports import IndexInfo
from streams.recall.verified import RequiredItems, VerifiedIndex
from tests.unit.fakes import FailingIndex

DIM = 4
QUERY = np.ones((2, DIM), dtype=np.float32)
CANARIES = np.full((4, DIM), 2, dtype=np.float32)


class RestartedServer(MemoryIndex):
    """Milvus after a restart: `hidden` items are not found until the items are counted `counts` times."""

    def __init__(self) -> None:
        super().__init__("m1", DIM)
        self.hidden: set[int] = set()
        self.counts = self.counts_needed = 0
        self.dead_queries: set[int] = set()
        self.before_count: Callable[[], object] = lambda: None

    def search(self, queries: FloatArray, limit: int) -> tuple[IdArray, FloatArray]:
        ids, scores = super().search(queries, limit + len(self.hidden))
        answer = np.zeros((len(queries), limit), np.int64), np.full((len(queries), limit), -np.inf, np.float32)
        for query, row in enumerate(ids):
            shown = ~np.isin(row, [0, *self.hidden]) & (query not in self.dead_queries)
            n = min(limit, shown.sum())
            answer[0][query, :n], answer[1][query, :n] = row[shown][:n], scores[query][shown][:n]
        return answer

    def get(self, ids: IdArray) -> dict[int, FloatArray]:
        return {item: vector for item, vector in super().get(ids).items() if item not in self.hidden}

    def describe(self) -> IndexInfo:
        self.before_count()
        self.counts += 1
        if self.counts > self.counts_needed:
            self.hidden = set()
        return super().describe()


class World:
    def __init__(self, items: int, needed: int = 0) -> None:
        self.server = RestartedServer()
        self.hold(items)
        self.link = FailingIndex(self.server, failures=0)
        self.observed = ObservedIndex(self.link, max_age_s=60.0)
        self.short = 0
        self.index = VerifiedIndex(
            self.observed, 2, RequiredItems(needed, 1.0, Path("artifact")), CANARIES, self._count_short
        )
        self.observed.describe()
        self.server.counts = 0

    def hold(self, items: int) -> None:
        self.server._vectors = {i: np.full(DIM, 1 / i, np.float32) for i in range(1, items + 1)}

    def hide_until_counted(self, *, times: int = 0) -> None:
        self.server.hidden, self.server.counts_needed = set(self.server._vectors), self.server.counts + times

    def fail_once(self) -> None:
        self.link.failures = 1
        self.observed.ping()

    def _count_short(self) -> None:
        self.short += 1


def test_a_full_answer_needs_no_count() -> None:
    world = World(items=6)
    assert world.index.search(QUERY, 4)[0].tolist() == [[1, 2, 3, 4]] * 2
    assert world.index.get(np.array([5, 9])).keys() == {5}
    assert (world.server.counts, world.short) == (0, 0)


def test_a_collection_smaller_than_the_limit_yields_all_of_it() -> None:
    world = World(items=3)
    assert world.index.search(QUERY, 4)[0].tolist() == [[1, 2, 3, 0]] * 2
    assert world.server.counts == 0


@pytest.mark.parametrize("left", [0, 3])
def test_a_short_answer_is_repeated_after_a_count(left: int) -> None:
    world = World(items=6)
    world.hide_until_counted()
    world.server.hidden -= set(range(1, left + 1))
    assert world.index.search(QUERY, 4)[0].tolist() == [[1, 2, 3, 4]] * 2
    assert (world.server.counts, world.short) == (1, 1)


def test_removed_items_explain_a_short_answer() -> None:
    world = World(items=6)
    world.hold(2)
    assert world.index.search(QUERY, 4)[0].tolist() == [[1, 2, 0, 0]] * 2
    assert world.index.search(QUERY, 4)[0].tolist() == [[1, 2, 0, 0]] * 2
    assert world.server.counts == 1, "the new count explains the second search"


def test_an_answer_that_stays_short_is_a_fault_and_no_list() -> None:
    world = World(items=6)
    world.hide_until_counted(times=2)
    world.server.hidden -= {5}
    for _ in range(2):
        with pytest.raises(TransientError, match=r"finds 1 of the 4 items asked for.*holds 6: nothing is recommended"):
            world.index.search(QUERY, 4)
    world.index.search(QUERY, 4)


def test_the_lack_of_complete_answers_is_known_until_one_is_complete() -> None:
    world = World(items=6)
    assert world.index.incomplete is None
    world.hide_until_counted(times=3)
    with pytest.raises(TransientError):
        world.index.search(QUERY, 4)
    assert (world.index.incomplete or "").startswith("a search finds 0 of the 4 items")
    world.index.check()
    assert world.index.incomplete is not None, "the canaries are not answered either"
    world.server.hidden = set()
    world.index.check()
    assert world.index.incomplete is None
    world.hide_until_counted(times=3)
    with pytest.raises(TransientError):
        world.index.search(QUERY, 4)
    world.server.hidden = set()
    world.index.search(QUERY, 4)
    assert world.index.incomplete is None


def test_users_whose_part_of_the_graph_is_missing_do_not_hold_up_the_others() -> None:
    class Hole(RestartedServer):
        def search(self, queries: FloatArray, limit: int) -> tuple[IdArray, FloatArray]:
            ids, scores = super().search(queries, limit)
            ids[queries[:, 0] < 0] = PADDING
            return ids, scores

    world = World(items=6)
    world.server.__class__ = Hole
    queries = np.concatenate([QUERY, -QUERY])
    for _ in range(2):
        ids, _ = world.index.search(queries, 4)
        assert ids.tolist() == [[1, 2, 3, 4]] * 2 + [[0, 0, 0, 0]] * 2
    assert world.short == 2


def test_one_full_query_of_each_user_is_enough() -> None:
    world = World(items=6)
    queries = np.ones((4, DIM), dtype=np.float32)
    world.server.dead_queries = {0, 3}
    assert (world.index.search(queries, 4)[0][1:3] > 0).all()
    assert world.server.counts == 0
    world.server.dead_queries = {0, 1, 2}  # of the canaries, too
    with pytest.raises(TransientError, match="finds 0 of the 4"):
        world.index.search(queries, 4)


@pytest.mark.parametrize("read", ["search", "get"])
def test_after_a_fault_the_items_are_counted_before_the_next_read(read: str) -> None:
    """Also one that only the ping has seen. The count waits until a restarted server has read all items."""
    world = World(items=6)
    world.fail_once()
    world.hide_until_counted()
    world.server.hidden = {1, 2}
    for _ in range(2):
        if read == "search":
            assert world.index.search(QUERY, 4)[0].tolist() == [[1, 2, 3, 4]] * 2
        else:
            assert world.index.get(np.array([1, 4])).keys() == {1, 4}
    assert world.server.counts == 1
    assert world.short == 0


def test_a_fault_during_the_count_makes_the_next_read_count_again() -> None:
    world = World(items=6)
    world.fail_once()
    world.server.before_count = world.fail_once
    world.index.search(QUERY, 4)
    world.server.before_count = lambda: None
    world.index.search(QUERY, 4)
    world.index.search(QUERY, 4)
    assert world.server.counts == 2


@pytest.mark.parametrize("read", ["search", "get"])
def test_a_collection_that_lacks_items_is_not_read(read: str) -> None:
    world = World(items=6, needed=5)
    world.hold(4)
    world.observed.describe()  # as the health thread does now and then
    for _ in range(2):
        with pytest.raises(TransientError, match=r"holds 4 of 5 items; publish them: .*catalogue_share"):
            world.index.search(QUERY, 2) if read == "search" else world.index.get(np.array([1]))
    world.hold(5)
    world.index.search(QUERY, 2)


def test_a_collection_that_was_emptied_is_noticed_by_the_search_itself() -> None:
    world = World(items=6, needed=5)
    world.hold(0)
    with pytest.raises(TransientError, match="the collection holds 0 of 5 items"):
        world.index.search(QUERY, 2)
    assert world.short == 1


def test_without_a_needed_share_an_empty_collection_yields_nothing() -> None:
    world = World(items=0)
    assert world.index.search(QUERY, 2)[0].tolist() == [[0, 0]] * 2
