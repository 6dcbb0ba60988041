"""Messages of items: what is yielded decodes to what was given, and what the worker would refuse is refused."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from model.arrays import FloatMatrix, IdVector
from model.serving.norms import Norms
from streams.errors import BadMessage
from streams.messages.items import Item, ItemRemoval, decode_item
from streams.processing.item_messages import (
    CHUNK_ROWS,
    check_items,
    item_message,
    item_messages,
    removal_messages,
)

UNIT = Norms(0.99, 1.01, unit=True)


@dataclass
class Source:
    """A model of n items with the ids 1 to n, and vectors of norm 5."""

    item_ids: IdVector
    item_vectors: FloatMatrix
    model_version: str = "m1"

    @classmethod
    def with_items(cls, n: int) -> Source:
        return cls(np.arange(1, n + 1), np.tile(np.array([3, 4], np.float32), (n, 1)))


@pytest.mark.parametrize(("normalise", "vector"), [(False, [3, 4]), (True, [0.6, 0.8])])
def test_all_items_of_a_model_are_yielded_in_order(normalise: bool, vector: list[float]) -> None:
    source = Source.with_items(CHUNK_ROWS + 10)
    items = [decode_item(key, value) for key, value in item_messages(source, normalise=normalise)]
    assert [item.item_id for item in items] == source.item_ids.tolist()
    last = items[-1]
    assert isinstance(last, Item) and last.model_version == "m1"
    np.testing.assert_allclose(last.embedding, vector)
    assert len(list(item_messages(source, 3))) == 3


def test_a_model_whose_items_the_worker_would_refuse_is_refused() -> None:
    source = Source.with_items(CHUNK_ROWS + 10)
    with pytest.raises(BadMessage, match="item 1 has norm 5"):
        check_items(source, UNIT)
    check_items(source, UNIT, normalise=True)
    source.item_vectors[-1] = 0
    with pytest.raises(BadMessage, match=f"item {CHUNK_ROWS + 10} has norm 0"):
        check_items(source, UNIT, normalise=True)


@pytest.mark.parametrize("item_id", [-(2**63), 2**63 - 1])
def test_a_model_with_an_id_that_the_index_cannot_hold_is_refused(item_id: int) -> None:
    source = Source.with_items(3)
    source.item_ids[0 if item_id < 0 else -1] = item_id
    with pytest.raises(BadMessage, match=str(item_id)):
        check_items(source, UNIT, normalise=True)


def test_one_item_is_refused_where_the_worker_would_refuse_it() -> None:
    item = Item(7, np.array([0.6, 0.8], np.float32), "m1", title="A book")
    decoded = decode_item(*item_message(item, 2, UNIT))
    assert isinstance(decoded, Item) and decoded.title == "A book"
    for vector, reason in (([1, 0, 0], "wrong_dimension"), ([0, 0], "bad_embedding"), ([3, 4], "wrong_norm")):
        with pytest.raises(BadMessage) as caught:
            item_message(Item(7, np.array(vector, np.float32), "m1"), 2, UNIT)
        assert caught.value.reason == reason


def test_removals_are_tombstones_with_valid_ids() -> None:
    assert [decode_item(*message) for message in removal_messages([3, -4])] == [ItemRemoval(3), ItemRemoval(-4)]
    with pytest.raises(BadMessage, match="padding"):
        list(removal_messages([0]))
