"""Names and categories of items, for people: read from a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from model.data.files import DataError, open_text, parse_int64


class ItemName(NamedTuple):
    """Name and category of an item."""

    name: str
    category: str = ""


ItemNames = Mapping[int, ItemName]


def read_names(path: Path, setting: str) -> ItemNames:
    """Read name and category by item id, from CSV lines `item_id,name[,category]`; the first line may be a header.

    Args:
        path: the file, in UTF-8; .gz and .xz, too.
        setting: the option or key that names the file, for error messages.

    Raises:
        DataError: the file cannot be read, or a line has another format.
    """
    names: dict[int, ItemName] = {}
    with open_text(path) as file:
        lines = csv.reader(file, strict=True)
        try:
            for line, fields in enumerate(lines, 1):
                item = parse_int64(fields[0]) if fields else None
                if item is not None and len(fields) in (2, 3):
                    names[item] = ItemName(*map(_printable, fields[1:]))
                elif fields and (line > 1 or item is not None):
                    raise csv.Error(f"expected item_id,name or item_id,name,category, found {len(fields)} fields")
        except csv.Error as error:
            raise DataError(f"{path}, line {lines.line_num}: {error} ({setting})") from None
    return names


def _printable(text: str) -> str:
    """Put text on one line without control characters: untrusted text must not be able to control the terminal."""
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())
