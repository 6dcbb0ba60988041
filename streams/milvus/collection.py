"""The collection of one model version's items: its name, its fields, and what tells it from one of the same name."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any

from pymilvus import DataType, MilvusClient, MilvusException
from pymilvus.grpc_gen import milvus_pb2, schema_pb2

from model.arrays import FloatArray, IdArray, IntArray, IntMatrix
from streams.milvus.client import SLOW_TIMEOUT_S

METRIC = "IP"
ID, VECTOR = "item_id", "embedding"
#: For pymilvus, which would ask Milvus for the fields otherwise.
NO_SCHEMA: Mapping[str, Any] = {"fields": []}
#: The message that a row comes from.
SOURCE_PARTITION, SOURCE_OFFSET = "source_partition", "source_offset"
#: Property of a collection: a random text, given when it is created. milvus-lite gives all collections the id 0.
_CREATION = "mindstream.creation"
#: Property of a collection: the id of the topic whose offsets its rows name.
ITEMS_TOPIC = "mindstream.items_topic"


def collection_name(model_version: str) -> str:
    """Return the name of a model version's collection: vectors of different versions cannot be compared.

    "r2" is the form of its rows. A collection cannot get new fields, so another form has another name.
    """
    return f"items_{model_version}_r2"


def ensure_collection(client: MilvusClient, name: str, dim: int, kind: str, params: Mapping[str, int]) -> None:
    """Create a collection and its index, unless they exist. Another worker may do the same at the same time.

    Args:
        client: a connection.
        name: of the collection.
        dim: dimension of the vectors.
        kind, params: type of the index, and its build parameters.
    """
    if not client.has_collection(name, timeout=SLOW_TIMEOUT_S):
        schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field(ID, DataType.INT64, is_primary=True)
        schema.add_field(VECTOR, DataType.FLOAT_VECTOR, dim=dim)
        schema.add_field(SOURCE_PARTITION, DataType.INT64)
        schema.add_field(SOURCE_OFFSET, DataType.INT64)
        creation = {_CREATION: uuid.uuid4().hex}
        _unless_done(
            lambda: client.create_collection(name, schema=schema, properties=creation, timeout=SLOW_TIMEOUT_S),
            lambda: client.has_collection(name, timeout=SLOW_TIMEOUT_S),
        )
    # Separately, because a worker may have been killed in between.
    if not client.list_indexes(name, timeout=SLOW_TIMEOUT_S):
        index = client.prepare_index_params()
        index.add_index(VECTOR, index_type=kind, metric_type=METRIC, params=dict(params))
        _unless_done(
            lambda: client.create_index(name, index, timeout=SLOW_TIMEOUT_S),
            lambda: bool(client.list_indexes(name, timeout=SLOW_TIMEOUT_S)),
        )


def upsert_request(name: str, ids: IdArray, vectors: FloatArray, sources: IntMatrix) -> milvus_pb2.UpsertRequest:
    """Return the request that writes (n,) ids, (n, D) vectors and (n, 2) sources.

    As columns: pymilvus packs rows one by one, which takes five times as much CPU time (20 µs for each row).
    """
    n, D = vectors.shape
    embeddings = schema_pb2.FieldData(type=schema_pb2.DataType.FloatVector, field_name=VECTOR)
    embeddings.vectors.dim = D
    embeddings.vectors.float_vector.data.extend(vectors.ravel().tolist())
    columns = [
        _integers(ID, ids),
        embeddings,
        _integers(SOURCE_PARTITION, sources[:, 0]),
        _integers(SOURCE_OFFSET, sources[:, 1]),
    ]
    return milvus_pb2.UpsertRequest(collection_name=name, num_rows=n, fields_data=columns)


def _integers(name: str, values: IntArray) -> schema_pb2.FieldData:
    column = schema_pb2.FieldData(type=schema_pb2.DataType.Int64, field_name=name)
    column.scalars.long_data.data.extend(values.tolist())
    return column


def identity_of(description: Mapping[str, Any]) -> str:
    """Return a text that tells this collection from one of its name that was dropped before or is created later."""
    return str(description["collection_id"] or properties_of(description).get(_CREATION, ""))


def properties_of(description: Mapping[str, Any]) -> Mapping[str, str]:
    return description.get("properties") or {}


def _unless_done(action: Callable[[], object], done: Callable[[], bool]) -> None:
    """Call `action`; ignore its error if somebody else has done it."""
    try:
        action()
    except MilvusException:
        if not done():
            raise
