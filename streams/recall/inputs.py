"""Histories → the encoder's input: the embeddings of the clicks that it reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from model.arrays import FloatArray, IdArray, IntVector
from model.serving.inputs import windows
from streams.recall.embeddings import HistoryEmbeddings

#: Called with the name of the stage that has just ended: embed, encode, search, merge.
StageTimer = Callable[[str], object]


def untimed(_stage: str) -> None:
    """Measure nothing."""


class EncoderInputs(NamedTuple):
    """The encoder's input for those B' of a batch of users who have a known item in their history.

    Attributes:
        embeddings: (B', L, D) float32, oldest first, left-aligned, zeros beyond each length.
        lengths: (B',) clicks that are read.
        rows: (B',) the users' rows in the batch.
        unknown: ids of the items in all histories that have no vector.
    """

    embeddings: FloatArray
    lengths: IntVector
    rows: IntVector
    unknown: frozenset[int]


def encoder_inputs(
    histories: Sequence[IdArray], embeddings: HistoryEmbeddings, length: int, stopwatch: StageTimer = untimed
) -> EncoderInputs:
    """Look up the embeddings of the newest `length` known clicks of each history, (n,) item ids, oldest first.

    Raises:
        TransientError: an id had to be looked up in the index, which is unavailable.
    """
    ends = np.cumsum([0, *map(len, histories)], dtype=np.int64)
    ids = np.concatenate(histories, dtype=np.int64)  # (Σ n,)
    vectors, known = embeddings.lookup(ids)  # (Σ n, D), (Σ n,)
    stopwatch("embed")
    unknown = frozenset[int]()
    if not known.all():
        unknown = frozenset(ids[~known].tolist())
        # An unknown item must not push a known click out of the window.
        vectors, ends = vectors[known], np.concatenate([[0], np.cumsum(known)])[ends]
    usable = np.flatnonzero(np.diff(ends))
    # Rows of `vectors` serve as the ids of the shared input function, counted from 1 because 0 is padding.
    row_ids = np.arange(1, len(vectors) + 1)
    rows, lengths = windows(row_ids, ends[usable], ends[usable + 1], length)  # (B', L), (B',)
    padded = np.concatenate([np.zeros((1, vectors.shape[1]), dtype=np.float32), vectors])
    return EncoderInputs(padded[rows], lengths, usable, unknown)
