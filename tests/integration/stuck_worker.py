"""The worker with a part that hangs, for the tests of the watchdog alone; options as of `python -m streams worker`.

MINDSTREAM_HANGS names the part, which hangs once there is a click for it.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Sequence
from types import SimpleNamespace
from typing import Any

import streams.worker.build
from streams.__main__ import main
from streams.agents.agent import BatchAgent
from streams.agents.batching import Batch
from streams.ports import Message
from streams.processing.clicks import ClickProcessor


class _HangsInBatch(ClickProcessor):
    def process(self, messages: Sequence[Message], following: Sequence[Message] = ()) -> None:
        threading.Event().wait()


class _HangsInLoop(BatchAgent):
    async def _run(self, batch: Batch) -> Batch | None:
        while batch.messages and "clicks" in self.topic:
            time.sleep(1)  # noqa: ASYNC251 - the event loop stands still
        return None


class _LosesPartition(BatchAgent):
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
    name, part = {
        "batch": ("ClickProcessor", _HangsInBatch),
        "loop": ("BatchAgent", _HangsInLoop),
        "partition": ("BatchAgent", _LosesPartition),
    }[os.environ["MINDSTREAM_HANGS"]]
    assert hasattr(streams.worker.build, name)
    setattr(streams.worker.build, name, part)
    main(["worker", *sys.argv[1:]], prog_name="stuck worker")
