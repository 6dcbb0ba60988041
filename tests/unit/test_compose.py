"""docker-compose.yml, Dockerfile and .env.example follow the specification's schema, and our own rules beyond it.

Docker itself is not needed; `docker compose config` checks the schema by hand.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from configs.loader import ENVIRONMENT

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yml"
TEXT = COMPOSE.read_text(encoding="utf-8")
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(TEXT)["services"]
ONE_SHOT = {"topics", "folders", "train", "publish", "replay"}
LASTING = sorted(set(SERVICES) - ONE_SHOT)
OBSERVABILITY = {"prometheus", "grafana"}
OURS = sorted(name for name, service in SERVICES.items() if "build" in service)
#: ${NAME}, ${NAME:-default}, ${NAME:-…${OTHER:?message}}, ${NAME:?message}
VARIABLE = re.compile(r"\$\{([A-Z_]+)(:[-?](?:[^{}]|\{[^}]*\})*)?\}")
#: Service → entry point and command; the workers share an entry point.
COMMANDS = {name: service.get("entrypoint", []) + service.get("command", []) for name, service in SERVICES.items()}


def validate(path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_file_follows_the_compose_specification() -> None:
    result = validate(COMPOSE)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("    restart: unless-stopped", "    restrat: unless-stopped"), ("replicas: 2", "replicas: [2]")],
)
def test_the_schema_finds_errors(tmp_path: Path, right: str, wrong: str) -> None:
    assert right in TEXT
    broken = tmp_path / "docker-compose.yml"
    broken.write_text(TEXT.replace(right, wrong, 1), encoding="utf-8")
    assert validate(broken).returncode != 0


def test_services_and_profiles_are_as_documented() -> None:
    assert set(LASTING) == {"kafka", "etcd", "minio", "milvus", "item-worker", "click-worker"} | OBSERVABILITY
    assert {name for name, service in SERVICES.items() if "training" in service.get("profiles", ())} == {
        "train",
        "publish",
    }
    assert SERVICES["replay"]["profiles"] == ["replay"]
    assert {name for name, s in SERVICES.items() if s.get("profiles") == ["observability"]} == OBSERVABILITY


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_images_are_pinned(name: str) -> None:
    image, _, tag = SERVICES[name]["image"].rpartition(":")
    assert image
    assert re.search(r"\d+\.\d+|RELEASE\.\d{4}-", tag), f"{name}: {tag} names no version"


def test_base_images_are_pinned() -> None:
    bases = re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert re.fullmatch(r"python:3\.11\.\d+-slim-bookworm", bases[0])
    assert set(bases[1:]) == {"base"}


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_ports_are_published_to_this_machine_only(name: str) -> None:
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in SERVICES[name].get("ports", ()))


@pytest.mark.parametrize("name", LASTING)
def test_lasting_services_have_a_health_check_and_are_restarted(name: str) -> None:
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["test"][0] == "CMD"


@pytest.mark.parametrize("name", ["item-worker", "click-worker"])
def test_health_checks_of_workers_use_the_port_that_they_serve(name: str) -> None:
    service = SERVICES[name]
    (port,) = service["expose"]
    assert f"--set=worker.metrics_port={port}" in COMMANDS[name]
    assert f"http://127.0.0.1:{port}/healthz" in service["healthcheck"]["test"][-1]


@pytest.mark.parametrize("name", sorted(ONE_SHOT))
def test_one_shot_services_are_not_restarted(name: str) -> None:
    assert SERVICES[name]["restart"] == "no"


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_nothing_runs_as_root_or_gains_rights(name: str) -> None:
    service = SERVICES[name]
    assert re.fullmatch(r"10001:(10001|0)|65534:65534|472:0|appuser", service["user"])
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert "privileged" not in service
    assert "cap_add" not in service


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_no_service_can_take_the_whole_machine(name: str) -> None:
    service = SERVICES[name]
    assert re.fullmatch(r"(\$\{[A-Z_]+:-)?\d+g\}?", str(service["mem_limit"]))
    assert service["pids_limit"] > 0
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}


def test_only_services_that_use_milvus_have_its_token() -> None:
    holders = {name for name, s in SERVICES.items() if "MINDSTREAM_MILVUS_TOKEN" in s.get("environment", {})}
    assert holders == {"item-worker", "click-worker"}


@pytest.mark.parametrize("name", ["topics", "item-worker", "click-worker", "publish", "replay"])
def test_addresses_of_other_clusters_can_be_set(name: str) -> None:
    environment = SERVICES[name]["environment"]
    assert {key for key in ENVIRONMENT if key.startswith("MINDSTREAM_KAFKA")} <= environment.keys()
    for key in {"MINDSTREAM_KAFKA", "MINDSTREAM_MILVUS", "MINDSTREAM_MILVUS_TOKEN"} & environment.keys():
        assert environment[key].startswith(f"${{{key}:-")


def test_a_change_of_the_readme_does_not_install_again() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    (copied,) = re.findall(r"^COPY (.+) \./$", dockerfile, re.MULTILINE)
    assert copied == "pyproject.toml"
    assert "README" not in (ROOT / ".dockerignore").read_text(encoding="utf-8")


def test_both_images_end_with_the_user_that_compose_names() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    for stage in re.split(r"^FROM ", dockerfile, flags=re.MULTILINE)[2:]:
        assert re.findall(r"^USER (\S+)", stage, re.MULTILINE)[-1] == "10001:10001"


def test_passwords_come_from_the_environment() -> None:
    for name, service in SERVICES.items():
        for key, value in service.get("environment", {}).items():
            if value is not None and re.search("PASSWORD|TOKEN|SECRET|ACCESS_KEY|ROOT_USER", key):
                assert re.search(r"\$\{[A-Z_]+:\?", value), f"{name}: {key} must be required from the environment"
    assert not re.search("minioadmin|Milvus@|root:Milvus", TEXT)


def test_variables_are_documented_and_secrets_left_empty() -> None:
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    documented = dict(re.findall(r"^([A-Z_]+)=(.*)$", example, re.MULTILINE))
    used = dict(VARIABLE.findall(TEXT))
    assert set(used) == set(documented)
    for name, default in used.items():
        # Empty, too, where another variable is the default.
        assert documented[name] == (default[2:] if re.match(r":-[^$]*$", default) else ""), name


@pytest.mark.parametrize("name", OURS)
def test_all_settings_in_the_environment_exist(name: str) -> None:
    ours = {key for key in SERVICES[name].get("environment", {}) if key.startswith("MINDSTREAM_")}
    assert ours <= set(ENVIRONMENT)


@pytest.mark.parametrize("name", sorted(set(OURS) - {"folders"}))
def test_commands_name_modules_and_files_that_exist(name: str) -> None:
    command = COMMANDS[name]
    assert command[:2] == ["python", "-m"]
    assert importlib.util.find_spec(command[2]) is not None
    for file in (part for part in command if part.startswith("configs/")):
        assert (ROOT / file).is_file()


def test_the_build_context_has_the_folders_of_the_commands() -> None:
    rules = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert "*" in rules
    rooms = {COMMANDS[name][2].split(".")[0] for name in OURS if name != "folders"}
    assert {f"!{room}" for room in rooms | {"configs"}} <= set(rules)


def test_named_volumes_are_declared_and_workers_share_no_folder() -> None:
    declared = set(yaml.safe_load(TEXT)["volumes"])
    for service in SERVICES.values():
        for volume in service.get("volumes", ()):
            source, colon, _ = volume.partition(":")
            if source.startswith("./"):
                assert (ROOT / source).exists()
                assert volume.endswith(":ro")
            else:
                assert not colon or source in declared or source.startswith("${CLICKS_DIR")
    assert SERVICES["click-worker"]["environment"]["MINDSTREAM_DATA_DIR"] in SERVICES["click-worker"]["volumes"]


def test_prometheus_scrapes_every_worker_container_inside_the_network_only() -> None:
    text = (ROOT / "configs" / "observability" / "prometheus.yml").read_text(encoding="utf-8")
    jobs = {job["job_name"]: job["dns_sd_configs"] for job in yaml.safe_load(text)["scrape_configs"]}
    assert set(jobs) == {"click-worker", "item-worker"}
    for name, (found_by,) in jobs.items():
        service = SERVICES[name]
        assert found_by["names"] == [name]
        assert [str(found_by["port"])] == service["expose"]
        assert "--set=worker.metrics_host=0.0.0.0" in COMMANDS[name]
        assert "ports" not in service
        assert set(service["networks"]) <= set(SERVICES["prometheus"]["networks"])


def test_prometheus_and_grafana_find_their_files() -> None:
    folder = ROOT / "configs" / "observability"
    prometheus = {target: source for source, target in _mounts("prometheus")}
    assert "--config.file=/etc/prometheus/prometheus.yml" in SERVICES["prometheus"]["command"]
    assert ROOT / prometheus["/etc/prometheus/prometheus.yml"] == folder / "prometheus.yml"
    for file in yaml.safe_load((folder / "prometheus.yml").read_text(encoding="utf-8"))["rule_files"]:
        assert (ROOT / prometheus[file]).is_file()
    assert ("./configs/observability/grafana", "/etc/grafana/provisioning") in _mounts("grafana")
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (folder / "grafana" / home.removeprefix("/etc/grafana/provisioning/")).is_file()


def _mounts(name: str) -> list[tuple[str, str]]:
    return [(source, target) for source, target, *_ in (volume.split(":") for volume in SERVICES[name]["volumes"])]


def test_grafana_requires_a_password_and_reaches_only_prometheus() -> None:
    grafana = SERVICES["grafana"]
    assert grafana["environment"]["GF_AUTH_ANONYMOUS_ENABLED"] == "false"
    assert "GRAFANA_PASSWORD:?" in grafana["environment"]["GF_SECURITY_ADMIN_PASSWORD"]
    (network,) = grafana["networks"]
    assert {name for name, service in SERVICES.items() if network in service.get("networks", ())} == OBSERVABILITY
