"""Clicks and their codec."""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson

from streams.errors import BadMessage
from streams.messages.fields import (
    decode_fields,
    optional_text,
    preview,
    required_item_id,
    required_seconds,
    required_user_id,
)

#: A click has about 80 bytes. Far larger messages are not clicks, and parsing them would delay those that are.
MAX_CLICK_BYTES = 65_536


class Click(NamedTuple):  # a frozen dataclass takes twice as long to build, and this happens for every click
    user_id: int | str
    item_id: int
    ts: float
    event_id: str | None = None


def user_key(user_id: int | str) -> bytes:
    """Return the Kafka key of a user, which also identifies the user."""
    return str(user_id).encode()


def decode_click(key: bytes | None, value: bytes | None) -> Click:
    """Decode a message of the `clicks` topic.

    Raises:
        BadMessage: the message is not a click, or its key is not its user id.
    """
    if value is None:
        raise BadMessage("null_value", "a click has a JSON value; null values have no meaning on this topic")
    if len(value) > MAX_CLICK_BYTES:
        raise BadMessage("too_large", f"{len(value)} bytes; a click has at most {MAX_CLICK_BYTES}")
    fields = decode_fields(value)
    user_id = required_user_id(fields)
    item_id = required_item_id(fields)
    ts = required_seconds(fields, "ts")
    event_id = optional_text(fields, "event_id")
    if key != user_key(user_id):
        raise BadMessage(
            "bad_key",
            f"the message key must be the user id as text, {str(user_id)!r}, so that a user's clicks stay in one "
            f"partition and in order; found {preview(key)}",
        )
    return Click(user_id, item_id, ts, event_id)


def encode_click(click: Click) -> bytes:
    fields: dict[str, Any] = {"user_id": click.user_id, "item_id": click.item_id, "ts": click.ts}
    if click.event_id is not None:
        fields["event_id"] = click.event_id
    return orjson.dumps(fields)
