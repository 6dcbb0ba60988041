"""The page that describes the routes."""

from __future__ import annotations

import base64
import hashlib
import re
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from streams.service.reference import reference
from tests.unit.streams.service.world import ServiceWorld


class Found(HTMLParser):
    """The elements of a page: tags, ids, links, and what a browser would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.links: set[str] = set()
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        given = {name: value or "" for name, value in attributes}
        self.ids += [given["id"]] if "id" in given else []
        self.links |= {given["href"]} if tag == "a" else set()
        self.loaded += [given[name] for name in ("src", "style") if name in given]


@pytest.fixture(name="world")
def _world(tmp_path: Path) -> ServiceWorld:
    return ServiceWorld(tmp_path)


def test_every_route_and_every_body_is_described_and_every_link_leads_somewhere(world: ServiceWorld) -> None:
    document = world.client.get("/openapi.json").json()
    text = world.client.get("/docs").text
    found = Found(text)
    for path, methods in document["paths"].items():
        for method, route in methods.items():
            assert f"{method}{path}" in found.ids
            assert text.count(f"<code>{method.upper()} {path}</code>") == 2
            assert escape(route["summary"]) in text
    assert document["components"]["schemas"].keys() <= set(found.ids)
    assert len(found.ids) == len(set(found.ids))
    assert {link.removeprefix("#") for link in found.links} - set(found.ids) == {"/openapi.json"}
    assert escape('{"hist_item": [[[43, 23, 65, 675], [675, 3456, 8654]]]}') not in text
    assert escape('{"hist_item": [[43, 23, 65, 675], [675, 3456, 8654]]}') in text
    assert escape('{"user_id": 42, "item_id": 17978}') in text
    assert escape("""curl -X GET 'http://localhost:8080/v1/items/{item_id}' -H "Authorization: Bearer""") in text


def test_it_needs_no_script_and_no_other_host(world: ServiceWorld) -> None:
    answer = world.client.get("/docs")
    found = Found(answer.text)
    assert answer.headers["content-type"].startswith("text/html")
    assert not found.loaded and not found.tags & {"script", "link", "img", "iframe"}
    policy = answer.headers["Content-Security-Policy"]
    (style,) = re.findall("<style>(.*?)</style>", answer.text, re.DOTALL)
    hashed = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{hashed}';")


def test_texts_are_no_html() -> None:
    document = {
        "info": {"title": "<b>", "description": "<i>"},
        "paths": {"/<u>": {"get": {"summary": "<s>", "responses": {"200": {"description": "<p>"}}}}},
        "components": {"schemas": {"<A>": {"properties": {"<a>": {"type": "<t>", "description": "<d>"}}}}},
    }
    text = reference(document)
    assert not Found(text).tags & {"b", "i", "u", "s", "d", "t"}
    assert "&lt;d&gt;" in text
