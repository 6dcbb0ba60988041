"""The only module that imports Paddle. It prevents the side effects of the import.

These are a folder in the user's home, a warning, and log lines of all libraries on the screen.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def _temporary_home() -> Iterator[None]:
    """Set HOME to a temporary folder: on import, Paddle creates a folder for data sets there, which nothing uses."""
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
def _restored_logging() -> Iterator[None]:
    """Restore the root logger: on import, Paddle makes it log information of all libraries to the screen."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


with _temporary_home(), _restored_logging(), warnings.catch_warnings():
    # On import, Paddle looks for a compiler cache; nothing is compiled here.
    warnings.filterwarnings("ignore", message="No ccache found")
    import paddle
    import paddle.nn.functional as F  # noqa: N812 - its usual name
    from paddle import Tensor

__all__ = ["F", "Tensor", "paddle"]
