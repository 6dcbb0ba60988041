"""The topic `items`, for calls that publish or remove all items: its newest messages, and how far it is processed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Protocol

from streams.errors import BadMessage
from streams.kafka.offsets import TopicOffsets
from streams.messages.items import decode_item_key
from streams.partitioning import KeyPartitions
from streams.ports import Message, Output, RecordProducer
from streams.processing.item_comparison import ContentReader, NewestMessages
from streams.processing.item_messages import KeyValue

#: Messages that are sent before their acknowledgements are awaited.
_CHUNK = 2000


class ItemProgress(Protocol):
    """Offsets that show how far the item worker of the model has processed the topic."""

    def ends(self) -> Mapping[int, int]:
        """Return partition → the offset after its newest message."""
        ...

    def processed(self) -> Mapping[int, int]:
        """Return partition → the offset before which all messages are processed."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


class KafkaItemProgress:
    """`ItemProgress` by the offsets that the item worker commits. For one thread.

    Args:
        offsets: offsets of the topic, and of the consumer group that belongs to the model's collection.
        partitions: number of the topic's partitions.
    """

    def __init__(self, offsets: TopicOffsets, partitions: int) -> None:
        self._offsets = offsets
        self._partitions = range(partitions)

    def ends(self) -> Mapping[int, int]:
        """See `ItemProgress.ends`."""
        return self._offsets.end_offsets(self._partitions)

    def processed(self) -> Mapping[int, int]:
        """See `ItemProgress.processed`."""
        return {p: offset or 0 for p, offset in self._offsets.committed(self._partitions).items()}

    def close(self) -> None:
        """Close the connection."""
        self._offsets.renew()


class ItemsTopic:
    """Reads and writes the topic. For one thread.

    Args:
        name: name of the topic.
        partitions: its partitions.
        messages: reads all its messages, in order within a partition.
        producer: writes to it.
        progress: what the item worker has processed of it.
    """

    def __init__(
        self,
        name: str,
        partitions: KeyPartitions,
        messages: Callable[[], Iterable[Message]],
        producer: RecordProducer,
        progress: ItemProgress,
    ) -> None:
        self.progress = progress
        self._name = name
        self._partitions = partitions
        self._messages = messages
        self._producer = producer

    def newest(self, model_version: str) -> dict[int, NewestMessages]:
        """Return partition → the newest message of each item that belongs to it."""
        contents = ContentReader(model_version)
        found: dict[int, NewestMessages] = {}
        for message in self._messages():
            with suppress(BadMessage):  # a dead letter, which is no item's message
                item_id = decode_item_key(message.key)
                self._partitions.check(message.key or b"", message.partition)
                newest = found.setdefault(message.partition, NewestMessages())
                newest.add(item_id, message.offset, contents.read(message))
        return found

    def send(self, messages: Iterable[KeyValue], partition: int | None = None) -> Iterator[int]:
        """Write messages in chunks; yield the number of messages of each chunk, when it is acknowledged.

        Args:
            messages: keys and values.
            partition: where they go; None = where their keys belong.

        Raises:
            TransientError: Kafka is unavailable.
        """
        outputs = (
            Output(self._name, key, value, self._partitions.target(key) if partition is None else partition)
            for key, value in messages
        )
        while chunk := list(itertools.islice(outputs, _CHUNK)):
            self._producer.send(chunk)
            yield len(chunk)
