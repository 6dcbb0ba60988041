"""Memory by the number of users and items."""

from __future__ import annotations

import pytest

from benchmarks.scaling import Point, slope


def test_memory_grows_from_the_fewest_to_the_most_whatever_was_measured_first() -> None:
    points = {
        ("users", users): Point(1.0, 0.0, 0.0, worker_memory=300 * 2**20, milvus_memory=0, disk=users * 2**20 // 10_000)
        for users in (100_000, 500_000, 20_000)
    } | {("items", 7): Point(1.0, 0.0, 0.0, 0, 0, 0)}
    disk = slope("users", "histories on disk", points)
    assert disk.value == pytest.approx(100)
    assert disk.unit == "MiB / million users"
    assert slope("users", "memory of a worker", points).value == 0
