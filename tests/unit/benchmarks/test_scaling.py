"""Memory by the number of users and items."""

from __future__ import annotations

import pytest

from benchmarks.scaling import Point, slope


def test_a_slope_is_that_from_the_smallest_to_the_largest_number() -> None:
    points = {
        ("users", users): Point(1.0, 0.0, 0.0, worker_memory=300 * 2**20, milvus_memory=0, disk=users * 2**20 // 10_000)
        for users in (100_000, 500_000, 20_000)
    } | {("items", 7): Point(1.0, 0.0, 0.0, 0, 0, 0)}
    disk = slope("users", "histories on disk", points)
    assert disk.value == pytest.approx(100)
    assert disk.unit == "MiB / million users"
    assert slope("users", "memory of a worker", points).value == 0
