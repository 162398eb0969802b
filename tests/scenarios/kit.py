"""People for scenarios, and questions that several scenarios ask."""

from __future__ import annotations

from typing import Any, Final

from hub.demo.incident import Incident
from hub.demo.judge import judge
from hub.demo.processes import PeerProcess, until
from hub.demo.world import PLACES, QUARANTINE, Person, World
from runtime.egress import EgressRules
from runtime.outbound import OutboundAnswer, OutboundRequest
from runtime.streaming import StreamingOutbound

LISTED_MAX: Final = 100


def person(name: str, *, devices: int = 2) -> Person:
    """Return somebody whom no other scenario knows; `name` says what the person is there for."""
    return Person(
        label=name,
        email=f"{name}@mediaxmedia.example",
        devices=tuple(f"{name}-device-{number}" for number in range(devices)),
    )


async def enrolled(world: World, name: str, *, devices: int = 2) -> Incident:
    """Return an incident to be of somebody whom the hub and the IdP know."""
    somebody = person(name, devices=devices)
    world.make_room(1)
    await world.enrol(somebody)
    return Incident(world, somebody)


async def assert_flawless(world: World, *incidents: Incident) -> None:
    """Ask the ledgers: nothing was lost, nothing happened twice, nobody else was touched."""
    ours = {incident.user for incident in incidents}
    others = set(await world.members(QUARANTINE)) - ours
    faults = await judge(world, incidents, residents=others)
    assert not faults, faults


async def signals(world: World, jti: str, *, kind: str = "signals") -> list[dict[str, Any]]:
    """Return what the hub has stored of a SET. kind: signals, or unmatched alone."""
    listed = await world.admin("GET", f"/admin/v1/{kind}?limit={LISTED_MAX}")
    return [item for item in listed["items"] if item["jti"] == jti]


async def until_stored_as(world: World, jti: str, state: str) -> None:
    """Wait until the signal of a SET is in a state. Raises StepFailed."""

    async def is_in_state() -> bool:
        found = await signals(world, jti)
        return bool(found) and found[0]["state"] == state

    await until(f"the signal {jti} is {state}", is_in_state)


async def fault(world: World, name: str, mode: str, **order: object) -> None:
    """Order a fault from a peer."""
    await world.http.ask("POST", f"{world.peer(name).url}/control/fault", {"mode": mode, **order})


async def live_sessions(world: World, user: str) -> dict[str, int]:
    """Return how many live sessions a user has at each place."""
    return {place: await world.alive(place, user) for place in PLACES}


async def push(world: World, vendor: PeerProcess, token: str) -> OutboundAnswer:
    """Push a SET as its vendor would; return the hub's answer."""
    url, authorization = world.push_settings[vendor.url]
    outbound = StreamingOutbound(EgressRules(dev_insecure=True))
    try:
        return await outbound.send(
            OutboundRequest(
                method="POST",
                url=url,
                headers={
                    "content-type": "application/secevent+jwt",
                    "authorization": authorization,
                },
                body=token.encode(),
            )
        )
    finally:
        await outbound.close()
