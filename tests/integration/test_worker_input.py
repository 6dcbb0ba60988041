"""Unusual messages on real Kafka and Milvus: broken, compressed, in transactions, with invalid header names."""

from __future__ import annotations

import asyncio

import numpy as np
import orjson
import pytest
from aiokafka import AIOKafkaProducer  # type: ignore[import-untyped]
from aiokafka.producer import message_accumulator, producer  # type: ignore[import-untyped]
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy  # type: ignore[import-untyped]
from confluent_kafka import Producer

from streams.ports import Output
from streams.tools.audit import audit_kafka
from tests.site import Site, wait_for

pytestmark = pytest.mark.integration

MURMUR2 = {"partitioner": "murmur2_random"}


def test_bad_input_becomes_dead_letters_and_the_stream_continues(site: Site) -> None:
    site.fill_index()
    topics = site.config.topics
    good = {"user_id": 7, "item_id": 3, "ts": 1404172800.25}
    vector = [1.0] * site.artifact.dim
    item = {"item_id": 900, "embedding": vector, "model_version": site.artifact.model_version}
    bad_clicks = {
        "not_json": (b"7", b"this is not JSON"),
        "missing_field": (b"7", orjson.dumps({"user_id": 7, "ts": 1404172800.25})),
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
        wait_for(lambda: len(site.recommendations()) == 2, "both recommendations")
        index = site.index()
        wait_for(lambda: 902 in index.get(np.array([902])), "the good item")

    dead_letters = site.dead_letters()
    for topic, sent in ((topics.clicks, bad_clicks), (topics.items, bad_items)):
        found = {h["reason"]: (m.key, m.value) for m, h in dead_letters if h["topic"] == topic}
        assert found == sent, "original bytes, one reason each"
    for _, headers in dead_letters:
        assert {"reason", "error", "topic", "partition", "offset", "time"} <= headers.keys()
    assert audit_kafka(site.config).ok


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
