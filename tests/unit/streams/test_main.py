"""The command line of `streams`: wrong options, reports of errors, and the imports of `--help`."""

from __future__ import annotations

import subprocess
import sys

import pytest
from click.testing import CliRunner

from configs.errors import EXIT_TRANSIENT, TransientError
from embedded.instance import CHECKOUT
from streams.__main__ import main


@pytest.mark.parametrize(("system", "key"), [("Kafka", "kafka.bootstrap_servers"), ("Milvus", "milvus.uri")])
def test_an_unavailable_server_is_reported_with_the_setting_to_check(
    system: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(*_: object) -> None:
        raise TransientError(system, "no response")

    monkeypatch.setattr("streams.kafka.topics.topic_texts", unavailable)
    done = CliRunner().invoke(main, ["topics", "check"])
    assert done.exit_code == EXIT_TRANSIENT
    assert done.stderr.startswith(f"Error: {system}: no response; is it running, and is {key} its address?")


def test_an_unknown_log_level_is_a_wrong_command_line() -> None:
    done = CliRunner().invoke(main, ["worker", "--log-level", "loud"])
    assert done.exit_code == 2
    assert "'info', 'warning'" in done.stderr.lower()


@pytest.mark.parametrize(("option", "text"), [("--since", "yesterday"), ("--until", "1")])
def test_a_wrong_time_is_a_wrong_command_line(option: str, text: str) -> None:
    done = CliRunner().invoke(main, ["deadletters", "list", option, text])
    assert done.exit_code == 2
    assert f"'{text}' is not a time" in done.stderr


def test_a_wrong_message_reference_is_a_wrong_command_line() -> None:
    done = CliRunner().invoke(main, ["deadletters", "show", "clicks/3"])
    assert done.exit_code == 2
    assert "expected topic/partition/offset" in done.stderr


def test_help_imports_neither_faust_nor_a_client() -> None:
    program = "import sys, streams.__main__; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert not {"faust", "confluent_kafka", "pymilvus", "numpy"} & set(done.stdout.split())
