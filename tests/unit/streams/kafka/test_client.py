"""librdkafka's errors in this project's terms, and the settings of readers."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError

from configs.errors import FatalError, TransientError
from configs.loader import load_worker
from streams.kafka.client import is_harmless, reader_settings, translate_error


@pytest.mark.parametrize(
    "code",
    [
        KafkaError._AUTHENTICATION,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.MSG_SIZE_TOO_LARGE,
    ],
)
def test_refusals_are_fatal_and_name_the_topic(code: int) -> None:
    error = translate_error(KafkaError(code), "clicks")
    assert isinstance(error, FatalError)
    assert "clicks: " in str(error)
    assert "access rights" in str(error)


@pytest.mark.parametrize("code", [KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError.NOT_LEADER_FOR_PARTITION])
def test_all_other_errors_are_transient(code: int) -> None:
    assert isinstance(translate_error(KafkaError(code), "clicks"), TransientError)


def test_a_reader_without_a_group_ignores_missing_group_rights() -> None:
    assert is_harmless(KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED))
    assert is_harmless(KafkaError(KafkaError._PARTITION_EOF))
    assert not is_harmless(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))


def test_readers_commit_nothing_and_can_override_settings() -> None:
    settings = reader_settings(load_worker().kafka, "shop", **{"auto.offset.reset": "earliest"})
    assert settings["group.id"] == "shop"
    assert settings["enable.auto.commit"] is False
    assert settings["auto.offset.reset"] == "earliest"
    assert settings["isolation.level"] == "read_uncommitted"
