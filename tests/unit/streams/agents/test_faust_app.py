"""The settings of the Faust app."""

from __future__ import annotations

from typing import Any, cast

import pytest

from configs.loader import load_worker
from streams.agents.faust_app import worker_app


@pytest.mark.parametrize(("batch_size", "limit"), [(1, 4096), (256, 4096), (4000, 8000)])
def test_the_kafka_client_delivers_a_limited_number_of_messages_at_once(batch_size: int, limit: int) -> None:
    agent = cast("Any", object())
    app = worker_app(load_worker(), "g-clicks", batch_size, lambda _app: agent)
    assert app.conf.broker_max_poll_records == limit
    assert app.batch_agent is agent
