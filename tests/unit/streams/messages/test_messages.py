"""The codec: whatever the bytes, a message or a `BadMessage`."""

from __future__ import annotations

import json

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.errors import BadMessage
from streams.messages.clicks import Click, decode_click, encode_click, user_key
from streams.messages.items import Item, ItemRemoval, decode_item, encode_item
from streams.messages.recommendations import Recommendation, decode_recommendation, encode_recommendation

int64 = st.integers(-(2**63), 2**63 - 1)
item_ids = int64.filter(lambda i: i != 0)
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
finite = st.floats(allow_nan=False, allow_infinity=False)
clicks = st.builds(Click, st.one_of(int64, texts), item_ids, finite, st.one_of(st.none(), texts))


@given(clicks)
def test_click_round_trip(click: Click) -> None:
    assert decode_click(user_key(click.user_id), encode_click(click)) == click


@given(item_ids, st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=8), texts)
def test_item_round_trip(item_id: int, vector: list[float], version: str) -> None:
    if not any(vector):
        vector[0] = 1.0
    item = Item(item_id, np.array(vector, dtype=np.float32), version, title="a title")
    decoded = decode_item(str(item_id).encode(), encode_item(item))
    assert isinstance(decoded, Item)
    assert (decoded.item_id, decoded.model_version, decoded.title) == (item_id, version, "a title")
    np.testing.assert_array_equal(decoded.embedding, item.embedding)


def test_recommendation_round_trip() -> None:
    r = Recommendation("u", [3, 4], [0.5, 0.25], [0, 3], "m1", 20, 3, 991, 1.5, 1.75)
    assert decode_recommendation(encode_recommendation(r)) == r
    assert json.loads(encode_recommendation(r))["source"] == {"partition": 3, "offset": 991}


def test_unknown_properties_of_a_recommendation_are_ignored() -> None:
    r = Recommendation("u", [3], [0.5], [0], "m1", 20, 3, 991, 1.5, 1.75)
    fields = json.loads(encode_recommendation(r))
    assert decode_recommendation(json.dumps(fields | {"added": "later"}).encode()) == r


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"source": None}, "missing_field"),
        ({"source": 991}, "wrong_type"),
        ({"source": {"partition": 3}}, "missing_field"),
        ({"source": {"partition": 3, "offset": "991"}}, "wrong_type"),
        ({"item_ids": 3}, "wrong_type"),
        ({"item_ids": [True]}, "wrong_type"),
        ({"item_ids": [3, 4]}, "wrong_type"),
        ({"scores": ["0.5"]}, "wrong_type"),
        ({"interests": [0.0]}, "wrong_type"),
        ({"model_version": ""}, "wrong_type"),
        ({"history_length": None}, "missing_field"),
        ({"click_ts": "now"}, "wrong_type"),
        ({"user_id": ""}, "out_of_range"),
    ],
)
def test_bad_recommendations_have_a_reason(changes: dict[str, object], reason: str) -> None:
    r = Recommendation("u", [3], [0.5], [0], "m1", 20, 3, 991, 1.5, 1.75)
    with pytest.raises(BadMessage) as caught:
        decode_recommendation(json.dumps(json.loads(encode_recommendation(r)) | changes).encode())
    assert caught.value.reason == reason


def test_no_value_on_items_removes_the_item() -> None:
    assert decode_item(b"17", None) == ItemRemoval(17)


@given(st.one_of(st.none(), st.binary(max_size=30)), st.one_of(st.none(), st.binary(max_size=80)))
def test_any_bytes_give_a_message_or_a_bad_message(key: bytes | None, value: bytes | None) -> None:
    for decode in (decode_click, decode_item):
        try:
            decode(key, value)
        except BadMessage as error:
            assert error.detail


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(["user_id", "item_id", "ts", "event_id", "embedding"]), json_values))
def test_any_json_gives_a_message_or_a_bad_message(fields: dict[str, object]) -> None:
    value = json.dumps(fields).encode()
    for key in (b"42", None):
        for decode in (decode_click, decode_item):
            try:
                decode(key, value)
            except BadMessage as error:
                assert error.detail


GOOD = {"user_id": 42, "item_id": 7, "ts": 1.5}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"user_id": None}, "missing_field"),
        ({"item_id": None}, "missing_field"),
        ({"ts": None}, "missing_field"),
        ({"item_id": "7"}, "wrong_type"),
        ({"item_id": 7.0}, "wrong_type"),
        ({"item_id": True}, "wrong_type"),
        ({"user_id": [42]}, "wrong_type"),
        ({"ts": "now"}, "wrong_type"),
        ({"event_id": 5}, "wrong_type"),
        ({"item_id": 0}, "out_of_range"),
        ({"item_id": 2**63}, "out_of_range"),
        ({"item_id": 2**80}, "out_of_range"),
        ({"user_id": ""}, "out_of_range"),
        ({"user_id": "x" * 257}, "out_of_range"),
        ({"user_id": 43}, "bad_key"),
    ],
)
def test_bad_clicks_have_a_reason(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(BadMessage) as caught:
        decode_click(b"42", json.dumps(GOOD | changes).encode())
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        (b"42", None, "null_value"),
        (b"42", b"", "not_json"),
        (b"42", b"{", "not_json"),
        (b"42", b"[1]", "not_json"),
        (b"42", b"\xff\xfe", "not_json"),
        (b"42", b'{"user_id":42,"item_id":7,"ts":NaN}', "not_json"),
        (b"42", orjson.dumps(GOOD | {"x": "y" * 70_000}), "too_large"),
        (None, orjson.dumps(GOOD), "bad_key"),
        (b'"42"', orjson.dumps(GOOD), "bad_key"),
    ],
)
def test_unreadable_clicks_have_a_reason(key: bytes | None, value: bytes | None, reason: str) -> None:
    with pytest.raises(BadMessage) as caught:
        decode_click(key, value)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("key", "fields", "reason"),
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
        (b"0", {"item_id": 0}, "bad_key"),
    ],
)
def test_bad_items_have_a_reason(key: bytes | None, fields: dict[str, object], reason: str) -> None:
    good = {"item_id": 7, "embedding": [0.5, 1.0], "model_version": "m1"}
    with pytest.raises(BadMessage) as caught:
        decode_item(key, json.dumps(good | fields).encode())
    assert caught.value.reason == reason


@pytest.mark.parametrize("field", ["user_id", "item_id", "ts", "event_id"])
def test_deep_nesting_is_a_fault_of_the_message_not_of_the_decoder(field: str) -> None:
    """The parser takes 1024 levels; to show them, Python's `repr` does not."""
    deep = b"[" * 1000 + b"]" * 1000
    value = orjson.dumps(GOOD | {"event_id": "e", field: "here"}).replace(b'"here"', deep)
    with pytest.raises(BadMessage) as caught:
        decode_click(b"42", value)
    assert caught.value.reason == "wrong_type"
    assert len(caught.value.detail) < 200


def test_a_large_value_is_not_shown_in_full() -> None:
    for value in (
        b"x" * 2**20,
        orjson.dumps(["x" * 2**20]),
        orjson.dumps({"item_id": {str(i): i for i in range(10**5)}}),
    ):
        with pytest.raises(BadMessage) as caught:
            decode_item(b"7", value)
        assert len(caught.value.detail) < 300


def test_one_user_has_one_key_whatever_the_type() -> None:
    assert user_key(42) == user_key("42") == b"42"
