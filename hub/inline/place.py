"""Where a request comes from: the chain of addresses, judged, and what is known of the client's."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from risk.networks.model import IPRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A judged chain. ip: of the client, "" when nobody says. zones: that match it."""

    ip: str
    chain: tuple[str, ...] = ()
    record: IPRecord | None = None
    zones: frozenset[str] = frozenset()
    is_exempt: bool = False
    blocked_by: str | None = None


class Placing(Protocol):
    """Judges chains of addresses."""

    async def judge(self, tenant_id: str, chain: Sequence[str]) -> Place:
        """Return where a request comes from. chain: client first, whoever calls us last."""
        ...

    def version(self, tenant_id: str) -> object:
        """Return what changes when the same chain may be judged otherwise."""
        ...


class PlainPlacing:
    """Takes the first hop that is an address for the client, and knows nothing of it."""

    async def judge(self, tenant_id: str, chain: Sequence[str]) -> Place:  # noqa: ARG002 - the seam's signature
        """Return the first address of the chain. Raises nothing."""
        return Place(ip=next(filter(None, map(_address, chain)), ""), chain=tuple(chain))

    def version(self, tenant_id: str) -> object:  # noqa: ARG002 - the seam's signature
        """Return that nothing ever changes."""
        return 0


def _address(text: str) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return ""
    return str(getattr(address, "ipv4_mapped", None) or address)
