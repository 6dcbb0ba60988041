"""The messages on the topics and their codec: JSON in UTF-8, validated here and nowhere else.

Conventions: times are seconds since 1970-01-01 UTC; item ids are int64, id 0 is reserved for padding; a user is
identified by the text of its id, so the user 42 and the user "42" are one user. Keys are the text of the user id
(`clicks`, `recommendations`) or of the item id (`items`), so that Kafka keeps one user's clicks in one partition, in
order. Decoders raise `BadMessage` and nothing else, whatever the bytes.
"""

from __future__ import annotations

import math
import reprlib
from typing import Any

import orjson

from streams.errors import BadMessage

INT64_MAX = 2**63 - 1
#: Bytes of a user id in UTF-8. It is a Kafka key and a store key for each user: long ones are a mistake.
MAX_USER_ID_BYTES = 256


def json_object(value: bytes) -> dict[str, Any]:
    try:
        fields = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise BadMessage("not_json", f"{error} in {preview(value)}") from None
    if not isinstance(fields, dict):
        raise BadMessage("not_json", f"expected a JSON object, found {preview(fields)}")
    return fields


def required(fields: dict[str, Any], name: str) -> Any:
    value = fields.get(name)
    if value is None:
        raise BadMessage("missing_field", f"{name} is missing or null")
    return value


def optional_text(fields: dict[str, Any], name: str) -> str | None:
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        raise BadMessage("wrong_type", f"{name} must be a text, found {preview(value)}")
    return value


def model_version_of(fields: dict[str, Any]) -> str:
    version = required(fields, "model_version")
    if not isinstance(version, str) or not version:
        raise BadMessage("wrong_type", f"model_version must be a non-empty text, found {preview(version)}")
    return version


def as_user_id(value: Any) -> int | str:
    if isinstance(value, str):
        if not 0 < len(value.encode()) <= MAX_USER_ID_BYTES:
            raise BadMessage("out_of_range", f"user_id must have 1 to {MAX_USER_ID_BYTES} bytes")
        return value
    return as_int64("user_id", value)


def as_item_id(value: Any) -> int:
    item_id = as_int64("item_id", value)
    if item_id == 0:
        raise BadMessage("out_of_range", "item_id 0 is reserved for padding")
    return item_id


def as_int64(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        # A JSON integer beyond 64 bits arrives here as a float.
        reason = "out_of_range" if isinstance(value, float) and abs(value) > INT64_MAX else "wrong_type"
        raise BadMessage(reason, f"{name} must be a 64-bit integer, found {preview(value)}")  # type: ignore[arg-type]
    if not -INT64_MAX - 1 <= value <= INT64_MAX:
        raise BadMessage("out_of_range", f"{name} must fit a signed 64-bit integer, found {value}")
    return value


def as_seconds(value: Any, name: str = "ts") -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):  # `int | float` would be made anew each time
        raise BadMessage("wrong_type", f"{name} must be a number of seconds since 1970, found {preview(value)}")
    if not math.isfinite(value):
        raise BadMessage("out_of_range", f"{name} must be finite")
    return float(value)


def preview(value: Any) -> str:
    """The beginning of a value. `repr` alone fails on deep nesting, and is slow on large values."""
    text = _REPR.repr(value[:80] if isinstance(value, bytes) else value)
    return text if len(text) <= 80 else text[:77] + "…"


_REPR = reprlib.Repr()
_REPR.maxlevel = 3
_REPR.maxstring = _REPR.maxother = 400
