"""What a chaos scenario plays on: real servers, a proxy before Kafka, a fleet of workers, traffic, the audit."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np

from configs.errors import EXIT_TRANSIENT, TransientError
from embedded import ports
from embedded.errors import EmbeddedError
from embedded.instance import Reporter
from embedded.kafka import Kafka
from embedded.server import Launch, Server
from embedded.stack import Stack
from embedded.standalone import require_platform
from streams.kafka.reading import read_to_end, watermarks
from streams.messages.recommendations import decode_recommendation
from streams.tools.audit import AuditReport, audit_kafka
from tests.chaos.fleet import Fleet, Leaving
from tests.chaos.proxy import Proxy
from tests.chaos.traffic import Traffic
from tests.chaos.trips import Trips
from tests.site import Site, wait_for

#: Clicks a second; two cores carry the servers, three workers and this.
RATE = 60.0
#: Seconds without an answer after which Milvus is restarted.
MILVUS_PATIENCE = 15.0
#: How workers may end that are not told to: killed, or after their retry budget.
KILLED, EXPECTED = -signal.SIGKILL, {-signal.SIGKILL, EXIT_TRANSIENT}
#: Seconds that a worker which is told to go may take.
LEAVES_WITHIN = 5.0
#: Settings of the workers: short time-outs, so that a scenario takes seconds.
WORKER = (
    "worker.session_timeout=6",
    "worker.commit_interval=0.5",
    "worker.retry_longest=1.0",
    # So that a long outage ends processes, which start again until it is over.
    "worker.retry_budget=20",
    "milvus.timeout=5",
)


class _ProxiedKafka(Kafka):
    """A broker with a second listener, which it advertises at the proxy's port."""

    proxy: Proxy

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
    """The servers of all rounds: `kafka_address` is direct, `proxied_address` goes through the proxy.

    Hold `milvus_lock` while Milvus is down on purpose: else its probe starts it again.
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
    """Kafka and Milvus of the suite's own, because it kills them. Milvus standalone where it runs."""
    try:
        require_platform()
    except EmbeddedError:
        stack = Stack(folder, milvus="lite", environ={})
    else:
        stack = Stack(folder, milvus="standalone", environ={})
    closing = threading.Event()
    proxy = Proxy()
    kafka = _ProxiedKafka(stack.instance)
    kafka.proxy = proxy
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
    """Restart a Milvus that is long unwell, as a liveness probe does: after a pause its parts disown each other."""
    well = time.monotonic()
    while not closing.wait(2):
        with servers.milvus_lock:
            if closing.is_set() or servers.milvus.healthy():
                well = time.monotonic()
            elif time.monotonic() - well > MILVUS_PATIENCE:
                servers.milvus.kill()
                servers.milvus.start()


@dataclass(frozen=True)
class Figures:
    """What one scenario did and found.

    Attributes:
        clicks: messages that came to the click topic meanwhile.
        clicks_missing: messages that Kafka acknowledged since the round began, and does not hold.
        ends: exit statuses of workers that ended by themselves; -9 = killed.
        leavings: how workers left that were told to.
        repeats: recommendations that repeat another one's source.
        out_of_order: recommendations that came after one for a newer click of the same user.
        longest_pause: seconds between two recommendations for clicks of one partition, by the broker's clock.
        catch_up: seconds from the end of the traffic until the audit balanced.
        items_different: published items whose vector in Milvus is not the one published last.
        report: the audit of everything since the round began.
    """

    scenario: str
    clicks: int
    clicks_missing: int
    ends: list[int]
    leavings: list[Leaving]
    repeats: int
    out_of_order: int
    longest_pause: float
    catch_up: float
    items_different: int
    report: AuditReport

    @property
    def ok(self) -> bool:
        return not self.wrong

    @property
    def wrong(self) -> list[str]:
        """What is not as it must be, for people."""
        strange = sorted(set(self.ends) - EXPECTED)
        unclean = sorted({leaving.status for leaving in self.leavings} - {0})
        slowest = max((leaving.seconds for leaving in self.leavings), default=0.0)
        parts = [
            (not self.report.ok, f"the books do not balance:\n{self.report.to_text()}"),
            (self.items_different, f"items different: {self.items_different}"),
            (self.clicks_missing, f"clicks that Kafka acknowledged and does not hold: {self.clicks_missing}"),
            (strange, f"workers ended with {strange}, which no fault here explains"),
            (unclean, f"workers left with {unclean} after SIGTERM, not with 0"),
            (
                slowest >= LEAVES_WITHIN,
                f"a worker left {slowest:.1f} s after SIGTERM; {LEAVES_WITHIN:.0f} s are allowed",
            ),
        ]
        return [text for found, text in parts if found]


