"""Explain the recommendations of a user: which clicks feed which interest, and what each interest recalls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from configs.errors import InputError
from configs.text import count
from model.arrays import FloatArray, IdVector
from model.artifact import Artifact
from model.data.clicks import Clicks
from model.evaluation.search import NO_ROW, TopItems, search
from model.serving.encoder import Encoder, Routing
from model.serving.inputs import model_input


class ExplanationError(InputError):
    """A user whose recommendations cannot be explained. The message names the remedy."""


@dataclass(frozen=True)
class ReadClick:
    """A click that the model reads.

    Attributes:
        item: id of the item.
        shares: (K,), the click's share of each interest's routing weights; over all clicks they sum to 1.
        feeds: the interest in which the click has its largest share.
    """

    item: int
    shares: Sequence[float]
    feeds: int


@dataclass(frozen=True)
class Recalled:
    """A recommended item.

    Attributes:
        item: id of the item. score: what its list is ordered by, the highest first: the inner product with the
            interest's vector, or, in the merged list, the score of `model.serving.merge`.
        interest: the interest that recalls it. seen: it is in the history. hit: the user clicked it next.
    """

    item: int
    score: float
    interest: int
    seen: bool
    hit: bool


@dataclass(frozen=True)
class Explanation:
    """One model's view of one user; items are ids, interests are numbered from 0.

    Attributes:
        history: number of clicks of the user; the model reads the newest among those on known items.
        unknown: items of the history that the model does not know.
        clicks: clicks that the model reads, newest first.
        targets: items that the user clicked afterwards, the first one first.
        recalled: (K, n), items that each interest recalls, best first; fewer if the catalogue is smaller than n.
        merged: the n best of all interests (`model.serving.merge`), every item once, with its best interest.
        cosines: (K, K), between the interests' vectors.
    """

    user: str
    model_version: str
    history: int
    unknown: Sequence[int]
    clicks: Sequence[ReadClick]
    targets: Sequence[int]
    recalled: Sequence[Sequence[Recalled]]
    merged: Sequence[Recalled]
    cosines: Sequence[Sequence[float]]

    def fed_by(self, interest: int) -> int:
        """Return the number of clicks whose largest share is in this interest."""
        return sum(click.feeds == interest for click in self.clicks)

    def recalled_by(self, item: int) -> list[int]:
        """Return the interests that have the item in their list."""
        return [k for k, recalled in enumerate(self.recalled) if any(one.item == item for one in recalled)]


def explain(
    artifact: Artifact, user: str, history: IdVector, targets: IdVector, n: int, *, unseen: bool = False
) -> Explanation:
    """Explain one user; interests that this user has too few clicks for (`Routing.by_history`) are left out.

    Args:
        history: (H,) item ids, oldest first; targets: (T,) item ids clicked after them, T from 0.
        n: length of the lists; unseen: leave out items of the history, as the worker does with recall.filter_seen.

    Raises:
        ExplanationError: the model knows no item of the history.
        ArtifactError: the artifact's encoder cannot be used.
    """
    encoder = Encoder.from_artifact(artifact)
    rows = artifact.rows(history)
    known = rows[rows >= 0]
    if not len(known):
        raise ExplanationError(
            f"user {user}: the model knows no item of the {count(len(history), 'click')}, so nothing can be explained; "
            "choose another user (--user), or click files of the catalogue that the model was trained on (--clicks)"
        )
    ids, lengths = model_input([known], encoder.history_length)  # (1, L), (1,)
    embeddings = np.asarray(artifact.item_vectors[ids])  # (1, L, D)
    K = encoder.interests - int(Routing.from_dict(artifact.encoder).surplus(lengths, encoder.interests).sum())
    interests = encoder.encode(embeddings, lengths)[0]  # (all interests, D); those from K repeat the first
    read = int(lengths[0])
    excluded = known if unseen else known[:0]
    recalled = _search(interests[:K, None], artifact.item_vectors, n, excluded)  # as K users with one interest each
    merged = _search(interests[None], artifact.item_vectors, n, excluded, encoder.fusion)
    seen, wanted = set(history.tolist()), set(targets.tolist())

    def items(top: TopItems, user: int, interest: int | None = None) -> list[Recalled]:
        ids = artifact.item_ids[top.rows[user]].tolist()
        return [
            Recalled(item, float(score), int(k if interest is None else interest), item in seen, item in wanted)
            for item, score, k, row in zip(ids, top.scores[user], top.interests[user], top.rows[user], strict=True)
            if row != NO_ROW
        ]

    return Explanation(
        user=user,
        model_version=artifact.model_version,
        history=len(history),
        unknown=history[rows < 0].tolist(),
        clicks=read_clicks(artifact.item_ids[ids[0, :read]], encoder.route(embeddings, lengths)[0, :K, :read]),
        targets=targets.tolist(),
        recalled=[items(recalled, k, k) for k in range(K)],
        merged=items(merged, 0),
        cosines=pairwise_cosines(interests[:K]).tolist(),
    )


def _search(queries: FloatArray, vectors: FloatArray, n: int, excluded: IdVector, fusion: float = 0.0) -> TopItems:
    """Return the n best items of each of B users, (B, K, D), without the rows `excluded`, (H,)."""
    B = len(queries)
    seen = Clicks(np.arange(B), np.arange(B + 1) * len(excluded), np.tile(excluded, B))
    return search(queries, vectors, n, fusion, seen).filtered


def read_clicks(items: IdVector, weights: FloatArray) -> list[ReadClick]:
    """Return the clicks on items, (n,), oldest first, with their routing weights, (K, n); newest first."""
    shares = (weights / weights.sum(axis=1, keepdims=True)).T[::-1]  # (n, K), newest first
    return [
        ReadClick(item, row.tolist(), int(row.argmax())) for item, row in zip(items[::-1].tolist(), shares, strict=True)
    ]


def pairwise_cosines(vectors: FloatArray) -> FloatArray:
    """Return the cosines of all pairs of vectors, (K, D) → (K, K); 0 with a vector of length 0."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    units = vectors / np.maximum(lengths, np.float32(1e-12))
    cosines: FloatArray = units @ units.T
    return cosines
