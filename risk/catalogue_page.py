"""The catalogue of detections as a page for people: `python -m risk.catalogue_page`. Pure."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Final

from risk import catalogue
from risk.catalogue_entries import ENTRIES
from risk.finding_type import LIFE_OF_CAUSE, FindingType, RaisedBy

_RAISED: Final = {
    RaisedBy.PROVIDER: "a provider's event, or `POST /v1/signals/detections`",
    RaisedBy.SIGNAL: "`POST /v1/signals/detections`",
    RaisedBy.HUB: "the hub's session check",
    RaisedBy.ADMIN: "people, by the risk API",
}
_HEAD: Final = """# Detections

Made by `python -m risk.catalogue_page > docs/detections.md`; a test fails when it is out of date.

A detection is a finding about one entity. Its *level* is what it claims unless somebody says less.
Its *source class* matters for corroboration: two MEDIUM of different classes within 24 hours make
HIGH. `confirmed_safe`, an analyst's word, ends any of them; what else ends one stands below, and
nothing else does. How levels are computed: [risk.md](risk.md). What events of providers mean:
[mappings.md](mappings.md).

Below a confidence of 0.5 a detection counts one level less. Ids are those of MITRE ATT&CK.

"""


def render_page() -> str:
    """Return the page in Markdown. Raises nothing."""
    return _HEAD + "\n".join([*_overview(ENTRIES), "", *_details(ENTRIES)]) + "\n"


def _overview(types: Iterable[FindingType]) -> Iterator[str]:
    yield "| Name | Level | About | Source class | Ends by | Lasts | ATT&CK |"
    yield "|---|---|---|---|---|---|---|"
    for each in types:
        mitre = " ".join((*each.tactics, *each.mitre))
        ends = ", ".join(f"`{remedy}`" for remedy in _ends(each)) or "time"
        yield (
            f"| `{each.name}` | {each.level.name} | {each.about.value} | {each.source_class} "
            f"| {ends} | {_lasts(each)} | {mitre} |"
        )


def _details(types: Iterable[FindingType]) -> Iterator[str]:
    for each in types:
        yield f"## {each.title}"
        yield ""
        yield f"`{each.name}`" + (f" (also known as {each.alias})" if each.alias else "")
        yield ""
        yield f"- Fires: {each.fires_when}"
        yield f"- Does not fire: {each.twin}"
        by_hub = ", and by the hub itself" if each.by_hub else ""
        yield f"- Raised by {_RAISED[each.raised_by]}{by_hub}; timing: {each.timing.value}."
        yield f"- Suggested: {each.suggested}."
        if each.floor:
            yield "- Floor: while it is open at HIGH, no pin lowers the level."
        yield ""


def _ends(each: FindingType) -> tuple[str, ...]:
    if each.name == "credential_compromised":
        return (f"{catalogue.CREDENTIAL_CHANGED}{{type}}",)
    return tuple(remedy for remedy in each.clears_on if remedy != catalogue.CONFIRMED_SAFE)


def _lasts(each: FindingType) -> str:
    own = each.life or LIFE_OF_CAUSE.get(each.cause)
    lasts = own or catalogue.LIFE_OF_LEVEL[each.level]
    return "until it is ended" if lasts is None else _told(lasts)


def _told(lasts: timedelta) -> str:
    hours = int(lasts.total_seconds()) // 3600
    return f"{hours} h" if hours <= 72 else f"{hours // 24} d"  # noqa: PLR2004 - three days


if __name__ == "__main__":
    sys.stdout.write(render_page())
