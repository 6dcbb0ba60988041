"""The platforms of Milvus standalone."""

from __future__ import annotations

import platform

import pytest

from embedded import standalone
from embedded.errors import EmbeddedError


def test_standalone_is_refused_on_other_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    with pytest.raises(EmbeddedError, match=r"Linux on x86-64 only.*--milvus lite"):
        standalone.require_platform()
