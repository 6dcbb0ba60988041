"""Clicks and recommendations of a run, read from the topics, with the broker's times.

They are read after the run: reading them during it would take CPU time from what is measured.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.site import BenchmarkSite
from model.arrays import DoubleArray, IntVector
from streams.kafka.reading import ReceivedMessage, read_to_end, watermarks
from streams.messages.recommendations import decode_recommendation

#: More than the offsets of one partition, so that user · _SPAN + offset orders by user, then by offset.
_SPAN = 2**40


@dataclass(frozen=True, slots=True)
class Events:
    """n clicks, or n answers (recommendations) to clicks.

    Attributes:
        position: (n,) user · `_SPAN` + offset of the click; the larger of two of a user is the newer click.
        at: (n,) when the broker stored the click or the answer, in seconds since 1970.
    """

    position: IntVector
    at: DoubleArray

    def __len__(self) -> int:
        return len(self.at)


@dataclass(frozen=True, slots=True)
class Phase:
    """The clicks and answers of one part of a run."""

    clicks: Events
    answers: Events

    def delays(self) -> DoubleArray:
        """Return (n,) seconds from each click to the first answer to it or to a newer click of its user.

        Raises:
            BenchmarkError: some clicks have no answer.
        """
        order = np.lexsort((self.answers.at, self.answers.position))  # the first of repeated answers comes first
        positions, at = self.answers.position[order], self.answers.at[order]
        found = np.searchsorted(positions, self.clicks.position)
        answered = found < len(positions)
        answered[answered] = positions[found[answered]] // _SPAN == self.clicks.position[answered] // _SPAN
        if not answered.all():
            raise BenchmarkError(f"{np.count_nonzero(~answered)} of {len(self.clicks)} clicks have no answer")
        delays: DoubleArray = at[found] - self.clicks.at
        return delays

    def rate(self) -> float:
        """Return the clicks answered per second, over the middle 80 % of them: without start and end."""
        return _middle_rate(self.clicks.at + self.delays())

    def progress(self) -> tuple[DoubleArray, DoubleArray]:
        """Return (51,) seconds since the first click was answered, and (51,) clicks answered by then."""
        share = np.linspace(0, 1, 51)
        at: DoubleArray = np.quantile(self.clicks.at + self.delays(), share)
        return at - at[0], share * len(self.clicks)

    def answer_rate(self) -> float:
        """Return the answers per second, over the middle 80 % of them."""
        return _middle_rate(self.answers.at)

    def coalesced_share(self) -> float:
        """Return the share of the clicks that were answered by the answer to a newer click."""
        return 1 - len(np.unique(self.answers.position)) / len(self.clicks)

    def lateness(self, rate: float) -> DoubleArray:
        """Return (n,) seconds by which each click came after its scheduled time, at `rate` clicks/s.

        The schedule begins as late as possible without any click before its scheduled time.
        """
        order = np.argsort(self.clicks.at, kind="stable")
        late = np.empty(len(order))
        late[order] = self.clicks.at[order] - np.arange(len(order)) / rate
        late -= late.min()
        return late


class Recorder:
    """Separates the phases of a run: each begins where the topics ended when the last one was read."""

    def __init__(self, site: BenchmarkSite) -> None:
        self._site = site
        self._begin: Mapping[str, Mapping[int, int]] = {}

    def phase(self) -> Phase:
        """Return the clicks and answers since the last call, at first since the beginning of the topics."""
        topics, kafka = self._site.config.topics, self._site.config.kafka
        users: dict[tuple[int, bytes], int] = {}
        begin, self._begin = self._begin, self._ends()
        clicks = read_to_end(kafka, topics.clicks, begin.get(topics.clicks))
        answers = read_to_end(kafka, topics.recommendations, begin.get(topics.recommendations))
        return Phase(
            _events(((r, r.message.partition, r.message.offset) for r in clicks), users),
            _events(((r, *_source(r)) for r in answers), users),
        )

    def _ends(self) -> Mapping[str, Mapping[int, int]]:
        topics, kafka = self._site.config.topics, self._site.config.kafka
        return {
            topic: {p: end for p, (_, end) in watermarks(kafka, topic).items()}
            for topic in (topics.clicks, topics.recommendations)
        }


def _events(records: Iterable[tuple[ReceivedMessage, int, int]], users: dict[tuple[int, bytes], int]) -> Events:
    """Return the events of records, each with partition and offset of its click; `users` numbers the users."""
    positions, at = array("q"), array("d")
    for record, partition, offset in records:
        user = users.setdefault((partition, record.message.key or b""), len(users))
        positions.append(user * _SPAN + offset)
        at.append(record.timestamp)
    return Events(np.array(positions, dtype=np.int64), np.array(at, dtype=np.float64))


def _source(record: ReceivedMessage) -> tuple[int, int]:
    assert record.message.value is not None  # the worker wrote it
    answer = decode_recommendation(record.message.value)
    return answer.source_partition, answer.source_offset


def _middle_rate(moments: DoubleArray) -> float:
    """Return the events per second between the moments at which 10 % and 90 % of them had happened."""
    begin, end = np.quantile(moments, [0.1, 0.9])
    return 0.8 * len(moments) / max(float(end - begin), 1e-3)  # the broker's times are whole milliseconds
