"""Throughput and latency of one click worker.

Throughput: all clicks lie in the topic before the worker starts; the time runs from its taking the partitions until
the last user's newest click is answered. One recommendation answers all clicks of a user in a batch: the others are
"coalesced".

Latency: clicks at a steady pace. It runs from handing the click to its producer until the broker has stored the first
recommendation that takes the click into account: record time stamps, so reading the answers costs nothing.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from benchmarks.benchmark import Benchmark, Sizes
from benchmarks.data import click_log, random_artifact
from benchmarks.report import Figure, percentiles
from benchmarks.stage import PATIENCE, BenchmarkError, Site, Stage, Worker
from configs.schema import ReplayConfig
from producers.cli import progress_bar
from producers.clicks import ClickLog
from producers.replay import clicks_sender, replay
from streams.kafka import Record, follow, read_to_end
from streams.messages import decode_recommendation

#: Partition and key of a user's clicks.
User = tuple[int, bytes]


@dataclass(frozen=True, slots=True)
class Stamp:
    """A click or an answer: the offset of the click, and a time in seconds since 1970."""

    user: User
    offset: int
    at: float


def run(stage: Stage, sizes: Sizes) -> Sequence[Figure]:
    artifact = random_artifact(stage.folder / "clicks", sizes["catalogue"], sizes["dim"])
    settings = {"batch.size": sizes["batch"], "milvus.timeout": 30.0}
    with stage.site("clicks", artifact, settings) as site:
        site.fill_index()
        log = click_log(sizes["clicks"], sizes["users"], sizes["catalogue"])
        _send(stage, site.replay, log)
        backlog = _clicks(site)
        with closing(Answers(site)) as answers, site.worker("clicks") as worker:
            first = answers.until(backlog, worker)
            throughput = _throughput(backlog, first, worker.ready)
            sent = _paced(stage, site, log, sizes)
            paced = [click for click in _clicks(site) if click.at >= sent]
            latencies = delays(paced, answers.until(paced, worker))
    name = f"click → recommendation at {sizes['rate']} clicks/s"
    return [*throughput, *percentiles(name, latencies, (50, 95, 99, 100))]


class Answers:
    """Reads the recommendations as they come."""

    def __init__(self, site: Site) -> None:
        self._records = follow(site.config.kafka, [site.config.topics.recommendations])
        next(self._records)  # subscribes: what is written from now on is seen

    def until(self, clicks: Sequence[Stamp], worker: Worker) -> list[Stamp]:
        """Answers until the newest of these clicks of every user is answered.

        Raises:
            BenchmarkError: the worker ends, or writes nothing for a long time.
        """
        open_users = newest(clicks)
        total, found = len(open_users), []
        deadline = time.monotonic() + PATIENCE
        with progress_bar(total, "users answered") as show:
            while open_users:
                record = next(self._records)
                if record is None:
                    worker.check()
                    if time.monotonic() > deadline:
                        raise BenchmarkError(f"{len(open_users)} of {total} users without answer; is Milvus too slow?")
                    continue
                deadline = time.monotonic() + PATIENCE
                answer = _answer(record)
                found.append(answer)
                if answer.offset >= open_users.get(answer.user, answer.offset + 1):
                    del open_users[answer.user]
                    show(total - len(open_users))
        return found

    def close(self) -> None:
        """Ends the connection."""
        # `follow` is a generator: closing it runs its clean-up.
        self._records.close()  # type: ignore[attr-defined]


def newest(clicks: Iterable[Stamp]) -> dict[User, int]:
    """User → offset of the newest click."""
    found: dict[User, int] = {}
    for click in clicks:
        found[click.user] = max(click.offset, found.get(click.user, -1))
    return found


def delays(clicks: Sequence[Stamp], answers: Sequence[Stamp]) -> list[float]:
    """Seconds from each click to the first answer to it or to a later click of its user."""
    by_user: Mapping[User, list[Stamp]] = defaultdict(list)
    for answer in answers:
        by_user[answer.user].append(answer)
    found = []
    for click in clicks:
        candidates = by_user[click.user]  # in the order of the topic, so with rising offsets
        place = bisect_left([a.offset for a in candidates], click.offset)
        found.append(candidates[place].at - click.at)
    return found


def _throughput(clicks: Sequence[Stamp], answers: Sequence[Stamp], begin: float) -> list[Figure]:
    seconds = max(answer.at for answer in answers) - begin
    distinct = len({(answer.user, answer.offset) for answer in answers})
    return [
        Figure("clicks answered", len(clicks) / seconds, "clicks/s"),
        Figure("recommendations", distinct / seconds, "recommendations/s"),
        Figure("coalesced: answered by a newer click of the user", 100 * (1 - distinct / len(clicks)), "% of clicks"),
    ]


def _send(stage: Stage, config: ReplayConfig, log: ClickLog) -> None:
    stage.report(f"Sending {config.replay.limit or len(log):,} clicks")
    report = replay(log, config, clicks_sender(config))
    if report.failed:
        raise BenchmarkError(f"Kafka did not take {report.failed} clicks: {report.reasons.most_common(1)}")


def _paced(stage: Stage, site: Site, log: ClickLog, sizes: Sizes) -> float:
    """Sends clicks at the pace; returns when it began, in seconds since 1970."""
    pace = {"rate": float(sizes["rate"]), "limit": sizes["rate"] * sizes["seconds"], "loop": True}
    paced = site.replay.model_copy(update={"replay": site.replay.replay.model_copy(update=pace)})
    began = int(time.time() * 1000) / 1000  # record time stamps are whole milliseconds
    _send(stage, paced, log)
    return began


def _clicks(site: Site) -> list[Stamp]:
    """All clicks of the topic, with the time of the producer."""
    return [
        Stamp((message.partition, message.key or b""), message.offset, written)
        for message, _, written in read_to_end(site.config.kafka, site.config.topics.clicks)
    ]


def _answer(record: Record) -> Stamp:
    assert record.message.value is not None and record.message.key is not None  # the worker wrote it
    answer = decode_recommendation(record.message.value)
    return Stamp((answer.source_partition, record.message.key), answer.source_offset, record.written)


_SHARED = {"dim": 64, "seconds": 20}
BENCHMARK = Benchmark(
    run,
    {
        "standalone": {"clicks": 20_000, "users": 2_000, "catalogue": 20_000, "batch": 256, "rate": 50} | _SHARED,
        # milvus-lite is Python and answers some hundred queries a second: small batches keep the answers coming.
        "lite": {"clicks": 1_000, "users": 200, "catalogue": 2_000, "batch": 4, "rate": 10} | _SHARED,
    },
    kafka=True,
    milvus=True,
)
