"""Decode item messages, and check what needs the model and the topic: dimension, norm, partition."""

from __future__ import annotations

from model.serving.norms import Norms
from streams.errors import BadMessage
from streams.messages.items import Item, ItemRemoval, decode_item
from streams.partitioning import KeyPartitions
from streams.ports import Message


class ItemDecoder:
    """Decodes the messages of the topic `items` for one model.

    Args:
        model_version: the model that the vectors must belong to.
        dim: dimension of its vectors.
        norms: the norms that they may have.
        partitions: the partitions of the topic.
    """

    def __init__(self, model_version: str, dim: int, norms: Norms, partitions: KeyPartitions) -> None:
        self.model_version = model_version
        self._dim = dim
        self._norms = norms
        self._partitions = partitions

    def decode(self, message: Message) -> Item | ItemRemoval | None:
        """Decode a message; None if its item belongs to another model version.

        Raises:
            BadMessage: the message is not an item of this model, or is in another partition than its key.
        """
        item = decode_item(message.key, message.value)
        assert message.key is not None  # the codec has compared it with the item id
        self._partitions.check(message.key, message.partition)
        if isinstance(item, ItemRemoval):
            return item
        if item.model_version != self.model_version:
            return None
        check_vector(item, self._dim, self._norms)
        return item


def check_vector(item: Item, dim: int, norms: Norms) -> None:
    """Check that the vector of an item is one of its model.

    Raises:
        BadMessage: it has another dimension, or a norm that the model's vectors do not have.
    """
    if item.embedding.shape != (dim,):
        raise BadMessage(
            "wrong_dimension",
            f"the embedding has {item.embedding.size} numbers, model {item.model_version} has {dim}",
        )
    if fault := norms.fault(item.embedding):
        raise BadMessage("wrong_norm", f"the embedding of item {item.item_id} {fault}")
