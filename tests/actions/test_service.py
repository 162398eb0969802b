"""Planning in batches, views, and what people may do by hand; on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa

from actions import service
from actions.model import (
    Action,
    ContainmentState,
    PlanOutcome,
    TaskKind,
    TaskState,
)
from actions.registry import service as registry
from runtime.database import Database
from runtime.errors import Conflict, NotFound
from runtime.store import system_changes_after, system_feed_end
from tests.actions import kit
from tests.actions.conftest import Hub, contained, pick
from tests.actions.services import Services


@contextmanager
def counting(database: Database) -> Iterator[list[str]]:
    """Collect the statements that are sent, each once per executemany."""
    statements: list[str] = []

    def note(*arguments: object) -> None:
        statements.append(str(arguments[2]))

    engine = database.engine.sync_engine
    sa.event.listen(engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)


async def test_a_batch_of_users_is_planned_with_a_fixed_number_of_statements(hub: Hub) -> None:
    hub.user_count = 10_000
    await hub.add_app(kit.wanted_app("pay", "https://pay.example"))
    await hub.plan(kit.order(user_id="usr_first"))
    orders = [kit.order(user_id=f"usr_{number}") for number in range(20)]

    with counting(hub.database) as statements:
        planned = await hub.plan(*orders)

    assert {one.outcome for one in planned} == {PlanOutcome.OPENED}
    written = [text for text in statements if not text.startswith("BEGIN")]
    # Reads: containments, apps, webhooks, the guard's count. Writes: containments, causes, tasks,
    # change feed, where SQLite reads the last position first.
    is_sqlite = hub.database.dialect == "sqlite"
    assert len(written) == (9 if is_sqlite else 8), "\n".join(written)


async def test_orders_that_want_nothing_read_one_table_and_write_nothing(hub: Hub) -> None:
    with counting(hub.database) as statements:
        planned = await hub.plan(kit.clean())

    assert planned == []
    assert len([text for text in statements if not text.startswith("BEGIN")]) == 1


async def test_planning_nobody_is_nothing(hub: Hub) -> None:
    assert await hub.plan() == []


async def test_the_last_order_of_a_user_in_a_batch_counts(hub: Hub) -> None:
    assert await hub.plan(kit.order(), kit.clean()) == []
    assert await hub.of_user() is None


async def test_a_user_has_one_containment_and_causes_attach_to_it(hub: Hub) -> None:
    (first,) = await hub.plan(kit.order())
    both = (kit.cause(), kit.cause("password"))
    (second,) = await hub.plan(kit.order(causes=both))

    assert first.containment_id == second.containment_id
    assert second.outcome is PlanOutcome.ATTACHED
    view = await hub.only()
    assert [one.detection_id for one in view.causes] == ["det_device", "det_password"]

    await hub.plan(kit.order(causes=(kit.cause("password"),)))
    view = await hub.only()
    assert [one.cleared_at is not None for one in view.causes] == [True, False]
    assert view.containment.state is ContainmentState.OPEN


async def test_a_cleared_cause_that_comes_back_is_active_again(hub: Hub) -> None:
    both = (kit.cause(), kit.cause("password"))
    await hub.plan(kit.order(causes=both))
    await hub.plan(kit.order(causes=(kit.cause("password"),)))
    await hub.plan(kit.order(causes=both))

    view = await hub.only()
    assert [one.cleared_at for one in view.causes] == [None, None]
    assert view.containment.round == 2


async def test_an_open_containment_denies_its_user_and_nobody_else(hub: Hub) -> None:
    await hub.plan(kit.order())

    held = await hub.of_user()
    assert held is not None
    assert held.denies
    assert await hub.of_user("usr_other") is None


async def test_every_change_of_a_containment_reaches_the_change_feed(hub: Hub) -> None:
    async with hub.database.snapshot() as connection:
        mark = await system_feed_end(connection)
    await hub.plan(kit.order())

    async with hub.database.snapshot() as connection:
        changes, _ = await system_changes_after(connection, mark, limit=10)
    assert [(one.kind, one.ref) for one in changes] == [("containments", kit.USER)]


async def test_the_blast_radius_is_kept_inside_a_batch_and_over_ten_minutes(hub: Hub) -> None:
    hub.user_count = 10
    orders = [kit.order(user_id=f"usr_{number}") for number in range(5)]

    planned = await hub.plan(*orders)

    assert [one.outcome for one in planned].count(PlanOutcome.OPENED) == 3
    assert [one.outcome for one in planned].count(PlanOutcome.HELD) == 2
    hub.clock.advance(599)
    assert [one.outcome for one in await hub.plan(*orders)].count(PlanOutcome.OPENED) == 0
    hub.clock.advance(2)
    assert [one.outcome for one in await hub.plan(*orders)].count(PlanOutcome.OPENED) == 2


async def test_a_held_containment_is_carried_out_when_a_person_approves_it(hub: Hub) -> None:
    hub.user_count = 0
    orders = [kit.order(user_id=f"usr_{number}") for number in range(4)]
    held = (await hub.plan(*orders))[-1]
    assert (held.outcome, held.tasks_enqueued) == (PlanOutcome.HELD, 0)

    async with hub.database.transaction() as connection:
        planned = await service.approve_containment(
            connection, kit.TENANT, held.containment_id, hub.clock.now()
        )

    assert planned.outcome is PlanOutcome.OPENED
    assert planned.tasks_enqueued == 1
    opened = await hub.of_user("usr_3")
    assert opened is not None
    assert opened.denies
    async with hub.database.transaction() as connection:
        with pytest.raises(Conflict):
            await service.approve_containment(
                connection, kit.TENANT, held.containment_id, hub.clock.now()
            )
        with pytest.raises(NotFound):
            await service.approve_containment(connection, kit.TENANT, "ctn_?", hub.clock.now())


async def test_notifications_alone_do_not_count_against_the_limit(hub: Hub) -> None:
    hub.user_count = 0
    mild = frozenset({Action.NOTIFY})
    await hub.plan(*[kit.order(user_id=f"usr_{n}", actions=mild) for n in range(9)])

    (planned,) = await hub.plan(kit.order())

    assert planned.outcome is PlanOutcome.OPENED


async def test_tenants_have_their_own_apps_and_limits(hub: Hub) -> None:
    await hub.add_app(kit.wanted_app("pay", "https://pay.example"))
    hub.user_count = 0
    mine = [kit.order(user_id=f"usr_{number}") for number in range(4)]

    planned = await hub.plan(*mine, kit.order(tenant_id="blue"))

    assert planned[-1].outcome is PlanOutcome.OPENED
    assert planned[0].tasks_enqueued == 2
    assert planned[-1].tasks_enqueued == 1
    async with hub.database.snapshot() as connection:
        with pytest.raises(NotFound):
            await service.get_containment(connection, "blue", planned[0].containment_id)
        assert len(await service.list_containments(connection, "blue")) == 1


async def test_session_revoked_is_handed_to_the_core_with_whom_and_why(
    hub: Hub, services: Services
) -> None:
    await contained(hub, services)
    async with hub.database.snapshot() as connection:
        assert await service.local_due(connection, hub.clock.now()) == []
    hub.clock.advance(1.0)

    async with hub.database.snapshot() as connection:
        (task,) = await service.local_due(connection, hub.clock.now())

    assert task.kind is TaskKind.PUBLISH_SESSION_REVOKED
    assert task.payload.identifiers == (kit.EMAIL, kit.ISS_SUB)
    assert task.payload.reason == "device compromised"


async def test_a_published_task_is_done_once_with_its_receipts(hub: Hub) -> None:
    await hub.plan(kit.order())

    assert len(await hub.publish()) == 1
    assert await hub.publish() == []
    task = pick(await hub.only(), TaskKind.PUBLISH_SESSION_REVOKED)
    assert task.task.result.receipts == ("str_1",)
    assert task.task.result.detail == "session-revoked queued for 1 streams"
    assert [one.outcome for one in task.attempts] == ["done"]


async def failed_logout(hub: Hub, services: Services) -> str:
    services.answers["/apps/pay"] = [409]
    await contained(hub, services)
    await hub.work_off()
    async with hub.database.snapshot() as connection:
        (dead,) = await service.list_tasks(connection, kit.TENANT, state=TaskState.FAILED)
    assert dead.result.detail == "refused (409)"
    return dead.task_id


async def test_a_dead_task_is_listed_with_its_reason_and_can_be_retried(
    hub: Hub, services: Services
) -> None:
    task_id = await failed_logout(hub, services)

    async with hub.database.transaction() as connection:
        await service.retry_task(connection, kit.TENANT, task_id, hub.clock.now())
    await hub.work_off()

    (pay,) = [one for one in (await hub.only()).tasks if one.target_name == "pay"]
    assert pay.task.state is TaskState.DONE
    assert [one.attempt_number for one in pay.attempts] == [1, 2]
    async with hub.database.transaction() as connection:
        with pytest.raises(Conflict, match="done, not failed"):
            await service.retry_task(connection, kit.TENANT, task_id, hub.clock.now())
        with pytest.raises(NotFound):
            await service.retry_task(connection, "blue", task_id, hub.clock.now())


async def test_a_dead_logout_is_not_retried_after_its_containment_ended(
    hub: Hub, services: Services
) -> None:
    task_id = await failed_logout(hub, services)
    await hub.plan(kit.clean())
    await hub.work_off()

    async with hub.database.transaction() as connection:
        with pytest.raises(Conflict, match="not wanted"):
            await service.retry_task(connection, kit.TENANT, task_id, hub.clock.now())


async def test_a_removal_that_is_given_up_lets_the_containment_close(
    hub: Hub, services: Services
) -> None:
    await contained(hub, services)
    await hub.work_off()
    services.answers["/scim/v2/Groups/"] = [501]
    await hub.plan(kit.clean())
    await hub.work_off()
    removal = pick(await hub.only(), TaskKind.QUARANTINE_REMOVE).task

    async with hub.database.transaction() as connection:
        given_up = await service.abandon_task(
            connection, kit.TENANT, removal.task_id, hub.clock.now()
        )

    assert given_up.state is TaskState.CANCELLED
    assert await hub.state() is ContainmentState.CLOSED


async def test_lists_are_paged_newest_first(hub: Hub) -> None:
    for number in range(3):
        await hub.plan(kit.order(user_id=f"usr_{number}"))

    async with hub.database.snapshot() as connection:
        first = await service.list_containments(connection, kit.TENANT, limit=2)
        rest = await service.list_containments(
            connection, kit.TENANT, limit=2, before=first[-1].containment_id
        )
        of_one = await service.list_containments(
            connection, kit.TENANT, user_id="usr_1", state=ContainmentState.OPEN
        )
        tasks = await service.list_tasks(connection, kit.TENANT, limit=2)
        more = await service.list_tasks(connection, kit.TENANT, before=tasks[-1].task_id)
    assert [one.user_id for one in first + rest] == ["usr_2", "usr_1", "usr_0"]
    assert [one.user_id for one in of_one] == ["usr_1"]
    assert (len(tasks), len(more)) == (2, 1)


async def test_a_forgotten_app_keeps_its_id_in_the_view(hub: Hub) -> None:
    app = await hub.add_app(kit.wanted_app("pay", "https://pay.example"))
    await hub.plan(kit.order())
    async with hub.database.transaction() as connection:
        await registry.delete_app(connection, kit.TENANT, app.app_id)

    names = [one.target_name for one in (await hub.only()).tasks if one.task.app_id]

    assert names == [app.app_id]


async def test_labels_and_identifiers_follow_what_is_known_last(hub: Hub) -> None:
    await hub.plan(kit.order())
    await hub.plan(replace(kit.order(), label="Rosa Lind-Berg", identifiers=(kit.EMAIL,)))

    held = await hub.of_user()
    assert held is not None
    assert (held.label, held.identifiers) == ("Rosa Lind-Berg", (kit.EMAIL,))
    assert held.signal_received_at == kit.NOW - timedelta(milliseconds=40)