class Stage:
    """One round's topics, workers and traffic.

    Attributes:
        short: whether outages are kept short.
        rng: chooses victims and moments.
    """

    def __init__(self, servers: Servers, folder: Path, seed: int, *, short: bool, sabotage: str | None = None) -> None:
        folder.mkdir(parents=True)
        self.short = short
        self.rng = Random(seed)
        self.servers = servers
        self.site = Site(folder, servers.kafka_address, servers.milvus_address)
        self.site.create_topics()
        wait_for(self._filled, "Milvus, which the last round may have left half-way")
        self.trips = Trips(folder / "trips", sabotage)
        extra = [part for setting in WORKER for part in ("--set", setting)]
        extra += ["--set", f"kafka.bootstrap_servers={servers.proxied_address}"]
        self.fleet = Fleet(self.site, self.trips.environment, extra)
        self.traffic = Traffic(self.site, seed, RATE)
        self.before = self._audit()

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
            stack.callback(self.servers.proxy.mend)

    def hold(self, short: float, long: float | None = None) -> None:
        """Let the traffic go on for this many seconds; `long` when outages are not kept short."""
        time.sleep(short if self.short or long is None else long)

    def victim(self) -> str:
        return self.rng.choice(self.fleet.names)

    def await_fleet(self, patience: float = 90) -> None:
        """Wait until every worker has its partitions."""
        deadline = time.monotonic() + patience
        while not self.fleet.working():
            assert time.monotonic() < deadline, f"not all workers came back within {patience:.0f} s"
            time.sleep(0.1)

    def seal(self, scenario: str, patience: float) -> Figures:
        """Stop the traffic, wait until everything is answered, and audit."""
        self.traffic.pause()
        started = time.monotonic()
        report = self._audit()
        different = self._items_different()
        while not (report.ok and not different) and time.monotonic() < started + patience:
            time.sleep(0.5)
            report, different = self._audit(), self._items_different()
        before, self.before = self.before, report
        ends, self.fleet.ends = self.fleet.ends, []
        leavings, self.fleet.leavings = self.fleet.leavings, []
        return Figures(
            scenario,
            clicks=report.clicks - before.clicks,
            clicks_missing=max(0, self.traffic.clicks - report.clicks),
            ends=ends,
            leavings=leavings,
            repeats=report.repeats - before.repeats,
            out_of_order=report.out_of_order - before.out_of_order,
            longest_pause=self._longest_pause(),
            catch_up=time.monotonic() - started,
            items_different=different,
            report=report,
        )

    def begin(self) -> None:
        """Let the traffic flow, with all workers at work."""
        self._starts = {p: end for p, (_, end) in self._ends().items()}
        self.traffic.flow()
        self.await_fleet()
        self.hold(1.0)

    def _filled(self) -> bool:
        try:
            index = self.site.index(create=True)
            index.drop()  # all rounds have the same model; the last one has published items of its own
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

    def _ends(self) -> dict[int, tuple[int, int]]:
        return watermarks(self.site.config.kafka, self.site.config.topics.recommendations)

    def _longest_pause(self) -> float:
        answered: dict[int, list[float]] = {}
        for record in read_to_end(self.site.config.kafka, self.site.config.topics.recommendations, self._starts):
            source = decode_recommendation(record.message.value or b"").source_partition
            answered.setdefault(source, []).append(record.written)
        return max((float(np.diff(sorted(times)).max()) for times in answered.values() if len(times) > 1), default=0.0)

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


def table(figures: Sequence[Figures]) -> str:
    """The documentation's table, in Markdown: a row for each scenario, its rounds added up, their longest pause."""
    lines = ["| scenario | clicks | kills | exits | repeats | out of order | pause |", "|---|---|---|---|---|---|---|"]
    for name in dict.fromkeys(f.scenario for f in figures):
        rounds = [f for f in figures if f.scenario == name]
        ends = [end for f in rounds for end in f.ends]
        kills = ends.count(KILLED)
        lines.append(
            f"| {name} | {sum(f.clicks for f in rounds):,} | {kills} | {len(ends) - kills} "
            f"| {sum(f.repeats for f in rounds):,} | {sum(f.out_of_order for f in rounds):,} "
            f"| {max(f.longest_pause for f in rounds):.1f} s |"
        )
    seconds = [leaving.seconds for f in figures for leaving in f.leavings]
    left = f"; longest from SIGTERM to exit {max(seconds):.1f} s" if seconds else ""
    clicks, wrong = sum(f.clicks for f in figures), sum(not f.ok for f in figures)
    return "\n".join([*lines, "", f"{clicks:,} clicks in {len(figures)} scenarios, {wrong} of them wrong{left}"])
