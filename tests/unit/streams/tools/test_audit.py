"""The audit finds each kind of loss. Every test breaks one thing and sees it reported."""

from __future__ import annotations

import numpy as np
import pytest

import streams.tools.audit
from configs.errors import FatalError
from configs.loader import load_worker
from streams.history import History
from streams.kafka.reading import Record
from streams.kafka.topics import changelog_topic
from streams.messages.dead_letters import dead_letter_output
from streams.messages.recommendations import decode_recommendation, encode_recommendation
from streams.ports import DeadLetter, Message, Output
from streams.tools.audit import AuditReport, Place, audit, audit_kafka
from tests.unit.fakes import ClickWorld, click_message


class Books:
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
        self.dead: set[Place] = {(0, 2)}
        self.changelog = self._messages("changelog")
        self.recommendations = self._messages("recommendations")

    def _messages(self, topic: str) -> list[Message]:
        def message(offset: int, output: Output) -> Message:
            return Message(topic, 0, offset, output.key, output.value)

        return [message(i, output) for i, output in enumerate(self.world.sent(topic))]

    def audit(self) -> AuditReport:
        return audit(
            clicks=self.clicks,
            dead_letters=self.dead,
            changelog=self.changelog,
            recommendations=self.recommendations,
            length=4,
            known=self.world.known.rows,
        )


@pytest.fixture
def books() -> Books:
    return Books()


def test_true_books_balance(books: Books) -> None:
    report = books.audit()
    assert report.ok
    assert (report.clicks, report.dead_letters, report.users, report.without_candidates) == (5, 1, 3, 1)
    assert report.recommendations == report.histories_equal == 3
    said = " ".join(report.to_text().split())
    assert "histories equal 3" in said
    assert "histories different 0" in said
    assert "users without candidates are not verified" in said
    assert "the books balance" in said


def test_what_others_write_to_the_recommendations_is_counted_and_changes_nothing(books: Books) -> None:
    for key, value in ((b"7", None), (b"7", b"{}"), (b"7", b"hello"), (None, books.recommendations[0].value)):
        books.recommendations.append(Message("recommendations", 0, 99, key, value))
    assert books.audit().foreign == 4
    assert books.audit().ok
    assert books.audit().recommendations == 3


def test_a_missing_dead_letter_is_an_unaccounted_click(books: Books) -> None:
    books.dead = set()
    assert books.audit().unaccounted == 1
    assert not books.audit().ok


@pytest.mark.parametrize("place", [(0, 0), (0, 77), (5, 2)], ids=["readable", "no message", "no partition"])
def test_a_letter_for_a_readable_click_or_for_none_is_found(books: Books, place: Place) -> None:
    books.dead.add(place)
    report = books.audit()
    assert (report.letters_unfounded, report.dead_letters) == (1, 1)
    assert not report.ok


def test_a_removed_history_is_missing_unless_it_was_written_again(books: Books) -> None:
    record = next(m for m in books.changelog if m.key == b"8")
    books.changelog.append(record._replace(value=None))
    report = books.audit()
    assert (report.histories_missing, report.histories_equal) == (1, 2)
    assert not report.ok
    books.changelog.append(record)
    assert books.audit().ok


def test_a_lost_click_makes_a_history_different(books: Books) -> None:
    books.clicks.insert(4, click_message(4, 8, 5)._replace(offset=4))
    report = books.audit()
    assert (report.histories_different, report.histories_equal, report.users_stale) == (1, 2, 1)


def test_a_click_counted_twice_makes_a_history_different(books: Books) -> None:
    record = History(0, 1, np.array([2, 2])).to_bytes()
    books.changelog.append(Message("changelog", 0, 99, b"8", record))
    assert books.audit().histories_different == 1


def test_a_missing_history_is_found(books: Books) -> None:
    books.changelog = [m for m in books.changelog if m.key != b"8"]
    assert books.audit().histories_missing == 1


def test_a_history_without_clicks_is_found(books: Books) -> None:
    books.changelog.append(Message("changelog", 0, 99, b"77", History(0, 1, np.array([2])).to_bytes()))
    assert books.audit().histories_different == 1


