"""Paddle, imported here alone: it would leave a folder in the user's home, and a warning and log lines on screen."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def _other_home() -> Iterator[None]:
    """Paddle makes a folder for data sets in the user's home on import; nothing of it is used here."""
    home = os.environ.get("HOME")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HOME"] = folder
        try:
            yield
        finally:
            if home is None:
                del os.environ["HOME"]
            else:
                os.environ["HOME"] = home


@contextlib.contextmanager
def _other_log() -> Iterator[None]:
    """Paddle has the information of all libraries logged to the screen."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


with _other_home(), _other_log(), warnings.catch_warnings():
    # Paddle looks for a compiler cache on import; nothing is compiled here.
    warnings.filterwarnings("ignore", message="No ccache found")
    import paddle
    import paddle.nn.functional as F  # noqa: N812 - its name everywhere
    from paddle import Tensor

__all__ = ["F", "Tensor", "paddle"]
