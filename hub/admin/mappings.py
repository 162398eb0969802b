"""Mappings: what each event type means for risk, shipped and the tenant's own."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Final

from pydantic import Field

import receivers.store
import risk.mappings.service as mappings_service
from hub.admin.bodies import Body, Name
from hub.admin.kinds import Action, Admin, Document, Kind, Listing
from hub.pipeline import signal_of
from risk.mapping import CompiledMappings, compile_mappings
from risk.mappings.comparison import Comparison
from risk.mappings.model import (
    EVENT_TYPE_CHARS_MAX,
    MAPPINGS_PER_TENANT_MAX,
    RULES_MAX,
    StoredMapping,
    parse_mapping,
    render_mapping,
)
from ssf.errors import SharedSignalsError

DRY_RUN_SIGNALS_MAX: Final = 1_000
PAGE_SIGNALS: Final = 200

#: what it may hold is in `risk.mappings.model`
RuleBody = dict[str, Any]
EventType = Annotated[str, Field(min_length=1, max_length=EVENT_TYPE_CHARS_MAX)]
Rules = Annotated[list[RuleBody], Field(max_length=RULES_MAX)]


class MappingBody(Body):
    """The ordered rules of one event type: the first whose conditions all hold applies.

    A rule is `{when: [{member, op, value, ignore_case}], then: [effect], subject}`; an effect is
    `{do: raise, detection, about, level, confidence, reason, clears_on}`, `{do: clear, remedy,
    about, keep}`, `{do: end_sessions}` or `{do: see_session}`. then_defaults: when no rule
    matches, the shipped ones of the type apply.
    """

    name: Name
    event_type: EventType
    then_defaults: bool = False
    rules: Rules


class MappingChange(Body):
    """What to change; rules are replaced as a whole."""

    name: Name | None = None
    event_type: EventType | None = None
    then_defaults: bool | None = None
    rules: Rules | None = None


class ImportBody(Body):
    """All mappings of the tenant: what is not in it is deleted."""

    mappings: list[dict[str, Any]] = Field(max_length=MAPPINGS_PER_TENANT_MAX)


class DryRunBody(Body):
    """Mappings to try. replace: they stand for all of the tenant's, else they are put over them."""

    mappings: list[dict[str, Any]] = Field(max_length=MAPPINGS_PER_TENANT_MAX)
    replace: bool = False
    limit: int = Field(default=DRY_RUN_SIGNALS_MAX, ge=1, le=DRY_RUN_SIGNALS_MAX)


async def list_mappings(admin: Admin, listing: Listing) -> list[Document]:
    """Return the shipped mappings and the tenant's own, by id."""
    async with admin.node.database.snapshot() as connection:
        found = await mappings_service.list_mappings(connection, admin.tenant_id)
    own = {each.mapping.event_type: each for each in found if not each.is_default}
    page = [each for each in found if each.mapping_id > listing.after][: listing.limit]
    return [_mapping(each, own.get(each.mapping.event_type)) for each in page]


async def read_mapping(admin: Admin, mapping_id: str) -> Document:
    """Return one mapping."""
    async with admin.node.database.snapshot() as connection:
        found = await mappings_service.get_mapping(connection, admin.tenant_id, mapping_id)
        own = await mappings_service.own_of_type(
            connection, admin.tenant_id, found.mapping.event_type
        )
    return _mapping(found, own)


async def create_mapping(admin: Admin, body: MappingBody) -> Document:
    """Add a mapping: it stands before, or in place of, the shipped one of its type."""
    async with admin.node.database.transaction() as connection:
        added = await mappings_service.add_mapping(
            connection, admin.tenant_id, body.model_dump(), now=admin.now
        )
    return _mapping(added, added)


async def replace_mapping(admin: Admin, mapping_id: str, body: MappingBody) -> Document:
    """Replace a mapping as a whole."""
    async with admin.node.database.transaction() as connection:
        changed = await mappings_service.change_mapping(
            connection, admin.tenant_id, mapping_id, body.model_dump(), now=admin.now
        )
    return _mapping(changed, changed)


async def change_mapping(admin: Admin, mapping_id: str, body: MappingChange) -> Document:
    """Change members of a mapping."""
    async with admin.node.database.transaction() as connection:
        known = await mappings_service.get_mapping(connection, admin.tenant_id, mapping_id)
        given = body.model_dump(exclude_unset=True, exclude_none=True)
        changed = await mappings_service.change_mapping(
            connection,
            admin.tenant_id,
            mapping_id,
            {**render_mapping(known.mapping), **given},
            now=admin.now,
        )
    return _mapping(changed, changed)


async def delete_mapping(admin: Admin, mapping_id: str) -> None:
    """Delete a mapping; the shipped one of its type applies again."""
    async with admin.node.database.transaction() as connection:
        await mappings_service.remove_mapping(connection, admin.tenant_id, mapping_id)


