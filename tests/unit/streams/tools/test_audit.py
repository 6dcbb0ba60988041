"""The audit finds each kind of loss: every test breaks one thing."""

from __future__ import annotations

import numpy as np
import pytest

import streams.tools.audit
from configs.errors import FatalError
from configs.loader import load_worker
from streams.history import History
from streams.kafka.reading import ReceivedMessage
from streams.kafka.topics import changelog_topic
from streams.messages.dead_letters import dead_letter_output
from streams.messages.recommendations import decode_recommendation, encode_recommendation
from streams.ports import DeadLetter, Message, Output
from streams.tools.audit import AuditReport, ClickRef, audit, audit_kafka
from tests.unit.fakes import ClickWorld, click_message


class Topics:
    """Topics after a worker answered a few clicks, one of them unreadable, one user unknown to the model."""

    def __init__(self) -> None:
        self.world = ClickWorld()
        self.clicks = [
            click_message(0, 7, 1),
            click_message(1, 8, 2),
            Message("clicks", 0, 2, b"9", b"not json"),
            click_message(3, 7, 3),
            click_message(4, 9, 999),
        ]
        self.world.process(self.clicks[:2])
        self.world.process(self.clicks[2:])
        self.dead_letters: set[ClickRef] = {(0, 2)}
        self.changelog = self._messages("changelog")
        self.recommendations = self._messages("recommendations")

    def _messages(self, topic: str) -> list[Message]:
        def message(offset: int, output: Output) -> Message:
            return Message(topic, 0, offset, output.key, output.value)

        return [message(i, output) for i, output in enumerate(self.world.sent(topic))]

    def audit(self) -> AuditReport:
        return audit(
            clicks=self.clicks,
            dead_letters=self.dead_letters,
            changelog=self.changelog,
            recommendations=self.recommendations,
            history_length=4,
            item_rows=self.world.known.rows,
        )


@pytest.fixture
def topics() -> Topics:
    return Topics()


def test_correct_topics_pass(topics: Topics) -> None:
    report = topics.audit()
    assert report.ok
    assert (report.clicks, report.dead_letters, report.users, report.without_candidates) == (5, 1, 3, 1)
    assert report.recommendations == report.histories_equal == 3
    text = " ".join(report.to_text().split())
    assert "histories equal 3" in text
    assert "histories different 0" in text
    assert "users without candidates are not verified" in text
    assert "audit passed" in text


def test_foreign_messages_among_the_recommendations_only_count(topics: Topics) -> None:
    for key, value in ((b"7", None), (b"7", b"{}"), (b"7", b"hello"), (None, topics.recommendations[0].value)):
        topics.recommendations.append(Message("recommendations", 0, 99, key, value))
    assert topics.audit().foreign == 4
    assert topics.audit().ok
    assert topics.audit().recommendations == 3


def test_a_missing_dead_letter_is_an_unaccounted_click(topics: Topics) -> None:
    topics.dead_letters = set()
    assert topics.audit().unaccounted == 1
    assert not topics.audit().ok


@pytest.mark.parametrize("click", [(0, 0), (0, 77), (5, 2)], ids=["readable", "no message", "no partition"])
def test_a_dead_letter_of_a_readable_or_missing_click_is_found(topics: Topics, click: ClickRef) -> None:
    topics.dead_letters.add(click)
    report = topics.audit()
    assert (report.letters_unfounded, report.dead_letters) == (1, 1)
    assert not report.ok


def test_a_removed_history_is_missing_unless_it_was_written_again(topics: Topics) -> None:
    record = next(m for m in topics.changelog if m.key == b"8")
    topics.changelog.append(record._replace(value=None))
    report = topics.audit()
    assert (report.histories_missing, report.histories_equal) == (1, 2)
    assert not report.ok
    topics.changelog.append(record)
    assert topics.audit().ok


def test_a_lost_click_makes_a_history_different(topics: Topics) -> None:
    topics.clicks.insert(4, click_message(4, 8, 5)._replace(offset=4))
    report = topics.audit()
    assert (report.histories_different, report.histories_equal, report.users_stale) == (1, 2, 1)


def test_a_click_counted_twice_makes_a_history_different(topics: Topics) -> None:
    record = History(0, 1, np.array([2, 2])).to_bytes()
    topics.changelog.append(Message("changelog", 0, 99, b"8", record))
    assert topics.audit().histories_different == 1


def test_a_missing_history_is_found(topics: Topics) -> None:
    topics.changelog = [m for m in topics.changelog if m.key != b"8"]
    assert topics.audit().histories_missing == 1


