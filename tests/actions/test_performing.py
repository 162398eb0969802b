"""One attempt after the other, against real HTTP endpoints: what is asked, sent and concluded."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from jwcrypto.jwk import JWK
from jwcrypto.jwt import JWT

from actions import service, webhook
from actions.model import (
    ContainmentState,
    LogoutMethod,
    LogoutSetting,
    SCIMSetting,
    TaskKind,
    TaskState,
)
from actions.performing import SigningKeys
from actions.registry import service as registry
from tests.actions import kit
from tests.actions.conftest import SECRET, Hub, contained, pick
from tests.actions.services import Services

#: what an attempt does is the same on both databases; test_worker.py runs on both
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.mark.requirement("GTR-20", "GTR-21", "GTR-24")
async def test_an_app_gets_the_subject_it_knows_under_a_key_of_its_own_purpose(
    hub: Hub, services: Services, signing_jwks: list[JWK]
) -> None:
    await contained(hub, services)
    await hub.work_off()

    (call,) = [one for one in services.calls if one.path == "/idp/gtr"]
    assert call.json == {"sub_id": kit.ISS_SUB}
    token = call.headers["authorization"].removeprefix("Bearer ")
    claims = json.loads(JWT(jwt=token, key=signing_jwks[0], check_claims={}).claims)
    assert claims["aud"] == f"{services.base_url}/idp/gtr"
    assert claims["iss"] == "https://hub.example"


@pytest.mark.requirement("SCC-19")
@pytest.mark.parametrize("tells_groups", [True, False])
async def test_a_member_who_was_there_before_stays_there(
    hub: Hub, services: Services, *, tells_groups: bool
) -> None:
    services.members.add("2a91")
    services.tells_groups = tells_groups
    await contained(hub, services)
    await hub.work_off()

    await hub.plan(kit.clean())
    await hub.work_off()

    assert services.members == {"2a91"}
    assert not [call for call in services.calls if call.method == "PATCH"]
    assert await hub.state() is ContainmentState.CLOSED


async def test_an_app_that_is_down_for_a_while_is_logged_out_when_it_is_back(
    hub: Hub, services: Services
) -> None:
    services.answers["/apps/pay"] = [503, 500, 429]
    await contained(hub, services)

    await hub.work_off(for_s=10)

    view = await hub.only()
    (pay,) = [one for one in view.tasks if one.target_name == "pay"]
    assert [one.outcome for one in pay.attempts] == ["transient"] * 3 + ["done"]
    assert services.effects.count("/apps/pay/gtr") == 1


@pytest.mark.requirement("GTR-12")
async def test_a_refused_subject_format_is_followed_by_the_next(
    hub: Hub, services: Services
) -> None:
    services.answers["/apps/pay"] = [422]
    await contained(hub, services, subject_formats=("phone_number", "email", "iss_sub"))

    await hub.work_off()

    calls = [call.json["sub_id"] for call in services.calls if call.path == "/apps/pay/gtr"]
    assert calls == [kit.EMAIL, kit.ISS_SUB]


@pytest.mark.requirement("GTR-12")
async def test_when_no_format_is_left_the_task_fails_and_people_are_told(
    hub: Hub, services: Services
) -> None:
    services.answers["/apps/pay"] = [400, 400]
    await contained(hub, services)

    await hub.work_off()

    view = await hub.only()
    (pay,) = [one for one in view.tasks if one.target_name == "pay"]
    assert pay.task.state is TaskState.FAILED
    assert "does not take this subject" in pay.task.result.detail
    told = [call.json for call in services.calls if call.path == "/hook"]
    assert "waits for a person" in told[-1]["data"]["message"]


async def test_an_app_that_knows_none_of_the_users_names_fails_at_once_without_a_call(
    hub: Hub, services: Services
) -> None:
    await contained(hub, services, subject_formats=("phone_number",))

    await hub.work_off()

    view = await hub.only()
    (pay,) = [one for one in view.tasks if one.target_name == "pay"]
    assert pay.task.state is TaskState.FAILED
    assert "no identifier in a format the app takes (phone_number)" in pay.task.result.detail
    assert "/apps/pay/gtr" not in services.paths()


@pytest.mark.requirement("SCC-4", "SCC-17")
async def test_a_user_the_idp_does_not_know_cannot_be_quarantined_there(
    hub: Hub, services: Services
) -> None:
    services.users.clear()
    await contained(hub, services)

    await hub.work_off()

    addition = pick(await hub.only(), TaskKind.QUARANTINE_ADD)
    assert addition.task.state is TaskState.FAILED
    assert "knows no such user" in addition.task.result.detail
    assert "/idp/gtr" in services.effects


@pytest.mark.requirement("SCC-10")
async def test_a_member_somebody_else_removed_meanwhile_counts_as_restored(
    hub: Hub, services: Services
) -> None:
    await contained(hub, services)
    await hub.work_off()
    services.members.clear()

    await hub.plan(kit.clean())
    await hub.work_off()

    assert await hub.state() is ContainmentState.CLOSED


@pytest.mark.requirement("SCC-17")
async def test_a_removal_the_idp_refuses_keeps_the_containment_in_sight_until_somebody_acts(
    hub: Hub, services: Services
) -> None:
    await contained(hub, services)
    await hub.work_off()
    services.answers["/scim/v2/Groups/"] = [501]
    await hub.plan(kit.clean())
    await hub.work_off()

    view = await hub.only()
    removal = pick(view, TaskKind.QUARANTINE_REMOVE).task
    assert (removal.state, view.containment.state) == (
        TaskState.FAILED,
        ContainmentState.RESTORING,
    )
    async with hub.database.transaction() as connection:
        await service.retry_task(connection, kit.TENANT, removal.task_id, hub.clock.now())
    await hub.work_off()
    assert await hub.state() is ContainmentState.CLOSED
    assert services.members == set()


@pytest.mark.requirement("WH-5")
async def test_a_notification_is_repeated_under_its_id_with_an_equal_body(
    hub: Hub, services: Services
) -> None:
    services.answers["/hook"] = [500]
    await contained(hub, services)

    await hub.work_off(for_s=10)

    first, second = [call for call in services.calls if call.path == "/hook"]
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body
    assert first.headers["webhook-timestamp"] != second.headers["webhook-timestamp"]
    expected = webhook.signature(
        SECRET,
        second.headers["webhook-id"],
        int(second.headers["webhook-timestamp"]),
        body=second.body,
    )
    assert second.headers["webhook-signature"] == expected


async def test_a_lost_answer_is_repeated_and_has_one_effect_per_request(
    hub: Hub, services: Services
) -> None:
    services.loses_answers_of.add("/hook")
    await contained(hub, services)

    await hub.work_off(for_s=10)

    ids = {call.headers["webhook-id"] for call in services.calls if call.path == "/hook"}
    assert len(ids) == 1
    assert pick(await hub.only(), TaskKind.NOTIFY).task.state is TaskState.DONE


async def test_an_app_that_was_forgotten_fails_with_that_reason(
    hub: Hub, services: Services
) -> None:
    app = await hub.add_app(kit.wanted_app("pay", services.base_url))
    await hub.plan(kit.order())
    async with hub.database.transaction() as connection:
        await registry.delete_app(connection, kit.TENANT, app.app_id)

    await hub.work_off()

    (task,) = [one.task for one in (await hub.only()).tasks if one.task.app_id]
    assert "no longer registered" in task.result.detail


async def test_a_bug_of_ours_is_an_outcome_and_loses_no_task(hub: Hub, services: Services) -> None:
    await hub.add_app(kit.wanted_app("pay", services.base_url))
    await hub.plan(kit.order())
    (work,) = await hub.due()
    broken = replace(work, task=replace(work.task, payload=type(work.task.payload)(method="?")))

    (settlement,) = await hub.perform(broken)

    assert settlement.outcome == "transient"
    assert settlement.result.detail == "an error on our side: ValueError"


async def test_an_idp_may_be_asked_by_scim_id_in_the_other_dialect(
    hub: Hub, services: Services
) -> None:
    scim = SCIMSetting(
        base_url=f"{services.base_url}/scim/v2",
        quarantine_group_id=kit.GROUP,
        user_attribute="id",
    )
    await hub.add_app(kit.wanted_idp(services.base_url, scim=scim))
    await hub.plan(kit.order())

    await hub.work_off()

    assert services.members == {"u-20417"}
    assert not services.paths("/Users")


@pytest.mark.parametrize("change", ["method", "status"])
async def test_what_an_admin_changed_meanwhile_counts(
    hub: Hub, services: Services, change: str
) -> None:
    wanted = kit.wanted_app("pay", services.base_url)
    app = await hub.add_app(wanted)
    await hub.plan(kit.order())
    url = f"{services.base_url}/apps/pay/bcl"
    bcl = (LogoutSetting(method=LogoutMethod.BCL, endpoint_url=url),)
    changed = (
        replace(wanted, logout=bcl) if change == "method" else replace(wanted, status="inactive")
    )
    async with hub.database.transaction() as connection:
        await registry.update_app(
            connection, app.app_id, changed, tenant_id=kit.TENANT, box=hub.box, now=kit.NOW
        )

    await hub.work_off()

    (task,) = [one.task for one in (await hub.only()).tasks if one.task.app_id]
    assert task.state is TaskState.FAILED
    assert services.paths("/apps/") == []


async def test_a_known_earlier_member_needs_no_second_look(hub: Hub, services: Services) -> None:
    await contained(hub, services)
    (look,) = await hub.due()
    known = type(look.task.payload)(group_id=kit.GROUP, scim_user_id="2a91", was_member=True)

    (settlement,) = await hub.perform(replace(look, task=replace(look.task, payload=known)))

    assert settlement.outcome == "done"
    assert services.calls == []


async def test_an_idp_whose_scim_setting_went_fails_with_that_reason(
    hub: Hub, services: Services
) -> None:
    await contained(hub, services)
    (look,) = await hub.due()

    (settlement,) = await hub.perform(replace(look, app=None))
    (removal,) = await hub.perform(
        replace(look, app=None, task=replace(look.task, kind=TaskKind.QUARANTINE_REMOVE))
    )

    assert settlement.state == removal.state == "failed"
    assert "no usable SCIM setting" in settlement.result.detail


async def test_a_user_without_a_name_for_the_directory_is_not_looked_up(
    hub: Hub, services: Services
) -> None:
    await contained(hub, services)
    (look,) = await hub.due()
    nameless = replace(look.containment, identifiers=({"format": "phone_number"},))

    (settlement,) = await hub.perform(replace(look, containment=nameless))

    assert "looked up as userName" in settlement.result.detail
    assert services.calls == []


@pytest.mark.requirement("SCC-10", "SCC-17")
@pytest.mark.parametrize(
    ("answers", "outcome"),
    [
        ({"/scim/v2/Groups/": [400]}, "permanent"),
        ({"/scim/v2/Groups/": [204], "/scim/v2/Users/": [500]}, "transient"),
        ({"/scim/v2/Users/": [500], "/scim/v2/Groups?": [500]}, "done"),
    ],
)
async def test_a_removal_is_done_when_reading_back_does_not_contradict_it(
    hub: Hub, services: Services, answers: dict[str, list[int]], outcome: str
) -> None:
    await contained(hub, services)
    await hub.work_off()
    await hub.plan(kit.clean())
    services.answers = answers
    removal = [w for w in await hub.due() if w.task.kind is TaskKind.QUARANTINE_REMOVE]

    (settlement,) = await hub.perform(*removal)

    assert settlement.outcome == outcome


async def test_parsed_keys_are_kept_up_to_a_limit(hub: Hub) -> None:
    keyring = hub.source._tools.keys._keyring
    keys = SigningKeys(keyring, held_max=1)

    first = await keys.current(kit.TENANT, "gtr")
    assert await keys.current(kit.TENANT, "gtr") is first
    await keys.current(kit.TENANT, "logout")
    assert await keys.current(kit.TENANT, "gtr") is not first
