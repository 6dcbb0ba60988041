"""The item index in Milvus, one collection for each model version. The only module that imports pymilvus."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import grpc
import numpy as np
import numpy.typing as npt
from pymilvus import DataType, MilvusException
from pymilvus.client.utils import check_status
from pymilvus.exceptions import ParamError

from configs.errors import FatalError, TransientError
from configs.schema import Milvus
from model.arrays import FloatArray, IdArray
from model.serving.merge import PADDING
from streams.milvus.client import SLOW_TIMEOUT, connect
from streams.recall.ports import IndexInfo
from streams.tls import speaks_tls

METRIC = "IP"
_ID, _VECTOR = "item_id", "embedding"
#: Milvus accepts 64 MB a request: 16,384 rows of 64 dimensions take 4 MB, of 768 dimensions 50 MB.
_MAX_ROWS = 16_384
#: Milvus' error code for a request to a collection that is not loaded.
_NOT_LOADED = 101
#: Milvus' error code for a request to a collection that does not exist.
_NO_COLLECTION = 100
#: Most hits in the answer of one search request: about 20 MB, below gRPC's usual limit of 64 MB.
_MAX_HITS = 1_000_000
#: gRPC codes after which the same call cannot succeed later.
_REFUSED = (
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.INVALID_ARGUMENT,
)
#: What gRPC says, with the code for "unavailable", when the server is there but TLS with it fails for good.
_NO_TLS = ("TSI_PROTOCOL_FAILURE", "security handshaker", "peer certificate")


def collection_name(model_version: str) -> str:
    """Milvus collection of one model version: vectors of different versions cannot be compared."""
    return f"items_{model_version}"


class MilvusIndex:
    """`ItemIndex` over a Milvus server; safe to use from several threads.

    Searches and `get` use Eventually consistency: they answer at once and may miss writes of the last moments. The
    count of `describe` uses Strong, which waits about 200 ms for Milvus' time tick: it is not for the hot path.

    Args:
        settings: server and index parameters.
        model_version: names the collection.
        dim: dimension of the vectors.
        create: create the collection if it is missing; otherwise that is an error.

    Raises:
        TransientError: Milvus is away.
        FatalError: the collection is missing or holds something else; the message says what mends it.
    """

    def __init__(self, settings: Milvus, model_version: str, dim: int, *, create: bool) -> None:
        self._settings = settings
        self._version = model_version
        self._dim = dim
        self._name = collection_name(model_version)
        with self._translated():
            self._client = connect(settings)
            if not self._client.has_collection(self._name, timeout=settings.timeout):
                if not create:
                    raise FatalError(
                        f"Milvus at {settings.uri} has no collection {self._name} for model {model_version}; start an "
                        "item worker, which creates it (python -m streams worker --agents items), and publish the "
                        "model's items (python -m producers.items --artifact DIR)"
                    )
                self._create()
            self._client.load_collection(self._name, timeout=SLOW_TIMEOUT)
        self._check()

    def search(self, queries: FloatArray, limit: int) -> tuple[IdArray, FloatArray]:
        """See `streams.recall.ports.ItemIndex.search`."""
        Q = len(queries)
        queries = np.asarray(queries, "<f4")
        ids = np.full((Q, limit), PADDING, dtype=np.int64)
        scores = np.full((Q, limit), -np.inf, dtype=np.float32)
        parameters = {"metric_type": METRIC, "params": self._search_params(limit)}
        step = max(1, min(_MAX_ROWS, _MAX_HITS // limit))
        for start in range(0, Q, step):
            stop = min(Q, start + step)
            with self._translated():
                future = self._client.search(
                    self._name,
                    # Their bytes: pymilvus packs anything else number by number, 8 ms for 1,024 queries.
                    data=[query.tobytes() for query in queries[start:stop]],
                    anns_field=_VECTOR,
                    limit=limit,
                    search_params=parameters,
                    consistency_level="Eventually",
                    timeout=self._settings.timeout,
                    _async=True,
                )
                # The answer as it came. What pymilvus makes of it, objects for each hit, takes as long as the search.
                answer = future._future.result()
                check_status(answer.status)
            found = np.arange(limit) < np.array(answer.results.topks)[:, None]  # (stop - start, limit)
            ids[start:stop][found] = _column(answer.results.ids.int_id.data, np.int64)
            scores[start:stop][found] = _column(answer.results.scores, np.float32)
        return ids, scores

    def upsert(self, ids: IdArray, vectors: FloatArray) -> None:
        """See `streams.recall.ports.ItemIndex.upsert`."""
        for start in range(0, len(ids), _MAX_ROWS):
            chunk = slice(start, start + _MAX_ROWS)
            rows = [{_ID: i, _VECTOR: v} for i, v in zip(ids[chunk].tolist(), vectors[chunk], strict=True)]
            with self._translated():
                self._client.upsert(self._name, rows, timeout=self._settings.timeout)

    def delete(self, ids: IdArray) -> None:
        """See `streams.recall.ports.ItemIndex.delete`."""
        for start in range(0, len(ids), _MAX_ROWS):
            with self._translated():
                self._client.delete(
                    self._name, ids=ids[start : start + _MAX_ROWS].tolist(), timeout=self._settings.timeout
                )

    def get(self, ids: IdArray) -> Mapping[int, FloatArray]:
        """See `streams.recall.ports.ItemIndex.get`."""
        found: dict[int, FloatArray] = {}
        for start in range(0, len(ids), _MAX_ROWS):
            with self._translated():
                rows = self._client.query(
                    self._name,
                    filter=f"{_ID} in {ids[start : start + _MAX_ROWS].tolist()}",
                    output_fields=[_ID, _VECTOR],
                    consistency_level="Eventually",
                    timeout=self._settings.timeout,
                )
            found.update({row[_ID]: np.asarray(row[_VECTOR], dtype=np.float32) for row in rows})
        return found

    def seal(self) -> None:
        """See `streams.recall.ports.ItemIndex.seal`.

        Milvus builds the graph only over sealed segments; until then every search compares all new rows. It seals them
        when they are full or were idle for minutes, or when it is told to flush (since 2.4 at most once in 10 s). The
        call waits neither for the flush, 2.5 s in which no item would get in, nor for leave to flush.
        """
        with self._translated():
            self._client.flush(self._name, timeout=self._settings.timeout, _async=True, retry_on_rate_limit=False)

    def searchable_by_graph(self) -> int:
        """Rows that searches find through the graph; the others are compared one by one. Standalone server only."""
        with self._translated():
            segments = self._client.list_loaded_segments(self._name, timeout=self._settings.timeout)
        return sum(segment.num_rows for segment in segments if segment.index_name)

    def describe(self) -> IndexInfo:
        """See `streams.recall.ports.ItemIndex.describe`."""
        with self._translated():
            description = self._client.describe_collection(self._name, timeout=self._settings.timeout)
            index = self._client.describe_index(self._name, _VECTOR, timeout=self._settings.timeout)
            count = self._client.query(
                self._name,
                filter="",
                output_fields=["count(*)"],
                consistency_level="Strong",
                timeout=self._settings.timeout,
            )
        dim = next(f["params"]["dim"] for f in description["fields"] if f["name"] == _VECTOR)
        return IndexInfo(self._version, int(dim), index["metric_type"], int(count[0]["count(*)"]))

    def drop(self) -> None:
        """Remove the collection of this model version with all its vectors."""
        with self._translated():
            self._client.drop_collection(self._name, timeout=self._settings.timeout)

    def close(self) -> None:
        self._client.close()

    def _create(self) -> None:
        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field(_ID, DataType.INT64, is_primary=True)
        schema.add_field(_VECTOR, DataType.FLOAT_VECTOR, dim=self._dim)
        index = self._client.prepare_index_params()
        kind, params = self._index_params()
        index.add_index(_VECTOR, index_type=kind, metric_type=METRIC, params=params)
        self._client.create_collection(self._name, schema=schema, index_params=index, timeout=SLOW_TIMEOUT)

    def _index_params(self) -> tuple[str, dict[str, int]]:
        """The type of index, and how it is built."""
        return "HNSW", {"M": self._settings.hnsw_m, "efConstruction": self._settings.hnsw_ef_construction}

    def _search_params(self, limit: int) -> dict[str, int]:
        """How thoroughly it is searched."""
        return {"ef": max(self._settings.hnsw_ef, limit)}

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turns pymilvus' and gRPC's errors into ours."""
        uri = self._settings.uri
        try:
            yield
        except grpc.RpcError as error:
            raise self._refusal(error) from None
        except ParamError:
            raise  # a defect of ours: no server was asked
        except MilvusException as error:
            if error.code == _NO_COLLECTION:
                raise FatalError(
                    f"Milvus at {uri} has no collection {self._name} any more; start an item worker and publish the "
                    "items again (python -m producers.items --artifact DIR)"
                ) from None
            if error.code == _NOT_LOADED:  # a restarted milvus-lite forgets that the collection was loaded
                with suppress(MilvusException, grpc.RpcError):
                    self._client.load_collection(self._name, timeout=self._settings.timeout)
            if isinstance(error.__cause__, grpc.RpcError):  # while connecting: pymilvus hides the reason
                url = urlsplit(uri)
                if url.scheme == "http" and speaks_tls(url.hostname or "", url.port or 80):
                    raise FatalError(f"Milvus at {uri} speaks TLS; write https:// in milvus.uri") from None
                raise self._refusal(error.__cause__) from None
            # Everything else may pass, too: servers start, elect coordinators, run out of memory.
            raise TransientError("Milvus", f"{uri}: {error.message}") from None

    def _refusal(self, error: grpc.RpcError) -> FatalError | TransientError:
        uri = self._settings.uri
        if not isinstance(error, grpc.Call):
            return TransientError("Milvus", f"{uri}: {error}")
        code, detail = error.code(), error.details() or ""
        if code in _REFUSED:
            return FatalError(f"Milvus at {uri} refuses: {detail} ({code.name}); check milvus.token and its version")
        if any(sign in detail for sign in _NO_TLS):
            return FatalError(f"Milvus at {uri}: {detail}; check milvus.ca_file, and that the server speaks TLS")
        return TransientError("Milvus", f"{uri}: {detail} ({code.name})")

    def _check(self) -> None:
        info = self.describe()
        if (info.dim, info.metric) != (self._dim, METRIC):
            raise FatalError(
                f"Milvus collection {self._name} has {info.dim} dimensions and metric {info.metric}; model "
                f"{self._version} has {self._dim} dimensions and metric {METRIC}. Something else made the collection: "
                "drop it, start an item worker and publish the items (python -m producers.items --artifact DIR)"
            )


def _column(values: Any, dtype: type[np.generic]) -> npt.NDArray[Any]:
    return np.array(values, dtype)  # of protobuf's newer versions it copies the memory


# pymilvus reports each failed call at level ERROR before it raises; the fault is reported once, by whoever handles it.
logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
