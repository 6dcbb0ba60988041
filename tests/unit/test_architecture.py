"""The direction of imports between rooms, the rooms that may import a library, and the place of every test file."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("configs", "model", "streams", "producers", "embedded", "benchmarks")

#: Room → rooms that it may import.
ALLOWED = {
    "configs": set(),
    "model": {"configs"},
    "streams": {"configs", "model"},
    "producers": {"configs", "model", "streams"},
    "embedded": {"configs", "model", "streams", "producers"},
    "benchmarks": {"configs", "model", "streams", "producers", "embedded"},
}
#: Modules directly in streams/, which every room there may import.
STREAMS_ROOT = {"clock", "errors", "history", "metrics", "partitioning", "ports", "tls"}
#: Room or module inside streams/ → the others inside streams/ that it may import.
INSIDE_STREAMS = {
    **dict.fromkeys(STREAMS_ROOT, STREAMS_ROOT),
    "messages": STREAMS_ROOT,
    "recall": STREAMS_ROOT,
    "processing": STREAMS_ROOT | {"messages", "recall"},
    "kafka": STREAMS_ROOT,
    "milvus": STREAMS_ROOT | {"recall"},
    "state": STREAMS_ROOT | {"kafka"},
    "agents": STREAMS_ROOT,
    "tools": STREAMS_ROOT | {"kafka", "messages", "milvus", "processing", "recall", "state"},
    "worker": STREAMS_ROOT | {"agents", "kafka", "messages", "milvus", "processing", "recall", "state"},
    "service": STREAMS_ROOT | {"kafka", "messages", "milvus", "processing", "recall", "state", "worker"},
}
#: Room or module inside model/ → the others inside model/ that it may import. The commands may import all of them.
INSIDE_MODEL = {
    "arrays": set(),
    "figures": set(),
    "artifact_folder": set(),
    "artifact": {"arrays", "artifact_folder"},
    "data": {"arrays"},
    "serving": {"arrays", "artifact", "artifact_folder"},
    "evaluation": {"arrays", "artifact", "data", "figures", "serving"},
    "explanation": {"arrays", "artifact", "data", "evaluation", "figures", "serving"},
    "training": {"arrays", "artifact", "data", "figures", "serving"},
    "fusion": {"arrays", "artifact_folder", "data", "evaluation", "training"},
    "profile": {"arrays", "artifact", "data", "evaluation", "serving", "training"},
}
MODEL_COMMANDS = {"model/train.py", "model/evaluate.py", "model/explain.py"}
#: Rooms without I/O and without frameworks.
PURE = (
    "model/arrays.py",
    "model/serving",
    "streams/messages",
    "streams/recall",
    "streams/processing",
    "streams/clock.py",
    "streams/errors.py",
    "streams/history.py",
    "streams/partitioning.py",
    "streams/ports.py",
    "streams/metrics.py",
    "streams/agents/assignment.py",
    "streams/agents/batching.py",
    "streams/agents/commits.py",
    "streams/agents/pipeline.py",
    "streams/agents/retrying.py",
    "streams/agents/state.py",
)
PURE_MAY = {"numpy", "orjson", "prometheus_client"}
#: Library → the only rooms and modules that may import it.
ONLY_IN = {
    "faust": ("streams/agents", "streams/worker/process.py", "benchmarks/yardsticks/plain_faust.py"),
    "aiokafka": ("streams/agents",),
    "rocksdict": ("streams/state/store.py",),
    "pymilvus": ("streams/milvus", "embedded/milvus.py", "benchmarks/yardsticks/hand_wired.py"),
    "confluent_kafka": ("streams/kafka", "producers/sender.py", "embedded", "benchmarks"),
    "paddle": ("model/training/backend.py",),
    "fastapi": ("streams/service", "benchmarks/yardsticks/hand_wired.py"),
    "starlette": ("streams/service",),
    "sklearn": ("streams/service/item_map.py",),
    "uvicorn": ("streams/service/server.py", "benchmarks/yardsticks/hand_wired.py"),
}
#: Command files are composition roots. Module → what it may import from rooms that otherwise import its own.
COMMANDS = {
    "model/evaluate.py": {"streams.tools.served_index"},
    "model/fusion/recommend.py": {"streams.milvus.index"},
}
#: Command files inside streams/, which may import all of its rooms.
STREAMS_COMMANDS = {"streams/__main__.py", "streams/tools/commands.py"}

UNIT = ROOT / "tests" / "unit"
#: Rooms in which every module has a test file of its own.
TESTED = (
    "model/serving",
    "streams/messages",
    "streams/recall",
    "streams/processing",
    "streams/kafka",
    "streams/milvus",
    "streams/state",
    "streams/service",
    "streams/tools",
    "examples",
    "streams/history.py",
    "streams/partitioning.py",
)
#: Module of those rooms → why it has none.
UNTESTED = {
    "streams/recall/ports.py": "protocols",
    "streams/milvus/collection.py": "tested on real servers, in tests/contract",
    "streams/milvus/index.py": "tested on real servers, in tests/contract",
    "streams/service/bodies.py": "tested with the routes, in test_routes.py",
    "streams/service/items_topic.py": "tested with what uses it, in test_bulk.py",
    "streams/service/middleware.py": "tested with the app, in test_app.py",
    "streams/service/parts.py": "a dataclass",
    "streams/service/ports.py": "protocols",
    "streams/service/problems.py": "tested with the app, in test_app.py",
    "streams/service/replicas.py": "tested on real servers, in tests/integration/test_service_replicas.py",
    "streams/service/write_bodies.py": "tested with the routes, in test_write_routes.py",
    "streams/service/write_parts.py": "tested on real servers, in tests/integration/test_service_writes.py",
    "streams/tools/commands.py": "tested with the command line, in streams/test_main.py",
    "streams/tools/served_index.py": "tested on real servers, in tests/integration/test_evaluate.py",
}
#: Test file → what it tests, where that is no module of the same name.
OTHER_TESTS = {
    "test_architecture.py": "imports, and the test files themselves",
    "test_compose.py": "docker-compose.yml and Dockerfile",
    "configs/test_alerts.py": "configs/observability/alerts.yml",
    "configs/test_dashboard.py": "configs/observability/",
    "streams/service/test_openapi.py": "streams/service/openapi.json",
    "streams/messages/test_fuzz.py": "properties of all messages",
    "streams/messages/test_schemas.py": "streams/messages/schemas/",
}


def _files(room: str) -> list[Path]:
    path = ROOT / room
    return [path] if path.suffix else sorted(path.rglob("*.py"))


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def _imports(path: Path) -> frozenset[str]:
    """Return the modules that a file imports, within functions, too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
    return frozenset(found)


