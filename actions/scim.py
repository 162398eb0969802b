"""SCIM 2.0 as a client of an IdP's groups: requests, answers and what they mean. Pure.

Only three things can be asked: who is this user, is the user in the group, and put the user in or
take the user out. INVARIANT: no function here can make a `remove` of path `members` without one
member named in it, because a correct server would empty the whole group (SCC-9, SCC-11).

Source: RFC 7644 §3.4.2, §3.5.2, §3.12; requirements SCC-1 to SCC-11, SCC-16, SCC-17.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode

import msgspec

from actions.model import Proof, SCIMDialect, SCIMSetting
from actions.outcomes import Outcome, OutcomeClass, classify_status
from runtime.outbound import OutboundRequest

MEDIA_TYPE: Final = "application/scim+json"
PATCH_SCHEMA: Final = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
LOOKUP_ATTRIBUTES: Final = "id,userName,active,externalId,groups"
ID_CHARACTERS_MAX: Final = 512

_OK: Final = 200
_CHANGED: Final = frozenset({200, 204})
_BAD_REQUEST: Final = 400
_NOT_FOUND: Final = 404
_REREAD: Final = frozenset({409, 412})


@dataclass(frozen=True, slots=True, kw_only=True)
class SCIMService:
    """Where and with what right to call: the app's setting and its opened bearer token."""

    setting: SCIMSetting
    token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UserLookup:
    """What a lookup found. matches: how many users; group_ids: None when the server is silent."""

    matches: int
    user_id: str | None = None
    group_ids: frozenset[str] | None = None


def build_lookup(service: SCIMService, value: str) -> OutboundRequest:
    """Return the request that finds a user by the set attribute. Requirements SCC-3, SCC-5."""
    attribute = service.setting.user_attribute
    query = {"filter": f"{attribute} eq {_literal(value)}", "attributes": LOOKUP_ATTRIBUTES}
    return _get(service, f"/Users?{urlencode(query, quote_via=quote)}")


def build_user_read(service: SCIMService, user_id: str) -> OutboundRequest:
    """Return the request that reads one user's groups. Raises ValueError on an unusable id."""
    query = urlencode({"attributes": "id,groups"}, quote_via=quote)
    return _get(service, f"/Users/{_segment(user_id)}?{query}")


def build_membership_query(service: SCIMService, group_id: str, user_id: str) -> OutboundRequest:
    """Return the request that asks whether a user is in a group, without reading its members.

    The answer is a list with the group in it or not, so a server that ignores filters on a single
    resource cannot mislead us. Requirements SCC-5, SCC-20.
    """
    condition = f"id eq {_literal(group_id)} and members.value eq {_literal(user_id)}"
    query = urlencode({"filter": condition, "attributes": "id"}, quote_via=quote)
    return _get(service, f"/Groups?{query}")


def build_add(service: SCIMService, group_id: str, user_id: str) -> OutboundRequest:
    """Return the request that puts a user into a group. Raises ValueError on an unusable id."""
    return _patch(service, group_id, render_add(user_id))


def build_remove(service: SCIMService, group_id: str, user_id: str) -> OutboundRequest:
    """Return the request that takes a user out of a group. Raises ValueError on an unusable id."""
    return _patch(service, group_id, render_remove(user_id, service.setting.dialect))


def render_add(user_id: str) -> dict[str, Any]:
    """Return the PATCH body that adds one member. Requirements SCC-7, SCC-8."""
    return _patch_body({"op": "add", "path": "members", "value": [{"value": _checked(user_id)}]})


def render_remove(user_id: str, dialect: SCIMDialect) -> dict[str, Any]:
    """Return the PATCH body that removes exactly one member.

    VALUE_ARRAY is only ever an explicit setting: it empties the group on servers that follow the
    RFC. Raises ValueError on an unusable id. Requirements SCC-9, SCC-11, EGW-74.
    """
    checked = _checked(user_id)
    if dialect is SCIMDialect.VALUE_ARRAY:
        return _patch_body({"op": "remove", "path": "members", "value": [{"value": checked}]})
    return _patch_body({"op": "remove", "path": f"members[value eq {_literal(checked)}]"})


def parse_lookup(body: bytes) -> UserLookup | None:
    """Read the answer of `build_lookup`; None when it is no ListResponse. Requirement SCC-4."""
    document = _object(body)
    total = document.get("totalResults")
    if not isinstance(total, int) or isinstance(total, bool) or total < 0:
        return None
    resources = document.get("Resources")
    users = resources if isinstance(resources, list) else []
    matches = max(total, len(users))
    if matches != 1:
        return UserLookup(matches=matches)
    user = users[0] if users and isinstance(users[0], dict) else {}
    user_id = user.get("id")
    if not isinstance(user_id, str) or not 0 < len(user_id) <= ID_CHARACTERS_MAX:
        return None
    return UserLookup(matches=1, user_id=user_id, group_ids=_group_ids(user))


def parse_groups_of_user(body: bytes) -> frozenset[str] | None:
    """Return the ids of a user's groups from the answer of `build_user_read`, None if silent."""
    return _group_ids(_object(body))


