"""Write the newest recommendations of all users to a file.

Memory is bounded: the newest message of each user is kept in a temporary SQLite file beside the output, with a cache of
64 MiB, and written from there in the order of the users. The temporary file grows to the size of these messages.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import orjson

from configs.cli import progress_bar
from configs.errors import FatalError, InputError
from configs.schema import WorkerConfig
from configs.text import count
from streams.errors import BadMessage
from streams.history import is_user_key
from streams.kafka.reading import read_to_end, watermarks
from streams.messages.clicks import user_key
from streams.messages.recommendations import decode_recommendation

Format = Literal["jsonl", "parquet"]

#: Messages stored, and lists written, at a time; a row group of a Parquet file.
_CHUNK = 5_000
#: Line breaks are white space in JSON; a message of another program may hold some.
_ONE_LINE = bytes.maketrans(b"\r\n", b"  ")


class NewestMessage(NamedTuple):
    """A recommendation as a row.

    Attributes:
        user: the message's key.
        live: whether its source can be a click of the topic that exists now.
        partition, offset: its source.
        ts: when it was computed.
        value: the message, on one line.
    """

    user: bytes
    live: bool
    partition: int
    offset: int
    ts: float
    value: bytes


@dataclass(slots=True)
class ExportReport:
    """Counts of one export.

    Attributes:
        users: lists written.
        messages: messages read.
        malformed: those that are no recommendations.
        first_malformed: where the first of them is and what is wrong with it; None if there is none.
        outdated: lists whose click is not on the click topic that exists now: it was recreated since.
    """

    users: int = 0
    messages: int = 0
    malformed: int = 0
    first_malformed: str | None = None
    outdated: int = 0

    def to_text(self, place: str) -> str:
        text = f"{place}: the newest lists of {count(self.users, 'user')}, from {count(self.messages, 'message')}"
        if self.outdated:
            text += f"; {self.outdated:,} of the lists are from before the click topic was recreated"
        if self.malformed:
            text += f"; {count(self.malformed, 'malformed message')} left out, the first: {self.first_malformed}"
        return text


class NewestLists:
    """Keeps the newest message of each user in a SQLite file, which may be deleted at any time.

    Of one partition, the highest source offset wins, and of the same source the later `ts`: the user was answered
    again. Lists of two partitions are of two click topics, or partitions were added; the later one wins. A list of a
    click topic that is gone never wins over one of the topic that exists; it is recognized by an offset that the topic
    has not reached.
    """

    _KEEP = """
        INSERT INTO newest VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (user) DO UPDATE SET live = excluded.live,
            "partition" = excluded."partition", "offset" = excluded."offset", ts = excluded.ts, value = excluded.value
        WHERE live < excluded.live OR (live = excluded.live AND CASE
            WHEN "partition" = excluded."partition" THEN ("offset", ts) < (excluded."offset", excluded.ts)
            ELSE ts < excluded.ts END)
    """

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path)
        for setting in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -65536"):
            self._db.execute(f"PRAGMA {setting}")
        self._db.execute(
            'CREATE TABLE newest (user BLOB PRIMARY KEY, live INTEGER, "partition" INTEGER, "offset" INTEGER, ts REAL, '
            "value BLOB) WITHOUT ROWID"
        )

    def keep(self, messages: Sequence[NewestMessage]) -> None:
        self._db.executemany(self._KEEP, messages)

    def remove(self, user: bytes) -> None:
        self._db.execute("DELETE FROM newest WHERE user = ?", (user,))

    def count(self) -> tuple[int, int]:
        """Return the number of users, and of those whose list is of a click topic that is gone."""
        users, live = self._db.execute("SELECT count(*), ifnull(sum(live), 0) FROM newest").fetchone()
        return users, users - live

    def values(self) -> Iterator[bytes]:
        """Yield the messages in the order of their users' bytes."""
        for (value,) in self._db.execute("SELECT value FROM newest ORDER BY user"):
            yield value

    def close(self) -> None:
        self._db.close()


