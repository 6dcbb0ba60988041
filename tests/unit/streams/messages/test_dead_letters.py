"""Dead letters: the messages on their topic, reading them back, and the messages that a replay sends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.messages.dead_letters import (
    DeadLetterTopic,
    MessageRef,
    dead_letter_output,
    json_value,
    read_dead_letter,
    read_receipt,
    receipt_output,
    replay_output,
)
from streams.ports import DeadLetter, Message, Output
from tests.unit.fakes import stored, stored_dead_letter

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
    timestamp=st.just(0.0),  # dead letters do not keep it
)

#: A limit larger than any message in these tests.
MAX_BYTES = 10**7


def _output(message: Message, max_bytes: int = MAX_BYTES) -> Output:
    return dead_letter_output("dead-letters", DeadLetter(message, "not_json", "broken"), 1.0, max_bytes)


@given(messages, st.text(max_size=600))
def test_a_dead_letter_keeps_the_whole_message(message: Message, error: str) -> None:
    """Null and empty values differ, headers keep their order, names may repeat, whatever the bytes."""
    output = dead_letter_output("dead-letters", DeadLetter(message, "not_json", error), 12.5, MAX_BYTES)
    assert (output.topic, output.partition) == ("dead-letters", None)
    assert (output.key, output.value) == (message.key, message.value)
    assert all(value.decode() is not None for _, value in output.headers), "headers are text"
    found = read_dead_letter(*stored(output, offset=17))
    assert found is not None
    assert found.message == message or (not message.headers and not found.message.headers)
    assert (found.source, found.time) == (MessageRef.from_message(message), 12.5)
    assert (found.reason, found.kept_at) == ("not_json", MessageRef("dead-letters", 0, 17))


def test_the_headers_have_the_reason_and_the_source() -> None:
    message = Message("clicks", 3, 991, None, None)
    output = dead_letter_output("dead-letters", DeadLetter(message, "null_value", "x" * 999), 12.3456, MAX_BYTES)
    assert dict(output.headers) == {
        "reason": b"null_value",
        "error": b"x" * 500,
        "topic": b"clicks",
        "partition": b"3",
        "offset": b"991",
        "time": b"12.346",
        "attempt": b"0",
    }, "no `headers` where the message has none"


def test_headers_too_large_to_keep_are_only_counted() -> None:
    message = Message("clicks", 0, 1, b"k", b"v", [("big", b"\x00" * 200_000), ("small", b"1")])
    output = _output(message)
    assert dict(output.headers)["headers-omitted"] == b"2"
    assert sum(len(value) for _, value in output.headers) < 2**20
    found = read_dead_letter(*stored(output))
    assert found is not None and (found.message.key, found.message.value, found.message.headers) == (b"k", b"v", [])


def test_only_source_and_size_of_a_message_too_large_for_the_topic_are_kept() -> None:
    message = Message("clicks", 3, 991, b"42", b"x" * 98)
    whole = _output(message, max_bytes=100)
    assert (whole.key, whole.value) == (b"42", message.value)
    cut = _output(message, max_bytes=99)
    assert (cut.key, cut.value) == (None, None)
    found = read_dead_letter(*stored(cut))
    assert found is not None and (found.omitted_bytes, str(found.source)) == (100, "clicks/3/991")


def test_the_topic_limits_the_size_of_each_dead_letter() -> None:
    messages = [Message("clicks", 0, offset, b"42", value) for offset, value in enumerate([b"x" * 8, b"x" * 9])]
    topic = DeadLetterTopic("dead-letters", max_bytes=10)
    outputs = topic.outputs([DeadLetter(message, "not_json", "broken") for message in messages], 12.5)
    assert [(output.topic, output.value) for output in outputs] == [("dead-letters", b"x" * 8), ("dead-letters", None)]
    assert {dict(output.headers)["time"] for output in outputs} == {b"12.500"}


@given(messages, st.integers(1, 4))
def test_a_replay_sends_the_original_and_counts_attempts(message: Message, attempts: int) -> None:
    """Each time it fails again, the new dead letter has the original's own headers and the number of attempts."""
    original = [header for header in message.headers if header[0] not in ("replay-attempt", "replay-of")]
    message = message._replace(headers=original)
    replayed = message
    for attempt in range(attempts):
        dead_letter = stored_dead_letter(replayed)
        assert dead_letter.attempt == attempt
        output = replay_output(dead_letter, None)
        assert (output.topic, output.partition) == (message.topic, None)
        assert (output.key, output.value) == (message.key, message.value)
        assert list(output.headers) == [
            *original,
            ("replay-attempt", str(attempt + 1).encode()),
            ("replay-of", str(dead_letter.source).encode()),
        ]
        replayed = Message(message.topic, 0, attempt, output.key, output.value, output.headers)


@pytest.mark.parametrize("value", [None, b"", b"-1", b"many", b"9" * 5000, "٣".encode()])
def test_an_attempt_that_is_not_a_number_counts_as_0(value: bytes | None) -> None:
    assert stored_dead_letter(Message("clicks", 0, 0, b"k", b"v", [("replay-attempt", value)])).attempt == 0


def test_a_receipt_is_not_a_dead_letter_and_names_the_source() -> None:
    dead_letter = stored_dead_letter(Message("clicks", 3, 991, b"42", b"{"))
    receipt = receipt_output("dead-letters", dead_letter)
    assert (receipt.key, receipt.value) == (b"42", None)
    assert read_dead_letter(*stored(receipt)) is None
    assert read_receipt(dict(receipt.headers)) == "clicks/3/991"
    assert read_receipt(dict(_output(dead_letter.message).headers)) is None
    assert "topic" not in dict(receipt.headers), "a header of dead letters only"


@given(
    st.dictionaries(
        st.sampled_from(["reason", "error", "topic", "partition", "offset", "time", "attempt", "headers"]),
        st.one_of(st.binary(max_size=20), st.sampled_from([b"1", b"[1]", b'[["a",1]]', b'[["a",{}]]'])),
    )
)
def test_messages_of_other_programs_are_not_dead_letters(headers: dict[str, bytes]) -> None:
    found = read_dead_letter(Message("dead-letters", 0, 0, None, None), headers)
    assert found is None or {"reason", "error", "topic", "partition", "offset", "time"} <= headers.keys()


def test_message_refs_as_text() -> None:
    source = MessageRef("clicks", 3, 991)
    assert str(source) == "clicks/3/991"
    assert MessageRef.parse("clicks/3/991") == source
    for text in ("", "clicks", "clicks/3", "clicks/3/x", "a/b/1/2"):
        with pytest.raises(ValueError):  # noqa: PT011 - whichever of its causes
            MessageRef.parse(text)


def test_bytes_in_json() -> None:
    assert json_value(None) is None
    assert json_value("é".encode()) == "é"
    assert json_value(b"\xff") == {"base64": "/w=="}
