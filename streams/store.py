"""The local history store and its changelog: what Faust restores, in a RocksDB for each partition.

Faust's own table API is not used for writing, for two reasons. It derives the partition from a context variable that
batches do not have, and a history must lie in the partition of its clicks. And it writes the local store before the
changelog is acknowledged, so that a crash between the two leaves a store that is ahead of the changelog. Here the
click agent sends the changelog record itself, waits for its acknowledgement, and then writes the store
(`streams.clicks`, steps 4 and 5): the store is never ahead. Faust restores partitions from the changelog.
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import faust
import rocksdict
from faust.stores.base import Store as FaustStore
from faust.types import TP

from streams.errors import FatalError, PartitionLost
from streams.history import newer_record

_LOG = logging.getLogger(__name__)

#: Key of the offset up to which a partition's database reflects the changelog. User ids are UTF-8: none holds 0xff.
_OFFSET_KEY = b"\xffoffset"
#: Bytes of a partition's write buffer: eight partitions with two buffers each stay below 128 MiB.
_WRITE_BUFFER = 8 * 2**20
#: Bytes of the block cache that all partitions share.
_BLOCK_CACHE = 64 * 2**20


class PartitionStores:
    """`HistoryStore` over one RocksDB for each partition, below a folder of this process's own. Thread-safe.

    Only partitions that this process owns can be read and written; others raise `PartitionLost`. Otherwise a batch
    that outlasts its partition would leave a store that has skipped what the new owner wrote.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._owned: frozenset[int] = frozenset()
        self._open: dict[int, rocksdict.Rdict] = {}
        self._lock = threading.Lock()
        self._cache = rocksdict.Cache(_BLOCK_CACHE)

    def bind(self, topic_id: str) -> None:
        """Take the store to be a copy of this changelog topic, now and later.

        Raises:
            FatalError: it is a copy of another one; the message says what mends it.
        """
        file = self._folder / "changelog-topic-id"
        if not file.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            file.write_text(topic_id)
        elif file.read_text() != topic_id:
            raise FatalError(
                f"{self._folder} holds histories of another changelog topic (Kafka's topic was deleted and created "
                "again, or it is another cluster). Name another worker.data_dir, or delete this folder: histories are "
                "restored from the changelog"
            )

    def read(self, partition: int, keys: Sequence[bytes]) -> list[bytes | None]:
        return cast("list[bytes | None]", self._database(partition).get(list(keys)))

    def write(self, partition: int, records: Mapping[bytes, bytes | None], offset: int) -> None:
        """Store records, None = remove, together with their offset in the changelog: all or nothing."""
        batch = rocksdict.WriteBatch(raw_mode=True)
        for key, record in records.items():
            if record is None:
                batch.delete(key)
            else:
                batch.put(key, record)
        batch.put(_OFFSET_KEY, str(offset).encode())
        self._database(partition).write(batch)

    def offset(self, partition: int) -> int | None:
        """Offset of the newest changelog record that the store reflects; None for an empty store."""
        found = self._database(partition).get(_OFFSET_KEY)
        return None if found is None else int(found)

    def restore(self, partition: int, records: Sequence[tuple[bytes, bytes | None]], offset: int) -> None:
        """Apply records of the changelog, in its order, None = remove; of two records the newer one stays."""
        old = self.read(partition, [key for key, _ in records])
        merged: dict[bytes, bytes | None] = {}
        for (key, record), stored in zip(records, old, strict=True):
            known = merged.get(key, stored)
            merged[key] = record if record is None or known is None else newer_record(known, record)
        self.write(partition, merged, max(offset, self.offset(partition) or 0))

    def own(self, partitions: Iterable[int]) -> None:
        """From now on these partitions belong to this process, and no others."""
        with self._lock:
            self._owned = frozenset(partitions)
            for partition in self._open.keys() - self._owned:
                self._open.pop(partition).close()

    def close(self) -> None:
        """Close all databases."""
        self.own([])

    def wipe(self) -> None:
        """Forget everything: the next recovery reads the changelog from its beginning."""
        self.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _database(self, partition: int) -> rocksdict.Rdict:
        with self._lock:
            if partition not in self._owned:
                raise PartitionLost(f"partition {partition} belongs to another worker now")
            database = self._open.get(partition)
            if database is None:
                path = self._folder / str(partition)
                path.mkdir(parents=True, exist_ok=True)
                database = self._open[partition] = rocksdict.Rdict(str(path), self._options())
            return database

    def _options(self) -> rocksdict.Options:
        options = rocksdict.Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_write_buffer_size(_WRITE_BUFFER)
        options.set_max_write_buffer_number(2)
        table = rocksdict.BlockBasedOptions()
        table.set_block_cache(self._cache)
        table.set_bloom_filter(10, block_based=False)  # 10 bits a key: 1 % of look-ups of new users touch the disk
        options.set_block_based_table_factory(table)
        return options


class _RestoredStore(FaustStore[Any, Any]):
    """What Faust's recovery needs of a store, over `PartitionStores`."""

    def __init__(self, stores: PartitionStores, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._stores = stores

    def persisted_offset(self, tp: TP) -> int | None:
        return self._stores.offset(tp.partition)

    def apply_changelog_batch(self, batch: Iterable[Any], *_: Any, **__: Any) -> None:
        records: dict[int, list[tuple[bytes, bytes | None]]] = {}
        offsets: dict[int, int] = {}
        for event in batch:
            message = event.message
            records.setdefault(message.partition, []).append((message.key, message.value))
            offsets[message.partition] = message.offset
        for partition, changes in records.items():
            self._stores.restore(partition, changes, offsets[partition])

    async def on_rebalance(self, *args: Any, **_: Any) -> None:
        assigned, *_rest = args
        changelog = self.table.changelog_topic.get_topic_name()
        self._stores.own(tp.partition for tp in assigned if tp.topic == changelog)

    async def on_stop(self) -> None:
        self._stores.close()

    def reset_state(self) -> None:
        self._stores.wipe()

    async def backup_partition(self, *_: Any, **__: Any) -> None:
        raise NotImplementedError(_NO_BACKUP)

    def restore_backup(self, *_: Any, **__: Any) -> None:
        raise NotImplementedError(_NO_BACKUP)

    # Faust's store is also a mapping; this table is read and written through `PartitionStores` alone.
    def __getitem__(self, key: Any) -> Any:
        raise NotImplementedError(_NOT_A_MAPPING)

    def __setitem__(self, key: Any, value: Any) -> None:
        raise NotImplementedError(_NOT_A_MAPPING)

    def __delitem__(self, key: Any) -> None:
        raise NotImplementedError(_NOT_A_MAPPING)

    def __iter__(self) -> Any:
        raise NotImplementedError(_NOT_A_MAPPING)

    def __len__(self) -> int:
        raise NotImplementedError(_NOT_A_MAPPING)


_NO_BACKUP = "the changelog is the backup"
_NOT_A_MAPPING = "histories are read and written by partition, through PartitionStores"


class HistoryTable(faust.Table[bytes, bytes]):
    """The changelogged table of histories: Faust assigns and restores it, `PartitionStores` holds it."""

    stores: PartitionStores

    def _new_store(self) -> Any:
        return _RestoredStore(
            self.stores,
            "mindstream://",
            self.app,
            self,
            table_name=self.name,
            key_type=self.key_type,
            key_serializer=self.key_serializer,
            value_type=self.value_type,
            value_serializer=self.value_serializer,
            loop=self.loop,
        )
