"""Hypothesis strategies and the JSON Schemas, shared by the tests of messages."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from model.data.limits import MAX_ITEM_ID, MAX_SECONDS, MIN_ITEM_ID, MIN_SECONDS
from streams.messages.recommendations import Recommendation

SCHEMAS = Path(__file__).parents[4] / "streams" / "messages" / "schemas"

int64 = st.integers(-(2**63), 2**63 - 1)
item_ids = st.integers(MIN_ITEM_ID, MAX_ITEM_ID).filter(bool)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
names = texts.filter(bool)
user_ids = st.one_of(int64, names)
seconds = st.floats(MIN_SECONDS, MAX_SECONDS, exclude_max=True)
finite = st.floats(allow_nan=False, allow_infinity=False)

recommendations = st.lists(
    st.tuples(item_ids, finite, st.integers(0, 63)), max_size=5, unique_by=lambda t: t[0]
).flatmap(
    lambda rows: st.builds(
        Recommendation,
        user_ids,
        st.just([row[0] for row in rows]),
        st.just([row[1] for row in rows]),
        st.just([row[2] for row in rows]),
        names,
        st.integers(1, 1000),
        st.integers(0, 2**31 - 1),
        st.integers(0, 2**63 - 1),
        seconds,
        seconds,
        st.integers(1, 1000),
    )
)


@cache
def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads((SCHEMAS / f"{name}.json").read_text()))
