"""Results as text and JSON, with machine, commit and command."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from benchmarks.harness.report import Figure, Provenance, Result, commit, cpu_model, percentiles, to_json

RUN = Provenance(
    cpu="A processor",
    cores=2,
    memory=24 * 2**30,
    system="Linux x86_64",
    python="3.11.7",
    commit="0123456789ab dirty",
    command="python -m benchmarks encoder",
    began="2030-01-01T00:00:00+00:00",
)
RESULT = Result("encoder", "Kafka", {"users": 64, "rounds": 2000}, [Figure("encoding", 612.4, "µs")], 0.51, 1.25)


def test_the_text_names_machine_commit_and_command() -> None:
    text = RUN.to_text()
    for part in ("A processor", "2 cores", "24.0 GiB", "0123456789ab dirty", "python -m benchmarks encoder"):
        assert part in text


def test_a_result_names_servers_sizes_and_load() -> None:
    head, line = RESULT.to_text().splitlines()
    assert head == "encoder on Kafka (users 64, rounds 2,000; load average 0.5 → 1.2)"
    assert line.split() == ["encoding", "612", "µs"]


def test_json_holds_everything() -> None:
    found = json.loads(to_json(RUN, [RESULT]))
    assert found["commit"] == RUN.commit
    assert found["memory"] == RUN.memory
    assert found["results"][0]["sizes"] == {"users": 64, "rounds": 2000}
    assert found["results"][0]["figures"] == [{"name": "encoding", "value": 612.4, "unit": "µs"}]


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (3, "3"), (3.14159, "3.14"), (99.44, "99.4"), (12345.6, "12,346"), (0.0123, "0.0123")]
)
def test_figures_have_three_digits(value: float, text: str) -> None:
    assert Figure("x", value, "ms").to_text().split() == ["x", text, "ms"]


def test_percentiles_are_in_milliseconds() -> None:
    figures = percentiles("wait", [i / 1000 for i in range(101)], (50, 99, 100))
    assert [f.name for f in figures] == ["wait, p50", "wait, p99", "wait, max"]
    assert [f.value for f in figures] == pytest.approx([50, 99, 100])
    assert {f.unit for f in figures} == {"ms"}
    with pytest.raises(ValueError, match="no values"):
        percentiles("wait", [], (50,))


def test_the_commit_tells_whether_the_checkout_has_changes(tmp_path: Path) -> None:
    assert commit(tmp_path / "nowhere") == "unknown"

    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init")
    (tmp_path / "file").write_text("1")
    git("add", ".")
    git("commit", "-m", "one")
    clean = commit(tmp_path)
    assert len(clean) == 12
    (tmp_path / "file").write_text("2")
    assert commit(tmp_path) == f"{clean} dirty"


def test_this_machine_is_named() -> None:
    run = Provenance.capture("python -m benchmarks")
    assert run.cores >= 1
    assert run.memory > 2**20
    assert cpu_model()
