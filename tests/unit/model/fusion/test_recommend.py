"""`model.fusion.recommend` without Milvus: wrong attributes, and missing files. The rest is in tests/integration."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from configs.errors import EXIT_FAILURE
from model.fusion.recommend import main
from tests.unit.model.fusion.small import saved


@pytest.mark.parametrize(
    ("option", "text", "listed"),
    [
        ("-a", "7", "1 (under 18), 18 (18-24), 25 (25-34)"),
        ("-g", "x", "M (male), F (female)"),
        ("-j", "astronaut", "12 (programmer)"),
        ("-j", "21", "20 (writer)"),
    ],
)
def test_a_wrong_attribute_is_a_usage_error_that_lists_those_allowed(option: str, text: str, listed: str) -> None:
    result = CliRunner().invoke(main, [option, text])
    assert result.exit_code == 2
    assert f"'{option}'" in result.output and listed in result.output


def test_a_missing_model_and_missing_films_are_named(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["--artifact", str(tmp_path / "missing")])
    assert result.exit_code == EXIT_FAILURE
    assert "python -m model.fusion.train" in result.output
    artifact = saved(tmp_path / "fusion")
    result = CliRunner().invoke(main, ["--artifact", str(artifact.path), "--movies", str(tmp_path / "missing.txt")])
    assert result.exit_code == EXIT_FAILURE
    assert "python -m model.fusion.movies -f movies.dat" in result.output