def export(config: WorkerConfig, form: Format, path: Path | None) -> ExportReport:
    """Write the newest message of each user, in the order of the users' bytes.

    The file appears under its name when it is complete.

    Args:
        config: names the cluster and the topics.
        form: `jsonl`, the messages as on the topic, one on a line; or `parquet`.
        path: file to write; None = standard output, for jsonl only.

    Raises:
        TransientError: Kafka is unavailable.
        FatalError: there is no such topic, or a library is missing.
        InputError: the file cannot be written.
    """
    write = _write_jsonl if form == "jsonl" else _parquet_writer()
    folder = None if path is None else path.absolute().parent
    try:
        with (
            tempfile.TemporaryDirectory(prefix=".export-", dir=folder) as temporary,
            closing(NewestLists(Path(temporary) / "newest.db")) as newest,
        ):
            report = _collect(config, newest)
            report.users, report.outdated = newest.count()
            with _output(path, Path(temporary)) as file, progress_bar(report.users, "users") as bar:
                for written in write(file, newest.values()):
                    bar.advance(written)
    except (OSError, sqlite3.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{path or 'standard output'} cannot be written: {reason}") from None
    return report


def _collect(config: WorkerConfig, newest: NewestLists) -> ExportReport:
    """Read the topic to its end, and keep the newest message of each user."""
    report, topic = ExportReport(), config.topics.recommendations
    total = sum(end - begin for begin, end in watermarks(config.kafka, topic).values())
    ends: dict[int, int] | None = None
    batch: list[NewestMessage] = []
    with progress_bar(total, "messages") as bar:
        for received in read_to_end(config.kafka, topic):
            # Not before the end up to which is read was asked for: clicks of all these messages are below their ends.
            if ends is None:
                ends = {p: end for p, (_, end) in watermarks(config.kafka, config.topics.clicks).items()}
            message = received.message
            report.messages += 1
            removed = message.value is None and is_user_key(message.key)
            try:
                if not removed:
                    batch.append(_newest_message(message.key, message.value, ends))
            except BadMessage as error:
                report.malformed += 1
                report.first_malformed = report.first_malformed or (
                    f"{topic} [{message.partition}] at offset {message.offset}, {error}"
                )
            if removed or len(batch) == _CHUNK:
                newest.keep(batch)
                batch.clear()
            if removed:
                newest.remove(message.key or b"")
            bar.advance(1)
        newest.keep(batch)
    return report


def _newest_message(key: bytes | None, value: bytes | None, ends: dict[int, int]) -> NewestMessage:
    found = decode_recommendation(value or b"")
    if key != user_key(found.user_id):
        raise BadMessage("bad_key", "the key is not the text of user_id")
    partition, offset = found.source_partition, found.source_offset
    live = offset < ends.get(partition, 0)
    return NewestMessage(key, live, partition, offset, found.ts, (value or b"").translate(_ONE_LINE))


@contextmanager
def _output(path: Path | None, temporary: Path) -> Iterator[BinaryIO]:
    """Open standard output, or a file that gets its name when it is complete and on the disk."""
    if path is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    partial = temporary / "export"
    with partial.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _chunks(values: Iterable[bytes]) -> Iterator[list[bytes]]:
    remaining = iter(values)
    while chunk := list(islice(remaining, _CHUNK)):
        yield chunk


def _write_jsonl(file: BinaryIO, values: Iterable[bytes]) -> Iterator[int]:
    """Write a message on each line; yield the number of lines written, chunk by chunk."""
    for chunk in _chunks(values):
        file.writelines(value + b"\n" for value in chunk)
        yield len(chunk)


def _parquet_writer() -> Any:
    """Return the function that writes Parquet, as `_write_jsonl`.

    Raises:
        FatalError: pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise FatalError(
            "--format parquet needs pyarrow, which is not installed: pip install -e '.[parquet]', or --format jsonl"
        ) from None

    def write(file: BinaryIO, values: Iterable[bytes]) -> Iterator[int]:
        ids, texts, doubles = pyarrow.int64(), pyarrow.string(), pyarrow.float64()
        schema = pyarrow.schema(
            [
                ("user_id", texts),
                ("item_ids", pyarrow.list_(ids)),
                ("scores", pyarrow.list_(doubles)),
                ("interests", pyarrow.list_(pyarrow.int32())),
                ("model_version", texts),
                ("history_length", pyarrow.int32()),
                ("source_partition", pyarrow.int32()),
                ("source_offset", ids),
                ("click_ts", doubles),
                ("ts", doubles),
                ("top_k", pyarrow.int32()),
            ]
        )
        with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
            for chunk in _chunks(values):
                writer.write_table(pyarrow.Table.from_pylist([_row(value) for value in chunk], schema))
                yield len(chunk)

    return write


def _row(value: bytes) -> dict[str, Any]:
    """Return a message's properties as columns; the user id as text, because 42 and "42" are one user."""
    fields: dict[str, Any] = orjson.loads(value)
    source = fields.pop("source")
    ids = {"user_id": str(fields["user_id"]), "source_partition": source["partition"]}
    return fields | ids | {"source_offset": source["offset"]}
