"""Brings the local history store up to the changelog, before the first click of new partitions is applied."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection

from configs.schema import Kafka
from streams.errors import FatalError
from streams.history import CorruptHistoryError
from streams.kafka import read_to_end, watermarks
from streams.store import PartitionStores

_LOG = logging.getLogger("mindstream.restore")

#: Records written to the store at a time.
_BATCH = 2000
#: Seconds between log lines of a long restore.
_LOG_EVERY = 5.0


def restore_histories(kafka: Kafka, changelog: str, stores: PartitionStores, partitions: Collection[int]) -> int:
    """Take over these partitions: own them, and apply every changelog record that the store does not reflect yet.

    Returns:
        The number of records applied.

    Raises:
        TransientError: Kafka is away. Calling again goes on where this call ended.
        PartitionLost: the partitions moved on meanwhile.
        FatalError: the changelog holds something that is no history record of this version.
    """
    stores.own(partitions)
    starts: dict[int, int] = {}
    total = 0
    for partition, (low, end) in watermarks(kafka, changelog, partitions).items():
        if stores.offset(partition) >= end:
            # Kafka lost the end of the topic (an unclean leader election): what it has is what all workers agree on.
            _LOG.warning(
                "partition %d: the store is ahead of the changelog, restoring it from the beginning", partition
            )
            stores.forget(partition)
        starts[partition] = max(low, stores.offset(partition) + 1)
        total += end - starts[partition]
    if total == 0:
        return 0
    _LOG.info("restoring histories: about %d changelog records of partitions %s", total, sorted(starts))
    return _apply(kafka, changelog, stores, starts, total)


def _apply(kafka: Kafka, changelog: str, stores: PartitionStores, starts: dict[int, int], total: int) -> int:
    pending: dict[int, list[tuple[bytes, bytes | None]]] = {}
    reached: dict[int, int] = {}
    applied = 0
    started = next_log = time.monotonic()

    def flush() -> None:
        for partition, records in pending.items():
            stores.restore(partition, records, reached[partition])
        pending.clear()

    try:
        for record in read_to_end(kafka, changelog, starts):
            message = record.message
            if message.key is not None:
                pending.setdefault(message.partition, []).append((message.key, message.value))
            reached[message.partition] = message.offset
            applied += 1
            if applied % _BATCH == 0:
                flush()
            if time.monotonic() > next_log + _LOG_EVERY:
                next_log = time.monotonic()
                _LOG.info("restored %d of about %d records", applied, total)
        flush()
    except CorruptHistoryError as error:
        raise FatalError(f"topic {changelog} holds something that is no history of this version: {error}") from None
    seconds = time.monotonic() - started
    _LOG.info("restored %d records in %.1f s (%.0f a second)", applied, seconds, applied / max(seconds, 1e-3))
    return applied
