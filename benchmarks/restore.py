"""Time to restore users' histories from the changelog, for a worker that lost its disk.

The topic has one record per user, with a full window of 20 clicks, as after compaction. It is restored into an empty
store, in a process of its own, by the code that acquires partitions; then once more, with nothing left to do. Memory is
the peak of the whole process, Python included; CPU time is that of all its threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.benchmark import Benchmark, Sizes
from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.isolated import run_isolated
from benchmarks.harness.report import Figure
from benchmarks.harness.servers import BenchmarkServers
from benchmarks.harness.site import BenchmarkSite, benchmark_site
from configs.cli import progress_bar
from streams.history import History
from streams.kafka.producer import KafkaRecordProducer
from streams.kafka.topics import changelog_topic
from streams.messages.clicks import user_key
from streams.ports import Output

#: Clicks per history: the window of the shipped model.
_LENGTH = 20
#: Histories sent at a time.
_CHUNK = 20_000
_PROGRAM = """
import logging, pathlib, sys, time
from configs.loader import load_worker
from streams.processing.memory import MemoryRecordProducer
from streams.state.changelog import Changelog
from streams.state.restore import Restorer
from streams.state.store import PartitionStores
logging.basicConfig(level="INFO")
folder, topic, *sets = sys.argv[1:]
config = load_worker(overrides=sets)
stores = PartitionStores(pathlib.Path(folder))
restorer = Restorer(Changelog(config.kafka, topic), stores, MemoryRecordProducer())
found = {"restored": [], "seconds": [], "cpu": []}
for _ in range(2):
    begin, cpu = time.perf_counter(), time.process_time()
    found["restored"].append(restorer.acquire(range(config.topics.partitions)))
    found["seconds"].append(time.perf_counter() - begin)
    found["cpu"].append(time.process_time() - cpu)
stores.close()
"""


def run(servers: BenchmarkServers, sizes: Sizes) -> Sequence[Figure]:
    users, items = sizes["users"], sizes["items"]
    folder = servers.folder / "restore"
    with benchmark_site(servers, "restore", settings={"topics.partitions": sizes["partitions"]}) as site:
        topic = changelog_topic(site.config.worker.group)
        servers.report(f"Writing {users:,} histories")
        size = _fill(site, topic, users, items)
        servers.report("Restoring them")
        found = _restore(site, topic, folder)
    if found["restored"] != [users, 0]:
        raise BenchmarkError(f"{users} histories were written, and {found['restored']} restored")
    disk = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    (first, again), (cpu, _) = found["seconds"], found["cpu"]
    return [
        Figure("into an empty store", first, "s"),
        Figure("into an empty store, rate", users / first, "users/s"),
        Figure("into an empty store, rate on one core", users / cpu, "users/CPU s"),
        Figure("again, with nothing to do", 1000 * again, "ms"),
        Figure("peak memory", found["peak"] / 1e6, "MB"),
        Figure("record in the changelog", size, "bytes/user"),
        Figure("on disk", disk / users, "bytes/user"),
    ]


def _fill(site: BenchmarkSite, topic: str, users: int, items: int) -> int:
    """Write the histories and return the size of one record in bytes."""
    rng = np.random.default_rng(0)
    topics = site.config.topics
    producer = KafkaRecordProducer(site.config.kafka, topics.max_message_bytes, topics.partitioner)
    partitions, size = site.config.topics.partitions, 0
    with progress_bar(users, "histories") as show:
        for begin in range(0, users, _CHUNK):
            outputs = []
            for user in range(begin, min(users, begin + _CHUNK)):
                partition = user % partitions
                history = History(partition, user, rng.integers(1, items + 1, _LENGTH)).to_bytes()
                outputs.append(Output(topic, user_key(user), history, partition))
                size = len(history)
            producer.send(outputs)
            show(begin + len(outputs))
    return size


def _restore(site: BenchmarkSite, topic: str, folder: Path) -> Any:
    sets = [f"kafka.bootstrap_servers={site.config.kafka.bootstrap_servers}"]
    sets += [f"topics.partitions={site.config.topics.partitions}"]
    return run_isolated(_PROGRAM, str(folder), topic, *sets)


_SIZES = {"users": 1_000_000, "items": 368_000, "partitions": 8}
BENCHMARK = Benchmark(run, {"standalone": _SIZES, "lite": _SIZES}, kafka=True, milvus=False)
