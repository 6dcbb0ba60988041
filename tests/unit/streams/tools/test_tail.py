"""Recommendations as `python -m streams tail` prints them."""

from __future__ import annotations

from collections.abc import Sequence

import orjson
import pytest

import streams.tools.tail
from configs.loader import load_worker
from streams.kafka.reading import ReceivedMessage
from streams.messages.recommendations import decode_recommendation, encode_recommendation
from streams.ports import Message
from streams.tools.tail import tail
from tests.unit.fakes import ClickWorld, click_message


@pytest.fixture
def recommendations(monkeypatch: pytest.MonkeyPatch) -> list[Message]:
    """Recommendations of users 7 and 8, after a message that is not a recommendation, with pauses between them."""
    world = ClickWorld()
    world.process([click_message(0, 7, 1), click_message(1, 8, 2)])
    found = [Message("recommendations", 0, n, o.key, o.value) for n, o in enumerate(world.sent("recommendations"))]
    foreign = Message("recommendations", 0, 9, b"7", b"hello")

    def follow(_kafka: object, topics: Sequence[str], from_beginning: bool) -> Sequence[ReceivedMessage | None]:
        assert topics == ["recommendations"]
        return [None, *(ReceivedMessage(message, {}, 0.0) for message in (foreign, *found)), None]

    monkeypatch.setattr(streams.tools.tail, "follow", follow)
    return found


def _printed(
    capsys: pytest.CaptureFixture[str], *, as_json: bool = False, users: Sequence[str] = (), limit: int | None = None
) -> tuple[list[str], str]:
    tail(load_worker(None, (), {}), as_json=as_json, users=users, from_beginning=True, limit=limit)
    out, err = capsys.readouterr()
    return out.splitlines(), err


def test_a_line_for_each_recommendation(recommendations: list[Message], capsys: pytest.CaptureFixture[str]) -> None:
    lines, errors = _printed(capsys)
    assert len(lines) == 2
    assert "user 7  1 click  " in lines[0]
    assert "ms after the click" in lines[0]
    assert "at offset 9 is not a recommendation" in errors


def test_json_is_the_message_itself(recommendations: list[Message], capsys: pytest.CaptureFixture[str]) -> None:
    lines, _ = _printed(capsys, as_json=True, users=["8"])
    assert [orjson.loads(line) for line in lines] == [orjson.loads(recommendations[1].value or b"")]


def test_the_limit_ends_the_command(recommendations: list[Message], capsys: pytest.CaptureFixture[str]) -> None:
    lines, _ = _printed(capsys, limit=1)
    assert len(lines) == 1


def test_long_lists_are_cut(recommendations: list[Message], capsys: pytest.CaptureFixture[str]) -> None:
    recommendation = decode_recommendation(recommendations[0].value or b"")
    many = recommendation._replace(item_ids=list(range(1, 21)), scores=[0.5] * 20, interests=[0] * 20)
    line = streams.tools.tail._line(decode_recommendation(encode_recommendation(many)))
    assert "8(0) +12" in line
