"""How what is known of an address is shown to people: merged, and by source with its age. Pure."""

from __future__ import annotations

from typing import Any, Final

from risk.networks.model import Claim, IPRecord, Said
from risk.networks.service import Networks
from risk.networks.table import Statement

_FIELDS: Final = (
    "known",
    "prefix",
    "asn",
    "organisation",
    "country",
    "region",
    "city",
    "latitude",
    "longitude",
    "accuracy_km",
    "operator",
)


def render_network(ip: str, networks: Networks, *, now: int) -> dict[str, Any]:
    """Return the merged record of an address, and what each feed says. now: seconds since 1970."""
    return {
        "network": render_record(networks.lookup(ip), now=now),
        "sources": [_render_statement(each, now) for each in networks.statements(ip)],
    }


def render_record(record: IPRecord, *, now: int) -> dict[str, Any]:
    """Return a record with, for each field, whose word it is and how old. Raises nothing."""
    shown: dict[str, Any] = {name: getattr(record, name) for name in _FIELDS}
    shown["categories"] = sorted(record.categories)
    shown["provenance"] = {
        name: _render_claim(claim, now) for name, claim in record.provenance.items()
    }
    return shown


def _render_claim(claim: Claim, now: int) -> dict[str, Any]:
    return {"source": claim.source, "age_s": max(0, now - claim.seen_at)}


def _render_statement(statement: Statement, now: int) -> dict[str, Any]:
    source, said = statement.source, statement.said
    seen_at = source.built_at if said.seen_at is None else said.seen_at
    return {
        "source": source.name,
        "age_s": source.age_s(now),
        "seen_s_ago": max(0, now - seen_at),
        "stale": source.is_stale(now),
        "says": _says(said),
    }


def _says(said: Said) -> dict[str, Any]:
    """Return what a feed says of an address, without what it is silent about."""
    members = {name: getattr(said, name) for name in said.__struct_fields__ if name != "seen_at"}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in members.items()
        if value is not None and value != ()
    }
