"""ARCHITECTURE.md names every room, and no module that does not exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.documents import ROOT

PAGE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
ROOMS = sorted(path.parent.name for path in ROOT.glob("*/__init__.py"))
STREAMS = sorted(path.parent.name for path in (ROOT / "streams").glob("*/__init__.py"))


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_has_a_paragraph(room: str) -> None:
    assert f"**`{room}/`** – " in PAGE


def test_every_room_of_streams_is_named_with_modules_that_exist() -> None:
    described = []
    for item in re.findall(r"^- (`.*?)(?=^- |^$)", PAGE, re.MULTILINE | re.DOTALL):
        names, _, text = item.partition(":")
        rooms = re.findall(r"`(\w+)/`", names)
        described += rooms
        for module in re.findall(r"`([a-z_]+)`", text):
            assert any(_exists(ROOT / "streams" / room / module) for room in rooms), f"{rooms} has no {module}"
    assert sorted(described) == STREAMS


def _exists(module: Path) -> bool:
    return module.with_suffix(".py").exists()
