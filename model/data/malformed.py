"""Malformed lines of click files: the first one ends the program, or all are skipped, counted and reported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from configs.text import count
from model.data.files import DataError

Handling = Literal["fail", "skip"]

#: Share of a file's lines from which skipped lines look like a mistake: the file, or a part of it, has another format.
SUSPICIOUS_SHARE = 0.1
#: Advice of programs that have the section `data` of `configs/mind.yaml`.
SETTING = "--set data.{}={}"


@dataclass(slots=True)
class FileLines:
    """Lines of one file.

    Attributes:
        path: of the file, as the user wrote it.
        lines: number of its lines that are not blank; malformed: number of those that were skipped.
        first: number of the first one skipped, from 1; reason: what is wrong with it.
    """

    path: str
    lines: int = 0
    malformed: int = 0
    first: int = 0
    reason: str = ""

    def __str__(self) -> str:
        share = self.malformed / self.lines
        warning = f"WARNING: {share:.0%} of a file is left out. " if SUSPICIOUS_SHARE <= share < 1 else ""
        skipped = f"{self.malformed:,} of {count(self.lines, 'line')} skipped"
        return f"{warning}{self.path}: {skipped}; the first is line {self.first}: {self.reason}"


class MalformedLines:
    """Counts the lines that a program reads and those that it skips, by file.

    Args:
        handling: "fail" = the first malformed line raises; "skip" = such lines are counted.
        advice: how the program's settings of reading are written, such as `SETTING`, with key and value in the
            place of the braces; None = it has none.
    """

    def __init__(self, handling: Handling = "fail", advice: str | None = None) -> None:
        self._handling = handling
        self._advice = advice
        self._files: dict[str, FileLines] = {}

    def option(self, key: str, value: str, before: str = ", or ") -> str:
        """Return the advice to set a key, after the words `before`; nothing if the program does not have the key."""
        return "" if self._advice is None else before + self._advice.format(key, value)

    def add_lines(self, path: object, number: int) -> None:
        """Count lines that are not blank, malformed ones included."""
        self._file(path).lines += number

    def skip(self, path: object, line: int, reason: object, number: int = 1) -> None:
        """Count `number` malformed lines; the first of them is `line`, from 1.

        Raises:
            DataError: malformed lines are not skipped; the message names file, line, reason and remedy.
        """
        if self._handling == "fail":
            remedy = f"fix the line{self.option('malformed', 'skip', ', or leave such lines out: ')}"
            raise DataError(f"{path}, line {line}: {reason} ({remedy})") from None
        file = self._file(path)
        if not file.malformed or line < file.first:
            file.first, file.reason = line, str(reason)
        file.malformed += number

    def check(self) -> None:
        """Raise DataError if lines were read, and every one of them was malformed."""
        if self.total and self.total == sum(file.lines for file in self._files.values()):
            raise DataError("; ".join(f"{one.path}: no line is a click: {one}" for one in self.skipped))

    @property
    def total(self) -> int:
        """Number of lines skipped."""
        return sum(file.malformed for file in self._files.values())

    @property
    def skipped(self) -> list[FileLines]:
        """The files with malformed lines, in the order in which they were read."""
        return [file for file in self._files.values() if file.malformed]

    def figures(self) -> list[dict[str, Any]]:
        """Return the files with malformed lines as JSON values."""
        return [
            {"file": one.path, "lines": one.lines, "skipped": one.malformed, "first": one.first, "reason": one.reason}
            for one in self.skipped
        ]

    def _file(self, path: object) -> FileLines:
        if (file := self._files.get(str(path))) is None:
            file = self._files[str(path)] = FileLines(str(path))
        return file
