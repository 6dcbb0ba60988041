"""Log lines about an unavailable broker are limited, and no others are suppressed."""

from __future__ import annotations

import logging

import pytest

from streams.worker.logs import Repetitions


class World:
    def __init__(self) -> None:
        self.now = 0.0
        self.lines: list[str] = []
        self._filter = Repetitions(interval_s=10.0, clock=lambda: self.now)

    def log(self, name: str, text: str, *args: object) -> None:
        record = logging.LogRecord(name, logging.ERROR, "", 0, text, args, None)
        if self._filter.filter(record):
            self.lines.append(record.getMessage())


@pytest.fixture
def world() -> World:
    return World()


def test_a_kind_is_logged_once_per_interval_with_the_number_suppressed(world: World) -> None:
    for second in range(21):
        world.now = float(second)
        world.log("aiokafka.consumer", "no node %s: %s", 1, f"try {second}")
    assert world.lines == [
        "no node 1: try 0",
        "no node 1: try 10 (9 more of this kind suppressed)",
        "no node 1: try 20 (9 more of this kind suppressed)",
    ]


def test_kinds_are_told_apart_by_logger_text_and_first_value(world: World) -> None:
    kinds = [
        ("aiokafka", "no node %s", 1),
        ("aiokafka", "no node %s", 2),
        ("aiokafka.consumer", "no node %s", 1),
        ("aiokafka", "no metadata", None),
        ("mindstream.kafka", "%s %s", "FAIL"),
        ("mindstream.kafka", "%s %s", "ERROR"),
    ]
    for _ in range(3):
        for name, text, first in kinds:
            world.log(name, text, *([first, "x"][: text.count("%s")]))
    assert len(world.lines) == len(kinds)


def test_our_own_messages_are_never_suppressed(world: World) -> None:
    for _ in range(3):
        world.log("mindstream.agent", "waits")
    assert world.lines == ["waits"] * 3
