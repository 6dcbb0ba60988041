"""The local history store: one RocksDB database for each partition.

Histories are kept here and in a compacted changelog topic, not in a Faust table. A table takes the partition from a
context variable that batches do not have, but a history must be in the partition of its clicks. A table writes the
local store before the changelog is acknowledged, so that a crash between the two leaves a store that is ahead. And
a table's recovery delivers clicks before the consumer is back at the committed offset.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, cast

import rocksdict

from streams.errors import PartitionLost, RestartRequired
from streams.history import Fence, history_fence, is_user_key
from streams.state.binding import bind
from streams.state.damage import count_damaged, disk_error, is_damage, is_disk_fault, set_aside

_LOG = logging.getLogger("mindstream.store")

#: Key of the offset up to which a partition's database reflects the changelog. Users' keys are UTF-8: none has 0xff.
_OFFSET_KEY = b"\xffoffset"
#: Bytes of a partition's write buffer: eight partitions with two buffers each take 128 MiB at most.
_WRITE_BUFFER_BYTES = 8 * 2**20
#: Bytes of the block cache that all partitions share.
_BLOCK_CACHE_BYTES = 64 * 2**20


class Restored(NamedTuple):
    """Messages that were restored and need attention.

    Attributes:
        overwritten: users whose last record is older than the one that the store keeps, or is no record.
        repaired: users whose newer record was overwritten, and written again by another worker.
        foreign: positions of the messages that are no records.
    """

    overwritten: set[bytes]
    repaired: set[bytes]
    foreign: list[int]


class PartitionStores:
    """`HistoryStore` over one RocksDB database for each partition, in a folder that no other process uses.

    Only partitions that this process owns can be read and written; others raise `PartitionLost`. For one thread, the
    one that processes batches; only `disown` may be called from another.

    Restored records are written without RocksDB's write-ahead log, which would double the time. If the process dies, a
    prefix of them remains, with the offset that belongs to it, because RocksDB flushes its memory tables in order.
    Before the next logged write they are flushed; otherwise recovery could bring back that write without the records
    before it.

    A damaged database is set aside (`streams.state.damage`). If that is noticed when it is opened, which is before its
    partition is restored, an empty one takes its place. If it is noticed later, the process must restart: its callers
    rely on what they have restored. Methods that read or write raise `RestartRequired` then, and if the disk is full;
    `FatalError` if this user has no rights.

    Args:
        folder: of the databases.
        fence_of: returns the fence of a record of a partition; None if the bytes are no record of it.
        setting: the key of the configuration that names the folder, for error texts.
    """

    def __init__(
        self,
        folder: Path,
        fence_of: Callable[[bytes, int], Fence | None] = history_fence,
        setting: str = "worker.data_dir",
    ) -> None:
        self._folder = folder
        self._fence_of = fence_of
        self._setting = setting
        self._owned: frozenset[int] = frozenset()
        self._open: dict[int, rocksdict.Rdict] = {}
        self._unlogged: set[int] = set()  # partitions whose restored records may be only in memory
        self._failed: set[int] = set()  # partitions that must not be opened before they are owned again
        self._reached: dict[int, int] = {}
        self._cache = rocksdict.Cache(_BLOCK_CACHE_BYTES)
        self._no_log = rocksdict.WriteOptions()
        self._no_log.disable_wal = True  # type: ignore[method-assign, assignment]  # a property; the stub is wrong

    def bind(self, topic_id: str) -> None:
        """Record that the store is a copy of this changelog topic. See `streams.state.binding.bind`."""
        bind(self._folder, topic_id, self._setting)

    def damaged(self) -> int:
        """Return how many damaged folders are set aside. May be called from any thread."""
        return count_damaged(self._folder)

    def own(self, partitions: Iterable[int]) -> None:
        """Own these partitions and no others; the databases of the others are closed."""
        owned = frozenset(partitions)
        for partition in self._open.keys() - owned:
            self._close(partition)
        self._failed.clear()
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
        with self._faults(partition):
            return cast("list[bytes | None]", self._database(partition).get(list(keys)))

    def write(self, partition: int, records: Mapping[bytes, bytes], offsets: Sequence[int]) -> None:
        """See `streams.ports.HistoryStore.write`."""
        # Another worker's records in between have not been read yet: the next restore has to start with them.
        next_offset = self.offset(partition) + 1
        contiguous = sorted(offsets) == list(range(next_offset, next_offset + len(offsets)))
        self.reach(partition, max(offsets) + 1)
        if partition in self._unlogged:
            with self._faults(partition):
                self._database(partition).flush()
            self._unlogged.discard(partition)
        self._put(partition, records, max(offsets) if contiguous else None)

    def restore(
        self, partition: int, messages: Sequence[tuple[bytes | None, bytes | None]], offset: int | None
    ) -> Restored:
        """Apply messages of the changelog, in its order; keep the newer one of two records of a user.

        Messages that are no records, or whose key cannot be a user's, are not applied.

        Args:
            partition: the partition of the messages.
            messages: user keys and records; None as record removes the user.
            offset: offset of the last of these messages in the changelog. It is stored unless a user is overwritten;
                None = do not store it.

        Raises:
            PartitionLost: the partition belongs to another worker.
        """
        keys = [key for key, _ in messages if is_user_key(key)]
        kept = dict(zip(keys, self.read(partition, keys), strict=True))
        fences = {key: self._fence_of(record, partition) for key, record in kept.items() if record is not None}
        overwritten, repaired, foreign = set[bytes](), set[bytes](), list[int]()
        for position, (key, record) in enumerate(messages):
            if key is None or key not in kept:
                foreign.append(position)
                continue
            fence = None
            if record is not None:
                fence, kept_fence = self._fence_of(record, partition), fences.get(key)
                if fence is None:
                    foreign.append(position)
                if kept_fence is not None and (fence is None or (fence[0] == kept_fence[0] and fence < kept_fence)):
                    overwritten.add(key)
                    continue
                if fence is None:
                    continue
            kept[key], fences[key] = record, fence
            if key in overwritten:
                overwritten.discard(key)
                repaired.add(key)
        self._unlogged.add(partition)
        self._put(partition, kept, None if overwritten else offset, self._no_log)
        return Restored(overwritten, repaired, foreign)

    def set_offset(self, partition: int, offset: int) -> None:
        """Record that the store reflects the changelog up to this offset."""
        self._unlogged.add(partition)
        self._put(partition, {}, offset, self._no_log)

    def offset(self, partition: int) -> int:
        """Return the offset of the newest changelog record that the store reflects; -1 for an empty store."""
        with self._faults(partition):
            found = self._database(partition).get(_OFFSET_KEY)
            return -1 if found is None else int(found)

    def reached(self, partition: int) -> int:
        """Return an offset below which the changelog has held records, as far as this process knows."""
        return self._reached.get(partition, 0)

    def reach(self, partition: int, end: int) -> None:
        """Record that the changelog has held records up to `end`, exclusively."""
        self._reached[partition] = max(end, self.reached(partition))

    def clear(self, partition: int) -> None:
        """Empty a partition's database, to restore it from the changelog's beginning."""
        self.check([partition])
        if partition in self._open:
            self._close(partition)
        with self._faults(partition):
            rocksdict.Rdict.destroy(str(self._path(partition)), self._options())

    def _close(self, partition: int) -> None:
        try:
            self._open.pop(partition).close()  # flushes
        except Exception as error:
            if not is_disk_fault(error):
                raise
            # Nothing is lost: the stored offset is that of the records that were flushed.
            _LOG.warning("partition %d: the local store was closed with an error: %s", partition, error)
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
        with self._faults(partition):
            self._database(partition).write(batch, options)

    def _database(self, partition: int) -> rocksdict.Rdict:
        self.check([partition])
        database = self._open.get(partition)
        if database is None:
            if partition in self._failed:
                raise RestartRequired(f"the local copy of partition {partition} has failed")
            database = self._open[partition] = self._opened(partition)
        return database

    def _opened(self, partition: int) -> rocksdict.Rdict:
        """Open a database; if it is damaged, set it aside and begin an empty one."""
        path = self._path(partition)
        try:
            return self._create(path)
        except Exception as error:
            if not (is_disk_fault(error) and is_damage(error)):
                raise
            new_path = set_aside(path)
            _LOG.warning(
                "%s is damaged (%s); set it aside as %s. Partition %d is restored from Kafka",
                path,
                error,
                new_path.name,
                partition,
            )
        return self._create(path)

    def _create(self, path: Path) -> rocksdict.Rdict:
        path.mkdir(parents=True, exist_ok=True)
        return rocksdict.Rdict(str(path), self._options())

    def _path(self, partition: int) -> Path:
        return self._folder / str(partition)

    @contextmanager
    def _faults(self, partition: int) -> Iterator[None]:
        """Raise faults of RocksDB and of the disk as this project's errors; a damaged database is set aside."""
        try:
            yield
        except Exception as error:
            if not is_disk_fault(error):
                raise
            self._failed.add(partition)
            if partition in self._open:
                self._close(partition)
            path = self._path(partition)
            if not is_damage(error):
                raise disk_error(path, error, self._setting) from error
            try:
                new_path = set_aside(path)
            except OSError as failed:
                raise disk_error(path, failed, self._setting) from error
            raise RestartRequired(
                f"{path} is damaged ({error}); it was set aside as {new_path.name}, and partition {partition} is "
                "restored from Kafka at the next start"
            ) from error

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
