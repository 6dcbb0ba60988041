"""The environment of a chaos scenario: real servers, a proxy in front of Kafka, workers, traffic, and the audit."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np

from configs.errors import TransientError
from embedded import ports
from embedded.errors import EmbeddedError
from embedded.instance import Instance, Reporter
from embedded.kafka import Kafka
from embedded.server import Launch, Server
from embedded.stack import Stack
from embedded.standalone import require_platform
from streams.kafka.reading import read_to_end, watermarks
from streams.messages.recommendations import decode_recommendation
from streams.tools.audit import audit_kafka
from streams.tools.audit_report import AuditReport
from tests.chaos.figures import Figures
from tests.chaos.fleet import Fleet
from tests.chaos.proxy import Proxy
from tests.chaos.traffic import Traffic
from tests.chaos.trips import Trips
from tests.site import Site, wait_for

#: Few enough for two cores, which also run the servers and three workers.
CLICKS_PER_S = 60.0
#: Seconds without a healthy response after which Milvus is restarted.
MILVUS_RESTART_AFTER_S = 15.0
#: Settings of the workers: short timeouts, so that a scenario takes seconds.
WORKER = (
    "worker.session_timeout=6",
    "worker.commit_interval=0.5",
    "worker.retry_longest=1.0",
    # Short, so that workers exit in long outages, and are restarted until the outage is over.
    "worker.retry_budget=20",
    "milvus.timeout=5",
)


class _ProxiedKafka(Kafka):
    """A broker with a second listener, which it advertises at the proxy's port."""

    def __init__(self, instance: Instance, proxy: Proxy) -> None:
        super().__init__(instance)
        self.proxy = proxy

    def launch(self, port: int, report: Reporter) -> Launch:
        launch = super().launch(port, report)
        (hidden,) = ports.pick(1, taken=[port, self.proxy.port])
        self.proxy.target = hidden
        settings = self.home / "server.properties"
        lines = dict(line.split("=", 1) for line in settings.read_text().splitlines() if "=" in line)
        more = {
            "listeners": f"{lines['listeners']},PROXIED://{ports.HOST}:{hidden}",
            "advertised.listeners": f"{lines['advertised.listeners']},PROXIED://{ports.HOST}:{self.proxy.port}",
            "listener.security.protocol.map": f"{lines['listener.security.protocol.map']},PROXIED:PLAINTEXT",
        }
        with settings.open("a") as file:
            file.writelines(f"{name}={value}\n" for name, value in more.items())
        return launch


@dataclass(frozen=True)
class Servers:
    """The servers of all scenarios: `kafka_address` is direct, `proxied_address` goes through the proxy.

    Hold `milvus_lock` while Milvus is down on purpose: otherwise the probe restarts it.
    """

    kafka: Server
    milvus: Server
    milvus_lock: threading.Lock
    proxy: Proxy
    kafka_address: str
    proxied_address: str
    milvus_address: str


@contextmanager
def servers(folder: Path) -> Iterator[Servers]:
    """Run servers for this suite only, because it kills them; Milvus is standalone where that is available."""
    try:
        require_platform()
    except EmbeddedError:
        stack = Stack(folder, milvus="lite", environ={})
    else:
        stack = Stack(folder, milvus="standalone", environ={})
    closing = threading.Event()
    proxy = Proxy()
    kafka = _ProxiedKafka(stack.instance, proxy)
    stack._wanted["kafka"] = kafka
    try:
        addresses = stack.up()
        assert addresses.kafka is not None and addresses.milvus is not None
        proxied = f"{ports.HOST}:{proxy.port}"
        running = Servers(kafka, stack.milvus, threading.Lock(), proxy, addresses.kafka, proxied, addresses.milvus)
        threading.Thread(target=_probe_milvus, args=(running, closing), daemon=True).start()
        yield running
    finally:
        closing.set()
        proxy.close()
        stack.down(wipe=True)


