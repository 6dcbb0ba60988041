"""Clicks and their codec."""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson

from streams.errors import BadMessage
from streams.messages.fields import as_item_id, as_seconds, as_user_id, json_object, optional_text, preview, required

#: Bytes of one click. A click has about 80; far larger ones are not clicks, and parsing them would hold the others up.
MAX_CLICK_BYTES = 65_536


class Click(NamedTuple):  # as what else is made for each click: a frozen dataclass takes twice as long
    user_id: int | str
    item_id: int
    ts: float
    event_id: str | None = None


def user_key(user_id: int | str) -> bytes:
    """Kafka key and identity of a user."""
    return str(user_id).encode()


def decode_click(key: bytes | None, value: bytes | None) -> Click:
    """The click in a message of the `clicks` topic.

    Raises:
        BadMessage: whatever is wrong with the message.
    """
    if value is None:
        raise BadMessage("null_value", "a click has a JSON value; null values have no meaning on this topic")
    if len(value) > MAX_CLICK_BYTES:
        raise BadMessage("too_large", f"{len(value)} bytes; a click has at most {MAX_CLICK_BYTES}")
    fields = json_object(value)
    user_id = as_user_id(required(fields, "user_id"))
    item_id = as_item_id(required(fields, "item_id"))
    ts = as_seconds(required(fields, "ts"))
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
