"""A site whose broker knows users, and programs that act as one of them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from configs.loader import load_worker
from configs.schema import WorkerConfig
from streams.kafka.acls import Right, rights
from tests.integration.security.secure_servers import SUPER, SecureKafka
from tests.site import Site

#: User → the programs that it runs.
USERS = {
    "admin": ["streams topics create"],
    "worker": ["streams worker --agents clicks", "streams worker --agents items"],
    "recaller": ["streams service"],
    "shop": ["producers.replay"],
    "catalogue": ["producers.items"],
    "viewer": ["streams tail"],
    "auditor": ["streams audit"],
    "checker": ["streams topics check"],
    "reader": ["streams deadletters list", "streams deadletters show"],
    "resender": ["streams deadletters replay"],
}


class SecureSite(Site):
    """A site whose own clients are the super user's; its programs log in as the user that `acting` names."""

    def __init__(self, folder: Path, broker: SecureKafka, milvus: str) -> None:
        assert broker.address is not None
        self.broker = broker
        super().__init__(folder, broker.address, milvus, environ=broker.login(SUPER))

    def config_of(self, user: str, *settings: str) -> WorkerConfig:
        return load_worker(None, [*self.settings, *settings], self.broker.login(user))

    def rights(self, user: str) -> set[Right]:
        topics, group = self.config.topics, self.config.worker.group
        return {right for program in USERS[user] for right in rights(program, topics, group)}

    def run(self, *arguments: str, sections: Collection[str] | None = None) -> subprocess.CompletedProcess[str]:
        done = super().run(*arguments, sections=sections)
        self.assert_no_secrets(done.stdout + done.stderr)
        return done

    def assert_no_secrets(self, text: str) -> None:
        assert not [user for user, password in self.broker.passwords.items() if password in text], text


@contextmanager
def acting(variables: Mapping[str, str]) -> Iterator[None]:
    """Give programs that are started in a block these environment variables, and no others of ours."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("MINDSTREAM_")]:
            patch.delenv(name)
        for name, value in variables.items():
            patch.setenv(name, value)
        yield
