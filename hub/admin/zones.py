"""Zones: named parts of the net. The JSON form is the one practitioners' tools know."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, Literal

import msgspec
from pydantic import Field

import risk.sweeps.service as sweeps
import risk.zones.service as zones_service
from hub.admin.bodies import Body
from hub.admin.kinds import Action, Admin, Document, Kind, Listing
from risk.sql.store import Connection
from risk.sweeps.model import ZONE_CAUSE, SweepKind
from risk.zones.model import (
    ADDRESS_CHARS_MAX,
    NAME_CHARS_MAX,
    SYSTEM_ENTRIES_MAX,
    TEXT_CHARS_MAX,
    Entry,
    Place,
    Rules,
    Status,
    Usage,
    Zone,
    ZoneType,
)
from risk.zones.service import SAMPLE_MAX
from runtime.errors import Invalid
from runtime.ids import new_id

#: how many addresses a chain may be given with
CHAIN_MAX: Final = 1_000
#: one more than the rules allow, so that these are what refuses them
LIST_MAX: Final = 1_000

Address = Annotated[str, Field(max_length=ADDRESS_CHARS_MAX)]
Chain = Annotated[list[Address], Field(min_length=1, max_length=CHAIN_MAX)]


class EntryBody(Body):
    """An address, network or range. until: when it ends by itself."""

    type: Literal["CIDR", "RANGE"] | None = None
    value: Address
    until: Annotated[datetime, Field(strict=False)] | None = None
    reason: Annotated[str, Field(max_length=TEXT_CHARS_MAX)] = ""
    owner: Annotated[str, Field(max_length=TEXT_CHARS_MAX)] = ""


class PlaceBody(Body):
    """A country, or a region of it: `{country: US, region: US-CA}`."""

    country: Annotated[str, Field(max_length=8)]
    region: Annotated[str, Field(max_length=8)] | None = None


Entries = Annotated[list[EntryBody], Field(max_length=SYSTEM_ENTRIES_MAX + 1)]
ASN = int | Annotated[str, Field(pattern=r"^(?:AS)?[0-9]{1,10}$")]
ASNs = Annotated[list[ASN], Field(max_length=LIST_MAX)]
Places = Annotated[list[PlaceBody], Field(max_length=LIST_MAX)]
Categories = Annotated[list[Annotated[str, Field(max_length=64)]], Field(max_length=LIST_MAX)]


class ASNSides(Body):
    """AS numbers that are in, and that are not."""

    include: ASNs = Field(default_factory=list)
    exclude: ASNs = Field(default_factory=list)


class PlaceSides(Body):
    """Places that are in, and that are not."""

    include: Places = Field(default_factory=list)
    exclude: Places = Field(default_factory=list)


class CategorySides(Body):
    """Categories that are in, and that are not."""

    include: Categories = Field(default_factory=list)
    exclude: Categories = Field(default_factory=list)


class ZoneBody(Body):
    """A zone. IP: gateways, proxies. DYNAMIC: asns, locations, proxyType. DYNAMIC_V2: three sides.

    asns, locations and ipServiceCategories are `{include, exclude}`, or a list of what is included.
    sweep: whether live sessions are judged again because of it.
    """

    name: Annotated[str, Field(min_length=1, max_length=NAME_CHARS_MAX)]
    type: ZoneType
    usage: Usage = Usage.POLICY
    status: Status = Status.ACTIVE
    sweep: bool = True
    gateways: Entries = Field(default_factory=list)
    proxies: Entries = Field(default_factory=list)
    asns: ASNSides | ASNs = Field(default_factory=ASNSides)
    locations: PlaceSides | Places = Field(default_factory=PlaceSides)
    ipServiceCategories: CategorySides | Categories = Field(default_factory=CategorySides)  # noqa: N815 - a JSON name
    proxyType: Annotated[str, Field(max_length=32)] | None = None  # noqa: N815 - a JSON name


class ZoneChange(Body):
    """What to change; lists are replaced as a whole. The type stays. sweep: as of a zone."""

    name: Annotated[str, Field(min_length=1, max_length=NAME_CHARS_MAX)] | None = None
    usage: Usage | None = None
    status: Status | None = None
    sweep: bool = True
    gateways: Entries | None = None
    proxies: Entries | None = None
    asns: ASNSides | ASNs | None = None
    locations: PlaceSides | Places | None = None
    ipServiceCategories: CategorySides | Categories | None = None  # noqa: N815 - a JSON name
    proxyType: Annotated[str, Field(max_length=32)] | None = None  # noqa: N815 - a JSON name


class ExplainBody(Body):
    """An address, or the chain a request came through: client first."""

    ip: Address | None = None
    chain: Chain | None = None


class DryRunBody(Body):
    """A zone that need not exist yet, and addresses or chains to try it on.

    Without these it is tried on the requests of sessions that were judged in the last seven days.
    """

    zone: ZoneBody
    addresses: Annotated[list[Address], Field(max_length=SAMPLE_MAX)] = Field(default_factory=list)
    chains: Annotated[list[Chain], Field(max_length=SAMPLE_MAX)] = Field(default_factory=list)


async def list_zones(admin: Admin, listing: Listing) -> list[Document]:
    """Return the zones by id, those of the system among them."""
    async with admin.node.database.snapshot() as connection:
        found = await zones_service.list_all(connection, admin.tenant_id)
    wanted = listing.filters
    page = [
        zone
        for zone in found
        if zone.zone_id > listing.after
        and wanted.get("usage", zone.usage) == zone.usage
        and wanted.get("type", zone.type) == zone.type
        and wanted.get("status", zone.status) == zone.status
    ]
    return [render(zone) for zone in page[: listing.limit]]


async def read_zone(admin: Admin, zone_id: str) -> Document:
    """Return one zone."""
    async with admin.node.database.snapshot() as connection:
        return render(await zones_service.get(connection, admin.tenant_id, zone_id))


async def create_zone(admin: Admin, body: ZoneBody) -> Document:
    """Add a zone; every process judges by it within a second."""
    zone = zone_of(body, Zone(zone_id=new_id("zon"), name=body.name, type=body.type))
    async with admin.node.database.transaction() as connection:
        stored = await zones_service.put(connection, admin.tenant_id, zone, now=admin.now)
        await _sweep(connection, admin, None, stored, is_wanted=body.sweep)
    return render(stored)


async def replace_zone(admin: Admin, zone_id: str, body: ZoneBody) -> Document:
    """Replace a zone."""
    async with admin.node.database.transaction() as connection:
        before = await zones_service.get(connection, admin.tenant_id, zone_id)
        if before.type is not body.type:
            raise Invalid("The type of a zone stays.", pointers=(("/type", before.type.value),))
        stored = await zones_service.change(
            connection, admin.tenant_id, zone_of(body, before), now=admin.now
        )
        await _sweep(connection, admin, before, stored, is_wanted=body.sweep)
    return render(stored)


async def change_zone(admin: Admin, zone_id: str, body: ZoneChange) -> Document:
    """Change what is given of a zone."""
    async with admin.node.database.transaction() as connection:
        before = await zones_service.get(connection, admin.tenant_id, zone_id)
        stored = await zones_service.change(
            connection, admin.tenant_id, zone_of(body, before), now=admin.now
        )
        await _sweep(connection, admin, before, stored, is_wanted=body.sweep)
    return render(stored)


async def delete_zone(admin: Admin, zone_id: str) -> None:
    """Delete a zone that is inactive and that no policy names."""
    async with admin.node.database.transaction() as connection:
        await zones_service.delete(connection, admin.tenant_id, zone_id)


async def activate(admin: Admin, zone_id: str, _body: None) -> Document:
    """Let a zone count."""
    return await _set_status(admin, zone_id, Status.ACTIVE)


async def deactivate(admin: Admin, zone_id: str, _body: None) -> Document:
    """Let a zone count no more."""
    return await _set_status(admin, zone_id, Status.INACTIVE)


async def _set_status(admin: Admin, zone_id: str, status: Status) -> Document:
    async with admin.node.database.transaction() as connection:
        before = await zones_service.get(connection, admin.tenant_id, zone_id)
        stored = await zones_service.set_status(
            connection, admin.tenant_id, zone_id, status, now=admin.now
        )
        await _sweep(connection, admin, before, stored, is_wanted=True)
    return render(stored)


async def _sweep(
    connection: Connection, admin: Admin, before: Zone | None, after: Zone, *, is_wanted: bool
) -> None:
    """Have live sessions judged again, when the zone counted before or counts now."""
    counts = any(each is not None and each.status is Status.ACTIVE for each in (before, after))
    if is_wanted and counts and _rules(before) != _rules(after):
        await sweeps.request(
            connection,
            admin.tenant_id,
            SweepKind.SESSIONS,
            cause=ZONE_CAUSE + after.zone_id,
            now=admin.now,
        )


def _rules(zone: Zone | None) -> Zone | None:
    """Return a zone without what only people read."""
    if zone is None:
        return None
    bare = {
        name: tuple(msgspec.structs.replace(each, reason="", owner="") for each in entries)
        for name, entries in (("gateways", zone.gateways), ("proxies", zone.proxies))
    }
    return msgspec.structs.replace(zone, **bare)


async def explain(admin: Admin, zone_id: str, body: ExplainBody) -> Document:
    """Tell why an address, or a chain, is in a zone or is not."""
    if (body.ip is None) == (body.chain is None):
        raise Invalid("Name an ip or a chain.", pointers=(("/ip", "or chain, one of them"),))
    async with admin.node.database.snapshot() as connection:
        zone = await zones_service.get(connection, admin.tenant_id, zone_id)
    chain = body.chain or [body.ip or ""]
    found = zones_service.explain_chain(zone, chain, admin.node.networks, now=admin.now)
    return {
        "id": zone.zone_id,
        "name": zone.name,
        "status": zone.status.value,
        "inside": found.is_inside,
        "checks": [
            {"rule": check.rule, "holds": check.holds, "why": check.why} for check in found.checks
        ],
    }


async def dry_run(admin: Admin, _id: str, body: DryRunBody) -> Document:
    """Count how many of the given, or else of the recorded, requests a zone would take in."""
    chains: list[list[str]] = [*([ip] for ip in body.addresses), *body.chains]
    if len(chains) > SAMPLE_MAX:
        raise Invalid("Too many.", pointers=(("/addresses", f"at most {SAMPLE_MAX} in all"),))
    recorded = not chains
    if recorded:
        chains = await zones_service.recent_chains(
            admin.node.database, admin.tenant_id, now=admin.now
        )
    zone = zone_of(body.zone, Zone(zone_id="zon_tried", name=body.zone.name, type=body.zone.type))
    inside = await zones_service.count_matches(zone, chains, admin.node.networks, now=admin.now)
    return {"tried": len(chains), "inside": inside, "recorded": recorded}


def zone_of(body: ZoneBody | ZoneChange, before: Zone) -> Zone:
    """Return a zone with what a body says of it; what it leaves out stays, or is the default."""
    given = body.model_fields_set if isinstance(body, ZoneChange) else set(ZoneBody.model_fields)
    changed: dict[str, Any] = {
        name: getattr(body, name)
        for name in ("name", "usage", "status")
        if name in given and getattr(body, name) is not None
    }
    for name in ("gateways", "proxies"):
        if name in given:
            changed[name] = tuple(map(_entry, getattr(body, name) or ()))
    if "proxyType" in given:
        changed["proxy_type"] = body.proxyType
    include, exclude = {}, {}
    for shown, member, make in (
        ("asns", "asns", _asn),
        ("locations", "locations", _place),
        ("ipServiceCategories", "categories", str),
    ):
        if shown in given:
            included, excluded = _sides(getattr(body, shown))
            include[member] = tuple(make(each) for each in included)
            exclude[member] = tuple(make(each) for each in excluded)
    changed["include"] = msgspec.structs.replace(before.include, **include)
    changed["exclude"] = msgspec.structs.replace(before.exclude, **exclude)
    return msgspec.structs.replace(before, **changed)


def _sides(value: Any) -> tuple[list[Any], list[Any]]:
    if value is None:
        return [], []
    return (value, []) if isinstance(value, list) else (value.include, value.exclude)


def _entry(body: EntryBody) -> Entry:
    return Entry(value=body.value, until=body.until, reason=body.reason, owner=body.owner)


def _asn(value: int | str) -> int:
    return value if isinstance(value, int) else int(value.removeprefix("AS"))


def _place(body: PlaceBody) -> Place:
    return Place(country=body.country, region=body.region)


def render(zone: Zone) -> Document:
    """Return a zone as it is shown."""
    shown: Document = {
        "id": zone.zone_id,
        "name": zone.name,
        "type": zone.type.value,
        "usage": zone.usage.value,
        "status": zone.status.value,
        "system": zone.is_system,
        "useAsExemptList": zone.is_exempt_list,
    }
    shown["gateways"] = list(map(_render_entry, zone.gateways))
    shown["proxies"] = list(map(_render_entry, zone.proxies))
    for name, member in (
        ("asns", "asns"),
        ("locations", "locations"),
        ("ipServiceCategories", "categories"),
    ):
        shown[name] = {
            "include": _rendered(zone.include, member),
            "exclude": _rendered(zone.exclude, member),
        }
    # Of a DYNAMIC zone the included categories are what this stands for.
    shown["proxyType"] = zone.proxy_type
    return shown


def _rendered(rules: Rules, member: str) -> list[Any]:
    found: list[Any] = msgspec.to_builtins(list(getattr(rules, member)))
    return found


def _render_entry(entry: Entry) -> Document:
    shown: Document = {"type": "RANGE" if "-" in entry.value else "CIDR", "value": entry.value}
    if entry.until is not None:
        shown["until"] = entry.until
    for name in ("reason", "owner"):
        if text := getattr(entry, name):
            shown[name] = text
    return shown


EXAMPLE: Final[Document] = {
    "name": "anonymizers, except our VPN",
    "type": "DYNAMIC_V2",
    "usage": "BLOCKLIST",
    "ipServiceCategories": {"include": ["ALL_ANONYMIZERS"], "exclude": ["NORD_VPN"]},
}

KINDS: Final = (
    Kind(
        name="zones",
        item="zone",
        summary="zones: named parts of the net, for policies and as blocklists",
        list_page=list_zones,
        read=read_zone,
        create=create_zone,
        create_body=ZoneBody,
        change=change_zone,
        change_body=ZoneChange,
        replace=replace_zone,
        delete=delete_zone,
        filters=("usage", "type", "status"),
        example=EXAMPLE,
        actions=(
            Action(name="activate", summary="Let the zone count.", perform=activate),
            Action(name="deactivate", summary="Let the zone count no more.", perform=deactivate),
            Action(
                name="explain",
                summary="Why an address, or a chain of them, is in the zone or is not.",
                perform=explain,
                body=ExplainBody,
                reads=True,
                example={"ip": "192.0.2.1"},
            ),
            Action(
                name="dry-run",
                summary="How many of these addresses a zone would take in.",
                perform=dry_run,
                body=DryRunBody,
                on_kind=True,
                reads=True,
                example={"zone": EXAMPLE, "addresses": ["192.0.2.1", "2001:db8::1"]},
            ),
        ),
    ),
)
