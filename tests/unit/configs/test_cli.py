"""The base of all command-line programs: settings, errors, exit statuses, progress."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from configs.cli import Command, Group, config_options, configured, progress_bar
from configs.errors import (
    EXIT_CONFIG,
    EXIT_FAILURE,
    EXIT_INTERRUPTED,
    EXIT_TRANSIENT,
    FatalError,
    InputError,
    TransientError,
)
from configs.loader import load_replay, load_worker
from configs.schema import WorkerConfig


def invoke(command: click.Command, *arguments: str) -> Result:
    return CliRunner().invoke(command, arguments)


def failing(error: BaseException) -> click.Command:
    @click.command(cls=Command)
    def main() -> None:
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InputError("clicks.csv: cannot be read"), EXIT_FAILURE),
        (FatalError("no topic; create it"), EXIT_CONFIG),
        (TransientError("Kafka", "no response"), EXIT_TRANSIENT),
    ],
)
def test_an_error_prints_one_line_and_exits_with_the_status_of_its_class(error: Exception, status: int) -> None:
    done = invoke(failing(error))
    assert done.exit_code == status
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"Error: {error}")
    assert not done.stdout


@pytest.mark.parametrize(("system", "key"), [("Kafka", "kafka.bootstrap_servers"), ("Milvus", "milvus.uri")])
def test_an_unavailable_server_is_reported_with_the_address_to_check(system: str, key: str) -> None:
    shown = invoke(failing(TransientError(system, "no response"))).stderr
    assert f"{system}: no response; is it running, and is {key} its address?" in shown
    assert "python -m embedded status" in shown
    named = invoke(failing(TransientError(system, f"no response; check {key}"))).stderr
    assert named == f"Error: {system}: no response; check {key}\n", "a message that names the key needs no hint"


def test_a_container_adds_how_its_commands_are_run_if_the_error_names_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINDSTREAM_HINT", "In containers, write `docker compose run …`.")
    named = invoke(failing(FatalError("no topic; create it: python -m streams topics create"))).stderr
    assert named.splitlines()[1:] == ["In containers, write `docker compose run …`."]
    assert len(invoke(failing(FatalError("kafka.username is missing"))).stderr.splitlines()) == 1


def test_an_interrupt_exits_with_status_130_without_a_traceback() -> None:
    done = invoke(failing(KeyboardInterrupt()))
    assert (done.exit_code, done.output) == (EXIT_INTERRUPTED, "")


def test_a_defect_keeps_its_traceback() -> None:
    assert isinstance(invoke(failing(ValueError("a defect"))).exception, ValueError)


def test_commands_of_nested_groups_have_the_same_exit_statuses_and_help() -> None:
    @click.group(cls=Group)
    def main() -> None: ...

    @main.group()
    def inner() -> None: ...

    @inner.command()
    def command() -> None:
        raise FatalError("refused")

    assert invoke(main, "inner", "command").exit_code == EXIT_CONFIG
    for path in ((), ("inner",), ("inner", "command")):
        assert "-h, --help" in invoke(main, *path, "-h").output


def test_settings_are_loaded_from_the_file_and_the_overrides(tmp_path: Path) -> None:
    seen: list[WorkerConfig] = []

    @click.command(cls=Command)
    @configured(load_worker)
    @click.argument("name")
    def main(config: WorkerConfig, name: str) -> None:
        """Show."""
        assert name == "x"
        seen.append(config)

    path = tmp_path / "own.yaml"
    path.write_text("recall: {top_k: 7, interests: 2}\n")
    done = invoke(main, "-c", str(path), "--set", "recall.interests=3", "x")
    assert done.exit_code == 0, done.output
    assert (seen[0].recall.top_k, seen[0].recall.interests) == (7, 3)
    shown = " ".join(invoke(main, "-h").output.split())
    assert "configs/kafka.yaml and configs/worker.yaml" in shown
    assert invoke(main, "-c", str(tmp_path / "missing.yaml"), "x").exit_code == EXIT_CONFIG
    assert invoke(main, "-c", str(tmp_path), "x").exit_code == EXIT_CONFIG


def test_a_program_may_load_the_settings_itself() -> None:
    @click.command(cls=Command)
    @config_options(load_replay)
    def main(config_path: Path | None, overrides: tuple[str, ...]) -> None:
        click.echo(f"{config_path} {' '.join(overrides)}")

    assert invoke(main, "-c", "a.yaml", "--set", "b.c=1", "--set", "d.e=2").output == "a.yaml b.c=1 d.e=2\n"


def test_progress_is_shown_in_a_terminal_only(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar(10, "clicks") as bar:
        bar(3)
        bar.advance(7)
    captured = capsys.readouterr()
    assert captured.out == captured.err.strip() == ""


def test_progress_shows_the_number_done(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then treats standard error as a terminal
    with progress_bar(10, "clicks") as bar:
        bar(3)
        bar.advance(4)
    captured = capsys.readouterr()
    assert not captured.out
    assert "7/10" in captured.err.replace("\x1b[32m", "").replace("\x1b[0m", "")
