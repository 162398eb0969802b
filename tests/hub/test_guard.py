"""Attacks of a provider that runs away, and people who must never be locked out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jwcrypto.jwk import JWK

from hub.guard.model import is_runaway
from risk.entities.service import EntityFacts, add_entity
from risk.model import EntityKind
from tests.hub.conftest import Hub
from tests.hub.story import HUB_AUDIENCE, IDP, SECEVENT, Story, begin, sign

CROWD = 100
OTHER = "https://edr.example"
_OTHER_KEY = JWK.generate(kty="EC", crv="P-256", kid="edr-1", alg="ES256", use="sig")


def mail(number: int) -> str:
    return f"user-{number}@customer.example"


async def crowd(story: Story, users: int = CROWD) -> None:
    """Add users, so that the tenant has this many; at once, as no signal waits for them."""
    async with story.hub.database.transaction() as connection:
        for number in range(users - 2):
            facts = EntityFacts(identifiers=[{"format": "email", "email": mail(number)}])
            added = await add_entity(
                connection,
                story.tenant,
                kind=EntityKind.USER,
                facts=facts,
                now=story.hub.clock.now(),
            )
            story.ids[mail(number)] = added.entity_id


async def mark(story: Story, number: int, *, compliant: bool = False) -> None:
    """Let the vendor speak about one user of the crowd."""
    sub_id = {
        "format": "complex",
        "user": {"format": "email", "email": mail(number)},
        "device": {"format": "opaque", "id": f"device-{number}"},
    }
    answer = await story.push(compliant=compliant, sub_id=sub_id, txn=f"t-{number}")
    assert answer.status_code == 202, answer.text


async def other_marks(story: Story, number: int) -> None:
    """Let a second vendor say the same about a user."""
    claims = story.claims(
        iss=OTHER, txn=f"o-{number}", sub_id={"format": "email", "email": mail(number)}
    )
    async with story.hub.client() as vendor:
        answer = await vendor.post(
            story.ids["other url"], content=sign(claims, _OTHER_KEY), headers=SECEVENT
        )
    assert answer.status_code == 202, answer.text


async def introduce_other(story: Story) -> None:
    made = await story.post(
        "/admin/v1/providers",
        {
            "name": "another edr",
            "issuer": OTHER,
            "audiences": [HUB_AUDIENCE],
            "jwks": {"keys": [_OTHER_KEY.export_public(as_dict=True)]},
        },
    )
    story.ids["other"], story.ids["other url"] = made["id"], made["events_url"]


async def status(story: Story, name: str = "provider") -> str:
    shown = await story.get(f"/admin/v1/providers/{story.ids[name]}")
    return str(shown["status"])


async def level(story: Story, number: int) -> str:
    shown = await story.get(f"/api/v1/users/{story.ids[mail(number)]}/risk")
    return str(shown["riskLevel"])


async def states(story: Story) -> list[str]:
    """Return the states of all containments that are not closed."""
    items = (await story.get("/admin/v1/containments?limit=100"))["items"]
    return sorted(one["state"] for one in items if one["state"] != "closed")


def logged_out(hub: Hub) -> set[str]:
    """Return whom the IdP was told to log out."""
    return {
        json.loads(request.body)["sub_id"]["email"]
        for request in hub.outside.requests
        if request.url == f"{IDP}/gtr"
    }


def told(hub: Hub, kind: str) -> list[dict[str, Any]]:
    """Return what the webhook heard of one kind."""
    heard = [
        json.loads(request.body)
        for request in hub.outside.requests
        if request.url == "https://soc.customer.example/hook"
    ]
    return [one for one in heard if one["type"] == kind]


@pytest.mark.requirement("SSF-SEC-5")
async def test_a_provider_that_runs_away_is_quarantined_and_undone(hub: Hub) -> None:
    story = await begin(hub)
    await crowd(story)
    for number in range(40):
        await mark(story, number)
        if number < 12:
            # At first slowly, so that the hub acts on its word.
            await hub.settle()
    await hub.settle()

    assert await status(story) == "quarantined"
    assert len(logged_out(hub)) == 3
    assert await states(story) == []
    assert {await level(story, number) for number in (0, 5, 11, 20, 39)} == {"LOW"}
    (notice,) = told(hub, "provider.quarantined")
    assert notice["data"]["provider_id"] == story.ids["provider"]
    assert notice["data"]["users_marked"] == 10
    assert notice["data"]["users"] == CROWD
    entries = [one for one in await hub.audit() if one.action == "provider.quarantine"]
    assert [(one.actor, one.ref) for one in entries] == [("guard", story.ids["provider"])]
    # Everybody who was put into the quarantine group was taken out again.
    tasks = (await story.get("/admin/v1/tasks?limit=100"))["items"]
    added = [one for one in tasks if one["kind"] == "quarantine_add" and one["state"] == "done"]
    removed = [one for one in tasks if one["kind"] == "quarantine_remove"]
    assert len(added) == len(removed) == 3
    assert {one["state"] for one in removed} == {"done"}


async def test_a_flood_in_one_batch_touches_nobody(hub: Hub) -> None:
    story = await begin(hub)
    await crowd(story)
    for number in range(40):
        await mark(story, number)
    await hub.settle()
    assert await status(story) == "quarantined"
    assert logged_out(hub) == set()
    assert (await story.get("/admin/v1/containments"))["items"] == []
    assert len(told(hub, "provider.quarantined")) == 1


async def test_a_burst_below_the_threshold_passes(hub: Hub) -> None:
    story = await begin(hub)
    await crowd(story)
    for number in range(9):
        await mark(story, number)
    await hub.settle()
    assert await status(story) == "active"
    assert await states(story) == ["held"] * 6 + ["open"] * 3
    assert {await level(story, number) for number in range(9)} == {"HIGH"}


async def test_what_is_spread_over_time_is_no_burst(hub: Hub) -> None:
    story = await begin(hub)
    await crowd(story)
    for start in range(0, 18, 6):
        for number in range(start, start + 6):
            await mark(story, number)
        await hub.settle()
        hub.clock.advance(301)
    assert await status(story) == "active"
    assert await level(story, 0) == "HIGH"


async def test_the_word_of_another_provider_goes_on_counting(hub: Hub) -> None:
    story = await begin(hub)
    await crowd(story)
    await introduce_other(story)
    for number in (0, 1):
        await other_marks(story, number)
    await hub.settle()
    for number in range(15):
        await mark(story, number)
    await hub.settle()
    assert await status(story) == "quarantined"
    assert await status(story, "other") == "active"
    assert [await level(story, number) for number in range(4)] == ["HIGH", "HIGH", "LOW", "LOW"]
    assert await states(story) == ["open", "open"]


async def test_whoever_spoke_before_is_not_blamed_for_the_runaway(hub: Hub) -> None:
    """The first provider's older findings support the level too; its word is not new."""
    story = await begin(hub)
    await crowd(story)
    await introduce_other(story)
    for number in range(9):
        await other_marks(story, number)
    await hub.settle()
    hub.clock.advance(301)
    for number in range(20):
        await mark(story, number)
    await hub.settle()
    assert await status(story, "other") == "active"


