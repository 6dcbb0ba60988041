"""The tree of errors and the table of exit statuses in the docstring of `configs.errors`."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

import configs.errors
from configs.errors import MindstreamError
from embedded.__main__ import NOTHING_RUNS

DOCSTRING = configs.errors.__doc__ or ""
TABLE = {int(status): meaning for status, meaning in re.findall(r"^(\d+)  +(\S.*)$", DOCSTRING, re.MULTILINE)}
CONSTANTS = {name: value for name, value in vars(configs.errors).items() if name.startswith("EXIT_")}
ROOT = Path(__file__).parents[3]


def test_the_table_has_every_exit_status_and_no_other() -> None:
    by_signal = {128 + 15}
    assert TABLE.keys() == {0, 2, NOTHING_RUNS, *CONSTANTS.values()} | by_signal


def test_the_tree_has_the_status_of_every_class() -> None:
    tree = re.findall(r"(?:── |^)(\w+Error) .*?  (\d+)  ", DOCSTRING, re.MULTILINE)
    assert {name: int(status) for name, status in tree} == {
        name: value.exit_status
        for name, value in vars(configs.errors).items()
        if isinstance(value, type) and issubclass(value, MindstreamError) and value is not MindstreamError
    }


def _modules_with_errors() -> list[str]:
    rooms = ("model", "streams", "producers", "embedded", "benchmarks")
    files = [path for room in rooms for path in (ROOT / room).rglob("*.py")]
    found = [path for path in files if re.search(r"^class \w+\(\w*(Error|Exception)\)", path.read_text(), re.MULTILINE)]
    return sorted(".".join(path.relative_to(ROOT).with_suffix("").parts) for path in found)


@pytest.mark.parametrize("module", _modules_with_errors())
def test_every_error_of_the_project_has_a_status_of_the_table(module: str) -> None:
    classes = [value for value in vars(import_module(module)).values() if isinstance(value, type)]
    errors = [value for value in classes if value.__module__ == module and issubclass(value, Exception)]
    for error in errors:
        assert issubclass(error, MindstreamError), f"{error} is not a MindstreamError"
        assert error.exit_status in TABLE
