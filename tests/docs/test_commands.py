"""Every command, option, make target, configuration key, variable and link in the documents exists.

Every command has a `--help` with a description and an example, and ends with the documented exit statuses.
"""

from __future__ import annotations

import difflib
import importlib.util
import re
import runpy
import subprocess
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from pydantic import BaseModel

from configs.errors import EXIT_CONFIG, EXIT_FAILURE
from configs.loader import ENVIRONMENT
from configs.schema import FusionConfig, ProfileConfig, ReplayConfig, ServiceConfig, TrainConfig
from embedded.__main__ import NOTHING_RUNS
from tests.docs.documents import ROOT, Command, anchors, commands, documents, links, module_of, spans, split

#: Every program of the project, as in `python -m NAME`. `python -m producers` only lists the producers.
PROGRAMS = (
    "streams",
    "embedded",
    "producers.generate",
    "producers.replay",
    "producers.items",
    "producers.ratings",
    "producers.movielens",
    "model.train",
    "model.evaluate",
    "model.explain",
    "model.fusion.train",
    "model.fusion.movies",
    "model.fusion.recommend",
    "model.fusion.evaluate",
    "model.profile",
    "model.profile.evaluate",
    "benchmarks.quality",
    "benchmarks.distinctness",
    "benchmarks",
    "tests.chaos",
    "tests.browser",
)
ROOMS = {"configs", "model", "streams", "producers", "embedded", "benchmarks", "tests"}
#: Environment variables of the project that set no configuration key.
OTHER_VARIABLES = {"MINDSTREAM_DATA"}
#: Suffixes for which `name.suffix` is a file, not a configuration key.
FILES = {"yaml", "yml", "md", "py", "json", "toml", "csv", "npy", "npz", "txt", "gz", "xz", "db", "log", "png"}

ALL_COMMANDS = [command for path in documents() for command in commands(path)]


@cache
def import_program(module: str) -> click.Command:
    """Return the command behind `python -m MODULE`, one of `PROGRAMS`."""
    is_package = (ROOT / module.replace(".", "/")).is_dir()
    command = import_module(f"{module}.__main__" if is_package else module).main
    assert isinstance(command, click.Command)
    return command


@cache
def _help(module: str, *path: str) -> str:
    done = CliRunner().invoke(import_program(module), [*path, "--help"], prog_name=f"python -m {module}")
    assert done.exit_code == 0, done.output
    return done.output


