"""The values that item ids and times may have, the same in files and in messages."""

from __future__ import annotations

#: Item ids are int64 without 0, which is padding, and without the two extremes: pandas writes the lowest one for a
#: missing value, Milvus cannot parse it in a filter, and does not find the highest one by id.
MIN_ITEM_ID, MAX_ITEM_ID = -(2**63) + 1, 2**63 - 2

#: Times are seconds since 1970, from 1973 up to, but not including, 2286. Ranks are below, milliseconds of any time
#: after April 1970 are above.
MIN_SECONDS, MAX_SECONDS = 10**8, 10**10
