"""The direction of imports, room by room, and the rooms in which outside systems may be named."""

from __future__ import annotations

import ast
import subprocess
import sys
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
#: Rooms that know no outside system: no I/O, no framework. A name without a slash behind it is a module.
PURE = (
    "model/serving",
    "streams/messages",
    "streams/recall",
    "streams/processing",
    "streams/errors.py",
    "streams/history.py",
    "streams/ports.py",
    "streams/metrics.py",
    "streams/agents/batching.py",
    "streams/agents/commits.py",
)
PURE_MAY = {"numpy", "orjson", "prometheus_client"}
#: Library → the only rooms (or modules) that may import it.
ONLY_IN = {
    "faust": ("streams/agents", "streams/worker", "benchmarks/yardsticks/plain_faust.py"),
    "aiokafka": ("streams/agents",),
    "rocksdict": ("streams/state/store.py",),
    "pymilvus": ("streams/milvus", "embedded/milvus.py", "benchmarks/yardsticks/hand_wired.py"),
    "confluent_kafka": ("streams/kafka", "producers/sender.py", "embedded", "benchmarks"),
    "paddle": ("model/training/backend.py",),
    "fastapi": ("benchmarks/yardsticks/hand_wired.py",),
}
#: Command files are composition roots, and may wire what comes from rooms above.
COMMANDS = {"model/evaluate.py": {"streams.tools.served_index"}}


def _files(room: str) -> list[Path]:
    path = ROOT / room
    return [path] if path.suffix else sorted(path.rglob("*.py"))


def _imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports in full"
            found.add(node.module or "")
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_only_what_lies_before_them(room: str) -> None:
    for path in _files(room):
        name = str(path.relative_to(ROOT))
        for imported in _imports(path) - COMMANDS.get(name, set()):
            other = imported.split(".")[0]
            if other in ROOMS and other != room:
                assert other in ALLOWED[room], f"{name} imports {imported}"


@pytest.mark.parametrize("room", PURE)
def test_the_pure_rooms_know_no_outside_system(room: str) -> None:
    for path in _files(room):
        for imported in _imports(path):
            top = imported.split(".")[0]
            known = top in ROOMS or top in PURE_MAY or top in sys.stdlib_module_names
            assert known, f"{path.relative_to(ROOT)} imports {imported}"


@pytest.mark.parametrize("library", ONLY_IN)
def test_each_outside_system_has_its_rooms(library: str) -> None:
    for room in ROOMS:
        for path in _files(room):
            if library in {name.split(".")[0] for name in _imports(path)}:
                assert any(path == ROOT / place or ROOT / place in path.parents for place in ONLY_IN[library]), path


def test_the_worker_runs_without_paddle() -> None:
    code = (
        "import sys; sys.modules['paddle'] = None\n"
        "import streams.worker.build, streams.worker.process, streams.tools.audit, streams.tools.tail, producers.items"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_importing_connects_to_nothing_and_reads_no_environment() -> None:
    for room in ("streams", "producers", "model"):
        for path in _files(room):
            for node in ast.parse(path.read_text()).body:
                names = {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}
                if not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef | ast.If):
                    assert "environ" not in names, f"{path.relative_to(ROOT)} reads the environment at import"
