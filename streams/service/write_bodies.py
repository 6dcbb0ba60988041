"""Bodies of the requests that write, and of their answers.

Types are checked here. Ranges of times and items are checked by the stream's codec, whose texts name the remedy, and
are only described here.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag, WithJsonSchema

from model.data.limits import MAX_SECONDS, MIN_SECONDS
from streams.service.bodies import AnswerBody, FirstFault, ItemId, RequestBody, Source, UserId

_SECONDS: dict[str, Any] = {"type": "number", "minimum": MIN_SECONDS, "exclusiveMaximum": MAX_SECONDS}
#: 0 is padding.
_NOT_ZERO: dict[str, Any] = {"not": {"const": 0}}


class ClickBody(RequestBody):
    """A click."""

    user_id: UserId = Field(description='The user; 42 and "42" are one user.', examples=[42])
    item_id: ItemId = Field(description="The item.", examples=[17978], json_schema_extra=_NOT_ZERO)
    ts: Annotated[float, WithJsonSchema(_SECONDS)] | None = Field(
        default=None, description="Time of the click, in seconds since 1970; null = now."
    )
    event_id: str | None = Field(default=None, description="A text of your own, which is not used.")


def _kind(body: Any) -> str:
    return "clicks" if isinstance(body, list) else "click"


#: One click, or a list of clicks.
ClicksBody = Annotated[
    Annotated[ClickBody, Tag("click")] | Annotated[list[ClickBody], FirstFault(), Tag("clicks")], Discriminator(_kind)
]


class ItemBody(RequestBody):
    """A new or changed item."""

    embedding: Annotated[list[float], FirstFault()] = Field(
        description="The vector, of the model's dimension and norm.", min_length=1
    )
    title: str | None = Field(default=None, description="A text for people.")
    category: str | None = Field(default=None, description="A text for people.")
    model_version: str | None = Field(
        default=None,
        description="The model that has computed the vector; refused if the service has another one. null = its own.",
    )


class WrittenClicks(AnswerBody):
    """Clicks that Kafka has acknowledged."""

    written: list[Source] = Field(
        description="The place of each click, in the order of the request. A recommendation whose source has the same "
        "partition, and no lower offset, counts the click."
    )


class WrittenItem(AnswerBody):
    """An item, or its removal, that Kafka has acknowledged."""

    item_id: int
    written: Source = Field(description="The place of the message.")
    recallable_after_s: float | None = Field(
        default=None,
        description="Seconds until searches found the item; null = not waited for, or not found within "
        "service.recallable_timeout.",
    )
