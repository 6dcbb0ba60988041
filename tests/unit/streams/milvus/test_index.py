"""Faults of the index in this project's terms; tests/contract and tests/integration test the rest on real servers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pymilvus import MilvusException
from pymilvus.client.asynch import SearchFuture

from configs.errors import FatalError, TransientError
from streams.errors import RefusedData
from streams.milvus.index import MilvusIndex


def _refusing() -> MilvusIndex:
    """Return an index whose server calls every request invalid."""

    def refuse(*_: Any, **__: Any) -> None:
        raise MilvusException(1100, "invalid parameter")

    index: Any = object.__new__(MilvusIndex)
    index._name, index._settings = "items", SimpleNamespace(uri="http://milvus", timeout=1.0, hnsw_ef=100)
    index._client = SimpleNamespace(describe_collection=refuse, describe_index=refuse, query=refuse, search=refuse)
    refusing: MilvusIndex = index
    return refusing


def test_a_search_that_pymilvus_could_not_send_is_a_transient_fault() -> None:
    index = _refusing()
    unsent = SearchFuture(None, None, ValueError("Cannot invoke RPC on closed channel!"))
    vars(index)["_client"] = SimpleNamespace(search=lambda *_, **__: unsent)
    with pytest.raises(TransientError, match="closed channel"):
        index.search(np.zeros((1, 2), dtype=np.float32), 10)


def test_only_requests_with_data_of_messages_blame_the_data() -> None:
    index = _refusing()
    with pytest.raises(RefusedData):
        index.get(np.array([1]))
    with pytest.raises(FatalError, match="hnsw_ef"):
        index.search(np.zeros((1, 2), dtype=np.float32), 10)
    with pytest.raises(TransientError, match="invalid parameter"):
        index.describe()
    index.check_identity()  # nothing is known
    vars(index)["_description"] = lambda: {"fields": []}
    with pytest.raises(TransientError, match="invalid parameter"):
        index.describe()
