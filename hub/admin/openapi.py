"""The OpenAPI 3.1 document of the whole hub: `GET /openapi.json`.

Admin objects come from their declarations; the other routes are described in `described`. A test
walks the route table, so that neither can be forgotten. `--check` validates the document.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hub.admin.bodies import Body
from hub.admin.described import DESCRIBED
from hub.admin.examples import ANSWERS
from hub.admin.kinds import PAGE_MAX, PREFIX, Action, Kind
from hub.admin.operation import Described
from hub.admin.routes import ALL_KINDS
from hub.auth import SCOPES
from hub.errors import PROBLEM_MEDIA_TYPE

JSON: Final = "application/json"
PLAIN_TEXT: Final = "text/plain"
_LINE: Final = {"type": "string"}
_PARAMETER: Final = re.compile(r"\{([a-z_]+)\}")
_PAGING: Final = (
    {"name": "cursor", "in": "query", "schema": {"type": "string"}},
    {
        "name": "limit",
        "in": "query",
        "schema": {"type": "integer", "minimum": 1, "maximum": PAGE_MAX},
    },
)
_IDEMPOTENCY_KEY: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "A repeat within a day gets the first answer and does nothing again.",
    "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
}
_IF_MATCH: Final = {
    "name": "If-Match",
    "in": "header",
    "description": "Refuse with 412 unless the object is still the one with this ETag.",
    "schema": {"type": "string"},
}


async def get_openapi(request: Request) -> Response:
    """Serve the document; public."""
    issuer = request.app.state.issuer(request.scope["tenant"])
    body = msgspec.json.encode({**document(), "servers": [{"url": issuer}]})
    return Response(body, media_type=JSON, headers={"cache-control": "public, max-age=60"})


ROUTE: Final = Route("/openapi.json", get_openapi, methods=["GET"])


@cache
def document() -> dict[str, Any]:
    """Return the document, without `servers`."""
    paths: dict[str, dict[str, Any]] = {}
    schemas: dict[str, Any] = {"Problem": _PROBLEM, "Page": _PAGE, **_PRESCRIBED}
    for described in DESCRIBED:
        operation = _described(described)
        paths.setdefault(described.path, {})[described.method.lower()] = operation
    for kind in ALL_KINDS:
        _add_kind(kind, paths, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Signalhub",
            "version": version("signalhub"),
            "description": (
                "Shared Signals hub: SET intake, risk, containment, Universal Logout, SSF streams. "
                "Tenants other than the default live under /t/{tenant}."
            ),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Scopes: " + ", ".join(sorted(SCOPES)) + ".",
                }
            },
        },
    }


def _described(described: Described) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": described.operation_id,
        "summary": described.summary,
        "tags": [described.tag],
        "parameters": [*_path_parameters(described.path), *described.query_parameters()],
        "responses": {
            str(status): _answer(status, text, described.answer_type if status < 400 else None)  # noqa: PLR2004 - HTTP's own boundary
            for status, text in described.answers.items()
        },
    }
    for status, schema in described.prescribed.items():
        operation["responses"][str(status)]["content"] = {
            JSON: {"schema": {"$ref": f"#/components/schemas/{schema}"}}
        }
    for status in described.plain:
        operation["responses"][str(status)]["content"] = {PLAIN_TEXT: {"schema": _LINE}}
    if described.scopes:
        operation |= _security(*described.scopes)
    if described.body is not None:
        content = {described.body_type: {"schema": described.body}}
        if described.example is not None:
            content[described.body_type]["example"] = described.example
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _add_kind(kind: Kind, paths: dict[str, Any], schemas: dict[str, Any]) -> None:
    path = f"{PREFIX}/{kind.name}"
    filters = [{"name": name, "in": "query", "schema": {"type": "string"}} for name in kind.filters]
    collection = paths.setdefault(path, {})
    collection["get"] = _operation(
        kind, f"list_{kind.name}", f"List {kind.summary}.", {200: "a page"}, write=False
    ) | {"parameters": [*_PAGING, *filters]}
    if kind.create_body is not None:
        name = _add_schema(kind.create_body, schemas)
        collection["post"] = _operation(
            kind, f"create_{kind.item}", f"Add a {kind.item}.", {201: "added"}, body=name
        )
        collection["post"]["parameters"] = [_IDEMPOTENCY_KEY]
        if kind.example is not None:
            content = collection["post"]["requestBody"]["content"][JSON]
            content["example"] = kind.example
    if kind.read or kind.change or kind.replace or kind.delete:
        _add_single(kind, paths.setdefault(f"{path}/{{id}}", {}), schemas)
    _add_answers(kind, paths)
    for action in kind.actions:
        _add_action(kind, action, paths, schemas)


def _add_single(kind: Kind, single: dict[str, Any], schemas: dict[str, Any]) -> None:
    if kind.read:
        single["get"] = _operation(
            kind, f"read_{kind.item}", f"Read one {kind.item}.", {200: "the object"}, write=False
        )
    if kind.change_body is not None:
        name = _add_schema(kind.change_body, schemas)
        single["patch"] = _operation(
            kind, f"change_{kind.item}", f"Change a {kind.item}.", {200: "changed"}, body=name
        )
        if kind.create is None and kind.example is not None:
            single["patch"]["requestBody"]["content"][JSON]["example"] = kind.example
    if kind.replace is not None:
        name = _add_schema(kind.create_body or kind.change_body or Body, schemas)
        single["put"] = _operation(
            kind, f"replace_{kind.item}", f"Replace a {kind.item}.", {200: "replaced"}, body=name
        )
    if kind.delete:
        single["delete"] = _operation(
            kind, f"delete_{kind.item}", f"Delete a {kind.item}.", {204: "deleted"}
        )
    for method, operation in single.items():
        operation["parameters"] = _path_parameters("{id}")
        operation["responses"]["404"] = _answer(404, "no such object", None)
        if method != "get":
            operation["parameters"].append(_IF_MATCH)
            operation["responses"]["412"] = _answer(412, "the object has changed", None)


def _add_answers(kind: Kind, paths: dict[str, Any]) -> None:
    """Show one answer of the kind wherever it is answered; a secret only where it is made."""
    whole = ANSWERS[kind.name]
    shown = {name: value for name, value in whole.items() if name not in kind.secret_once}
    path = f"{PREFIX}/{kind.name}"
    single = f"{path}/{{id}}"
    # What is read alone may show more than a list does; the list's members are all there.
    for place, method, status, example in (
        (path, "get", "200", {"items": [shown], "next_cursor": None}),
        (path, "post", "201", whole),
        (single, "get", "200", shown),
        (single, "patch", "200", shown),
        (single, "put", "200", shown),
    ):
        operation = paths.get(place, {}).get(method)
        if operation is not None:
            operation["responses"][status]["content"][JSON]["example"] = example


def _add_action(kind: Kind, action: Action, paths: dict[str, Any], schemas: dict[str, Any]) -> None:
    path = f"{PREFIX}/{kind.name}"
    path += f":{action.name}" if action.on_kind else f"/{{id}}/{action.name}"
    body = _add_schema(action.body, schemas) if action.body else None
    operation = _operation(
        kind,
        f"{action.name}_{kind.item}",
        action.summary,
        {200: "done"},
        write=not action.reads,
        body=body,
    )
    parameters = [] if action.on_kind else _path_parameters("{id}")
    operation["parameters"] = [*parameters, *([] if action.reads else [_IDEMPOTENCY_KEY])]
    if action.example is not None:
        operation["requestBody"]["content"][JSON]["example"] = action.example
    operation["responses"]["404"] = _answer(404, "no such object", None)
    paths.setdefault(path, {})["post"] = operation


def _operation(
    kind: Kind,
    operation_id: str,
    summary: str,
    answers: Mapping[int, str],
    *,
    write: bool = True,
    body: str | None = None,
) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": operation_id.replace("-", "_"),
        "summary": summary,
        "tags": [f"admin: {kind.name}"],
        **_security("admin.write" if write else "admin.read"),
        "responses": {
            **{str(status): _answer(status, text, JSON) for status, text in answers.items()},
            "400": _answer(400, "not acceptable", None),
            "401": _answer(401, "no valid access token", None),
            "403": _answer(403, "the token lacks the scope", None),
        },
    }
    if write:
        operation["responses"]["409"] = _answer(409, "contradicts what is stored", None)
    if body is not None:
        operation["responses"]["413"] = _answer(413, "too large", None)
        operation["responses"]["415"] = _answer(415, "not JSON", None)
        schema = {"$ref": f"#/components/schemas/{body}"}
        operation["requestBody"] = {"required": True, "content": {JSON: {"schema": schema}}}
    return operation


def _security(*scopes: str) -> dict[str, Any]:
    return {"security": [{"bearer": list(scopes)}]}


def _path_parameters(path: str) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PARAMETER.findall(path)
    ]


def _answer(status: int, text: str, media_type: str | None) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": text}
    if status >= 400:  # noqa: PLR2004 - HTTP's own boundary
        problem = {"schema": {"$ref": "#/components/schemas/Problem"}}
        answer["content"] = {PROBLEM_MEDIA_TYPE: problem}
    elif media_type is not None and status not in {202, 204}:
        answer["content"] = {media_type: {"schema": {}}}
    return answer


def _add_schema(model: type[Body], schemas: dict[str, Any]) -> str:
    """Add a body's JSON Schema, and those it refers to; return its name."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= schema.pop("$defs", {})
    schemas[model.__name__] = schema
    return model.__name__


