"""The least rights of every program, and errors that name missing rights."""

from __future__ import annotations

import time

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclOperation,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
)
from prometheus_client import CollectorRegistry

from configs.errors import EXIT_CONFIG, FatalError
from configs.loader import load_service
from streams.kafka.acls import Right, check_rights, worker_rights
from streams.kafka.topics import changelog_topic
from streams.messages.dead_letters import dead_letter_output
from streams.metrics import ReplicaMetrics
from streams.ports import DeadLetter, Message
from streams.service.replicas import Replicas, open_replicas
from streams.tools.audit import audit_kafka
from streams.worker.lag import KafkaLag
from tests.integration.security.secure_servers import SecureKafka
from tests.integration.security.secure_site import SecureSite, acting
from tests.site import wait_for

pytestmark = pytest.mark.integration


AGENTS = ("clicks", "items")


def test_click_to_recommendation_with_the_least_rights(site: SecureSite, broker: SecureKafka) -> None:
    """Each program runs as a user of its own, with only the rights that the documentation lists."""
    clicks = site.folder / "clicks.csv"
    clicks.write_text("".join(f"{user},{user + 1},{rank}\n" for user in range(5) for rank in range(2)))
    kafka = ("kafka", "topics")
    with acting(broker.login("admin")):
        done = site.run("streams", "topics", "create")
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("created") == 5
    with acting(broker.login("catalogue")):
        done = site.run("producers.items", "--artifact", str(site.artifact.path), sections=kafka)
        assert "delivered=300 failed=0" in done.stdout, done.stderr
    with acting(broker.login("worker")), site.worker("--log-level", "DEBUG"):
        with acting(broker.login("shop")):
            done = site.run("producers.replay", str(clicks), sections=kafka)
            assert "delivered=10 failed=0" in done.stdout, done.stderr
        wait_for(
            lambda: {a.user_id for a in site.recommendations()} == set(range(5)), "a recommendation for every user"
        )
    with acting(broker.login("viewer")):
        done = site.run("streams", "tail", "--from-beginning", "--limit", "5")
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        assert done.stdout.count("user ") == 5
    with acting(broker.login("auditor")):
        done = site.run("streams", "audit")
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stderr == ""
        assert "audit passed" in done.stdout


def test_every_missing_right_is_named(site: SecureSite, broker: SecureKafka) -> None:
    site.create_topics()
    config = site.config_of("worker")
    needed = worker_rights(config.topics, config.worker.group, AGENTS)
    check_rights(config.kafka, needed)
    for right in needed:
        broker.revoke("worker", [right])
        with pytest.raises(FatalError, match="lacks rights") as refused:
            check_rights(config.kafka, needed)
        assert str(right) in str(refused.value)
        broker.grant("worker", [right])
    everything = site.rights("worker")
    broker.revoke("worker", everything)
    with acting(broker.login("worker")):
        done = site.run("streams", "worker")
    assert done.returncode == EXIT_CONFIG
    assert done.stderr.count("\n") == 1, done.stderr
    for right in needed:
        assert str(right) in done.stderr
    broker.grant("worker", everything)


def test_the_watchdog_sees_waiting_messages_with_the_worker_s_rights(site: SecureSite) -> None:
    site.create_topics()
    site.producer.send([site.click(user, 5) for user in range(20)])
    config = site.config_of("worker")
    group = f"{config.worker.group}-clicks"
    lag = KafkaLag(config.kafka, group, config.topics.clicks, config.topics.partitions, "test")
    marks = lag.partition_lags()
    assert sum(mark.lag for mark in marks.values()) == 20
    for partition, mark in marks.items():
        assert lag.readable(partition, mark.committed) == (mark.lag > 0)
        assert not lag.readable(partition, mark.end)


def test_dead_letters_with_the_least_rights(site: SecureSite, broker: SecureKafka) -> None:
    site.create_topics()
    message = Message(site.config.topics.clicks, 3, 991, b"7", b"{")
    dead_letter = DeadLetter(message, "not_json", "broken")
    site.producer.send([dead_letter_output(site.config.topics.dead_letters, dead_letter, time.time(), 10**6)])
    reference = f"{message.topic}/3/991"
    for user, arguments, says in (
        ("reader", ("list",), "1 dead letter: 1 not_json"),
        ("reader", ("show", reference), "broken"),
        ("resender", ("replay", reference), "1 dead letter would be sent back"),
        ("resender", ("replay", reference, "--yes"), "1 of 1 dead letter sent back"),
    ):
        with acting(broker.login(user)):
            done = site.run("streams", "deadletters", *arguments)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        assert says in done.stdout
    assert [(m.key, m.value) for m in site.messages(message.topic)] == [(b"7", b"{")]


