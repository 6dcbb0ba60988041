"""The fields that messages share, and the rules for all of them.

Messages are JSON objects in UTF-8, validated by this package and nowhere else. Times are seconds since 1970-01-01 UTC.
`model.data.limits` says which times and item ids are valid; item id 0 is reserved for padding. A user is identified by
the text of its id: the user 42 and the user "42" are one user. The key of a message is the text of the user id
(`clicks`, `recommendations`) or of the item id (`items`), so that Kafka keeps all clicks of a user in one partition, in
order.

Decoders raise `BadMessage` and nothing else, whatever the bytes.
"""

from __future__ import annotations

import re
import reprlib
from typing import Any

import orjson

from model.data.limits import fault_of_item_id, fault_of_seconds
from streams.errors import BadMessage

INT64_MAX = 2**63 - 1
#: A user id is the key of each of the user's messages, and of the history in the store: a long one is a mistake.
MAX_USER_ID_BYTES = 256

Fields = dict[str, Any]


def decode_fields(value: bytes) -> Fields:
    """Parse a message's value; each field is then read by one of the functions below."""
    try:
        fields = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise BadMessage("not_json", f"{error} in {_place(value, error.pos)}") from None
    if not isinstance(fields, dict):
        raise BadMessage("not_json", f"expected a JSON object, found {preview(fields)}")
    return fields


def required(fields: Fields, name: str) -> Any:
    value = fields.get(name)
    if value is None:
        found = "null" if name in fields else f"missing; found {preview(list(fields))}"
        raise BadMessage("missing_field", f"{name} is {found}")
    return value


def required_int64(fields: Fields, name: str) -> int:
    return _int64(name, required(fields, name))


def required_user_id(fields: Fields) -> int | str:
    value = required(fields, "user_id")
    if not isinstance(value, str):
        return _int64("user_id", value)
    if not 0 < len(value.encode()) <= MAX_USER_ID_BYTES:
        raise BadMessage("out_of_range", f"user_id must have 1 to {MAX_USER_ID_BYTES} bytes")
    return value


def required_item_id(fields: Fields) -> int:
    item_id = required_int64(fields, "item_id")
    if fault := fault_of_item_id(item_id):
        raise BadMessage("out_of_range", f"item_id {fault}")
    return item_id


def required_seconds(fields: Fields, name: str) -> float:
    """Return a time in seconds since 1970; ranks, and times in another unit, are refused."""
    value = required(fields, name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):  # `int | float` would be built for every click
        raise BadMessage("wrong_type", f"{name} must be a number of seconds since 1970, found {preview(value)}")
    if fault := fault_of_seconds(value):
        raise BadMessage("out_of_range", f"{name} {fault}")
    return float(value)


def required_text(fields: Fields, name: str) -> str:
    value = required(fields, name)
    if not isinstance(value, str) or not value:
        raise BadMessage("wrong_type", f"{name} must be a non-empty string, found {preview(value)}")
    return value


def optional_text(fields: Fields, name: str) -> str | None:
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        raise BadMessage("wrong_type", f"{name} must be a string, found {preview(value)}")
    return value


def required_numbers(fields: Fields, name: str, types: set[type]) -> list[Any]:
    """Return a list whose elements have exactly these types: `bool` is not `int` here."""
    value = required(fields, name)
    if not isinstance(value, list) or not types.issuperset(map(type, value)):
        raise BadMessage("wrong_type", f"{name} must be a list of numbers, found {preview(value)}")
    return value


def _place(value: bytes, position: int) -> str:
    """Return the field in which the parser stopped, and the beginning of the value, or what precedes the position."""
    before = value[:position]
    named = _FIELD.findall(before[-_MAX_CONTEXT_BYTES:])
    field = f"the field {named[-1].decode()}: " if named else ""
    return field + preview(value[max(0, position - 20) :] if position > 60 else value)


def preview(value: Any) -> str:
    """Return the beginning of the value's `repr`, which itself fails on deep nesting and is slow on large values."""
    text = _REPR.repr(value[:80] if isinstance(value, bytes) else value)
    return text if len(text) <= 80 else text[:77] + "…"


def _int64(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        # orjson returns integers beyond 64 bits as floats.
        reason = "out_of_range" if isinstance(value, float) and abs(value) > INT64_MAX else "wrong_type"
        raise BadMessage(reason, f"{name} must be a 64-bit integer, found {preview(value)}")  # type: ignore[arg-type]
    if not -INT64_MAX - 1 <= value <= INT64_MAX:
        raise BadMessage("out_of_range", f"{name} must fit a signed 64-bit integer, found {value}")
    return value


#: The name of a field, before its value, and the bytes that are searched for it: more than a vector has.
_FIELD, _MAX_CONTEXT_BYTES = re.compile(rb'"(\w{1,40})"\s*:', re.ASCII), 100_000
_REPR = reprlib.Repr()
_REPR.maxlevel = 3
_REPR.maxstring = _REPR.maxother = 400
