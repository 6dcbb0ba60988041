"""Kafka with TLS, passwords and rights; Milvus with token and TLS: every program of ours, with the least it needs."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclOperation,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
)

from configs.errors import EXIT_CONFIG, FatalError, TransientError
from configs.loader import load_worker
from configs.schema import WorkerConfig
from embedded.errors import EmbeddedError
from embedded.instance import Instance
from embedded.standalone import require_platform
from streams.kafka.acls import Right, check_rights, rights, worker_rights
from streams.kafka.topics import changelog_topic
from streams.messages.dead_letters import dead_letter_output
from streams.messages.recommendations import Recommendation, decode_recommendation
from streams.ports import DeadLetter, Message
from streams.tools.audit import audit_kafka
from streams.worker.lag import KafkaLag
from tests.secure import SUPER, Authority, SecureKafka, SecureMilvus
from tests.site import Site, wait_for

pytestmark = pytest.mark.integration

#: User → the programs that it runs.
USERS = {
    "admin": ["streams topics create"],
    "worker": ["streams worker --agents clicks", "streams worker --agents items"],
    "shop": ["producers.replay"],
    "catalogue": ["producers.items"],
    "viewer": ["streams tail"],
    "auditor": ["streams audit"],
    "checker": ["streams topics check"],
    "reader": ["streams deadletters list", "streams deadletters show"],
    "resender": ["streams deadletters replay"],
}
AGENTS = ("clicks", "items")


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    folder = tmp_path_factory.mktemp("secure-kafka")
    server = SecureKafka(Instance.in_folder(folder), USERS)
    server.start()
    yield server
    server.stop()


class SecureSite(Site):
    """A site whose own hands are the super user's; its commands act as whoever `acting` names."""

    def __init__(self, folder: Path, broker: SecureKafka, milvus: str) -> None:
        assert broker.address is not None
        self.broker = broker
        super().__init__(folder, broker.address, milvus, environ=broker.login(SUPER))

    def config_of(self, user: str, *settings: str) -> WorkerConfig:
        return load_worker(None, [*self.settings, *settings], self.broker.login(user))

    def rights(self, user: str) -> set[Right]:
        topics, group = self.config.topics, self.config.worker.group
        return {right for program in USERS[user] for right in rights(program, topics, group)}

    def run(self, *arguments: str, sections: Collection[str] | None = None) -> subprocess.CompletedProcess[str]:
        done = super().run(*arguments, sections=sections)
        self.assert_no_secrets(done.stdout + done.stderr)
        return done

    def assert_no_secrets(self, text: str) -> None:
        assert not [user for user, password in self.broker.passwords.items() if password in text], text


@pytest.fixture
def site(tmp_path: Path, broker: SecureKafka, milvus_lite: str) -> Iterator[SecureSite]:
    made = SecureSite(tmp_path, broker, milvus_lite)
    granted = {user: made.rights(user) for user in USERS}
    for user, needed in granted.items():
        broker.grant(user, needed)
    yield made
    for log in made.log("*").parent.glob("*.log"):
        made.assert_no_secrets(log.read_text())
    for user, needed in granted.items():
        broker.revoke(user, needed)
    with suppress(TransientError):  # milvus-lite on a busy machine; the server goes with the session
        index = made.index(create=True)
        index.drop()
        index.close()