def test_a_stale_recommendation_is_found(books: Books) -> None:
    newest = books.recommendations[-1]
    old = decode_recommendation(newest.value or b"")._replace(source_offset=0)
    books.recommendations[-1] = newest._replace(value=encode_recommendation(old))
    report = books.audit()
    assert report.users_stale == 1
    assert not report.ok


def test_a_loss_that_has_left_the_window_is_found_in_the_older_records() -> None:
    books = Books()
    lost = [click_message(offset, 5, item) for offset, item in enumerate([1, 2, 3, 4, 5, 6, 1], start=5)]
    for click in lost:
        if click.offset != 6:
            books.world.process([click])
    books.clicks.extend(lost)
    books.changelog = books._messages("changelog")
    books.recommendations = books._messages("recommendations")
    newest = History.from_bytes(books.changelog[-1].value or b"")
    assert newest.items.tolist() == [4, 5, 6, 1], "the newest record alone looks right"
    assert books.audit().histories_different == 1


def test_clicks_that_kafka_has_deleted_stop_the_audit(books: Books) -> None:
    del books.clicks[0]
    with pytest.raises(FatalError, match="retention_days"):
        books.audit()


@pytest.fixture
def topics(books: Books, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Record]]:
    """What Kafka has under the names of the shipped configuration, with the dead letter of the books."""
    letter = DeadLetter(books.clicks[2], "not_json", "broken")
    output = dead_letter_output("dead-letters", letter, 1000.0, 10**6)
    dead = Record(Message("dead-letters", 0, 0, output.key, output.value), dict(output.headers), 0.0)
    config = load_worker(None, (), {})
    found = {
        config.topics.clicks: [Record(message, {}, 0.0) for message in books.clicks],
        config.topics.dead_letters: [dead],
        changelog_topic(config.worker.group): [Record(message, {}, 0.0) for message in books.changelog],
        config.topics.recommendations: [Record(message, {}, 0.0) for message in books.recommendations],
    }
    monkeypatch.setattr(streams.tools.audit, "read_to_end", lambda _, topic, **_options: iter(found[topic]))
    monkeypatch.setattr(streams.tools.audit, "watermarks", lambda _, topic: {0: (0, len(found[topic]))})
    return found


def test_what_others_write_among_the_dead_letters_is_passed_over(books: Books, topics: dict[str, list[Record]]) -> None:
    config = load_worker(None, ["history.length=4"], {})
    for headers in ({"topic": b"clicks"}, {"topic": b"clicks", "partition": b"x", "offset": b"1"}, {}):
        topics[config.topics.dead_letters].append(Record(Message("dead-letters", 0, 9, None, None), headers, 0.0))
    report = audit_kafka(config, books.world.known.rows)
    assert report.ok, report.to_text()
    assert report.dead_letters == 1


def test_a_click_topic_that_retention_has_emptied_stops_the_audit(
    books: Books, topics: dict[str, list[Record]], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_worker(None, ["history.length=4"], {})
    topics[config.topics.clicks].clear()
    monkeypatch.setattr(streams.tools.audit, "watermarks", lambda *_: {0: (5, 5)})
    with pytest.raises(FatalError, match="retention_days"):
        audit_kafka(config, books.world.known.rows)


def test_repeats_are_counted_and_allowed(books: Books) -> None:
    books.recommendations.append(books.recommendations[0])
    report = books.audit()
    assert report.repeats == 1
    assert report.ok


def test_an_older_recommendation_after_a_newer_one_is_counted_and_allowed(books: Books) -> None:
    books.recommendations.append(next(r for r in books.recommendations if r.key == b"7"))
    assert books.audit().out_of_order == 1
    assert books.audit().ok


def test_an_older_record_after_the_newest_is_found_because_compaction_would_keep_it(books: Books) -> None:
    books.changelog.append(next(m for m in books.changelog if m.key == b"7"))
    report = books.audit()
    assert (report.histories_overwritten, report.histories_different) == (1, 0)
    assert not report.ok
