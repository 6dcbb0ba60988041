"""Send dead letters back to the topics that they came from."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import click

from configs.schema import Kafka, WorkerConfig
from streams.kafka.client import metadata
from streams.kafka.producer import KafkaRecordProducer
from streams.kafka.topics import HEADER_BYTES, topic_settings
from streams.messages.dead_letters import (
    StoredDeadLetter,
    receipt_output,
    replay_output,
)
from streams.tools.dead_letters import Selection, find
from streams.tools.dead_letters_text import count_text, print_table

#: Letters that are sent before their receipts.
_PORTION = 100


def replay_dead_letters(
    config: WorkerConfig, selection: Selection, *, limit: int | None, again: bool, send: bool
) -> bool:
    """Send the selected letters back to their topics, or say what would be sent.

    Returns:
        Whether all of them can be, or were, sent.

    Raises:
        TransientError: Kafka is away; what was sent until then has its receipts.
    """
    found = find(config, selection)
    wanted = [letter for letter in found.letters if again or letter.kept_at not in found.replayed]
    if before := len(found.letters) - len(wanted):
        click.echo(f"{before} were sent back before and are left out; --again sends them, too")
    wanted = wanted[:limit]
    limits = _limits(config.kafka, {letter.message.topic for letter in wanted})
    faults = {letter.kept_at: _fault(letter, limits) for letter in wanted}
    for letter in wanted:
        if reason := faults[letter.kept_at]:
            click.echo(f"{letter.source} cannot be sent: {reason}", err=True)
    due = [letter for letter in wanted if faults[letter.kept_at] is None]
    if not send:
        if due:
            print_table(due, found.replayed)
        click.echo(f"{count_text(due)} would be sent back" + ("; add --yes to send" if due else ""))
    else:
        sent = 0
        try:
            for portion in _send(config, due, limits):
                sent += portion
        finally:
            click.echo(f"{sent} of {count_text(due)} sent back")
    return len(due) == len(wanted)


def _send(config: WorkerConfig, letters: Sequence[StoredDeadLetter], limits: dict[str, int]) -> Iterator[int]:
    """Send in the order of the source, so that what belongs to one key keeps its order; yields each portion's size."""
    receipts = KafkaRecordProducer(config.kafka, config.topics.max_message_bytes + HEADER_BYTES)
    # One for each topic: batches must not be larger than the topic takes either.
    producers = {topic: KafkaRecordProducer(config.kafka, limit) for topic, limit in limits.items()}
    ordered = sorted(letters, key=lambda letter: letter.source)
    for topic, producer in producers.items():
        of_topic = [letter for letter in ordered if letter.message.topic == topic]
        for start in range(0, len(of_topic), _PORTION):
            portion = of_topic[start : start + _PORTION]
            producer.send([replay_output(letter) for letter in portion])
            receipts.send([receipt_output(config.topics.dead_letters, letter) for letter in portion])
            yield len(portion)


def _limits(kafka: Kafka, topics: Collection[str]) -> dict[str, int]:
    """Topic → bytes of its largest message, of those topics that exist.

    Raises:
        TransientError: Kafka is away.
        FatalError: Kafka refuses to tell.
    """
    existing = metadata(kafka).topics
    found = topic_settings(kafka, [topic for topic in topics if topic in existing])
    return {topic: int(settings["max.message.bytes"]) for topic, settings in found.items()}


def _fault(letter: StoredDeadLetter, limits: dict[str, int]) -> str | None:
    """Why the letter cannot be sent back; None if it can."""
    topic = letter.message.topic
    if omitted := letter.omitted_bytes:
        return f"its {omitted:,} bytes were too large to keep; they are at that place while Kafka keeps them"
    if topic not in limits:
        return f"Kafka has no topic {topic} any more; create it, or send the bytes of `list --json` elsewhere"
    output = replay_output(letter)
    parts = [output.key, output.value, *(part for name, value in output.headers for part in (name.encode(), value))]
    # At most 10 bytes go with each part, and 100 with the message.
    size = sum(len(part or b"") + 10 for part in parts) + 100
    if size > limits[topic]:
        return f"about {size:,} bytes, {topic} takes {limits[topic]:,}; raise max.message.bytes of the topic"
    return None