_PROBLEM: Final = {
    "type": "object",
    "description": "Problem details (RFC 9457). SSF endpoints add err and description.",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "errors": {"type": "array", "maxItems": 20, "items": {"type": "object"}},
        "err": {"type": "string"},
        "description": {"type": "string"},
    },
}
#: error bodies that standards prescribe
_PRESCRIBED: Final[dict[str, Any]] = {
    name: {
        "type": "object",
        "description": source,
        "required": list(members),
        "properties": {member: {"type": "string"} for member in members},
    }
    for name, source, members in (
        ("SETError", "RFC 8935 §2.3.", ("err", "description")),
        ("OAuthError", "RFC 6749 §5.2.", ("error", "error_description")),
    )
}

_PAGE: Final = {
    "type": "object",
    "required": ["items", "next_cursor"],
    "properties": {
        "items": {"type": "array", "items": {"type": "object"}},
        "next_cursor": {"type": ["string", "null"]},
    },
}


def main(arguments: list[str]) -> int:
    """Print the document, or validate it with `--check`; return the exit code."""
    found = {**document(), "servers": [{"url": "https://hub.example"}]}
    if "--check" not in arguments:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(found)).decode() + "\n")
        return 0
    from openapi_spec_validator import validate  # noqa: PLC0415 - a development dependency

    validate(found)
    sys.stdout.write(f"OpenAPI document: {len(found['paths'])} paths, valid\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
