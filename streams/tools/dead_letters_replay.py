"""Replay dead letters: send them back to the topics that they came from.

Delivery is at least once. Dead letters are sent in chunks; when all in-sync replicas have a chunk, its receipts are
written to the dead-letter topic, and dead letters with a receipt are not sent again. If the process is killed between
the two, the next run repeats that chunk, at most `_CHUNK_SIZE` messages; so do two runs at the same time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import click

from configs.schema import Kafka, WorkerConfig
from streams.kafka.client import metadata
from streams.kafka.producer import KafkaRecordProducer
from streams.kafka.topics import DEAD_LETTER_HEADER_BYTES, topic_settings
from streams.messages.dead_letters import StoredDeadLetter, receipt_output, replay_output
from streams.tools.dead_letters import Selection, find_dead_letters
from streams.tools.dead_letters_text import count_text, print_table

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
    limits = _max_message_bytes(config.kafka, {d.message.topic for d in wanted})
    obstacles = {d.kept_at: _obstacle(d, limits) for d in wanted}
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
            for chunk_size in _send(config, sendable, limits):
                sent += chunk_size
        finally:
            click.echo(f"{sent} of {count_text(sendable)} sent back")
    return len(sendable) == len(wanted)


def _send(config: WorkerConfig, dead_letters: Sequence[StoredDeadLetter], limits: Mapping[str, int]) -> Iterator[int]:
    """Send in the order of the original messages, which keeps the order within a key; yield each chunk's size."""
    receipts = KafkaRecordProducer(config.kafka, config.topics.max_message_bytes + DEAD_LETTER_HEADER_BYTES)
    # A producer for each topic: requests, too, must not be larger than the topic's limit.
    producers = {topic: KafkaRecordProducer(config.kafka, limit) for topic, limit in limits.items()}
    ordered = sorted(dead_letters, key=lambda dead_letter: dead_letter.source)
    for topic, producer in producers.items():
        of_topic = [d for d in ordered if d.message.topic == topic]
        for start in range(0, len(of_topic), _CHUNK_SIZE):
            chunk = of_topic[start : start + _CHUNK_SIZE]
            producer.send([replay_output(d) for d in chunk])
            receipts.send([receipt_output(config.topics.dead_letters, d) for d in chunk])
            yield len(chunk)


def _max_message_bytes(kafka: Kafka, topics: Collection[str]) -> dict[str, int]:
    """Return topic → its max.message.bytes, for those topics that exist.

    Raises:
        TransientError: Kafka is unavailable.
        FatalError: Kafka refuses the request.
    """
    existing = metadata(kafka).topics
    found = topic_settings(kafka, [topic for topic in topics if topic in existing])
    return {topic: int(settings["max.message.bytes"]) for topic, settings in found.items()}


def _obstacle(dead_letter: StoredDeadLetter, limits: Mapping[str, int]) -> str | None:
    """Return why a dead letter cannot be sent back; None if it can."""
    topic = dead_letter.message.topic
    if omitted := dead_letter.omitted_bytes:
        return (
            f"its {omitted:,} bytes were too large to keep; they are in the original message, as long as Kafka "
            "retains it"
        )
    if topic not in limits:
        return f"Kafka has no topic {topic} any more; create it, or send the bytes of `list --json` elsewhere"
    output = replay_output(dead_letter)
    parts = [output.key, output.value, *(part for name, value in output.headers for part in (name.encode(), value))]
    # The encoding adds at most 10 bytes to each part, and 100 to the message.
    size_bytes = sum(len(part or b"") + 10 for part in parts) + 100
    if size_bytes > limits[topic]:
        return f"about {size_bytes:,} bytes, but {topic} accepts {limits[topic]:,}; raise the topic's max.message.bytes"
    return None
