"""The command line of `python -m embedded`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from embedded import external
from embedded.__main__ import NOTHING_RUNS, main
from embedded.stack import Stack
from tests.unit.embedded.toy_servers import ToyServer


def test_status_and_down_when_nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in external.VARIABLES.values():
        monkeypatch.delenv(variable, raising=False)
    result = CliRunner().invoke(main, ["status", "--dir", str(tmp_path / "none")])
    assert result.exit_code == NOTHING_RUNS
    assert "python -m embedded up" in result.output
    assert CliRunner().invoke(main, ["down", "--dir", str(tmp_path / "none")]).exit_code == 0
    assert not (tmp_path / "none").exists()


def test_env_prints_what_another_shell_needs(stack: Stack, toy: ToyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in external.VARIABLES.values():
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("embedded.stack.Kafka", ToyServer)
    arguments = ["env", "--dir", str(stack.instance.folder)]
    result = CliRunner().invoke(main, arguments)
    assert (result.exit_code, result.stdout) == (NOTHING_RUNS, "")
    assert "python -m embedded up" in result.stderr
    stack.up()
    result = CliRunner().invoke(main, arguments)
    assert (result.exit_code, result.stdout) == (0, f"export MINDSTREAM_KAFKA={toy.address}\n")


def test_an_error_of_up_is_shown_without_a_traceback(tmp_path: Path, taken: int) -> None:
    arguments = ["up", "--milvus", "none", "--kafka-port", str(taken), "--dir", str(tmp_path)]
    result = CliRunner(env={"MINDSTREAM_KAFKA": ""}).invoke(main, arguments)
    assert result.exit_code == 1
    assert f"Error: Port {taken} for Kafka is taken" in result.output


@pytest.mark.parametrize("command", [[], ["up"], ["env"], ["status"], ["down"]])
def test_help_shows_examples(command: list[str]) -> None:
    output = CliRunner().invoke(main, [*command, "--help"]).output
    assert re.search(r"Examples?:\n", output)
    assert "python -m embedded" in output
