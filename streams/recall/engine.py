"""The recall engine: histories in, candidates out. It depends on neither Kafka nor Milvus."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from model.arrays import FloatArray, FloatVector, IdArray, IdVector, IntVector, Mask
from model.serving.merge import PADDING, Candidates, merge
from streams.recall.embeddings import HistoryEmbeddings
from streams.recall.inputs import EncoderInputs, StageTimer, encoder_inputs, untimed
from streams.recall.ports import InterestEncoder, ItemReader

_LOG = logging.getLogger("mindstream.recall")

#: Searches that may be under way at the same time: that of the current batch, and that of the next one.
_IN_FLIGHT = 2


class Selection(NamedTuple):
    """A user's own settings, instead of the engine's.

    Attributes:
        top_k: number of candidates.
        exclude: (n,) distinct ids of items to leave out; those of the history are among them only if they are listed.
    """

    top_k: int
    exclude: IdArray


class RecallSteps(NamedTuple):
    """One user's way from clicks to candidates.

    Attributes:
        inputs: the clicks that were read.
        interests: (K, D) float32.
        ids, scores: (K, n) what the index found for each interest, best first; ids are padded.
        excluded: ids in these lists that are not recommended, because the user has seen them.
        merged: the candidates.
    """

    inputs: EncoderInputs
    interests: FloatArray
    ids: IdArray
    scores: FloatArray
    excluded: IdArray
    merged: Candidates


class PendingRecall:
    """Candidates of a batch of users whose search is under way. Nothing outside the process has been changed.

    `wait` and `finish` raise TransientError if the index did not respond. Not thread-safe.

    Args:
        users: number of users, B.
        rows: (B',) rows, from 0 to B - 1, of the users with a known item.
        seen: (B', H) item ids to leave out, padded with `PADDING`; None = none.
        search: ids and scores, (B'·K, limit) each; None = there is nothing to search for.
        unknown: ids of the items in the histories that have no vector.
        groups: number of candidates → those of the B' users who get so many; a slice or positions.
        fusion: see `model.serving.merge`.

    Attributes:
        missed: rows of users for whom the index has found nothing; known after `finish`, which recommends them nothing.
    """

    def __init__(
        self,
        users: int,
        rows: IdArray,
        seen: IdArray | None,
        search: Future[tuple[IdArray, FloatArray]] | None,
        unknown: frozenset[int],
        groups: Mapping[int, slice | IntVector],
        fusion: float,
    ) -> None:
        self.unknown = unknown
        self.missed: Sequence[int] = ()
        self._users = users
        self._rows = rows
        self._seen = seen
        self._search = search
        self._groups = groups
        self._fusion = fusion
        self._timed = False

    def wait(self, stopwatch: StageTimer = untimed) -> None:
        """Wait until the index has answered. Only the first call is timed, because `finish` calls this method, too."""
        if self._search is None:
            return
        self._search.result()
        if not self._timed:
            self._timed = True
            stopwatch("search")

    def finish(self, stopwatch: StageTimer = untimed) -> list[Candidates | None]:
        """Wait for the answer, and return each user's merged candidates; None where no item of the history is known."""
        candidates: list[Candidates | None] = [None] * self._users
        if self._search is None:
            return candidates
        self.wait(stopwatch)
        ids, scores = self._search.result()  # (B'·K, limit)
        shape = len(self._rows), -1, ids.shape[1]  # B', K, limit
        self.missed = self._rows[~ids.reshape(len(self._rows), -1).any(axis=1)].tolist()  # PADDING is 0
        ids, scores = ids.reshape(shape), scores.reshape(shape)
        for top_k, users in self._groups.items():
            seen = None if self._seen is None else self._seen[users]
            merged = merge(ids[users], scores[users], top_k, seen, self._fusion)
            for row, found in zip(self._rows[users], merged, strict=True):
                candidates[row] = found
        for row in self.missed:
            candidates[row] = None
        stopwatch("merge")
        return candidates


class RecallEngine:
    """Recalls items for a batch of users with one encoding and one search. Safe to use from several threads.

    Args:
        encoder: histories → interest vectors.
        embeddings: item ids → embeddings.
        index: item vectors of the same model version.
        top_k: number of candidates for each user.
        interests: number of interest vectors to search with, the encoder's first ones; None = all.
        filter_seen: leave out the items of the user's history.

    Attributes:
        top_k: number of candidates for each user, unless the index has fewer.
    """

    def __init__(
        self,
        encoder: InterestEncoder,
        embeddings: HistoryEmbeddings,
        index: ItemReader,
        *,
        top_k: int,
        interests: int | None = None,
        filter_seen: bool = True,
    ) -> None:
        self.top_k = top_k
        self._encoder = encoder
        self._embeddings = embeddings
        self._index = index
        self._interests = encoder.interests if interests is None else min(interests, encoder.interests)
        self._filter_seen = filter_seen
        self._threads = ThreadPoolExecutor(_IN_FLIGHT, thread_name_prefix="search")

    def recall(self, histories: Sequence[IdArray]) -> list[Candidates | None]:
        """Return candidates for each history, (n,) item ids, oldest first; None where no item of it is known.

        Raises:
            TransientError: the index did not respond.
        """
        return self.start(histories).finish()

    def start(
        self,
        histories: Sequence[IdArray],
        stopwatch: StageTimer = untimed,
        selections: Sequence[Selection] | None = None,
    ) -> PendingRecall:
        """Encode the histories and send their search to the index, without waiting for the answer.

        Args:
            histories: (n,) item ids of each user, oldest first.
            stopwatch: called after each stage.
            selections: what each user is to get; None = what the engine's settings say.

        Raises:
            TransientError: the index, which has the embeddings of new items, did not respond.
        """
        rows = np.empty(0, dtype=np.int64)
        seen, search, unknown = None, None, frozenset[int]()
        groups: Mapping[int, slice | IntVector] = {self.top_k: slice(None)}
        if histories:
            interests, rows, unknown = self.interests(histories, stopwatch)  # (B', K, D), (B',)
        if len(rows):
            # Seen items take up ranks in every interest's list: ask for as many more as may be left out.
            if selections is None:
                seen = _padded([histories[row] for row in rows.tolist()]) if self._filter_seen else None  # (B', H)
                limit = self.top_k + (0 if seen is None else seen.shape[1])
            else:
                chosen = [selections[row] for row in rows.tolist()]
                seen = _padded([selection.exclude for selection in chosen])
                limit = max(selection.top_k + len(selection.exclude) for selection in chosen)
                groups = _groups(chosen)
            search = self._threads.submit(self._index.search, interests.reshape(-1, interests.shape[2]), limit)
        return PendingRecall(len(histories), rows, seen, search, unknown, groups, self._encoder.fusion)

    def known(self, ids: Collection[int]) -> set[int]:
        """Return those of the item ids that have a vector now.

        Raises:
            TransientError: the index did not respond.
        """
        wanted = np.array(list(ids), dtype=np.int64)
        _, known = self._embeddings.lookup(wanted)
        return set(wanted[known].tolist())

    def similar(self, item_id: int, n: int) -> tuple[IdVector, FloatVector] | None:
        """Return ids and scores of the n items nearest to an item, best first; None if the item has no vector.

        Raises:
            TransientError: the index did not respond.
        """
        vectors, known = self._embeddings.lookup(np.array([item_id], dtype=np.int64))
        if not known[0]:
            return None
        # As often as a user has interests: an answer is verified for all of a user's queries together.
        ids, scores = self._index.search(np.repeat(vectors, self._interests, axis=0), n + 1)
        others = (ids[0] != item_id) & (ids[0] != PADDING) & np.isfinite(scores[0])
        return ids[0][others][:n], scores[0][others][:n]

    def interests(
        self, histories: Sequence[IdArray], stopwatch: StageTimer = untimed
    ) -> tuple[FloatArray, IdArray, frozenset[int]]:
        """Encode the histories that hold a known item.

        Returns:
            Finite interest vectors (B', K, D), the rows (B',) of their histories, and the ids of all unknown items.
        """
        inputs = encoder_inputs(histories, self._embeddings, self._encoder.history_length, stopwatch)
        interests, rows = self._encode(inputs)
        stopwatch("encode")
        return interests, rows, inputs.unknown

    def steps(self, history: IdArray) -> RecallSteps | None:
        """Recall for one history, (n,) item ids, oldest first, and keep what `recall` discards.

        The candidates are those of `recall`. None where no item of the history is known.

        Raises:
            TransientError: the index did not respond.
        """
        if not len(history):
            return None
        inputs = encoder_inputs([history], self._embeddings, self._encoder.history_length)
        interests, rows = self._encode(inputs)
        if not len(rows):
            return None
        seen = history if self._filter_seen else history[:0]
        ids, scores = self._index.search(interests[0], self.top_k + len(seen))  # (K, top_k + n)
        (merged,) = merge(ids[None], scores[None], self.top_k, seen[None], self._encoder.fusion)
        return RecallSteps(inputs, interests[0], ids, scores, seen, merged)

    def _encode(self, inputs: EncoderInputs) -> tuple[FloatArray, IdArray]:
        """Return finite interest vectors, (B', K, D), and the rows of their users, (B',)."""
        interests, rows = self._encoder.encode(inputs.embeddings, inputs.lengths)[:, : self._interests], inputs.rows
        if not _all_finite(interests):
            finite = np.isfinite(interests).all(axis=(1, 2))  # (B',)
            _LOG.warning("%d histories have interests that are not finite: nothing is recommended", (~finite).sum())
            interests, rows = interests[finite], rows[finite]
        return interests, rows

    def embeddings(self, ids: IdArray) -> tuple[FloatArray, Mask]:
        """Return the embeddings of (n,) item ids, (n, D), zeros for unknown ones, and whether each is known, (n,).

        Raises:
            TransientError: the index did not respond.
        """
        return self._embeddings.lookup(ids)


def _all_finite(values: FloatArray) -> bool:
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(values.sum()))  # takes a quarter of the time of np.isfinite(values).all()


def _groups(selections: Sequence[Selection]) -> Mapping[int, slice | IntVector]:
    """Return number of candidates → positions of the selections with it: a merge has one number for all its users."""
    top_ks = np.array([selection.top_k for selection in selections], dtype=np.int64)
    return {int(top_k): np.flatnonzero(top_ks == top_k) for top_k in np.unique(top_ks)}


def _padded(histories: Sequence[IdArray]) -> IdArray:
    """Return the histories as (B, H), padded with `PADDING` to the longest."""
    padded = np.full((len(histories), max(map(len, histories))), PADDING, dtype=np.int64)
    for row, history in zip(padded, histories, strict=True):
        row[: len(history)] = history
    return padded
