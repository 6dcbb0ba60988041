"""The dead-letter topic for people: what lies there, one letter in full, and sending letters back.

Sending back is at least once. Letters go out in portions; when all in-sync replicas have a portion, its receipts follow
on the dead-letter topic, and letters with a receipt are not sent again. A kill between the two sends that portion,
`_PORTION` letters at most, once more with the next run, and so do two runs at the same time.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import click
import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text

from configs.schema import Kafka, WorkerConfig
from streams.kafka.client import metadata, read_to_end
from streams.kafka.producer import KafkaOutbox
from streams.kafka.topics import HEADER_BYTES, topic_settings
from streams.messages.dead_letters import (
    Letter,
    Place,
    json_value,
    read_letter,
    read_receipt,
    receipt_output,
    replay_output,
)

#: Letters that are sent before their receipts.
_PORTION = 100
#: Characters of keys and errors in the table; `show` has all of them.
_KEY_SHOWN, _ERROR_SHOWN = 24, 60
#: Columns of the table where no terminal gives its width: none is shortened.
_WIDE = 320
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, slots=True)
class Selection:
    """Which letters: all conditions together; an empty one lets all pass. Times in seconds since 1970."""

    reasons: Collection[str] = ()
    topics: Collection[str] = ()
    since: float | None = None
    until: float | None = None
    places: Collection[Place] = ()

    def __contains__(self, letter: Letter) -> bool:
        return (
            (not self.reasons or letter.reason in self.reasons)
            and (not self.topics or letter.message.topic in self.topics)
            and (self.since is None or letter.time >= self.since)
            and (self.until is None or letter.time <= self.until)
            and (not self.places or letter.source in self.places or letter.kept_at in self.places)
        )


@dataclass(frozen=True, slots=True)
class Found:
    """Letters, oldest first; those that were sent back, by `Letter.kept_at`; and how many messages are no letters."""

    letters: list[Letter]
    replayed: set[Place]
    foreign: int


def moment(text: str, now: float) -> float:
    """Seconds since 1970 of an ISO time (local, if it names no zone) or of "30m", "2h", "1d" before now.

    Raises:
        ValueError: it is neither.
    """
    if ago := re.fullmatch(r"(\d+)([smhd])", text):
        return now - int(ago[1]) * _UNITS[ago[2]]
    return datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", text)).timestamp()


def find(config: WorkerConfig, selection: Selection) -> Found:
    """Read the dead-letter topic; only the selected letters are kept in memory.

    A message that was dead-lettered again after a crash counts once.

    Raises:
        TransientError: Kafka is away.
        FatalError: there is no such topic.
    """
    letters: dict[tuple[Place, bytes | None, int], Letter] = {}
    receipts: set[tuple[str, bytes | None]] = set()
    foreign = 0
    for message, headers, _ in read_to_end(config.kafka, config.topics.dead_letters, headers=True):
        letter = read_letter(message, headers)
        if letter is not None and letter in selection:
            letters[letter.source, message.key, hash(message.value)] = letter
        elif (source := read_receipt(headers)) is not None:
            receipts.add((source, message.key))
        elif letter is None:
            foreign += 1
    found = sorted(letters.values(), key=lambda letter: (letter.time, letter.source))
    replayed = {letter.kept_at for letter in found if (str(letter.source), letter.message.key) in receipts}
    return Found(found, replayed, foreign)


def list_letters(config: WorkerConfig, selection: Selection, *, limit: int | None, as_json: bool) -> None:
    """Print the selected letters, newest last: a table, or one JSON object a line."""
    found = find(config, selection)
    letters = found.letters[-limit:] if limit else found.letters
    if as_json:
        for letter in letters:
            click.echo(orjson.dumps(_as_json(letter, letter.kept_at in found.replayed)))
        return
    if letters:
        _print_table(letters, found.replayed)
    click.echo(_summary(letters, found))


def show_letter(config: WorkerConfig, place: Place) -> None:
    """Print one letter in full."""
    found = find(config, Selection(places=[place]))
    if not found.letters:
        raise click.ClickException(
            f"no dead letter has the place {place}; list them: python -m streams deadletters list"
        )
    letter = found.letters[-1]
    message = letter.message
    kind, body = _readable(message.value)
    if letter.omitted:
        kind = f"left out: key and value have {letter.omitted:,} bytes"
    lines = [
        ("place", str(letter.source)),
        ("kept at", str(letter.kept_at)),
        ("time", _time(letter)),
        ("reason", letter.reason),
        ("error", letter.error),
        ("attempt", str(letter.attempt)),
        ("replayed", "yes" if letter.kept_at in found.replayed else "no"),
        ("key", _short(message.key)),
        *(("header", f"{name}: {_short(value)}") for name, value in message.headers),
        ("value", kind),
    ]
    for name, text in lines:
        click.echo(f"{name:9} {_plain(text)}")
    if body:
        click.echo(f"\n{body}")


def replay_letters(config: WorkerConfig, selection: Selection, *, limit: int | None, again: bool, send: bool) -> bool:
    """Send the selected letters back to their topics, or say what would be sent.

    Returns:
        Whether all of them can be, or were, sent.

    Raises:
        TransientError: Kafka is away; what was sent until then has its receipts.
    """
    found = find(config, selection)
    wanted = [letter for letter in found.letters if again or letter.kept_at not in found.replayed]
    if before := len(found.letters) - len(wanted):
        click.echo(f"{before} were sent back before and are left out; --again sends them, too")
    wanted = wanted[:limit]
    limits = _limits(config.kafka, {letter.message.topic for letter in wanted})
    faults = {letter.kept_at: _fault(letter, limits) for letter in wanted}
    for letter in wanted:
        if reason := faults[letter.kept_at]:
            click.echo(f"{letter.source} cannot be sent: {reason}", err=True)
    due = [letter for letter in wanted if faults[letter.kept_at] is None]
    if not send:
        if due:
            _print_table(due, found.replayed)
        click.echo(f"{_count(due)} would be sent back" + ("; add --yes to send" if due else ""))
    else:
        sent = 0
        try:
            for portion in _send(config, due, limits):
                sent += portion
        finally:
            click.echo(f"{sent} of {_count(due)} sent back")
    return len(due) == len(wanted)


def _send(config: WorkerConfig, letters: Sequence[Letter], limits: dict[str, int]) -> Iterator[int]:
    """Send in the order of the source, so that what belongs to one key keeps its order; yields each portion's size."""
    receipts = KafkaOutbox(config.kafka, config.topics.max_message_bytes + HEADER_BYTES)
    # One for each topic: batches must not be larger than the topic takes either.
    outboxes = {topic: KafkaOutbox(config.kafka, limit) for topic, limit in limits.items()}
    ordered = sorted(letters, key=lambda letter: letter.source)
    for topic, outbox in outboxes.items():
        of_topic = [letter for letter in ordered if letter.message.topic == topic]
        for start in range(0, len(of_topic), _PORTION):
            portion = of_topic[start : start + _PORTION]
            outbox.send([replay_output(letter) for letter in portion])
            receipts.send([receipt_output(config.topics.dead_letters, letter) for letter in portion])
            yield len(portion)


