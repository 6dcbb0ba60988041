"""The state file of a stack."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedded.state import Entry, StateFile


def test_state_is_read_back(tmp_path: Path) -> None:
    state = StateFile(tmp_path / "state.json")
    assert state.read() == {}
    state.put("kafka", Entry("kafka", 1, 2, 3.5, ready=True))
    state.put("milvus", Entry("lite", 4))
    assert StateFile(state.path).read() == {"kafka": Entry("kafka", 1, 2, 3.5, True), "milvus": Entry("lite", 4)}
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"version": 0, "servers": {}}', '{"version": 1}'])
def test_a_damaged_state_file_counts_as_empty(tmp_path: Path, content: str) -> None:
    (tmp_path / "state.json").write_text(content)
    assert StateFile(tmp_path / "state.json").read() == {}
