"""The worker with a part that hangs, only for the tests of the watchdog; its options are those of `python -m streams
worker`.

MINDSTREAM_HANGS names the part, which hangs as soon as there is a click for it.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

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


if __name__ == "__main__":
    parts = {
        "batch": WorkerParts(click_processor=_HangsInBatch),
        "loop": WorkerParts(agent=_HangsInLoop),
        "partition": WorkerParts(agent=_LosesPartition),
    }
    main(["worker", *sys.argv[1:]], prog_name="stuck worker", obj=parts[os.environ["MINDSTREAM_HANGS"]])
