"""Shows recommendations as they are written."""

from __future__ import annotations

import time
from collections.abc import Collection

import click

from configs.schema import WorkerConfig
from streams.errors import BadMessage
from streams.kafka.reading import follow
from streams.messages.recommendations import Recommendation, decode_recommendation

#: Items shown of each recommendation; the whole list is in --json.
_SHOWN = 8


def tail(
    config: WorkerConfig, *, as_json: bool, users: Collection[str], from_beginning: bool, limit: int | None
) -> None:
    """Print recommendations until interrupted, or `limit` of them."""
    shown = 0
    wanted = {user.encode() for user in users}
    for arrived in follow(config.kafka, [config.topics.recommendations], from_beginning):
        if arrived is None:
            continue
        message = arrived.message
        if wanted and message.key not in wanted:
            continue
        try:
            recommendation = decode_recommendation(message.value or b"")
        except BadMessage as error:
            at = f"{message.topic} [{message.partition}] at offset {message.offset}"
            click.echo(f"{at} is no recommendation; something else writes there: {error}", err=True)
            continue
        click.echo(message.value or b"" if as_json else _line(recommendation))
        shown += 1
        if shown == limit:
            return


def _line(r: Recommendation) -> str:
    items = " ".join(
        f"{item}({interest})" for item, interest in zip(r.item_ids[:_SHOWN], r.interests[:_SHOWN], strict=True)
    )
    more = f" +{len(r.item_ids) - _SHOWN}" if len(r.item_ids) > _SHOWN else ""
    at = time.strftime("%H:%M:%S", time.localtime(r.ts))
    delay = (r.ts - r.click_ts) * 1000
    return f"{at}  user {r.user_id}  {r.history_length} clicks  {delay:.0f} ms after the click  {items}{more}"
