"""Replay and item publishing against librdkafka's mock cluster: no network beyond this machine, no Java."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, cast

import click
import confluent_kafka as ck
import numpy as np
import orjson
import pytest
from click.testing import CliRunner, Result

from configs.errors import EXIT_CONFIG, EXIT_TRANSIENT, ConfigError, FatalError, TransientError
from configs.loader import load_replay
from configs.schema import ReplayConfig
from model.artifact import save_artifact
from producers import generate, items, replay
from producers.click_log import ClickFileError, read_click_log
from producers.sender import Sender, SendReport, send_all
from streams.messages.clicks import decode_click
from streams.messages.items import Item, ItemRemoval, decode_item

Messages = list[tuple[int, bytes, bytes | None]]


class MockKafka:
    """A mock cluster; topics come into being when they are asked for, with four partitions."""

    def __init__(self) -> None:
        self.owner = ck.Producer({"bootstrap.servers": "mock:1", "test.mock.num.brokers": 1, "log_level": 0})
        broker = next(iter(self.owner.list_topics(timeout=5).brokers.values()))
        self.address = f"{broker.host}:{broker.port}"

    def create(self, topic: str) -> None:
        self.owner.list_topics(topic, timeout=5)

    def read(self, topic: str, count: int) -> Messages:
        """(partition, key, value) of `count` messages, and of more if there are any."""
        consumer = ck.Consumer(
            {
                "bootstrap.servers": self.address,
                "group.id": "test",
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 10,
            }
        )
        consumer.assign([ck.TopicPartition(topic, partition, ck.OFFSET_BEGINNING) for partition in range(4)])
        found: Messages = []
        ended: set[int] = set()
        deadline = time.monotonic() + 20
        while (len(found) < count or len(ended) < 4) and time.monotonic() < deadline:
            message = consumer.poll(1)
            if message is None:
                continue
            partition = message.partition() or 0
            if message.error():
                ended.add(partition)
            else:
                found.append((partition, message.key() or b"", message.value()))
        consumer.close()
        return found


@pytest.fixture
def kafka(monkeypatch: pytest.MonkeyPatch) -> MockKafka:
    mock = MockKafka()
    mock.create("clicks")
    mock.create("items")
    monkeypatch.setenv("MINDSTREAM_KAFKA", mock.address)
    return mock  # nothing to end: the cluster goes with its producer


@pytest.fixture
def clicks_file(tmp_path: Path) -> Path:
    path = tmp_path / "clicks.csv"
    path.write_text("".join(f"{user},{1000 * (user + 1) + rank},{rank}\n" for user in range(40) for rank in range(25)))
    return path


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    vectors = np.random.default_rng(0).standard_normal((300, 8)).astype(np.float32)
    save_artifact(
        tmp_path / "artifact",
        weights={"w": vectors[:2]},
        interests=4,
        history_length=20,
        encoder={},
        item_ids=np.arange(1, 301),
        item_vectors=vectors,
        item_counts=np.ones(300, np.int64),
        users=1,
        clicks=1,
        config={},
    )
    return tmp_path / "artifact"


def run(command: click.Command, *arguments: str | Path) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def config(address: str, *overrides: str) -> ReplayConfig:
    return load_replay(None, overrides, {"MINDSTREAM_KAFKA": address})


def test_replay_delivers_every_click_once_in_its_users_order(kafka: MockKafka, clicks_file: Path) -> None:
    before = time.time()
    result = run(replay.main, clicks_file)
    assert result.exit_code == 0, result.output
    assert "sent=1000 delivered=1000 failed=0 malformed=0" in result.output
    history, partitions = defaultdict(list), defaultdict(set)
    for partition, key, value in kafka.read("clicks", 1000):
        click_ = decode_click(key, value)
        assert before <= click_.ts <= time.time()
        history[click_.user_id].append(click_.item_id)
        partitions[click_.user_id].add(partition)
    assert history == {user: [1000 * (user + 1) + rank for rank in range(25)] for user in range(40)}
    assert all(len(used) == 1 for used in partitions.values())
    assert len(set.union(*partitions.values())) == 4


def test_keys_are_hashed_as_in_kafkas_java_clients(kafka: MockKafka) -> None:
    sender = replay.clicks_sender(config(kafka.address))
    # Java's murmur2("21") is -973932308 and murmur2("foobar") is -790332482 (Kafka's own UtilsTest); 31 bits, modulo 4.
    report = send_all(sender, [(b"21", b"x"), (b"foobar", b"x")], lambda _report: None)
    assert report.delivered == 2
    placed = {key: partition for partition, key, _ in kafka.read("clicks", 2)}
    assert placed == {b"21": (-973932308 & 0x7FFFFFFF) % 4, b"foobar": (-790332482 & 0x7FFFFFFF) % 4}


def test_limit_loop_and_file_stamps(kafka: MockKafka, tmp_path: Path) -> None:
    path = tmp_path / "timed.csv"
    path.write_text("1,5,1700000000\n2,6,1700000001\n1,7,1700000002\n")
    result = run(replay.main, path, "--loop", "--limit", "7", "--original-ts", "--speedup", "1000")
    assert "sent=7 delivered=7" in result.output
    stamps = sorted(decode_click(key, value).ts for _, key, value in kafka.read("clicks", 7))
    assert stamps == [1_700_000_000 + second for second in range(7)]


def test_rate(kafka: MockKafka, clicks_file: Path) -> None:
    sender = replay.clicks_sender(config(kafka.address, "replay.rate=500", "replay.limit=200"))
    report = replay.replay(
        read_click_log([clicks_file]), config(kafka.address, "replay.rate=500", "replay.limit=200"), sender
    )
    assert report.delivered == 200
    assert report.seconds >= 199 / 500


def test_malformed_lines(kafka: MockKafka, tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text("1,2,0\nnonsense\n1,3,1\n")
    failed = run(replay.main, path)
    assert failed.exit_code == 1
    assert f"{path}:2: expected uid,item_id,order" in failed.output
    skipped = run(replay.main, path, "--malformed", "skip")
    assert skipped.exit_code == 0
    assert f"skipped {path}:2:" in skipped.output
    assert "sent=2 delivered=2 failed=0 malformed=1" in skipped.output


def test_ranks_have_no_time_to_follow(kafka: MockKafka, clicks_file: Path) -> None:
    for setting in ("replay.speedup=2", "replay.original_ts=true"):
        settings = config(kafka.address, setting)
        with pytest.raises(ClickFileError, match="use --rate"):
            replay.replay(read_click_log([clicks_file]), settings, replay.clicks_sender(settings))


def test_flags_replace_the_configuration(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("replay: {speedup: 60, limit: 5}\n")
    settings = load_replay(own, replay._as_overrides({"rate": 10.0, "limit": None}), {}).replay
    assert (settings.rate, settings.speedup, settings.limit) == (10.0, None, 5)
    with pytest.raises(ConfigError, match="exclude each other"):
        load_replay(None, replay._as_overrides({"rate": 10.0, "speedup": 2.0}), {})


def test_no_broker_is_one_clear_error_soon(clicks_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MINDSTREAM_KAFKA", f"127.0.0.1:{unused.getsockname()[1]}")
        start = time.monotonic()
        result = run(replay.main, clicks_file, "--set", "producer.connect_timeout=1")
    assert time.monotonic() - start < 5
    assert result.exit_code == EXIT_TRANSIENT
    assert "no broker answers at 127.0.0.1" in result.output
    assert "Connection refused" in result.output
    assert "python -m embedded up" in result.output
    assert 'eval "$(python -m embedded env)"' in result.output


def test_a_wrong_setting_is_the_configuration_s_fault(clicks_file: Path) -> None:
    result = run(replay.main, clicks_file, "--set", "replay.rate=-1")
    assert result.exit_code == EXIT_CONFIG
    assert "replay.rate" in result.output


def test_a_topic_that_refuses_us_is_told_from_messages_that_fail(
    kafka: MockKafka, clicks_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(sender: Sender, *_: Any) -> SendReport:
        sender.report.sent = 1
        sender._on_delivery(ck.KafkaError(ck.KafkaError.TOPIC_AUTHORIZATION_FAILED), cast("Any", None))
        return sender.report

    monkeypatch.setattr(replay, "send_all", refused)
    result = run(replay.main, clicks_file)
    assert result.exit_code == EXIT_CONFIG
    assert "this user needs Write on clicks" in result.output


def test_unknown_topic_names_the_remedy_and_creates_nothing(kafka: MockKafka, clicks_file: Path) -> None:
    result = run(replay.main, clicks_file, "--set", "topics.clicks=nope")
    assert result.exit_code == EXIT_CONFIG
    assert "python -m streams topics create" in result.output
    assert "nope" not in kafka.owner.list_topics(timeout=5).topics


def test_failures_are_counted_and_make_the_status_non_zero(
    kafka: MockKafka, clicks_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose_the_broker_and_send(*arguments: Any) -> SendReport:
        kafka.owner = None  # type: ignore[assignment]  # the cluster ends with its producer
        return send_all(*arguments)

    monkeypatch.setattr(replay, "send_all", lose_the_broker_and_send)
    result = run(replay.main, clicks_file, "--set", "producer.delivery_timeout=0.3", "--limit", "50")
    assert result.exit_code == 1, result.output
    assert "sent=50 delivered=0 failed=50" in result.output
    assert " times: " in result.output


def test_a_full_queue_blocks_and_only_the_large_message_fails(kafka: MockKafka) -> None:
    settings = config(kafka.address, "topics.max_message_bytes=65536")
    sender = Sender(settings.kafka, settings.producer, settings.topics, "clicks")
    # More than librdkafka's queue of 100,000 holds.
    messages = [(b"k", b"x")] * 120_000 + [(b"k", b"x" * 70_000)]
    report = send_all(sender, messages, lambda _report: None)
    assert (report.sent, report.delivered, report.failed) == (120_001, 120_000, 1)


class SilentProducer:
    """Accepts messages and never reports on them, neither delivered nor timed out."""

    purged = False

    def produce(self, *_: object, **__: object) -> None: ...

    def poll(self, _seconds: float) -> int:
        return 0

    def flush(self, _seconds: float) -> int:
        time.sleep(0.01)
        return 0 if self.purged else 3

    def purge(self) -> None:
        self.purged = True


def test_messages_without_a_delivery_report_fail_in_the_end(kafka: MockKafka, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = config(kafka.address, "producer.delivery_timeout=0.2")
    sender = Sender(settings.kafka, settings.producer, settings.topics, "clicks")
    monkeypatch.setattr(sender, "_producer", SilentProducer())
    monkeypatch.setattr("producers.sender.OVERDUE_S", 0.3)
    report = send_all(sender, [(b"k", b"x")] * 3, lambda _report: None)
    assert (report.sent, report.delivered, report.failed) == (3, 0, 3)
    assert 0.5 <= report.seconds < 5


def test_stop_ends_a_wait_at_once(kafka: MockKafka, clicks_file: Path) -> None:
    settings = config(kafka.address, "replay.rate=0.01")
    sender = replay.clicks_sender(settings)
    timer = threading.Timer(0.2, sender.stop.set)
    timer.start()
    report = replay.replay(read_click_log([clicks_file]), settings, sender)
    timer.join()
    assert report.sent == report.delivered == 1
    assert report.seconds < 3


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_flush_report_and_end(kafka: MockKafka, clicks_file: Path, number: int, status: int) -> None:
    command = [sys.executable, "-m", "producers.replay", str(clicks_file), "--loop", "--rate", "200"]
    environ = os.environ | {"MINDSTREAM_KAFKA": kafka.address}
    process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        kafka.read("clicks", 20)  # it runs
        process.send_signal(number)
        out, _ = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == status
    assert "failed=0" in out


def test_items_of_an_artifact(kafka: MockKafka, artifact: Path) -> None:
    result = run(items.main, "--artifact", artifact, "--limit", "200")
    assert result.exit_code == 0, result.output
    assert "sent=200 delivered=200 failed=0" in result.output
    source = items._load(artifact)
    read = [decode_item(key, value) for _, key, value in kafka.read("items", 200)]
    assert sorted(item.item_id for item in read) == list(range(1, 201))
    for item in read:
        assert isinstance(item, Item)
        assert item.model_version == source.model_version
        np.testing.assert_array_equal(item.embedding, source.item_vectors[item.item_id - 1])


@pytest.mark.parametrize("suffix", [".npy", ".json"])
def test_one_item_and_its_removal(kafka: MockKafka, artifact: Path, tmp_path: Path, suffix: str) -> None:
    vector = np.arange(8, dtype=np.float32)
    path = tmp_path / f"new{suffix}"
    if suffix == ".npy":
        np.save(path, vector)
    else:
        path.write_bytes(orjson.dumps(vector.tolist()))
    result = run(items.main, "--artifact", artifact, "--id", "900", "--embedding-file", path, "--title", "Ünïcode")
    assert result.exit_code == 0, result.output
    assert run(items.main, "--delete", "--id", "900", "--id", "901").exit_code == 0
    read = [decode_item(key, value) for _, key, value in kafka.read("items", 3)]
    assert [item.title for item in read if isinstance(item, Item)] == ["Ünïcode"]
    assert {item.item_id for item in read if isinstance(item, ItemRemoval)} == {900, 901}


def test_items_that_the_worker_would_refuse_are_not_sent(artifact: Path, tmp_path: Path) -> None:
    cases = {
        "[1, 2]": "shape (2,)",
        "[0,0,0,0,0,0,0,0]": "all zero",
        "[1e99,1,1,1,1,1,1,1]": "numbers",
        "{": "not a vec",
    }
    for text, fault in cases.items():
        path = tmp_path / "bad.json"
        path.write_text(text)
        result = run(items.main, "--artifact", artifact, "--id", "9", "--embedding-file", path)
        assert result.exit_code == 1
        assert fault in result.output
    zero = run(items.main, "--delete", "--id", "0")
    assert zero.exit_code == 1
    assert "non-zero" in zero.output


def test_usage_errors_of_items(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MINDSTREAM_ARTIFACT", raising=False)
    for arguments, hint in (
        ((), "--artifact"),
        (("--delete",), "--id"),
        (("--artifact", artifact, "--id", "3"), "--embedding-file"),
        (("--artifact", artifact, "--title", "x"), "--id"),
        (("--delete", "--id", "3", "--title", "x"), "takes only --id"),
    ):
        result = run(items.main, *arguments)
        assert result.exit_code == 2
        assert hint in result.output
    missing = run(items.main, "--artifact", artifact / "no")
    assert missing.exit_code == EXIT_CONFIG
    assert "python -m model.train" in missing.output


def test_settings_that_librdkafka_rejects(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text("no certificate")
    settings = config("127.0.0.1:1", "kafka.security_protocol=SSL", f"kafka.ca_file={path}")
    with pytest.raises(FatalError, match=r"configs/kafka\.yaml"):
        replay.clicks_sender(settings)


def test_a_handshake_that_fails_at_its_first_step_is_fatal(monkeypatch: pytest.MonkeyPatch) -> None:
    """librdkafka reports it as a transport error if the broker answers before its first check."""
    sender = replay.clicks_sender(config("127.0.0.1:1", "producer.connect_timeout=0.1"))
    text = "sasl_ssl://127.0.0.1:1/bootstrap: error:0A000086:SSL routines::certificate verify failed"
    handshake = ck.KafkaError(ck.KafkaError._TRANSPORT, text)
    monkeypatch.setattr(sender, "_serve", lambda *_: sender._on_error(handshake))
    with pytest.raises(FatalError, match=r"certificate verify failed; check kafka:"):
        sender.connect()


def test_a_fatal_error_of_librdkafka_ends_the_run(kafka: MockKafka) -> None:
    sender = replay.clicks_sender(config(kafka.address))
    with pytest.raises(TransientError, match="run the command again"):
        sender._reject(ck.KafkaError(ck.KafkaError._FATAL))
    with pytest.raises(FatalError, match="needs Write on clicks"):
        sender._reject(ck.KafkaError(ck.KafkaError.CLUSTER_AUTHORIZATION_FAILED))


def test_a_missing_right_stops_the_run(kafka: MockKafka) -> None:
    sender = replay.clicks_sender(config(kafka.address))
    sender._on_delivery(ck.KafkaError(ck.KafkaError.TOPIC_AUTHORIZATION_FAILED), ck.Message())
    assert not sender.send(b"1", b"x")
    assert "this user needs Write on clicks" in next(iter(sender.finish().reasons))


def test_a_fatal_error_raised_during_a_callback(kafka: MockKafka) -> None:
    sender = replay.clicks_sender(config(kafka.address))

    def flush(_seconds: float) -> int:
        """Raise what confluent-kafka raises when a callback runs while its own exception propagates."""
        raise SystemError from ck.KafkaException(ck.KafkaError(ck.KafkaError.CLUSTER_AUTHORIZATION_FAILED))

    with pytest.raises(FatalError, match="needs Write on clicks"):
        sender._serve(flush, 0.1)


@pytest.mark.parametrize("program", [generate, replay, items])
def test_every_program_explains_itself(program: Any) -> None:
    result = run(program.main, "--help")
    assert result.exit_code == 0
    assert f"python -m {program.__name__} " in result.output


def test_the_package_names_its_programs() -> None:
    result = subprocess.run([sys.executable, "-m", "producers"], capture_output=True, text=True, check=True)
    assert all(f"python -m producers.{name}" in result.stdout for name in ("generate", "replay", "items"))
