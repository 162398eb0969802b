"""Zones in use: a process's compiled zones by tenant, and the use cases of the admin API.

zone changed ─▶ change feed ─▶ Zones: read and compiled anew, in a thread ─▶ judge
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from risk.contexts.store import read_recorded
from risk.networks.readers.text import parse_range
from risk.networks.service import Networks
from risk.policies.recorded import decode
from risk.sql.store import Connection
from risk.zones import store
from risk.zones.chain import read_chain
from risk.zones.explanation import Explanation, explain
from risk.zones.judging import judge
from risk.zones.matcher import CompiledZones
from risk.zones.model import (
    SYSTEM_ZONES,
    ZONES_MAX,
    Entry,
    Status,
    Zone,
    ZoneType,
    check_zone,
    names_in,
    restore_zones,
)
from risk.zones.origin import Origin
from runtime.clock import Clock
from runtime.database import Database
from runtime.errors import Conflict, Invalid, NotFound
from runtime.feed import ConfigCache, ConfigFeed, bump

KIND: Final = "zones"
#: addresses or chains of one dry run
SAMPLE_MAX: Final = 10_000
#: how far back a dry run without addresses looks, and how many records it reads at once
RECENT: Final = timedelta(days=7)
PAGE: Final = 1_000
#: chains tried before others get the event loop
YIELD_EVERY: Final = 100


class Zones:
    """The zones of every tenant, in this process. trusted_proxies: those of the settings."""

    def __init__(
        self,
        database: Database,
        feed: ConfigFeed,
        *,
        networks: Networks,
        clock: Clock,
        trusted_proxies: Sequence[str] = (),
    ) -> None:
        self._database = database
        self._networks = networks
        self._clock = clock
        self._trusted = trusted(trusted_proxies)
        self._loaded = ConfigCache(feed, KIND, self._load)
        self._renewed: dict[str, tuple[CompiledZones, CompiledZones]] = {}
        self._feed = feed
        self._ends: dict[str, datetime | None] = {}

    async def judge(self, tenant_id: str, chain: Sequence[str]) -> Origin:
        """Return where a request comes from. chain: client first, the hop that connects to us last.

        Only the nearest 32 hops count. Raises database errors, when zones had to be read.
        """
        return self._judge(await self.compiled(tenant_id), chain)

    def last_known(self, tenant_id: str, chain: Sequence[str]) -> Origin | None:
        """Return where a request comes from by what is in memory, outdated or not; None: nothing.

        Raises nothing.
        """
        zones = self._loaded.peek(tenant_id)
        return None if zones is None else self._judge(zones, chain)

    def _judge(self, zones: CompiledZones, chain: Sequence[str]) -> Origin:
        return judge(zones, chain, lookup=self._networks.lookup, is_trusted=self.is_trusted)

    def version(self, tenant_id: str) -> object:
        """Return what changes when the same chain may be judged otherwise. Raises nothing."""
        ends = self._ends.get(tenant_id)
        has_ended = ends is not None and self._clock.now() >= ends
        return self._feed.version(tenant_id, KIND), self._networks.version, ends, has_ended

    async def compiled(self, tenant_id: str) -> CompiledZones:
        """Return the tenant's zones as they are now. Raises database errors."""
        zones = await self._compiled(tenant_id)
        self._ends[tenant_id] = zones.valid_until
        return zones

    async def _compiled(self, tenant_id: str) -> CompiledZones:
        loaded = await self._loaded.get(tenant_id)
        now = self._clock.now()
        if loaded.valid_until is None or now < loaded.valid_until:
            return loaded
        # Entries have ended since: the same zones without these.
        kept = self._renewed.get(tenant_id)
        if kept is not None and kept[0] is loaded:
            until = kept[1].valid_until
            if until is None or now < until:
                return kept[1]
        renewed = await asyncio.to_thread(CompiledZones, loaded.zones, now)
        self._renewed[tenant_id] = (loaded, renewed)
        return renewed

    async def of_address(self, tenant_id: str, ip: str) -> dict[str, Any]:
        """Return which zones an address is in and why, for people. Raises database errors."""
        compiled = await self.compiled(tenant_id)
        record, now = self._networks.lookup(ip), self._clock.now()
        explained = [(zone, explain(zone, [ip], record, now=now)) for zone in compiled.zones]
        origin = await self.judge(tenant_id, [ip])
        return {
            "zones": [
                {
                    "id": zone.zone_id,
                    "name": zone.name,
                    "usage": zone.usage.value,
                    "why": [f"{check.rule}: {check.why}" for check in found.checks if check.holds],
                }
                for zone, found in explained
                if found.is_inside
            ],
            "exempt": origin.is_exempt,
            "blocked_by": origin.blocked_by,
            "path": list(origin.path),
        }

    def is_trusted(self, ip: str) -> bool:
        """Return whether the settings name an address as a proxy of ours. Raises nothing."""
        return bool(self._trusted.at(ip)[1])

    async def _load(self, tenant_id: str) -> CompiledZones:
        async with self._database.snapshot() as connection:
            stored = await store.list_zones(connection, tenant_id)
        # Tens of thousands of entries take a while: not on the event loop.
        return await asyncio.to_thread(CompiledZones, restore_zones(stored), self._clock.now())


