"""The recall service and the hand-wired one, running."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.harness.data import Shop
from benchmarks.harness.servers import POLL_S
from benchmarks.harness.site import BenchmarkSite
from benchmarks.yardsticks.clients import HttpService
from embedded.ports import pick
from embedded.program import http_get


@contextmanager
def hand_wired(site: BenchmarkSite, shop: Shop) -> Iterator[HttpService]:
    """Run the baseline (`benchmarks.yardsticks.hand_wired`) in a block, which begins when it answers."""
    config, (port,) = site.config, pick(1)
    options = [config.milvus.uri, str(port), str(config.milvus.hnsw_ef), str(config.recall.top_k)]
    with site.program("benchmarks.yardsticks.hand_wired", str(shop.artifact.path), *options) as program:
        program.await_http(port, "/openapi.json")
        yield HttpService(program, port, "/recommend", lambda histories: {"histories": histories})


@contextmanager
def recall_service(site: BenchmarkSite, *settings: str) -> Iterator[HttpService]:
    """Run `python -m streams service` in a block, which begins when it is ready, and the page's map is computed.

    Args:
        site: with its topics and its collection.
        settings: "key=value", of the service.
    """
    (port,) = pick(1)
    own = [f"service.port={port}", f"service.data_dir={site.data_dir('service')}", *settings]
    sets = [argument for setting in own for argument in ("--set", setting)]
    program = site.start("streams", "service", *sets, name="service")
    try:
        program.await_http(port, "/readyz")
        while json.loads(http_get(port, "/page/map")[1])["state"] == "computing":
            program.require_running()
            time.sleep(POLL_S)
        yield HttpService(program, port, "/v1/recommendations", _recommendations_body)
    finally:
        program.stop()


def _recommendations_body(histories: list[list[int]]) -> object:
    return {"requests": [{"history": history} for history in histories]}
