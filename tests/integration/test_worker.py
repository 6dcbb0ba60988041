"""The worker process on real Kafka and real Milvus: what goes in, what comes out, how it starts and leaves."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import orjson
import pytest
from aiokafka import AIOKafkaProducer  # type: ignore[import-untyped]
from aiokafka.producer import message_accumulator, producer  # type: ignore[import-untyped]
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy  # type: ignore[import-untyped]
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, ConfigResource  # type: ignore[attr-defined]

from streams.kafka.topics import topic_specs
from streams.messages.recommendations import Recommendation, decode_recommendation
from streams.ports import Output
from streams.state.store import PartitionStores
from streams.tools.audit import audit_kafka
from tests.site import Site, wait_for

pytestmark = pytest.mark.integration


@pytest.fixture
def site(tmp_path: Path, kafka: str, milvus_lite: str) -> Iterator[Site]:
    made = Site(tmp_path, kafka, milvus_lite)
    made.create_topics()
    yield made
    index = made.index(create=True)
    index.drop()
    index.close()


def _answers(site: Site) -> list[Recommendation]:
    return [decode_recommendation(m.value or b"") for m in site.messages(site.config.topics.recommendations)]


def test_bad_input_becomes_dead_letters_and_the_stream_goes_on(site: Site) -> None:
    site.fill_index()
    topics = site.config.topics
    good = {"user_id": 7, "item_id": 3, "ts": 1.0}
    vector = [1.0] * site.artifact.dim
    item = {"item_id": 900, "embedding": vector, "model_version": site.artifact.model_version}
    bad_clicks = {
        "not_json": (b"7", b"this is not JSON"),
        "missing_field": (b"7", orjson.dumps({"user_id": 7, "ts": 1.0})),
        "wrong_type": (b"7", orjson.dumps(good | {"item_id": "3"})),
        "out_of_range": (b"7", orjson.dumps(good | {"item_id": 0})),
        "bad_key": (None, orjson.dumps(good)),
        "null_value": (b"7", None),
        "too_large": (b"7", b"x" * (2 * 2**20)),
    }
    bad_items = {
        "bad_embedding": (b"900", orjson.dumps(item | {"embedding": [0.5, None]})),
        "not_json": (b"900", orjson.dumps(item).replace(b"1.0", b"NaN", 1)),
        "wrong_dimension": (b"900", orjson.dumps(item | {"embedding": vector[1:]})),
        "bad_key": (b"901", orjson.dumps(item)),
    }
    with site.worker():
        site.producer.send([site.click(1, 5)])
        site.producer.send([Output(topics.clicks, key, value) for key, value in bad_clicks.values()])
        site.producer.send([Output(topics.items, key, value) for key, value in bad_items.values()])
        site.producer.send([site.click(2, 6), site.item(902, np.array(vector, dtype=np.float32))])
        wait_for(lambda: len(site.dead_letters()) == len(bad_clicks) + len(bad_items), "the dead letters")
        wait_for(lambda: len(_answers(site)) == 2, "both recommendations")
        index = site.index()
        wait_for(lambda: 902 in index.get(np.array([902])), "the good item")

    letters = site.dead_letters()
    for topic, sent in ((topics.clicks, bad_clicks), (topics.items, bad_items)):
        found = {h["reason"]: (m.key, m.value) for m, h in letters if h["topic"] == topic}
        assert found == sent, "original bytes, one reason each"
    for _, headers in letters:
        assert {"reason", "error", "topic", "partition", "offset", "time"} <= headers.keys()
    assert audit_kafka(site.config).ok


def test_unknown_items_are_counted_not_dead_lettered(site: Site) -> None:
    site.fill_index()
    with site.worker():
        site.producer.send([site.click(1, 9_999), site.click(2, 5)])
        wait_for(lambda: audit_kafka(site.config).ok, "both clicks")
    assert [a.user_id for a in _answers(site)] == [2]
    assert site.dead_letters() == []
    report = audit_kafka(site.config)
    assert report.ok
    assert report.without_candidates == 1


def test_a_new_item_is_recommended_and_counts_in_histories(site: Site) -> None:
    """Published while the worker runs: found by searches, and its clicks are encoded with its published vector."""
    site.fill_index()
    vector = np.asarray(site.artifact.item_vectors[10]).copy()
    with site.worker():
        site.producer.send([site.item(5_000, vector)])
        index = site.index()
        wait_for(lambda: 5_000 in index.search(vector[None], 1)[0] or 5_000 in index.search(vector[None], 5)[0], "it")
        site.producer.send([site.click("a", 11)])
        wait_for(lambda: len(_answers(site)) == 1, "a recommendation")
        assert 5_000 in _answers(site)[0].item_ids, "item 11 has the same vector"
        site.producer.send([site.click("b", 5_000)])
        wait_for(lambda: len(_answers(site)) == 2, "a recommendation from a new item alone")
        assert _answers(site)[1].item_ids[0] == 11
        site.producer.send([site.item(5_000, None)])
        wait_for(lambda: 5_000 not in index.search(vector[None], 5)[0], "the removal")


def test_transactions_hide_nothing_from_the_worker_or_the_audit(site: Site) -> None:
    """An aborted click counts, and an open transaction holds nothing up: all read alike, as the audit shows."""
    site.fill_index()
    producer = Producer(site.config.kafka.client(**{"transactional.id": site.config.worker.group}))
    producer.init_transactions()
    with site.worker():
        for user, items in ((1, [5, 6]), (1, [7])):
            producer.begin_transaction()
            for click in [site.click(user, item) for item in items]:
                producer.produce(click.topic, click.value, click.key)
            producer.flush()
            if items == [5, 6]:
                producer.abort_transaction()
        site.producer.send([site.click(1, 8)])
        wait_for(lambda: any(a.history_length == 4 for a in _answers(site)), "an answer to all four clicks")
        wait_for(lambda: audit_kafka(site.config).ok, "the commit")
        assert audit_kafka(site.config).clicks == 4
        producer.abort_transaction()


def test_sigterm_finishes_the_batch_and_leaves_within_5_seconds(site: Site) -> None:
    site.fill_index()
    with site.worker() as process:
        site.producer.send([site.click(u, 1 + u % 300) for u in range(400)])
        wait_for(lambda: len(_answers(site)) > 20, "work in hand")
        started = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
        assert time.monotonic() - started < 5
    with site.worker(name="next"):
        wait_for(lambda: audit_kafka(site.config).ok, "the next worker to finish")
    assert audit_kafka(site.config).users == 400


def test_a_zombie_overwrites_no_newer_vector(site: Site) -> None:
    """A worker is paused until its partitions belong to another. What it was sent before it slept is old by then."""
    settings = ["--agents", "items", "--set", "worker.session_timeout=6"]
    index = site.index(create=True)
    versions = np.eye(3, site.artifact.dim, dtype=np.float32)
    items = range(1, 17)  # of both partitions

    def holds(version: int) -> bool:
        found = index.get(np.array(items))
        return len(found) == len(items) and all(np.array_equal(vector, versions[version]) for vector in found.values())

    def publish(version: int) -> None:
        site.producer.send([site.item(item, versions[version]) for item in items])

    def assignments(name: str) -> int:
        return site.log(name).read_text().count("-items: partitions [")

    with site.worker(*settings, name="zombie") as zombie, site.worker(*settings, name="other"):
        publish(0)
        wait_for(lambda: holds(0), "the items")
        zombie.send_signal(signal.SIGSTOP)
        try:
            publish(1)
            wait_for(lambda: holds(1), "the other one to own all partitions")
            publish(2)
            wait_for(lambda: holds(2), "the newest vectors")
            before = assignments("zombie")
        finally:
            zombie.send_signal(signal.SIGCONT)
        wait_for(lambda: assignments("zombie") > before, "the zombie to come back")
        time.sleep(1.0)  # for what it has in hand
        assert holds(2)
    index.close()


def test_agents_run_apart(site: Site) -> None:
    with site.worker("--agents", "items", name="items"), site.worker("--agents", "clicks", name="clicks"):
        vectors = np.asarray(site.artifact.item_vectors)
        site.producer.send([site.item(i + 1, vectors[i]) for i in range(len(vectors))])
        index = site.index()
        wait_for(lambda: index.describe().count == len(vectors), "the items")
        site.producer.send([site.click(1, 5)])
        wait_for(lambda: len(_answers(site)) == 1, "a recommendation")


def test_an_item_worker_of_a_new_model_needs_no_changelog_of_its_group(site: Site) -> None:
    with site.worker("--agents", "items", "--set", f"worker.group={site.config.worker.group}-new"):
        vector = np.asarray(site.artifact.item_vectors[0])
        site.producer.send([site.item(1, vector)])
        index = site.index()
        wait_for(lambda: index.describe().count == 1, "the item")
    index.close()


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_clicks_are_read_whatever_packed_them(site: Site, codec: str) -> None:
    site.fill_index()
    producer = Producer(site.config.kafka.client(**{"compression.type": codec}))
    with site.worker():
        click = site.click(1, 5)
        producer.produce(click.topic, click.value, click.key, headers={"padding": b"x" * 1000})  # worth packing
        producer.flush()
        wait_for(lambda: len(_answers(site)) == 1, "a recommendation")


def test_clicks_of_a_topic_that_was_made_anew_are_not_taken_for_repeats(site: Site) -> None:
    site.fill_index()
    with site.worker(name="first"):
        site.producer.send([site.click(1, item) for item in (5, 6, 7)])
        wait_for(lambda: audit_kafka(site.config).ok, "the clicks")
    clicks = site.config.topics.clicks
    admin = AdminClient(site.config.kafka.client())
    admin.delete_topics([clicks])[clicks].result()
    wait_for(lambda: clicks not in admin.list_topics(timeout=10).topics, "the end of the topic")
    site.create_topics()
    site.producer.send([site.click(1, 8)])
    assert "another worker.group" in _refused(site, "--set", f"worker.data_dir={site.folder / 'a lost disk'}")


class _NoText(str):
    """A header's name; it is sent as bytes that are no UTF-8."""

    def encode(self, *_: object) -> bytes:
        return b"n\xff"


