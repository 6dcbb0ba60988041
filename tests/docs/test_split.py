"""The command of producers/README.md that splits a click file by user, executed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.docs.documents import ROOT


@pytest.mark.parametrize("name", ["{}", "ann-{}", "0{}", "Jürgen {}"])
def test_the_split_keeps_every_click_and_every_user_whole(tmp_path: Path, name: str) -> None:
    lines = (ROOT / "producers" / "README.md").read_text(encoding="utf-8").splitlines()
    (command,) = [line for line in lines if line.startswith("awk ")]
    clicks = [f"{name.format(click % 25)},{1 + click},{click}" for click in range(100)]
    (tmp_path / "all.csv").write_text("\n".join(clicks) + "\n", encoding="utf-8")
    subprocess.run(command, shell=True, cwd=tmp_path, check=True)  # noqa: S602 - a command of our own document
    parts = [(tmp_path / part).read_text(encoding="utf-8").splitlines() for part in ("clicks.csv", "test.csv")]
    users = [{line.split(",")[0] for line in part} for part in parts]
    assert sorted(parts[0] + parts[1]) == sorted(clicks)
    assert [len(part) for part in users] == [23, 2]
    assert not users[0] & users[1]
