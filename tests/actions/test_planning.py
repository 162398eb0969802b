"""What follows from an order: pure planning."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actions.drafts import Registry, Situation
from actions.model import (
    Action,
    ContainmentOrder,
    ContainmentState,
    LogoutMethod,
    LogoutSetting,
    PlanOutcome,
    Stage,
    Task,
    TaskKind,
    TaskState,
    containments_max,
    target_of_lane,
)
from actions.planning import Decision, decide, due_to_pull, is_restored, order_of
from tests.actions import kit
from tests.actions.kit import ALL, NOW, REGISTRY, after, cause, clean, order


def plan(
    wanted: ContainmentOrder,
    current: Situation | None = None,
    *,
    registry: Registry = REGISTRY,
    admitted: bool = True,
) -> Decision:
    return decide(
        wanted,
        current,
        registry=registry,
        admitted=admitted,
        containment_id="ctn_1",
        now=NOW,
    )


def opened(**changes: Any) -> Situation:
    return after(plan(order(**changes)), None)


def kinds(decision: Decision) -> list[TaskKind]:
    return [draft.kind for draft in decision.drafts]


def with_state(situation: Situation, kind: TaskKind, **changes: Any) -> Situation:
    """The situation after tasks of a kind moved on; payload members start with `p_`."""
    facts = {name[2:]: value for name, value in changes.items() if name.startswith("p_")}
    members = {name: value for name, value in changes.items() if not name.startswith("p_")}

    def moved(task: Task) -> Task:
        if task.kind is not kind:
            return task
        payload = msgspec.structs.replace(task.payload, **facts)
        return replace(task, payload=payload, **members)

    return replace(situation, tasks=tuple(moved(task) for task in situation.tasks))


def added(situation: Situation) -> Situation:
    """The situation after we put the user into the group."""
    return with_state(
        situation,
        TaskKind.QUARANTINE_ADD,
        state=TaskState.DONE,
        p_scim_user_id="2a91",
        p_was_member=False,
    )


def test_a_high_risk_opens_a_containment_with_all_stages_in_order() -> None:
    decision = plan(order())

    assert decision.outcome is PlanOutcome.OPENED
    assert kinds(decision) == [
        TaskKind.QUARANTINE_ADD,
        TaskKind.IDP_LOGOUT,
        TaskKind.PUBLISH_SESSION_REVOKED,
        TaskKind.APP_LOGOUT,
        TaskKind.APP_LOGOUT,
        TaskKind.NOTIFY,
    ]
    assert [draft.app_id for draft in decision.drafts] == [
        "app_idp",
        "app_idp",
        None,
        "app_pay",
        "app_mail",
        None,
    ]


def test_each_stage_waits_at_most_half_a_second_for_the_one_before() -> None:
    waits = {draft.stage: draft.due_in for draft in plan(order()).drafts}

    assert waits == {stage: timedelta(milliseconds=500) * int(stage) for stage in Stage}


def test_without_an_identity_provider_the_apps_are_first() -> None:
    registry = Registry(apps=(kit.app("app_mail"),))

    decision = plan(order(), registry=registry)

    assert {draft.due_in for draft in decision.drafts} == {timedelta()}


def test_an_order_that_wants_nothing_does_nothing() -> None:
    assert plan(clean()).outcome is PlanOutcome.NOTHING
    assert plan(order(actions=frozenset({"REQUIRE_STEP_UP_NEXT"}))).drafts == ()


def test_a_notification_alone_takes_nothing_away() -> None:
    decision = plan(order(level="MEDIUM", actions=frozenset({Action.NOTIFY})), admitted=False)

    assert kinds(decision) == [TaskKind.NOTIFY]
    assert decision.containment is not None
    assert not decision.containment.denies
    assert decision.containment.enforced_at is None


def test_an_open_quarantine_denies_until_it_restores() -> None:
    situation = added(opened())
    assert situation.containment.denies

    restoring = plan(clean(), situation).containment
    assert restoring is not None
    assert not restoring.denies


def test_the_same_causes_again_add_nothing() -> None:
    decision = plan(order(), opened())

    assert decision.outcome is PlanOutcome.NOTHING
    assert decision.drafts == ()


@pytest.mark.requirement("GTR-13")
def test_a_new_cause_logs_out_again_but_calls_no_app_twice_at_once() -> None:
    situation = with_state(added(opened()), TaskKind.IDP_LOGOUT, state=TaskState.DONE)

    decision = plan(order(causes=(cause(), cause("password"))), situation)

    assert decision.outcome is PlanOutcome.ATTACHED
    assert [one.detection_id for one in decision.attached] == ["det_password"]
    # The app logouts of the first round are still queued and serve both.
    assert kinds(decision) == [TaskKind.IDP_LOGOUT, TaskKind.NOTIFY]
    assert decision.drafts[-1].payload.event_type == "containment.updated"


def test_a_cause_that_goes_while_another_stays_is_told_and_changes_nothing_else() -> None:
    both = (cause(), cause("password"))
    situation = added(opened(causes=both))

    decision = plan(order(causes=(cause("password"),)), situation)

    assert decision.outcome is PlanOutcome.UPDATED
    assert decision.cleared == ("det_device",)
    assert kinds(decision) == [TaskKind.NOTIFY]
    assert "the device is compromised" in decision.drafts[0].payload.note
    assert decision.containment is not None
    assert decision.containment.state is ContainmentState.OPEN


def test_a_remaining_cause_keeps_it_open_although_policy_wants_nothing_any_more() -> None:
    situation = added(opened(causes=(cause(), cause("password"))))

    decision = plan(clean(level="HIGH", causes=(cause("password"),)), situation)

    assert decision.outcome is PlanOutcome.UPDATED
    assert not decision.cancelled


def test_what_only_together_made_high_lets_go_when_the_rest_asks_for_no_quarantine() -> None:
    """A cause that was left at MEDIUM kept its user in quarantine until it aged, a fortnight."""
    situation = added(opened(causes=(cause(), cause("travel"))))

    decision = plan(
        order(level="MEDIUM", causes=(cause("travel"),), actions=frozenset({Action.NOTIFY})),
        situation,
    )

    assert decision.outcome is PlanOutcome.RESTORING
    assert decision.cleared == ("det_device", "det_travel")
    assert TaskKind.QUARANTINE_REMOVE in kinds(decision)


def test_a_lower_level_keeps_the_quarantine_that_policy_still_orders() -> None:
    situation = added(opened(causes=(cause(), cause("travel"))))

    decision = plan(order(level="MEDIUM", causes=(cause("travel"),)), situation)

    assert decision.outcome is PlanOutcome.UPDATED


def test_the_last_cause_gone_cancels_what_waits_and_removes_the_member_we_added() -> None:
    situation = added(opened())

    decision = plan(clean(), situation)

    assert decision.outcome is PlanOutcome.RESTORING
    cancelled = {task.kind for task in situation.tasks if task.task_id in decision.cancelled}
    assert cancelled == {
        TaskKind.IDP_LOGOUT,
        TaskKind.APP_LOGOUT,
        TaskKind.PUBLISH_SESSION_REVOKED,
    }
    (undo,) = decision.drafts
    assert undo.kind is TaskKind.QUARANTINE_REMOVE
    assert (undo.payload.scim_user_id, undo.payload.group_id) == ("2a91", kit.GROUP)
    assert undo.undo_of == situation.tasks[0].task_id
    assert undo.lane == situation.tasks[0].lane


@pytest.mark.requirement("SCC-19")
def test_a_member_who_was_there_before_us_is_left_in() -> None:
    situation = with_state(
        opened(),
        TaskKind.QUARANTINE_ADD,
        state=TaskState.DONE,
        p_scim_user_id="2a91",
        p_was_member=True,
    )

    decision = plan(clean(), situation)

    assert decision.outcome is PlanOutcome.CLOSED
    assert [draft.payload.event_type for draft in decision.drafts] == ["containment.closed"]


def test_an_addition_that_never_began_needs_no_undo() -> None:
    decision = plan(clean(), opened())

    assert decision.outcome is PlanOutcome.CLOSED
    assert TaskKind.QUARANTINE_REMOVE not in kinds(decision)


@pytest.mark.requirement("SCC-19")
@pytest.mark.parametrize("state", [TaskState.QUEUED, TaskState.FAILED, TaskState.CANCELLED])
def test_an_addition_that_may_have_reached_the_idp_is_taken_back(state: TaskState) -> None:
    situation = with_state(
        opened(), TaskKind.QUARANTINE_ADD, state=state, p_scim_user_id="2a91", p_was_member=False
    )

    assert TaskKind.QUARANTINE_REMOVE in kinds(plan(clean(), situation))


def test_several_identity_providers_are_undone_in_reverse() -> None:
    registry = Registry(apps=(kit.idp("app_a"), kit.idp("app_b")))
    situation = added(after(plan(order(), registry=registry), None))

    decision = plan(clean(), situation, registry=registry)

    assert [draft.app_id for draft in decision.drafts] == ["app_b", "app_a"]


@pytest.mark.requirement("SCC-19")
def test_a_new_cause_while_restoring_contains_again_and_still_knows_the_member_is_ours() -> None:
    restoring = after(plan(clean(), situation := added(opened())), situation)

    decision = plan(order(causes=(cause("password"),)), restoring)

    assert decision.outcome is PlanOutcome.REOPENED
    removal = next(t for t in restoring.tasks if t.kind is TaskKind.QUARANTINE_REMOVE)
    assert removal.task_id in decision.cancelled
    # The cancelled removal may be under way, so the addition is made again, behind it.
    addition = decision.drafts[0]
    assert (addition.kind, addition.lane) == (TaskKind.QUARANTINE_ADD, removal.lane)
    assert addition.payload.was_member is False
    reopened = after(decision, restoring)
    undo = plan(clean(), reopened)
    assert kinds(undo).count(TaskKind.QUARANTINE_REMOVE) == 1


def test_after_a_removal_that_worked_the_member_is_added_again_as_ours() -> None:
    situation = added(opened())
    restoring = with_state(
        after(plan(clean(), situation), situation),
        TaskKind.QUARANTINE_REMOVE,
        state=TaskState.DONE,
    )

    decision = plan(order(causes=(cause("password"),)), restoring)

    addition = decision.drafts[0]
    assert addition.kind is TaskKind.QUARANTINE_ADD
    assert addition.payload.was_member is False
    assert addition.payload.scim_user_id == "2a91"


def test_a_containment_that_restores_is_left_alone_by_an_order_that_wants_nothing() -> None:
    situation = added(opened())
    restoring = after(plan(clean(), situation), situation)

    assert plan(clean(), restoring).outcome is PlanOutcome.NOTHING


def test_a_failed_addition_is_tried_again_by_a_new_cause() -> None:
    situation = with_state(opened(), TaskKind.QUARANTINE_ADD, state=TaskState.FAILED)

    decision = plan(order(causes=(cause(), cause("password"))), situation)

    assert TaskKind.QUARANTINE_ADD in kinds(decision)


def test_beyond_the_limit_a_containment_is_held_and_does_nothing() -> None:
    decision = plan(order(), admitted=False)

    assert decision.outcome is PlanOutcome.HELD
    assert decision.drafts == ()
    assert decision.containment is not None
    assert not decision.containment.denies
    assert decision.containment.enforced_at is None


def test_a_held_containment_opens_when_the_limit_allows_it() -> None:
    held = after(plan(order(), admitted=False), None)

    assert plan(order(), held, admitted=False).outcome is PlanOutcome.HELD
    decision = plan(order(), held)
    assert decision.outcome is PlanOutcome.OPENED
    assert decision.drafts[-1].payload.event_type == "containment.opened"


def test_a_held_containment_does_not_slip_through_with_a_milder_order() -> None:
    held = after(plan(order(), admitted=False), None)

    milder = order(actions=frozenset({Action.NOTIFY}))
    assert plan(milder, held, admitted=False).outcome is PlanOutcome.HELD


def test_a_held_containment_closes_silently_when_its_cause_goes() -> None:
    held = after(plan(order(), admitted=False), None)

    decision = plan(clean(), held)
    assert (decision.outcome, decision.drafts) == (PlanOutcome.CLOSED, ())


def test_the_order_behind_a_held_containment_is_the_one_that_was_held() -> None:
    held = after(plan(order(), admitted=False), None)

    again = order_of(held)
    assert (again.actions, again.level) == (ALL, "HIGH")
    assert [one.detection_id for one in again.causes] == ["det_device"]


def test_more_actions_for_the_same_cause_are_carried_out() -> None:
    situation = opened(level="MEDIUM", actions=frozenset({Action.NOTIFY}))

    decision = plan(order(), situation)

    assert decision.outcome is PlanOutcome.ATTACHED
    assert TaskKind.QUARANTINE_ADD in kinds(decision)
    assert decision.containment is not None
    assert decision.containment.enforced_at == NOW


def test_streams_and_inactive_apps_are_not_called() -> None:
    stream = kit.app("app_s", logout=(LogoutSetting(method=LogoutMethod.SSF),))
    off = kit.app("app_off", status="inactive")

    decision = plan(order(), registry=Registry(apps=(stream, off)))

    assert kinds(decision) == [TaskKind.PUBLISH_SESSION_REVOKED]


@pytest.mark.requirement("WH-9")
def test_a_webhook_gets_only_the_events_it_wants() -> None:
    wants = kit.webhook("whk_2", events=("containment.closed",))
    registry = Registry(webhooks=(kit.webhook(), wants))

    drafts = plan(order(), registry=registry).drafts

    assert [draft.webhook_id for draft in drafts if draft.webhook_id] == ["whk_1"]


def test_the_next_stage_is_pulled_when_the_earlier_ones_are_settled() -> None:
    situation = opened()
    assert due_to_pull(situation.tasks, NOW) == ()

    left = [task for task in situation.tasks if task.stage != Stage.QUARANTINE]
    assert due_to_pull(left, NOW) == tuple(task.task_id for task in left if task.stage == Stage.IDP)


def test_a_task_that_backs_off_is_not_pulled() -> None:
    waiting = [replace(task, attempts=1) for task in opened().tasks if task.stage == Stage.IDP]

    assert due_to_pull(waiting, NOW) == ()


def test_a_containment_is_restored_when_the_latest_removal_is_settled() -> None:
    situation = added(opened())
    restoring = after(plan(clean(), situation), situation)

    def moved(state: TaskState) -> bool:
        return is_restored(with_state(restoring, TaskKind.QUARANTINE_REMOVE, state=state).tasks)

    assert not is_restored(restoring.tasks)
    assert not moved(TaskState.FAILED)
    assert moved(TaskState.DONE)
    assert moved(TaskState.CANCELLED)


@pytest.mark.parametrize(
    ("users", "limit"), [(0, 3), (10, 3), (150, 3), (200, 4), (1000, 20), (1250, 25), (10**6, 25)]
)
def test_the_blast_radius_is_two_per_cent_between_three_and_twenty_five(
    users: int, limit: int
) -> None:
    assert containments_max(users) == limit


def test_a_target_is_what_lanes_share() -> None:
    assert target_of_lane("logout|app_1|gtr:usr_1") == "logout|app_1"


ACTIONS = st.frozensets(st.sampled_from([*Action, "REQUIRE_STEP_UP_NEXT"]), max_size=4)
CAUSES = st.lists(st.sampled_from([cause(name) for name in "abc"]), max_size=3, unique=True)
STEP = st.tuples(ACTIONS, CAUSES, st.booleans(), st.sampled_from([None, *TaskState]))


@given(steps=st.lists(STEP, max_size=8))
def test_whatever_is_ordered_an_active_cause_never_lets_go_and_only_our_members_go(
    steps: list[tuple[frozenset[str], list[Any], bool, TaskState | None]],
) -> None:
    situation: Situation | None = None
    keys: list[str] = []
    for actions, causes, admitted, moved in steps:
        wanted = order(actions=actions, causes=tuple(causes))
        decision = plan(wanted, situation, admitted=admitted)
        if decision.containment is None and situation is None:
            continue
        situation = after(decision, situation)
        keys += [draft.key for draft in decision.drafts if ":cleared:" not in draft.key]
        check(decision, situation, wanted)
        if moved is not None:
            situation = with_state(
                situation,
                TaskKind.QUARANTINE_ADD,
                state=moved,
                p_scim_user_id="2a91",
                p_was_member=False,
            )
        if situation.containment.state is ContainmentState.CLOSED:
            situation, keys = None, []
        assert len(keys) == len(set(keys))


def check(decision: Decision, situation: Situation, wanted: ContainmentOrder) -> None:
    """The invariants of planning."""
    if decision.outcome in {PlanOutcome.CLOSED, PlanOutcome.RESTORING}:
        assert all(one.cleared_at for one in situation.causes)
        assert not wanted.actions & frozenset(Action)
    if decision.outcome is PlanOutcome.HELD:
        assert decision.drafts == ()
    removals = [d for d in decision.drafts if d.kind is TaskKind.QUARANTINE_REMOVE]
    assert all(draft.payload.was_member is False for draft in removals)
