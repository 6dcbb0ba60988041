"""The process around the app: the address that it listens on, open reads, how it ends."""

from __future__ import annotations

import asyncio
import logging
import queue
import socket

import pytest
from pydantic import SecretStr

from configs.errors import FatalError
from configs.loader import load_service
from configs.schema import Service
from streams.errors import RestartRequired
from streams.service import process
from streams.service.access import Access


def _settings(*overrides: str) -> Service:
    return load_service(None, overrides, {}).service


def test_an_address_that_cannot_be_used_is_refused_with_its_keys() -> None:
    with process.listen(_settings("service.port=0")) as listener:
        listener.listen()
        host, port = listener.getsockname()
        assert host == "127.0.0.1"
        with pytest.raises(FatalError, match=rf"service.port {port} on service.host 127.0.0.1 is taken"):
            process.listen(_settings(f"service.port={port}"))
    with pytest.raises(FatalError, match=r"service.host no\.such\.host\.invalid cannot be used"):
        process.listen(_settings("service.host=no.such.host.invalid"))


@pytest.mark.parametrize(
    ("host", "token", "warns"),
    [
        ("127.0.0.1", None, False),
        ("::1", None, False),
        ("localhost", None, False),
        ("::", None, True),
        ("::", SecretStr("x" * 16), False),
    ],
)
def test_open_reads_beyond_this_machine_are_warned_of(
    host: str, token: SecretStr | None, warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        process._warn_of_open_reads(_settings(f"service.host='{host}'"), Access({"read": token}))
    assert ("MINDSTREAM_SERVICE_READ_TOKEN" in caplog.text) is warns


def test_answers_are_sent_at_once() -> None:
    """Connections must not wait for the acknowledgement of an answer's head before they send its body."""

    class Connection(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            without_delay.append(transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            transport.close()

    async def scenario() -> None:
        listener = process.listen(_settings("service.port=0"))
        server = await asyncio.get_running_loop().create_server(Connection, sock=listener)
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        assert await reader.read() == b""  # the server has closed it
        writer.close()
        server.close()
        await server.wait_closed()

    without_delay: list[int] = []
    asyncio.run(scenario())
    assert without_delay == [1]


class _Uvicorn:
    should_exit = False


def test_an_error_ends_the_process_with_its_status_and_a_signal_with_0(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_SHUTDOWN_S", 0.0)
    for error in (RestartRequired("the topic was recreated"), None):
        exits: queue.SimpleQueue[int] = queue.SimpleQueue()
        ending = process._Ending(exits.put)
        server = _Uvicorn()
        ending.server = server  # type: ignore[assignment]
        if error is not None:
            ending.on_error(error)
        ending.on_signal("SIGTERM")
        assert server.should_exit
        status = 75 if error is not None else 0
        assert ending.status == status, "the first reason counts"
        assert exits.get(timeout=10) == status, "also if requests do not end"
