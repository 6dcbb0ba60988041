"""Recommendations and their codec."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from model.data.limits import fault_of_item_id
from streams.errors import BadMessage
from streams.messages.fields import (
    INT64_MAX,
    Fields,
    decode_fields,
    preview,
    required,
    required_int64,
    required_numbers,
    required_seconds,
    required_text,
    required_user_id,
)

#: Most items of a recommendation, and clicks of a history: limits of the configuration.
MAX_ITEMS = MAX_HISTORY = 1000
#: Number of the last interest that a model can have.
MAX_INTEREST = 63


class Recommendation(NamedTuple):
    """Candidates for one user, best first; `interests[i]` is the interest vector that recalled `item_ids[i]`.

    `source_partition` and `source_offset` are those of the newest click that it answers; consumers recognize repeated
    recommendations by them. `click_ts` is that click's time and `ts` that of the recommendation, in seconds since 1970.
    `top_k` is the number of items that were asked for; None in messages of older versions.
    """

    user_id: int | str
    item_ids: list[int] | npt.NDArray[np.int64]
    scores: list[float] | npt.NDArray[np.float32]
    interests: list[int] | npt.NDArray[np.int64]
    model_version: str
    history_length: int
    source_partition: int
    source_offset: int
    click_ts: float
    ts: float
    top_k: int | None = None


def decode_recommendation(value: bytes) -> Recommendation:
    """Decode a message of the `recommendations` topic; unknown properties are ignored.

    Raises:
        BadMessage: the value is not a recommendation.
    """
    fields = decode_fields(value)
    source = required(fields, "source")
    if not isinstance(source, dict):
        raise BadMessage("wrong_type", f"source must be an object, found {preview(source)}")
    source = {f"source.{name}": part for name, part in source.items()}  # as error texts name them
    item_ids = required_numbers(fields, "item_ids", {int})
    scores = required_numbers(fields, "scores", {int, float})
    interests = required_numbers(fields, "interests", {int})
    for item_id in item_ids:
        if fault := fault_of_item_id(item_id):
            raise BadMessage("out_of_range", f"item_ids must be ids of items; {fault}")
    if len(item_ids) > MAX_ITEMS or len(set(item_ids)) < len(item_ids):
        raise BadMessage("out_of_range", f"item_ids must be at most {MAX_ITEMS} different items")
    if interests and not 0 <= min(interests) <= max(interests) <= MAX_INTEREST:
        raise BadMessage("out_of_range", f"interests must be numbers from 0 to {MAX_INTEREST}")
    if not len(item_ids) == len(scores) == len(interests):
        raise BadMessage("wrong_type", "item_ids, scores and interests must have the same length")
    return Recommendation(
        user_id=required_user_id(fields),
        item_ids=item_ids,
        scores=scores,
        interests=interests,
        model_version=required_text(fields, "model_version"),
        history_length=_within(fields, "history_length", 1, MAX_HISTORY),
        source_partition=_within(source, "source.partition", 0, 2**31 - 1),
        source_offset=_within(source, "source.offset", 0, INT64_MAX),
        click_ts=required_seconds(fields, "click_ts"),
        ts=required_seconds(fields, "ts"),
        top_k=None if fields.get("top_k") is None else _within(fields, "top_k", 1, MAX_ITEMS),
    )


def encode_recommendation(recommendation: Recommendation) -> bytes:
    r = recommendation
    top_k = {} if r.top_k is None else {"top_k": r.top_k}
    return orjson.dumps(
        {
            "user_id": r.user_id,
            "item_ids": r.item_ids,
            "scores": r.scores,
            "interests": r.interests,
            "model_version": r.model_version,
            "history_length": r.history_length,
            "source": {"partition": r.source_partition, "offset": r.source_offset},
            "click_ts": r.click_ts,
            "ts": r.ts,
            **top_k,
        },
        option=orjson.OPT_SERIALIZE_NUMPY,
    )


def _within(fields: Fields, name: str, low: int, high: int) -> int:
    number = required_int64(fields, name)
    if not low <= number <= high:
        raise BadMessage("out_of_range", f"{name} must be from {low} to {high}, found {number}")
    return number
