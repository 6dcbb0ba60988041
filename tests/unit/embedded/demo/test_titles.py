"""Titles of generated items."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from embedded.demo.titles import generated_names, write_names
from model.explanation.names import read_names


def test_every_item_has_a_title_of_its_own_and_its_tastes_category() -> None:
    tastes = np.concatenate([[-1], np.repeat(np.arange(45), 250)])
    names = generated_names(tastes)
    assert names.keys() == set(range(1, len(tastes)))
    assert len(set(names.values())) == len(names)
    categories = [names[1 + 250 * taste].category for taste in range(45)]
    assert len(set(categories)) == 45, "more tastes than shelves are numbered"
    assert all(names[item].category == categories[tastes[item]] for item in names)
    assert all(name.name[0].isupper() or name.name[0].isdigit() for name in names.values())


def test_the_service_reads_what_is_written(tmp_path: Path) -> None:
    names = generated_names(np.array([-1, 0, 1, 1]))
    write_names(names, tmp_path / "titles.csv")
    assert read_names(tmp_path / "titles.csv", "service.titles") == names
