"""The one error of this package."""

from __future__ import annotations

from pathlib import Path

from configs.errors import MindstreamError

#: Lines of a server's log that an error shows: enough for a stack trace's cause, few enough to read.
TAIL_LINES = 15
#: Bytes read from a log's end to find these lines.
_TAIL_BYTES = 16_384


class EmbeddedError(MindstreamError):
    """A server could not be started, found or stopped. The message says what to do next."""


class CancelledError(EmbeddedError):
    """The start was given up because another server of the same stack failed, or the user interrupted it."""


def with_log(message: str, log: Path) -> EmbeddedError:
    """An error that shows the end of the server's log file and where the rest of it is."""
    return EmbeddedError(f"{message}\nThe log is {log}; it ends:\n{tail(log) or '  (empty)'}")


def tail(log: Path) -> str:
    """The last lines of `log`, indented; empty if there is no such file."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return ""
    return "\n".join(f"  {line}" for line in lines[-TAIL_LINES:])
