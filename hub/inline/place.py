"""Where a request comes from: the tenant's zones judge its chain of addresses."""

from __future__ import annotations

from collections.abc import Sequence

from risk.zones.origin import Origin
from risk.zones.service import Zones


class Placing:
    """Judges chains of addresses, and says when the same chain may be judged otherwise."""

    def __init__(self, zones: Zones) -> None:
        self._zones = zones

    async def judge(self, tenant_id: str, chain: Sequence[str]) -> Origin:
        """Return where a request comes from. chain: client first, whoever calls us last."""
        return await self._zones.judge(tenant_id, chain)

    def last_known(self, tenant_id: str, chain: Sequence[str]) -> Origin | None:
        """Return it by the zones in memory, outdated or not; None: there are none."""
        return self._zones.last_known(tenant_id, chain)

    def version(self, tenant_id: str) -> object:
        """Return what changes with the tenant's zones, as entries end, and with the table."""
        return self._zones.version(tenant_id)
