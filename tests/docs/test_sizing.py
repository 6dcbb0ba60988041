"""The tables about Milvus in configs/sizing.md follow from its own unit costs."""

from __future__ import annotations

import re
from math import ceil, log10

from tests.docs.documents import ROOT

PAGE = (ROOT / "configs" / "sizing.md").read_text(encoding="utf-8")
#: Users per second at the peak of a billion clicks a day.
PEAK_USERS = 35_000
#: Cores of a node.
NODE_CORES = 16


def _numbers(pattern: str) -> tuple[float, ...]:
    (match,) = re.finditer(pattern, PAGE)
    return tuple(float(number.replace(",", "")) for number in match.groups())


(SECONDS_PER_1_000_USERS,) = _numbers(r"Milvus, for 1,000 users \(4,000 queries\) \| ([\d.]+) s")  # with 368,000 items
(SECONDS_20_000_ITEMS,) = _numbers(r"\| base \| [\d,]+ \| ([\d.]+) \|")  # with 20,000 items, in another run
(SECONDS_368_000_ITEMS,) = _numbers(r"\| 100,000 / 368,000 items \| .*? \| [\d.]+ / ([\d.]+) \|")
GROWTH = (SECONDS_368_000_ITEMS - SECONDS_20_000_ITEMS) / SECONDS_368_000_ITEMS / log10(368_000 / 20_000)


def _seconds(items: float) -> float:
    """Return Milvus' seconds for 1,000 users in a segment of this many items."""
    return SECONDS_PER_1_000_USERS * (1 + GROWTH * log10(items / 368_000))


def test_the_growth_with_the_items() -> None:
    assert _numbers(r"for each factor of ten \((0\.\d+)\)") == (round(GROWTH, 2),)
    assert f"{SECONDS_PER_1_000_USERS:.2f} ms + {SECONDS_PER_1_000_USERS * GROWTH:.2f} ms × log10" in PAGE


def test_the_steps_for_a_hundred_million_items() -> None:
    number = r"([\d,.]+)"
    for row, segments, items, share in [
        ("as shipped", 25, 4e6, 1.0),
        ("larger segments", 8, 12.5e6, 1.0),
        ("fewer queries", 8, 12.5e6, 0.5),
        ("a smaller catalogue", 1, 10e6, 0.5),
    ]:
        seconds = segments * _seconds(items) * share
        cores = 2 * PEAK_USERS / 1000 * seconds
        shown = _numbers(rf"\| {row}: .*? = {number} \| {number} \| (\d+)\D.*\|")
        assert abs(shown[0] - seconds) <= 0.05, row
        assert shown[1:] == (
            round(cores),
            ceil(shown[1] / NODE_CORES / 2) * 2 if segments > 1 else ceil(cores / NODE_CORES),
        ), row


def test_the_cores_of_the_three_sizes() -> None:
    sizes = ((100, 1e5, 1), (1_000, 1e6, 1), (10_000, 10e6, 3))
    cores = [2 * users / 1000 * segments * _seconds(items / segments) for users, items, segments in sizes]
    shown = " | ".join(f"{max(1, round(c))} ({segments})" for c, (_, _, segments) in zip(cores, sizes, strict=True))
    assert f"| cores for Milvus (segments) | {shown} |" in PAGE
