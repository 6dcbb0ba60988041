"""Items and their codec."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from model.arrays import FloatVector
from streams.errors import BadMessage
from streams.messages.fields import (
    INT64_MAX,
    decode_fields,
    optional_text,
    preview,
    required,
    required_item_id,
    required_text,
)


@dataclass(frozen=True, slots=True)
class Item:
    """A new or changed item; `embedding` has shape (D,), dtype float32, and is finite and not all zero."""

    item_id: int
    embedding: FloatVector
    model_version: str
    category: str | None = None
    title: str | None = None


@dataclass(frozen=True, slots=True)
class ItemRemoval:
    item_id: int


def decode_item(key: bytes | None, value: bytes | None) -> Item | ItemRemoval:
    """Decode a message of the `items` topic; a null value removes the item that the key names.

    Raises:
        BadMessage: the message is not an item, or its key is not its item id.
    """
    keyed_id = _decode_key(key)
    if value is None:
        return ItemRemoval(keyed_id)
    fields = decode_fields(value)
    item_id = required_item_id(fields)
    if item_id != keyed_id:
        raise BadMessage(
            "bad_key", f"the message key is {preview(key)}, the value's item_id is {item_id}; they must be equal"
        )
    embedding = _vector(required(fields, "embedding"))
    version = required_text(fields, "model_version")
    return Item(item_id, embedding, version, optional_text(fields, "category"), optional_text(fields, "title"))


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


def _decode_key(key: bytes | None) -> int:
    try:
        item_id = int((key or b"").decode("ascii"))
    except (UnicodeDecodeError, ValueError):
        raise BadMessage("bad_key", f"the message key must be the item id as text, found {preview(key)}") from None
    if str(item_id).encode() != key or item_id == 0 or not -INT64_MAX - 1 <= item_id <= INT64_MAX:
        raise BadMessage("bad_key", f"the message key must be a non-zero 64-bit item id as text, found {preview(key)}")
    return item_id


def _vector(value: Any) -> FloatVector:
    if not isinstance(value, list) or not value:
        raise BadMessage("bad_embedding", f"embedding must be a non-empty list of numbers, found {preview(value)}")
    if not {int, float}.issuperset(map(type, value)):
        raise BadMessage("bad_embedding", "embedding must contain numbers only")
    with np.errstate(over="ignore"):
        vector = np.asarray(value, dtype=np.float64).astype(np.float32)
    if not np.isfinite(vector).all():
        raise BadMessage("bad_embedding", "embedding must contain finite float32 numbers")
    if not vector.any():
        raise BadMessage("bad_embedding", "embedding must not be all zero: it has no direction")
    return vector
