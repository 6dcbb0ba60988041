"""All that is measured on one model: its lists by exact search and through an index, and its interests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from configs.errors import InputError
from model.arrays import DoubleArray, FloatArray, IdMatrix, IdVector
from model.artifact import Artifact
from model.data.clicks import Clicks, Holdout
from model.evaluation import metrics
from model.evaluation.clusters import CLUSTERS, k_means
from model.evaluation.search import NO_ROW, exact_top, search
from model.evaluation.users import encode_users, known, part_of
from model.serving.encoder import Encoder

#: Users measured at once: with 50 items of 64 dimensions each, their lists' vectors take 26 MB.
USERS = 2048
#: Whether items of the user's history may be recommended.
SEEN = ("kept", "filtered")


class EvaluationError(InputError):
    """Something that cannot be measured. The message says what mends it."""


class Index(Protocol):
    """Recommendations of the whole serving path; `streams.tools.served_index` has the real one."""

    def recommend(self, history: Clicks, n: int, *, filter_seen: bool) -> tuple[IdMatrix, IdMatrix]:
        """Item ids and the interests that brought them, (B, n) int64 each, best first, filled up with 0 and -1.

        Args:
            history: B users with item ids.
        """
        ...


@dataclass(frozen=True)
class Estimate:
    """A mean over users, and the ends of its bootstrap interval; None where no user has a value."""

    mean: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Lists:
    """Lists of n items for every user.

    Attributes:
        search: "exact", or "milvus" = as the worker does it. seen: one of `SEEN`.
        figures: recall, hit_rate, ndcg, ndcg_over_hits, diversity (see `metrics`), clusters (different ones in a
            list, of `clusters.CLUSTERS`), and through an index agreement: the share of the exact list that it found.
        coverage: share of the catalogue that is in at least one list (Ge et al. 2010, "Beyond accuracy").
        interest_shares: (K,), mean share of a list that each interest brings; strongest_shares: (K,), the same with
            each user's interests sorted by it, so that 1, 0, 0, … = one interest does it all.
    """

    search: str
    seen: str
    n: int
    figures: Mapping[str, Estimate]
    coverage: float
    interest_shares: Sequence[float]
    strongest_shares: Sequence[float]


@dataclass(frozen=True)
class Measured:
    """One model.

    Attributes:
        epoch, seconds: of the training run, None when measured alone or not known.
        cosine: of a user's interests, see `model.evaluation.metrics.interest_cosines`.
        without_history: users with no item that the model knows: they get no list, and count 0 in recall and the like.
        recall_at: search and seen → recall at 1, 2, … items, for the plot.
    """

    artifact: str
    model_version: str
    items: int
    users: int
    without_history: int
    cosine: Estimate
    lists: Sequence[Lists]
    recall_at: Mapping[str, Mapping[str, Sequence[float]]]
    epoch: int | None = None
    seconds: float | None = None


def measure(
    artifact: Artifact,
    users: Holdout,
    top_n: Sequence[int],
    seed: int,
    index: Index | None = None,
    report: Callable[[int], object] = lambda _users: None,
) -> Measured:
    """Measures a model. Memory beside the catalogue: some hundred bytes for each user.

    Args:
        users: with item ids, at least one; top_n: ascending.
        seed: of the clusters' first centres and of the resamples, which are the same for every figure.
        index: holds this model's items; None = exact search alone.
        report: is told the number of users done since its last call.
    """
    with threadpool_limits(1, "blas"):  # small products gain little from more threads, and lose much on a busy machine
        catalogue = _Catalogue.of(artifact, np.random.default_rng(seed))
        encoder, top = Encoder.from_artifact(artifact), max(top_n)
        tallies = {("exact", seen): _Tally(catalogue, top_n, encoder.interests) for seen in SEEN}
        if index is not None:
            tallies |= {("milvus", seen): _Tally(catalogue, top_n, encoder.interests) for seen in SEEN}
        cosines = []
        for begin in range(0, len(users.history), USERS):
            history, targets = (part_of(clicks, begin, begin + USERS) for clicks in users)
            interests = encode_users(encoder, catalogue.ids, catalogue.vectors, history)  # (B, K, D)
            clicked = known(history, catalogue.ids)
            nobody = clicked.lengths == 0
            cosines.append(np.where(nobody, np.nan, metrics.interest_cosines(interests)))
            tops = search(interests, catalogue.vectors, top, encoder.fusion, clicked, report)
            for seen, (rows, brought) in zip(SEEN, tops, strict=True):
                rows[nobody] = brought[nobody] = NO_ROW
                tallies["exact", seen].add(rows, brought, targets)
                if index is not None:
                    ids, by = index.recommend(history, top, filter_seen=seen == "filtered")
                    tallies["milvus", seen].add(artifact.rows(ids), by, targets, exact=rows)
        cosine = np.concatenate(cosines)
        return Measured(
            artifact=str(artifact.path),
            model_version=artifact.model_version,
            items=len(catalogue.ids),
            users=len(cosine),
            without_history=int(np.isnan(cosine).sum()),
            cosine=_estimates({"cosine": cosine}, seed)["cosine"],
            lists=[lists for kind, tally in tallies.items() for lists in tally.lists(*kind, seed)],
            recall_at={
                name: {seen: (tallies[name, seen].recall_at / len(cosine)).tolist() for seen in SEEN}
                for name in dict.fromkeys(name for name, _ in tallies)
            },
        )


def evaluate(
    encoder: Encoder, item_ids: IdVector, item_vectors: FloatArray, users: Holdout, n: int
) -> dict[str, float]:
    """Recall, hit rate and NDCG at n (`model.evaluation.metrics.ranking`), and the mean cosine of a user's interests.

    Every item is a candidate, items of the history too. Unknown items are dropped from histories and stay among the
    targets, where they count as missed; a user without a known item gets no recommendation, as in service.

    Args:
        item_ids: (N,) int64 ascending; item_vectors: (N, D) float32; users: with item ids.
        n: length of the lists; fewer items give shorter ones.
    """
    interests = encode_users(encoder, item_ids, item_vectors, users.history)
    ids = item_ids[exact_top(interests, item_vectors, min(n, len(item_ids)), encoder.fusion)]
    some = interests.any(axis=(1, 2))
    ids[~some] = 0  # padding: no item
    return metrics.quality(ids, users.targets, n) | {"interest_cosine": metrics.interest_cosine(interests[some])}


@dataclass(frozen=True, eq=False)
class _Catalogue:
    """(N,) ids, (N, D) vectors, (N, D) vectors at length 1, (N,) clusters."""

    ids: IdVector
    vectors: FloatArray
    units: FloatArray
    cluster: IdVector

    @classmethod
    def of(cls, artifact: Artifact, rng: np.random.Generator) -> _Catalogue:
        vectors = np.asarray(artifact.item_vectors)
        units = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(1e-12))
        return cls(artifact.item_ids, vectors, units, k_means(units, CLUSTERS, rng))


@dataclass(eq=False)
class _Tally:
    """What is measured on lists of one kind, taken block of users by block."""

    catalogue: _Catalogue
    top_n: Sequence[int]
    interests: int
    values: dict[tuple[int, str], list[DoubleArray]] = field(default_factory=dict)
    shares: dict[int, list[DoubleArray]] = field(default_factory=dict)
    shown: dict[int, npt.NDArray[np.bool_]] = field(default_factory=dict)
    recall_at: DoubleArray = field(default_factory=lambda: np.zeros(1))

    def add(self, rows: IdMatrix, brought: IdMatrix, targets: Clicks, exact: IdMatrix | None = None) -> None:
        """Rows of the catalogue and the interests that brought them, (B, n) each; `exact`: what should stand there."""
        ids = np.where(rows == NO_ROW, 0, self.catalogue.ids[rows])  # 0 is padding, so no target
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
            self.shares.setdefault(n, []).append(metrics.shares(brought[:, :n], self.interests))
            self.shown.setdefault(n, np.zeros(len(self.catalogue.ids), bool))[top[top != NO_ROW]] = True

    def lists(self, name: str, seen: str, seed: int) -> list[Lists]:
        return [self._lists(name, seen, n, seed) for n in self.top_n]

    def _lists(self, name: str, seen: str, n: int, seed: int) -> Lists:
        values = {figure: np.concatenate(parts) for (at, figure), parts in self.values.items() if at == n}
        shares = np.concatenate(self.shares[n])
        shares = shares[np.isfinite(shares[:, 0])]  # of who has a list
        strongest = -np.sort(-shares, axis=1)
        coverage = float(self.shown[n].mean())
        by_interest, by_strength = (part.mean(axis=0).tolist() if len(part) else [] for part in (shares, strongest))
        return Lists(name, seen, n, _estimates(values, seed), coverage, by_interest, by_strength)


def _agreement(rows: IdMatrix, exact: IdMatrix) -> DoubleArray:
    """(B,) share of the rows in `exact`, (B, n), that `rows` has, too; NaN where there are none."""
    number = (exact != NO_ROW).sum(axis=1)
    both = (exact[:, :, None] == rows[:, None, :]).any(axis=2) & (exact != NO_ROW)
    return np.where(number == 0, np.nan, both.sum(axis=1) / np.maximum(number, 1))


def _estimates(values: Mapping[str, DoubleArray], seed: int) -> dict[str, Estimate]:
    table = np.stack(list(values.values()), axis=1)  # (U, M)
    low, high = metrics.bootstrap(table, np.random.default_rng(seed))
    given = np.isfinite(table)
    means = np.where(given, table, 0).sum(axis=0) / np.maximum(given.sum(axis=0), 1)
    means = np.where(given.any(axis=0), means, np.nan)
    return {name: Estimate(*map(_number, ends)) for name, *ends in zip(values, means, low, high, strict=True)}


def _number(value: float) -> float | None:
    """JSON knows no NaN."""
    return None if np.isnan(value) else float(value)
