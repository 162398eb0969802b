"""Relay rules: which events of which providers go out to which streams; and what went out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Annotated, Any, Final

from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncConnection

import actions.registry.store
import hub.relay.service as relay_service
import receivers.registry.store
import transmitters.store
from hub.admin.bodies import Body
from hub.admin.context import without_tenant
from hub.admin.kinds import Admin, Document, Kind, Listing
from hub.relay import store
from hub.relay.model import (
    ENTRIES_MAX,
    NAME_CHARS_MAX,
    POSITION_MAX,
    RelayMode,
    RelayRecord,
    RelayRule,
    Unresolved,
)
from runtime.errors import Invalid
from runtime.ids import new_id
from ssf.events.registry import STREAM_EVENT_TYPES
from ssf.secevent import CLAIM_CHARS_MAX

Id = Annotated[str, Field(min_length=1, max_length=64)]
Ids = Annotated[list[Id], Field(min_length=1, max_length=ENTRIES_MAX)]
TypeURI = Annotated[str, Field(min_length=1, max_length=CLAIM_CHARS_MAX)]
Types = Annotated[list[TypeURI], Field(min_length=1, max_length=ENTRIES_MAX)]
Label = Annotated[str, Field(min_length=1, max_length=NAME_CHARS_MAX)]
Position = Annotated[int, Field(ge=0, le=POSITION_MAX)]


class RelayBody(Body):
    """A rule. Null for providers, event_types, streams or apps means all of them."""

    name: Label
    position: Position = 100
    providers: Ids | None = None
    event_types: Types | None = None
    streams: Ids | None = None
    apps: Ids | None = None
    unresolved: Unresolved = Unresolved.HOLD
    mode: RelayMode = RelayMode.MONITOR
    to_provider: bool = False


class RelayChange(Body):
    """What can be changed of a rule; members that are left out stay."""

    name: Label | None = None
    position: Position | None = None
    providers: Ids | None = None
    event_types: Types | None = None
    streams: Ids | None = None
    apps: Ids | None = None
    unresolved: Unresolved | None = None
    mode: RelayMode | None = None
    to_provider: bool | None = None


PROBLEMS_MAX: Final = 20
_SETS: Final = frozenset({"providers", "event_types", "streams", "apps"})


async def create_relay(admin: Admin, body: RelayBody) -> Document:
    """Add a rule; it counts for signals that are taken up from now on."""
    return await _put(admin, new_id("rly"), _members(body.model_dump()), created_at=admin.now)


async def replace_relay(admin: Admin, rule_id: str, body: RelayBody) -> Document:
    """Write a rule anew; what is left out falls back to its default."""
    before = await _stored(admin, rule_id)
    return await _put(admin, rule_id, _members(body.model_dump()), created_at=before.created_at)


async def change_relay(admin: Admin, rule_id: str, body: RelayChange) -> Document:
    """Change a rule; null for providers, event_types, streams or apps means all."""
    before = await _stored(admin, rule_id)
    given = body.model_dump(exclude_unset=True)
    kept = {name: getattr(before, name) for name in RelayBody.model_fields}
    # A null for what has no "all" means: leave it as it is.
    changed = {n: value for n, value in given.items() if value is not None or n in _SETS}
    return await _put(admin, rule_id, kept | _members(changed), created_at=before.created_at)


async def list_relays(admin: Admin, listing: Listing) -> list[Document]:
    """Return rules by id."""
    async with admin.node.database.snapshot() as connection:
        found = await relay_service.list_rules(connection, admin.tenant_id)
    by_id = sorted(found, key=lambda rule: rule.rule_id)
    page = [rule for rule in by_id if rule.rule_id > listing.after][: listing.limit]
    return [_rule(rule) for rule in page]


async def read_relay(admin: Admin, rule_id: str) -> Document:
    """Return one rule."""
    return _rule(await _stored(admin, rule_id))


async def delete_relay(admin: Admin, rule_id: str) -> None:
    """Forget a rule; what it relayed stays recorded."""
    async with admin.node.database.transaction() as connection:
        await relay_service.delete_rule(connection, admin.tenant_id, rule_id)


async def list_relayed(admin: Admin, listing: Listing) -> list[Document]:
    """Return what became of signals under relay rules, newest first."""
    async with admin.node.database.snapshot() as connection:
        found = await store.list_records(
            connection,
            admin.tenant_id,
            signal_id=listing.filters.get("signal"),
            before=listing.after,
            limit=listing.limit,
        )
    return [_record(one) for one in found]


async def _stored(admin: Admin, rule_id: str) -> RelayRule:
    async with admin.node.database.snapshot() as connection:
        return await relay_service.get_rule(connection, admin.tenant_id, rule_id)


async def _put(admin: Admin, rule_id: str, members: dict[str, Any], *, created_at: Any) -> Document:
    rule = RelayRule(
        tenant_id=admin.tenant_id,
        rule_id=rule_id,
        created_at=created_at,
        updated_at=admin.now,
        **members,
    )
    await _check(admin, rule)
    async with admin.node.database.transaction() as connection:
        return _rule(await relay_service.put_rule(connection, rule))


async def _check(admin: Admin, rule: RelayRule) -> None:
    """Refuse what can never match. Raises Invalid with pointers."""
    problems = []
    if rule.event_types and rule.event_types & STREAM_EVENT_TYPES:
        problems.append(("/event_types", "events about a stream are never relayed"))
    async with admin.node.database.snapshot() as connection:
        for name in ("providers", "streams", "apps"):
            wanted = getattr(rule, name) or frozenset()
            missing = sorted(wanted - await _KNOWN[name](connection, admin.tenant_id))
            problems += [(f"/{name}", f"there is no {one}") for one in missing]
    if problems:
        raise Invalid("The relay rule is not acceptable.", pointers=tuple(problems[:PROBLEMS_MAX]))


async def _provider_ids(connection: AsyncConnection, tenant_id: str) -> set[str]:
    found = await receivers.registry.store.list_providers(connection, tenant_id)
    return {one.provider_id for one in found}


async def _stream_ids(connection: AsyncConnection, tenant_id: str) -> set[str]:
    return {one.stream_id for one in await transmitters.store.list_streams(connection, tenant_id)}


async def _app_ids(connection: AsyncConnection, tenant_id: str) -> set[str]:
    return {
        one.app_id for one in await actions.registry.store.system_apps_of(connection, [tenant_id])
    }


_KNOWN: Final[dict[str, Callable[[AsyncConnection, str], Awaitable[set[str]]]]] = {
    "providers": _provider_ids,
    "streams": _stream_ids,
    "apps": _app_ids,
}


def _members(given: dict[str, Any]) -> dict[str, Any]:
    """Return the members as the rule has them: lists become sets."""
    return {
        name: frozenset(value) if name in _SETS and value is not None else value
        for name, value in given.items()
    }


def _rule(rule: RelayRule) -> Document:
    document = without_tenant({"id": rule.rule_id, **asdict(rule)})
    del document["rule_id"]
    for name in _SETS:
        document[name] = None if document[name] is None else sorted(document[name])
    return document


def _record(record: RelayRecord) -> Document:
    document = without_tenant(asdict(record))
    return {"id": f"{record.signal_id}:{record.rule_id}", **document}


KINDS: Final = (
    Kind(
        name="relays",
        item="relay",
        summary="rules by which events of providers go out to other streams",
        list_page=list_relays,
        read=read_relay,
        create=create_relay,
        create_body=RelayBody,
        change=change_relay,
        change_body=RelayChange,
        replace=replace_relay,
        delete=delete_relay,
        example={
            "name": "device posture to all apps",
            "position": 10,
            "event_types": [
                "https://schemas.openid.net/secevent/caep/event-type/device-compliance-change"
            ],
            "unresolved": "hold",
            "mode": "enforce",
        },
    ),
    Kind(
        name="relayed",
        item="relayed",
        summary="what became of signals under relay rules, with the upstream's ids",
        list_page=list_relayed,
        filters=("signal",),
    ),
)
