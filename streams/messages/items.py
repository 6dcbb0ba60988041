"""Items and their codec."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from streams.errors import BadMessage
from streams.messages.fields import (
    INT64_MAX,
    as_item_id,
    json_object,
    model_version_of,
    optional_text,
    preview,
    required,
)

FloatVector = npt.NDArray[np.float32]


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


def decode_item(key: bytes | None, value: bytes | None) -> Item | ItemRemoval:
    """The item in a message of the `items` topic; no value means that the item is removed.

    Raises:
        BadMessage: whatever is wrong with the message.
    """
    keyed_id = _item_key(key)
    if value is None:
        return ItemRemoval(keyed_id)
    fields = json_object(value)
    item_id = as_item_id(required(fields, "item_id"))
    if item_id != keyed_id:
        raise BadMessage(
            "bad_key", f"the message key is {preview(key)}, the value's item_id is {item_id}; they must agree"
        )
    embedding = _embedding(required(fields, "embedding"))
    version = model_version_of(fields)
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


def _item_key(key: bytes | None) -> int:
    try:
        item_id = int((key or b"").decode("ascii"))
    except (UnicodeDecodeError, ValueError):
        raise BadMessage("bad_key", f"the message key must be the item id as text, found {preview(key)}") from None
    if str(item_id).encode() != key or item_id == 0 or not -INT64_MAX - 1 <= item_id <= INT64_MAX:
        raise BadMessage("bad_key", f"the message key must be a non-zero 64-bit item id as text, found {preview(key)}")
    return item_id


def _embedding(value: Any) -> FloatVector:
    if not isinstance(value, list) or not value:
        raise BadMessage("bad_embedding", f"embedding must be a non-empty list of numbers, found {preview(value)}")
    if not {int, float}.issuperset(map(type, value)):
        raise BadMessage("bad_embedding", "embedding must hold numbers only")
    with np.errstate(over="ignore"):
        vector = np.asarray(value, dtype=np.float64).astype(np.float32)
    if not np.isfinite(vector).all():
        raise BadMessage("bad_embedding", "embedding must hold finite float32 numbers")
    if not vector.any():
        raise BadMessage("bad_embedding", "embedding is all zero: it points nowhere")
    return vector
