"""Use cases of mappings: read, save, import, compile once per version, dry run."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from risk.mapping import CompiledMappings, compile_mappings, shipped_mappings
from risk.mappings import store
from risk.mappings.defaults import DEFAULT_MAPPINGS
from risk.mappings.model import (
    MAPPINGS_PER_TENANT_MAX,
    StoredMapping,
    parse_mapping,
    render_mapping,
)
from risk.sql.store import Connection
from runtime.errors import Conflict, Invalid, NotFound
from runtime.feed import bump, config_versions
from runtime.ids import new_id
from ssf.events.registry import CAEP_BASE, OKTA_BASE, RISC_BASE, SCIM_BASE, SSF_BASE

KIND: Final = "mappings"
CACHED_TENANTS_MAX: Final = 1_000
_FAMILIES: Final = (
    ("caep", CAEP_BASE),
    ("okta", OKTA_BASE),
    ("risc", RISC_BASE),
    ("scim", SCIM_BASE),
    ("ssf", SSF_BASE),
)


def shipped() -> list[StoredMapping]:
    """Return the shipped mappings with ids that tell their event type, in order of the ids."""
    return sorted(
        (
            StoredMapping(mapping_id=_shipped_id(each.event_type), mapping=each, version=0)
            for each in DEFAULT_MAPPINGS
        ),
        key=lambda each: each.mapping_id,
    )


def _shipped_id(event_type: str) -> str:
    family, base = next(each for each in _FAMILIES if event_type.startswith(each[1]))
    return f"{family}:{event_type.removeprefix(base)}"


async def list_mappings(connection: Connection, tenant_id: str) -> list[StoredMapping]:
    """Return the shipped mappings and the tenant's own, in order of their ids."""
    own = await store.list_mappings(connection, tenant_id)
    return sorted([*shipped(), *own], key=lambda each: each.mapping_id)


async def get_mapping(connection: Connection, tenant_id: str, mapping_id: str) -> StoredMapping:
    """Return a mapping of the tenant, or a shipped one. Raises NotFound."""
    for each in shipped():
        if each.mapping_id == mapping_id:
            return each
    return await _own(connection, tenant_id, mapping_id)


async def own_of_type(
    connection: Connection, tenant_id: str, event_type: str
) -> StoredMapping | None:
    """Return the tenant's own mapping of an event type. Raises nothing."""
    own = await store.list_mappings(connection, tenant_id)
    return next((each for each in own if each.mapping.event_type == event_type), None)


async def add_mapping(
    connection: Connection, tenant_id: str, document: object, *, now: datetime
) -> StoredMapping:
    """Save a new mapping; it applies to every signal assessed from the commit on.

    Raises Invalid; Conflict when the event type has one, or the tenant has too many.
    """
    added = _new(document, now)
    if await store.count_mappings(connection, tenant_id) >= MAPPINGS_PER_TENANT_MAX:
        raise Conflict(f"A tenant has at most {MAPPINGS_PER_TENANT_MAX} mappings of its own.")
    await store.add_mappings(connection, tenant_id, [added])
    await bump(connection, tenant_id, KIND)
    return added


async def change_mapping(
    connection: Connection, tenant_id: str, mapping_id: str, document: object, *, now: datetime
) -> StoredMapping:
    """Replace a mapping by a whole document. Raises Invalid, NotFound, Conflict."""
    known = await _own(connection, tenant_id, mapping_id)
    mapping = parse_mapping(document)
    if mapping == known.mapping:
        return known
    changed = replace(known, mapping=mapping, version=known.version + 1, updated_at=now)
    await store.write_mapping(connection, tenant_id, changed)
    await bump(connection, tenant_id, KIND)
    return changed


async def remove_mapping(connection: Connection, tenant_id: str, mapping_id: str) -> None:
    """Delete a mapping: the shipped one of its type applies again. Raises NotFound, Conflict."""
    await _own(connection, tenant_id, mapping_id)
    await store.delete_mapping(connection, tenant_id, mapping_id)
    await bump(connection, tenant_id, KIND)


