"""Show recommendations as they are written."""

from __future__ import annotations

import time
from collections.abc import Collection

import click

from configs.schema import WorkerConfig
from configs.text import count
from streams.errors import BadMessage
from streams.kafka.reading import follow
from streams.messages.recommendations import Recommendation, decode_recommendation

#: Most items shown of each recommendation; --json has all of them.
_MAX_ITEMS = 8


def tail(
    config: WorkerConfig, *, as_json: bool, users: Collection[str], from_beginning: bool, limit: int | None
) -> None:
    """Print recommendations until interrupted, or `limit` of them.

    Args:
        config: names the cluster and the topic.
        as_json: print the message as it is on the topic, one per line.
        users: user ids as text; empty = all users.
        from_beginning: start with the oldest message; otherwise only new ones are printed.
        limit: None = until interrupted.

    Raises:
        TransientError: Kafka is unavailable at the start.
        FatalError: there is no such topic, or Kafka refuses this client.
    """
    shown = 0
    wanted = {user.encode() for user in users}
    for received in follow(config.kafka, [config.topics.recommendations], from_beginning):
        if received is None:
            continue
        message = received.message
        if wanted and message.key not in wanted:
            continue
        try:
            recommendation = decode_recommendation(message.value or b"")
        except BadMessage as error:
            text = f"{message.topic} [{message.partition}] at offset {message.offset} is not a recommendation"
            click.echo(f"{text}; another program, or an earlier version, wrote it: {error}", err=True)
            continue
        click.echo(message.value or b"" if as_json else _line(recommendation))
        shown += 1
        if shown == limit:
            return


def _line(r: Recommendation) -> str:
    items = " ".join(
        f"{item}({interest})" for item, interest in zip(r.item_ids[:_MAX_ITEMS], r.interests[:_MAX_ITEMS], strict=True)
    )
    more = f" +{len(r.item_ids) - _MAX_ITEMS}" if len(r.item_ids) > _MAX_ITEMS else ""
    written_at = time.strftime("%H:%M:%S", time.localtime(r.ts))
    delay_ms = (r.ts - r.click_ts) * 1000
    history = count(r.history_length, "click")
    return f"{written_at}  user {r.user_id}  {history}  {delay_ms:.0f} ms after the click  {items}{more}"
