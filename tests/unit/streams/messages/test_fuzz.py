"""Properties of all messages, whatever their bytes and however often they are delivered.

Decoders raise `BadMessage` and nothing else; what they accept is valid by the published schema; every click ends in a
history or as a dead letter; redelivery changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streams.errors import BadMessage, Reason
from streams.history import History, apply_clicks
from streams.messages.clicks import Click, decode_click, encode_click, user_key
from streams.messages.items import Item, ItemRemoval, decode_item, encode_item
from streams.messages.recommendations import Recommendation, decode_recommendation, encode_recommendation
from streams.ports import Message
from tests.unit.fakes import ClickWorld
from tests.unit.streams.messages.support import (
    recommendations,
    texts,
    validator,
)

CLICK = b'{"user_id":42,"item_id":7,"ts":1404172800.25,"event_id":"e"}'
ITEM = b'{"item_id":7,"embedding":[0.5,-1,2e-3],"model_version":"m1","category":"c","title":"t"}'
RECOMMENDATION = encode_recommendation(
    Recommendation("42", [3, 4], [0.5, 0.25], [0, 3], "m1", 20, 3, 991, 1404172800.25, 1404172800.27)
)

#: Values in JSON, or nearly, that parsers and number types disagree about.
TOKENS: list[bytes] = [
    *(b"null", b"true", b"false", b"5.0", b"0", b"-0", b"-0.0", b"1e2", b"007", b"+1", b".5", b"1.", b"0x1", b"1_0"),
    *(b"NaN", b"nan", b"Infinity", b"-Infinity", b"1e999", b"-1e999", b"1e-999", b"5e-324", b"1.7976931348623157e308"),
    *(
        b"9223372036854775806",
        b"9223372036854775807",
        b"9223372036854775808",
        b"-9223372036854775808",
        b"-9223372036854775809",
    ),
    *(b"18446744073709551615", b"18446744073709551616", b"9" * 400, b"-" + b"9" * 5000, b"1" + b"0" * 60_000),
    *(b'""', b'"7"', b'"\\u0000"', b'"\\ud800"', b'"\\udc00\\ud800"', b'"\xed\xa0\x80"', b'"\x00"', b'"\x1b[2J"'),
    *(b'"\xef\xbf\xbf"', b'"\xff"', b"\xef\xbb\xbf", b'"\\x"', b"'7'", b'"' + b"\xc3\xa9" * 300 + b'"', b'"unended'),
    b'"' + b"x" * 60_000 + b'"',
    *(b"[" * depth + b"]" * depth for depth in (1, 400, 990, 1023, 1024, 30_000)),
    *(b'{"a":' * depth + b"1" + b"}" * depth for depth in (1, 400, 990, 1023)),
    *(b"[1,]", b"{,}", b"{}", b'{"user_id":42}', b"[1e38,1e39]", b"[3.5e38]", b"[1e-50]", b"[0,-0.0]", b"[null]"),
    *(b"[[1],[2]]", b"[true]", b'["1"]', b"[" + b"0.5," * 5000 + b"1]"),
]

positions = st.floats(0, 1, exclude_max=True)


@st.composite
def mutated(draw: st.DrawFn, valid: bytes) -> bytes:
    """A valid message with damage: bytes flipped, inserted, deleted or repeated, or a value replaced."""
    value = bytearray(valid)
    for _ in range(draw(st.integers(0, 4))):
        at = int(draw(positions) * (len(value) + 1))
        kind = draw(st.sampled_from(["flip", "insert", "delete", "repeat", "token"]))
        if kind == "flip" and at < len(value):
            value[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "insert":
            value[at:at] = draw(st.binary(min_size=1, max_size=4))
        elif kind == "delete":
            del value[at : at + draw(st.integers(1, 20))]
        elif kind == "repeat":
            value[at:at] = value[at : at + draw(st.integers(1, 40))]
        else:
            colon = value.find(b":", at)
            end = min((i for i in (value.find(b",", colon), value.find(b"}", colon)) if i > 0), default=len(value))
            value[colon + 1 : end] = draw(st.sampled_from(TOKENS))
    return bytes(value)


def _overridden(valid: bytes, name: str, token: bytes) -> bytes:
    """Append the field with another value: of duplicate names, parsers take the last."""
    return valid[:-1] + b',"' + name.encode() + b'":' + token + b"}"


keys = st.one_of(
    st.sampled_from([b"42", b"7", None, b"", b"007", b" 7", b"+7", b"7_0", b"\xd9\xa7", b"9" * 5000, b"-0", b"0"]),
    st.binary(max_size=8),
)


def _refused(decode: Callable[..., Any], *arguments: bytes | None) -> BadMessage | None:
    try:
        decode(*arguments)
    except BadMessage as error:
        return error
    return None


def _check_click(key: bytes | None, value: bytes) -> None:
    error = _refused(decode_click, key, value)
    if error is not None:
        assert error.reason in get_args(Reason) and 0 < len(error.detail) < 2000
        return
    click = decode_click(key, value)
    assert user_key(click.user_id) == key
    encoded = encode_click(click)
    validator("click").validate(json.loads(encoded))
    assert decode_click(key, encoded) == click


def _check_item(key: bytes | None, value: bytes) -> None:
    error = _refused(decode_item, key, value)
    if error is not None:
        assert error.reason in get_args(Reason) and 0 < len(error.detail) < 2000
        return
    item = decode_item(key, value)
    assert isinstance(item, Item)
    assert item.embedding.dtype == np.float32
    assert np.isfinite(item.embedding).all() and item.embedding.any()
    encoded = encode_item(item)
    again = decode_item(key, encoded)
    assert isinstance(again, Item)
    np.testing.assert_array_equal(again.embedding, item.embedding)
    assert (again.item_id, again.model_version, again.title) == (item.item_id, item.model_version, item.title)
    validator("item").validate(json.loads(encoded))


@given(keys, mutated(CLICK))
@example(b"42", CLICK)
@example(b"42", b"\xef\xbb\xbf" + CLICK)
def test_damaged_clicks(key: bytes | None, value: bytes) -> None:
    _check_click(key, value)
    _check_click(b"42", value)


@given(keys, mutated(ITEM))
@example(b"7", ITEM)
def test_damaged_items(key: bytes | None, value: bytes) -> None:
    _check_item(key, value)
    _check_item(b"7", value)


@given(mutated(RECOMMENDATION))
def test_damaged_recommendations(value: bytes) -> None:
    if _refused(decode_recommendation, value) is None:
        decoded = decode_recommendation(value)
        assert decode_recommendation(encode_recommendation(decoded)) == decoded


@given(st.binary(max_size=200))
def test_any_bytes(value: bytes) -> None:
    for key in (None, b"", b"42", value):
        _refused(decode_click, key, value)
        _refused(decode_item, key, value)
    _refused(decode_recommendation, value)


@pytest.mark.parametrize("token", TOKENS, ids=lambda token: token[:12].decode("ascii", "backslashreplace"))
def test_every_token_in_every_field(token: bytes) -> None:
    for field in json.loads(CLICK):
        _check_click(b"42", _overridden(CLICK, field, token))
    for field in json.loads(ITEM):
        _check_item(b"7", _overridden(ITEM, field, token))
    for field in json.loads(RECOMMENDATION):
        _refused(decode_recommendation, _overridden(RECOMMENDATION, field, token))
    for key in (b"42", token, None):
        _check_click(key, token)
        _check_item(key, token)
        assert _refused(decode_item, key, None) is not None or decode_item(key, None) == ItemRemoval(int(key or b""))


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(["user_id", "item_id", "ts", "event_id", "embedding"]), json_values))
def test_any_json(fields: dict[str, object]) -> None:
    value = json.dumps(fields).encode()
    for key in (b"42", None):
        _refused(decode_click, key, value)
        _refused(decode_item, key, value)


@given(recommendations)
def test_recommendations_round_trip(recommendation: Recommendation) -> None:
    assert decode_recommendation(encode_recommendation(recommendation)) == recommendation


# Kafka delivers a partition in order; after a crash it continues from any earlier offset.

rewinds = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 60)), max_size=12)


def _deliveries(count: int, rewinds: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Return offsets 0 to count - 1 in batches; a rewind is (size of the next batch, offsets to go back after it)."""
    position = 0
    batches = []
    for size, back in rewinds:
        end = min(count, position + size)
        batches.append(list(range(position, end)))
        position = max(0, end - back)
    return [batch for batch in [*batches, list(range(position, count))] if batch]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=50), st.integers(1, 25), rewinds)
