"""What is settled about the contexts of a session, in the database: who was first, what is read."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from risk.inline.model import Stand, StandState, settle
from risk.inline.service import settle_stands
from risk.inline.store import STANDS_MAX, newest_stands, stand_marks_of, write_stands
from risk.policies.ages import EXPRESSION_BELIEVED_S, Ages
from risk.policies.documents import PolicyKind, parse_policy
from runtime.clock import SystemClock
from runtime.database import Database

TENANT = "default"
NOW = SystemClock().now()


def stand_at(number: int, state: StandState) -> Stand:
    """Return what was settled some seconds from now about a context of its own."""
    at = NOW + timedelta(seconds=number)
    return Stand(
        tenant_id=TENANT,
        session_id="ses_1",
        context_key=f"key-{number}",
        state=state.value,
        level="LOW",
        decision="ALLOW",
        scope="session",
        at=at,
        since=at,
        context={"ip": "198.51.100.7"},
    )


@pytest.mark.parametrize(("number", "is_first"), [(1, True), (9, False)])
async def test_a_session_begins_with_who_was_seen_first_in_whatever_process(
    database: Database, *, number: int, is_first: bool
) -> None:
    """The owner's first context is written behind the answer, a stranger's before it."""
    async with database.transaction() as connection:
        await settle_stands(connection, [stand_at(5, StandState.DENIED)])
        (settled,) = await settle_stands(connection, [stand_at(number, StandState.ANCHOR)])
    assert settled.is_new is is_first


async def test_known_contexts_are_read_however_many_others_there_are(database: Database) -> None:
    many = STANDS_MAX + 10
    known = [stand_at(number, StandState.ACCEPTED) for number in range(1, many)]
    others = [stand_at(number, StandState.TERMINATED) for number in range(many, many * 2)]
    async with database.transaction() as connection:
        await write_stands(connection, [stand_at(0, StandState.ANCHOR), *known, *others])
        found = (await newest_stands(connection, TENANT, session_ids=["ses_1"]))["ses_1"]
        marks = (await stand_marks_of(connection, TENANT, session_ids=["ses_1"]))["ses_1"]
    assert {each.context_key: each.mark for each in found} == marks
    assert [each.at for each in found] == sorted((each.at for each in found), reverse=True)
    kept = {each.context_key for each in found}
    assert {"key-0", f"key-{many - 1}", f"key-{many}", f"key-{many * 2 - 1}"} <= kept
    assert len([each for each in found if each.is_known]) == STANDS_MAX + 1
    assert len(found) == 2 * (STANDS_MAX + 1)


def test_a_proof_is_asked_for_anew_only_by_who_knew_it() -> None:
    passed = stand_at(1, StandState.PASSED)
    asked = msgspec.structs.replace(stand_at(9, StandState.ASKED), context_key="key-1")
    assert not settle(passed, asked).is_new
    late = msgspec.structs.replace(asked, outdated=passed.at - timedelta(seconds=1))
    # Another process heard of a newer proof meanwhile.
    assert not settle(passed, late).is_new
    anew = settle(passed, msgspec.structs.replace(asked, outdated=passed.at))
    assert (anew.is_new, anew.stand.state, anew.stand.is_known) == (True, "asked", True)


@pytest.mark.parametrize(
    ("rule", "age_s", "left_s"),
    [
        ({"when": {"auth_age": {"over_s": 60}}}, 10.0, 50.0),
        ({"when": {"auth_age": {"over_s": 60}}}, 60.0, 0.0),
        ({"when": {"auth_age": {"over_s": 60}}}, 61.0, None),
        ({"when": {"auth_age": {"over_s": 60, "within_s": 90}}}, 61.0, 29.0),
        ({"when": {"auth_age": {"over_s": 60}}}, None, None),
        ({"then": {"decision": "STEP_UP", "max_age": 60}}, 10.0, 55.0),
        ({"then": {"decision": "STEP_UP", "max_age": 0}}, 10.0, None),
        ({"when": {"expression": "auth_age_s > 60.0"}}, 10.0, EXPRESSION_BELIEVED_S),
        ({"when": {"expression": "level >= HIGH"}}, 10.0, None),
    ],
)
def test_a_decision_holds_until_the_next_age_that_a_rule_names(
    rule: dict[str, object], age_s: float | None, left_s: float | None
) -> None:
    whole = {"name": "rule", "priority": 1, "then": {"decision": "DENY"}} | rule
    kind = PolicyKind.GLOBAL_SESSION
    policy = parse_policy({"rules": [whole]}, policy_id="global-session", kind=kind)
    until = Ages(policy.rules).until(age_s, NOW)
    assert until == (None if left_s is None else NOW + timedelta(seconds=left_s))
