"""Settings: one place for defaults, and errors that name file, key and remedy."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from configs.errors import ConfigError
from configs.loader import (
    ENVIRONMENT,
    FOLDER,
    load_fusion,
    load_profile,
    load_replay,
    load_service,
    load_train,
    load_worker,
)
from configs.schema import FusionConfig, ProfileConfig, ReplayConfig, ServiceConfig, TrainConfig, WorkerConfig

LOADERS = {
    "worker": load_worker,
    "service": load_service,
    "replay": load_replay,
    "mind": load_train,
    "fusion": load_fusion,
    "profile": load_profile,
}


def _file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "my.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(("name", "loader"), LOADERS.items())
def test_shipped_files_load_and_may_also_be_given_with_c(name: str, loader: Callable[..., BaseModel]) -> None:
    assert loader(None, (), {}) == loader(FOLDER / f"{name}.yaml", (), {})


def test_layers_override_in_order(tmp_path: Path) -> None:
    path = _file(tmp_path, "recall: {top_k: 10}\nkafka: {bootstrap_servers: 'a:1'}\nmilvus: {uri: 'http://a:1'}")
    config = load_worker(path, ["recall.top_k=20"], {"MINDSTREAM_KAFKA": "b:2,c:3"})
    assert config.recall.top_k == 20
    assert config.kafka.bootstrap_servers == "b:2,c:3"
    assert config.milvus.uri == "http://a:1"
    assert (
        load_worker(path, ["kafka.bootstrap_servers=d:4"], {"MINDSTREAM_KAFKA": "b:2"}).kafka.bootstrap_servers == "d:4"
    )
    assert config.recall.filter_seen is True, "other keys come from the shipped files"


@pytest.mark.parametrize(
    ("text", "needles"),
    [
        ("recall: {topk: 3}", ["my.yaml", "'recall.topk'", "did you mean 'recall.top_k'"]),
        ("recal: {}", ["my.yaml", "'recal'", "did you mean 'recall'"]),
        ("recall: {zebra: 1}", ["my.yaml", "'recall.zebra'", "known: top_k"]),
        ("recall: {top_k: many}", ["my.yaml", "'recall.top_k'", "valid integer"]),
        ("recall: {top_k: 0}", ["my.yaml", "'recall.top_k'", "greater than or equal to 1"]),
        ("recall: 5", ["my.yaml", "'recall' is a section", "top_k"]),
        ("kafka: {bootstrap_servers: nowhere}", ["my.yaml", "'kafka.bootstrap_servers'"]),
        ("kafka: {security_protocol: SASL_SSL}", ["MINDSTREAM_KAFKA_PASSWORD"]),
        ("kafka: {certificate_file: me.pem}", ["certificate_file and key_file go together"]),
        ("recall: [", ["my.yaml", "not valid YAML"]),
        ("- 1", ["my.yaml", "sections"]),
    ],
)
def test_errors_name_file_key_and_remedy(tmp_path: Path, text: str, needles: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_worker(_file(tmp_path, text), (), {})
    for needle in needles:
        assert needle in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "remedy"),
    [
        ("network.start=learned", "network.start: fixed"),
        ("network.routing_map=learned", "network.routing_map: identity"),
        ("loss.routing_variance=1", "loss.routing_variance: 0"),
    ],
)
def test_weights_that_training_cannot_learn_are_refused(setting: str, remedy: str) -> None:
    on_the_mean = ["network.routing_map=identity", "loss.readout=mean"]
    load_train(None, on_the_mean, {})
    with pytest.raises(ConfigError, match=f"^configuration: .*loss.readout: mean.* set {remedy}, or"):
        load_train(None, [*on_the_mean, setting], {})
    load_train(None, [setting, "loss.readout=max"], {})


def test_a_missing_file_and_a_broken_override_are_named() -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: cannot be read"):
        load_worker(Path("nowhere.yaml"), (), {})
    with pytest.raises(ConfigError, match="expected key=value"):
        load_worker(None, ["recall.top_k"], {})
    with pytest.raises(ConfigError, match=r"--set recall\.topk=1: unknown key"):
        load_worker(None, ["recall.topk=1"], {})
    with pytest.raises(ConfigError, match="environment variable MINDSTREAM_KAFKA"):
        load_worker(None, (), {"MINDSTREAM_KAFKA": "no port"})


def test_secrets_stay_out_of_repr_and_errors() -> None:
    environ = {"MINDSTREAM_KAFKA_PASSWORD": "hunter2", "MINDSTREAM_MILVUS_TOKEN": "root:hunter3"}
    overrides = ["kafka.security_protocol=SASL_SSL", "kafka.username=u"]
    config = load_worker(None, overrides, environ)
    assert "hunter" not in repr(config) + str(config) + config.model_dump_json()
    assert config.kafka.client_settings()["sasl.password"] == "hunter2"
    assert "username (u), password, " in config.kafka.refusal_text("why")
    assert "hunter" not in config.kafka.refusal_text("why")
    with pytest.raises(ConfigError) as caught:
        load_worker(None, [*overrides, "recall.top_k=x"], environ)
    assert "hunter" not in str(caught.value)


def _leaves(schema: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in schema.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            yield from _leaves(section, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def test_every_environment_variable_sets_an_existing_key_and_is_documented() -> None:
    keys = set(_leaves(ServiceConfig))
    shipped = "".join((FOLDER / name).read_text() for name in ("kafka.yaml", "worker.yaml", "service.yaml"))
    for variable, key in ENVIRONMENT.items():
        assert key in keys
        assert variable in shipped


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        (WorkerConfig, ["kafka.yaml", "worker.yaml"]),
        (ServiceConfig, ["kafka.yaml", "worker.yaml", "service.yaml"]),
        (ReplayConfig, ["kafka.yaml", "replay.yaml"]),
        (TrainConfig, ["mind.yaml"]),
        (FusionConfig, ["fusion.yaml"]),
        (ProfileConfig, ["profile.yaml"]),
    ],
)
def test_every_key_is_in_the_shipped_files_with_a_comment(schema: type[BaseModel], files: list[str]) -> None:
    shipped: set[str] = set()
    for name in files:
        text = (FOLDER / name).read_text()
        for section, keys in yaml.safe_load(text).items():
            shipped |= {f"{section}.{key}" for key in keys}
        previous = ""
        for line in text.splitlines():
            if line.startswith("  ") and not line.strip().startswith("#"):
                assert previous.strip().startswith("#") or previous.startswith("  "), f"{name}: no comment above {line}"
            previous = line
    assert shipped == set(_leaves(schema))


def test_settings_cannot_be_changed_after_loading() -> None:
    config = load_worker(None, (), {})
    with pytest.raises(ValueError, match="frozen"):
        config.recall.top_k = 1


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("service.max_users=300", "max_users must be at most batch_users and queue_users"),
        ("service.max_top_k=15000", "at most 16384 together"),
        ("service.cors_origins=['*']", "service.cors_origins"),
    ],
)
def test_limits_of_the_service_that_cannot_work_together_are_refused(setting: str, text: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(text)):
        load_service(None, [setting], {})
