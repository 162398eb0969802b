"""Settling: fenced, once, truthful about cancelled work; on both databases."""

from __future__ import annotations

from dataclasses import replace

import msgspec
from hypothesis import given
from hypothesis import strategies as st

import actions
from actions.model import Proof, Task, TaskKind, TaskState
from actions.outcomes import OutcomeClass
from actions.settlement import SETTLE_TASKS, TaskSettlement, settle_task
from runtime.queue import Fence
from tests.actions import kit
from tests.actions.conftest import Hub, contained, pick
from tests.actions.services import Services
from tests.actions.test_outcomes import task as any_task


def settlement(task: Task, **changes: object) -> TaskSettlement:
    made = TaskSettlement(
        tenant_id=task.tenant_id,
        task_id=task.task_id,
        containment_id=task.containment_id,
        fence=Fence(kind="tasks", bucket=0, epoch=1),
        attempt_number=task.attempts + 1,
        at=kit.NOW,
        duration_ms=1.0,
        outcome=OutcomeClass.DONE.value,
        state=TaskState.DONE.value,
        due_at=kit.NOW,
        payload=task.payload,
        result=task.result,
        proves=Proof.ACCEPTED.value,
        status=204,
    )
    return msgspec.structs.replace(made, **changes)


async def test_an_attempt_under_a_lost_lease_changes_nothing(hub: Hub, services: Services) -> None:
    await contained(hub, services)
    works = await hub.due()
    (late,) = await hub.perform(*works)
    stale = msgspec.structs.replace(
        late, fence=msgspec.structs.replace(late.fence, epoch=late.fence.epoch - 1)
    )

    assert await hub.settle(stale) == [False]
    assert pick(await hub.only(), TaskKind.QUARANTINE_ADD).task.attempts == 0
    assert await hub.settle(late) == [True]


async def test_an_attempt_settled_twice_counts_once(hub: Hub, services: Services) -> None:
    await contained(hub, services)
    (late,) = await hub.perform(*await hub.due())

    assert await hub.settle(late, late) == [True, False]
    assert await hub.settle(late) == [False]
    assert len(pick(await hub.only(), TaskKind.QUARANTINE_ADD).attempts) == 1


async def test_the_next_stage_starts_when_the_last_task_of_the_one_before_is_settled(
    hub: Hub, services: Services
) -> None:
    await contained(hub, services)
    await hub.turn()
    assert [work.task.kind for work in await hub.due()] == [TaskKind.QUARANTINE_ADD]
    await hub.turn()

    assert [work.task.kind for work in await hub.due()] == [TaskKind.IDP_LOGOUT]


async def test_a_task_cancelled_while_its_request_was_under_way_says_that_it_happened(
    hub: Hub, services: Services
) -> None:
    await hub.add_app(kit.wanted_app("pay", services.base_url))
    await hub.plan(kit.order())
    late = await hub.perform(*await hub.due())
    await hub.plan(kit.clean())

    assert await hub.settle(*late) == [True]

    (pay,) = [one for one in (await hub.only()).tasks if one.target_name == "pay"]
    assert pay.task.state is TaskState.DONE
    assert [one.outcome for one in pay.attempts] == ["done"]


async def test_a_cancelled_task_that_did_not_succeed_stays_cancelled(
    hub: Hub, services: Services
) -> None:
    services.answers["/apps/pay"] = [503]
    await hub.add_app(kit.wanted_app("pay", services.base_url))
    await hub.plan(kit.order())
    late = await hub.perform(*await hub.due())
    await hub.plan(kit.clean())
    await hub.settle(*late)

    hub.clock.advance(60)
    assert await hub.due() == []
    (pay,) = [one for one in (await hub.only()).tasks if one.target_name == "pay"]
    assert (pay.task.state, len(pay.attempts)) == (TaskState.CANCELLED, 1)


async def test_a_settlement_of_a_task_nobody_knows_is_ignored(hub: Hub) -> None:
    fence = Fence(kind="tasks", bucket=0, epoch=hub.epochs[0])

    assert await hub.settle(settlement(any_task(), fence=fence)) == [False]


def test_settlements_travel_between_processes() -> None:
    sent = settlement(any_task())

    raw = msgspec.msgpack.encode(sent)

    assert msgspec.msgpack.decode(raw, type=SETTLE_TASKS.item) == sent
    assert actions.OPERATIONS == (SETTLE_TASKS,)


@given(
    before=st.sampled_from(TaskState),
    to=st.sampled_from(TaskState),
    made=st.integers(0, 3),
    number=st.integers(0, 5),
)
def test_a_settled_task_never_leaves_its_state_and_attempts_count_up(
    before: TaskState, to: TaskState, made: int, number: int
) -> None:
    task = replace(any_task(), state=before, attempts=made)

    after = settle_task(task, settlement(task, attempt_number=number, state=to.value))

    if number != made + 1 or before in {TaskState.DONE, TaskState.FAILED}:
        assert after is None
    else:
        assert after is not None
        assert after.attempts == number
        if before is TaskState.CANCELLED:
            assert after.state is (TaskState.DONE if to is TaskState.DONE else before)
