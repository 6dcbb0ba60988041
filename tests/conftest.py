"""Fixtures for every test folder: real servers, started when the first test asks for one, ended with the session.

Each has a folder of its own below pytest's temporary one; only the downloads are shared with the demo. Servers named by
MINDSTREAM_KAFKA or MINDSTREAM_MILVUS are used instead, if set.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from embedded.errors import EmbeddedError
from embedded.stack import Flavour, Stack
from embedded.standalone import require_platform

# A busy machine is no fault of the code; and what CI runs twice, it should judge alike: developers find new examples.
settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Bootstrap servers of a Kafka broker. It is shared: use topics and groups of the test's own."""
    stack = Stack(tmp_path_factory.mktemp("kafka"), milvus="none")
    address = stack.up().kafka
    assert address is not None
    yield address
    stack.down(wipe=True)


@pytest.fixture(scope="session")
def milvus_lite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URI of a milvus-lite server. It is shared: use collections of the test's own."""
    yield from _milvus(tmp_path_factory, "lite")


@pytest.fixture(scope="session")
def milvus_standalone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URI of a real Milvus standalone server; skips where there is none. Mark the test `standalone`."""
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
