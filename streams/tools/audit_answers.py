"""The audit of the recommendations: each user's newest click is answered, and every answer is one."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from model.arrays import IdVector
from streams.errors import BadMessage
from streams.messages.clicks import user_key
from streams.messages.recommendations import Recommendation, decode_recommendation
from streams.ports import Message
from streams.tools.audit_clicks import AuditedClicks, User

ItemRows = Callable[[IdVector], IdVector]  # (n,) item ids → (n,) rows in the artifact, -1 for unknown items


@dataclass(slots=True)  # 12 attributes: a figure each
class AuditedAnswers:
    """The recommendation topic; see `streams.tools.audit_report.AuditReport`."""

    count: int = 0
    repeats: int = 0
    out_of_order: int = 0
    foreign: int = 0
    stale: int = 0
    without_candidates: int = 0
    overtaken: int = 0
    unfounded: int = 0
    mislabelled: int = 0
    empty: int = 0
    short: int = 0
    unverified: int = 0


@dataclass(slots=True)
class _Answered:
    """The answers of one user: the source offsets of all, of the newest, and of the one written last."""

    newest: int = -1
    last: int = -1
    sources: set[int] = field(default_factory=set)


def audit_answers(
    recommendations: Iterable[Message],
    clicks: AuditedClicks,
    *,
    history_length: int,
    item_rows: ItemRows,
    shortest_answer: int,
    model_version: str,
) -> AuditedAnswers:
    """Audit the recommendation topic.

    Args:
        recommendations: its messages, in order within their partitions.
        clicks: the clicks.
        history_length: clicks kept of each user.
        item_rows: tells which items the artifact knows.
        shortest_answer: number of items that the model's catalogue must yield, unless fewer were asked for.
        model_version: the artifact's version; answers of others may be shorter.
    """
    found = AuditedAnswers()
    users: dict[User, _Answered] = {}
    for message in recommendations:
        answer = _decode(message)
        if answer is None or message.key is None:
            found.foreign += 1
            continue
        found.count += 1
        user = (answer.source_partition, message.key)
        found.mislabelled += user_key(answer.user_id) != message.key
        found.empty += not answer.item_ids
        shortest = min(shortest_answer, answer.top_k or shortest_answer)
        found.short += 0 < len(answer.item_ids) < shortest and answer.model_version == model_version
        found.unfounded += not _answers_a_click(user, answer.source_offset, clicks)
        answered = users.setdefault(user, _Answered())
        found.repeats += answer.source_offset in answered.sources
        found.out_of_order += answer.source_offset < answered.newest
        answered.sources.add(answer.source_offset)
        answered.newest = max(answered.newest, answer.source_offset)
        answered.last = answer.source_offset
    found.overtaken = sum(answered.last < answered.newest for answered in users.values())
    for user, user_clicks in clicks.by_user.items():
        newest_click, _ = user_clicks[-1]
        if user not in users or users[user].newest < newest_click:
            ids = np.array([item for _, item in user_clicks[-history_length:]], dtype=np.int64)
            known = bool((item_rows(ids) >= 0).any())
            verifiable = clicks.verifiable(user[0], newest_click)
            found.stale += known and verifiable
            found.unverified += known and not verifiable
            found.without_candidates += not known
    return found


def _decode(message: Message) -> Recommendation | None:
    try:
        return decode_recommendation(message.value or b"")
    except BadMessage:
        return None


def _answers_a_click(user: User, offset: int, clicks: AuditedClicks) -> bool:
    if offset < clicks.begins.get(user[0], 0):
        return True  # retention has deleted the click
    user_clicks = clicks.by_user.get(user, ())
    position = bisect_left(user_clicks, offset, key=lambda click: click[0])
    return position < len(user_clicks) and user_clicks[position][0] == offset
