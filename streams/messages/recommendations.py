"""Recommendations and their codec."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from streams.errors import BadMessage
from streams.messages.fields import as_int64, as_seconds, as_user_id, json_object, model_version_of, preview, required


class Recommendation(NamedTuple):
    """Candidates for one user, best first; `interests[i]` is the interest vector that recalled `item_ids[i]`.

    `source_partition` and `source_offset` name the newest click that it answers: consumers drop repeats by them.
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


def decode_recommendation(value: bytes) -> Recommendation:
    """The inverse of `encode_recommendation`; properties that it does not know are ignored.

    Raises:
        BadMessage: the value is no recommendation.
    """
    fields = json_object(value)
    source = required(fields, "source")
    if not isinstance(source, dict):
        raise BadMessage("wrong_type", f"source must be an object, found {preview(source)}")
    item_ids = _list(fields, "item_ids", {int})
    scores = _list(fields, "scores", {int, float})
    interests = _list(fields, "interests", {int})
    if not len(item_ids) == len(scores) == len(interests):
        raise BadMessage("wrong_type", "item_ids, scores and interests must have the same length")
    return Recommendation(
        user_id=as_user_id(required(fields, "user_id")),
        item_ids=item_ids,
        scores=scores,
        interests=interests,
        model_version=model_version_of(fields),
        history_length=as_int64("history_length", required(fields, "history_length")),
        source_partition=as_int64("source.partition", required(source, "partition")),
        source_offset=as_int64("source.offset", required(source, "offset")),
        click_ts=as_seconds(required(fields, "click_ts"), "click_ts"),
        ts=as_seconds(required(fields, "ts")),
    )


def encode_recommendation(recommendation: Recommendation) -> bytes:
    r = recommendation
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
        },
        option=orjson.OPT_SERIALIZE_NUMPY,
    )


def _list(fields: dict[str, Any], name: str, types: set[type]) -> list[Any]:
    found = required(fields, name)
    if not isinstance(found, list) or not types.issuperset(map(type, found)):
        raise BadMessage("wrong_type", f"{name} must be a list of numbers, found {preview(found)}")
    return found
