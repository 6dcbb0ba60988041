"""Messages of what comes over HTTP.

Clicks and items go to their topics only; the item agent writes the collection. What is accepted here was decoded by the
stream's own codec, and is sent to the partition that its key belongs to, so that it never becomes a dead letter.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import orjson

from configs.errors import MindstreamError
from model.data.limits import fault_of_item_id
from model.serving.norms import Norms, normalised
from streams.errors import BadMessage
from streams.messages.clicks import Click, decode_click, encode_click, user_key
from streams.messages.items import Item
from streams.partitioning import KeyPartitions
from streams.ports import Output
from streams.processing.item_messages import item_message, removal_messages

#: Bytes that Kafka's format adds to key and value, at most: librdkafka counts them, too.
_OVERHEAD_BYTES = 512


class OtherModelsVector(MindstreamError):  # noqa: N818 - what was found
    """An item's vector was computed by another model than the one that is served."""


class ClickMessages:
    """Makes messages of clicks.

    Args:
        topic: name of the topic.
        partitions: its partitions.
        max_bytes: `topics.max_message_bytes`.
    """

    def __init__(self, topic: str, partitions: KeyPartitions, max_bytes: int) -> None:
        self._topic = topic
        self._partitions = partitions
        self._max_bytes = max_bytes

    def click(self, click: Click) -> Output:
        """Return the message of a click.

        Raises:
            BadMessage: the click worker would make a dead letter of it.
        """
        try:
            key, value = user_key(click.user_id), encode_click(click)
        except (orjson.JSONEncodeError, UnicodeEncodeError) as error:  # half of a surrogate pair, more than 64 bits
            raise BadMessage("out_of_range", f"the click cannot be written as JSON in UTF-8: {error}") from None
        decode_click(key, value)
        return _output(self._topic, self._partitions, self._max_bytes, key, value)


class ItemMessages:
    """Makes messages of the items of one model.

    Args:
        topic: name of the topic.
        partitions: its partitions.
        max_bytes: `topics.max_message_bytes`.
        model_version: the model.
        dim: dimension of its vectors.
        norms: the norms that they may have.
    """

    def __init__(
        self, topic: str, partitions: KeyPartitions, max_bytes: int, model_version: str, dim: int, norms: Norms
    ) -> None:
        self.model_version = model_version
        self._topic = topic
        self._partitions = partitions
        self._max_bytes = max_bytes
        self._dim = dim
        self._norms = norms

    def item(
        self,
        item_id: int,
        embedding: Sequence[float],
        *,
        category: str | None = None,
        title: str | None = None,
        model_version: str | None = None,
        normalise: bool = False,
    ) -> tuple[Item, Output]:
        """Return an item of the model, and its message.

        Args:
            item_id: its id.
            embedding: its vector.
            category, title: texts that describe it.
            model_version: the model that has computed the vector; None = this one.
            normalise: divide the vector by its norm.

        Raises:
            BadMessage: the item worker would make a dead letter of it.
            OtherModelsVector: another model has computed the vector.
        """
        _check_id(item_id)
        if model_version not in (None, self.model_version):
            raise OtherModelsVector(
                f"the embedding is of model {model_version}, this service has {self.model_version}: vectors of "
                "different models cannot be compared"
            )
        with np.errstate(over="ignore"):  # the codec refuses infinities
            vector = np.asarray(embedding, dtype=np.float64).astype(np.float32)
        if normalise:
            if not self._norms.unit:
                raise BadMessage(
                    "wrong_norm",
                    f"model {self.model_version} does not normalise: the norms of its vectors matter; leave "
                    "normalise out",
                )
            vector = normalised(vector)
        item = Item(item_id, vector, self.model_version, category, title)
        try:
            key, value = item_message(item, self._dim, self._norms)
        except orjson.JSONEncodeError as error:  # half of a surrogate pair
            raise BadMessage("out_of_range", f"the item cannot be written as JSON in UTF-8: {error}") from None
        return item, _output(self._topic, self._partitions, self._max_bytes, key, value)

    def removal(self, item_id: int) -> Output:
        """Return the message that removes an item.

        Raises:
            BadMessage: no item can have this id.
        """
        _check_id(item_id)
        ((key, value),) = removal_messages([item_id])
        return _output(self._topic, self._partitions, self._max_bytes, key, value)


def _check_id(item_id: int) -> None:
    """Raise BadMessage if no item can have this id; the codec would name the key of the message."""
    if fault := fault_of_item_id(item_id):
        raise BadMessage("out_of_range", f"item_id {fault}")


def _output(topic: str, partitions: KeyPartitions, max_bytes: int, key: bytes, value: bytes | None) -> Output:
    size = len(key) + len(value or b"") + _OVERHEAD_BYTES
    if size > max_bytes:
        raise BadMessage("too_large", f"the message has {size} bytes, {topic} accepts {max_bytes}")
    return Output(topic, key, value, partitions.target(key))
