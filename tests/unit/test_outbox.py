"""What the outbox does when Kafka's client says nothing more; everything else is tested on a real broker."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from confluent_kafka import KafkaError

from configs.loader import load_worker
from streams.errors import FatalError, TransientError
from streams.outbox import KafkaOutbox
from streams.ports import Output


class SilentProducer:
    """Takes messages and never says what became of them: neither delivered nor timed out."""

    purged = False

    def __init__(self) -> None:
        self.calls: list[str] = []

    def produce(self, *_: object, on_delivery: Callable[[KafkaError, None], None], **__: object) -> None:
        self.calls.append("produce")

    def flush(self, seconds: float) -> int:
        assert 30 < seconds < 60, "longer than the delivery timeout"
        self.calls.append("flush")
        return 2

    def purge(self) -> None:
        self.purged = True


def test_messages_of_which_nothing_is_heard_are_sent_again_by_another_producer(monkeypatch: pytest.MonkeyPatch) -> None:
    outbox = KafkaOutbox(load_worker(overrides=["kafka.bootstrap_servers=127.0.0.1:1"]).kafka, 10**6)
    silent = SilentProducer()
    monkeypatch.setattr(outbox, "_producer", silent)
    with pytest.raises(TransientError, match="nothing is heard of 2 messages"):
        outbox.send([Output("clicks", b"k", b"v")] * 2, lambda: silent.calls.append("produced"))
    assert silent.calls == ["produce", "produce", "produced", "flush"]
    assert silent.purged
    assert not isinstance(outbox._producer, SilentProducer)


class HalfSilentProducer(SilentProducer):
    """Refuses the first message, and never says what became of the second."""

    refused: Callable[[KafkaError, None], None] | None = None

    def produce(self, *_: object, on_delivery: Callable[[KafkaError, None], None], **__: object) -> None:
        self.refused = self.refused or on_delivery

    def flush(self, seconds: float) -> int:
        assert self.refused is not None
        self.refused(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED), None)
        return 1


def test_what_kafka_says_of_one_message_counts_more_than_its_silence_about_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    outbox = KafkaOutbox(load_worker(overrides=["kafka.bootstrap_servers=127.0.0.1:1"]).kafka, 10**6)
    monkeypatch.setattr(outbox, "_producer", HalfSilentProducer())
    with pytest.raises(FatalError, match="clicks"):
        outbox.send([Output("clicks", b"k", b"v")] * 2)
    assert not isinstance(outbox._producer, SilentProducer)
