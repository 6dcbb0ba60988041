"""The values that item ids and times may have, the same in files and in messages."""

from __future__ import annotations

#: Item ids are int64 without 0, which is padding, and without the two extremes: pandas writes the lowest one for a
#: missing value, Milvus cannot parse it in a filter, and does not find the highest one by id.
MIN_ITEM_ID, MAX_ITEM_ID = -(2**63) + 1, 2**63 - 2

#: Times are seconds since 1970, from 1973 up to, but not including, 2286. Ranks are below, milliseconds of any time
#: after April 1970 are above.
MIN_SECONDS, MAX_SECONDS = 10**8, 10**10

#: Divisors of the units in which times come by mistake.
_UNITS = {10**3: "milliseconds", 10**6: "microseconds", 10**9: "nanoseconds"}


def fault_of_item_id(item: int) -> str | None:
    """Return why no item can have this id, with the remedy; None if one can."""
    if MIN_ITEM_ID <= item <= MAX_ITEM_ID and item != 0:
        return None
    if item == 0:
        return "0 is reserved for padding: number items from 1"
    if item == -(2**63):
        return f"{item} is what pandas writes for a missing value: leave such clicks out"
    return f"{item} is outside the range from {MIN_ITEM_ID} to {MAX_ITEM_ID}"


def unit_of(value: float) -> tuple[str, int] | None:
    """Return the unit in which this number is a time, and its parts in a second, if the unit is not the second."""
    fitting = [(unit, divisor) for divisor, unit in _UNITS.items() if MIN_SECONDS <= value / divisor < MAX_SECONDS]
    return fitting[0] if fitting else None


def fault_of_seconds(value: float) -> str | None:
    """Return why this number is no time in seconds since 1970, with the remedy; None if it is one."""
    if MIN_SECONDS <= value < MAX_SECONDS:
        return None
    if value < 0:
        return f"{value} is negative, so no time in seconds since 1970"
    if value < MIN_SECONDS:
        return f"{value} is no time in seconds since 1970, but a rank: times are at least {MIN_SECONDS}"
    if (unit := unit_of(value)) is not None:
        return f"{value} is in {unit[0]}; times are seconds since 1970: divide by {unit[1]}"
    return f"{value} is no time in seconds since 1970: it would be after the year 2286"
