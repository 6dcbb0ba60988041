"""The demo's messages: broken ones are sent on purpose, and the others are counted."""

from __future__ import annotations

import json

from configs.schema import Topics, WorkerConfig
from embedded.demo.scoreboard import Scoreboard
from streams.kafka.producer import KafkaRecordProducer
from streams.kafka.reading import ReceivedMessage
from streams.messages.clicks import decode_click
from streams.messages.recommendations import decode_recommendation
from streams.ports import Output

#: Keys and values of messages that no worker can read; each becomes a dead letter.
BROKEN_MESSAGES = (
    (b"broken-1", b"this is not JSON"),
    (b"broken-2", json.dumps({"user_id": "broken-2", "ts": 1.0}).encode()),
    (b"broken-3", None),
)


def send_broken_messages(config: WorkerConfig) -> None:
    """Send `BROKEN_MESSAGES` to the topic of the clicks.

    Raises:
        TransientError, FatalError: Kafka is unavailable, or refuses.
    """
    producer = KafkaRecordProducer(config.kafka, config.topics.max_message_bytes, config.topics.partitioner)
    producer.send([Output(config.topics.clicks, key, value) for key, value in BROKEN_MESSAGES])


def count_message(board: Scoreboard, topics: Topics, record: ReceivedMessage) -> None:
    """Count a click, a recommendation or a dead letter; skip broken messages, which are counted as dead letters."""
    message = record.message
    if message.topic == topics.dead_letters:
        board.dead_letters += 1
    elif message.topic == topics.recommendations:
        assert message.key is not None and message.value is not None  # the worker wrote it
        board.add_recommendation(message.key, decode_recommendation(message.value), record.timestamp)
    elif (message.key, message.value) not in BROKEN_MESSAGES:
        assert message.key is not None  # the replay wrote it
        board.add_click(message.key, message.offset, decode_click(message.key, message.value))