@contextmanager
def acting(variables: Mapping[str, str]) -> Iterator[None]:
    """Commands started here find these variables, and no others of ours."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("MINDSTREAM_")]:
            patch.delenv(name)
        for name, value in variables.items():
            patch.setenv(name, value)
        yield


def _answers(site: Site) -> list[Recommendation]:
    return [decode_recommendation(m.value or b"") for m in site.messages(site.config.topics.recommendations)]


def test_click_to_recommendation_with_the_least_rights(site: SecureSite, broker: SecureKafka) -> None:
    """Each program as a user of its own, who has the rights of the table and no others."""
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
        wait_for(lambda: {a.user_id for a in _answers(site)} == set(range(5)), "a recommendation for every user")
    with acting(broker.login("viewer")):
        done = site.run("streams", "tail", "--from-beginning", "--limit", "5")
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        assert done.stdout.count("user ") == 5
    with acting(broker.login("auditor")):
        done = site.run("streams", "audit")
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stderr == ""
        assert "the books balance" in done.stdout


@pytest.mark.parametrize("way", ["SCRAM-SHA-256", "PLAIN", "certificate"])
def test_other_ways_to_log_in(site: SecureSite, broker: SecureKafka, way: str) -> None:
    """For both clients of the worker, librdkafka and aiokafka; it is the user `worker` in each case."""
    site.create_topics()
    site.fill_index()
    login, settings = broker.login("worker"), [f"kafka.sasl_mechanism={way}"]
    if way == "certificate":
        certificate, key = broker.authority.client("worker")
        login = {
            "MINDSTREAM_KAFKA_SECURITY_PROTOCOL": "SSL",
            "MINDSTREAM_KAFKA_CA_FILE": str(broker.authority.file),
        }
        settings = [
            f"kafka.bootstrap_servers=127.0.0.1:{broker.tls_port}",
            f"kafka.certificate_file={certificate}",
            f"kafka.key_file={key}",
        ]
    options = [option for setting in settings for option in ("--set", setting)]
    with acting(login), site.worker("--agents", "clicks", *options):
        site.producer.send([site.click(1, 5)])
        wait_for(lambda: [a.user_id for a in _answers(site)] == [1], "the recommendation")


def test_every_missing_right_is_named(site: SecureSite, broker: SecureKafka) -> None:
    site.create_topics()
    config = site.config_of("worker")
    needed = worker_rights(config.topics, config.worker.group, AGENTS)
    check_rights(config.kafka, needed)
    for right in needed:
        broker.revoke("worker", [right])
        with pytest.raises(FatalError, match="too few rights") as refused:
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


def test_the_watchdog_sees_with_the_worker_s_rights_what_waits(site: SecureSite) -> None:
    site.create_topics()
    site.producer.send([site.click(user, 5) for user in range(20)])
    config = site.config_of("worker")
    group = f"{config.worker.group}-clicks"
    lag = KafkaLag(config.kafka, group, config.topics.clicks, config.topics.partitions, "nobody")
    marks = lag.partition_lags()
    assert sum(mark.lag for mark in marks.values()) == 20
    for partition, mark in marks.items():
        assert lag.readable(partition, mark.committed) == (mark.lag > 0)
        assert not lag.readable(partition, mark.end)


def test_dead_letters_with_the_least_rights(site: SecureSite, broker: SecureKafka) -> None:
    site.create_topics()
    message = Message(site.config.topics.clicks, 3, 991, b"7", b"{")
    letter = DeadLetter(message, "not_json", "broken")
    site.producer.send([dead_letter_output(site.config.topics.dead_letters, letter, time.time(), 10**6)])
    place = f"{message.topic}/3/991"
    for user, arguments, says in (
        ("reader", ("list",), "1 dead letter: 1 not_json"),
        ("reader", ("show", place), "broken"),
        ("resender", ("replay", place), "1 dead letter would be sent back"),
        ("resender", ("replay", place, "--yes"), "1 of 1 dead letter sent back"),
    ):
        with acting(broker.login(user)):
            done = site.run("streams", "deadletters", *arguments)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        assert says in done.stdout
    assert [(m.key, m.value) for m in site.messages(message.topic)] == [(b"7", b"{")]


def test_a_changelog_that_loses_histories_is_refused(site: SecureSite, broker: SecureKafka) -> None:
    site.create_topics()
    topic = changelog_topic(site.config.worker.group)
    with acting(broker.login("checker")):
        done = site.run("streams", "topics", "check")
    assert done.returncode == 0, done.stderr
    admin = AdminClient(site.config.kafka.client())
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


def test_tools_without_rights_say_so(site: SecureSite, broker: SecureKafka) -> None:
    """A user with a password and no rights: topics are hidden, so all that can be said is that this may be why."""
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
    # Seeing the topic is not enough.
    describe = [Right(AclOperation.DESCRIBE, "topic", name) for name in (topics.clicks, topics.recommendations)]
    wrong = [Right(AclOperation.WRITE, "topic", topics.items)]
    broker.grant("admin", describe)
    with acting(broker.login("admin")):
        for anything_else in (False, True):  # a producer that may write no topic at all fails in another way
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
def test_a_right_taken_away_stops_the_worker_and_loses_nothing(
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
            wait_for(lambda: len(_answers(site)) == 1, "a recommendation")
            broker.revoke("worker", [right])
            site.producer.send([site.click(user, 7) for user in range(20)])
            wait_for(lambda: worker.poll() is not None, "the worker to leave")
            assert worker.poll() == EXIT_CONFIG
        log = site.log("worker").read_text()
        (line,) = [line for line in log.splitlines() if "CRITICAL" in line]
        assert "authorization" in line.lower()
        assert site.dead_letters() == []
        broker.grant("worker", [right])
        with site.worker("--agents", "clicks"):
            wait_for(lambda: {a.user_id for a in _answers(site)} == set(range(20)), "every recommendation")
    report = audit_kafka(site.config)
    assert report.ok, report.to_text()
    assert report.clicks == 21


WRONG = ["password", "user", "authority", "plaintext to TLS", "TLS to plaintext"]


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_credentials_are_one_clear_error(
    wrong: str, site: SecureSite, broker: SecureKafka, kafka: str, tmp_path: Path
) -> None:
    clicks = tmp_path / "clicks.csv"
    clicks.write_text("1,2,0\n")
    login, options = broker.login("worker"), tuple[str, ...]()
    says = {
        "password": "password",
        "user": "username (nobody)",
        "authority": "ca_file",
        "plaintext to TLS": "security_protocol",
        "TLS to plaintext": "security_protocol",
    }[wrong]
    if wrong == "password":
        login["MINDSTREAM_KAFKA_PASSWORD"] = "secret-and-wrong"  # noqa: S105
    elif wrong == "user":
        login["MINDSTREAM_KAFKA_USERNAME"] = "nobody"
    elif wrong == "authority":
        login["MINDSTREAM_KAFKA_CA_FILE"] = str(Authority(tmp_path / "stranger").file)
    elif wrong == "plaintext to TLS":
        login = {}
    else:
        options = ("--set", f"kafka.bootstrap_servers={kafka}")
    commands: list[tuple[str, ...]] = [("streams", "worker"), ("producers.replay", str(clicks))]
    if wrong == "password":  # the tools ask as the worker does
        commands += [
            ("producers.items", "--artifact", str(site.artifact.path)),
            ("streams", "topics", "check"),
            ("streams", "tail"),
            ("streams", "audit"),
            ("streams", "deadletters", "list"),
        ]
    with acting(login):
        for command in commands:
            producer = command[0].startswith("producers")
            done = site.run(*command, *options, sections=("kafka", "topics") if producer else None)
            assert done.returncode == EXIT_CONFIG, done.stderr
            assert done.stderr.count("\n") == 1, done.stderr
            assert says in done.stderr
            assert "secret-and-wrong" not in done.stderr


@pytest.fixture(scope="module")
def secure_milvus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureMilvus]:
    try:
        require_platform()
    except EmbeddedError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("secure-milvus")
    server = SecureMilvus(Instance.in_folder(folder))
    server.start()
    yield server
    server.stop()


@pytest.mark.standalone
def test_milvus_with_token_and_tls(tmp_path: Path, kafka: str, secure_milvus: SecureMilvus) -> None:
    """One test: pymilvus keeps a connection for each address, so that a second login would not be tried."""
    address = secure_milvus.address
    assert address is not None
    site = Site(
        tmp_path,
        kafka,
        address,
        settings={"milvus.ca_file": secure_milvus.authority.file},
        environ={"MINDSTREAM_MILVUS_TOKEN": secure_milvus.token},
    )
    site.create_topics()
    site.fill_index()
    with acting({"MINDSTREAM_MILVUS_TOKEN": secure_milvus.token}), site.worker("--agents", "clicks"):
        site.producer.send([site.click(1, 5)])
        wait_for(lambda: [a.user_id for a in _answers(site)] == [1], "the recommendation")
    stranger = Authority(tmp_path / "stranger").file
    for token, override, says in (
        ("root:secret-and-wrong", "milvus.timeout=10", "milvus.token"),
        (secure_milvus.token, f"milvus.ca_file={stranger}", "milvus.ca_file"),
        (secure_milvus.token, f"milvus.uri={address.replace('https', 'http')}", "https:// in milvus.uri"),
        (secure_milvus.token, "milvus.ca_file=/nowhere/ca.pem", "milvus.ca_file"),
    ):
        with acting({"MINDSTREAM_MILVUS_TOKEN": token}):
            done = site.run("streams", "worker", "--set", override)
        assert done.returncode == EXIT_CONFIG, done.stderr
        errors = [line for line in done.stderr.splitlines() if "error: " in line or "CRITICAL" in line]
        assert len(errors) == 1, done.stderr
        assert says in errors[0]
        assert "Traceback" not in done.stderr
        assert token not in done.stderr
    index = site.index(create=True)
    index.drop()
    index.close()
