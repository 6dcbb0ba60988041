"""The recall engine over a memory index."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from configs.errors import TransientError
from model.arrays import FloatArray, IdArray
from streams.recall.embeddings import HistoryEmbeddings
from streams.recall.engine import RecallEngine, Selection
from streams.recall.memory import MemoryIndex
from tests.unit.fakes import VERSION, FailingIndex, FewItems, MeanEncoder

ITEMS = 6


class HeldIndex(FailingIndex):
    """Answers searches when it is released, and keeps their sizes."""

    def __init__(self) -> None:
        inner = MemoryIndex(VERSION, ITEMS)
        inner.upsert(np.arange(1, ITEMS + 1), FewItems(ITEMS).item_vectors)
        super().__init__(inner, failures=0)
        self.released = threading.Event()
        self.released.set()
        self.searches: list[tuple[int, int]] = []

    def search(self, queries: FloatArray, limit: int) -> tuple[IdArray, FloatArray]:
        self.searches.append((len(queries), limit))
        assert self.released.wait(10)
        return super().search(queries, limit)


def _engine(index: HeldIndex, *, filter_seen: bool = True) -> RecallEngine:
    embeddings = HistoryEmbeddings(FewItems(ITEMS), index, capacity=10, refresh_s=60.0, unknown_ttl_s=1.0)
    return RecallEngine(MeanEncoder(ITEMS), embeddings, index, top_k=2, filter_seen=filter_seen)


def _ids(*items: int) -> IdArray:
    return np.array(items, dtype=np.int64)


def test_all_users_share_one_search_and_keep_their_rows() -> None:
    index = HeldIndex()
    found = _engine(index).recall([_ids(1), _ids(99), _ids(2, 3)])
    assert index.searches == [(2, 2 + 2)], "two users with a known item, as many more as the longest history has seen"
    assert found[1] is None
    assert found[0] is not None and found[2] is not None
    assert 1 not in found[0].item_ids
    assert not {2, 3} & set(found[2].item_ids)


def test_seen_items_are_returned_if_they_are_not_filtered() -> None:
    index = HeldIndex()
    (found,) = _engine(index, filter_seen=False).recall([_ids(4)])
    assert found is not None
    assert found.item_ids[0] == 4
    assert index.searches == [(1, 2)]


def test_users_with_selections_of_their_own_share_one_search_and_get_what_each_would_get_by_itself() -> None:
    index = HeldIndex()
    engine = _engine(index)
    histories = [_ids(1, 2), _ids(99), _ids(3), _ids(1, 2), _ids(4)]
    selections = [
        Selection(2, _ids(1, 2)),
        Selection(5, _ids()),
        Selection(3, _ids()),
        Selection(1, _ids(1, 2, 5)),
        Selection(2, _ids(4, 6)),
    ]
    together = engine.start(histories, selections=selections).finish()
    assert index.searches == [(4, 2 + 2)], "the largest limit that one of them needs"
    for history, selection, found in zip(histories, selections, together, strict=True):
        (by_itself,) = engine.start([history], selections=[selection]).finish()
        if len(history) == 1 and history[0] == 99:
            assert found is by_itself is None
            continue
        assert found is not None and by_itself is not None
        assert found.item_ids.tolist() == by_itself.item_ids.tolist()
        assert found.scores.tolist() == by_itself.scores.tolist()
        assert len(found.item_ids) == selection.top_k
        assert not set(selection.exclude.tolist()) & set(found.item_ids.tolist())


def test_the_settings_as_selections_give_what_the_settings_give() -> None:
    engine = _engine(HeldIndex())
    histories = [_ids(1, 2), _ids(3), _ids(99)]
    by_settings = engine.recall(histories)
    selected = engine.start(histories, selections=[Selection(2, history) for history in histories]).finish()
    shown = [[c and [column.tolist() for column in c] for c in found] for found in (by_settings, selected)]
    assert shown[0] == shown[1]


def test_starting_does_not_wait_for_the_index() -> None:
    index = HeldIndex()
    index.released.clear()
    pending = _engine(index).start([_ids(1)])
    index.released.set()
    stages: list[str] = []
    pending.wait(stages.append)
    assert pending.finish(stages.append)[0] is not None
    assert stages == ["search", "merge"], "the search is timed once"


@pytest.mark.parametrize("histories", [[], [_ids(99)], [_ids(99), _ids(98)]])
def test_nothing_is_searched_for_without_a_known_item(histories: list[IdArray]) -> None:
    index = HeldIndex()
    pending = _engine(index).start(histories)
    pending.wait()
    assert pending.finish() == [None] * len(histories)
    assert index.searches == []


def test_a_failed_search_raises_wherever_it_is_waited_for() -> None:
    index = HeldIndex()
    index.failures = 1
    pending = _engine(index).start([_ids(1)])
    for call in (pending.wait, pending.finish):
        with pytest.raises(TransientError):
            call()


class BrokenScores(MemoryIndex):
    """Answers each search with scores of which some are not numbers."""

    def search(self, queries: FloatArray, limit: int) -> tuple[IdArray, FloatArray]:
        ids, scores = super().search(queries, limit)
        scores[:, 0], scores[:, 2], scores[:, 4] = np.nan, np.inf, -np.inf
        return ids, scores


@pytest.mark.parametrize("fusion", [0.0, 0.5])
def test_a_score_that_is_not_finite_reaches_no_list(fusion: float) -> None:
    index = BrokenScores(VERSION, ITEMS)
    index.upsert(np.arange(1, ITEMS + 1), FewItems(ITEMS).item_vectors)
    embeddings = HistoryEmbeddings(FewItems(ITEMS), index, capacity=10, refresh_s=60.0, unknown_ttl_s=1.0)
    encoder = MeanEncoder(ITEMS)
    encoder.fusion = fusion
    engine = RecallEngine(encoder, embeddings, index, top_k=ITEMS, filter_seen=False)
    for found in engine.recall([_ids(1), _ids(2, 3)]):
        assert found is not None
        assert np.isfinite(found.scores).all()
        assert len(found.item_ids) == ITEMS - 3


class OverflowingEncoder(MeanEncoder):
    """Encodes histories with item 3 as numbers that are not finite."""

    def encode(self, embeddings: FloatArray, lengths: IdArray) -> FloatArray:
        interests = super().encode(embeddings, lengths)
        interests[embeddings[:, :, 2].any(axis=1)] = (np.nan, np.inf, -np.inf, 0, 0, 0)
        return interests


def test_an_interest_that_is_not_finite_is_not_searched_for() -> None:
    index = HeldIndex()
    embeddings = HistoryEmbeddings(FewItems(ITEMS), index, capacity=10, refresh_s=60.0, unknown_ttl_s=1.0)
    engine = RecallEngine(OverflowingEncoder(ITEMS), embeddings, index, top_k=2)
    found = engine.recall([_ids(1), _ids(3), _ids(2)])
    assert [candidates is None for candidates in found] == [False, True, False]
    assert index.searches == [(2, 3)]
    assert engine.recall([_ids(3)]) == [None]
    assert len(index.searches) == 1


@pytest.mark.parametrize("filter_seen", [True, False])
def test_the_steps_of_one_history_lead_to_the_candidates_of_recall(filter_seen: bool) -> None:
    engine = _engine(HeldIndex(), filter_seen=filter_seen)
    history = _ids(1, 99, 2, 3)
    steps = engine.steps(history)
    (found,) = engine.recall([history])
    assert steps is not None and found is not None
    for ours, theirs in zip(steps.merged, found, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert steps.ids.shape == steps.scores.shape == (1, 2 + 4 * filter_seen)
    assert steps.excluded.tolist() == (history.tolist() if filter_seen else [])
    assert steps.inputs.unknown == {99}
    assert steps.inputs.lengths.tolist() == [3], "the unknown item is not read"
    np.testing.assert_array_equal(steps.interests, engine.interests([history])[0][0])


def test_there_are_no_steps_without_a_known_item() -> None:
    index = HeldIndex()
    assert _engine(index).steps(_ids()) is None
    assert _engine(index).steps(_ids(99)) is None
    assert index.searches == []


def test_embeddings_say_which_items_are_known() -> None:
    vectors, known = _engine(HeldIndex()).embeddings(_ids(2, 99))
    assert known.tolist() == [True, False]
    assert vectors.tolist() == [FewItems(ITEMS).item_vectors[1].tolist(), [0.0] * ITEMS]