async def replace_all(
    connection: Connection, tenant_id: str, documents: Sequence[object], *, now: datetime
) -> list[StoredMapping]:
    """Replace all mappings of the tenant by these. Raises Invalid; then nothing is changed."""
    added = [_new(each, now) for each in parse_all(documents)]
    await store.delete_all(connection, tenant_id)
    await store.add_mappings(connection, tenant_id, added)
    await bump(connection, tenant_id, KIND)
    return added


def parse_all(documents: Sequence[object]) -> list[dict[str, object]]:
    """Check several documents at once: each valid, one per event type. Raises Invalid."""
    if len(documents) > MAPPINGS_PER_TENANT_MAX:
        rule = f"at most {MAPPINGS_PER_TENANT_MAX}"
        raise Invalid("Too many mappings.", pointers=(("/mappings", rule),))
    seen: dict[str, dict[str, object]] = {}
    for number, document in enumerate(documents):
        at = f"/mappings/{number}"
        try:
            mapping = parse_mapping(document)
        except Invalid as error:
            pointers = tuple((at + pointer, rule) for pointer, rule in error.pointers)
            raise Invalid(f"{at}: {error.detail}", pointers=pointers) from error
        if mapping.event_type in seen:
            rule = "one mapping per event type"
            raise Invalid(f"{at}: {rule}.", pointers=((f"{at}/event_type", rule),))
        seen[mapping.event_type] = render_mapping(mapping)
    return list(seen.values())


def _new(document: object, now: datetime) -> StoredMapping:
    return StoredMapping(
        mapping_id=new_id("map"),
        mapping=parse_mapping(document),
        version=1,
        created_at=now,
        updated_at=now,
    )


async def _own(connection: Connection, tenant_id: str, mapping_id: str) -> StoredMapping:
    found = await store.find_mapping(connection, tenant_id, mapping_id)
    if found is None and any(each.mapping_id == mapping_id for each in shipped()):
        raise Conflict("A shipped mapping stays as it is: add one for its event type instead.")
    if found is None:
        raise NotFound("No such mapping.")
    return found


# --- compiled, once per version -----------------------------------------------------------------


class MappingCache:
    """The compiled mappings of the tenants this process assesses, each of one version.

    The version is read in the transaction that uses the mappings, so that a signal is never
    assessed by older ones than were committed before. Tenants without mappings of their own
    share the shipped ones.
    """

    def __init__(self) -> None:
        self._held: OrderedDict[str, tuple[int, CompiledMappings]] = OrderedDict()

    async def get(
        self, connection: Connection, tenant_ids: Iterable[str]
    ) -> dict[str, CompiledMappings]:
        """Return the mappings of these tenants, compiling anew those that changed."""
        wanted = set(tenant_ids)
        versions = await config_versions(connection, KIND, wanted)
        found: dict[str, CompiledMappings] = {}
        for tenant_id in wanted:
            version = versions.get(tenant_id, 0)
            held = self._held.get(tenant_id)
            if version == 0:
                found[tenant_id] = shipped_mappings()
            elif held is not None and held[0] == version:
                found[tenant_id] = held[1]
            else:
                found[tenant_id] = await compiled(connection, tenant_id)
                self._keep(tenant_id, version, found[tenant_id])
        return found

    def _keep(self, tenant_id: str, version: int, mappings: CompiledMappings) -> None:
        self._held[tenant_id] = (version, mappings)
        self._held.move_to_end(tenant_id)
        while len(self._held) > CACHED_TENANTS_MAX:
            self._held.popitem(last=False)


async def compiled(connection: Connection, tenant_id: str) -> CompiledMappings:
    """Read and compile the mappings of a tenant."""
    own = await store.list_mappings(connection, tenant_id)
    return compile_mappings(each.mapping for each in own)
