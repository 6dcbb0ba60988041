"""Many broken messages through the real worker: none is lost, none blocks, and good clicks are answered.

FUZZ_MESSAGES sets their number. FUZZ_SEED repeats a run: each run prints its seed.
"""

from __future__ import annotations

import math
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import orjson
import pytest
from confluent_kafka import Consumer, TopicPartition

from configs.errors import TransientError
from model.arrays import FloatArray
from streams.errors import BadMessage
from streams.kafka.reading import read_to_end, watermarks
from streams.kafka.topics import items_group
from streams.messages.clicks import MAX_CLICK_BYTES, decode_click
from streams.messages.dead_letters import MessageRef, StoredDeadLetter, read_dead_letter
from streams.messages.items import Item, ItemRemoval, decode_item
from streams.ports import Message, Output
from streams.tools.audit import audit_kafka
from tests.site import Site, wait_for
from tests.unit.streams.messages.test_fuzz import TOKENS

pytestmark = pytest.mark.integration

MESSAGES = int(os.environ.get("FUZZ_MESSAGES", "10000"))
#: CI always uses the same seed, for reproducible results; developers use new ones, which may find new faults.
SEED = int(os.environ.get("FUZZ_SEED", "1" if os.environ.get("CI") else str(random.SystemRandom().randrange(2**32))))
#: Compaction is off, because every message that was sent is compared with its outcome.
UNCOMPACTED = {"min.compaction.lag.ms": "86400000"}
#: One message in `HUGE_EVERY` has about the largest size of its topic.
HUGE_EVERY = 2000
#: One message in `GOOD_EVERY` is a good click, of a user `good-…`.
GOOD_EVERY = 20
GOOD_USERS = 50


class Fuzzer:
    """Messages for both input topics, the same for the same seed."""

    def __init__(self, site: Site, seed: int) -> None:
        self._random = random.Random(seed)
        self._site = site
        self._largest = site.config.topics.max_message_bytes - 1024

    def messages(self, count: int) -> Iterator[Output]:
        for number in range(count):
            if number % GOOD_EVERY == 0:
                yield self._site.click(f"good-{self._random.randrange(GOOD_USERS)}", self._random.randint(1, 300))
            elif number % HUGE_EVERY == 1:
                yield self._huge(items=number % (2 * HUGE_EVERY) == 1)
            else:
                yield self._broken_click() if self._random.random() < 0.5 else self._broken_item()

    def _broken_click(self) -> Output:
        user = f"user-{self._random.randrange(100)}"
        valid = orjson.dumps({"user_id": user, "item_id": self._random.randint(1, 400), "ts": 1404172800.25})
        key = self._random.choice([user.encode()] * 8 + [None, b"", b"\xff", self._random.randbytes(8)])
        return Output(self._site.config.topics.clicks, key, self._broken(valid), headers=self._headers())

    def _broken_item(self) -> Output:
        item_id = self._random.randint(1000, 1400)
        dim = self._site.artifact.dim - (self._random.random() < 0.1)
        vector = [self._random.gauss(0, 1) for _ in range(dim)]
        length = math.hypot(*vector) / self._random.choice([1] * 9 + [100])
        vector = [x / length for x in vector]
        version = self._random.choice([self._site.artifact.model_version] * 9 + ["another"])
        valid = orjson.dumps({"item_id": item_id, "embedding": vector, "model_version": version, "title": "t"})
        # A compacted topic refuses messages without a key.
        key = self._random.choice([str(item_id).encode()] * 9 + [b"", b"\xff", self._random.randbytes(8)])
        return Output(self._site.config.topics.items, key, self._broken(valid), headers=self._headers())

    def _huge(self, items: bool) -> Output:
        size = self._largest - self._random.choice([0, 1, self._random.randrange(2**20)])
        text = self._random.choice([b"x" * size, self._random.randbytes(size), b"[" * size, b'"' + b"y" * (size - 1)])
        if items:
            value = b'{"item_id":5000,"title":"' + b"t" * size + b'"}'
            return Output(self._site.config.topics.items, b"5000", self._random.choice([text, value[:size]]))
        edge = b"z" * (MAX_CLICK_BYTES + self._random.choice([-1, 0, 1]))
        return Output(self._site.config.topics.clicks, b"z", self._random.choice([text, edge]))

    def _headers(self) -> list[tuple[str, bytes]]:
        if self._random.random() < 0.9:
            return []
        names = ["trace", "topic", "reason", "replay-attempt", "", "é\x00"]
        return [(self._random.choice(names), self._random.randbytes(self._random.randrange(9))) for _ in range(3)]

    def _broken(self, valid: bytes) -> bytes | None:
        chance = self._random.random()
        if chance < 0.03:
            return None
        if chance < 0.1:
            return self._random.randbytes(self._random.randrange(300))
        if chance < 0.4:
            return self._with_token(valid)
        value = bytearray(valid)
        for _ in range(self._random.randint(1, 4)):
            self._damage(value)
        return bytes(value)

    def _with_token(self, valid: bytes) -> bytes:
        fields: dict[str, object] = orjson.loads(valid)
        name = self._random.choice([*fields, "event_id", "category"])
        del fields[self._random.choice(list(fields))]
        return orjson.dumps(fields)[:-1] + b',"' + name.encode() + b'":' + self._random.choice(TOKENS) + b"}"

    def _damage(self, value: bytearray) -> None:
        at = self._random.randrange(len(value) + 1)
        kind = self._random.randrange(4)
        if kind == 0 and at < len(value):
            value[at] ^= 1 << self._random.randrange(8)
        elif kind == 1:
            value[at:at] = self._random.randbytes(self._random.randint(1, 4))
        elif kind == 2:
            del value[at : at + self._random.randint(1, 20)]
        else:
            value[at:at] = value[at : at + self._random.randint(1, 40)]


