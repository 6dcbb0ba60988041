"""Load the YAML files of this folder, the only place with defaults, into typed, frozen settings.

Layers; later ones override earlier ones: the shipped files of this folder, the file given with ``-c`` (it needs only
the keys that it changes), environment variables, ``--set key=value``. Every layer is checked: an unknown key or a wrong
value raises `ConfigError`, which names the layer, the key and the remedy.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from configs.errors import ConfigError
from configs.schema import FusionConfig, ProfileConfig, ReplayConfig, ServiceConfig, TrainConfig, WorkerConfig

FOLDER = Path(__file__).parent

#: Environment variable → key. Addresses, credentials and paths only; everything else belongs in a file.
ENVIRONMENT = {
    "MINDSTREAM_KAFKA": "kafka.bootstrap_servers",
    "MINDSTREAM_KAFKA_SECURITY_PROTOCOL": "kafka.security_protocol",
    "MINDSTREAM_KAFKA_USERNAME": "kafka.username",
    "MINDSTREAM_KAFKA_PASSWORD": "kafka.password",
    "MINDSTREAM_KAFKA_CA_FILE": "kafka.ca_file",
    "MINDSTREAM_MILVUS": "milvus.uri",
    "MINDSTREAM_MILVUS_TOKEN": "milvus.token",
    "MINDSTREAM_ARTIFACT": "model.artifact",
    "MINDSTREAM_DATA_DIR": "worker.data_dir",
    "MINDSTREAM_SERVICE_DATA_DIR": "service.data_dir",
    "MINDSTREAM_SERVICE_READ_TOKEN": "service.read_token",
    "MINDSTREAM_SERVICE_WRITE_TOKEN": "service.write_token",
    "MINDSTREAM_SERVICE_ADMIN_TOKEN": "service.admin_token",
    "MINDSTREAM_SERVICE_READ_TOKEN_FILE": "service.read_token_file",
    "MINDSTREAM_SERVICE_WRITE_TOKEN_FILE": "service.write_token_file",
    "MINDSTREAM_SERVICE_ADMIN_TOKEN_FILE": "service.admin_token_file",
}

Tree = dict[str, Any]
Config = TypeVar("Config", bound=BaseModel)


def load_worker(
    path: Path | None = None, overrides: Iterable[str] = (), environ: Mapping[str, str] = os.environ
) -> WorkerConfig:
    """Load the settings of the streaming worker and its tools."""
    return _load(WorkerConfig, ("kafka.yaml", "worker.yaml"), path, overrides, environ)


def load_service(
    path: Path | None = None, overrides: Iterable[str] = (), environ: Mapping[str, str] = os.environ
) -> ServiceConfig:
    """Load the settings of the recall service."""
    return _load(ServiceConfig, ("kafka.yaml", "worker.yaml", "service.yaml"), path, overrides, environ)


def load_replay(
    path: Path | None = None, overrides: Iterable[str] = (), environ: Mapping[str, str] = os.environ
) -> ReplayConfig:
    """Load the settings of the producers."""
    return _load(ReplayConfig, ("kafka.yaml", "replay.yaml"), path, overrides, environ)


def load_train(
    path: Path | None = None, overrides: Iterable[str] = (), environ: Mapping[str, str] = os.environ
) -> TrainConfig:
    """Load the settings of training."""
    return _load(TrainConfig, ("mind.yaml",), path, overrides, environ)


def load_fusion(
    path: Path | None = None, overrides: Iterable[str] = (), environ: Mapping[str, str] = os.environ
) -> FusionConfig:
    """Load the settings of the fusion model."""
    return _load(FusionConfig, ("fusion.yaml",), path, overrides, environ)


def load_profile(
    path: Path | None = None, overrides: Iterable[str] = (), environ: Mapping[str, str] = os.environ
) -> ProfileConfig:
    """Load the settings of the profile tower."""
    return _load(ProfileConfig, ("profile.yaml",), path, overrides, environ)


def _load(
    schema: type[Config],
    shipped: Iterable[str],
    path: Path | None,
    overrides: Iterable[str],
    environ: Mapping[str, str],
) -> Config:
    layers = [(str(FOLDER / name), _read(FOLDER / name)) for name in shipped]
    if path is not None:
        layers.append((str(path), _read(path)))
    for variable, key in ENVIRONMENT.items():
        # A variable of a section that the schema lacks is ignored: a producer may run with MINDSTREAM_MILVUS.
        if variable in environ and key.split(".")[0] in schema.model_fields:
            layers.append((f"environment variable {variable}", _nested(key, environ[variable])))
    layers.extend((f"--set {item}", _parse_override(item)) for item in overrides)

    merged: Tree = {}
    origin: dict[str, str] = {}
    for source, tree in layers:
        _check_keys(schema, tree, source)
        _merge(merged, tree, source, origin)
    try:
        return schema.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(_explain(error, origin)) from None


def _read(path: Path) -> Tree:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); check the path given with -c") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected sections such as 'recall:' at the top level, found {type(tree).__name__}")
    return tree


def _parse_override(item: str) -> Tree:
    key, separator, text = item.partition("=")
    if not separator or not key:
        raise ConfigError(f"--set {item}: expected key=value, for example --set recall.top_k=20")
    try:
        return _nested(key, yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {item}: the value is not valid YAML: {error}") from None


def _nested(dotted: str, value: Any) -> Tree:
    for part in reversed(dotted.split(".")):
        value = {part: value}
    return value  # type: ignore[no-any-return]  # at least one part: a dict


def _check_keys(schema: type[BaseModel], tree: Tree, source: str, prefix: str = "") -> None:
    for key, value in tree.items():
        field = schema.model_fields.get(str(key))
        if field is None:
            close = difflib.get_close_matches(str(key), schema.model_fields, n=1)
            hint = f"did you mean '{prefix}{close[0]}'?" if close else f"known: {', '.join(schema.model_fields)}"
            raise ConfigError(f"{source}: unknown key '{prefix}{key}'; {hint}")
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            if not isinstance(value, dict):
                keys = ", ".join(section.model_fields)
                raise ConfigError(f"{source}: '{prefix}{key}' is a section; write its keys ({keys}) below it")
            _check_keys(section, value, source, f"{prefix}{key}.")


def _merge(into: Tree, tree: Tree, source: str, origin: dict[str, str], prefix: str = "") -> None:
    for key, value in tree.items():
        if isinstance(value, dict):
            _merge(into.setdefault(key, {}), value, source, origin, f"{prefix}{key}.")
        else:
            into[key] = value
            origin[f"{prefix}{key}"] = source


def _explain(error: ValidationError, origin: dict[str, str]) -> str:
    lines = []
    for fault in error.errors(include_url=False, include_input=False, include_context=False):
        key = ".".join(str(part) for part in fault["loc"])
        source = _source_of(key, origin)
        # An error that concerns several sections has no single key; its message names the keys.
        subject = f"{source}: '{key}'" if key else source
        lines.append(f"{subject}: {fault['msg']}; see the comments of the keys in {FOLDER}")
    return "\n".join(lines)


def _source_of(key: str, origin: dict[str, str]) -> str:
    """Return the layer of a key, or of the list that it is part of."""
    while key and key not in origin:
        key = key.rpartition(".")[0]
    return origin.get(key, "configuration")
