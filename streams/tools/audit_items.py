"""The audit of the items: every message on `items` is a row in Milvus, a removal, or a dead letter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
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
    newest: dict[int, ItemRef | None] = {}  # item id → newest message of this model; None = a removal
    unknown: set[int] = set()  # items whose newest message says nothing about this model's row
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
                unknown.update(_ids(message.key))
            continue
        if dead_letter is not None and dead_letter.reason not in BEYOND_THE_CODEC:
            unfounded += 1
        if item is None or (dead_letter is not None and dead_letter.reason in BEYOND_THE_CODEC):
            unknown.update(_ids(message.key))
            continue
        unknown.discard(item.item_id)
        newest[item.item_id] = ref if isinstance(item, Item) else None
    known = {item_id: ref for item_id, ref in newest.items() if item_id not in unknown}
    published = {item_id: ref for item_id, ref in known.items() if ref is not None}
    return AuditedItems(
        count=len(published),
        lag=lag,
        unaccounted=unaccounted,
        unverified=unverified,
        dead_letters_unfounded=unfounded,
        dead_letters_different=different,
        rows_missing=len(published.keys() - rows.keys()),
        rows_stale=sum(item_id in rows and rows[item_id] != ref for item_id, ref in published.items()),
        rows_unfounded=sum(item_id not in published and item_id not in unknown for item_id in rows),
    )


def _ids(key: bytes | None) -> list[int]:
    """Return the item id of a key; nothing if it is none."""
    try:
        return [int(key or b"")]
    except ValueError:
        return []
