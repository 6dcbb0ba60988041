"""Deployments: names, settings and the command lines of programs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from configs.errors import ConfigError
from embedded.deployment import PRODUCER_SECTIONS, Deployment
from embedded.errors import EmbeddedError

SETTINGS = {"kafka.bootstrap_servers": "127.0.0.1:9", "recall.top_k": 20}


def test_a_name_keeps_deployments_apart(tmp_path: Path) -> None:
    config = Deployment(tmp_path, SETTINGS, name="run-1").config
    assert config.worker.group == "run-1"
    topics = config.topics
    names = [topics.clicks, topics.items, topics.recommendations, topics.dead_letters]
    assert names == ["run-1-clicks", "run-1-items", "run-1-recommendations", "run-1-dead-letters"]
    assert config.recall.top_k == 20


def test_without_a_name_topics_have_the_shipped_names_and_cannot_be_removed(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path, SETTINGS)
    assert deployment.config.topics.clicks == "clicks"
    with pytest.raises(AssertionError):
        deployment.remove_topics()


def test_settings_precede_the_options_of_a_program_which_override_them(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path, SETTINGS)
    command = deployment.command("streams", "worker", "--set", "recall.top_k=5")
    assert command[:4] == [sys.executable, "-m", "streams", "worker"]
    options = command[4:]
    assert options[::2] == ["--set"] * (len(options) // 2)
    assert options[1::2] == [*deployment.settings, "recall.top_k=5"]
    assert deployment.settings[-2:] == ["kafka.bootstrap_servers=127.0.0.1:9", "recall.top_k=20"]
    assert f"worker.data_dir={tmp_path / 'worker'}" in deployment.settings


def test_a_program_gets_the_settings_of_the_sections_that_it_has(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path, SETTINGS)
    command = deployment.command("producers.replay", "clicks.csv", "--rate", "5", sections=PRODUCER_SECTIONS)
    assert command[3:] == ["clicks.csv", "--set", "kafka.bootstrap_servers=127.0.0.1:9", "--rate", "5"]
    assert deployment.command("model.train", sections=())[3:] == []


def test_a_wrong_setting_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"recall\.topk"):
        Deployment(tmp_path, {"recall.topk": 20})


def test_check_raises_if_a_program_has_failed(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path, SETTINGS)
    deployment.start("platform", sections=()).await_success()
    deployment.check()
    failing = deployment.start("producers.replay", "no-such-file.csv", sections=())
    failing.wait(60)
    with pytest.raises(EmbeddedError, match=r"(?s)producers\.replay ended with status .*no-such-file\.csv"):
        deployment.check()
    deployment.stop()
