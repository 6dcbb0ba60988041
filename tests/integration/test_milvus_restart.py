"""Reads of a Milvus that was killed, and of a collection that was recreated: complete answers, or none."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from configs.errors import TransientError
from configs.loader import load_worker
from embedded.errors import EmbeddedError
from embedded.stack import Stack
from embedded.standalone import require_platform
from model.arrays import FloatArray
from streams.errors import RestartRequired
from streams.milvus.index import MilvusIndex
from streams.milvus.observed import ObservedIndex
from streams.recall.ports import ItemReader
from streams.recall.verified import RequiredItems, VerifiedIndex

pytestmark = [pytest.mark.integration, pytest.mark.standalone]

DIM, SEALED, FRESH, LIMIT = 16, 2000, 100, 50
#: How often the items that are not sealed are written: it takes Milvus a second or two to read all of it again.
REWRITES = 200
FRESH_IDS = np.arange(SEALED + 1, SEALED + FRESH + 1)


def _vectors() -> FloatArray:
    vectors = np.random.default_rng(0).normal(size=(SEALED + FRESH, DIM)).astype(np.float32)
    unit: FloatArray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def _read(reader: ItemReader, queries: FloatArray, stop: threading.Event) -> str:
    """Search for all fresh items, and look them up, until told to stop; return the first incomplete answer."""
    while not stop.is_set():
        try:
            ids, _ = reader.search(queries, LIMIT)
            found = reader.get(FRESH_IDS)
        except TransientError:
            time.sleep(0.02)
            continue
        if not ids.all() or ids[:, 0].tolist() != FRESH_IDS.tolist():
            return f"a search found {np.count_nonzero(ids[:, 0] == FRESH_IDS)} of {FRESH} items"
        if found.keys() != set(FRESH_IDS.tolist()):
            return f"get found {len(found)} of {FRESH} items"
    return ""


def _in_thread(call: Callable[[], str]) -> Callable[[], str]:
    results: list[str] = []
    thread = threading.Thread(target=lambda: results.append(call()), daemon=True)
    thread.start()

    def result() -> str:
        thread.join(60)
        return results[0]

    return result


def test_incomplete_answers_are_never_passed_on(tmp_path: Path) -> None:
    try:
        require_platform()
    except EmbeddedError as error:
        pytest.skip(str(error))
    stack = Stack(tmp_path, milvus="standalone", kafka=False, environ={})
    settings = load_worker(None, [f"milvus.uri={stack.up().milvus}", "milvus.timeout=20"], {}).milvus
    try:
        index = MilvusIndex(settings, "v1", DIM, create=True)
        observed = ObservedIndex(index, max_age_s=60.0)
        verified = VerifiedIndex(observed, 1, RequiredItems(SEALED, 1.0, tmp_path), _vectors()[:32])
        vectors = _vectors()
        index.upsert(np.arange(1, SEALED + 1), vectors[:SEALED])
        index.seal()
        deadline = time.monotonic() + 60
        while index.indexed_count() < SEALED:
            assert time.monotonic() < deadline, "the graph was not built"
            time.sleep(0.1)
        for _ in range(REWRITES):
            index.upsert(FRESH_IDS, vectors[SEALED:])
        observed.describe()

        stop = threading.Event()
        stack.milvus.kill()
        readers = [_in_thread(lambda r=r: _read(r, vectors[SEALED:], stop)) for r in (index, verified)]  # type: ignore[misc]
        stack.milvus.start()
        index.search(vectors[:1], LIMIT)
        stop.set()
        assert [result() for result in readers] == ["", ""]
        verified.search(vectors[SEALED:], LIMIT)

        index.drop()
        with pytest.raises(RestartRequired, match="has no collection"):
            verified.search(vectors[:1], LIMIT)
        recreated = MilvusIndex(settings, "v1", DIM, create=True)
        for read in (lambda: verified.search(vectors[:1], LIMIT), lambda: verified.get(FRESH_IDS)):
            with pytest.raises(TransientError, match="the collection holds 0 of"):
                read()
        recreated.upsert(np.arange(1, SEALED + 1), vectors[:SEALED])
        assert verified.search(vectors[:1], LIMIT)[0].all()
        recreated.close()
        index.close()
    finally:
        stack.down(wipe=True)
