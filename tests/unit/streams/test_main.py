"""The command line of `streams`: what it refuses, and what it says of servers that are away."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from configs.errors import EXIT_TRANSIENT, TransientError
from streams.__main__ import main


@pytest.mark.parametrize(("system", "key"), [("Kafka", "kafka.bootstrap_servers"), ("Milvus", "milvus.uri")])
def test_a_server_that_is_away_is_told_with_the_setting_to_check(
    system: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise TransientError(system, "no answer")

    monkeypatch.setattr("streams.kafka.topics.check_topics", away)
    done = CliRunner().invoke(main, ["topics", "check"])
    assert done.exit_code == EXIT_TRANSIENT
    assert done.stderr.startswith(f"error: {system}: no answer; does it run, and is {key} its address?")


def test_an_unknown_log_level_is_a_wrong_command_line() -> None:
    done = CliRunner().invoke(main, ["worker", "--log-level", "loud"])
    assert done.exit_code == 2
    assert "'info', 'warning'" in done.stderr.lower()