def test_a_history_without_clicks_is_found(topics: Topics) -> None:
    topics.changelog.append(Message("changelog", 0, 99, b"77", History(0, 1, np.array([2])).to_bytes()))
    assert topics.audit().histories_different == 1


def test_a_stale_recommendation_is_found(topics: Topics) -> None:
    newest = topics.recommendations[-1]
    old = decode_recommendation(newest.value or b"")._replace(source_offset=0)
    topics.recommendations[-1] = newest._replace(value=encode_recommendation(old))
    report = topics.audit()
    assert report.users_stale == 1
    assert not report.ok


def test_a_loss_that_has_left_the_window_is_found_in_the_older_records() -> None:
    topics = Topics()
    lost = [click_message(offset, 5, item) for offset, item in enumerate([1, 2, 3, 4, 5, 6, 1], start=5)]
    for click in lost:
        if click.offset != 6:
            topics.world.process([click])
    topics.clicks.extend(lost)
    topics.changelog = topics._messages("changelog")
    topics.recommendations = topics._messages("recommendations")
    newest = History.from_bytes(topics.changelog[-1].value or b"")
    assert newest.items.tolist() == [4, 5, 6, 1], "the newest record looks right"
    assert topics.audit().histories_different == 1


def test_clicks_that_kafka_has_deleted_stop_the_audit(topics: Topics) -> None:
    del topics.clicks[0]
    with pytest.raises(FatalError, match="retention_days"):
        topics.audit()


@pytest.fixture
def kafka(topics: Topics, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[ReceivedMessage]]:
    """Topics by their names in the shipped configuration, with the dead letter of the unreadable click."""
    output = dead_letter_output("dead-letters", DeadLetter(topics.clicks[2], "not_json", "broken"), 1000.0, 10**6)
    dead_letter = Message("dead-letters", 0, 0, output.key, output.value)
    config = load_worker(None, (), {})
    found = {
        config.topics.clicks: [ReceivedMessage(message, {}, 0.0) for message in topics.clicks],
        config.topics.dead_letters: [ReceivedMessage(dead_letter, dict(output.headers), 0.0)],
        changelog_topic(config.worker.group): [ReceivedMessage(message, {}, 0.0) for message in topics.changelog],
        config.topics.recommendations: [ReceivedMessage(message, {}, 0.0) for message in topics.recommendations],
    }
    monkeypatch.setattr(streams.tools.audit, "read_to_end", lambda _, topic, **_options: iter(found[topic]))
    monkeypatch.setattr(streams.tools.audit, "watermarks", lambda _, topic: {0: (0, len(found[topic]))})
    return found


def test_foreign_messages_among_the_dead_letters_are_skipped(
    topics: Topics, kafka: dict[str, list[ReceivedMessage]]
) -> None:
    config = load_worker(None, ["history.length=4"], {})
    for headers in ({"topic": b"clicks"}, {"topic": b"clicks", "partition": b"x", "offset": b"1"}, {}):
        foreign = ReceivedMessage(Message("dead-letters", 0, 9, None, None), headers, 0.0)
        kafka[config.topics.dead_letters].append(foreign)
    report = audit_kafka(config, topics.world.known.rows)
    assert report.ok, report.to_text()
    assert report.dead_letters == 1


def test_a_click_topic_emptied_by_retention_stops_the_audit(
    topics: Topics, kafka: dict[str, list[ReceivedMessage]], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_worker(None, ["history.length=4"], {})
    kafka[config.topics.clicks].clear()
    monkeypatch.setattr(streams.tools.audit, "watermarks", lambda *_: {0: (5, 5)})
    with pytest.raises(FatalError, match="retention_days"):
        audit_kafka(config, topics.world.known.rows)


def test_repeats_are_counted_and_allowed(topics: Topics) -> None:
    topics.recommendations.append(topics.recommendations[0])
    report = topics.audit()
    assert report.repeats == 1
    assert report.ok


def test_an_older_recommendation_after_a_newer_one_is_counted_and_allowed(topics: Topics) -> None:
    topics.recommendations.append(next(r for r in topics.recommendations if r.key == b"7"))
    assert topics.audit().out_of_order == 1
    assert topics.audit().ok


def test_an_older_record_after_the_newest_is_found_because_compaction_would_keep_it(topics: Topics) -> None:
    topics.changelog.append(next(m for m in topics.changelog if m.key == b"7"))
    report = topics.audit()
    assert (report.histories_overwritten, report.histories_different) == (1, 0)
    assert not report.ok
