"""Unusual messages on real Kafka and Milvus: broken, compressed, in transactions, with invalid header names."""

from __future__ import annotations

import asyncio
from pathlib import Path
from zlib import crc32

import numpy as np
import orjson
import pytest
from aiokafka import AIOKafkaProducer  # type: ignore[import-untyped]
from aiokafka.producer import message_accumulator, producer  # type: ignore[import-untyped]
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy  # type: ignore[import-untyped]
from confluent_kafka import Producer

from streams.partitioning import murmur2
from streams.ports import Output
from streams.tools.audit import audit_kafka
from tests.site import Site, wait_for

pytestmark = pytest.mark.integration

MURMUR2 = {"partitioner": "murmur2_random"}


def test_bad_input_becomes_dead_letters_and_the_stream_continues(site: Site) -> None:
    site.fill_index()
    topics = site.config.topics
    good = {"user_id": 7, "item_id": 3, "ts": 1404172800.25}
    vector = [site.artifact.dim**-0.5] * site.artifact.dim
    item = {"item_id": 900, "embedding": vector, "model_version": site.artifact.model_version}
    clicks_of_2, items_of_2 = murmur2(b"2") % 4, murmur2(b"2") % 2  # partitions
    bad_clicks: dict[str, tuple[bytes | None, bytes | None]] = {
        "not_json": (b"7", b"this is not JSON"),
        "missing_field": (b"7", orjson.dumps({"user_id": 7, "ts": 1404172800.25})),
        "wrong_type": (b"7", orjson.dumps(good | {"item_id": "3"})),
        "out_of_range": (b"7", orjson.dumps(good | {"item_id": 0})),
        "bad_key": (None, orjson.dumps(good)),
        "null_value": (b"7", None),
        "too_large": (b"7", b"x" * (2 * 2**20)),
    }
    bad_items: dict[str, tuple[bytes | None, bytes | None]] = {
        "bad_embedding": (b"900", orjson.dumps(item | {"embedding": [0.5, None]})),
        "not_json": (b"900", orjson.dumps(item).replace(b"0.25", b"NaN", 1)),
        "wrong_norm": (b"900", orjson.dumps(item | {"embedding": [100 * x for x in vector]})),
        "out_of_range": (b"%d" % -(2**63), None),
        "wrong_dimension": (b"900", orjson.dumps(item | {"embedding": vector[1:]})),
        "bad_key": (b"901", orjson.dumps(item)),
    }
    with site.worker():
        site.producer.send([site.click(1, 5)])
        site.producer.send([Output(topics.clicks, key, value) for key, value in bad_clicks.values()])
        site.producer.send([Output(topics.items, key, value) for key, value in bad_items.values()])
        misplaced = (
            site.click(2, 6)._replace(partition=(clicks_of_2 + 1) % 4),
            Output(topics.items, b"2", None, 1 - items_of_2),
        )
        bad_clicks["wrong_partition"], bad_items["wrong_partition"] = [(o.key, o.value) for o in misplaced]
        site.producer.send(misplaced)
        site.producer.send([site.click(2, 6), site.item(902, np.array(vector, dtype=np.float32))])
        wait_for(lambda: len(site.dead_letters()) == len(bad_clicks) + len(bad_items), "the dead letters")
        wait_for(lambda: len(site.recommendations()) == 2, "both recommendations")
        index = site.index()
        wait_for(lambda: 902 in index.get(np.array([902])), "the good item")

    dead_letters = site.dead_letters()
    for topic, sent in ((topics.clicks, bad_clicks), (topics.items, bad_items)):
        found = {h["reason"]: (m.key, m.value) for m, h in dead_letters if h["topic"] == topic}
        assert found == sent, "original bytes, one reason each"
    for _, headers in dead_letters:
        assert {"reason", "error", "topic", "partition", "offset", "time"} <= headers.keys()
    log = site.log("worker").read_text()
    for reason in {h["reason"] for _, h in dead_letters}:
        assert f": {reason}: " in log, "the first dead letter of each reason is a warning"
    assert audit_kafka(site.config).ok


def test_users_of_two_partitioners_are_made_whole_by_a_replay(site: Site) -> None:
    """Half of each user's clicks come from a producer with librdkafka's default partitioner."""
    site.fill_index()
    clicks = site.config.topics.clicks
    default = Producer(site.config.kafka.client_settings())
    users = [f"user-{n}" for n in range(20)]
    with site.worker():
        for item in range(1, 7):
            outputs = [site.click(user, item) for user in users]
            if item % 2:
                site.producer.send(outputs)
            else:
                for output in outputs:
                    default.produce(clicks, output.value, output.key)
                default.flush()
        wrong = 3 * sum(murmur2(user.encode()) % 4 != crc32(user.encode()) % 4 for user in users)
        assert wrong > 0
        wait_for(lambda: len(site.dead_letters()) == wrong, "the dead letters of clicks in wrong partitions")
        assert {headers["reason"] for _, headers in site.dead_letters()} == {"wrong_partition"}
        assert site.run("streams", "deadletters", "replay", "--yes").returncode == 0

        def longest() -> dict[int | str, int]:
            return {a.user_id: a.history_length for a in site.recommendations()}

        wait_for(lambda: longest() == dict.fromkeys(users, 6), "one history of each user")
        wait_for(lambda: audit_kafka(site.config).ok, "the commit")
    assert audit_kafka(site.config).users_split == 0


