"""The values of item ids and times."""

from __future__ import annotations

import pytest

from model.data.limits import MAX_ITEM_ID, MAX_SECONDS, MIN_ITEM_ID, MIN_SECONDS, fault_of_item_id, fault_of_seconds


@pytest.mark.parametrize("item", [MIN_ITEM_ID, -1, 1, MAX_ITEM_ID])
def test_item_ids_within_the_limits_have_no_fault(item: int) -> None:
    assert fault_of_item_id(item) is None


@pytest.mark.parametrize(
    ("item", "fault"), [(0, "padding"), (-(2**63), "pandas"), (2**63 - 1, "range"), (2**64, "range")]
)
def test_other_item_ids_have_a_fault(item: int, fault: str) -> None:
    assert fault in str(fault_of_item_id(item))


@pytest.mark.parametrize("time", [MIN_SECONDS, 1_404_172_800.25, MAX_SECONDS - 1])
def test_seconds_have_no_fault(time: float) -> None:
    assert fault_of_seconds(time) is None


@pytest.mark.parametrize(
    ("time", "fault"),
    [
        (-1, "negative"),
        (MIN_SECONDS - 1, "a rank"),
        (1_404_172_800_000, "in milliseconds; .* divide by 1000$"),
        (1_404_172_800_000.5, "in milliseconds"),
        (1_404_172_800_000_000, "in microseconds; .* divide by 1000000$"),
        (1_404_172_800_000_000_000, "in nanoseconds; .* divide by 1000000000$"),
        (MAX_SECONDS, "after the year 2286"),
        (10.0**30, "after the year 2286"),
    ],
)
def test_other_numbers_have_a_fault_that_names_the_remedy(time: float, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        raise ValueError(fault_of_seconds(time))
