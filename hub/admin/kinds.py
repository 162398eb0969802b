"""What a kind of admin object is, and the HTTP that follows from it.

`{base}/admin/v1/{kind}` GET (a page), POST; `…/{id}` GET, PATCH, DELETE; actions as
`…/{id}/{action}` or `…/{kind}:{action}`. Answers carry an ETag; `If-Match` is honoured.
Every write leaves an audit entry.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hub.admin.bodies import JSON_MEDIA_TYPE, POINTER_CHARACTERS_MAX, Body, parse_body
from hub.admin.context import Admin, Document, Listing, admin_of
from hub.admin.writing import Written, write, write_note
from runtime.errors import Invalid, Refused
from runtime.paging import page_limit

__all__ = [
    "Action",
    "Admin",
    "Document",
    "Kind",
    "Listing",
    "etag_of",
    "moment_of",
    "one_of",
    "routes_of",
]

PAGE_DEFAULT: Final = 50
#: the services below give up to 200 at once, and one more than a page tells whether there is more
PAGE_MAX: Final = 100
PREFIX: Final = "/admin/v1"
CURSOR_CHARACTERS_MAX: Final = 255


class PreconditionFailed(Refused):
    """`If-Match` names another state than the present one."""

    status = 412


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """A thing to do with an object, or with the kind when `on_kind`: POST, with its own body.

    reads: it changes nothing, so `admin.read` is enough and nothing is audited. outside: it may
    call others, so it is done after the audit entry is committed, not in its transaction; a repeat
    with the same Idempotency-Key does it again, which must be harmless.
    """

    name: str
    summary: str
    perform: Callable[[Admin, str, Any], Awaitable[Document]]
    body: type[Body] | None = None
    on_kind: bool = False
    reads: bool = False
    outside: bool = False
    example: Document | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of admin object. What it cannot do is None, and has no route.

    replace: PUT with a `create_body`: what it leaves out falls back to its default.
    example: a request body that works as it stands; the tests send exactly this.
    id_parameter: `{id:path}` where ids are references that may hold slashes.
    secret_once: members of the POST answer that are never shown again.
    is_owners: it belongs to the whole hub: at the root issuer alone, for an owner.
    """

    name: str
    item: str
    summary: str
    list_page: Callable[[Admin, Listing], Awaitable[list[Document]]]
    read: Callable[[Admin, str], Awaitable[Document]] | None = None
    create: Callable[[Admin, Any], Awaitable[Document]] | None = None
    create_body: type[Body] | None = None
    change: Callable[[Admin, str, Any], Awaitable[Document]] | None = None
    change_body: type[Body] | None = None
    replace: Callable[[Admin, str, Any], Awaitable[Document]] | None = None
    delete: Callable[[Admin, str], Awaitable[None]] | None = None
    filters: tuple[str, ...] = ()
    actions: tuple[Action, ...] = ()
    example: Document | None = None
    secret_once: tuple[str, ...] = field(default=())
    id_parameter: str = "{id}"
    is_owners: bool = False


def routes_of(kind: Kind) -> list[Route]:
    """Return the routes of a kind."""
    routes = [
        _route(f"/{kind.name}:{action.name}", "POST", _act(kind, action))
        for action in kind.actions
        if action.on_kind
    ]
    collection: dict[str, Any] = {"GET": _list(kind)}
    if kind.create is not None:
        collection["POST"] = _create(kind)
    routes.append(_routes(f"/{kind.name}", collection))
    single: dict[str, Any] = {}
    if kind.read is not None:
        single["GET"] = _read(kind)
    if kind.change is not None:
        single["PATCH"] = _change(kind)
    if kind.replace is not None:
        single["PUT"] = _replace(kind)
    if kind.delete is not None:
        single["DELETE"] = _delete(kind)
    if single:
        routes.append(_routes(f"/{kind.name}/{kind.id_parameter}", single))
    routes += [
        _route(f"/{kind.name}/{{id}}/{action.name}", "POST", _act(kind, action))
        for action in kind.actions
        if not action.on_kind
    ]
    return routes


Endpoint = Callable[[Request], Awaitable[Response]]


def _route(path: str, method: str, endpoint: Endpoint) -> Route:
    return Route(PREFIX + path, endpoint, methods=[method])


def _routes(path: str, by_method: Mapping[str, Endpoint]) -> Route:
    async def dispatch(request: Request) -> Response:
        return await by_method["GET" if request.method == "HEAD" else request.method](request)

    return Route(PREFIX + path, dispatch, methods=list(by_method))


def _list(kind: Kind) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        admin = admin_of(request, write=False, is_owners=kind.is_owners)
        listing = _listing(request, kind)
        wanted = Listing(after=listing.after, limit=listing.limit + 1, filters=listing.filters)
        found = await kind.list_page(admin, wanted)
        page = found[: listing.limit]
        more = len(found) > listing.limit
        return _json({"items": page, "next_cursor": page[-1]["id"] if more else None})

    return endpoint


def _read(kind: Kind) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        admin = admin_of(request, write=False, is_owners=kind.is_owners)
        assert kind.read is not None  # noqa: S101 - only such kinds have this route
        document = await kind.read(admin, request.path_params["id"])
        return _json(document, etag=etag_of(document))

    return endpoint