def trusted(proxies: Sequence[str]) -> CompiledZones:
    """Return the proxies of the settings in a form that is quick to ask; no address: left out."""
    entries = []
    for proxy in proxies:
        try:
            parse_range(proxy)
        except ValueError:
            continue
        entries.append(Entry(value=proxy))
    ours = Zone(zone_id="", name="", type=ZoneType.IP, proxies=tuple(entries))
    return CompiledZones((ours,), datetime.min.replace(tzinfo=UTC))


async def list_all(connection: Connection, tenant_id: str) -> tuple[Zone, ...]:
    """Return a tenant's zones by id, the system's among them. Raises nothing."""
    return restore_zones(await store.list_zones(connection, tenant_id))


async def get(connection: Connection, tenant_id: str, zone_id: str) -> Zone:
    """Return one zone. Raises NotFound."""
    stored = await store.read_zone(connection, tenant_id, zone_id)
    if stored is not None:
        return stored
    for zone in SYSTEM_ZONES:
        if zone.zone_id == zone_id:
            return zone
    raise NotFound("No such zone.")


async def put(connection: Connection, tenant_id: str, zone: Zone, *, now: datetime) -> Zone:
    """Store a zone, new or changed. Raises Invalid, Conflict."""
    checked = check_zone(zone)
    others = [
        each for each in await list_all(connection, tenant_id) if each.zone_id != zone.zone_id
    ]
    if any(each.name == zone.name for each in others):
        raise Conflict("Another zone has this name.")
    if len(others) >= ZONES_MAX:
        raise Conflict(f"A tenant has at most {ZONES_MAX} zones.")
    await store.write_zone(connection, tenant_id, checked, now=now)
    await bump(connection, tenant_id, KIND)
    return checked


async def change(connection: Connection, tenant_id: str, zone: Zone, *, now: datetime) -> Zone:
    """Store a changed zone; one that policies name keeps its name. Raises Invalid, Conflict."""
    before = await get(connection, tenant_id, zone.zone_id)
    if before.name != zone.name:
        await _check_unnamed(connection, tenant_id, before, wanted="renamed")
    return await put(connection, tenant_id, zone, now=now)


async def delete(connection: Connection, tenant_id: str, zone_id: str) -> None:
    """Delete a zone that is inactive and that nothing names. Raises NotFound, Conflict."""
    zone = await get(connection, tenant_id, zone_id)
    if zone.is_system:
        raise Conflict("A system zone cannot be deleted; deactivate it.")
    if zone.is_active:
        raise Conflict("An active zone cannot be deleted; deactivate it first.")
    await _check_unnamed(connection, tenant_id, zone, wanted="deleted")
    await store.delete_zone(connection, tenant_id, zone_id)
    await bump(connection, tenant_id, KIND)


async def _check_unnamed(
    connection: Connection, tenant_id: str, zone: Zone, *, wanted: str
) -> None:
    for name, document in await store.policies_of(connection, tenant_id):
        if names_in(document, zone):
            raise Conflict(f"A zone that {name} names cannot be {wanted}.")


async def set_status(
    connection: Connection, tenant_id: str, zone_id: str, status: Status, *, now: datetime
) -> Zone:
    """Make a zone count, or not. Raises NotFound, Conflict."""
    zone = await get(connection, tenant_id, zone_id)
    if zone.is_exempt_list and status is Status.INACTIVE:
        raise Conflict("The exempt list cannot be deactivated; empty it.")
    return await put(connection, tenant_id, msgspec.structs.replace(zone, status=status), now=now)


def explain_chain(
    zone: Zone, chain: Sequence[str], networks: Networks, *, now: datetime
) -> Explanation:
    """Return why a chain, client first, is inside a zone or not. Raises Invalid."""
    hops = read_chain(chain).hops
    if not hops or hops[-1] is None:
        raise Invalid(
            "The address is not acceptable.", pointers=(("/ip", "an IPv4 or IPv6 address"),)
        )
    record = networks.lookup(hops[0] or "")
    return explain(zone, hops, record, now=now)


async def recent_chains(database: Database, tenant_id: str, *, now: datetime) -> list[list[str]]:
    """Return the clients' addresses of judged requests of the last seven days, 10,000 at most.

    Raises database errors.
    """
    found: list[list[str]] = []
    after: str | None = None
    while len(found) < SAMPLE_MAX:
        async with database.snapshot() as connection:
            contexts = await read_recorded(
                connection, tenant_id, since=now - RECENT, until=now, after=after, limit=PAGE
            )
        for context in contexts:
            facts, _ = decode(context.facts)
            if facts.record is not None and facts.record.ip:
                found.append([facts.record.ip])
        if len(contexts) < PAGE:
            break
        after = contexts[-1].context_id
    return found[:SAMPLE_MAX]


async def count_matches(
    zone: Zone, chains: Sequence[Sequence[str]], networks: Networks, *, now: datetime
) -> int:
    """Return how many of these chains, client first, are inside a zone. Raises Invalid."""
    active = msgspec.structs.replace(check_zone(zone), status=Status.ACTIVE)
    compiled = await asyncio.to_thread(CompiledZones, (active,), now)
    count = 0
    for at, chain in enumerate(chains):
        if at % YIELD_EVERY == 0:
            await asyncio.sleep(0)
        origin = judge(compiled, chain, lookup=networks.lookup, is_trusted=lambda _: False)
        count += bool(origin.zones)
    return count
