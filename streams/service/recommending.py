"""Histories → recommendations, with the workers' own engine, in calls that requests share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from configs.schema import Service
from model.arrays import IdArray, IdVector
from model.serving.merge import Candidates
from streams.metrics import ServiceMetrics
from streams.recall.engine import RecallEngine, Selection
from streams.service.batching import SharedCalls

Reason = Literal["empty_history", "unknown_user", "no_known_item", "nothing_found"]


@dataclass(frozen=True, slots=True, eq=False)
class Wanted:
    """One user of a request.

    Attributes:
        history: (n,) item ids, oldest first.
        top_k: number of items.
        exclude: (m,) distinct ids of items to leave out.
    """

    history: IdVector
    top_k: int
    exclude: IdArray


@dataclass(frozen=True, slots=True, eq=False)
class Recommended:
    """The answer to one user.

    Attributes:
        candidates: what is recommended; None = nothing.
        reason: why there is nothing.
        unknown: items of the history without a vector, oldest first, each once; they are skipped.
    """

    candidates: Candidates | None
    reason: Reason | None = None
    unknown: Sequence[int] = ()


def wanted(history: IdVector, top_k: int, exclude: Sequence[int], *, exclude_seen: bool) -> Wanted:
    """Return what a user wants; the items of the history are left out, too, if `exclude_seen`."""
    excluded = np.array(exclude, dtype=np.int64)
    if exclude_seen:
        excluded = np.concatenate([history, excluded])
    return Wanted(history, top_k, np.unique(excluded))


class Recommender:
    """Recommends to the users of concurrent requests with one encoding and one search.

    Args:
        engine: the engine.
        usual_limit: hits of each interest that a worker asks for at most. Requests that need more (a larger `top_k`,
            many excluded items) share searches only with those that need up to twice as much: such a search examines
            more candidates, so the others would wait for it, and get other items than from a worker.
        settings: sizes of batch and queue.
        metrics: counts batches.

    Attributes:
        calls: the shared calls.
    """

    def __init__(self, engine: RecallEngine, usual_limit: int, settings: Service, metrics: ServiceMetrics) -> None:
        self._engine = engine
        self._usual_limit = usual_limit
        self.calls = SharedCalls(
            self._recall,
            batch_users=settings.batch_users,
            queue_users=settings.queue_users,
            timeout_s=settings.timeout,
            metrics=metrics,
        )

    async def recommend(self, users: Sequence[Wanted]) -> Sequence[Recommended]:
        """Return the answers to the users of one request. Raises as `SharedCalls.answer`."""
        if not any(len(user.history) for user in users):
            return [Recommended(None, "empty_history") for _ in users]
        limit = max(user.top_k + len(user.exclude) for user in users)
        return await self.calls.answer(users, kind=((limit - 1) // self._usual_limit).bit_length())

    def _recall(self, users: Sequence[Wanted]) -> Sequence[Recommended]:
        selections = [Selection(user.top_k, user.exclude) for user in users]
        pending = self._engine.start([user.history for user in users], selections=selections)
        found = pending.finish()
        return [_answer(user, candidates, pending.unknown) for user, candidates in zip(users, found, strict=True)]


def _answer(user: Wanted, candidates: Candidates | None, unknown: frozenset[int]) -> Recommended:
    if not len(user.history):
        return Recommended(None, "empty_history")
    without_vector: Sequence[int] = ()
    if unknown:
        without_vector = [item for item in dict.fromkeys(user.history.tolist()) if item in unknown]
    if candidates is not None:
        return Recommended(candidates, None, without_vector)
    is_known = len(without_vector) < len(set(user.history.tolist()))
    return Recommended(None, "nothing_found" if is_known else "no_known_item", without_vector)
