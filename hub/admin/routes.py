"""The routes of the admin API, made from its kinds."""

from __future__ import annotations

from typing import Final

from hub.admin import (
    apps,
    attributes,
    behaviours,
    break_glass,
    clients,
    deliveries,
    events,
    feeds,
    held,
    ingest,
    keys,
    mappings,
    operations,
    people,
    policies,
    providers,
    relays,
    servers,
    streams,
    tenants,
    upstreams,
    zones,
)
from hub.admin.kinds import Kind, routes_of

#: what each tenant has
KINDS: Final[tuple[Kind, ...]] = (
    *clients.KINDS,
    *servers.KINDS,
    *providers.KINDS,
    *upstreams.KINDS,
    *apps.KINDS,
    *policies.KINDS,
    *attributes.KINDS,
    *zones.KINDS,
    *behaviours.KINDS,
    *mappings.KINDS,
    *people.KINDS,
    *streams.KINDS,
    *deliveries.KINDS,
    *events.KINDS,
    *relays.KINDS,
    *break_glass.KINDS,
    *keys.KINDS,
    *operations.KINDS,
    *held.KINDS,
    *ingest.KINDS,
)
#: what belongs to the whole hub
OWNERS_KINDS: Final[tuple[Kind, ...]] = (*tenants.KINDS, *feeds.KINDS)
ALL_KINDS: Final = (*KINDS, *OWNERS_KINDS)
ROUTES: Final = tuple(route for kind in ALL_KINDS for route in routes_of(kind))