def _paths(command: click.Command, *path: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield a command and all commands below it, with their paths."""
    yield path, command
    if isinstance(command, click.Group):
        for name, part in command.commands.items():
            yield from _paths(part, *path, name)


def _keys() -> dict[str, set[str]]:
    """Return section → keys of all configurations."""
    found: dict[str, set[str]] = {}
    for config in (ServiceConfig, ReplayConfig, TrainConfig, FusionConfig, ProfileConfig):
        for section, field in config.model_fields.items():
            assert isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
            found.setdefault(section, set()).update(field.annotation.model_fields)
    return found


KEYS = _keys()
TARGETS = set(re.findall(r"^([A-Za-z][\w-]*):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE))
MAKE_VARIABLES = set(re.findall(r"\$\((?:if \$\()?([A-Z]+)\)", (ROOT / "Makefile").read_text()))
#: Variables of the Makefile that users do not set.
INTERNAL_VARIABLES = {"CURDIR", "PY", "PYTEST", "STAMP", "UV", "VENV"}


def test_commands_are_found_in_the_documents() -> None:
    assert any(command.words[0] == "make" for command in ALL_COMMANDS)
    assert {module_of(command) for command in ALL_COMMANDS} >= {"streams", "producers.replay", "producers.items"}


@pytest.mark.parametrize("command", [c for c in ALL_COMMANDS if c.words[0] == "make"], ids=str)
def test_make_commands(command: Command) -> None:
    words = [word for word in command.words[1:] if not word.startswith("-")]
    assert {word for word in words if "=" not in word} <= TARGETS
    assert {word.split("=")[0] for word in words if "=" in word} <= MAKE_VARIABLES


@pytest.mark.parametrize("command", [c for c in ALL_COMMANDS if c.words[0] != "make"], ids=str)
def test_python_commands(command: Command) -> None:
    module = module_of(command)
    assert module is not None
    assert importlib.util.find_spec(module) is not None, f"there is no module {module}"
    if module.split(".")[0] in ROOMS and module != "producers":
        assert module in PROGRAMS, f"{module} is no program: add it to PROGRAMS"
        _check_arguments(module, list(command.words[3:]))


def _check_arguments(module: str, words: list[str]) -> None:
    """Check that sub-commands exist, that their help has the options, and that keys given with --set exist."""
    part = import_program(module) if module in PROGRAMS else None
    path: list[str] = []
    while isinstance(part, click.Group) and words and not words[0].startswith("-"):
        assert words[0] in part.commands, f"{module} has no command {words[0]!r}"
        path.append(words.pop(0))
        part = part.commands[path[-1]]
    shown = _help(module, *path)
    for position, word in enumerate(words):
        option, _, value = word.partition("=")
        if not option.startswith("-") or option == "-":
            continue
        assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", shown), f"no option {option} in the help"
        if option == "--set":
            key = (value or words[position + 1]).split("=")[0]
            assert _is_known(key) or module == "benchmarks", f"there is no configuration key {key}"


def _is_known(key: str) -> bool:
    section, _, name = key.partition(".")
    return section == "section" or name in KEYS.get(section, set())  # `section.key` is a placeholder


def test_configuration_keys_exist() -> None:
    for path in documents():
        for span in spans(path):
            match = re.fullmatch(r"(?:--set )?([a-z_]+)\.([a-z_]+)(?:=\S*)?", span)
            if match is None or match[2] in FILES or _is_module(*match.groups()):
                continue
            # A name close to that of a section is a misspelled section.
            if difflib.get_close_matches(match[1], KEYS, n=1, cutoff=0.8):
                assert _is_known(f"{match[1]}.{match[2]}"), f"{path.name}: there is no configuration key {span}"


def test_make_clean_keeps_the_files_of_users_and_purge_deletes_them() -> None:
    kept = {"artifacts", "runs", ".mindstream"}
    removed = {target: set(_make("-n", target).split()) for target in ("clean", "purge")}
    assert not kept & removed["clean"]
    assert kept | removed["clean"] <= removed["purge"]


def test_make_help_names_all_targets_and_variables() -> None:
    shown = _make("help")
    for name in (TARGETS | MAKE_VARIABLES) - INTERNAL_VARIABLES:
        assert re.search(rf"\b{name}\b", shown), f"make help does not name {name}"


def _make(*words: str) -> str:
    return subprocess.run(["make", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_files_exist() -> None:
    """Check that paths below the project's folders, in code spans and commands, are files of this checkout."""
    for path in documents():
        named = [*spans(path), *(word for command in commands(path) for word in command.words)]
        for name in re.findall(rf"(?<![\w./])(?:{'|'.join(ROOMS)})/[\w./-]+\.\w+", " ".join(named)):
            assert (ROOT / name).exists(), f"{path.relative_to(ROOT)}: there is no file {name}"


def _is_module(room: str, name: str) -> bool:
    return any((ROOT / room / part).exists() for part in (f"{name}.py", name))


def test_environment_variables_exist() -> None:
    known = ENVIRONMENT.keys() | OTHER_VARIABLES
    for path in documents():
        for name in set(re.findall(r"MINDSTREAM_[A-Z_]+\*?", path.read_text())):
            prefix = name.rstrip("*")
            found = [n for n in known if n == name or (name != n and prefix.endswith("_") and n.startswith(prefix))]
            assert found, f"{path.name}: there is no environment variable {name}"


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_local_links_have_a_target(path: Path) -> None:
    for link in links(path):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file) if file else path
        assert target.exists(), f"{path.name} links to {file}, which does not exist"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{path.name} links to {link}; headings there: {sorted(anchors(target))}"


