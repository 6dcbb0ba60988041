"""The dead-letter topic for people: what lies there, one letter in full, and sending letters back.

Sending back is at least once. Letters go out in portions; when all in-sync replicas have a portion, its receipts follow
on the dead-letter topic, and letters with a receipt are not sent again. A kill between the two sends that portion,
`_PORTION` letters at most, once more with the next run, and so do two runs at the same time.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from configs.schema import WorkerConfig
from streams.kafka.reading import read_to_end
from streams.messages.dead_letters import (
    MessageRef,
    StoredDeadLetter,
    read_dead_letter,
    read_receipt,
)

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, slots=True)
class Selection:
    """Which letters: all conditions together; an empty one lets all pass. Times in seconds since 1970."""

    reasons: Collection[str] = ()
    topics: Collection[str] = ()
    since: float | None = None
    until: float | None = None
    places: Collection[MessageRef] = ()

    def __contains__(self, letter: StoredDeadLetter) -> bool:
        return (
            (not self.reasons or letter.reason in self.reasons)
            and (not self.topics or letter.message.topic in self.topics)
            and (self.since is None or letter.time >= self.since)
            and (self.until is None or letter.time <= self.until)
            and (not self.places or letter.source in self.places or letter.kept_at in self.places)
        )


@dataclass(frozen=True, slots=True)
class Found:
    """Dead letters, oldest first; the replayed ones, by `kept_at`; the number of messages that are not dead letters."""

    letters: list[StoredDeadLetter]
    replayed: set[MessageRef]
    foreign: int


def moment(text: str, now: float) -> float:
    """Seconds since 1970 of an ISO time (local, if it names no zone) or of "30m", "2h", "1d" before now.

    Raises:
        ValueError: it is neither.
    """
    if ago := re.fullmatch(r"(\d+)([smhd])", text):
        return now - int(ago[1]) * _UNITS[ago[2]]
    return datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", text)).timestamp()


def find(config: WorkerConfig, selection: Selection) -> Found:
    """Read the dead-letter topic; only the selected letters are kept in memory.

    A message that was dead-lettered again after a crash counts once.

    Raises:
        TransientError: Kafka is away.
        FatalError: there is no such topic.
    """
    letters: dict[tuple[MessageRef, bytes | None, int], StoredDeadLetter] = {}
    receipts: set[tuple[str, bytes | None]] = set()
    foreign = 0
    for message, headers, _ in read_to_end(config.kafka, config.topics.dead_letters, headers=True):
        letter = read_dead_letter(message, headers)
        if letter is not None and letter in selection:
            letters[letter.source, message.key, hash(message.value)] = letter
        elif (source := read_receipt(headers)) is not None:
            receipts.add((source, message.key))
        elif letter is None:
            foreign += 1
    found = sorted(letters.values(), key=lambda letter: (letter.time, letter.source))
    replayed = {letter.kept_at for letter in found if (str(letter.source), letter.message.key) in receipts}
    return Found(found, replayed, foreign)