def parse_membership(body: bytes, group_id: str) -> bool | None:
    """Return whether the answer of `build_membership_query` holds the group, None if unreadable."""
    document = _object(body)
    total = document.get("totalResults")
    if not isinstance(total, int) or isinstance(total, bool):
        return None
    if total == 0:
        return False
    resources = document.get("Resources")
    found = resources if isinstance(resources, list) else []
    return True if any(_id_of(group) == group_id for group in found) else None


def classify_lookup(status: int, lookup: UserLookup | None) -> Outcome:
    """Decide what a 200 answer to a lookup means. ADVANCE: exactly one user was found.

    Unknown user: a failure here, because somebody has to be put into the group. Requirements SCC-4,
    SCC-17.
    """
    if lookup is None:
        detail = "the SCIM answer is not a list of users"
    elif lookup.matches == 0:
        detail = "the identity provider knows no such user"
    elif lookup.matches > 1:
        detail = f"{lookup.matches} users match what must be unique: nothing was changed"
    else:
        return Outcome(klass=OutcomeClass.ADVANCE, detail="user found", status=status)
    return Outcome(klass=OutcomeClass.PERMANENT, detail=detail, status=status)


def classify_add(status: int, retry_after_s: float | None) -> Outcome:
    """Decide what the answer to `build_add` means. Total. Requirement SCC-17."""
    if status in _CHANGED:
        return Outcome(
            klass=OutcomeClass.DONE,
            detail="added to the quarantine group",
            status=status,
            proves=Proof.ACCEPTED,
            residual="membership was not read back",
        )
    if status == _NOT_FOUND:
        return Outcome(
            klass=OutcomeClass.PERMANENT,
            detail="the quarantine group does not exist at the identity provider (404)",
            status=status,
        )
    return _classify_change(status, retry_after_s)


def classify_remove(status: int, retry_after_s: float | None) -> Outcome:
    """Decide what the answer to `build_remove` means. Total. ADVANCE: read back, then done.

    204 may answer the removal of somebody who was not in, 404 and 400 noTarget say so: all are
    done when one reading shows that the user is out. Requirements SCC-10, SCC-17.
    """
    if status in _CHANGED or status in {_NOT_FOUND, _BAD_REQUEST}:
        return Outcome(klass=OutcomeClass.ADVANCE, detail="removal answered", status=status)
    return _classify_change(status, retry_after_s)


def is_no_target(body: bytes) -> bool:
    """Return whether an error body says that the filter matched nothing. Requirement SCC-16."""
    return str(_object(body).get("scimType")).lower() == "notarget"


def _classify_change(status: int, retry_after_s: float | None) -> Outcome:
    if status in _REREAD:
        return Outcome(
            klass=OutcomeClass.TRANSIENT,
            detail=f"the group changed meanwhile ({status})",
            status=status,
            retry_after_s=retry_after_s,
        )
    return classify_status(status, retry_after_s)


def _get(service: SCIMService, path: str) -> OutboundRequest:
    return OutboundRequest(method="GET", url=_url(service, path), headers=_headers(service))


def _patch(service: SCIMService, group_id: str, body: Mapping[str, Any]) -> OutboundRequest:
    # Servers may answer with the whole group; only its id is wanted.
    path = f"/Groups/{_segment(group_id)}?attributes=id"
    return OutboundRequest(
        method="PATCH",
        url=_url(service, path),
        headers={**_headers(service), "content-type": MEDIA_TYPE},
        body=msgspec.json.encode(body),
    )


def _url(service: SCIMService, path: str) -> str:
    return service.setting.base_url.rstrip("/") + path


def _headers(service: SCIMService) -> dict[str, str]:
    accept = f"{MEDIA_TYPE}, application/json"
    return {"authorization": f"Bearer {service.token}", "accept": accept}


def _patch_body(operation: dict[str, Any]) -> dict[str, Any]:
    return {"schemas": [PATCH_SCHEMA], "Operations": [operation]}


def _literal(value: str) -> str:
    """Return a filter string literal: JSON, so quotes and backslashes are escaped (SCC-3)."""
    return msgspec.json.encode(value).decode()


def _checked(identifier: str) -> str:
    if not 0 < len(identifier) <= ID_CHARACTERS_MAX:
        raise ValueError("a SCIM id has 1 to 512 characters")
    return identifier


def _segment(identifier: str) -> str:
    if identifier in {".", ".."}:
        raise ValueError("a SCIM id is not a path")
    return quote(_checked(identifier), safe="")


def _object(body: bytes) -> dict[str, Any]:
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _group_ids(user: Mapping[str, Any]) -> frozenset[str] | None:
    """Read `groups`; absent means empty or unsupported, which only another question can tell."""
    groups = user.get("groups")
    if not isinstance(groups, list):
        return None
    values = [group.get("value") for group in groups if isinstance(group, dict)]
    return frozenset(value for value in values if isinstance(value, str))


def _id_of(resource: object) -> object:
    return resource.get("id") if isinstance(resource, dict) else None
