"""docker-compose.yml, Dockerfile, locks and .env.example follow the specification's schema, and our rules beyond it.

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
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from configs.loader import ENVIRONMENT

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yml"
TEXT = COMPOSE.read_text(encoding="utf-8")
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(TEXT)["services"]
ONE_SHOT = {"prepare", "topics", "train", "publish", "replay", "tools"}
LASTING = sorted(set(SERVICES) - ONE_SHOT)
OBSERVABILITY = {"prometheus", "grafana"}
OURS = sorted(name for name, service in SERVICES.items() if service["image"].startswith("mindstream-"))
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
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
    assert set(LASTING) == {"kafka", "milvus", "item-worker", "click-worker", "service"} | OBSERVABILITY
    assert {name for name, service in SERVICES.items() if "training" in service.get("profiles", ())} == {
        "train",
        "publish",
    }
    assert SERVICES["replay"]["profiles"] == ["replay"]
    assert SERVICES["tools"]["profiles"] == ["tools"]
    assert {name for name, s in SERVICES.items() if s.get("profiles") == ["observability"]} == OBSERVABILITY


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_images_are_pinned(name: str) -> None:
    image, _, digest = SERVICES[name]["image"].partition("@")
    assert re.fullmatch(r"[a-z/-]+:v?\d+\.\d+\.\d+", image), f"{name}: {image} names no exact version"
    # No reliable source names the digest of Milvus' image; our own images are built here.
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", digest) or (name == "milvus" or name in OURS), f"{name}: no digest"


def test_the_client_in_the_image_belongs_to_the_version_of_milvus() -> None:
    server = SERVICES["milvus"]["image"].partition(":v")[2]
    assert LOCKED["pymilvus"].rpartition(".")[0] == server.rpartition(".")[0]


def test_base_images_are_pinned() -> None:
    (image,) = re.findall(r"^ARG PYTHON_IMAGE=(\S+)", DOCKERFILE, re.MULTILINE)
    assert re.fullmatch(r"python:3\.11\.\d+-slim-bookworm@sha256:[0-9a-f]{64}", image)
    assert re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE) == ["${PYTHON_IMAGE}"] * 2 + ["base"] * 2


def test_each_image_is_built_by_one_service_that_all_its_users_wait_for() -> None:
    builders = {SERVICES[name]["image"]: name for name in OURS if "build" in SERVICES[name]}
    assert sorted(builders.values()) == sorted(name for name in OURS if "build" in SERVICES[name])
    for name in OURS:
        builder = builders[SERVICES[name]["image"]]
        if name != builder:
            assert SERVICES[name]["pull_policy"] == "never"
            assert "service_completed_successfully" in _waits_for(name)[builder]


def _waits_for(name: str) -> dict[str, set[str]]:
    """Return the services that start before `name`, directly or not, with the conditions."""
    found: dict[str, set[str]] = {}
    for other, how in SERVICES[name].get("depends_on", {}).items():
        found.setdefault(other, set()).add(how["condition"])
        for further, conditions in _waits_for(other).items():
            found.setdefault(further, set()).update(conditions)
    return found


def test_no_service_waits_for_the_health_of_a_worker() -> None:
    """A worker without an artifact is restarted until it has one; `up -d` must not fail meanwhile."""
    for name in SERVICES:
        for worker in {"item-worker", "click-worker"} & _waits_for(name).keys():
            assert _waits_for(name)[worker] == {"service_started"}


def test_training_never_writes_over_the_model_that_workers_read() -> None:
    script = SERVICES["train"]["entrypoint"][2]
    assert SERVICES["train"]["environment"]["MODEL"] == "${MODEL:-v1}"
    guard = script.index('if [ -e "/artifacts/$$MODEL" ]')
    assert guard < script.index("exit 78") < script.index("exec python -m model.train")
    assert '"--out=/artifacts/$$MODEL"' in script
    for name in ("item-worker", "click-worker", "service", "tools"):
        assert SERVICES[name]["environment"]["MINDSTREAM_ARTIFACT"] == "/artifacts/${MODEL:-v1}"
    assert "/artifacts/${MODEL:-v1}" in SERVICES["publish"]["command"]


def test_only_the_password_of_milvus_is_required() -> None:
    """Compose checks `:?` for all services, also for those that are not started."""
    assert {name for name, default in VARIABLE.findall(TEXT) if default.startswith(":?")} == {"MILVUS_ROOT_PASSWORD"}


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_ports_are_published_to_this_machine_only(name: str) -> None:
    assert all(
        re.fullmatch(r"127\.0\.0\.1:(\d+|\$\{[A-Z_]+:-\d+\}):\d+", port) for port in SERVICES[name].get("ports", ())
    )


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
    assert holders == {"item-worker", "click-worker", "service", "tools"}


@pytest.mark.parametrize("name", ["topics", "item-worker", "click-worker", "publish", "replay", "tools"])
def test_addresses_of_other_clusters_can_be_set(name: str) -> None:
    environment = SERVICES[name]["environment"]
    assert {key for key in ENVIRONMENT if key.startswith("MINDSTREAM_KAFKA")} <= environment.keys()
    for key in {"MINDSTREAM_KAFKA", "MINDSTREAM_MILVUS", "MINDSTREAM_MILVUS_TOKEN"} & environment.keys():
        assert environment[key].startswith(f"${{{key}:-")


def locked(name: str) -> dict[str, str]:
    """Return package → exact version of a lock, all of which must have checksums."""
    text = (ROOT / name).read_text(encoding="utf-8")
    found: dict[str, str] = {}
    for entry in re.split(r"\n(?=\S)", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).strip()):
        first, *checksums = entry.replace("\\\n", "\n").splitlines()
        package, _, version = first.strip().partition("==")
        assert re.fullmatch(r"[a-z0-9-]+ [0-9][\w.]*", f"{package} {version}"), f"{name}: {first}"
        assert checksums
        assert all(re.fullmatch(r" +--hash=sha256:[0-9a-f]{64} *", line) for line in checksums), f"{name}: {package}"
        found[package] = version
    return found


LOCKED = locked("requirements-worker.txt")
LOCKED_TRAIN = locked("requirements-train.txt")


@pytest.mark.parametrize(
    ("extra", "packages"),
    [(None, LOCKED), ("service", LOCKED), ("cpu", LOCKED | LOCKED_TRAIN)],
    ids=["worker", "service", "train"],
)
def test_the_locks_agree_with_the_project_and_with_themselves(extra: str | None, packages: dict[str, str]) -> None:
    """After a change of pyproject.toml, `make lock` makes them agree."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for requirement in map(Requirement, _listed(project, "dependencies") + (_listed(project, extra) if extra else [])):
        name = canonicalize_name(requirement.name)
        assert name in packages, f"{name} is not locked: make lock"
        assert requirement.specifier.contains(packages[name]), f"{name} {packages[name]}: make lock"
    assert not LOCKED.keys() & LOCKED_TRAIN.keys()


