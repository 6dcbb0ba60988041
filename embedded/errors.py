"""Errors of this package, which show the end of a log."""

from __future__ import annotations

from pathlib import Path

from configs.errors import MindstreamError

#: Lines of a log that an error shows: enough for the cause of a stack trace.
TAIL_LINES = 15
#: Bytes read from a log's end to find these lines.
_TAIL_BYTES = 16_384


class EmbeddedError(MindstreamError):
    """A server or program could not be started, found or stopped. The message names the remedy."""


class CancelledError(EmbeddedError):
    """A start was cancelled because another server of the stack failed, or the user interrupted it."""


def with_log(message: str, log: Path) -> EmbeddedError:
    """Return an error that shows the end of a log file and its path."""
    return EmbeddedError(f"{message}\nThe end of the log {log}:\n{tail(log) or '  (empty)'}")


def tail(log: Path) -> str:
    """Return the last lines of `log`, indented; empty if there is no such file."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return ""
    return "\n".join(f"  {line}" for line in lines[-TAIL_LINES:])
