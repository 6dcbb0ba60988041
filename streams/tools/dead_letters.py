"""Find dead letters on their topic."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from configs.schema import WorkerConfig
from streams.kafka.reading import read_to_end
from streams.messages.dead_letters import MessageRef, StoredDeadLetter, read_dead_letter, read_receipt

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, slots=True)
class Selection:
    """Conditions on dead letters, all of which must hold; an empty one always holds.

    Attributes:
        reasons: `streams.errors.Reason`s.
        topics: topics of the original messages.
        since, until: limits of the time at which the message became a dead letter, in seconds since 1970, inclusive.
        refs: references of original messages or of dead letters.
    """

    reasons: Collection[str] = ()
    topics: Collection[str] = ()
    since: float | None = None
    until: float | None = None
    refs: Collection[MessageRef] = ()

    def __contains__(self, dead_letter: StoredDeadLetter) -> bool:
        return (
            (not self.reasons or dead_letter.reason in self.reasons)
            and (not self.topics or dead_letter.message.topic in self.topics)
            and (self.since is None or dead_letter.time >= self.since)
            and (self.until is None or dead_letter.time <= self.until)
            and (not self.refs or dead_letter.source in self.refs or dead_letter.kept_at in self.refs)
        )


@dataclass(frozen=True, slots=True)
class FoundDeadLetters:
    """Selected dead letters.

    Attributes:
        dead_letters: oldest first.
        replayed: those that were sent back, by `kept_at`.
        foreign: number of messages on the topic that are not dead letters.
    """

    dead_letters: list[StoredDeadLetter]
    replayed: set[MessageRef]
    foreign: int


def parse_time(text: str, now: float) -> float:
    """Parse an ISO time (local, unless it has a zone), or an age such as "30m", "2h", "1d", as seconds since 1970.

    Raises:
        ValueError: the text is neither.
    """
    if age := re.fullmatch(r"(\d+)([smhd])", text):
        return now - int(age[1]) * _SECONDS[age[2]]
    return datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", text)).timestamp()


def find_dead_letters(config: WorkerConfig, selection: Selection) -> FoundDeadLetters:
    """Read the dead-letter topic; only the selected dead letters are kept in memory.

    A message that was dead-lettered again after a crash counts once.

    Raises:
        TransientError: Kafka is unavailable.
        FatalError: there is no such topic.
    """
    selected: dict[tuple[MessageRef, bytes | None, int], StoredDeadLetter] = {}
    receipts: set[tuple[str, bytes | None]] = set()
    foreign = 0
    for message, headers, _ in read_to_end(config.kafka, config.topics.dead_letters, headers=True):
        dead_letter = read_dead_letter(message, headers)
        if dead_letter is not None and dead_letter in selection:
            selected[dead_letter.source, message.key, hash(message.value)] = dead_letter
        elif (source := read_receipt(headers)) is not None:
            receipts.add((source, message.key))
        elif dead_letter is None:
            foreign += 1
    dead_letters = sorted(selected.values(), key=lambda dead_letter: (dead_letter.time, dead_letter.source))
    replayed = {d.kept_at for d in dead_letters if (str(d.source), d.message.key) in receipts}
    return FoundDeadLetters(dead_letters, replayed, foreign)
