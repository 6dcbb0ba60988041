"""The table of exit statuses."""

from __future__ import annotations

import re

import pytest

import configs.errors

STATUSES = [name for name in vars(configs.errors) if name.startswith("EXIT_")]


@pytest.mark.parametrize("name", STATUSES)
def test_the_table_has_every_exit_status(name: str) -> None:
    assert re.search(rf"^{getattr(configs.errors, name)}  ", configs.errors.__doc__ or "", re.MULTILINE)
