"""The IdP's SCIM 2.0 API: users to find, groups to change (RFC 7643, RFC 7644).

It follows the RFC to the letter and forgives nothing.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from conformance.peers.errors import FilterError, SCIMError
from conformance.peers.groups import Change, Group, PatchRequest, patched
from conformance.peers.ledger import Ledger, Outcome
from conformance.peers.peer import bearer_token_matches, media_type, read_body, request_id
from conformance.peers.people import Directory, User
from conformance.peers.scim_filter import holds, parse_filter

SCIM_PATH = "/scim/v2"
SCIM_MEDIA_TYPE = "application/scim+json"
USER_SCHEMA = "urn:ietf:params:scim:schemas:core:2.0:User"
GROUP_SCHEMA = "urn:ietf:params:scim:schemas:core:2.0:Group"
LIST_SCHEMA = "urn:ietf:params:scim:api:messages:2.0:ListResponse"
ERROR_SCHEMA = "urn:ietf:params:scim:api:messages:2.0:Error"
CONFIG_SCHEMA = "urn:ietf:params:scim:schemas:core:2.0:ServiceProviderConfig"
RESULTS_MAX = 100
GROUPS_MAX = 1000
ALWAYS_RETURNED = frozenset({"schemas", "id"})

Handler = Callable[[Request], Awaitable[Response]]


class SCIMServer:
    """SCIM over the IdP's people and groups."""

    def __init__(self, *, base_url: str, people: Directory, ledger: Ledger) -> None:
        self._base_url = f"{base_url}{SCIM_PATH}"
        self._people = people
        self._ledger = ledger
        self._groups: dict[str, Group] = {}

    def add_group(self, group: Group) -> None:
        """Add or replace a group. Raises ValueError when there are too many."""
        if len(self._groups) >= GROUPS_MAX:
            raise ValueError("too many groups")
        self._groups[group.group_id] = group

    def group(self, group_id: str) -> Group | None:
        """Find a group by id."""
        return self._groups.get(group_id)

    def is_member(self, group_id: str, user_id: str) -> bool:
        """Tell whether a user is in a group; False for an unknown group."""
        group = self._groups.get(group_id)
        return group is not None and user_id in group.members

    def routes(self, token: Callable[[], str]) -> list[Route]:
        """Return the routes; token: gives the bearer token in force."""

        def guarded(handler: Handler) -> Handler:
            return self._guarded(handler, token)

        return [
            Route(f"{SCIM_PATH}/ServiceProviderConfig", guarded(self._show_config)),
            Route(f"{SCIM_PATH}/Users", guarded(self._list_users)),
            Route(f"{SCIM_PATH}/Users/{{id}}", guarded(self._show_user)),
            Route(f"{SCIM_PATH}/Groups", guarded(self._list_groups)),
            Route(f"{SCIM_PATH}/Groups/{{id}}", guarded(self._show_group), methods=["GET"]),
            Route(f"{SCIM_PATH}/Groups/{{id}}", guarded(self._patch_group), methods=["PATCH"]),
        ]

    def _guarded(self, handler: Handler, token: Callable[[], str]) -> Handler:
        """Wrap a handler: bearer token first, then SCIM errors for what it raises."""

        async def answer(request: Request) -> Response:
            if not bearer_token_matches(request, token()):
                refusal = SCIMError(401, None, "a bearer token is required")
                return self._refuse(request, refusal, WWW_Authenticate='Bearer realm="scim"')
            try:
                return await handler(request)
            except SCIMError as problem:
                return self._refuse(request, problem)
            except FilterError as problem:
                return self._refuse(request, SCIMError(400, "invalidFilter", str(problem)))

        return answer

    def _refuse(self, request: Request, problem: SCIMError, **headers: str) -> Response:
        self._ledger.record(
            "scim.refused",
            Outcome.REFUSED,
            request_id=request_id(request),
            method=request.method,
            path=request.url.path,
            status=problem.status,
            scim_type=problem.scim_type,
            detail=problem.detail,
        )
        content = {"schemas": [ERROR_SCHEMA], "status": str(problem.status)}
        if problem.scim_type:
            content["scimType"] = problem.scim_type
        return _scim_response({**content, "detail": problem.detail}, problem.status, **headers)

    async def _show_config(self, _request: Request) -> Response:
        unsupported: dict[str, Any] = {"supported": False}
        bulk: dict[str, Any] = {**unsupported, "maxOperations": 0, "maxPayloadSize": 0}
        return _scim_response(
            {
                "schemas": [CONFIG_SCHEMA],
                "patch": {"supported": True},
                "bulk": bulk,
                "filter": {"supported": True, "maxResults": RESULTS_MAX},
                "changePassword": unsupported,
                "sort": unsupported,
                "etag": unsupported,
                "authenticationSchemes": [
                    {"type": "oauthbearertoken", "name": "Bearer", "description": "Bearer token"}
                ],
            }
        )

    async def _list_users(self, request: Request) -> Response:
        wanted = _filter_of(request)
        found = [user for user in self._people if not wanted or holds(wanted, self._values(user))]
        return _list_response(request, [self._render_user(user) for user in found])

    async def _show_user(self, request: Request) -> Response:
        user = next((u for u in self._people if u.user_id == request.path_params["id"]), None)
        if user is None:
            raise SCIMError(404, None, "no such user")
        return _scim_response(_projected(request, self._render_user(user)))

    async def _list_groups(self, request: Request) -> Response:
        wanted = _filter_of(request)
        found = [
            group
            for group in self._groups.values()
            if not wanted or holds(wanted, _group_values(group))
        ]
        return _list_response(request, [self._render_group(group) for group in found])

    async def _show_group(self, request: Request) -> Response:
        """Show one group; with a filter the answer is a list of it or nothing (§3.4.2.1)."""
        group = self._existing(request)
        if wanted := _filter_of(request):
            found = [group] if holds(wanted, _group_values(group)) else []
            return _list_response(request, [self._render_group(group) for group in found])
        return _scim_response(_projected(request, self._render_group(group)))

    async def _patch_group(self, request: Request) -> Response:
        if media_type(request) not in {SCIM_MEDIA_TYPE, "application/json"}:
            raise SCIMError(415, None, "the body is no application/scim+json")
        group = self._existing(request)
        try:
            wanted = msgspec.json.decode(await read_body(request), type=PatchRequest)
        except msgspec.MsgspecError as cause:
            raise SCIMError(400, "invalidSyntax", str(cause)) from cause
        # The body was awaited: take the group as it is now.
        group = self._existing(request)
        users = {user.user_id for user in self._people}
        self._groups[group.group_id], changes = patched(group, wanted, users=users)
        for change in changes:
            self._write_down(request, group.group_id, change)
        return Response(status_code=204)

    def _write_down(self, request: Request, group_id: str, change: Change) -> None:
        """Write each membership that came, went or was there already to the ledger."""
        entries = [
            ("scim.member_added", Outcome.EFFECT, change.added),
            ("scim.member_added", Outcome.REPEAT, change.known),
            ("scim.member_removed", Outcome.EFFECT, change.removed),
        ]
        if change.emptied:
            self._ledger.record(
                "scim.group_emptied",
                Outcome.EFFECT,
                request_id=request_id(request),
                group=group_id,
                disaster=True,
                members=list(change.removed),
            )
        for what, outcome, users in entries:
            for user in users:
                self._ledger.record(
                    what, outcome, request_id=request_id(request), group=group_id, user=user
                )

    def _existing(self, request: Request) -> Group:
        group = self._groups.get(request.path_params["id"])
        if group is None:
            raise SCIMError(404, None, "no such group")
        return group

    def _groups_of(self, user: User) -> list[Group]:
        return [group for group in self._groups.values() if user.user_id in group.members]

    def _values(self, user: User) -> Mapping[str, frozenset[str]]:
        emails = frozenset({user.email} if user.email else ())
        return {
            "id": frozenset({user.user_id}),
            "username": frozenset({user.user_name}),
            "externalid": frozenset({user.external_id} if user.external_id else ()),
            "emails.value": emails,
            "emails": emails,
            "active": frozenset({"true"}),
            "groups.value": frozenset(group.group_id for group in self._groups_of(user)),
        }

    def _render_user(self, user: User) -> dict[str, Any]:
        rendered: dict[str, Any] = {
            "schemas": [USER_SCHEMA],
            "id": user.user_id,
            "userName": user.user_name,
            "active": True,
            "groups": [
                {"value": group.group_id, "display": group.display_name}
                for group in self._groups_of(user)
            ],
            "meta": {
                "resourceType": "User",
                "location": f"{self._base_url}/Users/{user.user_id}",
            },
        }
        if user.external_id:
            rendered["externalId"] = user.external_id
        if user.email:
            rendered["emails"] = [{"value": user.email, "primary": True}]
        return rendered

    def _render_group(self, group: Group) -> dict[str, Any]:
        return {
            "schemas": [GROUP_SCHEMA],
            "id": group.group_id,
            "displayName": group.display_name,
            "members": [{"value": user, "type": "User"} for user in group.members],
            "meta": {
                "resourceType": "Group",
                "location": f"{self._base_url}/Groups/{group.group_id}",
            },
        }