async def export_mappings(admin: Admin, _id: str, _body: None) -> Document:
    """Return the tenant's own mappings in the form that `import` takes."""
    async with admin.node.database.snapshot() as connection:
        found = await mappings_service.list_mappings(connection, admin.tenant_id)
    return {"mappings": [render_mapping(each.mapping) for each in found if not each.is_default]}


async def import_mappings(admin: Admin, _id: str, body: ImportBody) -> Document:
    """Replace all mappings of the tenant."""
    async with admin.node.database.transaction() as connection:
        made = await mappings_service.replace_all(
            connection, admin.tenant_id, body.mappings, now=admin.now
        )
    return {"imported": len(made)}


async def dry_run(admin: Admin, _id: str, body: DryRunBody) -> Document:
    """Say what the last SETs of the tenant would have meant by other mappings; changes nothing."""
    proposed = mappings_service.parse_all(body.mappings)
    comparison = Comparison(*await _both_ways(admin, proposed, replace=body.replace))
    unreadable, left, before = 0, body.limit, None
    while left > 0:
        async with admin.node.database.snapshot() as connection:
            page = await receivers.store.recent_signals(
                connection, admin.tenant_id, before=before, limit=min(left, PAGE_SIGNALS)
            )
        for each in page:
            try:
                comparison.add(signal_of(each))
            except SharedSignalsError:
                unreadable += 1
        if len(page) < min(left, PAGE_SIGNALS):
            break
        left, before = left - len(page), page[-1].signal_id
        # Other requests of this process wait meanwhile.
        await asyncio.sleep(0)
    return {
        "signals": comparison.signals,
        "unreadable": unreadable,
        "changed": comparison.changed,
        "totals": {"now": dict(comparison.now), "then": dict(comparison.then)},
        "changes": comparison.changes,
    }


async def _both_ways(
    admin: Admin, proposed: list[dict[str, object]], *, replace: bool
) -> tuple[CompiledMappings, CompiledMappings]:
    async with admin.node.database.snapshot() as connection:
        found = await mappings_service.list_mappings(connection, admin.tenant_id)
    own = {each.mapping.event_type: each.mapping for each in found if not each.is_default}
    wanted = {} if replace else dict(own)
    for document in proposed:
        mapping = parse_mapping(document)
        wanted[mapping.event_type] = mapping
    return compile_mappings(own.values()), compile_mappings(wanted.values())


def _mapping(stored: StoredMapping, own: StoredMapping | None) -> Document:
    """Return a mapping as it is shown; own: the tenant's mapping of the same type."""
    in_force = own is None or not stored.is_default or own.mapping.then_defaults
    return {
        "id": stored.mapping_id,
        "source": "default" if stored.is_default else "tenant",
        "in_force": in_force,
        **render_mapping(stored.mapping),
        "version": stored.version,
        "created_at": stored.created_at,
        "updated_at": stored.updated_at,
    }


_EXAMPLE: Final[Document] = {
    "name": "Infected by the example MDM",
    "event_type": "https://mdm.vendor.example/event-type/threat",
    "then_defaults": False,
    "rules": [
        {
            "when": [{"member": "/threat/score", "op": "gte", "value": 70}],
            "then": [
                {
                    "do": "raise",
                    "detection": "x_mdm_threat",
                    "about": "device",
                    "level": "HIGH",
                    "confidence": 0.9,
                    "reason": "Threat {/threat/name}",
                    "clears_on": ["device_healthy"],
                }
            ],
            "subject": "device",
        },
        {
            "when": [{"member": "status", "op": "eq", "value": "clean"}],
            "then": [{"do": "clear", "remedy": "device_healthy", "about": "device"}],
        },
    ],
}

KINDS: Final = (
    Kind(
        name="mappings",
        item="mapping",
        summary="what each event type means for risk: shipped, and the tenant's own",
        list_page=list_mappings,
        read=read_mapping,
        create=create_mapping,
        create_body=MappingBody,
        change=change_mapping,
        change_body=MappingChange,
        replace=replace_mapping,
        delete=delete_mapping,
        example=_EXAMPLE,
        actions=(
            Action(
                name="dry-run",
                summary="Try mappings on the last SETs; changes nothing.",
                perform=dry_run,
                body=DryRunBody,
                on_kind=True,
                reads=True,
                example={"mappings": [_EXAMPLE], "limit": DRY_RUN_SIGNALS_MAX},
            ),
            Action(
                name="export",
                summary="Return the tenant's own mappings.",
                perform=export_mappings,
                on_kind=True,
                reads=True,
            ),
            Action(
                name="import",
                summary="Replace all mappings of the tenant.",
                perform=import_mappings,
                body=ImportBody,
                on_kind=True,
                example={"mappings": [_EXAMPLE]},
            ),
        ),
    ),
)