def test_a_header_whose_name_is_no_text_stops_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (message_accumulator, producer):  # the one in C takes plain text alone
        monkeypatch.setattr(module, "DefaultRecordBatchBuilder", _DefaultRecordBatchBuilderPy)
    site.fill_index()

    async def send(click: Output, value: bytes | None) -> None:
        async with AIOKafkaProducer(bootstrap_servers=site.config.kafka.bootstrap_servers) as client:
            await client.send_and_wait(click.topic, value, click.key, headers=[(_NoText("n"), b"1")])

    with site.worker():
        click = site.click(1, 5)
        asyncio.run(send(click, click.value))
        asyncio.run(send(click, b"{"))
        wait_for(lambda: len(_answers(site)) == 1 and site.dead_letters(), "an answer and a dead letter")
        assert site.dead_letters()[0][1]["headers"] == r'[["n\\xff","1"]]'
        assert audit_kafka(site.config).ok


def _refused(site: Site, *extra: str) -> str:
    done = site.run("streams", "worker", *extra)
    assert done.returncode == 78, done.stderr
    return done.stderr


def test_the_start_is_refused_with_a_remedy(tmp_path: Path, kafka: str, milvus_lite: str) -> None:
    site = Site(tmp_path, kafka, milvus_lite, items=20)
    assert "python -m streams topics create" in _refused(site)
    site.create_topics()
    assert "--agents items" in _refused(site, "--agents", "clicks")
    assert "set topics.partitions" in _refused(site, "--set", "topics.partitions=5")
    assert "python -m model.train" in _refused(site, "--set", f"model.artifact={tmp_path / 'nowhere'}")
    assert "history.length" in _refused(site, "--set", "history.length=3")
    assert "recall.interests" in _refused(site, "--set", "recall.interests=9")
    assert "did you mean 'recall.top_k'" in _refused(site, "--set", "recall.topk=9")
    site.fill_index()
    stores = PartitionStores(tmp_path / "other" / "history")
    stores.bind("the id of another topic")
    assert "another changelog topic" in _refused(site, "--set", f"worker.data_dir={tmp_path / 'other'}")
    (tmp_path / "file").write_text("")
    assert "worker.data_dir" in _refused(site, "--set", f"worker.data_dir={tmp_path / 'file'}")
    assert (
        "python -m embedded status"
        in site.run("streams", "worker", "--set", "kafka.bootstrap_servers=127.0.0.1:9").stderr
    )


