"""Words that are not used here, each with the word of the glossary (CONTRIBUTING.md) to write instead."""

from __future__ import annotations

import ast
import io
import re
import token
import tokenize
from functools import cache
from pathlib import Path

from tests.docs.documents import ROOT

#: Pattern → what to write instead. A space in a pattern matches a line break, too. Where a pattern has a group, only
#: matches of the group count.
NOT_USED = {
    r"(?:is|are|was|were|be|been|goes|went) away": "is unavailable, is gone",
    r"mend(?:s|ed|ing)?": "fix, repair",
    r"anew": "again; recreate",
    r"in hand": "current, in progress",
    r"pass(?:es|ed|ing)? over(?! the data)": "skip",
    r"alone": "only",
    r"stand(?:s|ing)? still|stood still": "stall, stalled",
    r"(?:is|are|was|were|be|been) told(?! apart)": "is given, is notified; name what happens",
    r"nobody(?:'s)?": "no one; name who",
    r"whoever": "name who",
    r"farewell": "leaving the consumer group",
    r"last words": "last log lines",
    r"at one stroke": "atomically",
    r"in vain": "without success",
    r"strangers?": "untrusted text, other programs, new users",
    r"for ever": "without end",
    r"so and so many": "a number of",
    r"(?:and|or) the like": "and similar",
    r"lies there": "is there",
    r"come(?:s)? again": "is delivered again, is read again",
    r"(?:is|are) the matter of": "is done by, is detected by",
    r"look(?:s|ed|ing)? after": "maintain, watch",
    r"dead[ -]+letters?|(letters?(?!,? (?:and )?digits))": "dead letter",
    r"laps?": "stopwatch, stage",
    r"outbox(?:es)?": "record producer",
    r"intake": "batching",
    r"settl(?:e|es|ed|ing)": "seal",
    r"tend(?:s|ed|ing)?(?! to)": "maintain",
    r"let(?:s|ting)? go": "release",
    r"tak(?:e|es|en|ing)[ -]over|took over": "acquire, replace",
    r"portions?": "chunk",
    r"unfounded": "without a reason",
}
#: Names that had several meanings, or could not be understood without a docstring, with the name to use instead.
NAMES_NOT_USED = {
    "outbox": "producer",
    "intake": "batcher",
    "lap": "stopwatch",
    "tend": "maintain",
    "let_go": "release",
    "take_over": "acquire",
    "last_words": "deadline",
    "letter": "dead_letter",
    "letters": "dead_letters",
    "portion": "chunk",
    "portions": "chunks",
}
#: Folders with files of users, which git ignores.
IGNORED = {"artifacts", "runs", "data"}
#: Words that a docstring does not begin with: it begins with a verb in the imperative, or a noun.
FRAGMENT = re.compile(
    r"(Of|By|From|To|For|In|Above|Below|Behind|Under|At|With|Without|On|Whether|As|What|Where|Which|How|When|Who)\b"
)
_PATTERNS = {
    re.compile(rf"\b(?:{pattern})\b".replace(" ", r"\s+"), re.IGNORECASE): instead
    for pattern, instead in NOT_USED.items()
}
_TEXT = {token.STRING, token.COMMENT, getattr(token, "FSTRING_MIDDLE", token.STRING)}


@cache
def _files(*suffixes: str) -> list[Path]:
    """Return the project's files with these suffixes, except this one, which has to name the words."""
    top = [path for path in ROOT.iterdir() if not path.name.startswith(".") and path.name not in IGNORED]
    found = [part for path in top for part in ([path] if path.is_file() else path.rglob("*"))]
    return sorted(path for path in found if path.suffix in suffixes and path != Path(__file__))


def _text(path: Path) -> str:
    """Return the text of a file without its code, line by line: what is left out is replaced by null characters."""
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return _comments_and_strings(source)
    if path.name == "CHANGELOG.md":  # code spans there may be names of the past
        return re.sub(r"`[^`\n]*`", "\0", source)
    return re.sub(r"(?m)^(\s*)#+:?", r"\1 ", source) if path.suffix in {".yaml", ".yml"} else source


def _comments_and_strings(source: str) -> str:
    lines = source.splitlines()
    kept = [["\0" if not character.isspace() else character for character in line] for line in lines]
    for part in tokenize.generate_tokens(io.StringIO(source).readline):
        if part.type not in _TEXT:
            continue
        (first, begin), (last, end) = part.start, part.end
        for number in range(first, last + 1):
            line = lines[number - 1]
            left, right = (begin if number == first else 0), (end if number == last else len(line))
            kept[number - 1][left:right] = re.sub(r"^#:?", lambda mark: " " * len(mark[0]), line[left:right])
    return "\n".join("".join(line) for line in kept)


def _words_not_used(path: Path) -> list[str]:
    text = _text(path)
    name = path.relative_to(ROOT)
    return [
        f"{name}:{text.count(chr(10), 0, match.start()) + 1}: {match[0]!r}; write: {instead}"
        for pattern, instead in _PATTERNS.items()
        for match in pattern.finditer(text)
        if not pattern.groups or match[1]
    ]


def _names_not_used(path: Path) -> list[str]:
    source = path.read_text(encoding="utf-8")
    return [
        f"{path.relative_to(ROOT)}:{part.start[0]}: {part.string}; write: {instead}"
        for part in tokenize.generate_tokens(io.StringIO(source).readline)
        if part.type == token.NAME
        for instead in _instead(part.string)
    ]


def _instead(name: str) -> list[str]:
    """Return what to write instead of a name; the names of tests are sentences."""
    if name.startswith("test_"):
        sentence = name.replace("_", " ")
        return [
            instead
            for pattern, instead in _PATTERNS.items()
            for match in pattern.finditer(sentence)
            if not pattern.groups or match[1]
        ]
    return [NAMES_NOT_USED[name.strip("_")]] if name.strip("_") in NAMES_NOT_USED else []


def test_text_uses_one_word_for_a_meaning() -> None:
    found = [line for path in _files(".py", ".md", ".yaml", ".yml") for line in _words_not_used(path)]
    assert not found, "\n" + "\n".join(found)


def test_names_use_one_word_for_a_meaning() -> None:
    found = [line for path in _files(".py") for line in _names_not_used(path)]
    assert not found, "\n" + "\n".join(found)


def test_docstrings_begin_with_a_verb_or_a_noun() -> None:
    found = []
    for path in _files(".py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module):
                docstring = ast.get_docstring(node) or ""
                if FRAGMENT.match(docstring):
                    line = getattr(node, "lineno", 1)
                    found.append(f"{path.relative_to(ROOT)}:{line}: {docstring.splitlines()[0]}")
    assert not found, "\n" + "\n".join(found)


def test_words_are_found_across_lines_and_not_in_code() -> None:
    text = _comments_and_strings('x = 1  # the broker is\n       # away\ntend = "dead\\nletter"\n')
    (away,) = [pattern for pattern in _PATTERNS if pattern.search("is away")]
    (maintain,) = [pattern for pattern in _PATTERNS if pattern.search("tending")]
    assert away.search(text)
    assert not maintain.search(text)
    assert not any(match[1] for match in _letter().finditer("dead letters, a dead-letter topic, letters, digits"))
    assert any(match[1] for match in _letter().finditer("dead letters and letters"))


def _letter() -> re.Pattern[str]:
    (pattern,) = [pattern for pattern in _PATTERNS if pattern.groups]
    return pattern
