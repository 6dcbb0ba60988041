"""The item index in Milvus: one collection for each model version."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import numpy.typing as npt
from pymilvus.client.utils import check_status

from configs.errors import FatalError, TransientError
from configs.schema import Milvus
from model.arrays import FloatArray, IdArray, IdVector, IntMatrix, IntVector
from model.serving.merge import PADDING
from streams.errors import RestartRequired
from streams.milvus.client import SLOW_TIMEOUT_S, connect, refused_settings, translated_errors, without_data
from streams.milvus.collection import (
    ID,
    ITEMS_TOPIC,
    METRIC,
    NO_SCHEMA,
    SOURCE_OFFSET,
    SOURCE_PARTITION,
    VECTOR,
    collection_name,
    ensure_collection,
    identity_of,
    properties_of,
    upsert_request,
)
from streams.recall.ports import IndexInfo, no_sources

#: Most rows in one request. Milvus accepts 64 MB: 16,384 rows of 64 dimensions take 4 MB, of 768 dimensions 50 MB.
_MAX_ROWS_PER_REQUEST = 16_384
#: Most hits in the answer to one search request: about 20 MB, below gRPC's usual limit of 64 MB.
_MAX_HITS_PER_REQUEST = 1_000_000
#: What fills a collection of the worker.
_REMEDY = (
    "start an item worker, which creates it (python -m streams worker --agents items), and publish the model's items "
    "(python -m producers.items --artifact DIR)"
)
#: Candidates examined beyond the hits asked for. Removed items where the search enters the graph count as candidates:
#: without a surplus, some queries in a hundred yield a hit or two fewer when most items were removed.
_EF_SURPLUS = 16


class MilvusIndex:
    """`ItemTable` over a Milvus server; safe to use from several threads.

    `search` and `get` use consistency level Bounded: they may miss the writes of the last seconds (Milvus' setting
    common.gracefulTime, 5 by default). While Milvus runs, it is one time tick behind, 200 ms, and answers at once.
    After a restart, it answers when it has read again what was not indexed; with Eventually, it answers before, without
    these rows. The count in `describe` uses Strong, which waits for the next tick: too slow for every batch.

    Args:
        settings: server and index parameters.
        model_version: names the collection.
        dim: dimension of the vectors.
        create: create the collection if it does not exist; if False, a missing collection is an error.
        remedy: how to create and fill the collection, for error texts.

    Attributes:
        identity: tells this collection from one of the same name that is dropped before or created later.

    Raises:
        TransientError: Milvus is unavailable.
        FatalError: the collection is missing or does not fit the model, or Milvus refuses this client; the message
            names the remedy.
    """

    def __init__(self, settings: Milvus, model_version: str, dim: int, *, create: bool, remedy: str = _REMEDY) -> None:
        self._settings = settings
        self._remedy = remedy
        self._version = model_version
        self._dim = dim
        self._name = collection_name(model_version)
        with self._translated():
            self._client = connect(settings)
            if create:
                ensure_collection(self._client, self._name, dim, *self._index_params())
            elif not self._client.has_collection(self._name, timeout=settings.timeout):
                raise FatalError(
                    f"Milvus at {settings.uri} has no collection {self._name} for model {model_version}; {remedy}"
                )
            self._client.load_collection(self._name, timeout=SLOW_TIMEOUT_S)
        self.identity = identity_of(self._description())
        self._check()

    def search(self, queries: FloatArray, limit: int) -> tuple[IdArray, FloatArray]:
        """See `streams.recall.ports.ItemIndex.search`."""
        Q = len(queries)
        queries = np.asarray(queries, "<f4")
        ids = np.full((Q, limit), PADDING, dtype=np.int64)
        scores = np.full((Q, limit), -np.inf, dtype=np.float32)
        parameters = {"metric_type": METRIC, "params": self._search_params(limit)}
        step = max(1, min(_MAX_ROWS_PER_REQUEST, _MAX_HITS_PER_REQUEST // limit))
        for start in range(0, Q, step):
            stop = min(Q, start + step)
            with refused_settings(self._settings.uri), self._translated():
                future = self._client.search(
                    self._name,
                    # As bytes: pymilvus packs anything else number by number, which takes 8 ms for 1,024 queries.
                    data=[query.tobytes() for query in queries[start:stop]],
                    anns_field=VECTOR,
                    limit=limit,
                    search_params=parameters,
                    consistency_level="Bounded",
                    timeout=self._settings.timeout,
                    _async=True,
                )
                if future._exception is not None:  # it was not sent: the connection is being closed
                    raise TransientError("Milvus", f"{self._settings.uri}: {future._exception}")
                # The raw answer: pymilvus would make an object for each hit, which takes as long as the search.
                answer = future._future.result()
                check_status(answer.status)
            found = np.arange(limit) < np.array(answer.results.topks)[:, None]  # (stop - start, limit)
            ids[start:stop][found] = _column(answer.results.ids.int_id.data, np.int64)
            scores[start:stop][found] = _column(answer.results.scores, np.float32)
        return ids, scores

    def upsert(self, ids: IdArray, vectors: FloatArray, sources: IntMatrix | None = None) -> None:
        """See `streams.recall.ports.ItemIndex.upsert`."""
        sources = no_sources(len(ids)) if sources is None else sources
        for start in range(0, len(ids), _MAX_ROWS_PER_REQUEST):
            chunk = slice(start, start + _MAX_ROWS_PER_REQUEST)
            request = upsert_request(self._name, ids[chunk], vectors[chunk], sources[chunk])
            with self._translated():
                # The public method takes rows only.
                self._client._get_connection().upsert(
                    self._name, [], upsert_param=request, schema=NO_SCHEMA, timeout=self._settings.timeout
                )

    def delete(self, ids: IdArray) -> None:
        """See `streams.recall.ports.ItemIndex.delete`."""
        for start in range(0, len(ids), _MAX_ROWS_PER_REQUEST):
            with self._translated():
                self._client.delete(
                    self._name, ids=ids[start : start + _MAX_ROWS_PER_REQUEST].tolist(), timeout=self._settings.timeout
                )

    def get(self, ids: IdArray) -> Mapping[int, FloatArray]:
        """See `streams.recall.ports.ItemIndex.get`."""
        found: dict[int, FloatArray] = {}
        for start in range(0, len(ids), _MAX_ROWS_PER_REQUEST):
            with self._translated():
                rows = self._client.query(
                    self._name,
                    filter=f"{ID} in {ids[start : start + _MAX_ROWS_PER_REQUEST].tolist()}",
                    output_fields=[ID, VECTOR],
                    consistency_level="Bounded",
                    timeout=self._settings.timeout,
                )
            found.update({row[ID]: np.asarray(row[VECTOR], dtype=np.float32) for row in rows})
        return found

    def seal(self) -> None:
        """See `streams.recall.ports.ItemIndex.seal`.

        Milvus builds the graph only over sealed segments; every search compares the rows of all others one by one. It
        seals segments that are full or have been idle for minutes, and all of them on a flush request (since 2.4 at
        most one in 10 s). This call does not wait for the flush, which takes 2.5 s in which no item could be written,
        nor until Milvus accepts the request.
        """
        with self._translated():
            self._client.flush(self._name, timeout=self._settings.timeout, _async=True, retry_on_rate_limit=False)

    def indexed_count(self) -> int:
        """Return how many rows searches find through the graph. Standalone server only: milvus-lite cannot tell."""
        with self._translated():
            segments = self._client.list_loaded_segments(self._name, timeout=self._settings.timeout)
        return sum(segment.num_rows for segment in segments if segment.index_name)

    def describe(self) -> IndexInfo:
        """See `streams.recall.ports.ItemIndex.describe`."""
        description = self._description()
        with without_data(self._settings.uri), self._translated():
            index = self._client.describe_index(self._name, VECTOR, timeout=self._settings.timeout)
            count = self._client.query(
                self._name,
                filter="",
                output_fields=["count(*)"],
                consistency_level="Strong",
                timeout=self._settings.timeout,
            )
        dim = next(f["params"]["dim"] for f in description["fields"] if f["name"] == VECTOR)
        return IndexInfo(self._version, int(dim), index["metric_type"], int(count[0]["count(*)"]))

    def sources(self, ids: IdArray) -> Mapping[int, tuple[int, int]]:
        """See `streams.recall.ports.ItemTable.sources`."""
        found: dict[int, tuple[int, int]] = {}
        for start in range(0, len(ids), _MAX_ROWS_PER_REQUEST):
            with self._translated():
                rows = self._client.query(
                    self._name,
                    filter=f"{ID} in {ids[start : start + _MAX_ROWS_PER_REQUEST].tolist()}",
                    output_fields=[ID, SOURCE_PARTITION, SOURCE_OFFSET],
                    consistency_level="Strong",
                    timeout=self._settings.timeout,
                )
            found.update({row[ID]: (row[SOURCE_PARTITION], row[SOURCE_OFFSET]) for row in rows})
        return found

    def rows(self, partition: int) -> Iterator[tuple[IdVector, IntVector]]:
        """See `streams.recall.ports.ItemTable.rows`."""
        of_partition, after = f"{SOURCE_PARTITION} == {partition}", ""
        while True:
            with self._translated():
                page = self._client.query(
                    self._name,
                    filter=of_partition + after,
                    output_fields=[ID, SOURCE_OFFSET],
                    limit=_MAX_ROWS_PER_REQUEST,
                    timeout=SLOW_TIMEOUT_S,
                    # pymilvus' own iterator sets these two: the rows with the lowest ids, and (unlike there) all of
                    # them. With "best", Milvus 2.3.5 leaves out rows that were written twice.
                    iterator="True",
                    reduce_stop_for_best="False",
                )
            if page:
                found = np.array([(row[ID], row[SOURCE_OFFSET]) for row in page], dtype=np.int64)
                after = f" and {ID} > {found[:, 0].max()}"
                yield found[:, 0], found[:, 1]
            if len(page) < _MAX_ROWS_PER_REQUEST:
                return

    def check_identity(self) -> None:
        """See `streams.recall.ports.ItemTable.check_identity`."""
        try:
            found = identity_of(self._description())
        except TransientError:
            return  # the next search or upsert says so
        if found != self.identity:
            raise RestartRequired(
                f"Milvus collection {self._name} was dropped and created again: items that were written before are "
                "missing. The item worker fills it from the topic of items when it starts again"
            )

    def bind(self, topic: str, topic_id: str) -> None:
        """See `streams.recall.ports.ItemTable.bind`."""
        bound = properties_of(self._description()).get(ITEMS_TOPIC)
        if bound is None:
            with self._translated():
                properties = {ITEMS_TOPIC: topic_id}
                self._client.alter_collection_properties(self._name, properties, timeout=self._settings.timeout)
        elif bound != topic_id:
            raise FatalError(
                f"topic {topic} was deleted and created again, and the rows of Milvus collection {self._name} name "
                "offsets of the old one; publish the items (python -m producers.items --artifact DIR), drop the "
                "collection (streams/OPERATIONS.md, New model, has the command) and start again: the item worker "
                "fills a new collection from the topic"
            )

    def drop(self) -> None:
        """Remove the collection of this model version with all its vectors."""
        with self._translated():
            self._client.drop_collection(self._name, timeout=self._settings.timeout)

    def close(self) -> None:
        self._client.close()

    def _index_params(self) -> tuple[str, dict[str, int]]:
        """Return the type of the index and its build parameters."""
        return "HNSW", {"M": self._settings.hnsw_m, "efConstruction": self._settings.hnsw_ef_construction}

    def _search_params(self, limit: int) -> dict[str, int]:
        """Return the search parameters: candidates examined per query (ef), more than hits are asked for."""
        return {"ef": max(self._settings.hnsw_ef, limit + _EF_SURPLUS)}

    def _description(self) -> Mapping[str, Any]:
        with without_data(self._settings.uri), self._translated():
            found: Mapping[str, Any] = self._client.describe_collection(self._name, timeout=self._settings.timeout)
        return found

    def _translated(self) -> AbstractContextManager[None]:
        return translated_errors(self._settings.uri, self._name, self._reload)

    def _reload(self) -> None:
        self._client.load_collection(self._name, timeout=self._settings.timeout)

    def _check(self) -> None:
        """Raise FatalError unless the collection is one for this model's vectors."""
        info = self.describe()
        if (info.dim, info.metric) != (self._dim, METRIC):
            raise FatalError(
                f"Milvus collection {self._name} has {info.dim} dimensions and metric {info.metric}; model "
                f"{self._version} has {self._dim} dimensions and metric {METRIC}. Another program created it: "
                f"drop it; then {self._remedy}"
            )


def _column(values: Any, dtype: type[np.generic]) -> npt.NDArray[Any]:
    return np.array(values, dtype)  # newer versions of protobuf let it copy the memory at once
