"""The local history store: one RocksDB database for each partition.

Histories are kept here and in a compacted changelog topic, not in a Faust table. A table takes the partition from a
context variable that batches do not have, but a history must be in the partition of its clicks. A table writes the
local store before the changelog is acknowledged, so that a crash between the two leaves a store that is ahead. And
a table's recovery delivers clicks before the consumer is back at the committed offset.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import cast

import rocksdict

from configs.errors import FatalError
from streams.errors import PartitionLost
from streams.history import check_record, newer_record

#: Key of the offset up to which a partition's database reflects the changelog. Users' keys are UTF-8: none has 0xff.
_OFFSET_KEY = b"\xffoffset"
#: File with the id of the changelog topic that the store is a copy of.
_TOPIC_ID_FILE = "changelog-topic-id"
#: Bytes of a partition's write buffer: eight partitions with two buffers each take 128 MiB at most.
_WRITE_BUFFER_BYTES = 8 * 2**20
#: Bytes of the block cache that all partitions share.
_BLOCK_CACHE_BYTES = 64 * 2**20


class PartitionStores:
    """`HistoryStore` over one RocksDB database for each partition, in a folder that no other process uses.

    Only partitions that this process owns can be read and written; others raise `PartitionLost`. For one thread, the
    one that processes batches; only `disown` may be called from another.

    Restored records are written without RocksDB's write-ahead log, which would double the time. If the process dies, a
    prefix of them remains, with the offset that belongs to it, because RocksDB flushes its memory tables in order.
    Before the next logged write they are flushed; otherwise recovery could bring back that write without the records
    before it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._owned: frozenset[int] = frozenset()
        self._open: dict[int, rocksdict.Rdict] = {}
        self._unlogged: set[int] = set()  # partitions whose restored records may be only in memory
        self._cache = rocksdict.Cache(_BLOCK_CACHE_BYTES)
        self._no_log = rocksdict.WriteOptions()
        self._no_log.disable_wal = True  # type: ignore[method-assign, assignment]  # a property; the stub is wrong

    def bind(self, topic_id: str) -> None:
        """Record that the store is a copy of this changelog topic.

        Raises:
            FatalError: it is a copy of another one; the message names the remedy.
        """
        file = self._folder / _TOPIC_ID_FILE
        if not file.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            # Write atomically: a partially written id would make every later start fail.
            new_file = file.with_suffix(".new")
            new_file.write_text(topic_id)
            new_file.replace(file)
        elif file.read_text() != topic_id:
            raise FatalError(
                f"{self._folder} holds histories of another changelog topic (the topic was deleted and created again, "
                "or this is another cluster). Set another worker.data_dir, or delete this folder: histories are "
                "restored from the changelog"
            )

    def own(self, partitions: Iterable[int]) -> None:
        """Own these partitions and no others; the databases of the others are closed."""
        owned = frozenset(partitions)
        for partition in self._open.keys() - owned:
            self._close(partition)
        self._owned = owned

    def disown(self) -> None:
        """Own no partition, without closing databases. May be called from any thread."""
        self._owned = frozenset()

    def close(self) -> None:
        """Close all databases."""
        self.own([])

    def check(self, partitions: Collection[int]) -> None:
        """Raise `PartitionLost` unless this process owns all of these partitions."""
        lost = set(partitions) - self._owned
        if lost:
            raise PartitionLost(f"partitions {sorted(lost)} now belong to another worker")

    def read(self, partition: int, keys: Sequence[bytes]) -> list[bytes | None]:
        """See `streams.ports.HistoryStore.read`."""
        return cast("list[bytes | None]", self._database(partition).get(list(keys)))

    def write(self, partition: int, records: Mapping[bytes, bytes], offsets: Sequence[int]) -> None:
        """See `streams.ports.HistoryStore.write`."""
        # Another worker's records in between have not been read yet: the next restore has to start with them.
        next_offset = self.offset(partition) + 1
        contiguous = sorted(offsets) == list(range(next_offset, next_offset + len(offsets)))
        if partition in self._unlogged:
            self._database(partition).flush()
            self._unlogged.discard(partition)
        self._put(partition, records, max(offsets) if contiguous else None)

    def restore(self, partition: int, records: Sequence[tuple[bytes, bytes | None]], offset: int | None) -> set[bytes]:
        """Apply records of the changelog, in its order; keep the newer one of two records of a user.

        Args:
            partition: the partition of the records.
            records: user keys and history records; None as record removes the user.
            offset: offset of the last of these records in the changelog. It is stored unless a user is returned;
                None = do not store it.

        Returns:
            Users whose last record among these is older than the one that the store keeps.

        Raises:
            PartitionLost: the partition belongs to another worker.
            CorruptHistoryError: a value is not a history record.
        """
        keys = [key for key, _ in records]
        kept = dict(zip(keys, self.read(partition, keys), strict=True))
        overwritten: set[bytes] = set()
        for key, record in records:
            known = kept[key]
            if record is not None:
                if known is None:
                    check_record(record)
                elif newer_record(known, record) is not record:
                    overwritten.add(key)
                    continue
            kept[key] = record
            overwritten.discard(key)
        self._unlogged.add(partition)
        self._put(partition, kept, None if overwritten else offset, self._no_log)
        return overwritten

    def set_offset(self, partition: int, offset: int) -> None:
        """Record that the store reflects the changelog up to this offset."""
        self._unlogged.add(partition)
        self._put(partition, {}, offset, self._no_log)

    def offset(self, partition: int) -> int:
        """Return the offset of the newest changelog record that the store reflects; -1 for an empty store."""
        found = self._database(partition).get(_OFFSET_KEY)
        return -1 if found is None else int(found)

    def clear(self, partition: int) -> None:
        """Empty a partition's database, to restore it from the changelog's beginning."""
        self.check([partition])
        if partition in self._open:
            self._close(partition)
        rocksdict.Rdict.destroy(str(self._folder / str(partition)), self._options())

    def _close(self, partition: int) -> None:
        self._open.pop(partition).close()  # flushes
        self._unlogged.discard(partition)

    def _put(
        self,
        partition: int,
        records: Mapping[bytes, bytes | None] | Mapping[bytes, bytes],
        offset: int | None,
        options: rocksdict.WriteOptions | None = None,
    ) -> None:
        """Write records and offset atomically."""
        batch = rocksdict.WriteBatch(raw_mode=True)
        for key, record in records.items():
            if record is None:
                batch.delete(key)
            else:
                batch.put(key, record)
        if offset is not None:
            batch.put(_OFFSET_KEY, str(offset).encode())
        self._database(partition).write(batch, options)

    def _database(self, partition: int) -> rocksdict.Rdict:
        self.check([partition])
        database = self._open.get(partition)
        if database is None:
            path = self._folder / str(partition)
            path.mkdir(parents=True, exist_ok=True)
            database = self._open[partition] = rocksdict.Rdict(str(path), self._options())
        return database

    def _options(self) -> rocksdict.Options:
        options = rocksdict.Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_write_buffer_size(_WRITE_BUFFER_BYTES)
        options.set_max_write_buffer_number(2)
        table = rocksdict.BlockBasedOptions()
        table.set_block_cache(self._cache)
        table.set_bloom_filter(10, block_based=False)  # 10 bits a key: 1 % of lookups of new users read the disk
        options.set_block_based_table_factory(table)
        return options
