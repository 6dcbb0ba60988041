"""Replaying click files against librdkafka's mock cluster."""

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

import confluent_kafka as ck
import pytest

from configs.errors import EXIT_CONFIG, EXIT_TRANSIENT, ConfigError
from configs.loader import load_replay
from model.data.files import DataError
from producers import replay
from producers.click_log import read_click_log
from producers.sender import Sender, SendReport, send_all
from streams.messages.clicks import decode_click
from tests.unit.producers.mock_kafka import MockKafka, config, run


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


def test_a_loop_ends_at_the_limit_and_keeps_the_time_stamps_of_the_file(kafka: MockKafka, tmp_path: Path) -> None:
    path = tmp_path / "timed.csv"
    path.write_text("1,5,1700000000\n2,6,1700000001\n1,7,1700000002\n")
    result = run(replay.main, path, "--loop", "--limit", "7", "--original-ts", "--speedup", "1000")
    assert "sent=7 delivered=7" in result.output
    stamps = sorted(decode_click(key, value).ts for _, key, value in kafka.read("clicks", 7))
    assert stamps == [1_700_000_000 + second for second in range(7)]


def test_the_rate_limits_the_replay(kafka: MockKafka, clicks_file: Path) -> None:
    sender = replay.clicks_sender(config(kafka.address, "replay.rate=500", "replay.limit=200"))
    report = replay.replay(
        read_click_log([clicks_file]), config(kafka.address, "replay.rate=500", "replay.limit=200"), sender
    )
    assert report.delivered == 200
    assert report.seconds >= 199 / 500


def test_a_malformed_line_fails_or_is_skipped(kafka: MockKafka, tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text("1,2,0\nnonsense\n1,3,1\n")
    failed = run(replay.main, path)
    assert failed.exit_code == 1
    assert f"{path}, line 2: expected uid,item_id,order" in failed.output
    skipped = run(replay.main, path, "--malformed", "skip")
    assert skipped.exit_code == 0
    assert f"{path}: 1 of 3 lines skipped; the first is line 2: expected uid" in skipped.output
    assert "sent=2 delivered=2 failed=0 malformed=1" in skipped.output


def test_speedup_and_original_ts_need_time_stamps(kafka: MockKafka, clicks_file: Path) -> None:
    for setting in ("replay.speedup=2", "replay.original_ts=true"):
        settings = config(kafka.address, setting)
        with pytest.raises(DataError, match="use --rate"):
            replay.replay(read_click_log([clicks_file]), settings, replay.clicks_sender(settings))


def test_flags_replace_the_configuration(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("replay: {speedup: 60, limit: 5}\n")
    settings = load_replay(own, replay._as_overrides({"rate": 10.0, "limit": None}), {}).replay
    assert (settings.rate, settings.speedup, settings.limit) == (10.0, None, 5)
    with pytest.raises(ConfigError, match="exclude each other"):
        load_replay(None, replay._as_overrides({"rate": 10.0, "speedup": 2.0}), {})


def test_an_unreachable_broker_is_one_clear_error_within_seconds(
    clicks_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_a_wrong_setting_is_a_configuration_error(clicks_file: Path) -> None:
    result = run(replay.main, clicks_file, "--set", "replay.rate=-1")
    assert result.exit_code == EXIT_CONFIG
    assert "replay.rate" in result.output


def test_a_topic_without_write_permission_ends_with_the_status_of_a_refusal(
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


def test_an_unknown_topic_names_the_remedy_and_is_not_created(kafka: MockKafka, clicks_file: Path) -> None:
    result = run(replay.main, clicks_file, "--set", "topics.clicks=nope")
    assert result.exit_code == EXIT_CONFIG
    assert "python -m streams topics create" in result.output
    assert "nope" not in kafka.owner.list_topics(timeout=5).topics


def test_failures_are_counted_and_the_exit_status_is_1(
    kafka: MockKafka, clicks_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose_the_broker_and_send(*arguments: Any) -> SendReport:
        kafka.owner = None  # type: ignore[assignment]  # ends the cluster
        return send_all(*arguments)

    monkeypatch.setattr(replay, "send_all", lose_the_broker_and_send)
    result = run(replay.main, clicks_file, "--set", "producer.delivery_timeout=0.3", "--limit", "50")
    assert result.exit_code == 1, result.output
    assert "sent=50 delivered=0 failed=50" in result.output
    assert " times: " in result.output


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
def test_a_signal_flushes_reports_and_ends_the_replay(
    kafka: MockKafka, clicks_file: Path, number: int, status: int
) -> None:
    command = [sys.executable, "-m", "producers.replay", str(clicks_file), "--loop", "--rate", "200"]
    environ = os.environ | {"MINDSTREAM_KAFKA": kafka.address}
    process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        kafka.read("clicks", 20)  # wait until it runs
        process.send_signal(number)
        out, _ = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == status
    assert "failed=0" in out
