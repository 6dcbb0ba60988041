"""The local history store: a RocksDB for each partition, and how it is restored from the changelog.

Histories are kept here and in a compacted changelog topic, not in a Faust table. A table takes the partition from a
context variable that batches do not have, while a history must lie in the partition of its clicks. It writes the
local store before the changelog is acknowledged, so that a crash between the two leaves a store that is ahead. And
its recovery lets clicks through before the consumer is back at the committed offset.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import cast

import rocksdict

from configs.errors import FatalError
from streams.errors import PartitionLost
from streams.history import check_record, newer_record

#: Key of the offset up to which a partition's database reflects the changelog. User ids are UTF-8: none holds 0xff.
_OFFSET_KEY = b"\xffoffset"
#: File that names the changelog topic that the store is a copy of.
_BINDING = "changelog-topic-id"
#: Bytes of a partition's write buffer: eight partitions with two buffers each stay below 128 MiB.
_WRITE_BUFFER = 8 * 2**20
#: Bytes of the block cache that all partitions share.
_BLOCK_CACHE = 64 * 2**20


class PartitionStores:
    """`HistoryStore` over one RocksDB for each partition, below a folder of this process's own.

    Only partitions that this process owns can be read and written; others raise `PartitionLost`. For one thread, the
    one that processes batches; `disown` alone may be called from another.

    What is restored is written without RocksDB's log, which would cost as much as all the rest: a process that dies
    keeps a beginning of it, with the offset that belongs to it, because RocksDB writes its tables in order. Before the
    next logged write, all of it is flushed; otherwise the log could come back with the end and without the middle.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._owned: frozenset[int] = frozenset()
        self._open: dict[int, rocksdict.Rdict] = {}
        self._unlogged: set[int] = set()  # partitions with restored records that may be in memory only
        self._cache = rocksdict.Cache(_BLOCK_CACHE)
        self._no_log = rocksdict.WriteOptions()
        self._no_log.disable_wal = True  # type: ignore[method-assign, assignment]  # a property; the stub is wrong

    def bind(self, topic_id: str) -> None:
        """Take the store to be a copy of this changelog topic, now and later.

        Raises:
            FatalError: it is a copy of another one; the message says what mends it.
        """
        file = self._folder / _BINDING
        if not file.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            # At one stroke: half a name would have every later start refused.
            written = file.with_suffix(".new")
            written.write_text(topic_id)
            written.replace(file)
        elif file.read_text() != topic_id:
            raise FatalError(
                f"{self._folder} holds histories of another changelog topic (Kafka's topic was deleted and created "
                "again, or it is another cluster). Name another worker.data_dir, or delete this folder: histories are "
                "restored from the changelog"
            )

    def own(self, partitions: Iterable[int]) -> None:
        """From now on these partitions belong to this process, and no others."""
        owned = frozenset(partitions)
        for partition in self._open.keys() - owned:
            self._close(partition)
        self._owned = owned

    def disown(self) -> None:
        """From now on no partition belongs to this process. May be called from any thread."""
        self._owned = frozenset()

    def close(self) -> None:
        """Close all databases."""
        self.own([])

    def check(self, partitions: Collection[int]) -> None:
        """Raises `PartitionLost` unless this process owns all of them."""
        lost = set(partitions) - self._owned
        if lost:
            raise PartitionLost(f"partitions {sorted(lost)} belong to another worker now")

    def read(self, partition: int, keys: Sequence[bytes]) -> list[bytes | None]:
        """See `streams.ports.HistoryStore.read`."""
        return cast("list[bytes | None]", self._database(partition).get(list(keys)))

    def write(self, partition: int, records: Mapping[bytes, bytes], offsets: Sequence[int]) -> None:
        """See `streams.ports.HistoryStore.write`."""
        # If somebody else's records lie between, they have not been read yet: the next restore has to start there.
        reflected = self.offset(partition)
        continues = sorted(offsets) == list(range(reflected + 1, reflected + 1 + len(offsets)))
        if partition in self._unlogged:
            self._database(partition).flush()
            self._unlogged.discard(partition)
        self._put(partition, records, max(offsets) if continues else None)

    def restore(self, partition: int, records: Sequence[tuple[bytes, bytes | None]], offset: int | None) -> set[bytes]:
        """Apply records of the changelog, in its order, None = remove; of two records the newer one stays.

        Args:
            partition: where they are from.
            records: user keys and history records.
            offset: of the last changelog message that these records reflect. It is recorded unless a user is
                returned; None = not yet.

        Returns:
            Users whose last record among these is older than the one that the store keeps.

        Raises:
            PartitionLost: the partition belongs to another worker.
            CorruptHistoryError: a record is not one of ours.
        """
        keys = [key for key, _ in records]
        kept = dict(zip(keys, self.read(partition, keys), strict=True))
        behind: set[bytes] = set()
        for key, record in records:
            known = kept[key]
            if record is not None:
                if known is None:
                    check_record(record)
                elif newer_record(known, record) is not record:
                    behind.add(key)
                    continue
            kept[key] = record
            behind.discard(key)
        self._unlogged.add(partition)
        self._put(partition, kept, None if behind else offset, self._no_log)
        return behind

    def reflect(self, partition: int, offset: int) -> None:
        """Record that the store reflects the changelog up to this offset."""
        self._unlogged.add(partition)
        self._put(partition, {}, offset, self._no_log)

    def offset(self, partition: int) -> int:
        """Offset of the newest changelog message that the store reflects; -1 for an empty store."""
        found = self._database(partition).get(_OFFSET_KEY)
        return -1 if found is None else int(found)

    def forget(self, partition: int) -> None:
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
        """All or nothing."""
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
        options.set_write_buffer_size(_WRITE_BUFFER)
        options.set_max_write_buffer_number(2)
        table = rocksdict.BlockBasedOptions()
        table.set_block_cache(self._cache)
        table.set_bloom_filter(10, block_based=False)  # 10 bits a key: 1 % of look-ups of new users touch the disk
        options.set_block_based_table_factory(table)
        return options