def test_a_service_copies_topics_with_the_least_rights(site: SecureSite, broker: SecureKafka) -> None:
    site.create_topics()
    settings = [*site.settings, f"service.data_dir={site.folder / 'service'}"]
    config = load_service(None, settings, broker.login("recaller"))

    def opened() -> Replicas:
        return open_replicas(config, lambda _: None, ReplicaMetrics(CollectorRegistry()))

    replicas = opened()
    wait_for(lambda: replicas.histories.lag().caught_up and replicas.recommendations.lag().caught_up, "the copies")
    replicas.close()
    right = Right(AclOperation.READ, "topic", site.config.topics.recommendations)
    broker.revoke("recaller", [right])
    with pytest.raises(FatalError, match=f"recaller lacks rights: {right},"):
        opened()
    broker.grant("recaller", [right])


def test_a_changelog_that_loses_histories_is_refused(site: SecureSite, broker: SecureKafka) -> None:
    site.create_topics()
    topic = changelog_topic(site.config.worker.group)
    with acting(broker.login("checker")):
        done = site.run("streams", "topics", "check")
    assert done.returncode == 0, done.stderr
    admin = AdminClient(site.config.kafka.client_settings())
    entry = ConfigEntry("cleanup.policy", "delete", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[entry])
    for altered in admin.incremental_alter_configs([resource]).values():
        altered.result(10)
    for user, command in (("checker", ("topics", "check")), ("worker", ("worker",))):
        with acting(broker.login(user)):
            done = site.run("streams", *command)
        assert done.returncode == EXIT_CONFIG, done.stderr
        assert f"topic {topic} has cleanup.policy=delete" in done.stderr
        assert "--add-config cleanup.policy=compact\n" in done.stderr


def test_tools_report_missing_rights(site: SecureSite, broker: SecureKafka) -> None:
    """A user without rights sees no topics, so the error can only say that missing rights may be the cause."""
    site.create_topics()
    clicks = site.folder / "clicks.csv"
    clicks.write_text("1,2,0\n" * 3)
    topics = site.config.topics
    with acting(broker.login("viewer")):
        for command, says in {
            ("streams", "topics", "check"): "rights",
            ("streams", "audit"): "rights",
            ("producers.replay", str(clicks)): "may not write",
        }.items():
            producer = command[0].startswith("producers")
            done = site.run(*command, sections=("kafka", "topics") if producer else None)
            assert done.returncode == EXIT_CONFIG, done.stderr
            assert done.stderr.count("\n") == 1, done.stderr
            assert says in done.stderr
    # The right to describe the topic is not enough.
    describe = [Right(AclOperation.DESCRIBE, "topic", name) for name in (topics.clicks, topics.recommendations)]
    wrong = [Right(AclOperation.WRITE, "topic", topics.items)]
    broker.grant("admin", describe)
    with acting(broker.login("admin")):
        for anything_else in (False, True):  # a producer that may write to no topic fails differently
            if anything_else:
                broker.grant("admin", wrong)
            done = site.run("producers.replay", str(clicks), sections=("kafka", "topics"))
            assert done.returncode == EXIT_CONFIG
            assert f"needs Write on {topics.clicks}" in done.stderr
            assert "Traceback" not in done.stderr
        done = site.run("streams", "tail", "--from-beginning", "--limit", "1")
        assert done.returncode == EXIT_CONFIG
        assert topics.recommendations in done.stderr
        assert "authorization failed" in done.stderr
    broker.revoke("admin", [*describe, *wrong])


@pytest.mark.parametrize("operation", ["write", "read"])
def test_a_revoked_right_stops_the_worker_and_loses_nothing(
    site: SecureSite, broker: SecureKafka, operation: str
) -> None:
    site.create_topics()
    site.fill_index()
    topics = site.config.topics
    right = {
        "write": Right(AclOperation.WRITE, "topic", topics.recommendations),
        "read": Right(AclOperation.READ, "topic", topics.clicks),
    }[operation]
    with acting(broker.login("worker")):
        with site.worker("--agents", "clicks") as worker:
            site.producer.send([site.click(1, 5)])
            wait_for(lambda: len(site.recommendations()) == 1, "a recommendation")
            broker.revoke("worker", [right])
            site.producer.send([site.click(user, 7) for user in range(20)])
            wait_for(lambda: worker.poll() is not None, "the worker to exit")
            assert worker.poll() == EXIT_CONFIG
        log = site.log("worker").read_text()
        (line,) = [line for line in log.splitlines() if "CRITICAL" in line]
        assert "authorization" in line.lower()
        assert site.dead_letters() == []
        broker.grant("worker", [right])
        with site.worker("--agents", "clicks"):
            wait_for(lambda: {a.user_id for a in site.recommendations()} == set(range(20)), "every recommendation")
    report = audit_kafka(site.config)
    assert report.ok, report.to_text()
    assert report.clicks == 21
