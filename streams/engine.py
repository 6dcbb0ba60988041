"""The recall engine: histories in, candidates out. Knows neither Kafka nor Milvus."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from model.inputs import model_input
from streams.embeddings import HistoryEmbeddings
from streams.merge import PADDING, Candidates, merge
from streams.ports import FloatArray, IdArray, InterestEncoder, ItemIndex


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

    def recall(self, histories: Sequence[IdArray]) -> list[Candidates | None]:
        """Candidates for each history, (n,) item ids, oldest first; None where no item of the history is known.

        Raises:
            TransientError: the index did not answer.
        """
        answers: list[Candidates | None] = [None] * len(histories)
        interests, usable = self.interests(histories)  # (B', K, D), (B',)
        if len(usable) == 0:
            return answers
        seen = _padded([histories[i] for i in usable]) if self._filter_seen else None  # (B', H)
        # Seen items take places in every interest's list: ask for as many more as may be left out.
        limit = self._top_k + (0 if seen is None else seen.shape[1])
        B, K, D = interests.shape
        ids, scores = self._index.search(interests.reshape(B * K, D), limit)  # (B'·K, limit)
        merged = merge(ids.reshape(B, K, limit), scores.reshape(B, K, limit), self._top_k, seen)
        for place, candidates in zip(usable, merged, strict=True):
            answers[place] = candidates
        return answers

    def interests(self, histories: Sequence[IdArray]) -> tuple[FloatArray, IdArray]:
        """Interest vectors (B', K, D) of those users whose history holds a known item, and their places (B',)."""
        sizes = [len(h) for h in histories]
        flat = np.concatenate([*histories, np.empty(0, dtype=np.int64)])  # (Σ n,)
        vectors, known = self._embeddings.lookup(flat)  # (Σ n, D), (Σ n,)
        ends = np.cumsum(sizes)
        # Places in `vectors` serve as the ids of the shared input function, counted from 1 because 0 is padding.
        kept = [np.flatnonzero(known[e - n : e]) + (e - n) + 1 for n, e in zip(sizes, ends, strict=True)]
        usable = np.array([i for i, places in enumerate(kept) if len(places)], dtype=np.int64)
        places, lengths = model_input([kept[i] for i in usable], self._encoder.history_length)  # (B', L), (B',)
        padded = np.concatenate([np.zeros((1, vectors.shape[1]), dtype=np.float32), vectors])
        embeddings = padded[places]  # (B', L, D)
        return self._encoder.encode(embeddings, lengths)[:, : self._interests], usable


def _padded(histories: Sequence[IdArray]) -> IdArray:
    """(B, H) the histories, padded with `PADDING` to the longest."""
    padded = np.full((len(histories), max(map(len, histories))), PADDING, dtype=np.int64)
    for row, history in zip(padded, histories, strict=True):
        row[: len(history)] = history
    return padded