@pytest.mark.parametrize("module", PROGRAMS)
def test_every_command_explains_itself(module: str) -> None:
    for path, command in _paths(import_program(module)):
        shown = _help(module, *path)
        assert (command.help or "").strip(), f"{module} {path}: no description"
        assert "-h, --help" in shown, f"{module} {path}: no -h"
        # A group within a group lists its commands; they have the examples.
        if not path or not isinstance(command, click.Group):
            assert "Example" in shown and f"python -m {module}" in shown, f"{module} {path}: no example"
            for line in shown.splitlines():
                _check_example(module, line)


def _check_example(module: str, line: str) -> None:
    """Check the examples of the help like the commands of the documents."""
    line = re.sub(r"\s{3,}.*", "", line.strip().removeprefix("Example: "))  # without the explanation after it
    if not line.startswith("python -m "):
        return
    for words in split(line):
        if words[:2] == ("python", "-m") and words[2] in PROGRAMS:
            _check_arguments(words[2], list(words[3:]))


#: Arguments without which a command line is refused before the settings are read.
REQUIRED = {
    ("producers.replay",): [str(ROOT / "README.md")],
    ("producers.items",): ["--artifact", "missing"],
    ("model.explain",): ["--user", "1"],
    ("model.fusion.movies",): ["-f", "missing"],
    ("model.profile.evaluate",): ["--test", "missing"],
    ("streams", "deadletters", "show"): ["clicks/0/0"],
}
CONFIGURED = [
    (module, *path)
    for module in PROGRAMS
    for path, command in _paths(import_program(module))
    if any(parameter.name == "config_path" for parameter in command.params)
]


@pytest.mark.parametrize("names", CONFIGURED, ids=" ".join)
@pytest.mark.parametrize(("option", "text"), [("--set", "foo.bar=1"), ("-c", "missing.yaml")])
def test_wrong_settings_end_every_program_with_78(names: tuple[str, ...], option: str, text: str) -> None:
    module, *path = names
    done = CliRunner().invoke(import_program(module), [*path, *REQUIRED.get(names, []), option, text])
    assert done.exit_code == EXIT_CONFIG, done.output
    assert done.stderr.startswith("Error: ") and text in done.stderr


@pytest.mark.parametrize(
    ("module", "arguments", "status"),
    [
        ("producers.generate", ["--out", "missing/clicks.csv"], EXIT_FAILURE),
        ("producers.replay", ["missing.csv"], 2),
        ("producers.items", ["--artifact", "missing"], EXIT_CONFIG),
        ("model.train", ["--data", "missing.csv"], EXIT_FAILURE),
        ("model.train", ["--resume", "missing"], EXIT_CONFIG),
        ("model.evaluate", ["--test", "missing.csv"], EXIT_FAILURE),
        ("model.explain", ["--user", "1", "--artifact", "missing"], EXIT_FAILURE),
        ("model.profile", [], EXIT_CONFIG),
        ("model.profile", ["-c", str(ROOT / "configs/profile-movielens.yaml"), "--artifact", "missing"], EXIT_FAILURE),
        ("model.profile.evaluate", ["--test", "missing.csv", "--artifact", "missing"], EXIT_FAILURE),
        ("producers.movielens", ["--data", "missing", "--out", "missing"], EXIT_FAILURE),
        ("benchmarks.distinctness", ["--artifact", "missing", "--test", "missing.csv"], EXIT_FAILURE),
        ("benchmarks", ["encoder", "--json", "missing/figures.json"], EXIT_FAILURE),
        ("embedded", ["status", "--dir", "missing"], NOTHING_RUNS),
    ],
)
def test_a_missing_file_is_one_error_with_its_status(
    module: str, arguments: list[str], status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(import_program(module), arguments)
    assert done.exit_code == status, done.output
    assert isinstance(done.exception, SystemExit), "an error is a message, not a traceback"


def test_the_overview_of_the_producers_names_all(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_module("producers", run_name="__main__")
    named = set(re.findall(r"python -m (producers\.\w+)", capsys.readouterr().out))
    assert named == {program for program in PROGRAMS if program.startswith("producers.")}
