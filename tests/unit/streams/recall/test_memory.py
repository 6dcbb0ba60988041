"""The index in memory, beyond what `tests/contract/test_item_index.py` demands of every index."""

from __future__ import annotations

import numpy as np

from streams.recall.memory import MemoryIndex


def test_items_with_equal_scores_are_found_in_the_order_in_which_they_were_written() -> None:
    """Tests compare whole lists of candidates, so the order must not depend on chance."""
    index = MemoryIndex("m1", 2)
    ids = np.array([9, 3, 7, 5])
    index.upsert(ids, np.ones((4, 2), np.float32))
    found, scores = index.search(np.ones((1, 2), np.float32), 3)
    assert found.tolist() == [[9, 3, 7]]
    assert scores.tolist() == [[2, 2, 2]]


def test_vectors_are_copied() -> None:
    index = MemoryIndex("m1", 2)
    vectors = np.ones((1, 2), np.float32)
    index.upsert(np.array([1]), vectors)
    vectors[:] = 0
    np.testing.assert_array_equal(index.get(np.array([1]))[1], [1, 1])
