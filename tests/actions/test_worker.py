"""The fan-out against real HTTP endpoints, on both databases."""

from __future__ import annotations

import asyncio

import pytest

from actions.model import (
    ContainmentState,
    Proof,
    TaskKind,
    TaskState,
)
from actions.performing import Work
from runtime.clock import SystemClock
from runtime.lanes import Lanes
from runtime.notify import Notifier
from runtime.queue import LeaseKeeper
from runtime.writer import LocalWriter
from tests.actions import kit
from tests.actions.conftest import Hub, contained, pick
from tests.actions.services import Services
from tests.runtime.background import LIMIT_S, running


async def test_a_contained_user_is_quarantined_then_logged_out_everywhere_then_told(
    hub: Hub, services: Services
) -> None:
    await contained(hub, services)

    await hub.work_off()

    *in_order, told = services.effects
    assert in_order[:2] == ["added 2a91", "/idp/gtr"]
    # Apps are called side by side, so which one answers first is open.
    assert set(in_order[2:]) == {"/apps/pay/gtr", "/apps/mail/bcl"}
    assert told == "/hook"
    view = await hub.only()
    assert {one.task.state for one in view.tasks} == {TaskState.DONE}


async def test_the_view_answers_who_what_and_why(hub: Hub, services: Services) -> None:
    await contained(hub, services)
    await hub.work_off()

    view = await hub.only()

    assert view.containment.label == "Rosa Lind"
    assert view.containment.reasons == ("device compromised",)
    assert [one.summary for one in view.causes] == ["the device is compromised"]
    addition = pick(view, TaskKind.QUARANTINE_ADD)
    assert addition.target_name == "Green IdP"
    assert [one.outcome for one in addition.attempts] == ["advance", "done"]
    assert addition.task.proves is Proof.ACCEPTED
    logouts = {one.target_name: one.task for one in view.tasks}
    assert logouts["mail"].proves is Proof.EFFECTIVE
    assert logouts["pay"].proves is Proof.ACCEPTED
    assert "access tokens" in logouts["pay"].result.residual
    published = pick(view, TaskKind.PUBLISH_SESSION_REVOKED).task
    assert published.result.receipts == ("str_1",)


async def test_cleared_causes_undo_only_what_we_added_and_tell_so(
    hub: Hub, services: Services
) -> None:
    await contained(hub, services)
    await hub.work_off()

    await hub.plan(kit.clean())
    assert await hub.state() is ContainmentState.RESTORING
    await hub.work_off()

    assert await hub.state() is ContainmentState.CLOSED
    assert services.effects[-2:] == ["removed 2a91", "/hook"]
    assert pick(await hub.only(), TaskKind.QUARANTINE_REMOVE).task.proves is Proof.EFFECTIVE
    told = [call.json for call in services.calls if call.path == "/hook"]
    assert [one["type"] for one in told] == ["containment.opened", "containment.closed"]
    assert "taken out of quarantine at Green IdP" in told[1]["data"]["message"]
    assert await hub.of_user() is None


@pytest.mark.requirement("SCC-19")
async def test_a_crash_after_the_change_reached_the_idp_does_not_forget_that_it_was_ours(
    hub: Hub, services: Services
) -> None:
    await contained(hub, services)
    (look,) = await hub.due()
    await hub.settle(*await hub.perform(look))
    (change,) = await hub.due()
    await hub.perform(change)  # and nobody is left to settle it

    await hub.work_off()
    await hub.plan(kit.clean())
    await hub.work_off()

    assert services.members == set()
    assert [one for one in services.effects if "2a91" in one] == ["added 2a91", "removed 2a91"]


async def test_nothing_is_changed_before_the_prior_membership_is_stored(
    hub: Hub, services: Services
) -> None:
    await contained(hub, services)

    (look,) = await hub.due()
    (settlement,) = await hub.perform(look)

    assert settlement.payload.was_member is False
    assert not [call for call in services.calls if call.method == "PATCH"]


async def test_a_clean_signal_while_the_change_is_under_way_still_takes_it_back(
    hub: Hub, services: Services
) -> None:
    await contained(hub, services)
    await hub.turn()
    (change,) = await hub.due()
    late = await hub.perform(change)

    await hub.plan(kit.clean())
    assert await hub.due(busy=[change.task.lane]) == []
    await hub.settle(*late)
    await hub.work_off()

    changes = [effect for effect in services.effects if effect != "/hook"]
    assert changes == ["added 2a91", "removed 2a91"]
    assert pick(await hub.only(), TaskKind.QUARANTINE_ADD).task.state is TaskState.DONE
    assert await hub.state() is ContainmentState.CLOSED


