"""The audit of the items: every message on `items` is a row in Milvus, a removal, or a dead letter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from streams.errors import BadMessage
from streams.messages.items import Item, ItemRemoval
from streams.ports import Message
from streams.tools.audit_clicks import BEYOND_THE_CODEC, KeptDeadLetter, content_hash

ItemRef = tuple[int, int]  # partition and offset on the item topic
Rows = Mapping[int, ItemRef]  # item id → source of its row in Milvus


@dataclass(frozen=True, slots=True)
class AuditedItems:
    """The item topic and the collection; see `streams.tools.audit_report.AuditReport`."""

    count: int
    lag: int
    unaccounted: int
    unverified: int
    dead_letters_unfounded: int
    dead_letters_different: int
    rows_missing: int
    rows_stale: int
    rows_unfounded: int


class _Newest:
    """The newest message of each item of this model."""

    def __init__(self) -> None:
        self._messages: dict[int, ItemRef] = {}
        self._removed: set[int] = set()  # items of which this is a removal
        self._unknown: set[int] = set()  # items whose newest message says nothing about this model's row
        # Items with messages in several partitions (`topics.partitioner: any`): none of them is the newest.
        self._split: set[int] = set()

    def add(self, item: Item | ItemRemoval, ref: ItemRef) -> None:
        item_id = item.item_id
        self._unknown.discard(item_id)
        if self._messages.setdefault(item_id, ref)[0] != ref[0]:
            self._split.add(item_id)
        self._messages[item_id] = ref
        (self._removed.discard if isinstance(item, Item) else self._removed.add)(item_id)

    def add_unknown(self, key: bytes | None) -> None:
        """Add a message that says nothing about this model's row; its key may be no item's."""
        with suppress(ValueError):
            self._unknown.add(int(key or b""))

    def published(self) -> dict[int, ItemRef]:
        return {i: ref for i, ref in self._messages.items() if self.judges(i) and i not in self._removed}

    def judges(self, item_id: int) -> bool:
        """Return whether the messages tell which row the item must have, or that it must have none."""
        return item_id not in self._unknown and item_id not in self._split


def audit_items(
    messages: Iterable[Message],
    rows: Rows,
    dead_letters: Mapping[ItemRef, KeptDeadLetter],
    committed: Mapping[int, int | None],
    decode: Callable[[Message], Item | ItemRemoval | None],
    retained_since: float = 0.0,
) -> AuditedItems:
    """Audit the item topic.

    Args:
        messages: its messages, in order within their partitions. Compaction has removed older ones.
        rows: the rows in Milvus.
        dead_letters: the messages that have a dead letter.
        committed: partition → offset that the item worker has committed; None = none.
        decode: decodes a message as the worker does, as `streams.processing.item_decoder.ItemDecoder`.
        retained_since: see `streams.tools.audit.audit`.
    """
    lag = unaccounted = unverified = unfounded = different = 0
    newest = _Newest()
    for message in messages:
        ref = message.partition, message.offset
        lag += message.offset >= (committed.get(message.partition) or 0)
        dead_letter = dead_letters.get(ref)
        if dead_letter is not None and dead_letter.content is not None:
            different += dead_letter.content != content_hash(message.key, message.value)
        try:
            item = decode(message)
        except BadMessage as error:
            missing = dead_letter is None
            unaccounted += missing and message.timestamp >= retained_since
            unverified += missing and message.timestamp < retained_since
            if error.reason != "wrong_partition":  # otherwise the row is that of a message in the right partition
                newest.add_unknown(message.key)
            continue
        if item is None or (dead_letter is not None and dead_letter.reason in BEYOND_THE_CODEC):
            newest.add_unknown(message.key)  # only the worker of an item's model can tell whether its vector fits
        else:
            unfounded += dead_letter is not None
            newest.add(item, ref)
    published = newest.published()
    return AuditedItems(
        count=len(published),
        lag=lag,
        unaccounted=unaccounted,
        unverified=unverified,
        dead_letters_unfounded=unfounded,
        dead_letters_different=different,
        rows_missing=len(published.keys() - rows.keys()),
        rows_stale=sum(item_id in rows and rows[item_id] != ref for item_id, ref in published.items()),
        rows_unfounded=sum(item_id not in published and newest.judges(item_id) for item_id in rows),
    )
