"""The published JSON Schemas and the codec accept the same messages.

JSON Schema cannot express some rules, which only the codec checks: the key must agree with the value, the size of a
click in bytes is limited, and those of `_beyond_schema`: integers are not written as floats, the size of a user id in
bytes is limited, a vector is not all zero after rounding to float32. Only the worker checks what needs the model or the
topic: dimension and norm of a vector, and the partition of a key.
"""

from __future__ import annotations

import json
import math
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from model.data.limits import MAX_SECONDS, MIN_SECONDS
from streams.errors import BadMessage, Reason
from streams.messages.clicks import Click, decode_click, encode_click, user_key
from streams.messages.dead_letters import StoredDeadLetter, dead_letter_output, read_dead_letter
from streams.messages.fields import MAX_USER_ID_BYTES
from streams.messages.items import Item, decode_item, encode_item
from streams.messages.recommendations import Recommendation, decode_recommendation, encode_recommendation
from streams.ports import DeadLetter, Message
from tests.unit.streams.messages.support import (
    finite,
    item_ids,
    names,
    recommendations,
    seconds,
    texts,
    user_ids,
    validator,
)

NAMES = ("click", "item", "recommendation", "dead_letter")
FLOAT32_MAX = float(np.finfo(np.float32).max)
#: The smallest number that rounds to an infinite float32: half a step beyond the largest float32.
TOO_LARGE = (FLOAT32_MAX + 2.0**128) / 2
#: Reasons that refer to a field, as opposed to the bytes or the key.
VALUE_REASONS = {"missing_field", "wrong_type", "out_of_range", "bad_embedding"}

Fields = dict[str, Any]


def _schema(name: str) -> Fields:
    schema = validator(name).schema
    assert isinstance(schema, dict)
    return schema


def _decode(name: str, fields: Fields) -> Click | Item | Recommendation | StoredDeadLetter:
    """Decode with the key that belongs to the value; of a dead letter, `fields` are the headers."""
    if name == "dead_letter":
        headers = {header: text.encode() for header, text in fields.items()}
        found = read_dead_letter(Message("dead-letters", 0, 0, None, None), headers)
        if found is None:
            raise BadMessage("wrong_type", "no dead letter")
        return found
    value = json.dumps(fields).encode()
    if name == "click":
        return decode_click(user_key(fields.get("user_id", "")), value)
    if name == "item":
        decoded = decode_item(str(fields.get("item_id", 1)).encode(), value)
        assert isinstance(decoded, Item)
        return decoded
    return decode_recommendation(value)


def _reason(name: str, fields: Fields) -> str | None:
    """Return the reason for which the codec refuses the value; None if it does not."""
    try:
        _decode(name, fields)
    except BadMessage as error:
        return error.reason
    return None


extra = st.dictionaries(st.just("more"), texts)
float32 = st.floats(-FLOAT32_MAX, FLOAT32_MAX, width=32)
vectors = st.lists(st.one_of(float32, st.integers(-9, 9)), min_size=1, max_size=6).filter(any)


def _merged(*parts: st.SearchStrategy[Fields]) -> st.SearchStrategy[Fields]:
    return st.tuples(*parts).map(lambda found: {name: value for part in found for name, value in part.items()})


clicks = _merged(
    extra,
    st.fixed_dictionaries(
        {"user_id": user_ids, "item_id": item_ids, "ts": st.one_of(seconds, st.integers(MIN_SECONDS, MAX_SECONDS - 1))},
        optional={"event_id": st.one_of(st.none(), texts)},
    ),
)
items = _merged(
    extra,
    st.fixed_dictionaries(
        {"item_id": item_ids, "embedding": vectors, "model_version": names},
        optional={"category": st.one_of(st.none(), texts), "title": st.one_of(st.none(), texts)},
    ),
)
#: Any JSON value, often near the limits of what is allowed.
values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**70), 2**70),
        st.sampled_from(
            [
                0,
                1,
                2**63 - 2,
                2**63 - 1,
                2**63,
                -(2**63) + 1,
                -(2**63),
                -(2**63) - 1,
                1e39,
                -1e39,
                FLOAT32_MAX,
                -FLOAT32_MAX,
            ]
        ),
        finite,
        st.sampled_from([10**8 - 1, 10**8, 1e8, 10**10 - 1, 10**10, 1e10, math.nextafter(1e10, 0), 1795804209445]),
        texts,
        st.sampled_from([MAX_USER_ID_BYTES, MAX_USER_ID_BYTES + 1]).map(lambda n: "x" * n),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=2)),
    max_leaves=6,
)


