"""The reported posture of devices, and how it joins the contexts of their sessions. Pure.

What callers say of a device in a request is theirs; what a provider said of it stands beside it
under names of its own, `reported.…`, so that neither hides the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from risk.contexts.model import REPORTED_PREFIX, Context


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """One value of a device's posture. old: the one before; "" for both when nobody knows.

    first: what was true before anything was reported, as the first report said.
    """

    tenant_id: str
    device_id: str
    name: str
    value: str
    old: str
    first: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a provider says of one device. old: values before, where it says so."""

    device_id: str
    signals: Mapping[str, str]
    old: Mapping[str, str]
    at: datetime
    trace_id: str


def moved(
    tenant_id: str, known: Mapping[str, Reported], report: Report, *, names_max: int
) -> list[Reported]:
    """Return what a report changes of a device's posture, by comparison with what is known.

    What is older than what is known changes nothing. Raises nothing.
    """
    changed = []
    room = names_max - len(known)
    for name, value in report.signals.items():
        before = known.get(name)
        if before is None:
            if room <= 0:
                continue
            room -= 1
            old = report.old.get(name, "")
            if old == value:
                old = ""
            first = old or ""
        elif before.value == value or report.at < before.at:
            continue
        else:
            old, first = before.value, before.first
        changed.append(
            Reported(
                tenant_id=tenant_id,
                device_id=report.device_id,
                name=name,
                value=value,
                old=old,
                first=first,
                at=report.at,
            )
        )
    return changed


def with_reported(signals: Mapping[str, str], posture: Iterable[Reported]) -> Mapping[str, str]:
    """Return the signals of a request with what was reported of its device. Raises nothing.

    Nobody but a provider speaks under the names of reports.
    """
    said = {name: value for name, value in signals.items() if not name.startswith(REPORTED_PREFIX)}
    return said | {REPORTED_PREFIX + each.name: each.value for each in posture}


def as_accepted(context: Context, posture: Sequence[Reported]) -> Context:
    """Return an accepted context with what was true of the device then. Raises nothing.

    Contexts are kept with what is reported at the time: one that has no word of it was accepted
    before the first report.
    """
    missing = [each for each in posture if REPORTED_PREFIX + each.name not in context.signals]
    then = {REPORTED_PREFIX + each.name: value for each in missing if (value := each.first)}
    return replace(context, signals={**context.signals, **then}) if then else context


def facts_of(signals: Mapping[str, str], posture: Iterable[Reported]) -> Mapping[str, str]:
    """Return the posture as policies see it: by bare names too, where the caller says nothing."""
    reported = {each.name: each.value for each in posture}
    return {**reported, **with_reported(signals, posture)} if reported else signals
