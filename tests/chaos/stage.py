"""The environment of a chaos scenario: real servers, a proxy in front of Kafka, workers, traffic, and the audit."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import TypeVar

import numpy as np

from configs.errors import FatalError, TransientError
from model.arrays import FloatMatrix, FloatVector, IdVector
from streams.errors import RestartRequired
from streams.kafka.reading import read_to_end, watermarks
from streams.messages.recommendations import decode_recommendation
from streams.tools.audit import audit_kafka, kept_dead_letters
from streams.tools.audit_report import AuditReport
from tests.chaos.figures import Figures
from tests.chaos.fleet import Fleet
from tests.chaos.poison import POISONED_ITEMS
from tests.chaos.servers import Servers
from tests.chaos.traffic import NEW_ITEMS, Traffic
from tests.chaos.trips import Trips
from tests.site import Site, wait_for

_T = TypeVar("_T")

#: Few enough for two cores, which also run the servers and three workers.
CLICKS_PER_S = 60.0
#: Seconds, more than the workers' session timeout, after which the group has reassigned the partitions.
BEYOND_SESSION_S = 10.0
#: Settings of the workers: short timeouts, so that a scenario takes seconds.
WORKER = (
    "worker.session_timeout=6",
    "worker.commit_interval=0.5",
    "worker.retry_longest=1.0",
    # Short, so that workers exit in long outages, and are restarted until the outage is over.
    "worker.retry_budget=20",
    "milvus.timeout=5",
)


class Stage:
    """Topics, workers and traffic of one round.

    Args:
        servers: the servers of all rounds in this process.
        folder: for logs and data.
        seed: seed of victims, moments and traffic.
        short: keep outages short.
        sabotage: the rule of the delivery guarantee to break, one of `tests.chaos.trips.SABOTAGES`.

    Attributes:
        rng: the scenarios' random number generator.
        sent_back: number of dead letters of the click topic that were sent back to it.
    """

    def __init__(self, servers: Servers, folder: Path, seed: int, *, short: bool, sabotage: str | None = None) -> None:
        folder.mkdir(parents=True)
        self.short = short
        self.rng = Random(seed)
        self.servers = servers
        self.site = Site(folder, servers.kafka_address, servers.milvus_address)
        self.site.create_topics()
        wait_for(self._drop_collection, "Milvus, which the last round may have left unhealthy")
        self.trips = Trips(folder / "trips", sabotage)
        extra = [part for setting in WORKER for part in ("--set", setting)]
        extra += ["--set", f"kafka.bootstrap_servers={servers.proxied_address}"]
        self.fleet = Fleet(self.site, self.trips.environment, extra)
        self.traffic = Traffic(self.site, seed, CLICKS_PER_S)
        self.sent_back = 0
        self._first_offsets: dict[int, int] = {}  # partition → first offset of the current scenario's recommendations
        self._report = self._audited(lambda: audit_kafka(self.site.config))

    def __enter__(self) -> Stage:
        self.traffic.start()
        self.publish(self.site.artifact.item_ids, np.asarray(self.site.artifact.item_vectors))
        for name in ("one", "two"):
            self.fleet.start(name)
        self.await_fleet()
        self.await_items()
        return self

    def __exit__(self, *_: object) -> None:
        with ExitStack() as stack:
            stack.callback(self.fleet.close)
            stack.callback(self.traffic.stop)
            stack.callback(self.servers.proxy.reconnect)

    def hold(self, short_s: float, long_s: float | None = None) -> None:
        """Let the traffic continue for `long_s`; for `short_s` if outages are kept short, or `long_s` is None."""
        time.sleep(short_s if self.short or long_s is None else long_s)

    def victim(self) -> str:
        """Choose a worker."""
        return self.rng.choice(self.fleet.names)

    def await_fleet(self, timeout_s: float = 90) -> None:
        """Wait until every worker has its partitions."""
        deadline = time.monotonic() + timeout_s
        while set(self.fleet.names) - set(self.fleet.working()):
            assert time.monotonic() < deadline, f"not all workers had partitions within {timeout_s:.0f} s"
            time.sleep(0.1)

    def publish(self, ids: IdVector, vectors: FloatMatrix) -> None:
        """Publish items, as producers do."""
        items = dict(zip(ids.tolist(), vectors, strict=True))
        self.site.producer.send([self.site.item(item, vector) for item, vector in items.items()])
        self.traffic.vectors.update(items)

    def await_items(self) -> None:
        """Wait until Milvus has the items that were published before."""
        published = np.array(list(self.traffic.vectors), dtype=np.int64)
        wait_for(lambda: len(self._rows(published)) == len(published), "the items")

    def renew_items(self) -> None:
        """Publish another vector of each item that changes, and wait until Milvus has it."""
        before = dict(self.traffic.vectors)
        self.traffic.renew_items = True
        wait_for(lambda: not self.traffic.renew_items, "the traffic")

        def newest() -> bool:
            found = self._rows(np.array(NEW_ITEMS, dtype=np.int64))
            return all(
                item in found and not np.array_equal(found[item], before.get(item, found[item] + 1))
                for item in NEW_ITEMS
            )

        wait_for(newest, "newer vectors of all items")

    def finish(self, scenario: str, timeout_s: float, unmet: str = "") -> Figures:
        """Pause the traffic, and audit until everything is answered, or for `timeout_s`; see `Figures.unmet`."""
        self.traffic.pause()
        started = time.monotonic()
        report = self._audit()
        different = self._items_different()
        while not (report.ok and not different) and time.monotonic() < started + timeout_s:
            time.sleep(0.5)
            report, different = self._audit(), self._items_different()
        before, self._report = self._report, report
        ends, self.fleet.ends = self.fleet.ends, []
        shutdowns, self.fleet.shutdowns = self.fleet.shutdowns, []
        return Figures(
            scenario,
            clicks=report.clicks - before.clicks,
            clicks_missing=max(0, self.traffic.clicks + self.sent_back - report.clicks),
            ends=ends,
            shutdowns=shutdowns,
            repeats=report.repeats - before.repeats,
            out_of_order=report.out_of_order - before.out_of_order,
            longest_pause=self._longest_pause(),
            catch_up=time.monotonic() - started,
            items_different=different,
            dead_letters_missing=self._audited(self._dead_letters_missing),
            report=report,
            unmet=unmet,
        )

    def begin(self) -> None:
        """Resume the traffic, and wait until all workers process it."""
        self._first_offsets = {p: end for p, (_, end) in self._watermarks().items()}
        self.traffic.resume()
        self.await_fleet()
        self.hold(1.0)

    def _drop_collection(self) -> bool:
        """Drop the collection of the last round, which had the same model; return whether Milvus was available."""
        try:
            index = self.site.index(create=True)
            index.drop()
            index.close()
        except TransientError:
            return False
        return True

    def _audit(self) -> AuditReport:
        return self._audited(lambda: audit_kafka(self.site.config, items=True))

    def _audited(self, audit: Callable[[], _T]) -> _T:
        while True:
            try:
                return audit()
            except TransientError:
                time.sleep(0.5)

    def _dead_letters_missing(self) -> int:
        found = {kept.content: kept.reason for kept in kept_dead_letters(self.site.config).values()}
        return sum(found.get(content) != reason for content, reason in self.traffic.dead_letters.items())

    def _watermarks(self) -> dict[int, tuple[int, int]]:
        return watermarks(self.site.config.kafka, self.site.config.topics.recommendations)

    def _longest_pause(self) -> float:
        written: dict[int, list[float]] = {}  # partition of the click → times of the recommendations
        for record in read_to_end(self.site.config.kafka, self.site.config.topics.recommendations, self._first_offsets):
            source = decode_recommendation(record.message.value or b"").source_partition
            written.setdefault(source, []).append(record.timestamp)
        return max((float(np.diff(sorted(times)).max()) for times in written.values() if len(times) > 1), default=0.0)

    def _items_different(self) -> int:
        """Compare vectors: the audit of the items compares the messages that rows come from."""
        wanted = self.traffic.vectors
        found = self._rows(np.array([*wanted, *POISONED_ITEMS], dtype=np.int64))
        return len(found.keys() - wanted.keys()) + sum(
            item not in found or not np.array_equal(found[item], vector) for item, vector in wanted.items()
        )

    def _rows(self, ids: IdVector) -> Mapping[int, FloatVector]:
        """Return the vectors of those items that Milvus has; none if it is unavailable, or has no collection."""
        try:
            index = self.site.index()
        except (TransientError, FatalError):
            return {}
        try:
            return index.get(ids)
        except (TransientError, RestartRequired):
            return {}
        finally:
            index.close()
