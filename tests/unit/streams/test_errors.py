"""The reasons for which a message becomes a dead letter."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import get_args

import pytest

from configs.errors import MindstreamError
from streams.errors import BadMessage, Reason

STREAMS = Path(__file__).parents[3] / "streams"


def test_the_text_of_a_bad_message_has_reason_and_details() -> None:
    error = BadMessage("bad_key", "expected '42'")
    assert isinstance(error, MindstreamError)
    assert (error.reason, error.detail, str(error)) == ("bad_key", "expected '42'", "bad_key: expected '42'")


@pytest.mark.parametrize("reason", get_args(Reason))
def test_every_reason_is_used(reason: str) -> None:
    """Reasons are label values of a metric and values of an option, where an unused one would mislead."""
    used = {
        node.value
        for path in (
            STREAMS / "partitioning.py",
            *(STREAMS / "messages").rglob("*"),
            *(STREAMS / "processing").rglob("*"),
        )
        if path.suffix == ".py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant)
    }
    assert reason in used