@pytest.mark.parametrize("discard", [False, True])
async def test_until_it_is_lifted_nothing_counts(hub: Hub, *, discard: bool) -> None:
    story = await begin(hub)
    await crowd(story, 20)
    path = f"/admin/v1/providers/{story.ids['provider']}"
    await mark(story, 0)
    await hub.settle()
    assert await states(story) == ["open"]

    quarantined = await story.post(f"{path}/quarantine", {})
    assert quarantined["status"] == "quarantined"
    await hub.settle()
    assert await level(story, 0) == "LOW"
    assert await states(story) == []
    await mark(story, 1)
    await hub.settle()
    assert await level(story, 1) == "LOW"

    lifted = await story.post(f"{path}/lift", {"discard": discard})
    assert lifted["status"] == "active"
    await hub.settle()
    assert await level(story, 0) == ("LOW" if discard else "HIGH")
    # What it said in quarantine never gains weight.
    assert await level(story, 1) == "LOW"
    again = await story.admin.post(f"{path}/lift", json={})
    assert again.status_code == 409
    actions = [one.action for one in await hub.audit()]
    assert actions[-2:] == ["provider.quarantine", "provider.lift"]


async def test_replacing_a_provider_lifts_a_quarantine_with_all_that_follows(hub: Hub) -> None:
    story = await begin(hub)
    await crowd(story, 20)
    await introduce_other(story)
    path = f"/admin/v1/providers/{story.ids['other']}"
    await other_marks(story, 0)
    await hub.settle()
    await story.post(f"{path}/quarantine", {})
    await hub.settle()
    assert await level(story, 0) == "LOW"
    body = {"name": "another edr", "issuer": OTHER, "audiences": [HUB_AUDIENCE]}
    keys = {"jwks": {"keys": [_OTHER_KEY.export_public(as_dict=True)]}}
    answer = await story.admin.put(path, json=body | keys)
    assert answer.json()["status"] == "active"
    await hub.settle()
    assert await level(story, 0) == "HIGH"