def _limits(kafka: Kafka, topics: Collection[str]) -> dict[str, int]:
    """Topic → bytes of its largest message, of those topics that exist.

    Raises:
        TransientError: Kafka is away.
        FatalError: Kafka refuses to tell.
    """
    existing = metadata(kafka).topics
    found = topic_settings(kafka, [topic for topic in topics if topic in existing])
    return {topic: int(settings["max.message.bytes"]) for topic, settings in found.items()}


def _fault(letter: Letter, limits: dict[str, int]) -> str | None:
    """Why the letter cannot be sent back; None if it can."""
    topic = letter.message.topic
    if letter.omitted:
        return f"its {letter.omitted:,} bytes were too large to keep; they are at that place while Kafka keeps them"
    if topic not in limits:
        return f"Kafka has no topic {topic} any more; create it, or send the bytes of `list --json` elsewhere"
    output = replay_output(letter)
    parts = [output.key, output.value, *(part for name, value in output.headers for part in (name.encode(), value))]
    # At most 10 bytes go with each part, and 100 with the message.
    size = sum(len(part or b"") + 10 for part in parts) + 100
    if size > limits[topic]:
        return f"about {size:,} bytes, {topic} takes {limits[topic]:,}; raise max.message.bytes of the topic"
    return None


def _print_table(letters: Sequence[Letter], replayed: Collection[Place]) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDE)
    table = Table(box=None, pad_edge=False)
    for title in ("time", "reason", "place", "key"):
        table.add_column(title, no_wrap=True)
    table.add_column("bytes", no_wrap=True, justify="right")
    table.add_column("attempt", no_wrap=True, justify="right")
    table.add_column("replayed", no_wrap=True)
    table.add_column("error", no_wrap=True, overflow="ellipsis")
    for letter in letters:
        message = letter.message
        row = (
            _time(letter),
            letter.reason,
            str(letter.source),
            _cut(_short(message.key), _KEY_SHOWN),
            f"{letter.omitted:,}" if letter.omitted else "null" if message.value is None else f"{len(message.value):,}",
            str(letter.attempt),
            "yes" if letter.kept_at in replayed else "",
            _cut(letter.error, _ERROR_SHOWN),
        )
        table.add_row(*(Text(_plain(cell)) for cell in row))  # Text: what strangers wrote is no markup
    console.print(table)


