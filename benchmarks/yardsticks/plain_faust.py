"""Plain Faust on the clicks of a benchmark, for comparison.

    python -m benchmarks.yardsticks.plain_faust KIND BROKER TOPIC PARTITIONS CLICKS FOLDER

    empty   an agent that reads the topic and does nothing: Faust's own limit
    table   the design of Faust's documentation: histories in a table, one `topic.send` per click

Neither encodes nor searches; the answer that `table` sends was encoded beforehand. After CLICKS clicks it prints the
clicks/s of the middle 80 % of them and its CPU seconds per click, and exits. Faust keeps its files in FOLDER.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import faust
import orjson

#: Clicks in a history, and items in an answer.
_LENGTH, _ITEMS = 20, 50


def build(kind: str, broker: str, topic: str, partitions: int, clicks: int, folder: str) -> faust.App:
    """Return the app of one kind; it ends the process after `clicks` clicks."""
    app = faust.App(
        f"{topic}-{kind}",
        broker=f"kafka://{broker}",
        store="memory://",
        datadir=folder,
        consumer_auto_offset_reset="earliest",
        stream_wait_empty=False,
        topic_disable_leader=True,
        topic_replication_factor=1,
        worker_redirect_stdouts=False,
        autodiscover=False,
        web_enabled=False,
    )
    channel = app.topic(topic, key_serializer="raw", value_serializer="raw")
    answers = app.topic(f"{topic}-{kind}-answers", key_serializer="raw", value_serializer="raw", partitions=partitions)
    answer = json.dumps({"item_ids": list(range(_ITEMS)), "scores": [0.123456] * _ITEMS, "interests": [1] * _ITEMS})
    seen, begin = 0, 0.0
    first, last = clicks // 10 + 1, clicks - clicks // 10

    def count() -> None:
        nonlocal seen, begin
        seen += 1
        if seen == first:
            begin = time.monotonic()
        elif seen == last:
            rate = (last - first) / (time.monotonic() - begin)
            print(json.dumps({"rate": rate, "cpu": time.process_time() / seen}), flush=True)
            os._exit(0)

    async def empty(stream: Any) -> None:
        async for _ in stream:
            count()

    async def table(stream: Any) -> None:
        async for key, value in stream.items():
            click = orjson.loads(value)
            user = key.decode()
            histories[user] = [*(histories[user] or [])[1 - _LENGTH :], click["item_id"]]
            await answers.send(key=key, value=answer.encode())
            count()

    if kind == "table":
        histories = app.Table("histories", default=list, partitions=partitions)
        app.task(answers.maybe_declare)
    app.agent(channel)(table if kind == "table" else empty)
    return app


if __name__ == "__main__":
    kind, broker, topic, partitions, clicks, folder = sys.argv[1:]
    app = build(kind, broker, topic, int(partitions), int(clicks), folder)
    worker = faust.Worker(app, loglevel="WARN", quiet=True)
    worker.spinner = None  # it writes to standard output
    worker.execute_from_commandline()
