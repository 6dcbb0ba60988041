"""What the topics say about a run: when each click came and when it was answered, by the broker's clock.

Everything is read after the run: reading along would take CPU time from what is measured.
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

#: More than the offsets of one partition: user · _SPAN + offset is one number for both, in the order of both.
_SPAN = 2**40


@dataclass(frozen=True, slots=True)
class Events:
    """n clicks, or n answers to clicks.

    Attributes:
        place: (n,) user and offset of the click as one number; the larger of two of one user is the newer click.
        at: (n,) when the broker stored the click or the answer, seconds since 1970.
    """

    place: IntVector
    at: DoubleArray

    def __len__(self) -> int:
        return len(self.at)


@dataclass(frozen=True, slots=True)
class Phase:
    """The clicks and answers of one part of a run."""

    clicks: Events
    answers: Events

    def delays(self) -> DoubleArray:
        """(n,) seconds from each click to the first answer to it or to a newer click of its user.

        Raises:
            BenchmarkError: some clicks have no answer.
        """
        order = np.lexsort((self.answers.at, self.answers.place))  # of repeats, the first comes first
        places, at = self.answers.place[order], self.answers.at[order]
        found = np.searchsorted(places, self.clicks.place)
        answered = found < len(places)
        answered[answered] = places[found[answered]] // _SPAN == self.clicks.place[answered] // _SPAN
        if not answered.all():
            raise BenchmarkError(f"{np.count_nonzero(~answered)} of {len(self.clicks)} clicks have no answer")
        delays: DoubleArray = at[found] - self.clicks.at
        return delays

    def rate(self) -> float:
        """Clicks answered a second, while the middle 80 % of them were: neither the start nor the end counts."""
        return _steady(self.clicks.at + self.delays())

    def progress(self) -> tuple[DoubleArray, DoubleArray]:
        """(51,) seconds since the first click was answered, and how many were by then."""
        share = np.linspace(0, 1, 51)
        at: DoubleArray = np.quantile(self.clicks.at + self.delays(), share)
        return at - at[0], share * len(self.clicks)

    def answer_rate(self) -> float:
        """Answers a second, likewise."""
        return _steady(self.answers.at)

    def coalesced(self) -> float:
        """Share of the clicks that were answered by the answer to a newer click."""
        return 1 - len(np.unique(self.answers.place)) / len(self.clicks)

    def lateness(self, rate: float) -> DoubleArray:
        """(n,) seconds by which each click came after its moment in a schedule of `rate` clicks a second.

        The schedule is the latest one that no click is ahead of.
        """
        order = np.argsort(self.clicks.at, kind="stable")
        late = np.empty(len(order))
        late[order] = self.clicks.at[order] - np.arange(len(order)) / rate
        late -= late.min()
        return late


class Recorder:
    """Tells the phases of a site's run apart by where its topics end."""

    def __init__(self, site: BenchmarkSite) -> None:
        self._site = site
        self._begin: Mapping[str, Mapping[int, int]] = {}

    def phase(self) -> Phase:
        """What has come since the last phase, the first time since the beginning."""
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
    """Events from records with partition and offset of their click; `users` counts the users."""
    places, at = array("q"), array("d")
    for record, partition, offset in records:
        user = users.setdefault((partition, record.message.key or b""), len(users))
        places.append(user * _SPAN + offset)
        at.append(record.timestamp)
    return Events(np.array(places, dtype=np.int64), np.array(at, dtype=np.float64))


def _source(record: ReceivedMessage) -> tuple[int, int]:
    assert record.message.value is not None  # the worker wrote it
    answer = decode_recommendation(record.message.value)
    return answer.source_partition, answer.source_offset


def _steady(moments: DoubleArray) -> float:
    """Events a second between the moments at which a tenth and nine tenths of them had happened."""
    begin, end = np.quantile(moments, [0.1, 0.9])
    return 0.8 * len(moments) / max(float(end - begin), 1e-3)  # the broker's clock counts milliseconds
