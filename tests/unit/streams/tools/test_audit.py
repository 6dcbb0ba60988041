"""The audit finds each kind of fault: every test corrupts the topics in one way."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import orjson
import pytest

import streams.tools.audit
from configs.loader import load_worker
from configs.schema import WorkerConfig
from streams.history import History
from streams.kafka.reading import ReceivedMessage
from streams.kafka.topics import changelog_topic
from streams.messages.dead_letters import dead_letter_output
from streams.messages.recommendations import decode_recommendation, encode_recommendation
from streams.ports import DeadLetter, Message, Output
from streams.tools.audit import audit, audit_kafka
from streams.tools.audit_clicks import ClickRef, KeptDeadLetter, content_hash
from streams.tools.audit_report import AuditReport
from tests.unit.fakes import VERSION, ClickWorld, click_message


class Topics:
    """Topics after a worker answered a few clicks, one of them unreadable, one user unknown to the model."""

    def __init__(self) -> None:
        self.world = ClickWorld(items=12)
        self.clicks = [
            click_message(0, 7, 1),
            click_message(1, 8, 2),
            Message("clicks", 0, 2, b"9", b"not json"),
            click_message(3, 7, 3),
            click_message(4, 9, 999),
        ]
        self.world.process(self.clicks[:2])
        self.world.process(self.clicks[2:])
        self.dead_letters: dict[ClickRef, KeptDeadLetter] = {
            (0, 2): KeptDeadLetter("not_json", content_hash(b"9", b"not json"))
        }
        self.begins = {0: 0}
        self.committed: dict[int, int | None] = {0: 5}
        self.length = 4
        self.overrides: list[str] = []
        self.artifact: Any = SimpleNamespace(
            rows=self.world.known.rows, item_ids=np.arange(1, 13), history_length=3, model_version=VERSION
        )
        self.read()

    def read(self) -> None:
        """Read what the worker has sent by now."""
        self.changelog = self._messages("changelog")
        self.recommendations = self._messages("recommendations")

    def _messages(self, topic: str) -> list[Message]:
        def message(offset: int, output: Output) -> Message:
            return Message(topic, 0, offset, output.key, output.value)

        return [message(i, output) for i, output in enumerate(self.world.sent(topic))]

    @property
    def config(self) -> WorkerConfig:
        settings = [f"history.length={self.length}", "recall.top_k=3", "topics.partitioner=any"]
        return load_worker(None, settings + self.overrides, {})

    def audit(self) -> AuditReport:
        return audit(
            self.config,
            self.artifact,
            clicks=self.clicks,
            dead_letters=self.dead_letters,
            begins=self.begins,
            committed=self.committed,
            changelog=self.changelog,
            recommendations=self.recommendations,
        )

    def findings(self) -> dict[str, int]:
        return self.audit().findings


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
    topics.dead_letters.clear()
    assert topics.audit().unaccounted == 1
    assert not topics.audit().ok


@pytest.mark.parametrize("click", [(0, 0), (0, 77), (5, 2)], ids=["readable", "no message", "no partition"])
def test_a_dead_letter_of_a_readable_or_missing_click_is_found(topics: Topics, click: ClickRef) -> None:
    topics.dead_letters[click] = KeptDeadLetter("not_json", None)
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
    topics.clicks[4] = click_message(4, 8, 5)
    assert topics.findings() == {"histories_different": 2, "users_stale": 1}, "user 9's click was counted, user 8's not"


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
    topics.committed = {0: 12}
    topics.read()
    newest = History.from_bytes(topics.changelog[-1].value or b"")
    assert newest.items.tolist() == [4, 5, 6, 1], "the newest record looks right"
    assert topics.audit().histories_different == 1


def test_a_dead_letter_that_has_lost_its_bytes_is_found(topics: Topics) -> None:
    topics.dead_letters[0, 2] = KeptDeadLetter("not_json", content_hash(b"9", b""))
    assert topics.findings() == {"letters_different": 1}
    topics.dead_letters[0, 2] = KeptDeadLetter("not_json", None)  # too large to keep, and marked as such
    assert topics.findings() == {}


@pytest.mark.parametrize("reason", ["refused", "wrong_partition"])
def test_a_readable_click_that_is_a_dead_letter_for_another_reason_is_no_loss(topics: Topics, reason: str) -> None:
    topics.clicks.append(click_message(5, 8, 5))
    topics.committed = {0: 6}
    assert topics.findings() == {"histories_different": 1, "users_stale": 1}
    topics.dead_letters[0, 5] = KeptDeadLetter(reason, content_hash(topics.clicks[-1].key, topics.clicks[-1].value))
    report = topics.audit()
    assert (report.findings, report.dead_letters) == ({}, 2)


def test_clicks_that_the_worker_has_not_committed_are_found(topics: Topics) -> None:
    topics.committed = {0: 3}
    assert topics.findings() == {"lag_clicks": 2}
    topics.committed = {0: None}
    assert topics.findings() == {"lag_clicks": 5}


def test_a_user_in_two_partitions_is_found(topics: Topics) -> None:
    click = click_message(0, 7, 1, partition=1)
    topics.world.process([click])
    topics.read()
    topics.changelog[-1] = topics.changelog[-1]._replace(partition=1)
    topics.clicks.append(click)
    topics.begins[1], topics.committed[1] = 0, 1
    assert topics.findings() == {"users_split": 1}


def test_clicks_that_retention_has_deleted_are_counted_and_the_rest_is_compared(topics: Topics) -> None:
    del topics.clicks[:2]
    topics.begins = {0: 2}
    report = topics.audit()
    assert (report.findings, report.clicks_deleted, report.users) == ({}, 2, 2)
    assert "is not verified" in report.to_text()
    record = History(0, 3, np.array([1, 4])).to_bytes()  # the click at offset 3 is on item 3
    topics.changelog.append(Message("changelog", 0, 99, b"7", record))
    assert topics.findings() == {"histories_different": 1}


def test_clicks_that_were_deleted_before_they_were_read_are_found(topics: Topics) -> None:
    topics.clicks.clear()
    topics.begins, topics.committed = {0: 8}, {0: 5}
    report = topics.audit()
    assert (report.findings, report.clicks_deleted) == ({"clicks_removed_unread": 3}, 8)


def test_messages_on_the_changelog_that_are_no_records_are_counted(topics: Topics) -> None:
    topics.changelog += [Message("changelog", 0, 99, key, b"hello") for key in (b"7", b"x", None)]
    report = topics.audit()
    assert (report.findings, report.changelog_foreign) == ({"histories_overwritten": 1}, 3), "compaction keeps the last"


def test_a_fence_of_another_partition_is_found(topics: Topics) -> None:
    topics.changelog.append(Message("changelog", 0, 99, b"8", History(3, 1, np.array([2])).to_bytes()))
    assert topics.findings() == {"fences_foreign": 1}


@pytest.mark.parametrize("length", [3, 6])
def test_another_length_of_histories_is_reported_apart(length: int) -> None:
    topics = Topics()
    more = [click_message(offset, 7, item) for offset, item in enumerate([2, 4, 5, 6, 1], start=5)]
    for click in more:
        topics.world.process([click])
    topics.clicks += more
    topics.committed = {0: 10}
    topics.read()
    topics.length = length
    report = topics.audit()
    assert report.findings == {}
    assert report.histories_of_other_length > 0


def test_an_older_recommendation_after_the_newest_is_found_because_consumers_may_keep_the_last(topics: Topics) -> None:
    topics.recommendations.append(next(r for r in topics.recommendations if r.key == b"7"))
    report = topics.audit()
    assert (report.out_of_order, report.findings) == (1, {"answers_overtaken": 1})
    topics.recommendations.append(topics.recommendations[-2])
    topics.recommendations.append(next(r for r in topics.recommendations[1:] if r.key == b"7"))
    assert topics.audit().findings == {}, "the newest was written again"


def test_a_recommendation_for_no_click_of_its_user_is_found(topics: Topics) -> None:
    answer = decode_recommendation(topics.recommendations[-1].value or b"")
    for offset in (1, 99):  # another user's click, no click
        value = encode_recommendation(answer._replace(source_offset=offset))
        topics.recommendations.insert(0, topics.recommendations[-1]._replace(value=value))
    assert topics.findings() == {"answers_unfounded": 2, "answers_overtaken": 1}


def test_a_recommendation_that_names_another_user_is_found(topics: Topics) -> None:
    value = orjson.loads(topics.recommendations[0].value or b"") | {"user_id": 1}
    topics.recommendations[0] = topics.recommendations[0]._replace(value=orjson.dumps(value))
    assert topics.findings() == {"answers_mislabelled": 1}


@pytest.mark.parametrize(("items", "finding"), [(0, "answers_empty"), (1, "answers_short")])
def test_an_empty_or_short_recommendation_is_found(topics: Topics, items: int, finding: str) -> None:
    answer = decode_recommendation(topics.recommendations[0].value or b"")
    cut = answer._replace(item_ids=[2][:items], scores=[0.5][:items], interests=[0][:items])
    topics.recommendations[0] = topics.recommendations[0]._replace(value=encode_recommendation(cut))
    assert topics.findings() == {finding: 1}


@pytest.fixture
def kafka(topics: Topics, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[ReceivedMessage]]:
    """Topics by their names in the shipped configuration, with the dead letter of the unreadable click."""
    output = dead_letter_output("dead-dead_letters", DeadLetter(topics.clicks[2], "not_json", "broken"), 1000.0, 10**6)
    dead_letter = Message("dead-dead_letters", 0, 0, output.key, output.value)
    config = topics.config
    found = {
        config.topics.clicks: [ReceivedMessage(message, {}, 0.0) for message in topics.clicks],
        config.topics.dead_letters: [ReceivedMessage(dead_letter, dict(output.headers), 0.0)],
        changelog_topic(config.worker.group): [ReceivedMessage(message, {}, 0.0) for message in topics.changelog],
        config.topics.recommendations: [ReceivedMessage(message, {}, 0.0) for message in topics.recommendations],
    }
    module = streams.tools.audit
    offsets = SimpleNamespace(committed=lambda partitions: {p: topics.committed[p] for p in partitions})
    monkeypatch.setattr(module, "read_to_end", lambda _, topic, **_options: iter(found[topic]))
    monkeypatch.setattr(module, "watermarks", lambda _, topic: {0: (0, len(found[topic]))})
    monkeypatch.setattr(module, "TopicOffsets", lambda *_: offsets)
    return found


def test_foreign_messages_among_the_dead_letters_are_skipped(
    topics: Topics, kafka: dict[str, list[ReceivedMessage]]
) -> None:
    for headers in ({"topic": b"clicks"}, {"topic": b"clicks", "partition": b"x", "offset": b"1"}, {}):
        foreign = ReceivedMessage(Message("dead-dead_letters", 0, 9, None, None), headers, 0.0)
        kafka[topics.config.topics.dead_letters].append(foreign)
    report = audit_kafka(topics.config, topics.artifact)
    assert report.ok, report.to_text()
    assert report.dead_letters == 1


@pytest.mark.parametrize("topic", ["dead_letters", "recommendations"])
def test_what_retention_may_have_deleted_is_not_missed(
    topics: Topics, kafka: dict[str, list[ReceivedMessage]], monkeypatch: pytest.MonkeyPatch, topic: str
) -> None:
    name = getattr(topics.config.topics, topic)
    kafka[name].clear()
    figures = audit_kafka(topics.config, topics.artifact)
    assert figures.findings in ({"unaccounted": 1}, {"users_stale": 2})
    monkeypatch.setattr(
        streams.tools.audit, "watermarks", lambda _, topic: {0: (5, 5) if topic == name else (0, len(kafka[topic]))}
    )
    report = audit_kafka(topics.config, topics.artifact)
    assert report.ok, report.to_text()
    assert report.unverified == sum(figures.findings.values())
    assert "not verified" in report.to_text()
    now = time.time()
    kafka[topics.config.topics.clicks][:] = [
        received._replace(timestamp=now) for received in kafka[topics.config.topics.clicks]
    ]
    assert audit_kafka(topics.config, topics.artifact).findings == figures.findings, "none of this can be deleted yet"
    a_day_ago = [received._replace(timestamp=now - 86_400) for received in kafka[topics.config.topics.clicks]]
    kafka[topics.config.topics.clicks][:] = a_day_ago
    assert audit_kafka(topics.config, topics.artifact).findings == figures.findings
    shorter = topics.config.topics.model_copy(update={"recommendation_retention_days": 1})
    assert audit_kafka(topics.config.model_copy(update={"topics": shorter}), topics.artifact).ok


def test_an_answer_is_short_only_below_the_share_of_the_catalogue_with_which_workers_start(topics: Topics) -> None:
    topics.artifact.item_ids = np.arange(1, 7)  # 6 items, 4 of them seen; with 90 % of them, 2 remain as well
    answer = decode_recommendation(topics.recommendations[0].value or b"")
    cut = answer._replace(item_ids=[2], scores=[0.5], interests=[0])
    topics.recommendations[0] = topics.recommendations[0]._replace(value=encode_recommendation(cut))
    assert topics.findings() == {"answers_short": 1}
    topics.overrides = ["recall.catalogue_share=0.8"]  # 5 items suffice
    assert topics.findings() == {}


def test_repeats_are_counted_and_allowed(topics: Topics) -> None:
    topics.recommendations.append(topics.recommendations[-1])
    report = topics.audit()
    assert report.repeats == 1
    assert report.ok


def test_an_older_record_after_the_newest_is_found_because_compaction_would_keep_it(topics: Topics) -> None:
    topics.changelog.append(next(m for m in topics.changelog if m.key == b"7"))
    assert topics.findings() == {"histories_overwritten": 1}
