"""The codec of items."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.errors import BadMessage
from streams.messages.items import Item, ItemRemoval, decode_item, encode_item
from tests.unit.streams.messages.support import item_ids, names

GOOD = {"item_id": 7, "embedding": [0.5, 1.0], "model_version": "m1"}


@given(item_ids, st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=8).filter(any), names)
def test_round_trip(item_id: int, vector: list[float], version: str) -> None:
    item = Item(item_id, np.array(vector, dtype=np.float32), version, title="a title")
    decoded = decode_item(str(item_id).encode(), encode_item(item))
    assert isinstance(decoded, Item)
    assert (decoded.item_id, decoded.model_version, decoded.title) == (item_id, version, "a title")
    np.testing.assert_array_equal(decoded.embedding, item.embedding)


def test_a_null_value_removes_the_item() -> None:
    assert decode_item(b"17", None) == ItemRemoval(17)


@pytest.mark.parametrize("item_id", [0, -(2**63), 2**63 - 1, 2**63, 10**4000])
def test_a_removal_of_an_id_that_the_index_cannot_hold_is_refused(item_id: int) -> None:
    with pytest.raises(BadMessage) as caught:
        decode_item(str(item_id).encode(), None)
    assert caught.value.reason == ("bad_key" if item_id > 2**64 else "out_of_range")
    assert len(caught.value.detail) < 300


@pytest.mark.parametrize(
    ("key", "changes", "reason"),
    [
        (b"7", {"embedding": None}, "missing_field"),
        (b"7", {"embedding": []}, "bad_embedding"),
        (b"7", {"embedding": "1,2"}, "bad_embedding"),
        (b"7", {"embedding": [1, "2"]}, "bad_embedding"),
        (b"7", {"embedding": [True, 1.0]}, "bad_embedding"),
        (b"7", {"embedding": [1e39, 1.0]}, "bad_embedding"),
        (b"7", {"embedding": [0, 0.0]}, "bad_embedding"),
        (b"7", {"embedding": [[1.0], [2.0]]}, "bad_embedding"),
        (b"7", {"model_version": None}, "missing_field"),
        (b"7", {"model_version": 3}, "wrong_type"),
        (b"8", {}, "bad_key"),
        (b"x", {}, "bad_key"),
        (None, {}, "bad_key"),
        (b"007", {}, "bad_key"),
        (b"0", {"item_id": 0}, "out_of_range"),
        (b"%d" % -(2**63), {"item_id": -(2**63)}, "out_of_range"),
        (b"%d" % (2**63 - 1), {"item_id": 2**63 - 1}, "out_of_range"),
        (b"7", {"item_id": -(2**63)}, "out_of_range"),
    ],
)
def test_a_wrong_key_or_field_is_refused_with_its_reason(
    key: bytes | None, changes: dict[str, object], reason: str
) -> None:
    with pytest.raises(BadMessage) as caught:
        decode_item(key, json.dumps(GOOD | changes).encode())
    assert caught.value.reason == reason
