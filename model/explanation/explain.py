"""Why a user gets what it gets: which clicks feed which interest, and what each interest recalls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from configs.errors import InputError
from model.arrays import FloatArray, IdVector
from model.artifact import Artifact
from model.data.clicks import Clicks
from model.evaluation.search import NO_ROW, Top, search
from model.serving.encoder import Encoder, Routing
from model.serving.inputs import model_input


class ExplanationError(InputError):
    """A user that cannot be explained. The message says what to do."""


@dataclass(frozen=True)
class Click:
    """A click that the model reads.

    Attributes:
        item: its id.
        shares: (K,) fractions, of each interest's routing weights; an interest's shares of all clicks sum to 1.
        feeds: the interest that it has its largest share of.
    """

    item: int
    shares: Sequence[float]
    feeds: int


@dataclass(frozen=True)
class Recalled:
    """A recommended item.

    Attributes:
        item: its id. score: inner product with the interest's vector; higher = nearer. interest: which one brings it.
        seen: whether it is in the history. hit: whether the user clicked it next.
    """

    item: int
    score: float
    interest: int
    seen: bool
    hit: bool


@dataclass(frozen=True)
class Explanation:
    """One user in the eyes of one model; items are ids, interests are counted from 0.

    Attributes:
        history: clicks of the user; the model reads the newest ones among those that it knows.
        unknown: items of the history that the model does not know.
        clicks: what the model reads, newest first.
        targets: items that the user clicked next, the next one first.
        recalled: (K, n), what each interest recalls, best first; less where the catalogue is smaller than n.
        merged: the n best of all interests (`model.serving.merge`), every item once, with its best interest.
        cosines: (K, K), of the interests' vectors.
    """

    user: str
    model_version: str
    history: int
    unknown: Sequence[int]
    clicks: Sequence[Click]
    targets: Sequence[int]
    recalled: Sequence[Sequence[Recalled]]
    merged: Sequence[Recalled]
    cosines: Sequence[Sequence[float]]

    def fed_by(self, interest: int) -> int:
        """Clicks that this interest is the strongest for."""
        return sum(click.feeds == interest for click in self.clicks)

    def recalled_by(self, item: int) -> list[int]:
        """Interests that have the item in their list."""
        return [k for k, recalled in enumerate(self.recalled) if any(one.item == item for one in recalled)]


def explain(
    artifact: Artifact, user: str, history: IdVector, targets: IdVector, n: int, *, unseen: bool = False
) -> Explanation:
    """Explains one user. Interests that the user is too new to have (`Routing.by_history`) are left out.

    Args:
        history: (H,) item ids, oldest first; targets: (T,) item ids clicked after them, T from 0.
        n: items of a list; unseen: leave out those of the history, as the worker does with recall.filter_seen.

    Raises:
        ExplanationError: the model knows no item of the history.
        ArtifactError: the artifact cannot encode.
    """
    encoder = Encoder.from_artifact(artifact)
    rows = artifact.rows(history)
    known = rows[rows >= 0]
    if not len(known):
        raise ExplanationError(
            f"user {user}: the model knows none of the {len(history):,} clicked items, so there is nothing to explain; "
            "choose another user (--user), or click files of the catalogue that the model was trained on (--clicks)"
        )
    ids, lengths = model_input([known], encoder.history_length)  # (1, L), (1,)
    embeddings = np.asarray(artifact.item_vectors[ids])  # (1, L, D)
    K = encoder.interests - int(Routing.from_dict(artifact.encoder).surplus(lengths, encoder.interests).sum())
    interests = encoder.encode(embeddings, lengths)[0]  # (interests, D); those from K on repeat the first
    read = int(lengths[0])
    taken = known if unseen else known[:0]
    recalled = _search(interests[:K, None], artifact.item_vectors, n, taken)  # as if K users had one interest each
    merged = _search(interests[None], artifact.item_vectors, n, taken, encoder.fusion)
    seen, wanted = set(history.tolist()), set(targets.tolist())

    def items(rows: IdVector, by: IdVector) -> list[Recalled]:
        ids, scores = artifact.item_ids[rows].tolist(), (artifact.item_vectors[rows] * interests[by]).sum(axis=1)
        return [
            Recalled(item, float(score), int(k), item in seen, item in wanted)
            for item, score, k, row in zip(ids, scores, by, rows, strict=True)
            if row != NO_ROW
        ]

    return Explanation(
        user=user,
        model_version=artifact.model_version,
        history=len(history),
        unknown=history[rows < 0].tolist(),
        clicks=_clicks(artifact.item_ids[ids[0, :read]], encoder.route(embeddings, lengths)[0, :K, :read]),
        targets=targets.tolist(),
        recalled=[items(recalled.rows[k], np.full(n, k)) for k in range(K)],
        merged=items(merged.rows[0], merged.interests[0]),
        cosines=_cosines(interests[:K]).tolist(),
    )


def _search(queries: FloatArray, vectors: FloatArray, n: int, taken: IdVector, fusion: float = 0.0) -> Top:
    """The n best of each of B users, (B, K, D), without the rows `taken`, (H,)."""
    B = len(queries)
    seen = Clicks(np.arange(B), np.arange(B + 1) * len(taken), np.tile(taken, B))
    return search(queries, vectors, n, fusion, seen).unseen


def _clicks(items: IdVector, weights: FloatArray) -> list[Click]:
    """Of items (n,), oldest first, and their routing weights (K, n)."""
    shares = (weights / weights.sum(axis=1, keepdims=True)).T[::-1]  # (n, K), newest first
    return [
        Click(item, row.tolist(), int(row.argmax())) for item, row in zip(items[::-1].tolist(), shares, strict=True)
    ]


def _cosines(vectors: FloatArray) -> FloatArray:
    """(K, K) of (K, D); 0 with a vector of length 0."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    units = vectors / np.maximum(lengths, np.float32(1e-12))
    cosines: FloatArray = units @ units.T
    return cosines