def test_topics_are_created_as_configured_and_only_once(tmp_path: Path, kafka: str, milvus_lite: str) -> None:
    site = Site(tmp_path, kafka, milvus_lite, items=20)
    first, second = (site.run("streams", "topics", "create") for _ in range(2))
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert first.stdout.count("created") == 5
    assert second.stdout.count("exists") == 5
    admin = AdminClient(site.config.kafka.client())
    for spec in topic_specs(site.config.topics, site.config.worker.group):
        resource = ConfigResource(ConfigResource.Type.TOPIC, spec.name)
        found = admin.describe_configs([resource])[resource].result()
        for name, value in spec.config.items():
            assert found[name].value == value, (spec.name, name)
    assert site.run("streams", "topics", "check").returncode == 0


def test_tail_shows_recommendations(site: Site) -> None:
    site.fill_index()
    with site.worker():
        site.producer.send([site.click(7, 5), site.click("anna", 6)])
        wait_for(lambda: len(_answers(site)) == 2, "the recommendations")
    shown = site.run("streams", "tail", "--from-beginning", "--limit", "2")
    assert shown.returncode == 0, shown.stderr
    assert "user 7" in shown.stdout
    assert "user anna" in shown.stdout
    raw = site.run("streams", "tail", "--from-beginning", "--limit", "1", "--json", "--user", "anna")
    assert orjson.loads(raw.stdout)["user_id"] == "anna"


def test_a_worker_that_lost_its_disk_restores_histories_from_the_changelog(site: Site) -> None:
    site.fill_index()
    with site.worker(name="first"):
        site.producer.send([site.click(1, 5), site.click(1, 6)])
        wait_for(lambda: audit_kafka(site.config).ok, "the first clicks")
    with site.worker(name="second"):  # another data_dir
        site.producer.send([site.click(1, 7)])
        wait_for(lambda: audit_kafka(site.config).ok, "the third click")
    assert _answers(site)[-1].history_length == 3
