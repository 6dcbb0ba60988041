"""Dead letters: what is kept, what can be read again, what goes back, and how they are shown."""

from __future__ import annotations

import re
import time
from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.messages.dead_letters import (
    MessageRef,
    StoredDeadLetter,
    dead_letter_output,
    read_dead_letter,
    read_receipt,
    receipt_output,
    replay_output,
)
from streams.ports import DeadLetter, Message, Output
from streams.tools.dead_letters import FoundDeadLetters, Selection, parse_time
from streams.tools.dead_letters_replay import _obstacle
from streams.tools.dead_letters_text import _plain, _readable, _summary

optional_bytes = st.one_of(st.none(), st.binary(max_size=40))
header_names = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
header_lists = st.lists(st.tuples(header_names, optional_bytes), max_size=5)
messages = st.builds(
    Message,
    st.from_regex(r"[a-z][a-z._-]{0,20}", fullmatch=True),
    st.integers(0, 2**31 - 1),
    st.integers(0, 2**63 - 1),
    optional_bytes,
    optional_bytes,
    header_lists,
    timestamp=st.just(0.0),  # a letter has one of its own
)

#: More than any message here.
LARGEST = 10**7


def _kept(output: Output, offset: int = 17) -> tuple[Message, dict[str, bytes]]:
    """What a reader of the dead-letter topic gets."""
    return Message(output.topic, 2, offset, output.key, output.value), dict(output.headers)


def _letter(message: Message, now: float = 1000.0) -> StoredDeadLetter:
    letter = read_dead_letter(
        *_kept(dead_letter_output("dead-letters", DeadLetter(message, "not_json", "broken"), now, LARGEST))
    )
    assert letter is not None
    return letter


@given(messages, st.text(max_size=600))
def test_a_letter_keeps_all_of_the_message(message: Message, error: str) -> None:
    """Null and empty are told apart, headers keep their order, names may repeat, whatever the bytes."""
    output = dead_letter_output("dead-letters", DeadLetter(message, "not_json", error), 12.5, LARGEST)
    assert (output.topic, output.key, output.value, output.partition) == (
        "dead-letters",
        message.key,
        message.value,
        None,
    )
    assert all(value.decode() is not None for _, value in output.headers), "headers are text"
    letter = read_dead_letter(*_kept(output))
    assert letter is not None
    assert letter.message == message or (not message.headers and not letter.message.headers)
    assert (letter.source, letter.time) == (MessageRef(message.topic, message.partition, message.offset), 12.5)
    assert (letter.reason, letter.kept_at) == ("not_json", MessageRef("dead-letters", 2, 17))


def test_the_headers_tell_what_was_wrong_and_where() -> None:
    message = Message("clicks", 3, 991, None, None)
    headers = dict(
        dead_letter_output("dead-letters", DeadLetter(message, "null_value", "x" * 999), 12.3456, LARGEST).headers
    )
    assert headers == {
        "reason": b"null_value",
        "error": b"x" * 500,
        "topic": b"clicks",
        "partition": b"3",
        "offset": b"991",
        "time": b"12.346",
        "attempt": b"0",
    }, "no `headers` where the message has none"


def test_headers_too_large_to_keep_are_counted_and_the_letter_still_fits() -> None:
    message = Message("clicks", 0, 1, b"k", b"v", [("big", b"\x00" * 200_000), ("small", b"1")])
    output = dead_letter_output("dead-letters", DeadLetter(message, "not_json", "broken"), 1.0, LARGEST)
    assert dict(output.headers)["headers-omitted"] == b"2"
    assert sum(len(value) for _, value in output.headers) < 2**20
    letter = read_dead_letter(*_kept(output))
    assert letter is not None and (letter.message.key, letter.message.value, letter.message.headers) == (b"k", b"v", [])


def test_a_message_too_large_for_the_topic_leaves_its_place_and_size() -> None:
    message = Message("clicks", 3, 991, b"42", b"x" * 98)
    letter = DeadLetter(message, "too_large", "too large")
    whole = dead_letter_output("dead-letters", letter, 1.0, largest=100)
    assert (whole.key, whole.value) == (b"42", message.value)
    cut = dead_letter_output("dead-letters", letter, 1.0, largest=99)
    assert (cut.key, cut.value) == (None, None)
    kept = read_dead_letter(*_kept(cut))
    assert kept is not None and (kept.omitted, str(kept.source)) == (100, "clicks/3/991")
    assert "too large to keep" in (_obstacle(kept, {"clicks": 10_000}) or ""), "nothing else is sent in its place"


@given(messages, st.integers(1, 4))
def test_what_goes_back_is_the_original_and_counts_its_attempts(message: Message, rounds: int) -> None:
    """A letter that fails again and again goes round with its own headers and the number of its attempts."""
    own = [header for header in message.headers if header[0] not in ("replay-attempt", "replay-of")]
    message = Message(message.topic, message.partition, message.offset, message.key, message.value, own)
    came_back = message
    for attempt in range(rounds):
        letter = _letter(came_back)
        assert letter.attempt == attempt
        output = replay_output(letter)
        assert (output.topic, output.key, output.value, output.partition) == (
            message.topic,
            message.key,
            message.value,
            None,
        )
        assert list(output.headers) == [
            *own,
            ("replay-attempt", str(attempt + 1).encode()),
            ("replay-of", str(letter.source).encode()),
        ]
        came_back = Message(message.topic, 0, attempt, output.key, output.value, output.headers)


