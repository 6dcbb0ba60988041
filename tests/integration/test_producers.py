"""The producers on a real broker: the messages on the topic afterwards, and their partitions."""

from __future__ import annotations

import os
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import confluent_kafka as ck
import numpy as np
import pytest
from click.testing import CliRunner
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from configs.errors import EXIT_CONFIG
from configs.loader import load_replay
from configs.schema import ReplayConfig
from model.artifact import save_artifact
from producers import items, replay
from producers.click_log import read_click_log
from producers.generate import Shape, generate, write_clicks
from streams.messages.clicks import decode_click
from streams.messages.items import Item, ItemRemoval, decode_item

pytestmark = pytest.mark.integration

DATA = Path(os.environ.get("MINDSTREAM_DATA", Path(__file__).parents[3] / "shared" / "data"))
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"real data: no folder {DATA}; name it in MINDSTREAM_DATA")

PARTITIONS = 5
Messages = list[tuple[int, bytes | None, bytes | None]]


@pytest.fixture
def topic(kafka: str) -> Iterator[str]:
    admin = AdminClient({"bootstrap.servers": kafka})
    name = f"producers-{uuid.uuid4().hex[:12]}"
    admin.create_topics([NewTopic(name, PARTITIONS, 1)])[name].result(30)
    yield name
    admin.delete_topics([name])[name].result(30)


def read_all(kafka: str, topic: str) -> Messages:
    """Return (partition, key, value) of all messages, each partition in its order."""
    consumer = ck.Consumer({"bootstrap.servers": kafka, "group.id": topic, "enable.partition.eof": True})
    consumer.assign([ck.TopicPartition(topic, partition, ck.OFFSET_BEGINNING) for partition in range(PARTITIONS)])
    found: Messages = []
    ended: set[int] = set()
    deadline = time.monotonic() + 60
    while len(ended) < PARTITIONS:
        assert time.monotonic() < deadline, "the topic was not read to its end"
        message = consumer.poll(1)
        if message is None:
            continue
        error = message.error()
        if error is not None:
            assert error.code() == ck.KafkaError._PARTITION_EOF, error
            ended.add(message.partition() or 0)
        else:
            found.append((message.partition() or 0, message.key(), message.value()))
    consumer.close()
    return found


def config(kafka: str, topic: str, *overrides: str) -> ReplayConfig:
    return load_replay(None, (f"topics.clicks={topic}", *overrides), {"MINDSTREAM_KAFKA": kafka})


def test_replay_ends_with_every_click_once_in_order_and_keyed(kafka: str, topic: str, tmp_path: Path) -> None:
    generated = generate(Shape(users=900, items=400, clicks=20_000, tastes=8, tastes_per_user=2, drift=0.05), seed=1)
    path = tmp_path / "clicks.csv.gz"
    write_clicks(generated, str(path))
    settings = config(kafka, topic)
    report = replay.replay(read_click_log([path]), settings, replay.clicks_sender(settings))
    assert (report.sent, report.delivered, report.failed) == (20_000, 20_000, 0)

    history: defaultdict[int | str, list[int]] = defaultdict(list)
    partitions: defaultdict[int | str, set[int]] = defaultdict(set)
    for partition, key, value in read_all(kafka, topic):
        click = decode_click(key, value)  # checks the key
        history[click.user_id].append(click.item_id)
        partitions[click.user_id].add(partition)
    expected: defaultdict[int | str, list[int]] = defaultdict(list)
    for user, item in zip(generated.user.tolist(), generated.item.tolist(), strict=True):
        expected[user].append(item)
    assert history == expected
    assert all(len(used) == 1 for used in partitions.values())
    assert set.union(*partitions.values()) == set(range(PARTITIONS))


@needs_data
def test_real_time_stamps_are_followed_and_can_be_kept(kafka: str, topic: str) -> None:
    log = read_click_log([DATA / "yelp-timestamped.csv.xz"])
    assert (len(log), len(log.user_ids), log.timed) == (316_354, 30_431, True)
    settings = config(kafka, topic, "replay.original_ts=true", "replay.limit=30000", "replay.speedup=10000000")
    report = replay.replay(log, settings, replay.clicks_sender(settings))
    assert (report.delivered, report.failed) == (30_000, 0)
    sent: defaultdict[int, list[float]] = defaultdict(list)
    for partition, key, value in read_all(kafka, topic):
        sent[partition].append(decode_click(key, value).ts)
    assert sorted(ts for stamps in sent.values() for ts in stamps) == np.sort(log.order)[:30_000].tolist()
    assert all(stamps == sorted(stamps) for stamps in sent.values())


def test_unknown_topic_is_refused_and_not_created(kafka: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "c.csv").write_text("1,2,0\n")
    monkeypatch.setenv("MINDSTREAM_KAFKA", kafka)
    missing = f"missing-{uuid.uuid4().hex[:8]}"
    result = CliRunner().invoke(replay.main, [str(tmp_path / "c.csv"), "--set", f"topics.clicks={missing}"])
    assert result.exit_code == EXIT_CONFIG
    assert "python -m streams topics create" in result.output
    assert missing not in AdminClient({"bootstrap.servers": kafka}).list_topics(timeout=10).topics


def test_items_are_published_and_read_back(
    kafka: str, topic: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = np.random.default_rng(0).standard_normal((5_000, 64)).astype(np.float32)
    artifact = save_artifact(
        tmp_path / "artifact",
        weights={"w": vectors[:2]},
        interests=4,
        history_length=20,
        encoder={},
        item_ids=np.arange(1, 5_001),
        item_vectors=vectors,
        item_counts=np.ones(5_000, np.int64),
        users=1,
        clicks=1,
        config={},
    )
    monkeypatch.setenv("MINDSTREAM_KAFKA", kafka)
    to_topic = ["--set", f"topics.items={topic}"]
    published = CliRunner().invoke(items.main, ["--artifact", str(artifact.path), *to_topic])
    assert published.exit_code == 0, published.output
    assert "sent=5000 delivered=5000 failed=0" in published.output
    assert CliRunner().invoke(items.main, ["--delete", "--id", "17", *to_topic]).exit_code == 0

    last: dict[int, Item | ItemRemoval] = {}
    for _, key, value in read_all(kafka, topic):
        item = decode_item(key, value)
        last[item.item_id] = item
    assert sorted(last) == list(range(1, 5_001))
    assert last.pop(17) == ItemRemoval(17)
    for item_id, item in last.items():
        assert isinstance(item, Item)
        assert item.model_version == artifact.model_version
        np.testing.assert_array_equal(item.embedding, vectors[item_id - 1])
