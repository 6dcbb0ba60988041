"""The audit of the recommendations; what it finds is tested with the audit as a whole, too."""

from __future__ import annotations

import numpy as np

from streams.messages.recommendations import Recommendation, encode_recommendation
from streams.partitioning import KeyPartitions
from streams.ports import Message
from streams.tools.audit_answers import AuditedAnswers, audit_answers
from streams.tools.audit_clicks import audit_clicks
from tests.unit.fakes import click_message

ANY = KeyPartitions("any", 1)


def _audit(clicks: list[Message], *answers: Recommendation) -> AuditedAnswers:
    found = audit_clicks(clicks, {}, {0: 0}, {0: 99}, ANY)
    messages = [Message("r", 0, n, str(a.user_id).encode(), encode_recommendation(a)) for n, a in enumerate(answers)]
    return audit_answers(
        messages,
        found,
        history_length=4,
        item_rows=lambda ids: np.where(ids < 100, ids, -1),
        shortest_answer=2,
        model_version="m1",
    )


def _answer(user: int, source: int, version: str = "m1", items: int = 2) -> Recommendation:
    return Recommendation(user, [1, 2][:items], [0.5, 0.4][:items], [0, 0][:items], version, 1, 0, source, 2e9, 2e9)


def test_users_without_an_answer_are_stale_or_have_no_known_item() -> None:
    clicks = [click_message(0, 7, 1), click_message(1, 8, 500), click_message(2, 9, 3), click_message(3, 9, 500)]
    found = _audit(clicks, _answer(9, 2))
    assert (found.stale, found.without_candidates) == (2, 1)
    assert (_audit(clicks, _answer(9, 3), _answer(7, 0)).stale, found.count) == (0, 1)


def test_answers_of_another_model_may_be_shorter() -> None:
    clicks = [click_message(0, 7, 1)]
    assert _audit(clicks, _answer(7, 0, items=1)).short == 1
    assert _audit(clicks, _answer(7, 0, "m2", items=1)).short == 0
    assert _audit(clicks, _answer(7, 0, "m2", items=0)).empty == 1


def test_an_answer_from_before_more_items_were_asked_for_is_not_short() -> None:
    clicks = [click_message(0, 7, 1)]
    assert _audit(clicks, _answer(7, 0, items=1)._replace(top_k=1)).short == 0
    assert _audit(clicks, _answer(7, 0, items=1)._replace(top_k=2)).short == 1


def test_an_answer_that_retention_may_have_deleted_is_not_verified() -> None:
    clicks = [click_message(0, 7, 1)._replace(timestamp=5.0), click_message(1, 8, 2)._replace(timestamp=6.0)]
    answers = audit_answers(
        [],
        audit_clicks(clicks, {}, {0: 0}, {0: 99}, ANY, retained_since=6.0),
        history_length=4,
        item_rows=lambda ids: ids,
        shortest_answer=2,
        model_version="m1",
    )
    assert (answers.stale, answers.unverified) == (1, 1)
