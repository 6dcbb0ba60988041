"""The messages on the topics and their codec: JSON in UTF-8, validated here and nowhere else.

Conventions: times are seconds since 1970-01-01 UTC; item ids are int64, id 0 is reserved for padding; a user is
identified by the text of its id, so the user 42 and the user "42" are one user. Keys are the text of the user id
(`clicks`, `recommendations`) or of the item id (`items`), so that Kafka keeps one user's clicks in one partition, in
order. Decoders raise `BadMessage` and nothing else, whatever the bytes.
"""

from __future__ import annotations

import math
import reprlib
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from streams.errors import BadMessage

INT64_MAX = 2**63 - 1
#: Bytes of a user id in UTF-8. It is a Kafka key and a store key for each user: long ones are a mistake.
MAX_USER_ID_BYTES = 256
#: Bytes of one click. A click has about 80; far larger ones are not clicks, and parsing them would hold the others up.
MAX_CLICK_BYTES = 65_536
#: How librdkafka hashes keys, in every producer: else one user's clicks land in two partitions. As Kafka's Java clients
#: do; librdkafka's own default differs.
PARTITIONER = "murmur2_random"

FloatVector = npt.NDArray[np.float32]


class Click(NamedTuple):  # as what else is made for each click: a frozen dataclass takes twice as long
    user_id: int | str
    item_id: int
    ts: float
    event_id: str | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """A new or changed item; `embedding` has shape (D,), dtype float32."""

    item_id: int
    embedding: FloatVector
    model_version: str
    category: str | None = None
    title: str | None = None


@dataclass(frozen=True, slots=True)
class ItemRemoval:
    item_id: int


class Recommendation(NamedTuple):
    """Candidates for one user, best first; `interests[i]` is the interest vector that recalled `item_ids[i]`.

    `source_partition` and `source_offset` name the newest click that it answers: consumers drop repeats by them.
    """

    user_id: int | str
    item_ids: list[int] | npt.NDArray[np.int64]
    scores: list[float] | npt.NDArray[np.float32]
    interests: list[int] | npt.NDArray[np.int64]
    model_version: str
    history_length: int
    source_partition: int
    source_offset: int
    click_ts: float
    ts: float


def user_key(user_id: int | str) -> bytes:
    """Kafka key and identity of a user."""
    return str(user_id).encode()


def decode_click(key: bytes | None, value: bytes | None) -> Click:
    """The click in a message of the `clicks` topic.

    Raises:
        BadMessage: whatever is wrong with the message.
    """
    if value is None:
        raise BadMessage("null_value", "a click has a JSON value; null values have no meaning on this topic")
    if len(value) > MAX_CLICK_BYTES:
        raise BadMessage("too_large", f"{len(value)} bytes; a click has at most {MAX_CLICK_BYTES}")
    fields = _json_object(value)
    user_id = _user_id(_required(fields, "user_id"))
    item_id = _item_id(_required(fields, "item_id"))
    ts = _seconds(_required(fields, "ts"))
    event_id = _optional_text(fields, "event_id")
    if key != user_key(user_id):
        raise BadMessage(
            "bad_key",
            f"the message key must be the user id as text, {str(user_id)!r}, so that a user's clicks stay in one "
            f"partition and in order; found {_show(key)}",
        )
    return Click(user_id, item_id, ts, event_id)


def decode_item(key: bytes | None, value: bytes | None) -> Item | ItemRemoval:
    """The item in a message of the `items` topic; no value means that the item is removed.

    Raises:
        BadMessage: whatever is wrong with the message.
    """
    keyed_id = _item_key(key)
    if value is None:
        return ItemRemoval(keyed_id)
    fields = _json_object(value)
    item_id = _item_id(_required(fields, "item_id"))
    if item_id != keyed_id:
        raise BadMessage("bad_key", f"the message key is {_show(key)}, the value's item_id {item_id}; they must agree")
    embedding = _embedding(_required(fields, "embedding"))
    version = _version(fields)
    return Item(item_id, embedding, version, _optional_text(fields, "category"), _optional_text(fields, "title"))


def decode_recommendation(value: bytes) -> Recommendation:
    """The inverse of `encode_recommendation`; properties that it does not know are ignored.

    Raises:
        BadMessage: the value is no recommendation.
    """
    fields = _json_object(value)
    source = _required(fields, "source")
    if not isinstance(source, dict):
        raise BadMessage("wrong_type", f"source must be an object, found {_show(source)}")
    item_ids = _list(fields, "item_ids", {int})
    scores = _list(fields, "scores", {int, float})
    interests = _list(fields, "interests", {int})
    if not len(item_ids) == len(scores) == len(interests):
        raise BadMessage("wrong_type", "item_ids, scores and interests must have the same length")
    return Recommendation(
        user_id=_user_id(_required(fields, "user_id")),
        item_ids=item_ids,
        scores=scores,
        interests=interests,
        model_version=_version(fields),
        history_length=_int64("history_length", _required(fields, "history_length")),
        source_partition=_int64("source.partition", _required(source, "partition")),
        source_offset=_int64("source.offset", _required(source, "offset")),
        click_ts=_seconds(_required(fields, "click_ts"), "click_ts"),
        ts=_seconds(_required(fields, "ts")),
    )


