"""Names of items, read from CSV."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from model.data.files import DataError
from model.explanation.names import ItemName, read_names


def test_names_are_read_from_any_valid_csv(tmp_path: Path) -> None:
    path = tmp_path / "names.csv.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write('item_id,name,category\n7,"Ægir, the ""sea""\n\x1b[31mgod",Myths\n\n-8,Plain\n')
    assert read_names(path, "--names") == {7: ItemName('Ægir, the "sea" [31mgod', "Myths"), -8: ItemName("Plain")}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1\n", "line 1: expected item_id,name"),
        ("1,a\nb,c\n", "line 2: expected item_id,name"),
        ("1,a,b,c\n", "found 4 fields"),
        ('1,"a\n', "line 1: unexpected end"),
    ],
)
def test_names_that_cannot_be_read_are_refused(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "names.csv").write_text(text)
    with pytest.raises(DataError, match=f"{expected}.*service.titles"):
        read_names(tmp_path / "names.csv", "service.titles")
