"""Checks of item messages that need the model and the topic: version, dimension, norm, partition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.serving.norms import Norms
from streams.errors import BadMessage, Reason
from streams.messages.items import Item, ItemRemoval, encode_item
from streams.partitioning import KeyPartitions, murmur2
from streams.ports import Message
from streams.processing.item_decoder import ItemDecoder

UNIT = Norms(0.99, 1.01, unit=True)
PARTITIONS = 4
DECODER = ItemDecoder("m1", 2, UNIT, KeyPartitions("murmur2", PARTITIONS))


def _message(item_id: int, vector: list[float] | None, version: str = "m1", shift: int = 0) -> Message:
    key = str(item_id).encode()
    value = None if vector is None else encode_item(Item(item_id, np.array(vector, np.float32), version))
    return Message("items", (murmur2(key) + shift) % PARTITIONS, 0, key, value)


def _reason(message: Message) -> tuple[Reason, str]:
    with pytest.raises(BadMessage) as caught:
        DECODER.decode(message)
    return caught.value.reason, caught.value.detail


def test_items_and_removals_are_decoded() -> None:
    item = DECODER.decode(_message(1, [0.6, 0.8]))
    assert isinstance(item, Item) and item.item_id == 1
    assert DECODER.decode(_message(1, None)) == ItemRemoval(1)


def test_items_of_another_version_are_nobodys_fault() -> None:
    assert DECODER.decode(_message(1, [3, 4, 5], "m2")) is None


def test_another_dimension_is_refused() -> None:
    reason, detail = _reason(_message(1, [1, 0, 0]))
    assert (reason, "3 numbers" in detail) == ("wrong_dimension", True)


@pytest.mark.parametrize("vector", [[60, 80], [1e38, 1e38], [0.0006, 0.0008], [0.6, 0.83]])
def test_another_norm_is_refused_with_the_norm_and_the_remedy(vector: list[float]) -> None:
    reason, detail = _reason(_message(50011, vector))
    assert reason == "wrong_norm"
    for part in ("item 50011", f"norm {np.linalg.norm(vector):.4g}"[:10], "divide"):
        assert part in detail


@given(st.integers(1, 10**6))
def test_an_item_or_a_removal_in_another_partition_is_refused(item_id: int) -> None:
    for message in (_message(item_id, [1, 0], shift=1), _message(item_id, None, shift=1)):
        assert _reason(message)[0] == "wrong_partition"