def _listed(toml: str, key: str) -> list[str]:
    """Return the strings of a list. Python 3.10 has no reader of TOML."""
    (body,) = re.findall(rf"^{key} = \[(.*?)\](?: *#.*)?$", toml, re.MULTILINE | re.DOTALL)
    found = re.findall(r'"([^"]+)"', body)
    assert found
    return found


def test_locks_have_no_addresses() -> None:
    for name in ("requirements-worker.txt", "requirements-train.txt"):
        assert not re.search(r"://|--(extra-)?index|--find-links|@ ", (ROOT / name).read_text(encoding="utf-8"))


def test_images_install_the_locks_only_and_before_the_code_is_copied() -> None:
    for stage, lock in (("base", "worker"), ("train", "train")):
        (text,) = re.findall(rf"^FROM \S+ AS {stage}\n(.*?)(?=^FROM|\Z)", DOCKERFILE, re.MULTILINE | re.DOTALL)
        installs = re.findall(r"pip install (.+)", text)
        assert installs == [f"--require-hashes --only-binary :all: -r requirements-{lock}.txt"]
        copied = text.find("COPY --from=source /source .\n")
        assert copied == -1 or text.index("pip install") < copied
    rules = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert "!requirements-*.txt" in rules
    assert "!pyproject.toml" not in rules


def test_the_code_in_the_images_is_readable_whatever_the_umask_of_the_checkout_was() -> None:
    (source,) = re.findall(r"^FROM \S+ AS source\n(.*?)(?=^FROM)", DOCKERFILE, re.MULTILINE | re.DOTALL)
    assert re.search(r"^RUN chmod -R u=rwX,go=rX \.$", source, re.MULTILINE)
    assert len(re.findall(r"^COPY (?!--from=source)", DOCKERFILE, re.MULTILINE)) == 1


