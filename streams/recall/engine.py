"""The recall engine: histories in, candidates out. Knows neither Kafka nor Milvus."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from model.serving.inputs import windows
from model.serving.merge import PADDING, Candidates, merge
from streams.recall.embeddings import HistoryEmbeddings
from streams.recall.ports import FloatArray, IdArray, InterestEncoder, ItemIndex

#: Is told which stage has just ended: embed, encode, search, merge.
Lap = Callable[[str], object]
#: Batches whose search may be under way: one that is waited for, and one begun ahead of its turn.
_IN_FLIGHT = 2


class Recall(NamedTuple):
    """Candidates on their way.

    Attributes:
        wait: returns when the index has answered. Only the first call tells of the search: `finish` waits, too.
        finish: merges the answer, which it waits for if need be: candidates for each history, None where no item of the
            history is known. Call it once.

    Both raise TransientError if the index did not answer.
    """

    wait: Callable[[Lap], object]
    finish: Callable[[Lap], list[Candidates | None]]


class RecallEngine:
    """Recalls items for a batch of users with one encoding and one search.

    Args:
        encoder: histories → interest vectors.
        embeddings: item ids → embeddings.
        index: item vectors of the same model version.
        top_k: candidates for each user.
        interests: interest vectors to search with, the first ones of the encoder's; None = all.
        filter_seen: leave out the items of the user's history.
    """

    def __init__(
        self,
        encoder: InterestEncoder,
        embeddings: HistoryEmbeddings,
        index: ItemIndex,
        *,
        top_k: int,
        interests: int | None = None,
        filter_seen: bool = True,
    ) -> None:
        self._encoder = encoder
        self._embeddings = embeddings
        self._index = index
        self._top_k = top_k
        self._interests = encoder.interests if interests is None else min(interests, encoder.interests)
        self._filter_seen = filter_seen
        self._threads = ThreadPoolExecutor(_IN_FLIGHT, thread_name_prefix="search")

    def recall(self, histories: Sequence[IdArray], lap: Lap = lambda _stage: None) -> list[Candidates | None]:
        """Candidates for each history, (n,) item ids, oldest first; None where no item of the history is known.

        Raises:
            TransientError: the index did not answer.
        """
        return self.begin(histories, lap).finish(lap)

    def begin(self, histories: Sequence[IdArray], lap: Lap = lambda _stage: None) -> Recall:
        """Send the search of `recall` off.

        Raises:
            TransientError: the index did not answer.
        """
        answers: list[Candidates | None] = [None] * len(histories)
        nothing = Recall(lambda _lap: None, lambda _lap: answers)
        if not histories:
            return nothing
        interests, usable = self.interests(histories, lap)  # (B', K, D), (B',)
        if len(usable) == 0:
            return nothing
        seen = _padded([histories[i] for i in usable]) if self._filter_seen else None  # (B', H)
        # Seen items take places in every interest's list: ask for as many more as may be left out.
        limit = self._top_k + (0 if seen is None else seen.shape[1])
        B, K, D = interests.shape
        search = self._threads.submit(self._index.search, interests.reshape(B * K, D), limit)

        told = False

        def wait(lap: Lap) -> tuple[IdArray, FloatArray]:
            nonlocal told
            answer = search.result()
            if not told:
                told = True
                lap("search")
            return answer

        def finish(lap: Lap) -> list[Candidates | None]:
            ids, scores = wait(lap)  # (B'·K, limit)
            ids, scores = ids.reshape(B, K, limit), scores.reshape(B, K, limit)
            merged = merge(ids, scores, self._top_k, seen, self._encoder.fusion)
            for place, candidates in zip(usable, merged, strict=True):
                answers[place] = candidates
            lap("merge")
            return answers

        return Recall(wait, finish)

    def interests(self, histories: Sequence[IdArray], lap: Lap = lambda _stage: None) -> tuple[FloatArray, IdArray]:
        """Interest vectors (B', K, D) of those users whose history holds a known item, and their places (B',)."""
        ends = np.cumsum([0, *map(len, histories)], dtype=np.int64)
        vectors, known = self._embeddings.lookup(np.concatenate(histories, dtype=np.int64))  # (Σ n, D), (Σ n,)
        lap("embed")
        if not known.all():
            # What is unknown must not push a known click out of the window.
            vectors, ends = vectors[known], np.concatenate([[0], np.cumsum(known)])[ends]
        usable = np.flatnonzero(np.diff(ends))
        # Places in `vectors` serve as the ids of the shared input function, counted from 1 because 0 is padding.
        places = np.arange(1, len(vectors) + 1)
        rows, lengths = windows(places, ends[usable], ends[usable + 1], self._encoder.history_length)  # (B', L), (B',)
        padded = np.concatenate([np.zeros((1, vectors.shape[1]), dtype=np.float32), vectors])
        interests = self._encoder.encode(padded[rows], lengths)[:, : self._interests]
        lap("encode")
        return interests, usable


def _padded(histories: Sequence[IdArray]) -> IdArray:
    """(B, H) the histories, padded with `PADDING` to the longest."""
    padded = np.full((len(histories), max(map(len, histories))), PADDING, dtype=np.int64)
    for row, history in zip(padded, histories, strict=True):
        row[: len(history)] = history
    return padded
