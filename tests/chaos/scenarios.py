"""The faults. Each scenario injects one and returns when it is over; then the caller audits.

Every scenario runs under the traffic of `tests.chaos.traffic`: one user makes a fifth of all clicks, one message in a
hundred is invalid, one in a thousand poisonous, for each kind of poison, producers' clocks are wrong by hours, and
items change.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress

from pymilvus import MilvusClient

from streams.milvus.collection import collection_name
from tests.chaos import edges
from tests.chaos.fleet import wipe
from tests.chaos.stage import BEYOND_SESSION_S, Stage
from tests.chaos.trips import CLICK_POINTS

Scenario = Callable[[Stage], None]

#: Points at which workers are paused beyond their session.
ZOMBIE_POINTS = ("searched", "half sent", "histories sent", "sent", "upserting")


def _kill_at(point: str) -> Scenario:
    def scenario(stage: Stage) -> None:
        stage.trips.arm(point, signal.SIGKILL)
        if point == "restoring":  # reached by the next owner of the partitions
            stage.fleet.kill(stage.victim(), wipe)
        assert stage.trips.await_victim(point, 60), f"no worker reached the point {point!r}"
        stage.hold(2, 12)

    return scenario


def _zombie_at(point: str) -> Scenario:
    def scenario(stage: Stage) -> None:
        stage.trips.arm(point, signal.SIGSTOP)
        pid = stage.trips.await_victim(point, 60)
        assert pid is not None, f"no worker reached the point {point!r}"
        stage.hold(BEYOND_SESSION_S)
        stage.renew_items()
        os.kill(pid, signal.SIGCONT)
        stage.hold(4)

    return scenario


def kill(stage: Stage) -> None:
    """A worker is killed at a random moment."""
    stage.hold(stage.rng.uniform(0, 2))
    stage.fleet.kill(stage.victim())
    stage.hold(2, 12)


def kill_all(stage: Stage) -> None:
    """Every worker is killed at once."""
    for name in stage.fleet.names:
        stage.fleet.kill(name)
    stage.hold(2, 12)


def sigterm(stage: Stage) -> None:
    """A worker is stopped under load, and started again."""
    name = stage.victim()
    stage.fleet.stop(name)
    stage.hold(2, 5)
    stage.fleet.start(name)
    stage.hold(0, 10)


def join_and_leave(stage: Stage) -> None:
    """A third worker joins under load, and is stopped."""
    stage.fleet.start("three")
    stage.await_fleet()
    stage.hold(2, 5)
    stage.fleet.stop("three")
    stage.hold(2)


def zombie(stage: Stage) -> None:
    """A worker is paused at a random moment until its partitions are reassigned, then resumes."""
    stage.hold(stage.rng.uniform(0, 1))
    pid = stage.fleet.pid(stage.victim())
    os.kill(pid, signal.SIGSTOP)
    stage.hold(BEYOND_SESSION_S)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
    stage.hold(4)


def disk_lost(stage: Stage) -> None:
    """A worker is killed and its data deleted: histories are restored from the changelog."""
    stage.fleet.kill(stage.victim(), wipe)
    stage.hold(2, 12)


def broker_killed(stage: Stage) -> None:
    """The broker is killed, and started again."""
    stage.servers.kafka.kill()
    stage.hold(2, 10)
    stage.servers.kafka.start()
    stage.hold(3)


def broker_unreachable(stage: Stage) -> None:
    """The network between the workers and the broker is cut."""
    stage.servers.proxy.cut()
    stage.hold(10, 60)
    stage.servers.proxy.reconnect()
    stage.hold(3)


def broker_paused(stage: Stage) -> None:
    """The broker stops responding for a while."""
    pid = stage.servers.kafka.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    stage.hold(8, 20)
    os.kill(pid, signal.SIGCONT)
    stage.hold(3)


def milvus_killed(stage: Stage) -> None:
    """Milvus is killed, and started again."""
    with stage.servers.milvus_lock:
        stage.servers.milvus.kill()
        stage.hold(2, 30)  # the long outage exceeds the workers' retry budget
        stage.servers.milvus.start()
    stage.hold(3)


def milvus_paused(stage: Stage) -> None:
    """Milvus stops responding for a while, and may need a restart afterwards."""
    pid = stage.servers.milvus.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    stage.hold(8, 15)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
    stage.hold(3)


def milvus_errors(stage: Stage) -> None:
    """Milvus responds with errors: the collection is released again whenever a worker has loaded it."""
    before = _errors_seen(stage)
    name = collection_name(stage.site.artifact.model_version)
    client = MilvusClient(uri=stage.servers.milvus_address)
    try:
        until = time.monotonic() + (4 if stage.short else 10)
        while time.monotonic() < until:
            client.release_collection(name)
            time.sleep(0.05)
        client.load_collection(name)
    finally:
        client.close()
    seen = _errors_seen(stage) - before
    assert seen >= 3, f"workers logged {seen} errors of Milvus"
    stage.hold(2)


def _errors_seen(stage: Stage) -> int:
    lines = [line for name in stage.fleet.names for line in stage.fleet.log(name).splitlines()]
    return sum("Milvus: " in line and "is retried" in line for line in lines)


def everything(stage: Stage) -> None:
    """A worker is killed in the middle of a batch, and the broker and Milvus restart."""
    point = stage.rng.choice(["half sent", "histories sent", "answers sent", "sent", "stored"])
    stage.trips.arm(point, signal.SIGKILL)
    assert stage.trips.await_victim(point, 60), f"no worker reached the point {point!r}"
    with stage.servers.milvus_lock:
        stage.servers.kafka.kill()
        stage.servers.milvus.kill()
        stage.servers.kafka.start()
        stage.servers.milvus.start()
    stage.hold(3)


SCENARIOS: dict[str, Scenario] = {
    "kill": kill,
    "kill all": kill_all,
    **{f"kill: {point}": _kill_at(point) for point in CLICK_POINTS},
    "sigterm": sigterm,
    "join and leave": join_and_leave,
    "zombie": zombie,
    **{
        f"zombie: {point}": _zombie_at(point)
        for point in ("searched", "half sent", "histories sent", "sent", "upserting")
    },
    "suspended: searched": edges.suspended_before_it_sends,
    "suspended: leasing": edges.suspended_before_the_lease_is_checked,
    "disk lost": disk_lost,
    "store damaged": edges.store_damaged,
    "stray changelog records": edges.stray_changelog_records,
    "broker killed": broker_killed,
    "broker killed: start": edges.broker_killed_during_a_start,
    "broker unreachable": broker_unreachable,
    "broker paused": broker_paused,
    "milvus killed": milvus_killed,
    "milvus killed: unsealed rows": edges.milvus_killed_unsealed,
    "milvus paused": milvus_paused,
    "milvus errors": milvus_errors,
    "collection dropped": edges.collection_dropped,
    "two partitioners": edges.two_partitioners,
    "everything": everything,
}
#: Short scenarios, one for each kind of fault, which `make test` plays.
SHORT = (
    "kill: half sent",
    "kill: stored",
    "zombie: searched",
    "disk lost",
    "join and leave",
    "broker killed",
    "milvus errors",
    "milvus killed: unsealed rows",
    "suspended: leasing",
)
