"""Items and their codec."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from model.arrays import FloatVector
from model.data.limits import fault_of_item_id
from streams.errors import BadMessage
from streams.messages.fields import (
    decode_fields,
    optional_text,
    preview,
    required,
    required_item_id,
    required_text,
)

#: Characters of the longest int64 as text.
_MAX_ID_CHARACTERS = 20


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
    keyed_id = decode_item_key(key)
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


def decode_item_key(key: bytes | None) -> int:
    """Return the item id that a message's key names.

    Raises:
        BadMessage: the key is not the text of an item id.
    """
    text = (key or b"").decode("ascii", "replace")
    try:
        item_id = int(text) if len(text) <= _MAX_ID_CHARACTERS else None
    except ValueError:
        item_id = None
    if item_id is None or str(item_id) != text:
        raise BadMessage("bad_key", f"the message key must be the item id as text, found {preview(key)}")
    if fault := fault_of_item_id(item_id):
        raise BadMessage("out_of_range", f"the message key is an item id, and {fault}")
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
