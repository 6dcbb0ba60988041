"""Dead letters as text."""

from __future__ import annotations

import re

from streams.ports import Message
from streams.tools.dead_letters import FoundDeadLetters
from streams.tools.dead_letters_text import _plain, _readable, _summary
from tests.unit.fakes import stored_dead_letter


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


def test_untrusted_text_cannot_control_the_terminal() -> None:
    assert _plain("a\x1b[2Jb\x9b\u202e\n") == r"a\x1b[2Jb\x9b\u202e\n"
    assert _readable(b"a\x1b]0;x\x07\nb")[1] == "a\\x1b]0;x\\x07\nb"


def test_the_summary_counts_by_reason() -> None:
    dead_letters = [stored_dead_letter(Message("clicks", 0, i, b"42", b"{")) for i in range(2)]
    assert (
        _summary(dead_letters, FoundDeadLetters(dead_letters, {dead_letters[0].kept_at}, 0))
        == "2 dead letters: 2 not_json; 2 replayed"
    )
    assert (
        _summary([], FoundDeadLetters([], set(), 3)) == "0 dead letters; 3 messages on the topic are not dead letters"
    )
