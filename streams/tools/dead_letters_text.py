"""Dead letters as text for people and as JSON."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence

import click
import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text

from configs.schema import WorkerConfig
from streams.messages.dead_letters import (
    MessageRef,
    StoredDeadLetter,
    json_value,
)
from streams.tools.dead_letters import Found, Selection, find

#: Characters of keys and errors in the table; `show` has all of them.
_KEY_SHOWN, _ERROR_SHOWN = 24, 60
#: Columns of the table where no terminal gives its width: none is shortened.
_WIDE = 320


def list_dead_letters(config: WorkerConfig, selection: Selection, *, limit: int | None, as_json: bool) -> None:
    """Print the selected letters, newest last: a table, or one JSON object a line."""
    found = find(config, selection)
    letters = found.letters[-limit:] if limit else found.letters
    if as_json:
        for letter in letters:
            click.echo(orjson.dumps(_as_json(letter, letter.kept_at in found.replayed)))
        return
    if letters:
        print_table(letters, found.replayed)
    click.echo(_summary(letters, found))


def show_dead_letter(config: WorkerConfig, place: MessageRef) -> None:
    """Print one letter in full."""
    found = find(config, Selection(places=[place]))
    if not found.letters:
        raise click.ClickException(
            f"no dead letter has the place {place}; list them: python -m streams deadletters list"
        )
    letter = found.letters[-1]
    message = letter.message
    kind, body = _readable(message.value)
    if letter.omitted_bytes:
        kind = f"left out: key and value have {letter.omitted_bytes:,} bytes"
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


def print_table(letters: Sequence[StoredDeadLetter], replayed: Collection[MessageRef]) -> None:
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
        message, omitted = letter.message, letter.omitted_bytes
        row = (
            _time(letter),
            letter.reason,
            str(letter.source),
            _cut(_short(message.key), _KEY_SHOWN),
            f"{omitted:,}" if omitted else "null" if message.value is None else f"{len(message.value):,}",
            str(letter.attempt),
            "yes" if letter.kept_at in replayed else "",
            _cut(letter.error, _ERROR_SHOWN),
        )
        table.add_row(*(Text(_plain(cell)) for cell in row))  # Text: what strangers wrote is no markup
    console.print(table)


def _summary(letters: Sequence[StoredDeadLetter], found: Found) -> str:
    by_reason = Counter(letter.reason for letter in letters).most_common()
    parts = [", ".join(f"{count:,} {reason}" for reason, count in by_reason)] if letters else []
    if replayed := sum(letter.kept_at in found.replayed for letter in letters):
        parts.append(f"{replayed:,} replayed")
    if found.foreign:
        parts.append(f"{found.foreign:,} messages on the topic are no dead letters")
    return "; ".join([f"{count_text(letters)}" + (f": {parts[0]}" if letters else ""), *parts[bool(letters) :]])


def count_text(letters: Sequence[StoredDeadLetter]) -> str:
    return f"{len(letters):,} dead letter{'' if len(letters) == 1 else 's'}"


def _as_json(letter: StoredDeadLetter, replayed: bool) -> dict[str, object]:
    message = letter.message
    return {
        "place": str(letter.source),
        "kept_at": str(letter.kept_at),
        "time": letter.time,
        "reason": letter.reason,
        "error": letter.error,
        "attempt": letter.attempt,
        "omitted": letter.omitted_bytes,
        "replayed": replayed,
        "key": json_value(message.key),
        "value": json_value(message.value),
        "headers": [[name, json_value(value)] for name, value in message.headers],
    }


def _time(letter: StoredDeadLetter) -> str:
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
