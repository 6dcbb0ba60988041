"""The demo before its servers start: what it uses, and what it refuses within seconds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from configs.loader import ENVIRONMENT
from embedded.__main__ import main
from embedded.errors import EmbeddedError
from embedded.stack import Stack


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Stack]:
    """The stacks that the demo tried to start; no server is started."""
    stacks: list[Stack] = []

    def up(self: Stack, report: object) -> None:
        stacks.append(self)
        raise EmbeddedError("not in this test")

    monkeypatch.setattr(Stack, "up", up)
    return stacks


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("user_id,item_id,timestamp\n104,7,1404172800\n", "the first line is a header"),
        ("1,2,3\n", "too few clicks"),
        ("1,2,1404172800000\n", "divide the third column by 1000"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_before_servers_start(
    tmp_path: Path, started: list[Stack], text: str, complaint: str
) -> None:
    (tmp_path / "clicks.csv").write_text(text)
    done = CliRunner().invoke(main, ["demo", "--dir", str(tmp_path), "--data", str(tmp_path / "clicks.csv")])
    assert (done.exit_code, started) == (1, [])
    assert complaint in done.output


def test_servers_named_in_the_environment_are_not_used(
    tmp_path: Path, started: list[Stack], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ENVIRONMENT:
        monkeypatch.setenv(name, "somewhere:1")
    clicks = tmp_path / "clicks.csv"
    clicks.write_text("bad\n" + "".join(f"{user},{item},{item}\n" for user in range(9) for item in range(1, 9)))
    done = CliRunner().invoke(main, ["demo", "--dir", str(tmp_path), "--data", str(clicks), "--malformed", "skip"])
    assert len(started) == 1, done.output
    assert "ignores MINDSTREAM_KAFKA, " in done.output
    assert "1 of 73 lines skipped" in done.output
    assert not ENVIRONMENT.keys() & os.environ.keys()  # the demo's programs inherit them
    assert started[0].kafka.name == "kafka"  # raises if it is an external server
