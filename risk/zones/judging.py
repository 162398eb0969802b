"""From a chain to its origin: the client, its zones, exempt or not, blocked or not. Pure.

The order is fixed: exempt, then blocklists; what is reported of an address comes after both, where
its risk is scored (`hub.sign_ins`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from risk.networks.model import NO_RECORD, IPRecord
from risk.zones.chain import Chain, client_at, read_chain
from risk.zones.matcher import CompiledZones
from risk.zones.origin import Origin

Lookup = Callable[[str], IPRecord]
IsTrusted = Callable[[str], bool]


def judge(
    zones: CompiledZones, chain: Sequence[str], *, lookup: Lookup, is_trusted: IsTrusted
) -> Origin:
    """Return where a chain of addresses, client first, comes from. Raises nothing.

    is_trusted: whether the settings name an address as a proxy of ours; those of zones are looked
    through, too. A blocklist counts for every hop that is none of these, also for hops that may be
    made up: nobody gains by naming a refused address.
    """
    read = read_chain(chain)

    def is_proxy(hop: str) -> bool:
        return is_trusted(hop) or bool(zones.at(hop)[1])

    at = client_at(read.hops, is_proxy)
    if at is None:
        return Origin(
            client_ip="",
            record=NO_RECORD,
            path=("client: no hop is an address",),
        )
    client = read.hops[at] or ""
    record = lookup(client)
    # Only the exempt list speaks for a client that is behind proxies of the settings or of zones.
    is_exempt = bool(zones.at(client)[0] & zones.exempt)
    matched = zones.inside(_without_ours(read.hops, is_trusted)) | zones.matching(record)
    blocked = _blocked(zones, read, lookup=lookup, is_proxy=is_proxy)
    return Origin(
        client_ip=client,
        record=record,
        zones=zones.names_of(matched | blocked.mask),
        is_exempt=is_exempt,
        blocked_by=blocked.zone_id,
        path=(
            _client_step(read, at, client),
            f"exempt: {'yes' if is_exempt else 'no'}",
            f"blocklist: {blocked.step}",
        ),
    )


def _without_ours(hops: tuple[str | None, ...], is_trusted: IsTrusted) -> tuple[str | None, ...]:
    """Return a chain without the proxies of ours at its end, which zones need not know."""
    at = client_at(hops, is_trusted)
    return hops if at is None else hops[: at + 1]


def _client_step(chain: Chain, at: int, client: str) -> str:
    through = len(chain.hops) - 1 - at
    notes = [f"{through} proxies looked through"] if through else []
    if at and chain.hops[at - 1] is None:
        notes.append("what lies before it is no address")
    if chain.is_cut:
        notes.append("chain too long, its beginning was not looked at")
    return f"client: {client}" + (f" ({'; '.join(notes)})" if notes else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Blocked:
    mask: int = 0
    zone_id: str | None = None
    step: str = "no"


def _blocked(
    zones: CompiledZones, chain: Chain, *, lookup: Lookup, is_proxy: IsTrusted
) -> _Blocked:
    """Return the first blocklist, from our side, that refuses a hop which is not exempt."""
    if not zones.blocklists:
        return _Blocked()
    mask, spared = 0, ""
    for hop in reversed(chain.hops):
        if hop is None or is_proxy(hop):
            continue
        gateways = zones.at(hop)[0]
        found = gateways & zones.blocklists
        if zones.has_dynamic_blocklists:
            found |= zones.matching(lookup(hop)) & zones.blocklists
        if not found:
            continue
        mask |= found
        zone = zones.first_of(found)
        if not gateways & zones.exempt:
            return _Blocked(
                mask=mask, zone_id=zone.zone_id, step=f"{hop} is in {zone.name} ({zone.zone_id})"
            )
        spared = spared or f"no, {hop} is in {zone.name} and exempt"
    return _Blocked(mask=mask, step=spared or "no")
