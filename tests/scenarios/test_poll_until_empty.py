"""A receiver that polls until there is nothing left gets each event, and none twice once acked."""

from __future__ import annotations

from typing import Any

import pytest

from hub.demo.processes import until
from hub.demo.world import World
from ssf.events.caep import RiskLevelChange
from ssf.jose import split_jws
from tests.scenarios.kit import enrolled

pytestmark = [pytest.mark.scenario, pytest.mark.anyio]

PEOPLE = 7
PAGE = 3


async def _stream(world: World, name: str) -> tuple[str, str]:
    """Register an app with a poll stream of risk levels; return its poll URL and token."""
    app = await world.admin(
        "POST",
        "/admin/v1/apps",
        {"name": name, "kind": "rp", "sensitivity": 1, "subject_formats": ["email"], "logout": []},
    )
    token = await world.add_client(name, ["ssf.read", "ssf.manage", "ssf.manage.poll"], app["id"])
    stream = await world.http.ask(
        "POST",
        f"{world.hub.issuer}/ssf/streams",
        {
            "delivery": {"method": "urn:ietf:rfc:8936"},
            "events_requested": [RiskLevelChange.type_uri],
        },
        token=token,
    )
    return stream["delivery"]["endpoint_url"], token


def _subject(token: str) -> str:
    import msgspec  # noqa: PLC0415 - one use

    claims: dict[str, Any] = msgspec.json.decode(split_jws(token.encode()).payload)
    email: str = claims["sub_id"]["email"]
    return email


@pytest.mark.requirement("POLL-8", "POLL-10", "POLL-11")
async def test_polling_until_empty_gives_each_event_once(world: World) -> None:
    url, token = await _stream(world, "poll-until-empty")
    incidents = [await enrolled(world, f"polled-{number}") for number in range(PEOPLE)]
    users = {incident.user for incident in incidents}
    for incident in incidents:
        await world.admin(
            "PUT",
            f"/api/v1/users/{world.user_ids[incident.user]}/risk",
            {"riskLevel": "MEDIUM", "reason": "for the poll"},
        )
    given: dict[str, str] = {}
    acks: list[str] = []

    async def has_everybody() -> bool:
        wanted = {"maxEvents": PAGE, "returnImmediately": True, "ack": list(acks)}
        answer = await world.http.ask("POST", url, wanted, token=token)
        assert len(answer["sets"]) <= PAGE
        assert not answer["sets"].keys() & given.keys(), "what was acked does not come again"
        acks[:] = list(answer["sets"])
        given.update(answer["sets"])
        return users <= {_subject(each) for each in given.values()} and not answer["sets"]

    await until("the poller has got every event", has_everybody)
    mine = [each for each in given.values() if _subject(each) in users]
    assert len(mine) == PEOPLE
    # Whatever other scenarios add meanwhile, none of these comes again.
    last = await world.http.ask("POST", url, {"returnImmediately": True, "ack": acks}, token=token)
    assert not last["sets"].keys() & given.keys()
