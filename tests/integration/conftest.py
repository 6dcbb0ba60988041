"""A site on the shared servers, for tests that need no other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.site import Site


@pytest.fixture
def site(tmp_path: Path, kafka: str, milvus_lite: str) -> Iterator[Site]:
    """A site with topics; its collection is dropped at the end."""
    made = Site(tmp_path, kafka, milvus_lite)
    made.create_topics()
    yield made
    made.drop_index()
