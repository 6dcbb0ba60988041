"""Runs the Faust apps of one worker process: signals, exit status."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection

import faust

from configs.schema import WorkerConfig
from streams.agents import EXIT_DEFECT
from streams.app import build

_LOG = logging.getLogger("mindstream.worker")


class _Worker(faust.Worker):
    """Faust's worker without its second of sleep at the end."""

    async def _sentinel_task(self) -> None:
        pass


def run(config: WorkerConfig, agents: Collection[str]) -> int:
    """Run until SIGTERM or SIGINT; returns the exit status.

    Raises:
        FatalError, TransientError: as `streams.app.build`.
    """
    # Faust logs every step of a rebalance as a table; what an operator needs is logged here.
    logging.getLogger("faust").setLevel(logging.WARNING)
    logging.getLogger("aiokafka").setLevel(logging.WARNING)
    logging.getLogger("mode").setLevel(logging.WARNING)
    apps = build(config, agents)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    worker = _Worker(apps[0], *apps[1:], loop=loop, quiet=True, override_logging=False)
    worker.spinner = None  # it writes to standard output
    try:
        worker.execute_from_commandline()
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else 0
    except Exception:  # noqa: BLE001 - whatever made Faust's services crash
        _LOG.exception("a service crashed")
        status = EXIT_DEFECT
    _LOG.info("left")
    return status if status in (0, EXIT_DEFECT) else EXIT_DEFECT