@pytest.mark.parametrize("value", [None, b"", b"-1", b"many", b"9" * 5000, "٣".encode()])
def test_an_attempt_that_is_no_number_counts_as_none(value: bytes | None) -> None:
    assert _letter(Message("clicks", 0, 0, b"k", b"v", [("replay-attempt", value)])).attempt == 0


def test_a_receipt_is_no_letter_and_names_its_source() -> None:
    letter = _letter(Message("clicks", 3, 991, b"42", b"{"))
    receipt = receipt_output("dead-letters", letter)
    assert (receipt.key, receipt.value) == (b"42", None)
    assert read_dead_letter(*_kept(receipt)) is None
    assert read_receipt(dict(receipt.headers)) == "clicks/3/991"
    assert (
        read_receipt(_kept(dead_letter_output("t", DeadLetter(letter.message, "not_json", ""), 1.0, LARGEST))[1])
        is None
    )
    assert "topic" not in dict(receipt.headers), "the audit takes what has a topic for a dead letter"


@given(
    st.dictionaries(
        st.sampled_from(["reason", "error", "topic", "partition", "offset", "time", "attempt", "headers"]),
        st.one_of(st.binary(max_size=20), st.sampled_from([b"1", b"[1]", b'[["a",1]]', b'[["a",{}]]'])),
    )
)
def test_messages_of_others_are_no_letters(headers: dict[str, bytes]) -> None:
    letter = read_dead_letter(Message("dead-letters", 0, 0, None, None), headers)
    assert letter is None or {"reason", "error", "topic", "partition", "offset", "time"} <= headers.keys()


def test_places_as_text() -> None:
    place = MessageRef("clicks", 3, 991)
    assert str(place) == "clicks/3/991"
    assert MessageRef.parse("clicks/3/991") == place
    for text in ("", "clicks", "clicks/3", "clicks/3/x", "a/b/1/2"):
        with pytest.raises(ValueError):  # noqa: PT011 - whichever of its causes
            MessageRef.parse(text)


def test_times() -> None:
    assert parse_time("30s", 1000.0) == 970
    assert parse_time("2h", 100_000.0) == 92_800
    assert parse_time("1d", 100_000.0) == 13_600
    assert parse_time("1970-01-01T00:01:00Z", 0.0) == parse_time("1970-01-01T01:01:00+01:00", 0.0) == 60
    local = datetime(2026, 5, 1, 12, 0).astimezone(timezone.utc)
    assert parse_time("2026-05-01T12:00", 0.0) == local.timestamp()
    for text in ("", "yesterday", "2w", "-1h"):
        with pytest.raises(ValueError):  # noqa: PT011
            parse_time(text, time.time())


def test_all_conditions_of_a_selection_hold_together() -> None:
    letter = _letter(Message("clicks", 3, 991, b"42", b"{"), now=500.0)
    assert letter in Selection()
    assert letter in Selection(["not_json", "bad_key"], ["clicks"], 500.0, 500.0, [letter.source])
    assert letter in Selection(refs=[letter.kept_at])
    for other in (
        Selection(reasons=["bad_key"]),
        Selection(topics=["items"]),
        Selection(since=500.1),
        Selection(until=499.9),
        Selection(refs=[MessageRef("clicks", 3, 992)]),
    ):
        assert letter not in other


def test_bytes_for_people() -> None:
    assert _readable(None) == ("null", "")
    assert _readable(b"") == ("0 bytes, text", "")
    kind, shown = _readable(b'{"user_id":123456789012345678901234567890,"x":"\xc3\xa9"}')
    assert kind.endswith("JSON")
    assert shown == '{\n  "user_id": 123456789012345678901234567890,\n  "x": "é"\n}'
    assert _readable(b"{broken\n") == ("8 bytes, text", "{broken\n")
    assert _readable(b'{"a":NaN}')[0].endswith("text")
    assert _readable(b"[" * 1020 + b"]" * 1020)[0].endswith(("text", "JSON"))
    kind, shown = _readable(b"\xff\x00abc" + bytes(16))
    assert kind == "21 bytes, not UTF-8"
    assert re.match(r"00000000  ff 00 61 62 63 00 .*  \.\.abc\.+\n00000010  00 00 00 00 00 +\.{5}$", shown)


def test_what_strangers_wrote_does_not_steer_the_terminal() -> None:
    assert _plain("a\x1b[2Jb\x9b\u202e\n") == r"a\x1b[2Jb\x9b\u202e\n"
    assert _readable(b"a\x1b]0;x\x07\nb")[1] == "a\\x1b]0;x\\x07\nb"


def test_a_letter_that_cannot_go_back_says_why() -> None:
    letter = _letter(Message("clicks", 3, 991, b"42", b"x" * 5000))
    assert _obstacle(letter, {"clicks": 10_000}) is None
    assert "accepts 4,000" in (_obstacle(letter, {"clicks": 4000}) or "")
    assert "no topic clicks" in (_obstacle(letter, {"items": 4000}) or "")


def test_the_summary_counts_by_reason() -> None:
    letters = [_letter(Message("clicks", 0, i, b"42", b"{")) for i in range(2)]
    assert (
        _summary(letters, FoundDeadLetters(letters, {letters[0].kept_at}, 0))
        == "2 dead letters: 2 not_json; 2 replayed"
    )
    assert (
        _summary([], FoundDeadLetters([], set(), 3)) == "0 dead letters; 3 messages on the topic are not dead letters"
    )
