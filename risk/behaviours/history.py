"""What a user's history says of where and with what they are now: one call for every evaluator."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from risk.baselines.memory import Baselines
from risk.baselines.model import NOTHING, Baseline, Occurrence, familiar, values_of
from risk.behaviours.evaluation import behaviours
from risk.behaviours.model import Behaviour
from risk.networks.model import IPRecord

#: an address of one of these kinds is somewhere else than its user
SHARED: Final = frozenset(
    {
        "ALL_PROXIES_VPNS",
        "ALL_ANONYMIZERS",
        "ANONYMIZER_TOR",
        "APPLE_ICLOUD_RELAY_PROXY",
        "HOSTING",
        "CDN",
    }
)
#: what an exempt address is not asked about
NETWORK_DIMENSIONS: Final = frozenset({"country", "region", "city", "asn", "prefix", "trip"})


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What history says; the fields of the same names in `risk.scoring.model.Features`.

    baseline: that was looked at.
    """

    baseline: Baseline
    behaviours: Mapping[str, str]
    familiar: frozenset[str]
    peer_familiar: frozenset[str]
    org_familiar: frozenset[str]
    is_learning: bool
    org_is_learning: bool


def with_place(seen: Occurrence, record: IPRecord | None) -> Occurrence:
    """Return an occurrence with what is known of its address. Raises nothing."""
    if record is None:
        return seen
    return Occurrence(
        at=seen.at,
        ip=seen.ip,
        asn=record.asn,
        country=record.country,
        region=record.region,
        city=record.city,
        latitude=record.latitude,
        longitude=record.longitude,
        accuracy_km=record.accuracy_km,
        is_shared=not SHARED.isdisjoint(record.categories),
        device=seen.device,
        ua=seen.ua,
        app=seen.app,
        session=seen.session,
        tls=seen.tls,
    )


class History:
    """Baselines and the tenant's behaviours, together."""

    def __init__(
        self,
        baselines: Baselines,
        settings: Callable[[str], Awaitable[Sequence[Behaviour]]],
    ) -> None:
        """settings: tenant to its behaviours."""
        self.baselines = baselines
        self._settings = settings

    async def warm(self, tenant_id: str) -> None:
        """Read the tenant's behaviours, unless they are in memory. Raises database errors."""
        await self._settings(tenant_id)

    async def view(
        self,
        tenant_id: str,
        user_id: str | None,
        here: Occurrence,
        *,
        groups: Collection[str] = (),
        reading: Callable[[], None] | None = None,
    ) -> View:
        """Return what is known of a user at this place; of nobody, what the tenant knows.

        What is not known of the user may be of peers (groups: of the user), else of the tenant.
        At most one indexed query each for the user and the tenant, none when warm. reading: is
        called before a query. Raises database errors, and ValueError when the address is none.
        """
        known = (
            NOTHING
            if user_id is None
            else await self.baselines.of(tenant_id, user_id, reading=reading)
        )
        before = known.recent[-1] if known.recent else None
        org = await self.baselines.org(
            tenant_id, values_of(here, before), groups=groups, reading=reading
        )
        return View(
            baseline=known,
            behaviours=behaviours(known, here, await self._settings(tenant_id)),
            familiar=familiar(known, here),
            peer_familiar=org.peer_familiar,
            org_familiar=org.familiar,
            is_learning=known.is_learning,
            org_is_learning=org.is_learning,
        )
