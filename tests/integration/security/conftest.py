"""Servers with TLS, passwords and rights, and a site on them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from embedded.errors import EmbeddedError
from embedded.instance import Instance
from embedded.standalone import require_platform
from tests.integration.security.secure_servers import SecureKafka, SecureMilvus
from tests.integration.security.secure_site import USERS, SecureSite


@pytest.fixture(scope="package")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    folder = tmp_path_factory.mktemp("secure-kafka")
    server = SecureKafka(Instance.in_folder(folder), USERS)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def site(tmp_path: Path, broker: SecureKafka, milvus_lite: str) -> Iterator[SecureSite]:
    new_site = SecureSite(tmp_path, broker, milvus_lite)
    granted = {user: new_site.rights(user) for user in USERS}
    for user, needed in granted.items():
        broker.grant(user, needed)
    yield new_site
    for log in new_site.log("*").parent.glob("*.log"):
        new_site.assert_no_secrets(log.read_text())
    for user, needed in granted.items():
        broker.revoke(user, needed)
    new_site.drop_index()


@pytest.fixture(scope="module")
def secure_milvus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureMilvus]:
    try:
        require_platform()
    except EmbeddedError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("secure-milvus")
    server = SecureMilvus(Instance.in_folder(folder))
    server.start()
    yield server
    server.stop()
