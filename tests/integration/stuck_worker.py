"""The worker with a part that fails, only for the tests of its health; its options are those of `python -m streams
worker`.

MINDSTREAM_HANGS names the part, which hangs as soon as there is a click for it. With "metadata", the Kafka client does
not find the click topic in the answers of the broker while the file MINDSTREAM_BLIND exists.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from aiokafka.cluster import ClusterMetadata  # type: ignore[import-untyped]

from streams.__main__ import main
from streams.agents.agent import BatchAgent
from streams.agents.pipeline import Work
from streams.processing.clicks import ClickProcessor, PendingClicks
from streams.worker.parts import WorkerParts


class _HangsInBatch(ClickProcessor):
    def finish(self, pending: PendingClicks) -> None:
        threading.Event().wait()


class _HangsInLoop(BatchAgent[Any]):
    async def _run_batch(self, work: Work[Any]) -> Work[Any] | None:
        while work.batch.messages and "clicks" in self.topic:
            time.sleep(1)  # noqa: ASYNC251 - the event loop hangs
        return None


class _LosesPartition(BatchAgent[Any]):
    """Messages of click partition 0 never arrive, as from a consumer that hangs in one partition."""

    async def _read(self, stream: Any) -> None:
        async def some() -> AsyncIterator[Any]:
            async for event in stream.noack().events():
                message = event.message
                if "clicks" in self.topic:
                    message.value = [run for run in message.value if run.records[0].partition != 0]
                yield event

        await super()._read(SimpleNamespace(noack=lambda: SimpleNamespace(events=some)))


def _hide_topic(while_exists: Path) -> None:
    update = ClusterMetadata.update_metadata

    def partial_update(cluster: Any, answer: Any) -> None:
        if while_exists.exists():
            answer.topics = [topic for topic in answer.topics if not topic[1].endswith("-clicks")]
        update(cluster, answer)

    ClusterMetadata.update_metadata = partial_update


if __name__ == "__main__":
    if "MINDSTREAM_BLIND" in os.environ:
        _hide_topic(Path(os.environ["MINDSTREAM_BLIND"]))
    parts = {
        "metadata": WorkerParts(),
        "batch": WorkerParts(click_processor=_HangsInBatch),
        "loop": WorkerParts(agent=_HangsInLoop),
        "partition": WorkerParts(agent=_LosesPartition),
    }
    main(["worker", *sys.argv[1:]], prog_name="stuck worker", obj=parts[os.environ["MINDSTREAM_HANGS"]])