@pytest.mark.parametrize("partitioner", ["crc32", "any"])
def test_the_partitioner_is_a_setting(tmp_path: Path, kafka: str, milvus_lite: str, partitioner: str) -> None:
    site = Site(tmp_path, kafka, milvus_lite, settings={"topics.partitioner": partitioner})
    site.create_topics()
    site.fill_index()
    default = Producer(site.config.kafka.client_settings())
    murmur = Producer(site.config.kafka.client_settings(**MURMUR2))
    apart = [u for u in range(100) if len({murmur2(b"%d" % u) % 4, crc32(b"%d" % u) % 4}) == 2][:3]
    with site.worker():
        for producer in (default, murmur):
            for click in [site.click(user, 5) for user in apart]:
                producer.produce(click.topic, click.value, click.key)
            producer.flush()
        wait_for(lambda: sum(a.history_length == 1 for a in site.recommendations()) >= 3, "the answers")
        wait_for(lambda: audit_kafka(site.config).lag_clicks == 0, "the commit")
        if partitioner == "crc32":
            placed = {(m.key, h["reason"]) for m, h in site.dead_letters()}
            assert placed == {(b"%d" % user, "wrong_partition") for user in apart}
            assert site.run("streams", "deadletters", "replay", "--yes").returncode == 0
            wait_for(
                lambda: sum(a.history_length == 2 for a in site.recommendations()) == 3, "both clicks of each user"
            )
        else:
            assert audit_kafka(site.config).users_split == 3, "only the audit notices"
            assert site.dead_letters() == []
    site.drop_index()


def test_unknown_items_are_counted_and_are_no_dead_letters(site: Site) -> None:
    site.fill_index()
    with site.worker():
        site.producer.send([site.click(1, 9_999), site.click(2, 5)])
        wait_for(lambda: audit_kafka(site.config).ok, "both clicks")
    assert [a.user_id for a in site.recommendations()] == [2]
    assert site.dead_letters() == []
    report = audit_kafka(site.config)
    assert report.ok
    assert report.without_candidates == 1


def test_transactions_hide_nothing_from_the_worker_or_the_audit(site: Site) -> None:
    """Aborted clicks count and an open transaction blocks nothing: worker and audit read uncommitted messages."""
    site.fill_index()
    producer = Producer(site.config.kafka.client_settings(**MURMUR2, **{"transactional.id": site.config.worker.group}))
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
        wait_for(lambda: any(a.history_length == 4 for a in site.recommendations()), "an answer to all four clicks")
        wait_for(lambda: audit_kafka(site.config).ok, "the commit")
        assert audit_kafka(site.config).clicks == 4
        producer.abort_transaction()


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_compressed_clicks_are_read(site: Site, codec: str) -> None:
    site.fill_index()
    producer = Producer(site.config.kafka.client_settings(**MURMUR2, **{"compression.type": codec}))
    with site.worker():
        click = site.click(1, 5)
        producer.produce(click.topic, click.value, click.key, headers={"padding": b"x" * 1000})  # worth compressing
        producer.flush()
        wait_for(lambda: len(site.recommendations()) == 1, "a recommendation")


class _InvalidUtf8(str):
    """A header name that is sent as invalid UTF-8."""

    def encode(self, *_: object) -> bytes:
        return b"n\xff"


def test_a_header_with_an_invalid_name_does_not_stop_the_worker(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (message_accumulator, producer):  # the implementation in C accepts valid text only
        monkeypatch.setattr(module, "DefaultRecordBatchBuilder", _DefaultRecordBatchBuilderPy)
    site.fill_index()

    async def send(click: Output, value: bytes | None) -> None:
        async with AIOKafkaProducer(bootstrap_servers=site.config.kafka.bootstrap_servers) as client:
            await client.send_and_wait(click.topic, value, click.key, headers=[(_InvalidUtf8("n"), b"1")])

    with site.worker():
        click = site.click(1, 5)
        asyncio.run(send(click, click.value))
        asyncio.run(send(click, b"{"))
        wait_for(lambda: len(site.recommendations()) == 1 and site.dead_letters(), "an answer and a dead letter")
        assert site.dead_letters()[0][1]["headers"] == r'[["n\\xff","1"]]'
        assert audit_kafka(site.config).ok