@pytest.fixture
def site(tmp_path: Path, kafka: str, milvus_lite: str) -> Iterator[Site]:
    new_site = Site(tmp_path, kafka, milvus_lite)
    new_site.create_topics(UNCOMPACTED)
    new_site.fill_index()
    yield new_site
    new_site.drop_index()


def _reason(site: Site, message: Message) -> str | None:
    """Return the reason for which the message must be a dead letter; None if it must not be one."""
    try:
        if message.topic == site.config.topics.clicks:
            decode_click(message.key, message.value)
            return None
        item = decode_item(message.key, message.value)
    except BadMessage as error:
        return error.reason
    if isinstance(item, ItemRemoval) or item.model_version != site.artifact.model_version:
        return None
    if len(item.embedding) != site.artifact.dim:
        return "wrong_dimension"
    return None if 0.99 <= math.hypot(*item.embedding.tolist()) <= 1.01 else "wrong_norm"


def _lag(site: Site) -> int:
    """Return the number of messages that the worker has not committed yet."""
    lag = 0
    topics, group = site.config.topics, site.config.worker.group
    index = site.index()
    group_of_items = items_group(group, site.artifact.model_version, index.identity)
    index.close()
    for name, topic in ((f"{group}-clicks", topics.clicks), (group_of_items, topics.items)):
        ends = {partition: end for partition, (_, end) in watermarks(site.config.kafka, topic).items()}
        consumer = Consumer(site.config.kafka.client_settings(**{"group.id": name}))
        committed = consumer.committed([TopicPartition(topic, partition) for partition in ends], timeout=10)
        lag += sum(ends[tp.partition] - max(0, tp.offset) for tp in committed)
        consumer.close()
    return lag


def _vectors(site: Site, ids: list[int]) -> dict[int, FloatArray]:
    """Return the vectors of these items in Milvus; none while it is too busy to answer."""
    try:
        index = site.index()
        found = dict(index.get(np.array(ids)))
        index.close()
    except TransientError:
        return {}
    return found


def _dead_letters(site: Site) -> dict[MessageRef, StoredDeadLetter]:
    found = {}
    for message, headers, _ in read_to_end(site.config.kafka, site.config.topics.dead_letters, headers=True):
        dead_letter = read_dead_letter(message, headers)
        assert dead_letter is not None
        assert dead_letter.source not in found, "without a crash, each dead letter is written once"
        found[dead_letter.source] = dead_letter
    return found


def _send(site: Site) -> set[str]:
    """Send all messages; return the users of the good clicks."""
    users = set()
    chunk: list[Output] = []
    for output in Fuzzer(site, SEED).messages(MESSAGES):
        chunk.append(output)
        if output.key is not None and output.key.startswith(b"good-"):
            users.add(output.key.decode())
        if len(chunk) == 1000:
            site.producer.send(chunk)
            chunk.clear()
    site.producer.send(chunk)
    return users


def _check_messages(site: Site) -> tuple[Counter[str], dict[int, Item | None]]:
    """Assert that exactly the unreadable messages are dead letters, unchanged.

    Returns:
        Reason → dead letters, and item id → the newest item of the model's version, None if it was removed.
    """
    dead_letters = _dead_letters(site)
    reasons: Counter[str] = Counter()
    total = 0
    items: dict[int, Item | None] = {}
    topics = site.config.topics
    for topic in (topics.clicks, topics.items):
        for message, headers, _ in read_to_end(site.config.kafka, topic, headers=True):
            total += 1
            dead_letter = dead_letters.pop(MessageRef(message.topic, message.partition, message.offset), None)
            reason = _reason(site, message)
            assert (dead_letter.reason if dead_letter else None) == reason, message
            if dead_letter is not None:
                reasons[dead_letter.reason] += 1
                assert (dead_letter.message.key, dead_letter.message.value) == (message.key, message.value)
                assert {name: value or b"" for name, value in dead_letter.message.headers} == headers
            elif topic == topics.items:
                item = decode_item(message.key, message.value)
                if isinstance(item, ItemRemoval):
                    items[item.item_id] = None
                elif item.model_version == site.artifact.model_version:
                    items[item.item_id] = item
    assert not dead_letters, "dead letters of messages that were not sent"
    assert total == MESSAGES + 1
    return reasons, items


@pytest.mark.timeout(900)
def test_many_broken_messages(site: Site) -> None:
    print(f"FUZZ_SEED={SEED} FUZZ_MESSAGES={MESSAGES}")
    sending = time.monotonic()
    good_users = _send(site)
    started = time.monotonic()
    with site.worker() as worker:
        wait_for(lambda: worker.poll() is not None or _lag(site) == 0, "the end of both topics", timeout_s=600)
        worker.require_running()
        seconds = time.monotonic() - started
        # The worker still works.
        site.producer.send([site.click("good-last", 5)])
        wait_for(lambda: _lag(site) == 0, "a last click")

    reasons, items = _check_messages(site)
    print(
        f"{MESSAGES:,} messages sent in {started - sending:.0f} s, done in {seconds:.0f} s "
        f"({MESSAGES / seconds:,.0f}/s): {reasons.total():,} dead letters {dict(reasons)}, {len(items)} items"
    )
    report = audit_kafka(site.config)
    assert report.ok, report.to_text()
    assert good_users | {"good-last"} <= {answer.user_id for answer in site.recommendations()}
    expected = {item_id: item.embedding for item_id, item in items.items() if item is not None}
    wait_for(lambda: _vectors(site, list(items)).keys() == expected.keys(), "the items in Milvus")
    found = _vectors(site, list(expected))
    assert all(np.array_equal(found[item_id], vector) for item_id, vector in expected.items())
