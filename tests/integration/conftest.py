"""The site on the shared servers that most tests use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.site import Site


@pytest.fixture
def site(tmp_path: Path, kafka: str, milvus_lite: str) -> Iterator[Site]:
    """A site with topics; its collection is dropped at the end."""
    new_site = Site(tmp_path, kafka, milvus_lite)
    new_site.create_topics()
    yield new_site
    new_site.drop_index()
