"""Where a request comes from: who judges chains of addresses for the evaluator."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Protocol

from risk.networks.model import IPRecord
from risk.zones.origin import Origin


class Placing(Protocol):
    """Judges chains of addresses."""

    async def judge(self, tenant_id: str, chain: Sequence[str]) -> Origin:
        """Return where a request comes from. chain: client first, whoever calls us last."""
        ...

    def version(self, tenant_id: str) -> object:
        """Return what changes when the same chain may be judged otherwise."""
        ...


class PlainPlacing:
    """Takes the first hop that is an address for the client, and knows nothing of it."""

    async def judge(self, tenant_id: str, chain: Sequence[str]) -> Origin:  # noqa: ARG002 - the seam's signature
        """Return the first address of the chain. Raises nothing."""
        ip = next(filter(None, map(_address, chain)), "")
        return Origin(client_ip=ip, record=IPRecord(ip=ip, known=False), path=tuple(chain))

    def version(self, tenant_id: str) -> object:  # noqa: ARG002 - the seam's signature
        """Return that nothing ever changes."""
        return 0


def _address(text: str) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return ""
    return str(getattr(address, "ipv4_mapped", None) or address)
