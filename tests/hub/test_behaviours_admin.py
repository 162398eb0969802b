"""Behaviours of a tenant over HTTP and on the command line, and a user who is learned anew."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from hub.sign_ins.evaluator import SignIns
from risk.behaviours.model import BEHAVIOURS_MAX, BUILT_IN
from tests.hub.conftest import ONE_ENGINE, Hub
from tests.hub.test_sign_ins import HOME, LAPTOP, SIGN_IN, routed

PATH = "/admin/v1/behaviours"
FAR: dict[str, Any] = {
    "name": "Far away",
    "type": "ANOMALOUS_LOCATION",
    "settings": {"granularity": "LAT_LONG", "radiusKilometers": 500},
}


async def test_the_built_in_ones_are_there_and_can_be_changed_and_reset(
    admin: httpx2.AsyncClient,
) -> None:
    listed = (await admin.get(PATH)).json()["items"]
    assert {each["name"] for each in listed} == {each.name for each in BUILT_IN}
    velocity = f"{PATH}/bhv_velocity"
    assert (await admin.get(velocity)).json()["settings"] == {"velocityKph": 805.0}

    off = {"status": "INACTIVE", "settings": {"velocityKph": 1000}}
    changed = await admin.patch(velocity, json=off)
    assert (changed.json()["status"], changed.json()["settings"]) == (
        "INACTIVE", {"velocityKph": 1000.0},
    )  # fmt: skip
    assert (await admin.patch(velocity, json={"name": "Fast"})).status_code == 400
    assert (await admin.patch(velocity, json={"type": "ANOMALOUS_IP"})).status_code == 400
    assert (await admin.delete(velocity)).status_code == 204
    assert (await admin.get(velocity)).json()["settings"] == {"velocityKph": 805.0}


@ONE_ENGINE
async def test_own_ones_are_evaluated_from_now_on(admin: httpx2.AsyncClient, hub: Hub) -> None:
    question = {"user": "email:a@b.example", "ip": HOME, "device": LAPTOP}
    before = (await admin.post(SIGN_IN, json=question)).json()["behaviours"]
    made = (await admin.post(PATH, json=FAR)).json()
    await admin.patch(f"{PATH}/bhv_new_city", json={"status": "INACTIVE"})
    await hub.node.feed.refresh()
    after = (await admin.post(SIGN_IN, json=question)).json()["behaviours"]
    assert set(after) - set(before) == {"Far away"}
    assert set(before) - set(after) == {"New City"}
    assert (await admin.delete(f"{PATH}/{made['id']}")).status_code == 204
    assert (await admin.get(f"{PATH}/{made['id']}")).status_code == 404
    assert (await admin.delete(f"{PATH}/{made['id']}")).status_code == 404


@ONE_ENGINE
@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"name": ""}, 400),
        ({"name": "x" * 129}, 400),
        ({"name": "New City"}, 409),
        ({"type": "ANOMALOUS_MOOD"}, 400),
        ({"status": "SOMETIMES"}, 400),
        ({"settings": {"granularity": "LAT_LONG"}}, 400),
        ({"settings": {"granularity": "CITY", "maxEventsUsedForEvaluation": 0}}, 400),
        ({"settings": []}, 400),
        ({"settings": {str(number): 1 for number in range(11)}}, 400),
        ({"more": 1}, 400),
    ],
)
async def test_what_makes_no_sense_is_refused(
    admin: httpx2.AsyncClient, change: dict[str, Any], status: int
) -> None:
    assert (await admin.post(PATH, json=FAR | change)).status_code == status


@ONE_ENGINE
async def test_a_tenant_has_a_bounded_number_and_its_own(
    admin: httpx2.AsyncClient, hub: Hub
) -> None:
    for number in range(BEHAVIOURS_MAX - len(BUILT_IN)):
        assert (await admin.post(PATH, json=FAR | {"name": f"n{number}"})).status_code == 201
    assert (await admin.post(PATH, json=FAR)).status_code == 409
    await hub.add_tenant("green")
    async with hub.client(await hub.token(tenant="green"), tenant="green") as green:
        assert len((await green.get(PATH)).json()["items"]) == len(BUILT_IN)
        first = (await admin.get(PATH)).json()["items"][0]["id"]
        assert (await green.get(f"{PATH}/{first}")).status_code == 404


async def test_a_user_is_learned_anew_and_the_audit_says_so(
    admin: httpx2.AsyncClient, hub: Hub
) -> None:
    user = {"identifiers": [{"format": "email", "email": "rosa@customer.example"}]}
    assert (await admin.post("/admin/v1/users", json=user)).status_code == 201
    question = {
        "user": "email:rosa@customer.example", "ip": HOME, "device": LAPTOP, "phase": "after",
        "outcome": "success",
    }  # fmt: skip
    sign_ins: SignIns = routed(hub.app).state.sign_ins
    for _ in range(5):
        await admin.post(SIGN_IN, json=question)
    await sign_ins.recorder.flush()
    await hub.node.changes.refresh()
    assert (await admin.post(SIGN_IN, json=question)).json()["login_risk"]["learning"] is False
    await sign_ins.recorder.flush()

    body = {"user": "email:rosa@customer.example"}
    reset = await admin.post(f"{PATH}:reset-user", json=body)
    assert (reset.status_code, reset.json()["was_known"]) == (200, True)
    await hub.node.changes.refresh()
    told = (await admin.post(SIGN_IN, json=question)).json()
    assert told["login_risk"]["learning"] is True
    assert any(entry.action == "behaviour.reset-user" for entry in await hub.audit())
    unknown = await admin.post(f"{PATH}:reset-user", json={"user": "email:no@customer.example"})
    assert unknown.status_code == 404
