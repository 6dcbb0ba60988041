"""The newest lists of all users in a file: which message wins, and when the file appears."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import streams.tools.export
from configs.errors import EXIT_CONFIG, EXIT_FAILURE, TransientError
from streams.__main__ import main
from streams.kafka.reading import ReceivedMessage
from streams.messages.clicks import user_key
from streams.messages.recommendations import Recommendation, encode_recommendation
from streams.ports import Message

TS = 1404172800.5
Publish = Callable[[Sequence[Message]], None]


@pytest.fixture
def publish(monkeypatch: pytest.MonkeyPatch) -> Publish:
    """Put messages on the topic of recommendations; the click topic has two partitions of 100 clicks."""

    def put(messages: Sequence[Message]) -> None:
        def read(*_: object) -> Iterator[ReceivedMessage]:
            for message in messages:
                yield ReceivedMessage(message, {}, 0.0)

        def ends(_kafka: object, topic: str) -> dict[int, tuple[int, int]]:
            return {0: (0, len(messages))} if topic == "recommendations" else {0: (0, 100), 1: (0, 100)}

        monkeypatch.setattr(streams.tools.export, "read_to_end", read)
        monkeypatch.setattr(streams.tools.export, "watermarks", ends)

    return put


def _message(user: int | str, offset: int, partition: int = 0, ts: float = TS, items: Sequence[int] = (1,)) -> Message:
    n = len(items)
    found = Recommendation(user, list(items), [0.5] * n, [3] * n, "m1", 20, partition, offset, TS, ts, 50)
    return Message("recommendations", 0, 0, user_key(user), encode_recommendation(found))


def _export(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["export", *arguments])


def _sources(text: str) -> dict[Any, int]:
    return {fields["user_id"]: fields["source"]["offset"] for fields in map(json.loads, text.splitlines())}


def test_the_newest_list_of_each_user_in_the_order_of_the_users(publish: Publish, tmp_path: Path) -> None:
    messages = [_message("b", 3), _message(7, 9), _message("b", 5), _message("b", 4, ts=TS + 9), _message("A", 1)]
    publish(messages)
    done = _export()
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [(messages[n].value or b"").decode() for n in (1, 4, 2)]
    assert done.stderr == "standard output: the newest lists of 3 users, from 5 messages\n"
    path = tmp_path / "lists.jsonl"
    assert _export("-o", str(path)).exit_code == 0
    assert path.read_text() == done.stdout
    assert [found.name for found in tmp_path.iterdir()] == ["lists.jsonl"], "nothing temporary is left"


def test_a_user_that_was_answered_again_gets_the_later_list(publish: Publish) -> None:
    publish([_message(7, 9, ts=TS + 1, items=[2]), _message(7, 9, items=[1])])
    assert json.loads(_export().stdout)["item_ids"] == [2]


def test_lists_from_before_the_click_topic_was_recreated_give_way(publish: Publish) -> None:
    publish([_message(7, 5), _message(7, 1000), _message(8, 999), _message(8, 1000), _message(9, 4, 5), _message(9, 3)])
    done = _export()
    assert _sources(done.stdout) == {7: 5, 8: 1000, 9: 3}
    assert "1 of the lists are from before the click topic was recreated" in done.stderr


def test_a_message_without_a_value_removes_its_user(publish: Publish) -> None:
    removal = Message("recommendations", 0, 0, b"7", None)
    publish([_message(7, 9), _message(8, 9), removal, _message(9, 1), Message("recommendations", 0, 0, b"9", None)])
    assert _sources(_export().stdout) == {8: 9}
    publish([_message(7, 9), removal, _message(7, 3)])
    assert _sources(_export().stdout) == {7: 3}


def test_of_two_partitions_the_later_list_counts(publish: Publish) -> None:
    publish([_message(7, 5, partition=1), _message(7, 9, partition=0, ts=TS - 1)])
    assert _sources(_export().stdout) == {7: 5}


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 99), st.sampled_from([TS, TS + 1])), max_size=12))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_order_of_the_messages_does_not_matter(publish: Publish, given_rows: list[tuple[int, int, float]]) -> None:
    publish([_message(user, offset, ts=ts) for user, offset, ts in given_rows])
    found = [json.loads(line) for line in _export().stdout.splitlines()]
    expected: dict[int, tuple[int, float]] = {}
    for user, offset, ts in given_rows:
        expected[user] = max((offset, ts), expected.get(user, (offset, ts)))
    assert {r["user_id"]: (r["source"]["offset"], r["ts"]) for r in found} == expected
    assert [r["user_id"] for r in found] == sorted(expected)


def test_malformed_messages_are_counted(publish: Publish) -> None:
    good = _message(7, 9)
    spread = good._replace(value=(good.value or b"").replace(b",", b",\r\n"))
    foreign = [Message("recommendations", 3, 17, key, value) for key, value in ((b"7", b"hi"), (None, None))]
    publish([*foreign, spread, good._replace(key=b"8")])
    done = _export()
    assert done.exit_code == 0
    assert _sources(done.stdout) == {7: 9}, "a message with line breaks is one line"
    assert "3 malformed messages left out, the first: recommendations [3] at offset 17, not_json: " in done.stderr


def test_parquet_has_a_column_for_each_property(publish: Publish, tmp_path: Path) -> None:
    old = _message("anna", 3)
    old = old._replace(value=(old.value or b"").replace(b',"top_k":50', b""))
    publish([_message(7, 9, partition=1, items=[2**63 - 2, 4]), old])
    path = tmp_path / "lists.parquet"
    done = _export("--format", "parquet", "-o", str(path))
    assert done.exit_code == 0, done.output
    first, second = pyarrow.parquet.read_table(path).to_pylist()
    assert first == {
        "user_id": "7",
        "item_ids": [2**63 - 2, 4],
        "scores": [0.5, 0.5],
        "interests": [3, 3],
        "model_version": "m1",
        "history_length": 20,
        "source_partition": 1,
        "source_offset": 9,
        "click_ts": TS,
        "ts": TS,
        "top_k": 50,
    }
    assert (second["user_id"], second["top_k"]) == ("anna", None)


def test_without_any_message_the_file_is_empty(publish: Publish, tmp_path: Path) -> None:
    publish([])
    assert _export("-o", str(tmp_path / "a")).exit_code == 0
    assert (tmp_path / "a").read_bytes() == b""
    assert _export("--format", "parquet", "-o", str(tmp_path / "b")).exit_code == 0
    assert pyarrow.parquet.read_table(tmp_path / "b").num_rows == 0


def test_parquet_needs_a_file_and_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _export("--format", "parquet").exit_code == 2
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    done = _export("--format", "parquet", "-o", str(tmp_path / "lists"))
    assert done.exit_code == EXIT_CONFIG
    assert ".[parquet]" in done.stderr


def test_a_failed_export_leaves_the_older_file(
    publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: object) -> Iterator[ReceivedMessage]:
        yield ReceivedMessage(_message(7, 9), {}, 0.0)
        raise TransientError("Kafka", "no message for 30 s before its end")

    publish([_message(7, 9)])
    monkeypatch.setattr(streams.tools.export, "read_to_end", read)
    path = tmp_path / "lists.jsonl"
    path.write_text("older\n")
    assert _export("-o", str(path)).exit_code == 75
    assert path.read_text() == "older\n"
    assert [found.name for found in tmp_path.iterdir()] == ["lists.jsonl"]


def test_a_folder_that_does_not_exist_is_named(publish: Publish, tmp_path: Path) -> None:
    publish([])
    done = _export("-o", str(tmp_path / "missing" / "lists.jsonl"))
    assert done.exit_code == EXIT_FAILURE
    assert f"{tmp_path / 'missing' / 'lists.jsonl'} cannot be written: No such file" in done.stderr
