"""The page `/docs`: the OpenAPI document as one HTML page, without scripts and without anything from another host."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

_STYLE = """
:root { color-scheme: light dark }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
code, pre { font: .9rem/1.4 ui-monospace, monospace }
pre { overflow-x: auto; padding: .6rem; background: #8882; border-radius: .3rem }
table { border-collapse: collapse; width: 100% }
td, th { text-align: left; vertical-align: top; padding: .2rem .8rem .2rem 0 }
tr { border-bottom: 1px solid #8884 }
section { margin-bottom: 2.5rem }
h3 code { font-size: 1.1rem; font-weight: bold }
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_Json = Mapping[str, Any]


def reference(document: _Json) -> str:
    """Return an HTML page that describes all routes and bodies of an OpenAPI document."""
    return "".join(_page(document))


def _page(document: _Json) -> Iterator[str]:
    title, schemas = escape(document["info"]["title"]), document.get("components", {}).get("schemas", {})
    yield f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
    yield f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style><h1>{title}</h1>'
    yield f"<p>{escape(document['info'].get('description', ''))}</p>"
    yield '<p>For programs: <a href="/openapi.json">openapi.json</a>.</p><h2>Routes</h2><table>'
    routes = [(m, path, route) for path, methods in document["paths"].items() for m, route in methods.items()]
    for method, path, route in routes:
        name = f"{method.upper()} {escape(path)}"
        yield f'<tr><td><a href="#{method}{escape(path)}"><code>{name}</code></a><td>{escape(route["summary"])}'
    yield "</table>"
    for method, path, route in routes:
        yield from _route(method, path, route, schemas)
    yield "<h2>Bodies</h2>"
    for name, schema in schemas.items():
        yield f'<section id="{escape(name)}"><h3>{escape(name)}</h3><p>{escape(schema.get("description", ""))}</p>'
        required = schema.get("required", ())
        yield from _table([(field, field in required, inner) for field, inner in schema.get("properties", {}).items()])
        yield "</section>"


def _route(method: str, path: str, route: _Json, schemas: _Json) -> Iterator[str]:
    yield f'<section id="{method}{escape(path)}"><h3><code>{method.upper()} {escape(path)}</code></h3>'
    yield f"<p>{escape(route['summary'])}</p><p>{escape(route.get('description', ''))}</p>"
    parameters = [(p["name"], p.get("required", False), _described(p)) for p in route.get("parameters", ())]
    yield from _table(parameters)
    body = next(iter(route.get("requestBody", {}).get("content", {}).values()), None)
    if body is not None:
        yield f"<p>Body: {_type(body['schema'])}</p>"
    yield f"<pre>{escape(_command(method, path, route, body, schemas))}</pre><table><tr><th>Status<th>Answer"
    for status, answer in route["responses"].items():
        found = [_type(content["schema"]) for content in answer.get("content", {}).values() if content.get("schema")]
        yield f"<tr><td>{escape(status)}<td>{escape(answer['description'])} {' or '.join(found)}"
    yield "</table></section>"


def _described(parameter: _Json) -> _Json:
    return {**parameter["schema"], "description": parameter.get("description", "")}


def _table(fields: Sequence[tuple[str, bool, _Json]]) -> Iterator[str]:
    if not fields:
        return
    yield "<table><tr><th>Name<th>Type<th>Description"
    for name, required, schema in fields:
        text = schema.get("description", "")
        default = "" if schema.get("default") is None else f" Default: {json.dumps(schema['default'])}."
        kind = f"{_type(schema)}{', required' if required else ''}"
        yield f"<tr><td><code>{escape(name)}</code><td>{kind}<td>{escape(text + default)}"
    yield "</table>"


def _type(schema: _Json) -> str:
    """Return the type that a schema describes, as HTML; bodies are links."""
    if (reference := schema.get("$ref")) is not None:
        name = escape(reference.rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if (choices := schema.get("anyOf") or schema.get("oneOf")) is not None:
        return " or ".join(dict.fromkeys(map(_type, choices)))
    if (values := schema.get("enum")) is not None:
        return escape(", ".join(map(json.dumps, values)))
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return escape(str(schema.get("const") or schema.get("type", "any")))


def _command(method: str, path: str, route: _Json, body: _Json | None, schemas: _Json) -> str:
    """Return a command of curl that calls a route, with the example of its body if there is one."""
    parts = [f"curl -X {method.upper()} 'http://localhost:8080{path}'"]
    if route.get("security"):
        parts.append('-H "Authorization: Bearer $TOKEN"')
    if body is not None:
        parts.append(f"--json '{json.dumps(_example(body['schema'], schemas))}'")
    return " ".join(parts)


def _example(schema: _Json, schemas: _Json) -> Any:
    if (reference := schema.get("$ref")) is not None:
        return _example(schemas[reference.rpartition("/")[2]], schemas)
    if examples := schema.get("examples"):
        return examples[0]
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        return _example(choices[0], schemas)
    if schema.get("type") == "array":
        return [_example(schema.get("items", {}), schemas)]
    if (fields := schema.get("properties")) is not None:
        wanted = schema.get("required", ())
        return {name: _example(inner, schemas) for name, inner in fields.items() if name in wanted}
    return {"integer": 42, "number": 0.5, "boolean": True, "string": "text"}.get(str(schema.get("type")))
