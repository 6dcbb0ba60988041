"""An agent's dead letters: kept on their topic, counted, and the first one of each reason logged."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from streams.errors import Reason
from streams.messages.dead_letters import DeadLetterTopic, MessageRef
from streams.metrics import BatchMetrics
from streams.ports import DeadLetter, Output

_LOG = logging.getLogger("mindstream.deadletters")


class DeadLetters:
    """Turns dead letters into messages, and counts them once they are sent.

    Args:
        topic: keeps them.
        metrics: counts them.
    """

    def __init__(self, topic: DeadLetterTopic, metrics: BatchMetrics) -> None:
        self._topic = topic
        self._counts = metrics.dead_letters
        self._logged: set[Reason] = set()

    def outputs(self, dead_letters: Iterable[DeadLetter], now: float) -> list[Output]:
        """Return the messages that keep these dead letters; `now` in seconds since 1970."""
        return self._topic.outputs(dead_letters, now)

    def count(self, dead_letters: Iterable[DeadLetter]) -> None:
        """Count dead letters that Kafka has acknowledged, and log the first one of each reason in this process."""
        for dead_letter in dead_letters:
            reason = dead_letter.reason
            self._counts.labels(reason).inc()
            if reason not in self._logged:
                self._logged.add(reason)
                ref = MessageRef.from_message(dead_letter.message)
                _LOG.warning(
                    "%s is a dead letter: %s: %s. Show it: python -m streams deadletters show %s. Further ones of this "
                    "reason are only counted",
                    *(ref, reason, dead_letter.detail, ref),
                )