def _summary(letters: Sequence[Letter], found: Found) -> str:
    by_reason = Counter(letter.reason for letter in letters).most_common()
    parts = [", ".join(f"{count:,} {reason}" for reason, count in by_reason)] if letters else []
    if replayed := sum(letter.kept_at in found.replayed for letter in letters):
        parts.append(f"{replayed:,} replayed")
    if found.foreign:
        parts.append(f"{found.foreign:,} messages on the topic are no dead letters")
    return "; ".join([f"{_count(letters)}" + (f": {parts[0]}" if letters else ""), *parts[bool(letters) :]])


def _count(letters: Sequence[Letter]) -> str:
    return f"{len(letters):,} dead letter{'' if len(letters) == 1 else 's'}"


def _as_json(letter: Letter, replayed: bool) -> dict[str, object]:
    message = letter.message
    return {
        "place": str(letter.source),
        "kept_at": str(letter.kept_at),
        "time": letter.time,
        "reason": letter.reason,
        "error": letter.error,
        "attempt": letter.attempt,
        "omitted": letter.omitted,
        "replayed": replayed,
        "key": json_value(message.key),
        "value": json_value(message.value),
        "headers": [[name, json_value(value)] for name, value in message.headers],
    }


def _time(letter: Letter) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(letter.time))


def _short(value: bytes | None) -> str:
    """A key or a header for people: text, or hexadecimal digits."""
    if value is None:
        return "null"
    text = json_value(value)
    return text if isinstance(text, str) else f"0x{value.hex()}"


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _plain(text: str, keep: str = "") -> str:
    """Without control characters: what strangers wrote must not steer the terminal."""
    return "".join(c if c.isprintable() or c in keep else ascii(c)[1:-1] for c in text)


def _readable(value: bytes | None) -> tuple[str, str]:
    """What the bytes are, and the bytes for people: indented JSON, text, or a hex dump."""
    if value is None:
        return "null", ""
    size = f"{len(value):,} bytes"
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return f"{size}, not UTF-8", "\n".join(_hex_lines(value))
    try:
        orjson.loads(value)  # the stricter of the two: no NaN, no Infinity
        text = json.dumps(json.loads(value), indent=2, ensure_ascii=False)  # keeps the digits of large integers
        kind = "JSON"
    except (ValueError, RecursionError):
        kind = "text"
    return f"{size}, {kind}", _plain(text, keep="\n\t")


def _hex_lines(value: bytes) -> Iterator[str]:
    for start in range(0, len(value), 16):
        row = value[start : start + 16]
        shown = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        yield f"{start:08x}  {row.hex(' '):47}  {shown}"
