"""What the outbox does when Kafka's client says nothing more; everything else is tested on a real broker."""

from __future__ import annotations

import pytest

from configs.loader import load_worker
from streams.errors import TransientError
from streams.outbox import KafkaOutbox
from streams.ports import Output


class SilentProducer:
    """Takes messages and never says what became of them: neither delivered nor timed out."""

    purged = False

    def produce(self, *_: object, **__: object) -> None: ...

    def flush(self, seconds: float) -> int:
        assert 30 < seconds < 60, "longer than the delivery timeout"
        return 2

    def purge(self) -> None:
        self.purged = True


def test_messages_of_which_nothing_is_heard_are_sent_again_by_another_producer(monkeypatch: pytest.MonkeyPatch) -> None:
    outbox = KafkaOutbox(load_worker(overrides=["kafka.bootstrap_servers=127.0.0.1:1"]).kafka, 10**6)
    silent = SilentProducer()
    monkeypatch.setattr(outbox, "_producer", silent)
    with pytest.raises(TransientError, match="nothing is heard of 2 messages"):
        outbox.send([Output("clicks", b"k", b"v")] * 2)
    assert silent.purged
    assert not isinstance(outbox._producer, SilentProducer)
