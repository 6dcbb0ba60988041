"""Bodies of the requests that read, and of their answers."""

from __future__ import annotations

from typing import Annotated, Literal, cast

import numpy as np
import numpy.typing as npt
import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, FailFast, Field

from streams.messages.fields import MAX_USER_ID_BYTES


class RequestBody(BaseModel):
    """A body without unknown keys: a misspelled one would have no effect, unnoticed."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=())


class AnswerBody(BaseModel):
    """An answer."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())


def checked_user_id(text: str) -> str:
    """Return the text if it can be a user's id.

    Raises:
        ValueError: it cannot.
    """
    try:
        size = len(text.encode())
    except UnicodeEncodeError:  # half of a surrogate pair
        raise ValueError("a user id is text in UTF-8") from None
    if not 0 < size <= MAX_USER_ID_BYTES:
        raise ValueError(f"a user id has 1 to {MAX_USER_ID_BYTES} bytes, found {size}")
    return text


def shortest(scores: npt.NDArray[np.float32]) -> list[float]:
    """Return float32 numbers, (n,), as floats with the fewest digits that read back to them: 0.1, not 0.10000000149."""
    text = orjson.dumps(np.ascontiguousarray(scores), option=orjson.OPT_SERIALIZE_NUMPY)
    return cast("list[float]", orjson.loads(text))


_Int64 = Annotated[int, Field(ge=-(2**63), le=2**63 - 1, json_schema_extra={"format": "int64"})]
ItemId = _Int64
UserText = Annotated[str, Field(min_length=1, max_length=MAX_USER_ID_BYTES), AfterValidator(checked_user_id)]
UserId = _Int64 | UserText


class FirstFault(FailFast):
    """Ends the validation of a list with its first wrong element: a body has room for millions, with a text each."""

    def __hash__(self) -> int:  # members of a union must have one
        return hash(FirstFault)


ItemIds = Annotated[list[ItemId], FirstFault()]
#: Most users in any request, whatever `service.max_users` is: as many as a search has room for.
MAX_USERS = 4000


class RecommendationRequest(RequestBody):
    """One user: a history, a user of the stream, or both, a session's clicks after the known history."""

    history: ItemIds = Field([], description="Ids of clicked items, oldest first (at most service.max_history).")
    user_id: UserId | None = Field(
        None, description='A user of the stream, whose stored history comes before `history`; 42 and "42" are one user.'
    )
    top_k: int | None = Field(
        None, ge=1, description="Number of items (at most service.max_top_k); null = recall.top_k."
    )
    exclude_seen: bool | None = Field(None, description="Leave out the history's items; null = recall.filter_seen.")
    exclude: ItemIds = Field([], description="Ids of more items to leave out (at most service.max_exclude).")


class RecommendationsRequest(RequestBody):
    """The users of one request."""

    requests: Annotated[list[RecommendationRequest], FirstFault()] = Field(
        max_length=MAX_USERS,
        description="The users (at most service.max_users).",
        examples=[[{"history": [43, 23, 65], "top_k": 10}, {"user_id": 42, "history": [675], "exclude": [3456]}]],
    )


class ScoredItem(AnswerBody):
    """A recommended item."""

    item_id: int
    score: float = Field(description="Higher is better; comparable within one model version only.")
    interest: int = Field(description="The interest of the user that recalled it, counted from 0.")


class RecommendationAnswer(AnswerBody):
    """The answer to one user."""

    items: list[ScoredItem] = Field(description="Best first.")
    source: Literal["interests", "none"] = Field(description="What the items come from; none = there are none.")
    reason: Literal["empty_history", "unknown_user", "no_known_item", "nothing_found"] | None = Field(
        description="Why there are no items: no clicks; no history of this user; no item of the history has a vector; "
        "the index finds nothing for it at the moment."
    )
    unknown_items: list[int] = Field(description="Items of the history without a vector; they were skipped.")
    history_length: int = Field(description="Clicks of the whole history, unknown items included.")
    history_age_s: float | None = Field(
        description="Seconds since the stored history changed; null = none was used, or it is unknown."
    )


class RecommendationsAnswer(AnswerBody):
    """The answers to the users of one request, in the same order."""

    model_version: str
    answers: list[RecommendationAnswer]


class Source(AnswerBody):
    """The message that something comes from."""

    partition: int
    offset: int


class HistoryAnswer(AnswerBody):
    """A user's stored history."""

    user_id: str
    items: list[int] = Field(description="Ids of clicked items, oldest first.")
    source: Source = Field(description="The newest click that the history counts.")
    updated_at: float | None = Field(description="Time of the last change, in seconds since 1970; null = unknown.")


class NewestAnswer(AnswerBody):
    """The newest recommendation that a worker has published for a user."""

    user_id: str
    items: list[ScoredItem] = Field(description="Best first.")
    model_version: str
    history_length: int
    source: Source = Field(description="The click that it answers.")
    click_ts: float = Field(description="Time of that click, in seconds since 1970.")
    ts: float = Field(description="Time of the recommendation, in seconds since 1970.")


class SimilarItem(AnswerBody):
    """An item that is similar to another one."""

    item_id: int
    score: float


class SimilarAnswer(AnswerBody):
    """The items nearest to an item."""

    item_id: int
    model_version: str
    items: list[SimilarItem] = Field(description="Best first, without the item itself.")


class ItemAnswer(AnswerBody):
    """An item that can be recalled."""

    item_id: int
    model_version: str
    trained: bool = Field(description="Whether the model was trained on it; otherwise, it was published later.")
    source: Source | None = Field(description="The message on `items` that its row comes from; null = unknown.")


class LiveAnswer(AnswerBody):
    """The process runs."""

    live: bool


class ReplicaAnswer(AnswerBody):
    """The lag of a copy of a topic."""

    caught_up: bool
    lag_messages: int
    age_s: float | None = Field(description="The copy has all that Kafka had so many seconds ago; null = not known.")


class ReadyAnswer(AnswerBody):
    """The readiness of the service, with what is missing."""

    ready: bool
    missing: list[str]
    model_version: str
    milvus: str = Field(description="answers, or what is wrong, in general words.")
    replicas: dict[str, ReplicaAnswer]
