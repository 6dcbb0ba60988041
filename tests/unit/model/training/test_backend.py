"""Importing Paddle has no side effects."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[4]


def test_importing_paddle_changes_neither_the_home_folder_nor_logging(tmp_path: Path) -> None:
    program = (
        "import logging; logging.basicConfig(level=logging.ERROR); root = logging.getLogger(); "
        "before = list(root.handlers), root.level; import model.training.backend; "
        "assert (root.handlers, root.level) == before, root.handlers"
    )
    environment = os.environ | {"HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == []
