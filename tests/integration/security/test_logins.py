"""Ways to log in to Kafka, and errors when a login fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.errors import EXIT_CONFIG
from tests.integration.security.secure_servers import Authority, SecureKafka
from tests.integration.security.secure_site import SecureSite, acting
from tests.site import wait_for

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("way", ["SCRAM-SHA-256", "PLAIN", "certificate"])
def test_other_ways_to_log_in(site: SecureSite, broker: SecureKafka, way: str) -> None:
    """Both clients of the worker, librdkafka and aiokafka, log in, always as the user `worker`."""
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
        wait_for(lambda: [a.user_id for a in site.recommendations()] == [1], "the recommendation")


WRONG = ["password", "user", "authority", "plaintext to TLS", "TLS to plaintext"]


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_credentials_are_one_clear_error(
    wrong: str, site: SecureSite, broker: SecureKafka, kafka: str, tmp_path: Path
) -> None:
    clicks = tmp_path / "clicks.csv"
    clicks.write_text("1,2,0\n")
    login, options = broker.login("worker"), tuple[str, ...]()
    expected = {
        "password": "password",
        "user": "username (unknown)",
        "authority": "ca_file",
        "plaintext to TLS": "security_protocol",
        "TLS to plaintext": "security_protocol",
    }[wrong]
    if wrong == "password":
        login["MINDSTREAM_KAFKA_PASSWORD"] = "secret-and-wrong"  # noqa: S105
    elif wrong == "user":
        login["MINDSTREAM_KAFKA_USERNAME"] = "unknown"
    elif wrong == "authority":
        login["MINDSTREAM_KAFKA_CA_FILE"] = str(Authority(tmp_path / "another").file)
    elif wrong == "plaintext to TLS":
        login = {}
    else:
        options = ("--set", f"kafka.bootstrap_servers={kafka}")
    commands: list[tuple[str, ...]] = [("streams", "worker"), ("producers.replay", str(clicks))]
    if wrong == "password":  # the tools log in like the worker
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
            assert expected in done.stderr
            assert "secret-and-wrong" not in done.stderr
