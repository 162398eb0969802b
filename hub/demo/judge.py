"""What the peers' own ledgers say about incidents: was anything lost, did anything happen twice.

A request may repeat after a crash; its effect must not. The hub's word counts for nothing here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from hub.demo.incident import Incident
from hub.demo.world import IDP, PLACES, QUARANTINE, World
from ssf.events.caep import SessionRevoked

STREAM_APPS: Final = ("files", "wiki")


@dataclass(slots=True, kw_only=True)
class Faults:
    """What is wrong, in words. lost: did not happen; doubled: twice; foreign: to somebody else."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Return whether anything is wrong."""
        return bool(self.lost or self.doubled or self.foreign)


async def judge(
    world: World, incidents: Sequence[Incident], *, residents: Iterable[str] = ()
) -> Faults:
    """Judge incidents that were played to their end, each of another person.

    residents: who was in the quarantine group before, and has to be in it still.
    """
    faults = Faults()
    for incident in incidents:
        for place in PLACES:
            await _judge_sessions(incident, place, faults)
        await _judge_membership(incident, faults)
        await _judge_messages(incident, faults)
        for name in STREAM_APPS:
            await _judge_events(incident, name, faults)
    await _judge_group(world, incidents, set(residents), faults)
    return faults


async def _judge_sessions(incident: Incident, place: str, faults: Faults) -> None:
    """Every session that had to end ended once, and none that was opened afterwards."""
    who = f"{incident.user} at {place}"
    entries = await _since(incident, place, what="session.ended", user=incident.user)
    ended = Counter(str(entry["sid"]) for entry in entries)
    doomed, later = incident.doomed[place], incident.later.get(place, set())
    faults.lost += [f"{who}: session {sid} lives on" for sid in doomed - ended.keys()]
    faults.doubled += [f"{who}: session {sid} ended {n} times" for sid, n in ended.items() if n > 1]
    faults.doubled += [f"{who}: logged out again, session {sid}" for sid in ended.keys() & later]


async def _judge_membership(incident: Incident, faults: Faults) -> None:
    """The person joined the quarantine group once and left it once."""
    entries = await _since(
        incident, IDP, what="scim.member_", user=incident.user, group=QUARANTINE, outcome="effect"
    )
    steps = [str(entry["what"]) for entry in entries]
    wanted = ["scim.member_added", "scim.member_removed"]
    said = f"{incident.user}: membership changed {steps}"
    if len(steps) > len(wanted):
        faults.doubled.append(said)
    elif steps != wanted:
        faults.lost.append(said)


async def _judge_messages(incident: Incident, faults: Faults) -> None:
    """People were told once that it began, and once that it ended."""
    entries = await _since(incident, "webhook", what="webhook.received", outcome="effect")
    mine = [entry for entry in entries if entry["data"]["label"] == incident.person.label]
    ids = Counter(str(entry["request_id"]) for entry in mine)
    faults.doubled += [f"{incident.user}: message {each} twice" for each, n in ids.items() if n > 1]
    told = Counter(str(entry["type"]) for entry in mine)
    for kind in ("containment.opened", "containment.closed"):
        if told[kind] != 1:
            list_of = faults.doubled if told[kind] else faults.lost
            list_of.append(f"{incident.user}: told {kind} {told[kind]} times")


async def _judge_events(incident: Incident, name: str, faults: Faults) -> None:
    """Each stream got one session-revoked, whatever number of times it was sent."""
    entries = await _since(incident, name, what="set.received", event_type=SessionRevoked.type_uri)
    jtis = {str(entry["request_id"]) for entry in entries if _is_about(entry, incident.user)}
    if len(jtis) != 1:
        list_of = faults.doubled if jtis else faults.lost
        list_of.append(f"{incident.user} at {name}: {len(jtis)} different session-revoked")


async def _judge_group(
    world: World, incidents: Sequence[Incident], residents: set[str], faults: Faults
) -> None:
    """Nobody else joined or left the quarantine group."""
    people = {incident.user for incident in incidents}
    since = min((incident.marks[IDP] for incident in incidents), default=0)
    for entry in await world.ledger(IDP, what="scim.", outcome="effect", after=since):
        user = str(entry.get("user"))
        if entry["what"] == "scim.group_emptied" or user not in people:
            faults.foreign.append(f"{entry['what']} for {user}")
    members = set(await world.members(QUARANTINE))
    faults.foreign += [f"{user} has left quarantine" for user in residents - members]
    faults.foreign += [f"{user} is in quarantine" for user in members - residents]


async def _since(incident: Incident, name: str, **wanted: object) -> list[dict[str, Any]]:
    return await incident.world.ledger(name, after=incident.marks[name], **wanted)


def _is_about(entry: dict[str, Any], user: str) -> bool:
    subject = entry["subject"]
    return user in {subject.get("email"), subject.get("sub")} or user in str(subject)
