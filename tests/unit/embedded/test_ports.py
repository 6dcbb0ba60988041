"""Free ports, and errors that name the owner of a taken port."""

from __future__ import annotations

import os

import pytest

from embedded import ports
from embedded.errors import EmbeddedError
from embedded.stack import Stack
from tests.unit.embedded.toy_servers import ToyServer


def test_picked_ports_are_free_and_below_the_range_of_outgoing_connections(taken: int) -> None:
    picked = ports.pick(5)
    assert len(set(picked)) == 5
    assert all(ports.is_free(port) and port < 32_768 for port in picked)
    assert not ports.is_free(taken)


def test_a_taken_port_is_refused_with_its_owner(taken: int, stack: Stack, toy: ToyServer) -> None:
    toy.requested_port = taken
    with pytest.raises(EmbeddedError, match=rf"Port {taken} for Toy is taken by .*process {os.getpid()}.*--kafka-port"):
        stack.up()
    assert toy.pid is None
