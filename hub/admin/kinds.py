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
import pydantic
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hub import store
from hub.node import Node
from hub.store import AuditNote
from runtime.caller import Caller
from runtime.errors import Conflict, Invalid, Refused

PAGE_DEFAULT: Final = 50
PAGE_MAX: Final = 200
JSON_MEDIA_TYPE: Final = "application/json"
PREFIX: Final = "/admin/v1"

Document = dict[str, Any]


class PreconditionFailed(Refused):
    """`If-Match` names another state than the present one."""

    status = 412


class UnsupportedMediaType(Refused):
    """The body is not JSON."""

    status = 415


class Body(pydantic.BaseModel):
    """A request body: unknown members are refused, so that a typo is not a silent default."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Admin:
    """One admin request: who asks, for which tenant, with what at hand."""

    state: Any
    node: Node
    caller: Caller

    @property
    def tenant_id(self) -> str:
        """The tenant that is administered."""
        return self.caller.tenant_id

    @property
    def now(self) -> datetime:
        """The present moment."""
        return self.node.clock.now()

    @property
    def base(self) -> str:
        """The tenant's issuer, which its URLs begin with."""
        issuer: str = self.state.issuer(self.tenant_id)
        return issuer


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What part of a list is wanted. after: the id the page before ended with."""

    after: str
    limit: int
    filters: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """A thing to do with an object, or with the kind when `on_kind`: POST, with its own body."""

    name: str
    summary: str
    perform: Callable[[Admin, str, Any], Awaitable[Document]]
    body: type[Body] | None = None
    on_kind: bool = False
    example: Document | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of admin object. What it cannot do is None, and has no route.

    example: a request body that works as it stands; the tests send exactly this.
    secret_once: members of the POST answer that are never shown again.
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
    delete: Callable[[Admin, str], Awaitable[None]] | None = None
    filters: tuple[str, ...] = ()
    actions: tuple[Action, ...] = ()
    example: Document | None = None
    secret_once: tuple[str, ...] = field(default=())


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
    if kind.delete is not None:
        single["DELETE"] = _delete(kind)
    if single:
        routes.append(_routes(f"/{kind.name}/{{id}}", single))
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
        admin = _admin(request, write=False)
        listing = _listing(request, kind)
        wanted = Listing(after=listing.after, limit=listing.limit + 1, filters=listing.filters)
        found = await kind.list_page(admin, wanted)
        page = found[: listing.limit]
        more = len(found) > listing.limit
        return _json({"items": page, "next_cursor": page[-1]["id"] if more else None})

    return endpoint


def _read(kind: Kind) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        admin = _admin(request, write=False)
        assert kind.read is not None  # noqa: S101 - only such kinds have this route
        document = await kind.read(admin, request.path_params["id"])
        return _json(document, etag=etag_of(document))

    return endpoint


def _create(kind: Kind) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        admin = _admin(request, write=True)
        assert kind.create is not None  # noqa: S101 - only such kinds have this route
        assert kind.create_body is not None  # noqa: S101 - a kind declares both or none
        body = await parse_body(request, kind.create_body)
        document = await kind.create(admin, body)
        await _audit(admin, f"{kind.item}.create", document["id"], body)
        location = {"location": f"{admin.base}{PREFIX}/{kind.name}/{document['id']}"}
        return _json(document, status=201, etag=etag_of(document), headers=location)

    return endpoint


def _change(kind: Kind) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        admin = _admin(request, write=True)
        assert kind.change is not None  # noqa: S101 - only such kinds have this route
        assert kind.change_body is not None  # noqa: S101 - a kind declares both or none
        body = await parse_body(request, kind.change_body)
        object_id = request.path_params["id"]
        await _check_match(request, kind, admin, object_id)
        document = await kind.change(admin, object_id, body)
        await _audit(admin, f"{kind.item}.change", object_id, body)
        return _json(document, etag=etag_of(document))

    return endpoint


def _delete(kind: Kind) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        admin = _admin(request, write=True)
        assert kind.delete is not None  # noqa: S101 - only such kinds have this route
        object_id = request.path_params["id"]
        await _check_match(request, kind, admin, object_id)
        await kind.delete(admin, object_id)
        await _audit(admin, f"{kind.item}.delete", object_id, None)
        return Response(status_code=204)

    return endpoint


def _act(kind: Kind, action: Action) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        admin = _admin(request, write=True)
        body = await parse_body(request, action.body) if action.body else None
        object_id = request.path_params.get("id", "")
        document = await action.perform(admin, object_id, body)
        await _audit(admin, f"{kind.item}.{action.name}", object_id or kind.name, body)
        return _json(document)

    return endpoint


def admin_of(request: Request) -> Admin:
    """Return the context of a request whose caller may do what it asks for."""
    return Admin(state=request.app.state, node=request.app.state.node, caller=request.state.caller)


def _admin(request: Request, *, write: bool) -> Admin:
    caller: Caller = request.state.caller
    caller.require(*(("admin.write",) if write else ("admin.read", "admin.write")))
    return admin_of(request)


async def parse_body(request: Request, model: type[Body]) -> Any:
    """Return the body as `model`. Raises UnsupportedMediaType, Invalid with JSON pointers."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != JSON_MEDIA_TYPE:
        raise UnsupportedMediaType(f"Send the body as {JSON_MEDIA_TYPE}.")
    raw = await request.body()
    try:
        return model.model_validate(msgspec.json.decode(raw))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid("The body is not JSON.") from error
    except pydantic.ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        pointers = tuple(
            ("/" + "/".join(str(part) for part in item["loc"]), item["msg"]) for item in found
        )
        raise Invalid("The body is not acceptable.", pointers=pointers) from error


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
        name = min(unknown)
        raise Invalid("Unknown query parameter.", pointers=((name, "unknown"),))
    limit = query.get("limit", str(PAGE_DEFAULT))
    if not (limit.isascii() and limit.isdigit() and 0 < int(limit[:6]) <= PAGE_MAX):
        raise Invalid("Bad page size.", pointers=(("limit", f"1 to {PAGE_MAX}"),))
    return Listing(
        after=query.get("cursor", ""),
        limit=int(limit),
        filters={name: query[name] for name in kind.filters if name in query},
    )


async def _audit(admin: Admin, action: str, ref: str, body: Body | None) -> None:
    detail = _masked(body.model_dump(mode="json", exclude_unset=True)) if body else {}
    note = AuditNote(
        tenant_id=admin.tenant_id,
        actor=admin.caller.client_id,
        action=action,
        ref=ref[:255],
        detail=detail,
    )
    async with admin.node.database.transaction() as connection:
        await store.add_audit(connection, note, now=admin.now)
    admin.node.notifier.wake("config")


#: what a request may carry that nobody may read again
_SECRETS: Final = frozenset({"authorization_header", "token", "secret", "scim_token"})


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: "***" if name in _SECRETS and inner else _masked(inner)
            for name, inner in value.items()
        }
    if isinstance(value, list):
        return [_masked(inner) for inner in value]
    return value


def one_of(text: str | None, choices: type, name: str) -> Any:
    """Return the enum member that a filter names, None without one. Raises Invalid."""
    if text is None:
        return None
    try:
        return choices(text)
    except ValueError as error:
        known = ", ".join(member.value for member in choices)  # type: ignore[attr-defined]  # an enum
        raise Invalid("Unknown filter value.", pointers=((name, f"one of {known}"),)) from error


def conflict(detail: str) -> Conflict:
    """Return the refusal for a name that is taken."""
    return Conflict(detail)


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
