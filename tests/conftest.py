"""Fixtures for all tests: real servers, started when the first test needs them, and stopped at the end of the session.

Each server has a folder of its own below pytest's temporary one; only the downloads are shared with the demo. If
MINDSTREAM_KAFKA or MINDSTREAM_MILVUS is set, that server is used instead.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from embedded.errors import EmbeddedError
from embedded.stack import Flavour, Stack
from embedded.standalone import require_platform

# No deadline, because machines may be busy. CI always uses the same examples; developers may find new ones.
settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Bootstrap servers of a shared Kafka broker: each test uses topics and groups with names of its own."""
    stack = Stack(tmp_path_factory.mktemp("kafka"), milvus="none")
    address = stack.up().kafka
    assert address is not None
    yield address
    stack.down(wipe=True)


@pytest.fixture(scope="session")
def milvus_lite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URI of a shared milvus-lite server: each test uses collections with names of its own."""
    yield from _milvus(tmp_path_factory, "lite")


@pytest.fixture(scope="session")
def milvus_standalone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URI of a shared standalone Milvus; skips the test on platforms without one. Mark the test `standalone`."""
    try:
        require_platform()
    except EmbeddedError as error:
        pytest.skip(str(error))
    yield from _milvus(tmp_path_factory, "standalone")


def _milvus(tmp_path_factory: pytest.TempPathFactory, flavour: Flavour) -> Iterator[str]:
    stack = Stack(tmp_path_factory.mktemp(f"milvus-{flavour}"), milvus=flavour, kafka=False)
    address = stack.up().milvus
    assert address is not None
    yield address
    stack.down(wipe=True)