async def test_break_glass_users_are_told_about_and_nothing_else(hub: Hub) -> None:
    story = await begin(hub)
    await crowd(story, 20)
    await story.post(
        "/admin/v1/break-glass", {"user": f"email:{mail(0)}", "reason": "the last admin"}
    )
    for number in (0, 1):
        await mark(story, number)
    await hub.settle()
    assert await level(story, 0) == "HIGH"
    assert logged_out(hub) == {mail(1)}
    spared, contained = story.ids[mail(0)], story.ids[mail(1)]
    items = (await story.get("/admin/v1/containments"))["items"]
    actions = {one["user_id"]: one["actions"] for one in items}
    assert actions[spared] == ["NOTIFY"]
    assert "QUARANTINE" in actions[contained]
    heard = {one["data"]["user_id"] for one in told(hub, "containment.opened")}
    assert heard == {spared, contained}
    for user, decision in ((spared, "ALLOW"), (contained, "DENY")):
        answer = await story.admin.post("/v1/sign-ins/evaluate", json={"user": user})
        assert answer.json()["decision"] == decision


async def test_a_contained_user_who_is_put_on_the_list_is_let_go(hub: Hub) -> None:
    story = await begin(hub)
    await crowd(story, 20)
    await mark(story, 0)
    await hub.settle()
    assert await states(story) == ["open"]
    body = {"user": story.ids[mail(0)], "reason": "needed now"}
    entry = await story.post("/admin/v1/break-glass", body)
    await hub.settle()
    answer = await story.admin.post("/v1/sign-ins/evaluate", json={"user": story.ids[mail(0)]})
    assert answer.json()["decision"] == "ALLOW"
    gone = await story.admin.delete(f"/admin/v1/break-glass/{entry['id']}")
    assert gone.status_code == 204
    hub.clock.advance(601)
    await hub.settle()
    answer = await story.admin.post("/v1/sign-ins/evaluate", json={"user": story.ids[mail(0)]})
    assert answer.json()["decision"] == "DENY"


@pytest.mark.requirement("SSF-SEC-5")
async def test_beyond_its_limit_per_hour_a_providers_harm_waits_for_a_person(hub: Hub) -> None:
    story = await begin(hub)
    await crowd(story, 20)
    path = f"/admin/v1/providers/{story.ids['provider']}"
    await story.admin.patch(path, json={"high_users_per_hour_max": 1})
    for number in (0, 1):
        await mark(story, number)
    await hub.settle()
    assert await states(story) == ["held", "open"]
    hub.clock.advance(3_601)
    await mark(story, 2)
    await hub.settle()
    assert await states(story) == ["held", "open", "open"]


@pytest.mark.parametrize(
    ("marked", "users", "expected"),
    [
        (9, 10, False),
        (10, 10, True),
        (10, 100, True),
        (10, 101, False),
        (99, 1_000, False),
        (100, 1_000, True),
        (0, 0, False),
    ],
)
def test_ten_users_and_ten_per_cent_are_too_many(
    marked: int, users: int, *, expected: bool
) -> None:
    assert is_runaway(marked, users) is expected


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"user": "", "reason": "x"},
        {"user": "nobody", "reason": "x"},
        {"user": "email:a@b.example"},
        {"user": "email:a@b.example", "reason": "x" * 501},
        {"user": 1, "reason": "x"},
    ],
)
async def test_a_list_entry_that_makes_no_sense_is_refused(hub: Hub, body: dict[str, Any]) -> None:
    async with hub.client(await hub.token()) as admin:
        answer = await admin.post("/admin/v1/break-glass", json=body)
    assert answer.status_code == 400, answer.text
