"""Figures of the profile tower: lists for users without clicks, and with their first clicks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from model.arrays import DoubleArray, FloatArray, FloatMatrix, IdMatrix, IntVector
from model.artifact import Artifact
from model.data.clicks import Clicks
from model.evaluation.metrics import bootstrap, hits, ranking
from model.evaluation.search import exact_top, search
from model.evaluation.users import encode_users, known_rows
from model.profile.data import ProfiledUsers
from model.serving.encoder import Encoder
from model.serving.profile import ProfileTower

#: Length of the lists, and clicks of a user that are targets.
LENGTH, TARGETS = 50, 10
#: Numbers of first clicks after which users are measured.
AFTER = (1, 3, 10)
#: Clicks that the profile may count as; one of them is chosen on valid users.
PSEUDO_CLICKS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 20.0, 40.0)
#: Seed of the resamples.
_SEED = 0


class Figure(NamedTuple):
    """A mean over users, and the ends of its bootstrap interval."""

    mean: float
    low: float
    high: float


class MethodFigures(NamedTuple):
    """Figures of one method, as fractions; `more_recall` and `more_ndcg` are those of the tower minus these."""

    recall: Figure
    ndcg: Figure
    more_recall: Figure
    more_ndcg: Figure


def first_clicks(clicks: Clicks, begin: int, number: int) -> Clicks:
    """Return each user's clicks from position `begin` on, at most `number` of them."""
    starts = np.minimum(clicks.offsets[:-1] + begin, clicks.offsets[1:])
    lengths = np.minimum(clicks.offsets[1:] - starts, number)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Clicks(
        clicks.users, offsets, clicks.items[np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)]
    )


def cold_values(rows: IdMatrix, artifact: Artifact, targets: Clicks) -> DoubleArray:
    """Return recall and NDCG of each user, (U, 2), of lists of rows of items, (U, n)."""
    values = ranking(*hits(artifact.item_ids[rows], targets))
    return np.stack([values["recall"], values["ndcg"]], axis=1)


def cold_lists(tower: ProfileTower, artifact: Artifact, users: ProfiledUsers) -> IdMatrix:
    """Return the rows of the items nearest to the users' profiles, (U, n), best first."""
    vectors = tower.vectors(users.profiles)
    return exact_top(vectors[:, None], artifact.item_vectors, min(LENGTH, len(artifact.item_ids)), fusion=0.0)


def cold_quality(tower: ProfileTower, artifact: Artifact, users: ProfiledUsers) -> dict[str, float]:
    """Return recall and NDCG of the tower for users without clicks; targets are their first clicks."""
    values = cold_values(cold_lists(tower, artifact, users), artifact, first_clicks(users.clicks, 0, TARGETS))
    recall, ndcg = values.mean(axis=0)
    return {f"recall@{LENGTH}": float(recall), f"ndcg@{LENGTH}": float(ndcg)}


def compared(values: Mapping[str, DoubleArray], tower: str) -> dict[str, MethodFigures]:
    """Return the figures of methods from recall and NDCG of each user, (U, 2); `tower` is compared with the others."""
    table = np.concatenate([part for one in values.values() for part in (one, values[tower] - one)], axis=1)
    ends = bootstrap(table, np.random.default_rng(_SEED))
    figures = [Figure(*map(float, row)) for row in np.stack([table.mean(axis=0), *ends], axis=1)]
    return {name: MethodFigures(*figures[4 * i : 4 * i + 4]) for i, name in enumerate(values)}


class EarlyUsers(NamedTuple):
    """U users with their first clicks, as the model sees them, and their next clicks, which are the targets.

    Attributes:
        interests: (U, K, D); vectors: (U, D), of their profiles; clicks: (U,), clicks that the interests are of.
        seen: rows of the items clicked, which are not recommended. targets: item ids.
    """

    interests: FloatArray
    vectors: FloatMatrix
    clicks: IntVector
    seen: Clicks
    targets: Clicks

    @classmethod
    def after(cls, number: int, tower: ProfileTower, artifact: Artifact, users: ProfiledUsers) -> EarlyUsers:
        """Return the users with more than `number` clicks after so many of them."""
        users = users.take(np.flatnonzero(users.clicks.lengths > number))
        history = first_clicks(users.clicks, 0, number)
        encoder = Encoder.from_artifact(artifact)
        seen = known_rows(history, artifact.item_ids)
        return cls(
            encode_users(encoder, artifact.item_ids, artifact.item_vectors, history),
            tower.vectors(users.profiles),
            seen.lengths,
            seen,
            first_clicks(users.clicks, number, TARGETS),
        )

    def blended(self, tower: ProfileTower) -> FloatArray:
        """Return the interests with the profile as further clicks, (U, K, D)."""
        return tower.blend(self.interests, self.vectors, self.clicks)

    def values(self, queries: FloatArray, artifact: Artifact) -> DoubleArray:
        """Return recall and NDCG of each user, (U, 2), of the lists that these queries, (U, K, D), find."""
        fusion = Encoder.from_artifact(artifact).fusion
        n = min(LENGTH, len(artifact.item_ids))
        rows = search(queries, artifact.item_vectors, n, fusion, self.seen).filtered.rows
        return cold_values(rows, artifact, self.targets)


class BlendChoice(NamedTuple):
    """Choice of how much the profile counts beside clicks.

    Attributes:
        pseudo_clicks: the profile counts as so many clicks. recall: choice → mean recall over the numbers of clicks.
    """

    pseudo_clicks: float
    recall: dict[float, float]


def choose_pseudo_clicks(tower: ProfileTower, artifact: Artifact, users: ProfiledUsers) -> BlendChoice:
    """Choose how many clicks the profile counts as: the mean recall after `AFTER` clicks is highest.

    Users with fewer clicks are left out; the profile counts as one click if all are.
    """
    early = [EarlyUsers.after(n, tower, artifact, users) for n in AFTER if (users.clicks.lengths > n).any()]
    recall = {}
    for choice in PSEUDO_CLICKS:
        changed = replace(tower, pseudo_clicks=choice)
        values = [one.values(one.blended(changed), artifact)[:, 0].mean() for one in early]
        recall[choice] = float(np.mean(values)) if values else 0.0
    return BlendChoice(max(recall, key=lambda choice: recall[choice]) if early else 1.0, recall)
