"""Replay dead letters: send them back to the topics that they came from.

Delivery is at least once. Dead letters are sent in chunks; when all in-sync replicas have a chunk, its receipts are
written to the dead-letter topic, and dead letters with a receipt are not sent again. If the process is killed between
the two, the next run repeats that chunk, at most `_CHUNK_SIZE` messages; so do two runs at the same time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import click

from configs.schema import Kafka, WorkerConfig
from streams.kafka.client import metadata
from streams.kafka.producer import KafkaRecordProducer
from streams.kafka.topics import DEAD_LETTER_HEADER_BYTES, topic_settings
from streams.messages.dead_letters import StoredDeadLetter, receipt_output, replay_output
from streams.ports import Output
from streams.tools.dead_letters import Selection, find_dead_letters
from streams.tools.dead_letters_text import count_text, print_table


class _Topic(NamedTuple):
    """A topic to send to: its largest message in bytes, and its number of partitions."""

    max_message_bytes: int
    partitions: int


#: Dead letters in a chunk: all are sent, then their receipts.
_CHUNK_SIZE = 100


def replay_dead_letters(
    config: WorkerConfig, selection: Selection, *, limit: int | None, again: bool, send: bool
) -> bool:
    """Send the selected dead letters back to their topics, or print what would be sent.

    Args:
        config: names the cluster and the topics.
        selection: conditions on the dead letters.
        limit: most dead letters, the oldest ones; None = all.
        again: include those that were sent back before.
        send: send them; otherwise nothing is sent.

    Returns:
        True if all of them can be sent, or were sent.

    Raises:
        TransientError: Kafka is unavailable. Chunks that were acknowledged before have their receipts.
        FatalError: there is no dead-letter topic, or Kafka refuses to describe the topics or to accept the messages.
    """
    found = find_dead_letters(config, selection)
    wanted = [d for d in found.dead_letters if again or d.kept_at not in found.replayed]
    if skipped := len(found.dead_letters) - len(wanted):
        click.echo(f"skipped {skipped} that were sent back before; --again includes them")
    wanted = wanted[:limit]
    topics = _find_topics(config.kafka, {d.message.topic for d in wanted})
    obstacles = {d.kept_at: _obstacle(d, replay_output(d, _partition(config, d)), topics) for d in wanted}
    for dead_letter in wanted:
        if obstacle := obstacles[dead_letter.kept_at]:
            click.echo(f"{dead_letter.source} cannot be sent: {obstacle}", err=True)
    sendable = [d for d in wanted if obstacles[d.kept_at] is None]
    if not send:
        if sendable:
            print_table(sendable, found.replayed)
        click.echo(f"{count_text(sendable)} would be sent back" + ("; add --yes to send" if sendable else ""))
    else:
        sent = 0
        try:
            for chunk_size in _send(config, sendable, topics):
                sent += chunk_size
        finally:
            click.echo(f"{sent} of {count_text(sendable)} sent back")
    return len(sendable) == len(wanted)


def _send(
    config: WorkerConfig, dead_letters: Sequence[StoredDeadLetter], topics: Mapping[str, _Topic]
) -> Iterator[int]:
    """Send in the order of the original messages, which keeps the order within a key; yield each chunk's size."""
    kafka, partitioner = config.kafka, config.topics.partitioner
    receipts = KafkaRecordProducer(kafka, config.topics.max_message_bytes + DEAD_LETTER_HEADER_BYTES, partitioner)
    ordered = sorted(dead_letters, key=lambda dead_letter: dead_letter.source)
    for name, topic in topics.items():
        # A producer for each topic: requests, too, must not be larger than the topic's limit.
        producer = KafkaRecordProducer(kafka, topic.max_message_bytes, partitioner)
        of_topic = [d for d in ordered if d.message.topic == name]
        for start in range(0, len(of_topic), _CHUNK_SIZE):
            chunk = of_topic[start : start + _CHUNK_SIZE]
            producer.send([replay_output(d, _partition(config, d)) for d in chunk])
            receipts.send([receipt_output(config.topics.dead_letters, d) for d in chunk])
            yield len(chunk)


def _partition(config: WorkerConfig, dead_letter: StoredDeadLetter) -> int | None:
    """Return the partition to send to; None = the producer's partitioner chooses it, which keeps a user together."""
    return dead_letter.message.partition if config.topics.partitioner == "any" else None


def _find_topics(kafka: Kafka, names: Collection[str]) -> dict[str, _Topic]:
    """Return those of the topics that exist.

    Raises:
        TransientError: Kafka is unavailable.
        FatalError: Kafka refuses the request.
    """
    existing = metadata(kafka).topics
    found = topic_settings(kafka, [name for name in names if name in existing])
    return {
        name: _Topic(int(settings["max.message.bytes"]), len(existing[name].partitions))
        for name, settings in found.items()
    }


def _obstacle(dead_letter: StoredDeadLetter, output: Output, topics: Mapping[str, _Topic]) -> str | None:
    """Return why a dead letter cannot be sent back; None if it can."""
    if omitted := dead_letter.omitted_bytes:
        return (
            f"its {omitted:,} bytes were too large to keep; they are in the original message, as long as Kafka "
            "retains it"
        )
    if output.topic not in topics:
        return f"Kafka has no topic {output.topic} any more; create it, or send the bytes of `list --json` elsewhere"
    topic = topics[output.topic]
    if output.partition is not None and output.partition >= topic.partitions:
        return f"{output.topic} has no partition {output.partition} any more; set topics.partitioner"
    parts = [output.key, output.value, *(part for name, value in output.headers for part in (name.encode(), value))]
    # The encoding adds at most 10 bytes to each part, and 100 to the message.
    size_bytes = sum(len(part or b"") + 10 for part in parts) + 100
    if size_bytes > topic.max_message_bytes:
        return (
            f"about {size_bytes:,} bytes, but {output.topic} accepts {topic.max_message_bytes:,}; raise the topic's "
            "max.message.bytes"
        )
    return None
