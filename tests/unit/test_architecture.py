"""The direction of imports, and the places where outside systems may be named."""

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
#: The part of `streams` that producers may know: messages, their errors, and what a refusal looks like.
PRODUCERS_MAY = {"streams.messages", "streams.errors", "streams.tls"}
#: The one file that looks ahead, and what it may see: a model is measured as it is served.
AHEAD = {
    "model/evaluation/through_milvus.py": {
        f"streams.{name}" for name in ("embeddings", "engine", "errors", "items", "milvus")
    },
}
#: The pure half of the streaming side: no I/O, no framework.
PURE = {"messages", "history", "embeddings", "engine", "ports", "errors", "memory", "clicks", "items"}
PURE |= {"intake", "commits"}
PURE_MAY = {"numpy", "orjson", "prometheus_client"}
#: What training and serving must do alike.
PURE_OF_MODEL = {"model.inputs", "model.merge"}
#: Library → the only files that may import it.
ONLY_IN = {
    "faust": {f"streams/{name}.py" for name in ("agents", "app", "consumer", "worker")} | {"benchmarks/plain_faust.py"},
    "rocksdict": {"streams/store.py"},
    "pymilvus": {"streams/milvus.py", "embedded/milvus.py", "benchmarks/baseline.py"},
    "paddle": {"model/training/backend.py"},
    "fastapi": {"benchmarks/baseline.py"},
}


def _files(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


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
        for name in _imports(path) - AHEAD.get(str(path.relative_to(ROOT)), set()):
            other = name.split(".")[0]
            if other in ROOMS and other != room:
                assert other in ALLOWED[room], f"{path.relative_to(ROOT)} imports {name}"
            if room == "producers" and other == "streams":
                assert name in PRODUCERS_MAY, f"{path.relative_to(ROOT)} imports {name}"


def test_the_pure_half_knows_no_outside_system() -> None:
    for name in PURE:
        for imported in _imports(ROOT / "streams" / f"{name}.py"):
            top, _, rest = imported.partition(".")
            if top == "streams":
                assert rest in PURE | {"deadletters", "metrics"}, f"streams/{name}.py imports {imported}"
            elif top == "model":
                assert imported in PURE_OF_MODEL, f"streams/{name}.py imports {imported}"
            else:
                assert top in PURE_MAY or top in sys.stdlib_module_names, f"streams/{name}.py imports {imported}"


@pytest.mark.parametrize("library", ONLY_IN)
def test_each_outside_system_has_its_files(library: str) -> None:
    for room in ROOMS:
        for path in _files(room):
            if library in {name.split(".")[0] for name in _imports(path)}:
                assert str(path.relative_to(ROOT)) in ONLY_IN[library]


def test_the_worker_runs_without_paddle() -> None:
    code = (
        "import sys; sys.modules['paddle'] = None\n"
        "import streams.app, streams.worker, streams.audit, streams.tail, producers.items"
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
