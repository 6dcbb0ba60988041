"""Counting malformed lines, and what is said about them."""

from __future__ import annotations

import pytest

from model.data.files import DataError
from model.data.malformed import SETTING, MalformedLines


def test_without_skipping_the_first_line_ends_the_program_with_the_advice_that_it_has() -> None:
    with pytest.raises(DataError, match=r"^c\.csv, line 3: bad \(fix the line\)$"):
        MalformedLines().skip("c.csv", 3, "bad")
    with pytest.raises(DataError, match=r"fix the line, or leave such lines out: --set data\.malformed=skip"):
        MalformedLines("fail", SETTING).skip("c.csv", 3, "bad")


def test_the_report_names_each_file_and_its_first_malformed_line() -> None:
    malformed = MalformedLines("skip")
    for path, lines in (("a", 100), ("b", 5), ("c", 1)):
        malformed.add_lines(path, lines)
    malformed.skip("a", 7, "second")
    malformed.skip("a", 5, "first", 2)
    malformed.skip("c", 1, "only")
    malformed.check()
    assert (malformed.total, [one.path for one in malformed.skipped]) == (4, ["a", "c"])
    assert str(malformed.skipped[0]) == "a: 3 of 100 lines skipped; the first is line 5: first"
    assert malformed.figures()[0] == {"file": "a", "lines": 100, "skipped": 3, "first": 5, "reason": "first"}


def test_a_large_share_is_a_warning_and_all_lines_are_an_error() -> None:
    malformed = MalformedLines("skip")
    malformed.add_lines("a", 9)
    malformed.skip("a", 1, "bad", 3)
    assert str(malformed.skipped[0]).startswith("WARNING: 33% of a file is left out. a: 3 of 9 lines skipped")
    malformed.skip("a", 2, "bad", 6)
    with pytest.raises(DataError, match=r"a: no line is a click: .*9 of 9 lines skipped; the first is line 1: bad"):
        malformed.check()
