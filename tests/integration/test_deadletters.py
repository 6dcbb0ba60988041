"""Dead letters on a real Kafka: listed, shown, and replayed once each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

import streams.tools.dead_letters_replay
from configs.errors import TransientError
from streams.errors import Reason
from streams.kafka.producer import KafkaRecordProducer
from streams.kafka.reading import ReceivedMessage, read_to_end
from streams.messages.clicks import Click, encode_click
from streams.messages.dead_letters import MessageRef, dead_letter_output
from streams.ports import DeadLetter, Message, Output
from streams.tools.audit import audit_kafka
from streams.tools.dead_letters import Selection, find_dead_letters
from streams.tools.dead_letters_replay import replay_dead_letters
from tests.site import Site, wait_for

pytestmark = pytest.mark.integration

TRACE = [("traceparent", b"00-ab-01"), ("twice", b"1"), ("twice", b"\xff"), ("topic", b"not yours")]


@pytest.fixture
def site(tmp_path: Path, kafka: str) -> Site:
    """A site with topics only: without a worker, no Milvus is needed."""
    new_site = Site(tmp_path, kafka, "http://127.0.0.1:9", items=20)
    new_site.create_topics()
    return new_site


@pytest.fixture
def served(tmp_path: Path, kafka: str, milvus_lite: str) -> Iterator[Site]:
    new_site = Site(tmp_path, kafka, milvus_lite)
    new_site.create_topics()
    new_site.fill_index()
    yield new_site
    new_site.drop_index()


def _put(site: Site, messages: Sequence[Message], reason: Reason = "not_json", now: float = 1000.0) -> None:
    """Write dead letters as the worker does."""
    topic = site.config.topics.dead_letters
    dead_letters = [DeadLetter(message, reason, f"broken {message.offset}") for message in messages]
    site.producer.send([dead_letter_output(topic, dead_letter, now, 10**8) for dead_letter in dead_letters])


def _message(site: Site, offset: int, key: bytes | None = b"42", value: bytes | None = b"{broken") -> Message:
    return Message(site.config.topics.clicks, 1, offset, key, value)


def _records(site: Site, topic: str) -> list[ReceivedMessage]:
    return list(read_to_end(site.config.kafka, topic, headers=True))


def _list(site: Site, *options: str) -> list[dict[str, object]]:
    done = site.run("streams", "deadletters", "list", "--json", *options)
    assert done.returncode == 0, done.stderr
    return [orjson.loads(line) for line in done.stdout.splitlines()]


def test_a_dead_letter_is_replayed_through_the_worker(served: Site) -> None:
    """A message that fails again becomes a new dead letter of the next attempt; a valid one is answered."""
    topics = served.config.topics
    good = encode_click(Click(7, 5, 1404172800.25))
    with served.worker():
        served.producer.send([Output(topics.clicks, b"42", b"{broken", headers=TRACE)])
        wait_for(lambda: len(served.dead_letters()) == 1, "the dead letter")
        (first,) = _list(served)
        assert (first["reason"], first["key"], first["value"], first["attempt"]) == ("not_json", "42", "{broken", 0)
        assert first["headers"] == [
            ["traceparent", "00-ab-01"],
            ["twice", "1"],
            ["twice", {"base64": "/w=="}],
            ["topic", "not yours"],
        ]
        _put(served, [Message(topics.clicks, 0, 10**6, b"7", good)])

        dry = served.run("streams", "deadletters", "replay")
        assert (dry.returncode, dry.stdout.splitlines()[-1]) == (
            0,
            "2 dead letters would be sent back; add --yes to send",
        )
        assert len(_records(served, topics.clicks)) == 1, "a dry run sends nothing"
        done = served.run("streams", "deadletters", "replay", "--yes")
        assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "2 of 2 dead letters sent back"), done.stderr

        wait_for(lambda: len(_list(served)) == 3, "the dead letter of the message that failed again")
        second = _list(served, "--since", "1d")[-1]
        assert (second["key"], second["value"], second["attempt"]) == ("42", "{broken", 1)
        assert second["headers"] == [
            *first["headers"],
            ["replay-attempt", "1"],
            ["replay-of", first["place"]],
        ]
        wait_for(lambda: len(served.messages(topics.recommendations)) == 1, "the answer to the good click")
        assert [row["replayed"] for row in _list(served)] == [True, True, False]

        done = served.run("streams", "deadletters", "replay", str(first["place"]), str(second["place"]), "--yes")
        assert "skipped 1 that were sent back before" in done.stdout
        assert done.stdout.splitlines()[-1] == "1 of 1 dead letter sent back"
        wait_for(lambda: len(_list(served)) == 4, "the third dead letter")
        assert [row["attempt"] for row in _list(served, "--topic", topics.clicks)][-1] == 2
    by_key = [record.message.partition for record in _records(served, topics.clicks) if record.message.key == b"42"]
    assert len(by_key) == 3 and len(set(by_key)) == 1, "the key decides the partition, as for any producer"
    report = audit_kafka(served.config)
    assert report.letters_unfounded == 1, "the dead letter that this test has written for a message that does not exist"
    assert replace(report, letters_unfounded=0).ok, report.to_text()


def test_the_list_and_its_filters(site: Site) -> None:
    _put(site, [_message(site, 1), _message(site, 1), _message(site, 2, key=None)], now=1000.0)
    _put(site, [_message(site, 3, b"\xff\x1b", None)], "null_value", now=2000.0)
    site.producer.send([Output(site.config.topics.dead_letters, b"x", b"written by another program")])
    topic = site.config.topics.clicks

    done = site.run("streams", "deadletters", "list")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [f"{topic}/1/{offset}" in line for offset, line in zip((1, 2, 3), lines[1:4], strict=True)] == [True] * 3
    assert "0xff1b" in lines[3] and "null" in lines[3]
    assert lines[4] == "3 dead letters: 2 not_json, 1 null_value; 1 messages on the topic are not dead letters"
    assert [row["place"] for row in _list(site, "--limit", "2")] == [f"{topic}/1/2", f"{topic}/1/3"]
    assert [row["key"] for row in _list(site, "--reason", "null_value")] == [{"base64": "/xs="}]
    assert [row["key"] for row in _list(site, "--reason", "bad_key", "--reason", "not_json")] == ["42", None]
    assert _list(site, "--since", "1h") == _list(site, "--topic", "other") == []
    assert len(_list(site, "--until", "1970-01-01T00:20:00Z")) == 2
    assert site.run("streams", "deadletters", "list", "--reason", "bad_luck").returncode == 2


def test_show_finds_a_dead_letter_by_its_message_and_by_itself(site: Site) -> None:
    message = Message(site.config.topics.clicks, 1, 7, b"42", b'{"user_id":42}', [("trace", b"\x1b[2J"), ("id", None)])
    _put(site, [message, _message(site, 8, b"42", b"\xff\xfe")], "missing_field")
    done = site.run("streams", "deadletters", "show", f"{site.config.topics.clicks}/1/7")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith('value     14 bytes, JSON\n\n{\n  "user_id": 42\n}\n')
    for line in ("reason    missing_field", "error     broken 7", r"header    trace: \x1b[2J", "header    id: null"):
        assert line in done.stdout.splitlines()
    (other,) = _list(site, "--limit", "1")
    again = site.run("streams", "deadletters", "show", str(other["kept_at"]))
    assert "00000000  ff fe" in again.stdout
    missing = site.run("streams", "deadletters", "show", "clicks/0/999")
    assert missing.returncode == 1 and "deadletters list" in missing.stderr


def test_a_dead_letter_that_cannot_be_sent_is_kept(site: Site) -> None:
    topics = site.config.topics
    _put(
        site,
        [
            _message(site, 1, value=b"x" * topics.max_message_bytes),
            Message("no-such-topic", 0, 5, b"42", b"{"),
            _message(site, 2),
        ],
    )
    done = site.run("streams", "deadletters", "replay", "--yes")
    assert done.returncode == 1
    assert "max.message.bytes" in done.stderr and "no topic no-such-topic" in done.stderr
    assert done.stdout.splitlines()[-1] == "1 of 1 dead letter sent back"
    (sent,) = _records(site, topics.clicks)
    assert (sent.message.key, sent.message.value) == (b"42", b"{broken")
    listed = _list(site)
    assert len(listed) == 3, "nothing is lost"
    assert [row["replayed"] for row in listed].count(True) == 1


def test_without_a_known_partitioner_a_dead_letter_returns_to_its_partition(site: Site) -> None:
    """Otherwise its user would be split again: no known hash could choose the partition."""
    _put(site, [_message(site, offset)._replace(partition=offset) for offset in range(4)])
    done = site.run("streams", "deadletters", "replay", "--yes", "--set", "topics.partitioner=any")
    assert done.returncode == 0, done.stderr
    assert sorted(record.message.partition for record in _records(site, site.config.topics.clicks)) == [0, 1, 2, 3]


class CutRecordProducer(KafkaRecordProducer):
    """A record producer that fails directly before some receipts, where a kill has the most effect."""

    cut_after = 1

    def send(self, outputs: Sequence[Output], produced: Callable[[], object] = lambda: None) -> Sequence[int]:
        if outputs[0].value is None:
            if CutRecordProducer.cut_after == 0:
                raise TransientError("Kafka", "cut off, for the test")
            CutRecordProducer.cut_after -= 1
        return super().send(outputs, produced)


def test_an_interrupted_replay_is_continued(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left out, only the last chunk is repeated, and the order within a key is kept."""
    _put(site, [_message(site, offset, value=b"%d" % offset) for offset in (4, 3, 2, 1, 0)])
    monkeypatch.setattr(streams.tools.dead_letters_replay, "_CHUNK_SIZE", 2)
    with monkeypatch.context() as patch:
        patch.setattr(streams.tools.dead_letters_replay, "KafkaRecordProducer", CutRecordProducer)
        with pytest.raises(TransientError):
            replay_dead_letters(site.config, Selection(), limit=None, again=False, send=True)
    assert len(find_dead_letters(site.config, Selection()).replayed) == 2
    for _ in range(2):
        assert replay_dead_letters(site.config, Selection(), limit=None, again=False, send=True)
    sent = [record.message.value for record in _records(site, site.config.topics.clicks)]
    assert sent == [b"0", b"1", b"2", b"3", b"2", b"3", b"4"]
    ref = MessageRef(site.config.topics.clicks, 1, 3)
    assert replay_dead_letters(site.config, Selection(refs=[ref]), limit=None, again=True, send=True)
    assert len(_records(site, site.config.topics.clicks)) == 8