def _probe_milvus(servers: Servers, closing: threading.Event) -> None:
    """Restart Milvus when it stays unhealthy, as a liveness probe does: after a pause it may not recover by itself."""
    healthy = time.monotonic()
    while not closing.wait(2):
        with servers.milvus_lock:
            if closing.is_set() or servers.milvus.healthy():
                healthy = time.monotonic()
            elif time.monotonic() - healthy > MILVUS_RESTART_AFTER_S:
                servers.milvus.kill()
                servers.milvus.start()


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
    """

    def __init__(self, servers: Servers, folder: Path, seed: int, *, short: bool, sabotage: str | None = None) -> None:
        folder.mkdir(parents=True)
        self.short = short
        self.rng = Random(seed)
        self.servers = servers
        self.site = Site(folder, servers.kafka_address, servers.milvus_address)
        self.site.create_topics()
        wait_for(self._fill_index, "Milvus, which the last round may have left unhealthy")
        self.trips = Trips(folder / "trips", sabotage)
        extra = [part for setting in WORKER for part in ("--set", setting)]
        extra += ["--set", f"kafka.bootstrap_servers={servers.proxied_address}"]
        self.fleet = Fleet(self.site, self.trips.environment, extra)
        self.traffic = Traffic(self.site, seed, CLICKS_PER_S)
        self._first_offsets: dict[int, int] = {}  # partition → first offset of the current scenario's recommendations
        self._report = self._audit()

    def __enter__(self) -> Stage:
        self.traffic.start()
        for name in ("one", "two"):
            self.fleet.start(name)
        self.await_fleet()
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
        while not self.fleet.working():
            assert time.monotonic() < deadline, f"not all workers had partitions within {timeout_s:.0f} s"
            time.sleep(0.1)

    def finish(self, scenario: str, timeout_s: float) -> Figures:
        """Pause the traffic, and audit until everything is answered, or for `timeout_s`."""
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
            clicks_missing=max(0, self.traffic.clicks - report.clicks),
            ends=ends,
            shutdowns=shutdowns,
            repeats=report.repeats - before.repeats,
            out_of_order=report.out_of_order - before.out_of_order,
            longest_pause=self._longest_pause(),
            catch_up=time.monotonic() - started,
            items_different=different,
            report=report,
        )

    def begin(self) -> None:
        """Resume the traffic, and wait until all workers process it."""
        self._first_offsets = {p: end for p, (_, end) in self._watermarks().items()}
        self.traffic.resume()
        self.await_fleet()
        self.hold(1.0)

    def _fill_index(self) -> bool:
        """Recreate the collection with the artifact's items; return whether Milvus was available."""
        try:
            index = self.site.index(create=True)
            index.drop()  # all rounds have the same model; the last one has published more items
            index.close()
            self.site.fill_index()
        except TransientError:
            return False
        return True

    def _audit(self) -> AuditReport:
        while True:
            try:
                return audit_kafka(self.site.config)
            except TransientError:
                time.sleep(0.5)

    def _watermarks(self) -> dict[int, tuple[int, int]]:
        return watermarks(self.site.config.kafka, self.site.config.topics.recommendations)

    def _longest_pause(self) -> float:
        written: dict[int, list[float]] = {}  # partition of the click → times of the recommendations
        for record in read_to_end(self.site.config.kafka, self.site.config.topics.recommendations, self._first_offsets):
            source = decode_recommendation(record.message.value or b"").source_partition
            written.setdefault(source, []).append(record.timestamp)
        return max((float(np.diff(sorted(times)).max()) for times in written.values() if len(times) > 1), default=0.0)

    def _items_different(self) -> int:
        try:
            index = self.site.index()
        except TransientError:
            return len(self.traffic.vectors)
        try:
            found = index.get(np.array(list(self.traffic.vectors), dtype=np.int64))
        except TransientError:
            return len(self.traffic.vectors)
        finally:
            index.close()
        return sum(
            item not in found or not np.array_equal(found[item], vector)
            for item, vector in self.traffic.vectors.items()
        )