def _group_values(group: Group) -> Mapping[str, frozenset[str]]:
    members = frozenset(group.members)
    return {
        "id": frozenset({group.group_id}),
        "displayname": frozenset({group.display_name}),
        "members.value": members,
        "members": members,
    }


def _filter_of(request: Request) -> Any:
    text = request.query_params.get("filter")
    return parse_filter(text) if text is not None else None


def _list_response(request: Request, resources: Sequence[dict[str, Any]]) -> Response:
    """Answer one page (§3.4.2.4); `Resources` is left out when there are none."""
    start = max(1, _whole_number(request, "startIndex", 1))
    count = min(RESULTS_MAX, max(0, _whole_number(request, "count", RESULTS_MAX)))
    page = [_projected(request, each) for each in resources[start - 1 : start - 1 + count]]
    content = {
        "schemas": [LIST_SCHEMA],
        "totalResults": len(resources),
        "startIndex": start,
        "itemsPerPage": len(page),
    }
    return _scim_response({**content, "Resources": page} if page else content)


def _projected(request: Request, resource: dict[str, Any]) -> dict[str, Any]:
    """Keep the attributes that were asked for (§3.9)."""
    wanted = _names(request, "attributes")
    unwanted = _names(request, "excludedAttributes")
    return {
        name: value
        for name, value in resource.items()
        if name in ALWAYS_RETURNED
        or ((not wanted or name.lower() in wanted) and name.lower() not in unwanted)
    }


def _names(request: Request, parameter: str) -> frozenset[str]:
    text = request.query_params.get(parameter, "")
    names = (name.strip().lower().partition(".")[0] for name in text.split(","))
    return frozenset(name for name in names if name)


def _whole_number(request: Request, parameter: str, default: int) -> int:
    try:
        return int(request.query_params.get(parameter, default))
    except ValueError:
        raise SCIMError(400, "invalidValue", f"{parameter} is no number") from None


def _scim_response(content: object, status: int = 200, **headers: str) -> Response:
    return Response(
        msgspec.json.encode(content),
        status,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
        media_type=SCIM_MEDIA_TYPE,
    )
