"""The OpenAPI document as a page: every request with its fields and an example. It needs no script and no network."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

Schema = Mapping[str, Any]

_STYLE = """
body { margin: 0 auto; max-width: 60rem; padding: 1rem; background: var(--ground); color: var(--ink); }
details { background: var(--card); border: 1px solid var(--line); border-radius: 10px; margin: 0.5rem 0; padding: 0.5rem 0.9rem; }
summary { cursor: pointer; } summary code { font-weight: 650; } h2 { margin: 1.5rem 0 0.4rem; }
table { border-collapse: collapse; width: 100%; margin: 0.6rem 0; font-size: 0.85rem; }
td, th { border-top: 1px solid var(--line); padding: 0.3rem 0.5rem; text-align: left; vertical-align: top; }
pre { background: var(--cell); border-radius: 8px; overflow: auto; padding: 0.6rem; font-size: 0.8rem; } p { margin: 0.4rem 0; }
@media (prefers-color-scheme: dark) { :root { color-scheme: dark; --ground: #12121a; --card: #1b1b26; --line: #2d2d3c; --ink: #ececf4; --cell: #242432; } }
"""


def page(document: Schema) -> str:
    """The page of an OpenAPI document, as HTML."""
    parts: dict[str, list[str]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            parts.setdefault(operation.get("tags", [""])[-1], []).append(_operation(document, method, path, operation))
    body = "".join(f"<h2>{escape(tag)}</h2>{''.join(found)}" for tag, found in parts.items())
    info = document["info"]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(info['title'])} over HTTP</title>"
        '<link rel="icon" href="/page/icon.svg" type="image/svg+xml"><link rel="stylesheet" href="/page/lens.css">'
        f"<style>{_STYLE}</style></head><body><h1>{escape(info['title'])} {escape(info['version'])}</h1>"
        f'<p>{escape(info.get("summary", ""))} <a href="/openapi.json">openapi.json</a> has the same for programs; '
        f'<a href="/">the Lens page</a> shows a model at work.</p>{body}</body></html>'
    )


def _operation(document: Schema, method: str, path: str, operation: Schema) -> str:
    told = operation.get("description", operation.get("summary", ""))
    rows = [
        _row(
            one["name"], one["schema"], one.get("required", False), one.get("description", one["schema"].get("description", ""))
        )
        for one in operation.get("parameters", ())
    ]
    example = ""
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if content is not None:
        schema = _resolved(document, content["schema"])
        rows += list(_rows(document, schema, "", frozenset()))
        example = "".join(_example(path, one) for one in schema.get("examples", ()))
    table = f"<table><tr><th>field</th><th>type</th><th></th></tr>{''.join(rows)}</table>" if rows else ""
    return (
        f"<details><summary><code>{method.upper()} {escape(path)}</code> {escape(told.split('. ')[0].rstrip('.'))}</summary>"
        f"<p>{escape(told)}</p>{table}{example}</details>"
    )


def _rows(document: Schema, schema: Schema, prefix: str, met: frozenset[str]) -> Iterator[str]:
    """A row for each field, those of objects within it below it."""
    for name, field in schema.get("properties", {}).items():
        yield _row(prefix + name, field, name in schema.get("required", ()), field.get("description", ""))
        for reference in _references(field):
            if reference not in met:
                inner = _resolved(document, {"$ref": reference})
                yield from _rows(document, inner, f"{prefix}{name}.", met | {reference})


def _row(name: str, schema: Schema, required: bool, told: str) -> str:
    default = schema.get("default")
    notes = [told, "required" if required else "" if default is None else f"default {json.dumps(default)}"]
    text = "; ".join(note.rstrip(".") for note in notes if note)
    return f"<tr><td><code>{escape(name)}</code></td><td>{escape(_kind(schema))}</td><td>{escape(text)}</td></tr>"


def _kind(schema: Schema) -> str:
    """A schema's type in a few words."""
    if "$ref" in schema:
        return "object"
    if "const" in schema or "enum" in schema:
        return ", ".join(json.dumps(value) for value in schema.get("enum", [schema.get("const")]))
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_kind(part) for part in schema["anyOf"] if part.get("type") != "null")) or "null"
    kind = str(schema.get("type", "any"))
    if kind == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    bounds = [f"{sign} {schema[key]}" for key, sign in _BOUNDS.items() if key in schema and abs(schema[key]) < 2**31]
    return " ".join(
        [{"string": "text", "number": "number", "integer": "whole number"}.get(kind, kind), ", ".join(bounds)]
    ).strip()


_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def _references(schema: Schema) -> Iterator[str]:
    if "$ref" in schema:
        yield schema["$ref"]
    for part in [*schema.get("anyOf", ()), *([schema["items"]] if "items" in schema else ())]:
        yield from _references(part)


def _resolved(document: Schema, schema: Schema) -> Schema:
    found: Any = schema
    if "$ref" in schema:
        found = document
        for part in str(schema["$ref"]).removeprefix("#/").split("/"):
            found = found[part]
    return found


def _example(path: str, body: Any) -> str:
    quoted = json.dumps(body, ensure_ascii=False).replace("'", "'\\''")
    command = f"curl http://127.0.0.1:50111{path} -H 'Content-Type: application/json' \\\n  -d '{quoted}'"
    return f"<pre>{escape(command)}</pre>"
