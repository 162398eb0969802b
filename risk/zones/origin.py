"""Where a request comes from, once its chain of addresses is judged. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from risk.networks.model import IPRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a request comes from, once its chain of addresses is judged.

    client_ip: the first address, seen from us, that is no trusted proxy; empty without any. zones:
    ids and names of the zones it is in. is_exempt: no context change, no threat list and no
    blocklist counts against it. blocked_by: id of the blocklist that refuses it before anybody
    signs in. path: how that was decided, for people.
    """

    client_ip: str
    record: IPRecord
    zones: frozenset[str] = frozenset()
    is_exempt: bool = False
    blocked_by: str | None = None
    path: tuple[str, ...] = ()