def _create(kind: Kind) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        admin = admin_of(request, write=True, is_owners=kind.is_owners)
        assert kind.create_body is not None  # noqa: S101 - only such kinds have this route
        body = await parse_body(request, kind.create_body)

        async def perform(inside: Admin) -> Written:
            assert kind.create is not None  # noqa: S101 - a kind declares both or none
            document = await kind.create(inside, body)
            location = {"location": f"{admin.base}{PREFIX}/{kind.name}/{document['id']}"}
            answer = _json(document, status=201, etag=etag_of(document), headers=location)
            return Written(
                response=answer, action=f"{kind.item}.create", ref=document["id"], body=body
            )

        return await write(request, admin, perform)

    return endpoint


def _change(kind: Kind) -> Endpoint:
    assert kind.change is not None  # noqa: S101 - only such kinds have this route
    assert kind.change_body is not None  # noqa: S101 - a kind declares both or none
    return _changing(kind, "change", kind.change, kind.change_body)


def _replace(kind: Kind) -> Endpoint:
    assert kind.replace is not None  # noqa: S101 - only such kinds have this route
    model = kind.create_body or kind.change_body
    assert model is not None  # noqa: S101 - what can be replaced can be written
    return _changing(kind, "replace", kind.replace, model)


def _changing(
    kind: Kind,
    name: str,
    change: Callable[[Admin, str, Any], Awaitable[Document]],
    model: type[Body],
) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        admin = admin_of(request, write=True, is_owners=kind.is_owners)
        body = await parse_body(request, model)
        object_id = request.path_params["id"]

        async def perform(inside: Admin) -> Written:
            await _check_match(request, kind, inside, object_id)
            document = await change(inside, object_id, body)
            answer = _json(document, etag=etag_of(document))
            return Written(response=answer, action=f"{kind.item}.{name}", ref=object_id, body=body)

        return await write(request, admin, perform)

    return endpoint


def _delete(kind: Kind) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        admin = admin_of(request, write=True, is_owners=kind.is_owners)
        object_id = request.path_params["id"]

        async def perform(inside: Admin) -> Written:
            assert kind.delete is not None  # noqa: S101 - only such kinds have this route
            await _check_match(request, kind, inside, object_id)
            await kind.delete(inside, object_id)
            answer = Response(status_code=204, headers={"cache-control": "no-store"})
            return Written(response=answer, action=f"{kind.item}.delete", ref=object_id, body=None)

        return await write(request, admin, perform)

    return endpoint


def _act(kind: Kind, action: Action) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        admin = admin_of(request, write=not action.reads, is_owners=kind.is_owners)
        body = await parse_body(request, action.body) if action.body else None
        object_id = request.path_params.get("id", "")
        if action.reads:
            return _json(await action.perform(admin, object_id, body))
        if action.outside:
            note = Written(
                response=Response(),
                action=f"{kind.item}.{action.name}",
                ref=object_id or kind.name,
                body=body,
            )
            if object_id and kind.read is not None:
                # What is not there leaves no entry.
                await kind.read(admin, object_id)
            await write_note(admin, note)
            return _json(await action.perform(admin, object_id, body))

        async def perform(inside: Admin) -> Written:
            document = await action.perform(inside, object_id, body)
            return Written(
                response=_json(document),
                action=f"{kind.item}.{action.name}",
                ref=object_id or kind.name,
                body=body,
            )

        return await write(request, admin, perform)

    return endpoint


def etag_of(document: Document) -> str:
    """Return the strong ETag of an object as it is shown."""
    canonical = msgspec.json.encode(document, order="sorted")
    return f'"{hashlib.sha256(canonical).hexdigest()[:32]}"'


async def _check_match(request: Request, kind: Kind, admin: Admin, object_id: str) -> None:
    wanted = request.headers.get("if-match")
    if wanted is None or wanted.strip() == "*" or kind.read is None:
        return
    present = etag_of(await kind.read(admin, object_id))
    if present not in {part.strip() for part in wanted.split(",")}:
        raise PreconditionFailed("The object has changed; read it again.")


def _listing(request: Request, kind: Kind) -> Listing:
    query = request.query_params
    unknown = set(query) - {"cursor", "limit", *kind.filters}
    if unknown:
        name = min(unknown)[:POINTER_CHARACTERS_MAX]
        raise Invalid("Unknown query parameter.", pointers=((name, "unknown"),))
    limit = page_limit(query.get("limit", str(PAGE_DEFAULT)), most=PAGE_MAX)
    after = query.get("cursor", "")
    if len(after) > CURSOR_CHARACTERS_MAX:
        raise Invalid("Bad cursor.", pointers=(("cursor", "as given in next_cursor"),))
    return Listing(
        after=after,
        limit=limit,
        filters={name: query[name] for name in kind.filters if name in query},
    )


def one_of(text: str | None, choices: type, name: str) -> Any:
    """Return the enum member that a filter names, None without one. Raises Invalid."""
    if text is None:
        return None
    try:
        return choices(text)
    except ValueError as error:
        known = ", ".join(member.value for member in choices)  # type: ignore[attr-defined]  # an enum
        raise Invalid("Unknown filter value.", pointers=((name, f"one of {known}"),)) from error


def moment_of(text: str | None, name: str) -> datetime | None:
    """Return the time that a filter names, None without one. Raises Invalid."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise Invalid("Bad time.", pointers=((name, "RFC 3339 with its offset"),))
    return moment


def _json(
    document: Document,
    *,
    status: int = 200,
    etag: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    return Response(
        msgspec.json.encode(document),
        status_code=status,
        media_type=JSON_MEDIA_TYPE,
        headers={
            "cache-control": "no-store",
            **({"etag": etag} if etag else {}),
            **(headers or {}),
        },
    )