@pytest.mark.parametrize("name", NAMES)
def test_schemas_are_valid_and_documented(name: str) -> None:
    schema = _schema(name)
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert set(schema["required"]) <= schema["properties"].keys()
    for field in (schema, *schema["properties"].values()):
        assert field["title"], field
        assert field["description"].endswith("."), field


@pytest.mark.parametrize("name", NAMES)
def test_examples_are_valid_and_decode(name: str) -> None:
    examples = _schema(name)["examples"]
    assert examples
    for fields in examples:
        validator(name).validate(fields)
        _decode(name, fields)
    shown = {field for fields in examples for field in fields}
    assert shown == _schema(name)["properties"].keys(), "the examples show every property"


@given(clicks)
def test_valid_clicks(fields: Fields) -> None:
    validator("click").validate(fields)
    click = _decode("click", fields)
    validator("click").validate(json.loads(encode_click(click)))  # type: ignore[arg-type]


@given(items)
def test_valid_items(fields: Fields) -> None:
    assume(not _beyond_schema(fields))
    validator("item").validate(fields)
    item = _decode("item", fields)
    validator("item").validate(json.loads(encode_item(item)))  # type: ignore[arg-type]


@given(recommendations)
def test_encoded_recommendations_are_valid(recommendation: Recommendation) -> None:
    fields = json.loads(encode_recommendation(recommendation))
    validator("recommendation").validate(fields)
    assert fields.keys() == _schema("recommendation")["properties"].keys()
    assert fields["source"].keys() == _schema("recommendation")["properties"]["source"]["properties"].keys()


@given(st.text(max_size=600), st.lists(st.tuples(texts, st.binary(max_size=20)), max_size=3), st.integers(0, 40))
def test_headers_of_dead_letters_are_valid(error: str, headers: list[tuple[str, bytes]], max_bytes: int) -> None:
    for reason in get_args(Reason):
        message = Message("clicks", 2**31 - 1, 2**63 - 1, b"42", b"x" * 20, headers)
        output = dead_letter_output("dead-letters", DeadLetter(message, reason, error), 1404172800.25, max_bytes)
        fields = {name: value.decode() for name, value in output.headers}
        validator("dead_letter").validate(fields)
        assert fields.keys() <= _schema("dead_letter")["properties"].keys()
        _decode("dead_letter", fields)


def test_the_schema_names_all_reasons_of_dead_letters() -> None:
    assert _schema("dead_letter")["properties"]["reason"]["examples"] == list(get_args(Reason))


# Not "7\n": the pattern's $ matches before it in Python, but not in ECMAScript, whose patterns JSON Schema has.
numerals = st.sampled_from(["0", "7", "007", "-1", "+7", " 7", "7 ", "1_0", "٣", "", "9" * 19, "9" * 20, "1.5"])
times = st.sampled_from(["0.000", "1404172800.250", "1404172800", "nan", "1e5", ".250", "-1.000", "1.0000"])


@given(st.sampled_from(["partition", "offset", "time", "attempt", "omitted", "error"]), numerals | times | texts)
def test_codec_and_schema_agree_on_dead_letters(name: str, text: str) -> None:
    _assert_agreement("dead_letter", _schema("dead_letter")["examples"][1] | {name: text})


RECOMMENDATION: Fields = {
    "user_id": 1,
    "item_ids": [1, 2],
    "scores": [0.5, 0.25],
    "interests": [0, 3],
    "model_version": "m",
    "history_length": 1,
    "source": {"partition": 0, "offset": 0},
    "click_ts": 10**9,
    "ts": 10**9,
    "top_k": 2,
}
#: Values near the limits of the lists and of the source.
lists_and_sources = st.one_of(
    st.lists(st.sampled_from([0, 1, 63, 64, -1, 0.5, True, "1", None, 2**63 - 1]), min_size=2, max_size=2),
    st.fixed_dictionaries({"partition": values, "offset": st.just(1)}),
    st.fixed_dictionaries({"partition": st.just(1), "offset": values}),
)


@given(st.sampled_from(list(RECOMMENDATION)), values | lists_and_sources)
@example("item_ids", [7, 7])
@example("interests", [0, 64])
@example("interests", [-1, 0])
@example("history_length", 0)
@example("history_length", 1001)
@example("top_k", 0)
@example("top_k", 1001)
@example("top_k", None)
@example("source", {"partition": -1, "offset": 1})
@example("source", {"partition": 2**31, "offset": 1})
@example("source", {"partition": 1, "offset": -1})
@example("source", {"partition": 1, "offset": 2**63})
@example("ts", 1795804209445)
def test_codec_and_schema_agree_on_recommendations(name: str, value: object) -> None:
    _assert_agreement("recommendation", RECOMMENDATION | {name: value})


