"""Messages of the topic `items`: of all items of a model, of one item, and those that remove items.

All of them are checked as the item worker checks them, so that none becomes a dead letter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np

from model.arrays import FloatMatrix, IdVector
from model.serving.norms import Norms, normalised
from streams.messages.items import Item, decode_item, encode_item
from streams.processing.item_decoder import check_vector

#: Rows read from the memory map at a time.
CHUNK_ROWS = 4096

#: Key and value of a message; None as value is a tombstone.
KeyValue = tuple[bytes, bytes | None]


class ItemSource(Protocol):
    """The part of an artifact that is published."""

    @property
    def model_version(self) -> str: ...
    @property
    def item_ids(self) -> IdVector: ...
    @property
    def item_vectors(self) -> FloatMatrix: ...


def item_messages(source: ItemSource, limit: int | None = None, *, normalise: bool = False) -> Iterator[KeyValue]:
    """Yield a message for each item, or for the first `limit` ones, in the order of the artifact."""
    for ids, vectors in _chunks(source, limit, normalise):
        for item_id, vector in zip(ids.tolist(), vectors, strict=True):
            yield item_key(item_id), encode_item(Item(item_id, vector, source.model_version))


def check_items(source: ItemSource, norms: Norms, limit: int | None = None, *, normalise: bool = False) -> None:
    """Check the items that `item_messages` yields; a few hundredths of a second for 100,000 items.

    Raises:
        BadMessage: the worker would refuse one of them for its id or the norm of its vector.
    """
    for ids, vectors in _chunks(source, limit, normalise):
        for item_id in (ids.min(), ids.max()):  # 0 is in no artifact
            decode_item(item_key(int(item_id)), None)
        for row in np.flatnonzero(~norms.accept(vectors))[:1].tolist():
            check_vector(Item(int(ids[row]), vectors[row], source.model_version), vectors.shape[1], norms)


def _chunks(source: ItemSource, limit: int | None, normalise: bool) -> Iterator[tuple[IdVector, FloatMatrix]]:
    count = len(source.item_ids) if limit is None else min(limit, len(source.item_ids))
    for begin in range(0, count, CHUNK_ROWS):
        end = min(begin + CHUNK_ROWS, count)
        vectors = np.asarray(source.item_vectors[begin:end], dtype=np.float32)
        yield source.item_ids[begin:end], normalised(vectors) if normalise else vectors


def removal_messages(item_ids: Iterable[int]) -> Iterator[KeyValue]:
    """Yield a tombstone for each item.

    Raises:
        BadMessage: the worker would refuse the id.
    """
    for item_id in item_ids:
        decode_item(item_key(item_id), None)
        yield item_key(item_id), None


def item_message(item: Item, dim: int, norms: Norms) -> KeyValue:
    """Return the message of one item.

    Raises:
        BadMessage: the worker would refuse it: not `dim` finite numbers, a wrong norm, or a bad id.
    """
    key, value = item_key(item.item_id), encode_item(item)
    decode_item(key, value)
    check_vector(item, dim, norms)
    return key, value


def item_key(item_id: int) -> bytes:
    """Return the Kafka key of an item."""
    return str(item_id).encode()
