"""Brings a filled collection into the state in which it serves for most of its life. Knows pymilvus, as adapters do.

The standalone server keeps new rows in "growing" segments, which every search reads row by row, until they are full or
have been idle for ten minutes; only then it builds the HNSW graph. A search of 64 queries over 20,000 such rows took
seven times as long as over the graph. A benchmark neither waits that long nor measures a state that soon passes.
"""

from __future__ import annotations

import time
from contextlib import closing

from pymilvus import MilvusClient, MilvusException

from configs.schema import Milvus
from streams.errors import TransientError
from streams.milvus import collection_name

#: Seconds for a flush: it waits for the disk.
_FLUSH_TIMEOUT = 60.0
#: Seconds between two looks at the segments.
_POLL = 0.5


def build_index(settings: Milvus, model_version: str, rows: int, patience: float) -> None:
    """Seal the segments of a model's collection and wait until searches use the graph.

    Args:
        rows: that the collection holds. patience: seconds until giving up.

    Raises:
        TransientError: Milvus is away, or needs longer.
    """
    name = collection_name(model_version)
    token = settings.token.get_secret_value() if settings.token else ""
    deadline = time.monotonic() + patience
    try:
        with closing(MilvusClient(uri=settings.uri, token=token, timeout=settings.timeout)) as client:
            client.flush(name, timeout=_FLUSH_TIMEOUT)
            while sum(s.num_rows for s in client.list_loaded_segments(name) if s.index_name) < rows:
                if time.monotonic() > deadline:
                    raise TransientError("Milvus", f"{settings.uri}: no graph over {name} after {patience:.0f} s")
                time.sleep(_POLL)
    except MilvusException as error:
        raise TransientError("Milvus", f"{settings.uri}: {error.message}") from None
