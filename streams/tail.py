"""Shows recommendations as they are written."""

from __future__ import annotations

import time
from collections.abc import Collection

import click

from configs.schema import WorkerConfig
from streams.kafka import follow
from streams.messages import decode_recommendation

#: Items shown of each recommendation; the whole list is in --json.
_SHOWN = 8


def tail(
    config: WorkerConfig, *, as_json: bool, users: Collection[str], from_beginning: bool, limit: int | None
) -> None:
    """Print recommendations until interrupted, or `limit` of them."""
    shown = 0
    for arrived in follow(config.kafka, [config.topics.recommendations], from_beginning):
        if arrived is None:
            continue
        message = arrived.message
        if message.value is None or message.key is None or (users and message.key.decode() not in users):
            continue
        click.echo(message.value.decode() if as_json else _line(message.value))
        shown += 1
        if shown == limit:
            return


def _line(value: bytes) -> str:
    r = decode_recommendation(value)
    items = " ".join(
        f"{item}({interest})" for item, interest in zip(r.item_ids[:_SHOWN], r.interests[:_SHOWN], strict=True)
    )
    more = f" +{len(r.item_ids) - _SHOWN}" if len(r.item_ids) > _SHOWN else ""
    at = time.strftime("%H:%M:%S", time.localtime(r.ts))
    delay = (r.ts - r.click_ts) * 1000
    return f"{at}  user {r.user_id}  {r.history_length} clicks  {delay:.0f} ms after the click  {items}{more}"
