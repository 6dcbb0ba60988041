"""One suite for every `ItemIndex`: in memory, milvus-lite, and Milvus standalone."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from pymilvus import MilvusClient

from configs.errors import FatalError, TransientError
from configs.loader import load_worker
from model.arrays import FloatArray
from model.data.limits import MAX_ITEM_ID, MIN_ITEM_ID
from streams.errors import RefusedData, RestartRequired
from streams.milvus.index import MilvusIndex
from streams.recall.memory import MemoryIndex
from streams.recall.ports import ItemIndex, ItemTable
from tests.site import wait_for

DIM = 8

BACKENDS = [
    "memory",
    pytest.param("lite", marks=pytest.mark.integration),
    pytest.param("standalone", marks=[pytest.mark.integration, pytest.mark.standalone]),
]


def _uri(backend: str, request: pytest.FixtureRequest) -> str:
    uri: str = request.getfixturevalue(f"milvus_{backend}")
    return uri


def _milvus(uri: str, version: str, *, create: bool = True, dim: int = DIM) -> MilvusIndex:
    settings = load_worker(None, [f"milvus.uri={uri}", "milvus.timeout=20"], {}).milvus
    return MilvusIndex(settings, version, dim, create=create)


@pytest.fixture(params=BACKENDS)
def index(request: pytest.FixtureRequest) -> Iterator[ItemTable]:
    version = f"v{uuid.uuid4().hex[:8]}"
    if request.param == "memory":
        yield MemoryIndex(version, DIM)
        return
    made = _milvus(_uri(request.param, request), version)
    yield made
    made.drop()
    made.close()


def _interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def _vectors(n: int, seed: int = 0) -> FloatArray:
    vectors = np.random.default_rng(seed).normal(size=(n, DIM)).astype(np.float32)
    unit: FloatArray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def _eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "not visible within 10 s"
        time.sleep(0.02)


def _fill(index: ItemIndex, n: int) -> FloatArray:
    vectors = _vectors(n)
    index.upsert(np.arange(1, n + 1), vectors)
    _eventually(lambda: bool(index.search(vectors[-1:], 1)[0][0, 0] == n))
    return vectors


def test_search_is_by_inner_product_best_first(index: ItemIndex) -> None:
    vectors = _fill(index, 200)
    queries = _vectors(12, seed=1)
    ids, scores = index.search(queries, 20)
    assert ids.shape == scores.shape == (12, 20)
    assert ids.dtype == np.int64
    assert scores.dtype == np.float32
    exact = queries @ vectors.T
    np.testing.assert_allclose(scores, -np.sort(-exact, axis=1)[:, :20], atol=1e-4)
    np.testing.assert_allclose(np.take_along_axis(exact, ids - 1, axis=1), scores, atol=1e-4)


def test_fewer_items_than_the_limit_are_padded(index: ItemIndex) -> None:
    _fill(index, 3)
    ids, scores = index.search(_vectors(2, seed=1), 5)
    assert sorted(ids[0, :3].tolist()) == [1, 2, 3]
    assert ids[:, 3:].tolist() == [[0, 0], [0, 0]]
    assert np.isneginf(scores[:, 3:]).all()


def test_an_empty_index_answers_with_padding(index: ItemIndex) -> None:
    ids, scores = index.search(_vectors(2), 4)
    assert ids.tolist() == [[0] * 4] * 2
    assert np.isneginf(scores).all()


def test_upsert_replaces_and_counts_once(index: ItemIndex) -> None:
    vectors = _fill(index, 10)
    index.upsert(np.array([4]), -vectors[3:4])
    _eventually(lambda: bool(index.search(-vectors[3:4], 1)[0][0, 0] == 4))
    assert 4 not in index.search(vectors[3:4], 5)[0]
    assert index.describe().count == 10


def test_delete_removes_items_and_ignores_unknown_ids(index: ItemIndex) -> None:
    vectors = _fill(index, 10)
    index.delete(np.array([2, 777]))
    _eventually(lambda: 2 not in index.search(vectors[1:2], 10)[0])
    assert index.describe().count == 9
    assert index.get(np.array([2])) == {}


def test_get_returns_the_vectors_of_known_ids(index: ItemIndex) -> None:
    vectors = _fill(index, 5)
    _eventually(lambda: set(index.get(np.array([5, 1, 99]))) == {1, 5})
    found = index.get(np.array([5, 1, 99]))
    np.testing.assert_allclose(found[5], vectors[4], atol=1e-6)
    assert found[1].dtype == np.float32
    assert index.get(np.array([], dtype=np.int64)) == {}


def test_every_call_takes_every_valid_id(index: ItemIndex) -> None:
    ids = np.array([MIN_ITEM_ID, MIN_ITEM_ID + 1, -1, 1, MAX_ITEM_ID - 1, MAX_ITEM_ID], dtype=np.int64)
    vectors = _vectors(6)
    index.upsert(ids, vectors)
    _eventually(lambda: index.get(ids).keys() == set(ids.tolist()))
    for item_id, vector in zip(ids.tolist(), vectors, strict=True):
        np.testing.assert_allclose(index.get(np.array([item_id]))[item_id], vector, atol=1e-6)
    assert index.search(vectors, 1)[0][:, 0].tolist() == ids.tolist()
    index.upsert(ids, -vectors)
    _eventually(lambda: index.search(-vectors, 1)[0][:, 0].tolist() == ids.tolist())
    assert index.describe().count == 6
    for left, item_id in zip(range(5, -1, -1), ids, strict=True):
        index.delete(np.array([item_id]))
        assert index.describe().count == left
    assert index.get(ids) == {}


def test_ids_beyond_the_valid_ones_are_refused_or_processed(index: ItemIndex) -> None:
    """The codecs refuse such an id; where it comes from elsewhere, it must not look like an outage."""
    vectors = _vectors(2)
    for item_id in (-(2**63), 2**63 - 1):
        ids = np.array([7, item_id], dtype=np.int64)
        with contextlib.suppress(RefusedData):
            index.upsert(ids, vectors)
        with contextlib.suppress(RefusedData):
            index.get(ids)
        with contextlib.suppress(RefusedData):
            index.delete(ids)
        index.upsert(ids[:1], vectors[:1])
        _eventually(lambda: 7 in index.get(np.array([7])))
        index.delete(ids[:1])


def test_extreme_finite_vectors_are_held_as_they_are(index: ItemIndex) -> None:
    numbers = np.array([[1e-45], [0.0], [1e18], [1e38], [np.finfo(np.float32).max]])
    ids, vectors = np.arange(1, 6), np.repeat(numbers, DIM, axis=1).astype(np.float32)
    index.upsert(ids, vectors)
    _eventually(lambda: index.get(ids).keys() == set(ids.tolist()))
    found = index.get(ids)
    np.testing.assert_array_equal(np.stack([found[item_id] for item_id in ids.tolist()]), vectors)
    unit = np.full((1, DIM), DIM**-0.5, dtype=np.float32)
    with np.errstate(over="ignore"):
        hits, scores = index.search(np.concatenate([unit, vectors]), 6)
    assert [sorted(row) for row in hits.tolist()] == [[0, 1, 2, 3, 4, 5]] * 6
    assert not np.isnan(scores).any()
    index.delete(ids)
    assert index.describe().count == 0


def test_vectors_that_are_none_are_refused_or_held(index: ItemIndex) -> None:
    vectors = _vectors(2)
    for number in (np.nan, np.inf, -np.inf):
        vectors[1, 3] = number
        with contextlib.suppress(RefusedData):
            index.upsert(np.array([5, 6]), vectors)
        index.upsert(np.array([5]), vectors[:1])
        _eventually(lambda: 5 in index.get(np.array([5, 6])))
        with np.errstate(invalid="ignore"):
            assert 5 in index.search(vectors[:1], 2)[0]
        index.delete(np.array([5, 6]))
        assert index.describe().count == 0


def test_describe_returns_version_dimension_and_metric(index: ItemIndex) -> None:
    info = index.describe()
    assert (info.dim, info.metric, info.count) == (DIM, "IP", 0)
    assert info.model_version.startswith("v")


def test_sources_are_those_of_the_last_write_at_once(index: ItemTable) -> None:
    ids = np.array([1, 2, 3, -4])
    index.upsert(ids, _vectors(4), np.array([[0, 5], [1, 6], [0, 2**62], [2, 0]]))
    index.upsert(ids[:1], _vectors(1), np.array([[3, 4]]))
    assert index.sources(np.array([1, 2, 3, -4, 99])) == {1: (3, 4), 2: (1, 6), 3: (0, 2**62), -4: (2, 0)}
    index.upsert(ids[1:2], _vectors(1))
    index.delete(ids[2:3])
    assert index.sources(ids) == {1: (3, 4), 2: (-1, -1), -4: (2, 0)}


def test_rows_of_a_partition_are_listed_completely(index: ItemTable) -> None:
    """Also after a seal, and those that were written twice: a page of Milvus must not leave any out."""
    ids = np.random.default_rng(5).permutation(np.arange(-3000, 3000)[np.arange(-3000, 3000) != 0])
    sources = np.stack([ids % 3, np.arange(len(ids))], axis=1)
    index.upsert(ids[:2500], _vectors(2500), sources[:2500])
    with contextlib.suppress(TransientError):
        index.seal()
    index.upsert(ids[2500:], _vectors(len(ids) - 2500), sources[2500:])
    index.upsert(ids[:800], _vectors(800), sources[:800] + np.array([0, 10**12]))
    index.delete(ids[800:900])
    expected = dict(zip(ids.tolist(), sources[:, 1].tolist(), strict=True))
    expected |= {i: offset + 10**12 for i, offset in list(expected.items())[:800]}
    for item_id in ids[800:900].tolist():
        del expected[item_id]

    def listed(partition: int) -> list[tuple[int, int]]:
        return [pair for page in index.rows(partition) for pair in zip(*map(np.ndarray.tolist, page), strict=True)]

    for partition in range(3):
        wanted = sorted((i, offset) for i, offset in expected.items() if i % 3 == partition)
        _eventually(lambda p=partition, w=wanted: sorted(listed(p)) == w)  # type: ignore[misc]
    assert listed(7) == []


@pytest.mark.integration
@pytest.mark.parametrize("backend", BACKENDS[1:])
class TestMilvusOnly:
    def test_rows_are_listed_in_pages(
        self, backend: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        index = _milvus(_uri(backend, request), f"v{uuid.uuid4().hex[:8]}")
        monkeypatch.setattr("streams.milvus.index._MAX_ROWS_PER_REQUEST", 100)
        index.upsert(np.arange(1, 251), _vectors(250), np.zeros((250, 2), np.int64))
        _eventually(lambda: [len(ids) for ids, _ in index.rows(0)] == [100, 100, 50])
        assert sorted(np.concatenate([ids for ids, _ in index.rows(0)]).tolist()) == list(range(1, 251))
        index.drop()

    def test_workers_that_create_it_at_the_same_time_agree(self, backend: str, request: pytest.FixtureRequest) -> None:
        uri, version = _uri(backend, request), f"v{uuid.uuid4().hex[:8]}"
        with ThreadPoolExecutor(6) as threads:
            made = [future.result() for future in [threads.submit(_milvus, uri, version) for _ in range(6)]]
        assert len({index.identity for index in made}) == 1
        made[0].upsert(np.array([1]), _vectors(1))
        _eventually(lambda: made[-1].describe().count == 1)
        made[0].drop()

    def test_a_creation_that_was_interrupted_is_completed(
        self, backend: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        uri, version = _uri(backend, request), f"v{uuid.uuid4().hex[:8]}"
        with monkeypatch.context() as patch:
            patch.setattr(MilvusClient, "create_index", _interrupt)
            with pytest.raises(KeyboardInterrupt):
                _milvus(uri, version)
        index = _milvus(uri, version)
        _fill(index, 3)
        index.drop()

    def test_a_collection_of_the_same_name_is_another_one(self, backend: str, request: pytest.FixtureRequest) -> None:
        uri, version = _uri(backend, request), f"v{uuid.uuid4().hex[:8]}"
        first = _milvus(uri, version)
        assert _milvus(uri, version, create=False).identity == first.identity
        first.check_identity()
        first.drop()
        for call in (first.check_identity, lambda: first.upsert(np.array([1]), _vectors(1))):
            with pytest.raises(RestartRequired, match="was dropped"):
                call()
        second = _milvus(uri, version)
        assert second.identity != first.identity
        with pytest.raises(RestartRequired, match="dropped and created again"):
            first.check_identity()
        second.drop()

    def test_a_collection_holds_the_items_of_one_topic(self, backend: str, request: pytest.FixtureRequest) -> None:
        uri, version = _uri(backend, request), f"v{uuid.uuid4().hex[:8]}"
        first = _milvus(uri, version)
        first.bind("items", "id-1")
        again = _milvus(uri, version)
        again.bind("items", "id-1")
        with pytest.raises(FatalError, match="topic items was deleted and created again"):
            again.bind("items", "id-2")
        assert again.identity == first.identity
        first.drop()

    def test_an_existing_collection_is_opened_with_its_items(
        self, backend: str, request: pytest.FixtureRequest
    ) -> None:
        uri, version = _uri(backend, request), f"v{uuid.uuid4().hex[:8]}"
        first = _milvus(uri, version)
        _fill(first, 5)
        again = _milvus(uri, version, create=False)
        assert again.describe().count == 5
        first.drop()

    def test_a_missing_collection_names_the_remedy(self, backend: str, request: pytest.FixtureRequest) -> None:
        with pytest.raises(FatalError, match=r"--agents items(.|\n)*producers\.items --artifact"):
            _milvus(_uri(backend, request), "vmissing", create=False)

    def test_another_dimension_is_refused(self, backend: str, request: pytest.FixtureRequest) -> None:
        uri, version = _uri(backend, request), f"v{uuid.uuid4().hex[:8]}"
        first = _milvus(uri, version)
        with pytest.raises(FatalError, match="has 8 dimensions"):
            _milvus(uri, version, dim=DIM + 1)
        first.drop()


def test_an_unavailable_server_is_a_transient_error() -> None:
    settings = load_worker(None, ["milvus.uri=http://127.0.0.1:9", "milvus.timeout=0.5"], {}).milvus
    with pytest.raises(TransientError, match=r"127\.0\.0\.1:9"):
        MilvusIndex(settings, "v1", DIM, create=False)


def test_sealing_does_not_delay_a_new_item(index: ItemIndex) -> None:
    """Milvus takes seconds to seal, and rejects requests that come too often; the worker waits for neither."""
    index.upsert(np.arange(1, 2001), _vectors(2000))
    begin = time.monotonic()
    index.seal()
    with contextlib.suppress(TransientError):
        index.seal()
    assert time.monotonic() - begin < 1
    new = -np.ones((1, DIM), np.float32) * np.float32(DIM**-0.5)
    index.upsert(np.array([5000]), new)
    _eventually(lambda: index.search(new, 1)[0][0, 0] == 5000)


@pytest.mark.integration
@pytest.mark.standalone
def test_sealed_items_are_found_through_the_graph(milvus_standalone: str) -> None:
    index = _milvus(milvus_standalone, f"v{uuid.uuid4().hex[:8]}")
    index.upsert(np.arange(1, 2001), _vectors(2000))
    assert index.indexed_count() == 0
    index.seal()
    wait_for(lambda: index.indexed_count() == 2000, "the graph")
    index.drop()
    index.close()
