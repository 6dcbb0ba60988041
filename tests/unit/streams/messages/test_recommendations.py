"""The codec of recommendations."""

from __future__ import annotations

import json

import pytest

from streams.errors import BadMessage
from streams.messages.recommendations import Recommendation, decode_recommendation, encode_recommendation

GOOD = Recommendation("u", [3, 4], [0.5, 0.25], [0, 3], "m1", 20, 3, 991, 1404172800.25, 1404172800.27, 2)


def _with(changes: dict[str, object]) -> bytes:
    return json.dumps(json.loads(encode_recommendation(GOOD)) | changes).encode()


def test_round_trip() -> None:
    assert decode_recommendation(encode_recommendation(GOOD)) == GOOD
    assert json.loads(encode_recommendation(GOOD))["source"] == {"partition": 3, "offset": 991}


def test_unknown_properties_are_ignored() -> None:
    assert decode_recommendation(_with({"added": "later"})) == GOOD


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"source": None}, "missing_field"),
        ({"source": 991}, "wrong_type"),
        ({"source": {"partition": 3}}, "missing_field"),
        ({"source": {"partition": 3, "offset": "991"}}, "wrong_type"),
        ({"item_ids": 3}, "wrong_type"),
        ({"item_ids": [True, 4]}, "wrong_type"),
        ({"item_ids": [3]}, "wrong_type"),
        ({"scores": ["0.5", 0.25]}, "wrong_type"),
        ({"interests": [0.0, 3]}, "wrong_type"),
        ({"model_version": ""}, "wrong_type"),
        ({"history_length": None}, "missing_field"),
        ({"click_ts": "now"}, "wrong_type"),
        ({"user_id": ""}, "out_of_range"),
        ({"item_ids": [3, -(2**63)]}, "out_of_range"),
        ({"item_ids": [2**63 - 1, 4]}, "out_of_range"),
        ({"item_ids": [0, 4]}, "out_of_range"),
        ({"click_ts": 1795804209445}, "out_of_range"),
        ({"ts": 0}, "out_of_range"),
    ],
)
def test_a_wrong_field_is_refused_with_its_reason(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(BadMessage) as caught:
        decode_recommendation(_with(changes))
    assert caught.value.reason == reason


def test_error_texts_name_the_parts_of_the_source() -> None:
    with pytest.raises(BadMessage, match=r"source\.offset must be a 64-bit integer"):
        decode_recommendation(_with({"source": {"partition": 3, "offset": "991"}}))
