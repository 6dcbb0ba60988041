"""The codec of clicks."""

from __future__ import annotations

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.errors import BadMessage
from streams.messages.clicks import MAX_CLICK_BYTES, Click, decode_click, encode_click, user_key
from tests.unit.streams.messages.support import item_ids, names, seconds, user_ids

GOOD = {"user_id": 42, "item_id": 7, "ts": 1404172800.25}

clicks = st.builds(Click, user_ids, item_ids, seconds, st.one_of(st.none(), names))


@given(clicks)
def test_round_trip(click: Click) -> None:
    assert decode_click(user_key(click.user_id), encode_click(click)) == click


def test_the_key_of_a_user_does_not_depend_on_the_type_of_the_id() -> None:
    assert user_key(42) == user_key("42") == b"42"


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
        ({"item_id": 2**63 - 1}, "out_of_range"),
        ({"item_id": -(2**63)}, "out_of_range"),
        ({"ts": 1795804209445}, "out_of_range"),
        ({"ts": -1}, "out_of_range"),
        ({"item_id": 2**80}, "out_of_range"),
        ({"user_id": ""}, "out_of_range"),
        ({"user_id": "x" * 257}, "out_of_range"),
        ({"user_id": 43}, "bad_key"),
    ],
)
def test_a_wrong_field_is_refused_with_its_reason(changes: dict[str, object], reason: str) -> None:
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
        (b"42", orjson.dumps(GOOD | {"x": "y" * MAX_CLICK_BYTES}), "too_large"),
        (None, orjson.dumps(GOOD), "bad_key"),
        (b'"42"', orjson.dumps(GOOD), "bad_key"),
    ],
)
def test_a_wrong_key_or_value_is_refused_with_its_reason(key: bytes | None, value: bytes | None, reason: str) -> None:
    with pytest.raises(BadMessage) as caught:
        decode_click(key, value)
    assert caught.value.reason == reason
