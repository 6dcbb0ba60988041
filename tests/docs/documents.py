"""Parse the documents: command lines, code spans, links, headings."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: Folders whose pages are checked.
FOLDERS = (
    "",
    "model",
    "model/fusion",
    "configs",
    "configs/observability",
    "streams",
    "streams/messages",
    "streams/service",
    "producers",
    "benchmarks",
    "tests/chaos",
)

_FENCE = re.compile(r"^\s*(```+|~~~+)")
_SPAN = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)
_LINK = re.compile(r"!?\[[^\]]*\]\(\s*<?([^)\s>]+)>?[^)]*\)")
_HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$")
_ASSIGNMENT = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*=")
_OPERATORS = set("();<>|&")
#: A command inside another one: eval "$(python -m embedded up)".
_SUBSTITUTION = re.compile(r'"?\$\(([^()]*)\)"?')
#: Fenced blocks in these languages, or in none, hold command lines.
_SHELLS = {"", "sh", "bash", "shell", "console", "text"}


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a document, split into words."""

    document: str
    line: int
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.document}:{self.line}: {shlex.join(self.words)}"


def documents() -> list[Path]:
    """Return the pages about the present state: all but CHANGELOG.md, which describes the past."""
    return sorted({path for room in FOLDERS for path in (ROOT / room).glob("*.md")} - {ROOT / "CHANGELOG.md"})


def commands(path: Path) -> list[Command]:
    """Return the `python -m …` and `make …` commands in fenced blocks and in code spans."""
    found = []
    name = str(path.relative_to(ROOT))
    prose, blocks = _parts(path)
    for number, language, line in blocks:
        if language in _SHELLS:
            found += [Command(name, number, words) for words in split(line)]
    for number, line in prose:
        for span in _SPAN.finditer(line):
            found += [Command(name, number, words) for words in split(span[2])]
    return [command for command in found if command.words[0] == "make" or module_of(command) is not None]


def module_of(command: Command) -> str | None:
    """Return MODULE of `python -m MODULE`, whatever the path of python is; None for other commands."""
    words = command.words
    is_python = re.fullmatch(r"(.*/)?python[0-9.]*", words[0]) is not None
    return words[2] if is_python and len(words) > 2 and words[1] == "-m" else None


def split(line: str) -> list[tuple[str, ...]]:
    """Return the commands of a shell line, without comments, prompts, assignments and redirections."""
    line = _SUBSTITUTION.sub(r" ; \1 ; ", line.strip().removeprefix("$ "))
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = "#"
    found: list[list[str]] = [[]]
    try:
        for word in lexer:
            if set(word) <= _OPERATORS:
                found.append([])
            elif found[-1] or not _ASSIGNMENT.match(word):
                found[-1].append(word)
    except ValueError:  # an apostrophe: prose, not a shell line
        return []
    return [tuple(words) for words in found if words]


def spans(path: Path) -> list[str]:
    """Return everything between backticks, outside of fenced blocks."""
    prose, _ = _parts(path)
    return [span[2] for span in _SPAN.finditer("\n".join(line for _, line in prose))]


def links(path: Path) -> list[str]:
    """Return the targets of links, outside of fenced blocks and code spans."""
    prose, _ = _parts(path)
    return _LINK.findall(_SPAN.sub("", "\n".join(line for _, line in prose)))


def anchors(path: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them: letters, digits, hyphens."""
    prose, _ = _parts(path)
    found: set[str] = set()
    for _, line in prose:
        if heading := _HEADING.match(line):
            text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1]).replace("`", "").replace("*", "").lower()
            slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
            found.add(slug if slug not in found else f"{slug}-1")
    return found


@cache
def _parts(path: Path) -> tuple[list[tuple[int, str]], list[tuple[int, str, str]]]:
    """Return prose as (line number, line), and fenced blocks as (line number, language, line with continuations)."""
    prose: list[tuple[int, str]] = []
    blocks: list[tuple[int, str, str]] = []
    fence, language, begun = "", "", ""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        mark = _FENCE.match(line)
        if not fence and mark:
            fence, language = mark[1], line.strip().strip("`~").strip().split(" ")[0]
        elif fence and mark and mark[1].startswith(fence):
            fence = ""
        elif not fence:
            prose.append((number, line))
        elif line.endswith("\\"):
            begun += line[:-1]
        else:
            blocks.append((number, language, begun + line))
            begun = ""
    return prose, blocks