@pytest.mark.parametrize("number", [1000, 1001])
def test_codec_and_schema_agree_on_the_most_items(number: int) -> None:
    lists = {"item_ids": list(range(1, number + 1)), "scores": [0.5] * number, "interests": [0] * number}
    _assert_agreement("recommendation", RECOMMENDATION | lists)
    assert validator("recommendation").is_valid(RECOMMENDATION | lists) is (number == 1000)


@given(clicks, st.sampled_from(["user_id", "item_id", "ts", "event_id"]), values)
@example({"user_id": 1, "item_id": 1, "ts": 10**9}, "user_id", "é" * MAX_USER_ID_BYTES)
@example({"user_id": 1, "item_id": 1, "ts": 10**9}, "item_id", 7.0)
@example({"user_id": 1, "item_id": 1, "ts": 10**9}, "item_id", -(2**63))
@example({"user_id": 1, "item_id": 1, "ts": 10**9}, "item_id", 2**63 - 1)
@example({"user_id": 1, "item_id": 1, "ts": 10**9}, "ts", 10**10)
@example({"user_id": 1, "item_id": 1, "ts": 10**9}, "ts", 10**8 - 1)
def test_codec_and_schema_agree_on_clicks(fields: Fields, name: str, value: object) -> None:
    _assert_agreement("click", fields | {name: value})


@given(items, st.sampled_from(["item_id", "embedding", "model_version", "category", "title"]), values)
@example({"item_id": 1, "embedding": [1], "model_version": "m"}, "item_id", 1e39)
@example({"item_id": 1, "embedding": [1], "model_version": "m"}, "embedding", [1e-60])
@example({"item_id": 1, "embedding": [1], "model_version": "m"}, "embedding", [0, -0.0])
@example({"item_id": 1, "embedding": [1], "model_version": "m"}, "embedding", [TOO_LARGE])
@example({"item_id": 1, "embedding": [1], "model_version": "m"}, "embedding", [-math.nextafter(TOO_LARGE, 0)])
@example({"item_id": 1, "embedding": [1], "model_version": "m"}, "embedding", [0, True])
def test_codec_and_schema_agree_on_items(fields: Fields, name: str, value: object) -> None:
    _assert_agreement("item", fields | {name: value})


@pytest.mark.parametrize("name", NAMES)
def test_codec_and_schema_require_the_same(name: str) -> None:
    example = _schema(name)["examples"][-1]
    for field in example:
        without = {key: value for key, value in example.items() if key != field}
        required = field in _schema(name)["required"]
        assert validator(name).is_valid(without) is not required
        missing = "missing_field" if name != "dead_letter" else "wrong_type"
        assert (_reason(name, without) == missing) is required, field


@pytest.mark.parametrize("value", [None, 3, "text", [], [{}]])
@pytest.mark.parametrize("name", ["click", "item"])
def test_only_objects_are_messages(name: str, value: object) -> None:
    assert not validator(name).is_valid(value)
    decode = decode_click if name == "click" else decode_item
    with pytest.raises(BadMessage, match="expected a JSON object"):
        decode(b"1", json.dumps(value).encode())


def _assert_agreement(name: str, fields: Fields) -> None:
    reason, valid = _reason(name, fields), validator(name).is_valid(fields)
    # If the value has no usable id, the codec refuses the key.
    reasons = VALUE_REASONS | {"bad_key"}
    if _beyond_schema(fields):
        assert reason in reasons
    elif reason is None:
        assert valid, f"the codec accepts what the schema refuses: {fields}"
    else:
        assert reason in reasons
        assert not valid, f"the codec refuses ({reason}) what the schema accepts: {fields}"


def _beyond_schema(fields: Fields) -> bool:
    """Return whether the value breaks a rule that JSON Schema cannot express."""
    user, vector = fields.get("user_id"), fields.get("embedding")
    if isinstance(user, str) and len(user.encode()) > MAX_USER_ID_BYTES:
        return True
    # In JSON Schema, 7.0 is an integer.
    source, interests, ids = fields.get("source"), fields.get("interests"), fields.get("item_ids")
    numbers = [fields.get(name) for name in ("user_id", "item_id", "history_length", "top_k")]
    numbers += list(source.values()) if isinstance(source, dict) else []
    numbers += [number for found in (interests, ids) if isinstance(found, list) for number in found]
    if any(isinstance(number, float) and number.is_integer() for number in numbers):
        return True
    # The lists have the same length.
    lists = [fields[name] for name in ("item_ids", "scores", "interests") if isinstance(fields.get(name), list)]
    if len({len(found) for found in lists}) > 1:
        return True
    if isinstance(vector, list) and all(type(x) in (int, float) for x in vector):
        with np.errstate(over="ignore"):
            return not np.asarray(vector, dtype=np.float64).astype(np.float32).any()
    return False
