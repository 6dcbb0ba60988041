"""Print dead letters: as a table, in full, or as JSON."""

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

from configs.errors import InputError
from configs.schema import WorkerConfig
from streams.messages.dead_letters import MessageRef, StoredDeadLetter, json_value
from streams.tools.dead_letters import FoundDeadLetters, Selection, find_dead_letters

#: Most characters of keys and errors in the table; `show` prints all of them.
_MAX_KEY_CHARACTERS, _MAX_ERROR_CHARACTERS = 24, 60
#: Characters per line when the output is not a terminal: enough that nothing is cut.
_LINE_WIDTH = 320


def list_dead_letters(config: WorkerConfig, selection: Selection, *, limit: int | None, as_json: bool) -> None:
    """Print the selected dead letters, newest last: a table, or one JSON object per line.

    `limit` keeps the newest ones. Raises the same errors as `find_dead_letters`.
    """
    found = find_dead_letters(config, selection)
    dead_letters = found.dead_letters[-limit:] if limit else found.dead_letters
    if as_json:
        for dead_letter in dead_letters:
            click.echo(orjson.dumps(_as_json(dead_letter, dead_letter.kept_at in found.replayed)))
        return
    if dead_letters:
        print_table(dead_letters, found.replayed)
    click.echo(_summary(dead_letters, found))


def show_dead_letter(config: WorkerConfig, ref: MessageRef) -> None:
    """Print one dead letter in full.

    Raises:
        InputError: the reference is neither that of a dead letter nor that of a message that has one.
        TransientError, FatalError: as `find_dead_letters`.
    """
    found = find_dead_letters(config, Selection(refs=[ref]))
    if not found.dead_letters:
        raise InputError(
            f"{ref} is neither a dead letter nor a message that has one; list them with: "
            "python -m streams deadletters list"
        )
    dead_letter = found.dead_letters[-1]
    message = dead_letter.message
    kind, body = _readable(message.value)
    if dead_letter.omitted_bytes:
        kind = f"not kept: key and value have {dead_letter.omitted_bytes:,} bytes"
    lines = [
        ("message", str(dead_letter.source)),
        ("kept at", str(dead_letter.kept_at)),
        ("time", _time(dead_letter)),
        ("reason", dead_letter.reason),
        ("error", dead_letter.error),
        ("attempt", str(dead_letter.attempt)),
        ("replayed", "yes" if dead_letter.kept_at in found.replayed else "no"),
        ("key", _short(message.key)),
        *(("header", f"{name}: {_short(value)}") for name, value in message.headers),
        ("value", kind),
    ]
    for name, text in lines:
        click.echo(f"{name:9} {_plain(text)}")
    if body:
        click.echo(f"\n{body}")


def print_table(dead_letters: Sequence[StoredDeadLetter], replayed: Collection[MessageRef]) -> None:
    """Print a table with one line for each dead letter."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_LINE_WIDTH)
    table = Table(box=None, pad_edge=False)
    for title in ("time", "reason", "message", "key"):
        table.add_column(title, no_wrap=True)
    table.add_column("bytes", no_wrap=True, justify="right")
    table.add_column("attempt", no_wrap=True, justify="right")
    table.add_column("replayed", no_wrap=True)
    table.add_column("error", no_wrap=True, overflow="ellipsis")
    for dead_letter in dead_letters:
        message, omitted = dead_letter.message, dead_letter.omitted_bytes
        row = (
            _time(dead_letter),
            dead_letter.reason,
            str(dead_letter.source),
            _cut(_short(message.key), _MAX_KEY_CHARACTERS),
            f"{omitted:,}" if omitted else "null" if message.value is None else f"{len(message.value):,}",
            str(dead_letter.attempt),
            "yes" if dead_letter.kept_at in replayed else "",
            _cut(dead_letter.error, _MAX_ERROR_CHARACTERS),
        )
        table.add_row(*(Text(_plain(cell)) for cell in row))  # as Text: untrusted text must not be read as markup
    console.print(table)


def _summary(dead_letters: Sequence[StoredDeadLetter], found: FoundDeadLetters) -> str:
    parts = [count_text(dead_letters)]
    if dead_letters:
        by_reason = Counter(d.reason for d in dead_letters).most_common()
        parts[0] += ": " + ", ".join(f"{count:,} {reason}" for reason, count in by_reason)
    if replayed := sum(d.kept_at in found.replayed for d in dead_letters):
        parts.append(f"{replayed:,} replayed")
    if found.foreign:
        parts.append(f"{found.foreign:,} messages on the topic are not dead letters")
    return "; ".join(parts)


def count_text(dead_letters: Sequence[StoredDeadLetter]) -> str:
    return f"{len(dead_letters):,} dead letter{'' if len(dead_letters) == 1 else 's'}"


def _as_json(dead_letter: StoredDeadLetter, replayed: bool) -> dict[str, object]:
    message = dead_letter.message
    return {
        "place": str(dead_letter.source),
        "kept_at": str(dead_letter.kept_at),
        "time": dead_letter.time,
        "reason": dead_letter.reason,
        "error": dead_letter.error,
        "attempt": dead_letter.attempt,
        "omitted": dead_letter.omitted_bytes,
        "replayed": replayed,
        "key": json_value(message.key),
        "value": json_value(message.value),
        "headers": [[name, json_value(value)] for name, value in message.headers],
    }


def _time(dead_letter: StoredDeadLetter) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(dead_letter.time))


def _short(value: bytes | None) -> str:
    """Return a key or a header in readable form: text, or hexadecimal digits."""
    if value is None:
        return "null"
    text = json_value(value)
    return text if isinstance(text, str) else f"0x{value.hex()}"


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _plain(text: str, keep: str = "") -> str:
    """Escape control characters: untrusted text must not be able to send terminal control sequences."""
    return "".join(c if c.isprintable() or c in keep else ascii(c)[1:-1] for c in text)


def _readable(value: bytes | None) -> tuple[str, str]:
    """Return the size and kind of a value, and the value in readable form: indented JSON, text, or a hex dump."""
    if value is None:
        return "null", ""
    size = f"{len(value):,} bytes"
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return f"{size}, not UTF-8", "\n".join(_hex_lines(value))
    try:
        orjson.loads(value)  # stricter than json: no NaN, no Infinity
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