@pytest.mark.parametrize("room", ROOMS)
def test_imports_between_rooms_point_one_way(room: str) -> None:
    for path in _files(room):
        for imported in _imports(path) - COMMANDS.get(_name(path), set()):
            other = imported.split(".")[0]
            if other in ROOMS and other != room:
                assert other in ALLOWED[room], f"{_name(path)} imports {imported}"


@pytest.mark.parametrize(
    ("top", "allowed", "commands"),
    [("model", INSIDE_MODEL, MODEL_COMMANDS), ("streams", INSIDE_STREAMS, STREAMS_COMMANDS)],
)
def test_imports_inside_a_room_point_one_way(top: str, allowed: dict[str, set[str]], commands: set[str]) -> None:
    for path in _files(top):
        room = path.relative_to(ROOT / top).parts[0].removesuffix(".py")
        if room == "__init__" or _name(path) in commands:
            continue
        assert room in allowed, f"{_name(path)}: enter {room} in the table"
        for imported in _imports(path):
            package, _, rest = imported.partition(".")
            other = rest.split(".")[0]
            if package == top and other != room:
                assert other in allowed[room], f"{_name(path)} imports {imported}"


@pytest.mark.parametrize("room", PURE)
def test_pure_rooms_import_no_io_and_no_framework(room: str) -> None:
    for path in _files(room):
        for imported in _imports(path):
            top = imported.split(".")[0]
            known = top in ROOMS or top in PURE_MAY or top in sys.stdlib_module_names
            assert known, f"{_name(path)} imports {imported}"


@pytest.mark.parametrize("library", ONLY_IN)
def test_each_library_is_imported_in_its_rooms_only(library: str) -> None:
    for room in ROOMS:
        for path in _files(room):
            if library in {name.split(".")[0] for name in _imports(path)}:
                assert any((ROOT / allowed) in (path, *path.parents) for allowed in ONLY_IN[library]), _name(path)


def test_examples_import_nothing_of_the_project() -> None:
    """Users copy them: each is one file that needs Kafka's client, and at most Redis'."""
    for path in _files("examples"):
        for imported in _imports(path):
            top = imported.split(".")[0]
            assert top in {"confluent_kafka", "redis"} | sys.stdlib_module_names, f"{_name(path)} imports {imported}"


def test_the_worker_runs_without_paddle() -> None:
    code = (
        "import sys; sys.modules['paddle'] = None\n"
        "import streams.worker.build, streams.worker.process, streams.tools.audit, streams.tools.tail, producers.items"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_service_runs_without_faust_and_paddle() -> None:
    code = "import sys; sys.modules['paddle'] = sys.modules['faust'] = None\nimport streams.service.process"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_importing_connects_to_nothing_and_reads_no_environment() -> None:
    for room in ("streams", "producers", "model"):
        for path in _files(room):
            for node in ast.parse(path.read_text()).body:
                names = {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}
                if not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef | ast.If):
                    assert "environ" not in names, f"{_name(path)} reads the environment at import"


@pytest.mark.parametrize("name", [_name(p) for room in TESTED for p in _files(room) if p.name != "__init__.py"])
def test_every_module_of_these_rooms_has_a_test_file_of_its_own(name: str) -> None:
    path = UNIT / name
    assert name in UNTESTED or path.with_name(f"test_{path.name}").exists()


@pytest.mark.parametrize("name", [path.relative_to(UNIT).as_posix() for path in sorted(UNIT.rglob("test_*.py"))])
def test_every_test_file_is_named_after_what_it_tests(name: str) -> None:
    """A test file is `test_MODULE.py` or `test_MODULE_….py` in the folder that mirrors the module's."""
    tested = Path(name).stem.removeprefix("test_") + "_"
    modules = [path.stem.strip("_") for path in (ROOT / name).parent.glob("*.py")]
    assert name in OTHER_TESTS or any(tested.startswith(f"{module}_") for module in modules)


def test_exceptions_for_test_files_are_needed() -> None:
    assert all((UNIT / name).exists() for name in OTHER_TESTS)
    assert all((ROOT / name).exists() for name in UNTESTED)