def test_the_images_have_the_bytecode_that_read_only_containers_cannot_keep() -> None:
    _, base, *ours = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]
    assert re.search(r"^RUN python -m compileall -q .* /usr/local/lib/python3\.11$", base, re.MULTILINE)
    for stage in ours:
        assert "COPY --from=source /source .\nRUN python -m compileall -q .\n" in stage


def test_both_images_end_with_the_user_that_compose_names() -> None:
    for stage in re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[3:]:
        assert re.findall(r"^USER (\S+)", stage, re.MULTILINE)[-1] == "10001:10001"


def test_passwords_come_from_the_environment() -> None:
    for name, service in SERVICES.items():
        for key, value in service.get("environment", {}).items():
            if value is not None and re.search("PASSWORD|TOKEN|SECRET", key) and name != "grafana":
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
    assert ours <= set(ENVIRONMENT) | {"MINDSTREAM_HINT"}


@pytest.mark.parametrize("name", sorted(set(OURS) - {"prepare"}))
def test_commands_name_modules_and_files_that_exist(name: str) -> None:
    command = _words(name)
    assert command[:2] == ["python", "-m"]
    assert importlib.util.find_spec(command[2]) is not None
    for file in (part for part in command if part.startswith("configs/")):
        assert (ROOT / file).is_file()


def _words(name: str) -> list[str]:
    """Return the words of the program that a service runs; that of `train` is in a script."""
    if name == "train":
        script: str = SERVICES[name]["entrypoint"][2]
        return script.partition("exec ")[2].split()
    return list(COMMANDS[name])


def test_the_build_context_has_the_folders_of_the_commands() -> None:
    rules = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert "*" in rules
    rooms = {_words(name)[2].split(".")[0] for name in OURS if name != "prepare"}
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


def test_the_service_is_reached_from_this_machine_under_its_names_only() -> None:
    assert {
        "--set=service.host=0.0.0.0",
        "--set=service.allowed_hosts=[${SERVICE_HOSTS:-localhost,127.0.0.1,service}]",
    } <= set(COMMANDS["service"])
    assert SERVICES["service"]["healthcheck"]["test"][-1].count("http://127.0.0.1:8080/healthz") == 1
    assert SERVICES["service"]["environment"]["MINDSTREAM_SERVICE_DATA_DIR"] in SERVICES["service"]["volumes"]


def test_all_variables_of_the_service_reach_it() -> None:
    """A token that Compose leaves out would leave reads open."""
    ours = {name for name in ENVIRONMENT if name.startswith("MINDSTREAM_SERVICE_")}
    assert ours <= SERVICES["service"]["environment"].keys()


def test_prometheus_scrapes_every_worker_container_inside_the_network_only() -> None:
    text = (ROOT / "configs" / "observability" / "prometheus.yml").read_text(encoding="utf-8")
    jobs = {job["job_name"]: job["dns_sd_configs"] for job in yaml.safe_load(text)["scrape_configs"]}
    assert set(jobs) == {"click-worker", "item-worker", "service"}
    for name, (found_by,) in jobs.items():
        service = SERVICES[name]
        assert found_by["names"] == [name]
        assert [str(found_by["port"])] == service["expose"]
        if name != "service":
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
    script = grafana["entrypoint"][2]
    assert script.index('if [ -z "$$GF_SECURITY_ADMIN_PASSWORD" ]') < script.index("exit 78") < script.index("exec")
    (network,) = grafana["networks"]
    assert {name for name, service in SERVICES.items() if network in service.get("networks", ())} == OBSERVABILITY


def test_milvus_needs_no_other_service() -> None:
    milvus = SERVICES["milvus"]
    assert milvus["environment"]["COMMON_STORAGETYPE"] == "local"
    (mounted,) = milvus["configs"]
    assert mounted["target"] == milvus["environment"]["ETCD_CONFIG_PATH"]
    etcd = yaml.safe_load(yaml.safe_load(TEXT)["configs"][mounted["source"]]["content"])
    assert etcd["listen-client-urls"] == "http://127.0.0.1:2379", "only for Milvus itself"
    (volume,) = milvus["volumes"]
    assert milvus["environment"]["ETCD_DATA_DIR"].startswith(volume.partition(":")[2])
