"""The example for consumers, the export and the lines for kcat, on a real Kafka."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition

from embedded.instance import CHECKOUT
from examples.newest_recommendations import SqliteStore
from streams.kafka.client import admin_client
from streams.kafka.reading import watermarks
from streams.messages.clicks import user_key
from streams.messages.recommendations import Recommendation, encode_recommendation
from streams.ports import Output
from tests.site import Site, environment, wait_for

pytestmark = pytest.mark.integration
GROUP = "lists"


@pytest.fixture
def site(tmp_path: Path, kafka: str) -> Site:
    new_site = Site(tmp_path, kafka, "http://127.0.0.1:9", items=20)
    new_site.create_topics()
    return new_site


def _send(site: Site, lists: Sequence[tuple[int, int]]) -> None:
    """Send recommendations of (user, source offset), as a worker does."""
    outputs = []
    for user, offset in lists:
        found = Recommendation(user, [offset + 1], [0.5], [0], "m1", 1, 0, offset, time.time(), time.time(), 50)
        outputs.append(Output(site.config.topics.recommendations, user_key(user), encode_recommendation(found)))
    site.producer.send(outputs)


@contextmanager
def _consumer(site: Site, path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run the example until the end of the block, where it is killed with SIGKILL."""
    topics = site.config.topics
    command = [sys.executable, "examples/newest_recommendations.py", "--kafka", site.config.kafka.bootstrap_servers]
    command += ["--topic", topics.recommendations, "--clicks", topics.clicks, "--group", f"{GROUP}-{topics.clicks}"]
    process = subprocess.Popen([*command, "--sqlite", str(path)], cwd=CHECKOUT, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _stored(path: Path, users: Sequence[int]) -> dict[int, int]:
    store = SqliteStore(str(path))
    try:
        found = {user: store.get(str(user)) for user in users}
    finally:
        store.close()
    return {user: json.loads(message)["source"]["offset"] for user, message in found.items() if message}


def _lag(site: Site) -> int:
    """Return the messages that the example's group has not committed."""
    topics = site.config.topics
    ends = {p: end for p, (_, end) in watermarks(site.config.kafka, topics.recommendations).items()}
    consumer = Consumer(site.config.kafka.client_settings(**{"group.id": f"{GROUP}-{topics.clicks}"}))
    try:
        asked = [TopicPartition(topics.recommendations, p) for p in ends]
        return sum(ends[tp.partition] - max(0, tp.offset) for tp in consumer.committed(asked, timeout=30))
    finally:
        consumer.close()


def _export(site: Site) -> Mapping[int, int]:
    done = site.run("streams", "export")
    assert done.returncode == 0, done.stderr
    return {fields["user_id"]: fields["source"]["offset"] for fields in map(json.loads, done.stdout.splitlines())}


def test_the_newest_lists_survive_kills_zombies_and_a_recreated_topic(site: Site, tmp_path: Path) -> None:
    path, users = tmp_path / "lists.db", range(1, 41)
    site.producer.send([site.click(user, 1) for user in range(1, 1001)])
    _send(site, [(user, user) for user in users])
    with _consumer(site, path):
        wait_for(lambda: path.exists() and len(_stored(path, users)) >= 1, "the first lists")
    _send(site, [(user, user + 50) for user in users])
    with _consumer(site, path):
        wait_for(lambda: _lag(site) == 0, "the commit after a kill")
        _send(site, [(user, user + 10) for user in users])  # of a zombie
        wait_for(lambda: _lag(site) == 0, "the late messages")
        expected = {user: user + 50 for user in users}
        assert _stored(path, users) == expected
        assert _export(site) == expected
        _recreate_clicks(site)
        _send(site, [(user, 0) for user in users])
        wait_for(lambda: _lag(site) == 0, "the lists of the new topic")
        assert _stored(path, users) == dict.fromkeys(users, 0)
        assert _export(site) == dict.fromkeys(users, 0)


def _recreate_clicks(site: Site) -> None:
    topic = site.config.topics.clicks
    client = admin_client(site.config.kafka)
    client.delete_topics([topic])[topic].result()
    wait_for(lambda: topic not in client.list_topics(timeout=30).topics, "the deletion")
    site.create_topics()
    wait_for(lambda: sum(end for _, end in watermarks(site.config.kafka, topic).values()) == 0, "an empty topic")
    # Fewer than the lowest source of the former topic that is late: beyond that, the two cannot be told apart.
    site.producer.send([site.click(user, 1) for user in range(1, 11)])


@pytest.mark.skipif(shutil.which("kcat") is None, reason="there is no kcat; Debian's package is kcat")
def test_the_lines_for_kcat_work(site: Site) -> None:
    page = (CHECKOUT / "streams" / "messages" / "README.md").read_text(encoding="utf-8")
    topics = site.config.topics
    _send(site, [(42, 7)])
    blocks = [block for block in page.split("```") if "kcat -b" in block]
    assert len(blocks) == 1
    lines = blocks[0].removeprefix("sh\n").replace("|\n", "| ").splitlines()
    named = {"recommendations": topics.recommendations, "dead-letters": topics.dead_letters, "clicks": topics.clicks}
    done = {}
    for line in lines:
        for topic, name in named.items():
            line = line.replace(f"-t {topic} ", f"-t {name} ")
        if " -o end " not in line:  # which runs until it is interrupted
            run = subprocess.run(
                ["bash", "-c", line],
                env=environment(MINDSTREAM_KAFKA=site.config.kafka.bootstrap_servers),
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert run.returncode == 0, run.stderr
            done[line] = run.stdout
    assert any(text.startswith("42\t") and '"offset":7' in text for text in done.values())
    assert [message.key for message in site.messages(topics.clicks)] == [b"42"]