async def test_a_new_cause_while_restoring_puts_the_user_back_in_order(
    hub: Hub, services: Services
) -> None:
    await contained(hub, services)
    await hub.work_off()
    await hub.plan(kit.clean())
    (removal,) = await hub.due()
    late = await hub.perform(removal)

    await hub.plan(kit.order(causes=(kit.cause("password"),)))
    await hub.settle(*late)
    await hub.work_off()

    assert await hub.state() is ContainmentState.OPEN
    changes = [effect for effect in services.effects if "2a91" in effect]
    assert changes == ["added 2a91", "removed 2a91", "added 2a91"]
    assert services.members == {"2a91"}
    await hub.plan(kit.clean())
    await hub.work_off()
    assert services.members == set()


async def test_an_idp_that_is_down_delays_the_logouts_half_a_second_and_no_more(
    hub: Hub, services: Services
) -> None:
    services.answers["/scim/"] = [503] * 100
    await contained(hub, services)

    await hub.work_off(for_s=1.5)

    assert [path for path in services.effects if "hook" not in path] == [
        "/idp/gtr",
        *services.paths("/apps/"),
    ]
    assert len(services.paths("/apps/")) == 2
    view = await hub.only()
    assert pick(view, TaskKind.QUARANTINE_ADD).task.state is TaskState.QUEUED


async def test_many_users_of_an_app_that_is_down_leave_room_for_the_other_apps(
    hub: Hub, services: Services
) -> None:
    await hub.add_app(kit.wanted_app("dead", "http://127.0.0.1:9"))
    await hub.add_app(kit.wanted_app("alive", services.base_url))
    users = [f"usr_{number}" for number in range(12)]
    await hub.plan(*[kit.order(user_id=user) for user in users])

    first = await hub.due(limit=16)
    by_app = [work.task.target for work in first]
    assert {by_app.count(target) for target in by_app} == {8}
    await hub.settle(*await hub.perform(*first))
    hub.clock.advance(2)

    second = await hub.due(limit=16)
    dead = [work for work in second if work.app and work.app.app.name == "dead"]
    assert len(dead) == 1
    assert len(second) == 5


@pytest.mark.requirement("WH-7")
async def test_a_webhook_that_is_gone_is_switched_off(hub: Hub, services: Services) -> None:
    services.answers["/hook"] = [410]
    await contained(hub, services)
    await hub.work_off()

    await hub.plan(kit.clean())
    await hub.work_off()

    assert len(services.paths("/hook")) == 1


async def test_lanes_run_side_by_side(hub: Hub, services: Services) -> None:
    for number in range(5):
        await hub.add_app(kit.wanted_app(f"app{number}", services.base_url))
    await hub.plan(kit.order())

    works: list[Work] = await hub.due()

    assert len({hub.source.lane(work) for work in works}) == 5
    async with asyncio.timeout(10):
        await hub.settle(*await hub.perform(*works))
    assert len(services.effects) == 5


async def test_the_real_loop_carries_a_containment_out_and_undoes_it(
    hub: Hub, services: Services
) -> None:
    """Leases, lanes and group commit as in the delivery process; only the pipeline is played."""
    clock, notifier = SystemClock(), Notifier()
    hub.clock.at = clock.now()
    writer = LocalWriter(hub.database, notifier)
    leases = LeaseKeeper("tasks", "w", writer=writer, clock=clock)
    lanes = Lanes(hub.source, leases=leases, writer=writer, notifier=notifier, clock=clock)
    await contained(hub, services)

    async def until(state: ContainmentState, told: int) -> None:
        while await hub.state() is not state or len(services.paths("/hook")) < told:
            seen = notifier.count("tasks")
            hub.clock.at = clock.now()
            await hub.publish()
            await notifier.wait("tasks", 0.05, since=seen)

    async with running(writer.run(), lanes.run()), asyncio.timeout(LIMIT_S):
        await until(ContainmentState.OPEN, told=1)
        assert services.members == {"2a91"}
        await hub.plan(kit.clean())
        await until(ContainmentState.CLOSED, told=2)

    assert services.members == set()
    assert services.effects.count("/apps/pay/gtr") == 1