def test_redelivery_does_not_change_a_history(items: list[int], length: int, rewinds: list[tuple[int, int]]) -> None:
    """A click on the same item again counts; the same offset again does not."""
    history: History | None = None
    applied = 0
    for batch in _deliveries(len(items), rewinds):
        history, fresh = apply_clicks(history, 3, [(offset, items[offset]) for offset in batch], length)
        applied += fresh
    once, _ = apply_clicks(None, 3, list(enumerate(items)), length)
    assert history == once
    assert applied == len(items)


ANY_CLICK = st.one_of(
    st.tuples(st.sampled_from([b"1", b"2", b"3"]), st.integers(1, 9)).map(
        lambda t: (t[0], encode_click(Click(t[0].decode(), t[1], 1404172800.25)))
    ),
    st.tuples(keys, st.one_of(st.none(), mutated(CLICK))),
)


@given(st.lists(ANY_CLICK, min_size=1, max_size=30), rewinds)
def test_every_message_ends_in_a_history_or_as_a_dead_letter(
    sent: list[tuple[bytes | None, bytes | None]], rewinds: list[tuple[int, int]]
) -> None:
    world = ClickWorld()
    for batch in _deliveries(len(sent), rewinds):
        world.process([Message("clicks", 0, offset, *sent[offset]) for offset in batch])
    dead: dict[int, tuple[bytes | None, bytes | None]] = {}
    for output in world.sent("dead-letters"):
        dead[int(dict(output.headers)["offset"])] = (output.key, output.value)
    clicks: dict[bytes, list[int]] = {}
    for offset, (key, value) in enumerate(sent):
        if _refused(decode_click, key, value) is not None:
            assert dead.pop(offset) == (key, value), "with its original bytes"
        else:
            clicks.setdefault(key or b"", []).append(decode_click(key, value).item_id)
    assert not dead, "no valid click is a dead letter"
    found = {key: History.from_bytes(record).items.tolist() for key, record in world.store.records.get(0, {}).items()}
    assert found == {key: items[-4:] for key, items in clicks.items()}
