"""Measure one model: its recommendation lists by exact search and through an index, and its interests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from threadpoolctl import threadpool_limits

from configs.errors import InputError
from model.arrays import DoubleArray, FloatArray, IdMatrix, IdVector, IntVector, Mask
from model.artifact import Artifact
from model.data.clicks import Clicks, Holdout
from model.evaluation import metrics
from model.evaluation.clusters import CLUSTERS, k_means
from model.evaluation.search import NO_ROW, exact_top, search
from model.evaluation.users import encode_users, known_rows
from model.serving.encoder import Encoder

#: Users measured at once: with 50 items of 64 dimensions each, the vectors of their lists take 26 MB.
BLOCK_USERS = 2048
#: Treatment of items of the user's history: kept in the lists, or filtered out.
SEEN = ("kept", "filtered")


class EvaluationError(InputError):
    """A model or a run that cannot be measured. The message names the remedy."""


class Index(Protocol):
    """Recommendations by the whole serving path; implemented in `streams.tools.served_index`."""

    def recommend(self, history: Clicks, n: int, *, filter_seen: bool) -> tuple[IdMatrix, IdMatrix]:
        """Return item ids and the interests that recalled them, (B, n) int64 each, best first, filled up with 0 and -1.

        Args:
            history: B users with item ids.
        """
        ...


@dataclass(frozen=True)
class Estimate:
    """A mean over users, and the ends of its bootstrap interval; None if no user has a value."""

    mean: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class ListMeasurement:
    """Figures of the lists of n items of all users.

    Attributes:
        search: "exact", or "milvus" = the worker's search. seen: one of `SEEN`.
        figures: recall, hit_rate, ndcg, ndcg_over_hits, diversity (see `metrics`), clusters (number of different ones
            in a list, of `clusters.CLUSTERS`), and, through an index, agreement: the share of the exact list in it.
        coverage: share of the catalogue that is in at least one list (Ge et al. 2010, "Beyond accuracy").
        interest_shares: (K,), mean share of a list that each interest recalls; strongest_shares: (K,), the same with
            the interests of each user sorted by their share: 1, 0, 0, … = one interest recalls everything.
    """

    search: str
    seen: str
    n: int
    figures: Mapping[str, Estimate]
    coverage: float
    interest_shares: Sequence[float]
    strongest_shares: Sequence[float]


@dataclass(frozen=True)
class Measurement:
    """Figures of one model.

    Attributes:
        epoch, seconds: epoch of the training run, and seconds since the start of that run; None if unknown, or if a
            single artifact was measured.
        cosine: between a user's interests, see `model.evaluation.metrics.interest_cosines`.
        without_history: users without an item that the model knows: they get no list, and count 0 in recall, hit rate
            and NDCG.
        recall_at: search and seen → recall at 1, 2, … items, for the plot.
    """

    artifact: str
    model_version: str
    items: int
    users: int
    without_history: int
    cosine: Estimate
    lists: Sequence[ListMeasurement]
    recall_at: Mapping[str, Mapping[str, Sequence[float]]]
    epoch: int | None = None
    seconds: float | None = None


def measure_artifact(
    artifact: Artifact,
    users: Holdout,
    top_n: Sequence[int],
    seed: int,
    index: Index | None = None,
    report_progress: Callable[[int], object] = lambda _users: None,
) -> Measurement:
    """Measure a model. Besides the catalogue, this takes some hundred bytes of memory for each user.

    Args:
        users: at least one user, with item ids; top_n: lengths of the lists, ascending.
        seed: for the clusters' first centres and the bootstrap resamples, which are the same for every figure.
        index: holds this model's items; None = only exact search.
        report_progress: called with the number of users done since its last call.
    """
    with threadpool_limits(1, "blas"):  # small products gain little from threads, and lose much on a busy machine
        catalogue = _Catalogue.from_artifact(artifact, np.random.default_rng(seed))
        encoder, top = Encoder.from_artifact(artifact), max(top_n)
        statistics = {("exact", seen): _ListStatistics(catalogue, top_n, encoder.interests) for seen in SEEN}
        if index is not None:
            statistics |= {("milvus", seen): _ListStatistics(catalogue, top_n, encoder.interests) for seen in SEEN}
        cosines = []
        for begin in range(0, len(users.history), BLOCK_USERS):
            history, targets = (clicks.slice(begin, begin + BLOCK_USERS) for clicks in users)
            interests = encode_users(encoder, catalogue.ids, catalogue.vectors, history)  # (B, K, D)
            clicked = known_rows(history, catalogue.ids)
            unknown = clicked.lengths == 0
            cosines.append(np.where(unknown, np.nan, metrics.interest_cosines(interests)))
            result = search(interests, catalogue.vectors, top, encoder.fusion, clicked, report_progress)
            for seen, (rows, recalled_by, _) in zip(SEEN, result, strict=True):
                rows[unknown] = recalled_by[unknown] = NO_ROW
                statistics["exact", seen].add(rows, recalled_by, targets)
                if index is not None:
                    ids, by = index.recommend(history, top, filter_seen=seen == "filtered")
                    statistics["milvus", seen].add(artifact.rows(ids), by, targets, exact=rows)
        cosine = np.concatenate(cosines)
        return Measurement(
            artifact=str(artifact.path),
            model_version=artifact.model_version,
            items=len(catalogue.ids),
            users=len(cosine),
            without_history=int(np.isnan(cosine).sum()),
            cosine=_estimates({"cosine": cosine}, seed)["cosine"],
            lists=[lists for kind, one in statistics.items() for lists in one.lists(*kind, seed)],
            recall_at={
                name: {seen: (statistics[name, seen].recall_at / len(cosine)).tolist() for seen in SEEN}
                for name in dict.fromkeys(name for name, _ in statistics)
            },
        )


def measure_encoder(
    encoder: Encoder, item_ids: IdVector, item_vectors: FloatArray, users: Holdout, n: int
) -> dict[str, float]:
    """Return recall, hit rate and NDCG at n (`model.evaluation.metrics.ranking`), and the mean cosine of the interests.

    Every item is a candidate, also those of the history. Unknown items are left out of histories, but stay among the
    targets and count as missed; a user without a known item gets no recommendation, as in the worker.

    Args:
        item_ids: (N,) int64 ascending; item_vectors: (N, D) float32; users: with item ids.
        n: length of the lists; they are shorter if there are fewer items.
    """
    interests = encode_users(encoder, item_ids, item_vectors, users.history)
    ids = item_ids[exact_top(interests, item_vectors, min(n, len(item_ids)), encoder.fusion)]
    some = interests.any(axis=(1, 2))
    ids[~some] = 0  # padding: no item
    return metrics.quality(ids, users.targets, n) | {"interest_cosine": metrics.interest_cosine(interests[some])}


@dataclass(frozen=True, eq=False)
class _Catalogue:
    """Item ids, (N,), their vectors, (N, D), the same at length 1, (N, D), and the cluster of each item, (N,)."""

    ids: IdVector
    vectors: FloatArray
    units: FloatArray
    cluster: IntVector

    @classmethod
    def from_artifact(cls, artifact: Artifact, rng: np.random.Generator) -> _Catalogue:
        vectors = np.asarray(artifact.item_vectors)
        units = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(1e-12))
        return cls(artifact.item_ids, vectors, units, k_means(units, CLUSTERS, rng))


@dataclass(eq=False)
class _ListStatistics:
    """Figures of the lists of one search, with seen items kept or filtered out, collected block of users by block."""

    catalogue: _Catalogue
    top_n: Sequence[int]
    interests: int
    values: dict[tuple[int, str], list[DoubleArray]] = field(default_factory=dict)
    shares: dict[int, list[DoubleArray]] = field(default_factory=dict)
    shown: dict[int, Mask] = field(default_factory=dict)
    recall_at: DoubleArray = field(default_factory=lambda: np.zeros(1))

    def add(self, rows: IdMatrix, recalled_by: IdMatrix, targets: Clicks, exact: IdMatrix | None = None) -> None:
        """Add the lists of B users.

        Args:
            rows: (B, n) rows of the catalogue; recalled_by: (B, n) interest that recalled each.
            exact: (B, n) rows found by exact search, to compare with.
        """
        ids = np.where(rows == NO_ROW, 0, self.catalogue.ids[rows])  # 0 is padding, so never a target
        found, count = metrics.hits(ids, targets)
        self.recall_at = self.recall_at + (np.cumsum(found, axis=1) / count[:, None]).sum(axis=0)
        for n in self.top_n:
            top = rows[:, :n]
            values = metrics.ranking(found[:, :n], count)
            values["diversity"] = metrics.diversity(top, self.catalogue.units)
            values["clusters"] = metrics.distinct(np.where(top == NO_ROW, NO_ROW, self.catalogue.cluster[top]))
            if exact is not None:
                values["agreement"] = _agreement(top, exact[:, :n])
            for name, value in values.items():
                self.values.setdefault((n, name), []).append(value)
            self.shares.setdefault(n, []).append(metrics.shares(recalled_by[:, :n], self.interests))
            self.shown.setdefault(n, np.zeros(len(self.catalogue.ids), bool))[top[top != NO_ROW]] = True

    def lists(self, name: str, seen: str, seed: int) -> list[ListMeasurement]:
        """Return the figures of the lists of each length."""
        return [self._lists(name, seen, n, seed) for n in self.top_n]

    def _lists(self, name: str, seen: str, n: int, seed: int) -> ListMeasurement:
        values = {figure: np.concatenate(parts) for (at, figure), parts in self.values.items() if at == n}
        shares = np.concatenate(self.shares[n])
        shares = shares[np.isfinite(shares[:, 0])]  # only users with a list
        strongest = -np.sort(-shares, axis=1)
        coverage = float(self.shown[n].mean())
        by_interest, by_strength = (part.mean(axis=0).tolist() if len(part) else [] for part in (shares, strongest))
        return ListMeasurement(name, seen, n, _estimates(values, seed), coverage, by_interest, by_strength)


def _agreement(rows: IdMatrix, exact: IdMatrix) -> DoubleArray:
    """Return the share of the rows in `exact`, (B, n), that are also in `rows`, (B,); NaN if `exact` has none."""
    number = (exact != NO_ROW).sum(axis=1)
    both = (exact[:, :, None] == rows[:, None, :]).any(axis=2) & (exact != NO_ROW)
    return np.where(number == 0, np.nan, both.sum(axis=1) / np.maximum(number, 1))


def _estimates(values: Mapping[str, DoubleArray], seed: int) -> dict[str, Estimate]:
    table = np.stack(list(values.values()), axis=1)  # (U, M)
    low, high = metrics.bootstrap(table, np.random.default_rng(seed))
    given = np.isfinite(table)
    means = np.where(given, table, 0).sum(axis=0) / np.maximum(given.sum(axis=0), 1)
    means = np.where(given.any(axis=0), means, np.nan)
    return {name: Estimate(*map(_none_if_nan, ends)) for name, *ends in zip(values, means, low, high, strict=True)}


def _none_if_nan(value: float) -> float | None:
    """Replace NaN by None, because JSON has no NaN."""
    return None if np.isnan(value) else float(value)
