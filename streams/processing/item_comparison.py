"""Find the rows of the item index that differ from the topic, by item ids and offsets.

A row names the message that it comes from. For one partition, the newest message of each item is compared with the row
of that item, and only what was processed before the comparison began counts: what came since is the agent's work.
The result is a suspicion, because topic and rows are read one after the other; it is checked again before a row is
changed (`streams.processing.item_repair`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from model.arrays import IdVector, IntVector
from streams.errors import BadMessage
from streams.messages.items import Item, decode_item
from streams.ports import Message

#: Messages after which those that are superseded are dropped.
_CHUNK = 100_000


class Content(IntEnum):
    """Kinds of messages, by what they say about the item of this model version."""

    REMOVAL = 0
    VECTOR = 1
    #: It cannot be read: the row stays as it is.
    UNREADABLE = 2
    #: It belongs to another model version: the row stays as it is.
    OTHER_VERSION = 3


class ContentReader:
    """Tells what messages of the topic `items` say about the items of one model version.

    Args:
        model_version: the version.
    """

    def __init__(self, model_version: str) -> None:
        self._model_version = model_version
        # As `encode_item` writes it. In a text field, the quotes would be escaped.
        self._mark = f'"model_version":"{model_version}"'.encode()

    def read(self, message: Message) -> Content:
        """Return what a message says about the item that its key names."""
        if message.value is None:
            return Content.REMOVAL
        if self._mark in message.value:  # parsing takes 20 times as long
            return Content.VECTOR
        try:
            item = decode_item(message.key, message.value)
        except BadMessage:
            return Content.UNREADABLE
        own = isinstance(item, Item) and item.model_version == self._model_version
        return Content.VECTOR if own else Content.OTHER_VERSION


class NewestMessages:
    """The newest message of each item, collected from all messages of one partition; 24 bytes for each."""

    def __init__(self) -> None:
        self._added: list[tuple[int, int, int]] = []
        self._kept = np.empty((0, 3), dtype=np.int64)  # (n, 3): ids ascending, offsets, contents

    def add(self, item_id: int, offset: int, content: Content) -> None:
        """Add the next message of the partition."""
        self._added.append((item_id, offset, content))
        if len(self._added) >= _CHUNK:
            self._merge()

    def columns(self) -> tuple[IdVector, IntVector, IntVector]:
        """Return item ids, ascending, and offset and content of each one's newest message."""
        self._merge()
        return self._kept[:, 0], self._kept[:, 1], self._kept[:, 2]

    def _merge(self) -> None:
        if self._added:
            newest_first = np.concatenate([self._kept, np.array(self._added, dtype=np.int64)])[::-1]
            _, first = np.unique(newest_first[:, 0], return_index=True)
            self._kept = newest_first[first]
            self._added = []


@dataclass(frozen=True, slots=True)
class Differences:
    """Items of one partition whose rows differ from the topic.

    Attributes:
        written: offsets, ascending, of the messages whose items have an older row, or none.
        removed: item id → offset: a row from before this offset should not exist.
    """

    written: IntVector
    removed: dict[int, int]


def compare(
    newest: NewestMessages, row_ids: IdVector, row_offsets: IntVector, *, processed: int, complete: bool
) -> Differences:
    """Compare the messages of one partition with the rows that name it.

    Args:
        newest: the newest message of each item.
        row_ids, row_offsets: (n,) ids, distinct, and source offsets of the rows.
        processed: the offset before which all messages were processed when reading began.
        complete: whether an item without a message was removed. False if the topic has lost its beginning.
    """
    ids, offsets, contents = newest.columns()
    order = np.argsort(row_ids)
    row_ids, row_offsets = row_ids[order], row_offsets[order]

    # The row of each message's item; offset -1 = it has none.
    held = _offsets_of(ids, row_ids, row_offsets)
    differs = (offsets < processed) & (held < offsets)
    written = np.sort(offsets[differs & (contents == Content.VECTOR)])
    gone = differs & (contents == Content.REMOVAL) & (held >= 0)
    removed = dict(zip(ids[gone].tolist(), offsets[gone].tolist(), strict=True))
    if complete:
        orphaned = (_offsets_of(row_ids, ids, offsets) < 0) & (row_offsets < processed)
        removed |= zip(row_ids[orphaned].tolist(), (row_offsets[orphaned] + 1).tolist(), strict=True)
    return Differences(written, removed)


def _offsets_of(wanted: IdVector, ids: IdVector, offsets: IntVector) -> IntVector:
    """Return the offset of each wanted id, -1 for those that are not among the (ascending) ids."""
    if not len(ids):
        return np.full(len(wanted), -1, dtype=np.int64)
    position = np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)
    return np.where(ids[position] == wanted, offsets[position], -1)
