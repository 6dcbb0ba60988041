"""The rules for single fields, and the previews of values in error texts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from model.data.limits import MAX_ITEM_ID, MAX_SECONDS, MIN_ITEM_ID, MIN_SECONDS
from streams.errors import BadMessage
from streams.messages.clicks import decode_click
from streams.messages.fields import (
    INT64_MAX,
    MAX_USER_ID_BYTES,
    Fields,
    decode_fields,
    optional_text,
    preview,
    required,
    required_int64,
    required_item_id,
    required_numbers,
    required_seconds,
    required_text,
    required_user_id,
)
from streams.messages.items import decode_item


def _reason(read: Callable[..., Any], *arguments: Any) -> str:
    with pytest.raises(BadMessage) as caught:
        read(*arguments)
    return caught.value.reason


@pytest.mark.parametrize(
    "value", [b"", b"{", b"[1]", b"7", b"null", b"\xff\xfe", b'{"a":NaN}', b'{"a":"\xed\xa0\x80"}']
)
def test_only_json_objects_in_utf8_have_fields(value: bytes) -> None:
    assert _reason(decode_fields, value) == "not_json"


@pytest.mark.parametrize(
    "read",
    [
        required,
        required_int64,
        required_seconds,
        required_text,
        lambda fields, name: required_numbers(fields, name, {int}),
    ],
)
@pytest.mark.parametrize("fields", [{}, {"a": None}])
def test_a_required_field_must_be_present_and_not_null(read: Callable[[Fields, str], object], fields: Fields) -> None:
    with pytest.raises(BadMessage, match="a is null" if fields else "a is missing") as caught:
        read(fields, "a")
    assert caught.value.reason == "missing_field"


def test_the_fields_of_another_format_are_named() -> None:
    with pytest.raises(BadMessage, match="user_id is missing; found") as caught:
        required({"userId": 7, "itemId": 5, "timestamp": 1404172800}, "user_id")
    assert "['userId', 'itemId', 'timestamp']" in caught.value.detail


def test_the_field_in_which_json_ends_is_named() -> None:
    value = b'{"item_id": 7, "embedding": [' + b"0.5, " * 1000 + b'NaN], "title": "t"}'
    with pytest.raises(BadMessage) as caught:
        decode_fields(value)
    assert caught.value.reason == "not_json"
    assert "the field embedding: b'" in caught.value.detail and "0.5, NaN]" in caught.value.detail


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("7", "wrong_type"),
        (7.0, "wrong_type"),
        (True, "wrong_type"),
        (INT64_MAX + 1, "out_of_range"),
        (-INT64_MAX - 2, "out_of_range"),
        (1e19, "out_of_range"),  # orjson's reading of an integer beyond 64 bits
    ],
)
def test_integers_have_64_bits(value: object, reason: str) -> None:
    assert _reason(required_int64, {"a": value}, "a") == reason
    for limit in (INT64_MAX, -INT64_MAX - 1):
        assert required_int64({"a": limit}, "a") == limit


def test_ids_that_the_index_cannot_hold_are_refused() -> None:
    for item_id in (-1, 1, MIN_ITEM_ID, MAX_ITEM_ID):
        assert required_item_id({"item_id": item_id}) == item_id
    for item_id in (0, MIN_ITEM_ID - 1, MAX_ITEM_ID + 1):
        assert _reason(required_item_id, {"item_id": item_id}) == "out_of_range"
    with pytest.raises(BadMessage, match="pandas writes for a missing value"):
        required_item_id({"item_id": -(2**63)})


def test_a_user_id_is_an_integer_or_a_string_of_limited_size() -> None:
    for user_id in (0, -1, "0", "x" * MAX_USER_ID_BYTES):
        assert required_user_id({"user_id": user_id}) == user_id
    assert _reason(required_user_id, {"user_id": ""}) == "out_of_range"
    assert _reason(required_user_id, {"user_id": "é" * (MAX_USER_ID_BYTES // 2 + 1)}) == "out_of_range"
    assert _reason(required_user_id, {"user_id": 1.5}) == "wrong_type"


def test_seconds_are_a_number() -> None:
    seconds = required_seconds({"ts": 1404172800}, "ts")
    assert (seconds, type(seconds)) == (1404172800.0, float)
    for value in (True, "1404172800", "2026-11-27T18:00:00Z"):
        assert _reason(required_seconds, {"ts": value}, "ts") == "wrong_type"
    for limit in (MIN_SECONDS, math.nextafter(MAX_SECONDS, 0)):
        assert required_seconds({"ts": limit}, "ts") == limit


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (1795804209445, "is in milliseconds; times are seconds since 1970: divide by 1000"),
        (1795804209445.5, "is in milliseconds; times are seconds since 1970: divide by 1000"),
        (100000000000, "is in milliseconds"),  # March 1973
        (1795804209445123, "is in microseconds; times are seconds since 1970: divide by 1000000"),
        (1795804209445123456, "is in nanoseconds; times are seconds since 1970: divide by 1000000000"),
        (-1, "is negative"),
        (0, "a rank"),
        (17, "times are at least 100000000"),
        (MIN_SECONDS - 1, "a rank"),
        (MAX_SECONDS, "after the year 2286"),
        (1e300, "after the year 2286"),
        (float("inf"), "after the year 2286"),
        (float("nan"), "nan"),
    ],
)
def test_times_that_are_not_seconds_are_refused_with_what_they_look_like(value: float, hint: str) -> None:
    with pytest.raises(BadMessage, match=r"^out_of_range: click_ts ") as caught:
        required_seconds({"click_ts": value}, "click_ts")
    assert caught.value.reason == "out_of_range"
    assert hint in caught.value.detail


def test_texts() -> None:
    assert required_text({"a": "x"}, "a") == optional_text({"a": "x"}, "a") == "x"
    assert _reason(required_text, {"a": ""}, "a") == "wrong_type"
    assert optional_text({"a": ""}, "a") == ""
    assert optional_text({}, "a") is optional_text({"a": None}, "a") is None
    assert _reason(optional_text, {"a": 5}, "a") == "wrong_type"


def test_lists_hold_exactly_the_types_asked_for() -> None:
    assert required_numbers({"a": [1, 0.5]}, "a", {int, float}) == [1, 0.5]
    for value in ([True], [1, 0.5], ["1"], [None], 1, "1"):
        assert _reason(required_numbers, {"a": value}, "a", {int}) == "wrong_type"


@pytest.mark.parametrize("field", ["user_id", "item_id", "ts", "event_id"])
def test_deep_nesting_is_an_error_of_the_message_not_a_defect(field: str) -> None:
    """The parser accepts 1024 levels, which are too many for Python's `repr`."""
    deep = b"[" * 1000 + b"]" * 1000
    click = {"user_id": 42, "item_id": 7, "ts": 1404172800.25, "event_id": "e", field: "here"}
    with pytest.raises(BadMessage) as caught:
        decode_click(b"42", orjson.dumps(click).replace(b'"here"', deep))
    assert caught.value.reason == "wrong_type"
    assert len(caught.value.detail) < 200


@pytest.mark.parametrize(
    "value",
    [
        b"x" * 2**20,
        orjson.dumps(["x" * 2**20]),
        orjson.dumps({"item_id": {str(i): i for i in range(10**5)}}),
    ],
    ids=["bytes", "string", "object"],
)
def test_error_texts_show_only_the_beginning_of_a_large_value(value: bytes) -> None:
    with pytest.raises(BadMessage) as caught:
        decode_item(b"7", value)
    assert len(caught.value.detail) < 300
    assert len(preview(value)) <= 80
