"""Recommendations to the users of concurrent requests, over a memory index."""

from __future__ import annotations

import asyncio

import numpy as np
from prometheus_client import CollectorRegistry

from configs.loader import load_service
from model.arrays import FloatArray, IdArray
from streams.metrics import ServiceMetrics
from streams.recall.memory import MemoryIndex
from streams.service.recommending import Recommender, wanted
from tests.unit.fakes import VERSION, ClickWorld

WORLD_ITEMS = 6


class CountingIndex(MemoryIndex):
    """Keeps the sizes of its searches."""

    def __init__(self) -> None:
        super().__init__(VERSION, WORLD_ITEMS)
        self.searches: list[tuple[int, int]] = []

    def search(self, queries: FloatArray, limit: int) -> tuple[IdArray, FloatArray]:
        self.searches.append((len(queries), limit))
        return super().search(queries, limit)


def _ids(*items: int) -> IdArray:
    return np.array(items, dtype=np.int64)


def _recommender(world: ClickWorld, usual_limit: int = 7) -> Recommender:
    return Recommender(
        world.engine, usual_limit, load_service(None, (), {}).service, ServiceMetrics(CollectorRegistry())
    )


def test_each_answer_says_what_it_is_or_why_there_is_none() -> None:
    async def scenario() -> None:
        users = [
            wanted(_ids(1, 99, 98, 99), 3, [], exclude_seen=True),
            wanted(_ids(), 3, [], exclude_seen=True),
            wanted(_ids(99), 3, [], exclude_seen=True),
            wanted(_ids(1), 2, [2], exclude_seen=False),
        ]
        found = await _recommender(ClickWorld(WORLD_ITEMS)).recommend(users)
        assert [answer.reason for answer in found] == [None, "empty_history", "no_known_item", None]
        assert [list(answer.unknown) for answer in found] == [[99, 98], [], [99], []]
        first, last = found[0].candidates, found[3].candidates
        assert first is not None and len(first.item_ids) == 3 and 1 not in first.item_ids
        assert last is not None and last.item_ids[0] == 1 and len(last.item_ids) == 2 and 2 not in last.item_ids

    asyncio.run(scenario())


def test_only_empty_histories_need_no_search() -> None:
    async def scenario() -> None:
        world = ClickWorld(WORLD_ITEMS, failures=1)
        (found,) = await _recommender(world).recommend([wanted(_ids(), 3, [], exclude_seen=True)])
        assert found.reason == "empty_history"

    asyncio.run(scenario())


def test_the_service_answers_as_a_worker_does() -> None:
    async def scenario() -> None:
        world = ClickWorld(WORLD_ITEMS)
        rng = np.random.default_rng(1)
        histories = [rng.integers(1, WORLD_ITEMS + 2, size=n) for n in rng.integers(1, 5, size=50)]
        by_worker = world.engine.recall(histories)
        recommender = _recommender(world)
        requests = [[wanted(history, world.engine.top_k, [], exclude_seen=True)] for history in histories]
        answers = await asyncio.gather(*map(recommender.recommend, requests))
        for candidates, (answer,) in zip(by_worker, answers, strict=True):
            assert (candidates is None) == (answer.candidates is None)
            if candidates is not None and answer.candidates is not None:
                for column in ("item_ids", "scores", "interests"):
                    assert np.array_equal(getattr(answer.candidates, column), getattr(candidates, column))

    asyncio.run(scenario())


def test_a_request_that_needs_many_hits_does_not_share_the_search_of_usual_ones() -> None:
    async def scenario() -> None:
        world = ClickWorld(WORLD_ITEMS)
        index = CountingIndex()
        index.upsert(np.arange(1, WORLD_ITEMS + 1), world.known.item_vectors)
        world.engine._index = index
        usual = wanted(_ids(1), 3, [], exclude_seen=True)
        large = wanted(_ids(1), 20, [5, 6], exclude_seen=True)
        recommender = _recommender(world)
        await asyncio.gather(*(recommender.recommend([user]) for user in (usual, large, usual)))
        assert sorted(index.searches) == [(1, 23), (2, 4)]

    asyncio.run(scenario())
