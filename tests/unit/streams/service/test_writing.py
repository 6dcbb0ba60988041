"""Messages of what comes over HTTP: the stream accepts them, or they are refused with its own reason."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.serving.norms import Norms
from streams.errors import BadMessage, Reason
from streams.messages.clicks import Click, decode_click
from streams.messages.items import Item, ItemRemoval
from streams.partitioning import KeyPartitions
from streams.ports import Message, Output
from streams.processing.item_decoder import ItemDecoder
from streams.service.writing import ClickMessages, ItemMessages

KEYS = KeyPartitions("murmur2", 4)
UNIT = Norms(0.99, 1.01, unit=True)
CLICKS = ClickMessages("clicks", KEYS, 65_536)
ITEMS = ItemMessages("items", KEYS, 65_536, "m1", 2, UNIT)
TIMES = st.one_of(st.floats(), st.integers(-(10**13), 10**13))
TEXTS = st.text(st.characters(exclude_categories=()), max_size=300)


@given(st.one_of(st.integers(), TEXTS), st.integers(-3, 2**64), TIMES, st.one_of(st.none(), TEXTS))
def test_a_click_is_refused_or_decoded_by_the_stream(user: int | str, item: int, ts: float, event: str | None) -> None:
    click = Click(user, item, ts, event)
    try:
        output = CLICKS.click(click)
    except BadMessage:
        return
    assert decode_click(output.key, output.value) == click
    assert (output.topic, output.partition) == ("clicks", KEYS.target(str(user).encode()))


@pytest.mark.parametrize(
    ("click", "reason", "text"),
    [
        (Click(1, 0, 1.5e9), "out_of_range", "padding"),
        (Click(1, 5, 1.5e12), "out_of_range", "divide by 1000"),
        (Click("", 5, 1.5e9), "out_of_range", "user_id"),
        (Click("\ud800", 5, 1.5e9), "out_of_range", "UTF-8"),
        (Click(1, 5, 1.5e9, "x" * 65_536), "too_large", "65536"),
        (Click(1, 5, 1.5e9, "x" * 65_100), "too_large", "clicks accepts 65536"),
    ],
)
def test_a_click_is_refused_with_the_reason_of_its_dead_letter(click: Click, reason: Reason, text: str) -> None:
    with pytest.raises(BadMessage, match=text) as caught:
        CLICKS.click(click)
    assert caught.value.reason == reason


def _decoded(output: Output) -> Item | ItemRemoval | None:
    decoder = ItemDecoder("m1", 2, UNIT, KEYS)
    assert output.partition is not None
    return decoder.decode(Message("items", output.partition, 0, output.key, output.value))


@given(st.integers(-3, 2**64), st.lists(st.floats(), max_size=3), st.one_of(st.none(), TEXTS), st.booleans())
def test_an_item_is_refused_or_decoded_by_the_stream(
    item_id: int, embedding: list[float], title: str | None, normalise: bool
) -> None:
    try:
        item, output = ITEMS.item(item_id, embedding, title=title, normalise=normalise)
    except BadMessage:
        return
    decoded = _decoded(output)
    assert isinstance(decoded, Item)
    np.testing.assert_array_equal(decoded.embedding, item.embedding)
    assert (decoded.item_id, decoded.title, decoded.model_version) == (item_id, title, "m1")


def test_a_vector_is_divided_by_its_norm_only_if_wanted_and_allowed() -> None:
    with pytest.raises(BadMessage, match="norm 5"):
        ITEMS.item(7, [3, 4])
    item, _ = ITEMS.item(7, [3, 4], normalise=True)
    np.testing.assert_allclose(item.embedding, [0.6, 0.8])
    free = ItemMessages("items", KEYS, 65_536, "m1", 2, Norms(0, 10, unit=False))
    assert free.item(7, [3, 4])[0].embedding.tolist() == [3, 4]
    with pytest.raises(BadMessage, match="leave normalise out"):
        free.item(7, [3, 4], normalise=True)


def test_a_removal_is_a_tombstone_with_a_valid_id() -> None:
    output = ITEMS.removal(7)
    assert output.value is None
    assert _decoded(output) == ItemRemoval(7)
    with pytest.raises(BadMessage, match="padding"):
        ITEMS.removal(0)


def test_an_item_that_the_topic_cannot_hold_is_refused() -> None:
    with pytest.raises(BadMessage, match="items accepts 65536"):
        ITEMS.item(7, [0.6, 0.8], title="x" * 65_100)
