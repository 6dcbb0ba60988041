"""Faults at the edges: servers that answer wrongly, names that stand for something else, data that others wrote."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import numpy as np
from pymilvus import MilvusClient

from configs.errors import EXIT_TRANSIENT, TransientError
from model.arrays import FloatMatrix, IdVector
from streams.kafka.topics import changelog_topic
from streams.messages.clicks import user_key
from streams.milvus.collection import collection_name
from streams.milvus.index import MilvusIndex
from streams.ports import Output
from tests.chaos.fleet import wipe
from tests.chaos.stage import BEYOND_SESSION_S, Stage
from tests.chaos.traffic import USERS
from tests.site import wait_for

#: Ids of items that are published once, in a scenario.
_FRESH_ITEMS = range(10_000, 10_000_000)
#: Items published just before Milvus is killed, and how often each of them.
_FRESH, _REWRITES = 250, 40


def milvus_killed_unsealed(stage: Stage) -> None:
    """Milvus is killed when it has just got new items, and reads them again from its log while users click."""
    ids = np.arange(_FRESH) + stage.rng.randrange(_FRESH_ITEMS.start, _FRESH_ITEMS.stop - _FRESH)
    rng = np.random.default_rng(stage.rng.randrange(2**32))
    for _ in range(_REWRITES):
        vectors = rng.standard_normal((_FRESH, stage.site.artifact.dim), dtype=np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        stage.publish(ids, vectors)
    stage.await_items()
    index = stage.site.index()
    wait_for(lambda: _found(index, ids, vectors), "the new items in Milvus")
    unsealed = index.describe().count - index.indexed_count()
    assert unsealed >= _FRESH, f"{unsealed} rows were unsealed"
    with stage.servers.milvus_lock:
        stage.servers.milvus.kill()
        stage.hold(1, 30)
        stage.servers.milvus.start()
    wait_for(lambda: _found(index, ids, vectors), "the new items in searches")
    index.close()
    stage.hold(2)


def _found(index: MilvusIndex, ids: IdVector, vectors: FloatMatrix) -> bool:
    """Return whether a search for the vector of each item finds it first."""
    try:
        return bool((index.search(vectors, 1)[0][:, 0] == ids).all())
    except TransientError:
        return False


def collection_dropped(stage: Stage) -> None:
    """The collection is dropped under running workers, which fill another one from the topic of items."""
    client = MilvusClient(uri=stage.servers.milvus_address)
    before = stage.site.index()
    client.drop_collection(collection_name(stage.site.artifact.model_version))
    client.close()
    wait_for(lambda: EXIT_TRANSIENT in stage.fleet.ends, "the end of a worker")
    stage.await_items()
    after = stage.site.index()
    assert after.identity != before.identity
    for index in (before, after):
        index.close()
    stage.await_fleet()
    stage.hold(2)


def broker_killed_during_a_start(stage: Stage) -> None:
    """The broker is killed, and started again, while all workers start."""
    pids = {name: stage.fleet.pid(name) for name in stage.fleet.names}
    for name in pids:
        stage.fleet.kill(name)
    wait_for(lambda: all(stage.fleet.pid(name) != pid for name, pid in pids.items()), "the next workers")
    if stage.rng.random() < 0.7:  # Faust starts: it connects to the broker, and joins the groups
        wait_for(lambda: stage.fleet.reached(" in Milvus"), "a worker that has been built")
        time.sleep(stage.rng.uniform(0, 0.5))
    else:
        time.sleep(stage.rng.uniform(0, 5))
    stage.servers.kafka.kill()
    assert set(stage.fleet.working()) != set(pids), "the workers had started before the broker was killed"
    stage.hold(stage.rng.uniform(1, 5), 10)
    stage.servers.kafka.start()
    stage.await_fleet()
    stage.hold(2)


def two_partitioners(stage: Stage) -> None:
    """Another producer sends clicks of the same users to the partitions that librdkafka chooses by default."""
    stage.traffic.two_producers = True
    stage.hold(6)
    stage.traffic.two_producers = False
    sent_back = 0

    def all_sent_back() -> bool:
        nonlocal sent_back
        done = stage.site.run("streams", "deadletters", "replay", "--reason", "wrong_partition", "--yes")
        assert done.returncode == 0, done.stderr
        (count,) = re.findall(r"^(\d+) of ", done.stdout, re.MULTILINE)
        sent_back += int(count)
        return sent_back > 0 and count == "0"

    wait_for(all_sent_back, "the dead letters of the second producer")
    stage.sent_back += sent_back
    stage.hold(1)


def store_damaged(stage: Stage) -> None:
    """Every worker is killed, and a file of each of its databases is empty when it starts again."""
    found_before = stage.fleet.logged("set it aside")
    for name in stage.fleet.names:
        stage.fleet.kill(name, _empty_a_file_of_each_database)
    wait_for(lambda: stage.fleet.logged("set it aside") > found_before, "a worker that finds the damage")
    stage.hold(2)


def _empty_a_file_of_each_database(data: Path) -> None:
    for current in (data / "history").glob("*/CURRENT"):
        current.write_bytes(b"")


def stray_changelog_records(stage: Stage) -> None:
    """Another program writes to the changelog, under keys of users and others; then a worker loses its disk."""
    users = [user_key(stage.rng.randrange(USERS)) for _ in range(5)]
    topic = changelog_topic(stage.site.config.worker.group)
    stage.site.producer.send([Output(topic, key, b"hello") for key in [*users, b"no user", b"\xff", b""]])
    stage.fleet.kill(stage.victim(), wipe)
    stage.hold(6, 12)


def suspended_before_the_lease_is_checked(stage: Stage) -> None:
    """The machine of a worker is suspended while it has items to write: its clock does not say for how long."""
    said = "this process was paused"
    before = stage.fleet.logged(said)
    _suspend(stage, "leasing")
    wait_for(lambda: stage.fleet.logged(said) > before, "the worker to notice that its lease has expired", 10)
    stage.hold(4)


def suspended_before_it_sends(stage: Stage) -> None:
    """The machine of a worker is suspended while it has histories and recommendations to send."""
    _suspend(stage, "searched")
    stage.hold(4)


def _suspend(stage: Stage, point: str) -> None:
    stage.trips.arm(point, signal.SIGSTOP)
    pid = stage.trips.await_victim(point, 60)
    assert pid is not None, f"no worker reached the point {point!r}"
    began = time.monotonic()
    before = stage.fleet.logged("clicks: partitions")
    stage.hold(BEYOND_SESSION_S)
    wait_for(lambda: stage.fleet.logged("clicks: partitions") > before, "another worker to get the partitions", 20)
    stage.renew_items()
    stage.trips.suspend_clock(pid, time.monotonic() - began)
    os.kill(pid, signal.SIGCONT)
