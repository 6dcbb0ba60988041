"""Items that the page finds."""

from __future__ import annotations

from pathlib import Path

import pytest

from streams.service.catalogue import Catalogue
from tests.unit.streams.service.models import NAMES, small_artifact


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("comets", [1]),
        ("MOON the", [6]),
        ("astronomy", [1, 6]),
        ("1", [1, 10]),
        ("10", [10]),
        ("-3", []),
        ("9" * 25, []),
        ("nothing", []),
        ("<script>", []),
    ],
)
def test_items_are_found_by_id_title_and_category(tmp_path: Path, text: str, expected: list[int]) -> None:
    catalogue = Catalogue(small_artifact(tmp_path / "artifact"), NAMES)
    assert catalogue.search(text, 5) == expected


def test_an_id_is_first_even_if_it_is_clicked_less_than_others_that_contain_it(tmp_path: Path) -> None:
    assert Catalogue(small_artifact(tmp_path / "artifact"), {}).search("0", 5) == [10]
    assert Catalogue(small_artifact(tmp_path / "artifact"), {1: NAMES[1]}).search("6", 1) == [6]


def test_without_a_text_there_are_popular_items_of_all_categories(tmp_path: Path) -> None:
    catalogue = Catalogue(small_artifact(tmp_path / "artifact"), NAMES)
    assert catalogue.search(" ", 4) == [1, 2, 3, 6], "Astronomy, Baking, no category, Astronomy again"
    assert catalogue.popular(2) == [1, 2]


def test_items_are_described_with_ids_that_a_browser_can_read(tmp_path: Path) -> None:
    catalogue = Catalogue(small_artifact(tmp_path / "artifact"), NAMES)
    assert catalogue.describe(1) == {"id": "1", "title": "Comets", "category": "Astronomy"}
    assert catalogue.describe(2**62 + 1) == {"id": str(2**62 + 1), "title": None, "category": None}
    assert catalogue.named and not Catalogue(small_artifact(tmp_path / "other"), {}).named
