"""Milvus with token and TLS."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.errors import EXIT_CONFIG
from tests.integration.security.secure_servers import Authority, SecureMilvus
from tests.integration.security.secure_site import acting
from tests.site import Site, wait_for

pytestmark = pytest.mark.integration


@pytest.mark.standalone
def test_milvus_with_token_and_tls(tmp_path: Path, kafka: str, secure_milvus: SecureMilvus) -> None:
    """All in one test: pymilvus caches a connection for each address, so that another test would not log in."""
    address = secure_milvus.address
    assert address is not None
    site = Site(
        tmp_path,
        kafka,
        address,
        settings={"milvus.ca_file": secure_milvus.authority.file},
        environ={"MINDSTREAM_MILVUS_TOKEN": secure_milvus.token},
    )
    site.create_topics()
    site.fill_index()
    with acting({"MINDSTREAM_MILVUS_TOKEN": secure_milvus.token}), site.worker("--agents", "clicks"):
        site.producer.send([site.click(1, 5)])
        wait_for(lambda: [a.user_id for a in site.recommendations()] == [1], "the recommendation")
    other_authority = Authority(tmp_path / "another").file
    for token, override, says in (
        ("root:secret-and-wrong", "milvus.timeout=10", "milvus.token"),
        (secure_milvus.token, f"milvus.ca_file={other_authority}", "milvus.ca_file"),
        (secure_milvus.token, f"milvus.uri={address.replace('https', 'http')}", "https:// in milvus.uri"),
        (secure_milvus.token, "milvus.ca_file=/nowhere/ca.pem", "milvus.ca_file"),
    ):
        with acting({"MINDSTREAM_MILVUS_TOKEN": token}):
            done = site.run("streams", "worker", "--set", override)
        assert done.returncode == EXIT_CONFIG, done.stderr
        errors = [line for line in done.stderr.splitlines() if "Error: " in line or "CRITICAL" in line]
        assert len(errors) == 1, done.stderr
        assert says in errors[0]
        assert "Traceback" not in done.stderr
        assert token not in done.stderr
    site.drop_index()
