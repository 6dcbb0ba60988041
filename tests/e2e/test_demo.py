"""A small demo: generated clicks, milvus-lite, no terminal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from embedded.instance import CHECKOUT
from producers.synthetic import Shape, generate
from tests.site import environment

pytestmark = pytest.mark.integration


def _clicks(folder: Path) -> Path:
    generated = generate(Shape(users=600, items=300, clicks=6_000, tastes=6, tastes_per_user=2, drift=0.0), seed=1)
    path = folder / "clicks.csv"
    rows = zip(generated.user.tolist(), generated.item.tolist(), generated.order.tolist(), strict=True)
    path.write_text("".join(f"{user},{item},{order}\n" for user, item, order in rows))
    return path


def _command(folder: Path) -> list[str]:
    sizes = ["--train-seconds", "5", "--replay-seconds", "8", "--milvus", "lite", "--rate", "10"]
    return [
        sys.executable,
        "-m",
        "embedded",
        "demo",
        "--data",
        str(_clicks(folder)),
        "--dir",
        str(folder / "d"),
        *sizes,
    ]


def _processes_of(folder: Path) -> list[str]:
    """Return the command lines of processes that contain the folder."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        line = " ".join(process.info["cmdline"] or [])
        if str(folder) in line and process.pid != os.getpid() and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(line)
    return found


def test_the_demo_ends_with_every_click_accounted_for(tmp_path: Path) -> None:
    done = subprocess.run(
        _command(tmp_path), cwd=CHECKOUT, env=environment(), capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Every click is accounted for." in done.stdout
    assert "hit@50" in done.stdout
    assert "3 broken messages" in done.stdout
    assert _processes_of(tmp_path) == []


def test_ctrl_c_stops_all_processes(tmp_path: Path) -> None:
    with subprocess.Popen(
        _command(tmp_path), cwd=CHECKOUT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "Publishing the items" in line:
                break
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.wait(timeout=60) == 130
    deadline = time.monotonic() + 10
    while _processes_of(tmp_path):
        assert time.monotonic() < deadline, _processes_of(tmp_path)
        time.sleep(0.1)
