"""streams/service/openapi.json is what the code says; UPDATE_OPENAPI=1 writes it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from embedded.instance import CHECKOUT
from tests.unit.streams.service.world import ServiceWorld

DOCUMENT = CHECKOUT / "streams" / "service" / "openapi.json"


@pytest.fixture(name="document")
def _document(tmp_path: Path) -> dict[str, Any]:
    return ServiceWorld(tmp_path).app.openapi()


def test_the_document_is_that_of_the_code(document: dict[str, Any]) -> None:
    if os.environ.get("UPDATE_OPENAPI"):
        DOCUMENT.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    remedy = "UPDATE_OPENAPI=1 make test ARGS=tests/unit/streams/service/test_openapi.py writes it"
    assert json.loads(DOCUMENT.read_text(encoding="utf-8")) == document, remedy


def test_every_error_is_declared_as_a_problem(document: dict[str, Any]) -> None:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            declared = {status: answer for status, answer in operation["responses"].items() if status >= "4"}
            if not path.startswith(("/v1/", "/rec/", "/qa/")):
                continue
            assert {"401", "403", "422", "503"} <= declared.keys(), f"{method} {path}"
            for status, answer in declared.items():
                assert list(answer["content"]) == ["application/problem+json"], f"{method} {path} {status}"
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_every_operation_has_a_summary_and_its_scope(document: dict[str, Any]) -> None:
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation["summary"]
            assert ("security" in operation) == path.startswith(("/v1/", "/rec/", "/qa/")), path