def encode_click(click: Click) -> bytes:
    fields: dict[str, Any] = {"user_id": click.user_id, "item_id": click.item_id, "ts": click.ts}
    if click.event_id is not None:
        fields["event_id"] = click.event_id
    return orjson.dumps(fields)


def encode_item(item: Item) -> bytes:
    fields: dict[str, Any] = {
        "item_id": item.item_id,
        "embedding": np.ascontiguousarray(item.embedding, dtype=np.float32),
        "model_version": item.model_version,
    }
    if item.category is not None:
        fields["category"] = item.category
    if item.title is not None:
        fields["title"] = item.title
    return orjson.dumps(fields, option=orjson.OPT_SERIALIZE_NUMPY)


def encode_recommendation(recommendation: Recommendation) -> bytes:
    r = recommendation
    return orjson.dumps(
        {
            "user_id": r.user_id,
            "item_ids": r.item_ids,
            "scores": r.scores,
            "interests": r.interests,
            "model_version": r.model_version,
            "history_length": r.history_length,
            "source": {"partition": r.source_partition, "offset": r.source_offset},
            "click_ts": r.click_ts,
            "ts": r.ts,
        },
        option=orjson.OPT_SERIALIZE_NUMPY,
    )


def _json_object(value: bytes) -> dict[str, Any]:
    try:
        fields = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise BadMessage("not_json", f"{error} in {_show(value)}") from None
    if not isinstance(fields, dict):
        raise BadMessage("not_json", f"expected a JSON object, found {_show(fields)}")
    return fields


def _required(fields: dict[str, Any], name: str) -> Any:
    value = fields.get(name)
    if value is None:
        raise BadMessage("missing_field", f"{name} is missing or null")
    return value


def _optional_text(fields: dict[str, Any], name: str) -> str | None:
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        raise BadMessage("wrong_type", f"{name} must be a text, found {_show(value)}")
    return value


def _version(fields: dict[str, Any]) -> str:
    version = _required(fields, "model_version")
    if not isinstance(version, str) or not version:
        raise BadMessage("wrong_type", f"model_version must be a non-empty text, found {_show(version)}")
    return version


def _list(fields: dict[str, Any], name: str, types: set[type]) -> list[Any]:
    found = _required(fields, name)
    if not isinstance(found, list) or not types.issuperset(map(type, found)):
        raise BadMessage("wrong_type", f"{name} must be a list of numbers, found {_show(found)}")
    return found


def _user_id(value: Any) -> int | str:
    if isinstance(value, str):
        if not 0 < len(value.encode()) <= MAX_USER_ID_BYTES:
            raise BadMessage("out_of_range", f"user_id must have 1 to {MAX_USER_ID_BYTES} bytes")
        return value
    return _int64("user_id", value)


def _item_id(value: Any) -> int:
    item_id = _int64("item_id", value)
    if item_id == 0:
        raise BadMessage("out_of_range", "item_id 0 is reserved for padding")
    return item_id


def _int64(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        # A JSON integer beyond 64 bits arrives here as a float.
        reason = "out_of_range" if isinstance(value, float) and abs(value) > INT64_MAX else "wrong_type"
        raise BadMessage(reason, f"{name} must be a 64-bit integer, found {_show(value)}")  # type: ignore[arg-type]
    if not -INT64_MAX - 1 <= value <= INT64_MAX:
        raise BadMessage("out_of_range", f"{name} must fit a signed 64-bit integer, found {value}")
    return value


def _seconds(value: Any, name: str = "ts") -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):  # `int | float` would be made anew each time
        raise BadMessage("wrong_type", f"{name} must be a number of seconds since 1970, found {_show(value)}")
    if not math.isfinite(value):
        raise BadMessage("out_of_range", f"{name} must be finite")
    return float(value)


def _item_key(key: bytes | None) -> int:
    try:
        item_id = int((key or b"").decode("ascii"))
    except (UnicodeDecodeError, ValueError):
        raise BadMessage("bad_key", f"the message key must be the item id as text, found {_show(key)}") from None
    if str(item_id).encode() != key or item_id == 0 or not -INT64_MAX - 1 <= item_id <= INT64_MAX:
        raise BadMessage("bad_key", f"the message key must be a non-zero 64-bit item id as text, found {_show(key)}")
    return item_id


def _embedding(value: Any) -> FloatVector:
    if not isinstance(value, list) or not value:
        raise BadMessage("bad_embedding", f"embedding must be a non-empty list of numbers, found {_show(value)}")
    if not {int, float}.issuperset(map(type, value)):
        raise BadMessage("bad_embedding", "embedding must hold numbers only")
    with np.errstate(over="ignore"):
        vector = np.asarray(value, dtype=np.float64).astype(np.float32)
    if not np.isfinite(vector).all():
        raise BadMessage("bad_embedding", "embedding must hold finite float32 numbers")
    if not vector.any():
        raise BadMessage("bad_embedding", "embedding is all zero: it points nowhere")
    return vector


def _show(value: Any) -> str:
    """The beginning of a value. `repr` alone fails on deep nesting, and is slow on large values."""
    text = _REPR.repr(value[:80] if isinstance(value, bytes) else value)
    return text if len(text) <= 80 else text[:77] + "…"


_REPR = reprlib.Repr()
_REPR.maxlevel = 3
_REPR.maxstring = _REPR.maxother = 400
