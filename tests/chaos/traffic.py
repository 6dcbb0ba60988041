"""The traffic of every chaos scenario: difficult clicks at a steady rate, and item updates."""

from __future__ import annotations

import random
import threading
import time
from typing import Any

import numpy as np
from confluent_kafka import KafkaException

from configs.errors import TransientError
from configs.schema import Partitioner
from model.arrays import FloatVector
from streams.errors import Reason
from streams.kafka.client import translate_error
from streams.kafka.producer import KafkaRecordProducer
from streams.messages.clicks import Click, encode_click, user_key
from streams.ports import Output
from streams.tools.audit_clicks import content_hash
from tests.chaos import poison
from tests.site import Site

USERS = 400
#: Share of all clicks that user 0 makes.
BUSY_USER_SHARE = 0.2
#: Share of the clicks that are random bytes.
INVALID_SHARE = 0.01
#: Share of the clicks that are poisonous in another way, for each of them.
POISON_SHARE = 0.001
#: Share of the item messages that are poisonous.
POISONOUS_ITEM_SHARE = 0.2
#: Share of the clicks of the second producer, while there is one.
SECOND_SHARE = 0.3
#: Hours by which a producer's clock may be wrong, in either direction: in its clicks, and in the timestamps that it
#: gives to Kafka.
CLOCK_ERROR_HOURS = 12
#: Items published after training, whose vectors keep changing.
NEW_ITEMS = range(5_000, 5_040)
#: Seconds between two sends.
_INTERVAL_S = 0.05


class _WrongClockProducer(KafkaRecordProducer):
    """Gives every message a wrong timestamp, each by a different number of hours."""

    def __init__(self, site: Site, partitioner: Partitioner, seed: int) -> None:
        super().__init__(site.config.kafka, site.config.topics.max_message_bytes, partitioner)
        self._rng = random.Random(seed)

    def _produce(self, output: Output, on_delivery: Any) -> None:
        when = _wrong_time(self._rng)
        try:
            self._producer.produce(
                output.topic, output.value, output.key, on_delivery=on_delivery, timestamp=round(when * 1000)
            )
        except KafkaException as error:
            raise translate_error(error.args[0], output.topic) from None


def _wrong_time(rng: random.Random) -> float:
    return time.time() + rng.uniform(-CLOCK_ERROR_HOURS, CLOCK_ERROR_HOURS) * 3600


class Traffic(threading.Thread):  # more than 12 attributes: what it sends, how, and what must come of it
    """Sends until it is stopped, and retries until Kafka acknowledges.

    Args:
        site: names the topics, and has the model.
        seed: seed of users, items and times.
        clicks_per_s: clicks a second.

    Attributes:
        clicks: messages sent to the click topic; while the traffic is paused, Kafka has acknowledged all of them.
        vectors: item id → vector published last.
        dead_letters: `content_hash` of each message that must become a dead letter → the reason.
        renew_items: whether to publish another vector of each new item, once.
        two_producers: whether another producer, with librdkafka's default partitioner, sends some of the clicks.
    """

    def __init__(self, site: Site, seed: int, clicks_per_s: float) -> None:
        super().__init__(daemon=True)
        self._site = site
        self._rng = random.Random(seed)
        self._producer = _WrongClockProducer(site, "murmur2", seed)
        self._second_producer = _WrongClockProducer(site, "crc32", seed + 1)
        self._poisonous_items = poison.PoisonousItems(site, self._rng, NEW_ITEMS)
        self._numbers = np.random.default_rng(seed)
        self._clicks_per_s = clicks_per_s
        self._flowing = threading.Event()
        self._idle = threading.Event()
        self._idle.set()
        self._stopped = False
        self.clicks = 0
        self.vectors: dict[int, np.ndarray] = {}
        self.dead_letters: dict[int, Reason] = {}
        self.renew_items = self.two_producers = False

    def resume(self) -> None:
        self._flowing.set()

    def pause(self) -> None:
        """Stop sending until `resume`, and wait until Kafka has acknowledged everything."""
        self._flowing.clear()
        assert self._idle.wait(120), "Kafka does not acknowledge the clicks"

    def stop(self) -> None:
        self._stopped = True
        self._flowing.set()
        self.join(60)

    def run(self) -> None:
        due, last = 0.0, time.monotonic()
        while not self._stopped:
            if not self._flowing.is_set():
                self._idle.set()
                self._flowing.wait()
                last = time.monotonic()
            self._idle.clear()
            now = time.monotonic()
            due, last = min(due + (now - last) * self._clicks_per_s, 5 * self._clicks_per_s), now
            clicks = [self._click() for _ in range(int(due))]
            due -= len(clicks)
            self.clicks += len(clicks)
            split = round(len(clicks) * SECOND_SHARE) if self.two_producers else 0
            self._send(self._second_producer, clicks[:split])
            self._send(self._producer, [*clicks[split:], *self._items()])
            time.sleep(_INTERVAL_S)
        self._idle.set()

    def _send(self, producer: KafkaRecordProducer, outputs: list[Output]) -> None:
        while outputs:
            try:
                producer.send(outputs)
            except TransientError:
                if self._stopped:
                    return
                time.sleep(0.2)
            else:
                return

    def _click(self) -> Output:
        user = 0 if self._rng.random() < BUSY_USER_SHARE else self._rng.randrange(1, USERS)
        click = Click(user, self._rng.randrange(1, len(self._site.artifact.item_ids)), _wrong_time(self._rng))
        chosen = self._rng.random()
        if chosen < INVALID_SHARE:
            return self._poisonous(self._site.config.topics.clicks, poison.not_json(self._rng, click))
        kind = int((chosen - INVALID_SHARE) / POISON_SHARE)
        if kind < len(poison.CLICKS):
            poisonous = list(poison.CLICKS.values())[kind](self._rng, click)
            return self._poisonous(self._site.config.topics.clicks, poisonous)
        return Output(self._site.config.topics.clicks, user_key(user), encode_click(click))

    def _items(self) -> list[Output]:
        if self.renew_items:
            self.renew_items = False
            return [self._item(item) for item in NEW_ITEMS]
        if self._rng.random() > 2 * _INTERVAL_S:  # two updates a second
            return []
        if self._rng.random() < POISONOUS_ITEM_SHARE:
            return [self._poisonous(self._site.config.topics.items, self._poisonous_items.make(self._vector()))]
        return [self._item(self._rng.choice(NEW_ITEMS))]

    def _item(self, item_id: int) -> Output:
        self.vectors[item_id] = self._vector()
        return self._site.item(item_id, self.vectors[item_id])

    def _vector(self) -> FloatVector:
        vector = self._numbers.standard_normal(self._site.artifact.dim)
        unit: FloatVector = (vector / np.linalg.norm(vector)).astype(np.float32)
        return unit

    def _poisonous(self, topic: str, message: poison.Poison) -> Output:
        if message.reason is not None:
            self.dead_letters[content_hash(message.key, message.value)] = message.reason
        return Output(topic, message.key, message.value)
